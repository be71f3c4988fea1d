"""The Model protocol: one request in, one response out.

A model is any async callable. It raises `InfraFault` when this call failed and another may succeed,
`DeadlineExceeded` when it took too long, `SetupError` when no call of this run can succeed (wrong key, wrong URL,
unknown model), and nothing else on purpose. One that holds connections or threads also has `async def aclose()`,
called once by whoever built it; one that keeps the deadline of its calls itself, and can say more about it, has
`keeps_deadline = True`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rollforge.records.items import Params, Response
from rollforge.records.task import Task


@dataclass(frozen=True, slots=True)
class Request:
    """One model call."""

    params: Params
    """Responses create params, `input` always a list of items: the prompt and everything since. Sampling parameters that
    Responses lacks (seed, stop, top_k, min_p, repetition_penalty, ...) stand beside the others by their usual names."""
    task: Task | None = None
    """For policies that act by knowing the task (scripted, replay). Never sent anywhere."""
    rollout: str = ""
    """Names the attempt; calls with the same name belong to one conversation (session affinity, caches)."""
    index: int = 0
    """Which repeat of the task this is."""
    seed: int = 0
    """For local policies: the draw of this call. A server gets `params["seed"]` instead, and only if the run set one."""


class Model(Protocol):
    async def __call__(self, request: Request, /) -> Response: ...


Solution = Generator[tuple[str, Mapping[str, Any]] | str, str, str]
"""A reference policy for one task: yields (tool name, arguments), is sent the tool's output, returns the final reply. In an
environment that is played by steps it yields what it says, and is sent the observation; what it returns is said too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What a run may say about its model, beside its name; each backend uses what applies to it."""

    base_urls: tuple[str, ...] = ()
    api_key_env: str | None = None
    """The environment variable that holds the key; the backend's usual one if None. The key itself is never stored."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Merged into every request body last: what a server wants and this package has no name for."""
    connect_seconds: float = 10.0
    call_seconds: float = 600.0
    """Deadline of one model call, retries included."""
    retries: int = 4
    """Further tries of one HTTP request after a retryable failure."""
    solve: Callable[[Task], Solution] | None = None
    """The environment's reference policy, for `scripted`."""


class Backend(Protocol):
    """What a model module's `load` is: a name such as `chat:Qwen/Qwen3-8B` without its prefix (None: just `chat`)."""

    def __call__(self, name: str | None, options: ModelOptions, /) -> Model: ...
