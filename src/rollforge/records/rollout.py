"""A rollout: one attempt of a model at one task, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, PolicyFault, RolloutError, VerifierFault
from rollforge.records.items import Json, Params, Response, cut_short, mapping


class Outcome(StrEnum):
    """Every planned rollout ends in exactly one. Only the first two have a reward."""

    SCORED = "scored"
    POLICY_FAULT = "policy_fault"
    """The policy itself made the attempt worthless: a justified 0."""
    INFRA_FAULT = "infra_fault"
    JUDGE_FAULT = "judge_fault"
    VERIFIER_FAULT = "verifier_fault"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"

    @property
    def judged(self) -> bool:
        return self in (Outcome.SCORED, Outcome.POLICY_FAULT)


def outcome_for(error: RolloutError) -> Outcome:
    """What an attempt ends in that ended with this error."""
    return next(_OUTCOMES[kind] for kind in type(error).__mro__ if kind in _OUTCOMES)


_OUTCOMES: dict[type, Outcome] = {
    PolicyFault: Outcome.POLICY_FAULT,
    InfraFault: Outcome.INFRA_FAULT,
    JudgeFault: Outcome.JUDGE_FAULT,
    VerifierFault: Outcome.VERIFIER_FAULT,
    DeadlineExceeded: Outcome.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no reward (or why it is a justified 0)."""

    stage: str
    """Where: open, model, tools, agent, verify, close, rollout."""
    type: str
    message: str
    retryable: bool = False
    """Whether another attempt at the whole rollout could end differently."""


@dataclass(frozen=True, slots=True)
class Rollout:
    params: Params
    """The task's `responses_create_params`, with the sampling parameters that were used."""
    response: Response | None
    """The whole conversation after the prompt; None if the attempt failed before the first answer."""
    reward: float | None
    """A number exactly when `outcome.judged`."""
    outcome: Outcome
    fields: dict[str, Any] = field(default_factory=dict)
    """All other top-level fields: the task's, then the verdict's (metrics, reward_components, extracted answers)."""
    task: str = ""
    """The task's id: rollouts with the same one form a group."""
    task_index: int | None = None
    index: int | None = None
    """Which repeat of the task this is, from 0."""
    attempt: int = 1
    model: str | None = None
    env: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """total, model, tools, verify: wall-clock seconds."""
    failure: Failure | None = None
    token_drift: int | None = None
    """The first model call whose prompt does not extend the tokens before it; None if contiguous or without token ids."""
    extra: Json = field(default_factory=dict)
    """Keys of the row's `rollforge` block that this version does not know."""

    @property
    def output(self) -> list[Json]:
        return (self.response or {}).get("output") or []

    @property
    def incomplete(self) -> str | None:
        """Why the response was cut short (`max_output_tokens`, `max_turns`, ...); None if it was not."""
        response = self.response or {}
        return cut_short(response.get("incomplete_details"), response.get("status"))

    @property
    def task_fields(self) -> Json:
        """`fields`, with the task's own where the verdict has others of the same name."""
        return {**self.fields, **mapping(self.extra.get("task_fields"))}
