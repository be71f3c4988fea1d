"""Counts of a run as it goes: what displays show, budgets compare, and metrics.json holds. Constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rollforge.records.items import Json
from rollforge.records.rollout import Outcome, Rollout


@dataclass(slots=True)
class Tally:
    planned: int | None = None
    """Rollouts in the whole plan; None if it was not counted (a long generator)."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """Of the rollouts that ended for good, earlier sessions of the run included."""
    reward_sum: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    before: int = 0
    """How many had ended when this session began."""
    started: int = 0
    """In this session."""
    in_flight: int = 0
    attempts: int = 0
    """Made in this session."""
    retries: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Of this session's attempts that had no reward: "outcome in stage"."""
    infra_faults: int = 0
    last_failure: str = ""
    session_in: int = 0
    session_out: int = 0
    bad_lines: int = 0
    began: float = field(default_factory=monotonic)

    @property
    def done(self) -> int:
        return self.outcomes.total()

    @property
    def judged(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.judged)

    @property
    def mean(self) -> float | None:
        """Of the rewards there are: to be read with `coverage`."""
        return self.reward_sum / self.judged if self.judged else None

    @property
    def coverage(self) -> float:
        """Rollouts with a reward over rollouts planned."""
        planned = self.planned if self.planned is not None else self.before + self.started
        return self.judged / planned if planned else 0.0

    @property
    def session_tokens(self) -> int:
        return self.session_in + self.session_out

    def cost(self, price_in: float, price_out: float) -> float:
        """Of this session, at prices per million tokens."""
        return (self.session_in * price_in + self.session_out * price_out) / 1e6

    def count(self, rollout: Rollout, final: bool) -> None:
        """An attempt that ended now; `final` if there will be no other."""
        usage = (rollout.response or {}).get("usage")
        tokens_in, tokens_out = _tokens(usage)
        self.attempts += 1
        self.session_in += tokens_in
        self.session_out += tokens_out
        if rollout.failure is not None:
            what = f"{rollout.outcome} in {rollout.failure.stage}"
            self.faults[what] += 1
            self.infra_faults += rollout.outcome is Outcome.INFRA_FAULT
            self.last_failure = f"{what}: {rollout.failure.message}"
        if final:
            self._add(rollout.outcome, rollout.reward, tokens_in, tokens_out)

    def count_before(self, outcome: Outcome, reward: float | None, usage: Mapping[str, Any] | None) -> None:
        """A rollout that an earlier session finished."""
        self.before += 1
        self._add(outcome, reward, *_tokens(usage))

    def _add(self, outcome: Outcome, reward: float | None, tokens_in: int, tokens_out: int) -> None:
        self.outcomes[outcome] += 1
        self.reward_sum += reward or 0.0
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out

    def row(self) -> Json:
        """What metrics.json holds: the whole run. The counts of `outcomes` sum to `planned`."""
        outcomes = {str(outcome): self.outcomes[outcome] for outcome in Outcome}
        if self.planned is not None:
            outcomes[Outcome.CANCELLED] += self.planned - self.done
        return {
            "planned": self.planned,
            "outcomes": outcomes,
            "coverage": self.coverage,
            "mean_reward": self.mean,
            "tokens": {"input": self.tokens_in, "output": self.tokens_out},
        }


def _tokens(usage: Mapping[str, Any] | None) -> tuple[int, int]:
    usage = usage or {}
    return usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
