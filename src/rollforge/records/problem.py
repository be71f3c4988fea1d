"""The one shape of every error answer of a service, and which error becomes which.

    {"type": "error", "error": {"type": ..., "message": ..., "code": null, "param": null, ...}, "request_id": ...}

The SDKs of OpenAI (`error.message`) and of Anthropic (`type: error`) both read it. A fault of a rollout keeps its name
across the hop: `raised` is the inverse of `problem_of`, so that an infrastructure fault behind three services is still one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforge.errors import (
    DeadlineExceeded,
    InfraFault,
    JudgeFault,
    PolicyFault,
    RolloutError,
    SetupError,
    UserError,
    VerifierFault,
)
from rollforge.records.items import Json

FAULTS: dict[str, tuple[type[RolloutError] | type[SetupError], int]] = {
    "policy_fault": (PolicyFault, 422),
    "infra_fault": (InfraFault, 502),
    "judge_fault": (JudgeFault, 502),
    "verifier_fault": (VerifierFault, 422),
    "timeout": (DeadlineExceeded, 504),
    # No call can succeed (a wrong key, say): a status that no client repeats.
    "setup_error": (SetupError, 424),
}
"""Error type on the wire -> exception and status."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header that names the opening of a session: asked for again by the same name, it is the same session."""

TOOL_ERROR = "X-Rollforge-Tool-Error"
"""The header that says that a tool's text is an error, for who wants to know; the policy reads it like any other."""


class Problem(Exception):
    """A request that gets an error as its answer. `message` is for the caller: no secrets, no traceback."""

    def __init__(
        self, status: int, type: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.headers = dict(headers or {})
        self.more = more
        """Further keys of the `error` object: code, param, stage, retryable, partial."""

    def row(self, request_id: str) -> Json:
        error = {"type": self.type, "message": self.message, "code": None, "param": None, **self.more}
        return {"type": "error", "error": error, "request_id": request_id}


def bad_request(message: str, *, param: str | None = None, status: int = 400) -> Problem:
    return Problem(status, "invalid_request_error", message, param=param)


def problem_of(error: BaseException) -> Problem | None:
    """The answer to an exception that this package raises on purpose; None for any other, which is a bug."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UserError):
        return bad_request(str(error))
    for name, (kind, status) in FAULTS.items():
        if isinstance(error, kind):
            more: Json = {}
            if isinstance(error, RolloutError):
                more = {"stage": error.stage, **({"partial": error.partial} if error.partial else {})}
            return Problem(status, name, str(error), **more)
    if isinstance(error, RolloutError):
        return Problem(502, "infra_fault", str(error), stage=error.stage)
    return None


def is_fault(body: Any) -> bool:
    """Whether an error answer names the fault that it is: of this very call, and not of the way to it."""
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and str(error.get("type")) in FAULTS


def raised(status: int, body: Any, where: str) -> RolloutError | SetupError:
    """The exception that an error answer stands for: the fault it names, else what its status says.

    Also of servers that are not ours (NeMo Gym answers a bare string, FastAPI `{"detail": ...}`): a 5xx, 408 or 429 is an
    `InfraFault`, any other status an `InfraFault` too, since a refusal of the request is no verdict on the policy.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and is_fault(body):
        kind, _ = FAULTS[error["type"]]
        found = kind(str(error.get("message") or ""))
        if isinstance(found, RolloutError):
            stage = error.get("stage")
            found.stage = stage if isinstance(stage, str) else None  # type: ignore[assignment]
            found.partial = error.get("partial")
        return found
    if isinstance(error, dict):
        text = error.get("message")
    elif isinstance(body, dict):
        text = body.get("detail") or body.get("message") or error
    else:
        text = body
    return InfraFault(f"{where} answered {status}: {str(text or 'nothing')[:500]}")
