"""Counts of a run as it goes: what displays show, budgets compare, and metrics.json holds. Constant memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rollforge.records.items import Json, token_count
from rollforge.records.rollout import Outcome, Rollout

HOPELESS_ATTEMPTS, HOPELESS_TASKS = 20, 3
"""A session whose first attempts all fail for outside reasons, as many as this and of as many tasks, is hopeless. One task
is not enough: its prompt may be what the server refuses."""


@dataclass(slots=True)
class Tally:
    planned: int | None = None
    """Rollouts in the whole plan; None if it was not counted (a long generator)."""
    outcomes: Counter[Outcome] = field(default_factory=lambda: Counter(dict.fromkeys(Outcome, 0)))
    """Of the rollouts that ended for good, earlier sessions of the run included. All keys are there from the beginning: a
    display reads it from another thread."""
    unjudged: int = 0
    """Of the verifier faults among them, those of a verification: there is an answer that a mended verifier can judge."""
    reward_sum: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    before: int = 0
    """How many had ended when this session began."""
    started: int = 0
    """In this session."""
    live: dict[asyncio.Task[Any], float] = field(default_factory=dict)
    """What is in flight, named after its task and repeat, and when it began; the oldest first."""
    attempts: int = 0
    """Made in this session."""
    retries: int = 0
    seconds: float = 0.0
    """That the attempts took."""
    faults: Counter[str] = field(default_factory=Counter)
    """Of this session's attempts that had no reward: "outcome in stage"."""
    last_failure: str = ""
    outside_faults: int = 0
    """Attempts that failed and may be made again."""
    outside_tasks: set[int | None] = field(default_factory=set)
    """The first tasks of those, at most HOPELESS_TASKS."""
    session_in: int = 0
    session_out: int = 0
    uncounted: int = 0
    """This session's attempts that were answered, and for which no token was counted."""
    bad_lines: int = 0
    began: float = field(default_factory=monotonic)

    @property
    def in_flight(self) -> int:
        return len(self.live)

    @property
    def done(self) -> int:
        return self.outcomes.total()

    @property
    def total(self) -> int:
        """Rollouts planned, or, where nobody could count them, begun."""
        return self.planned if self.planned is not None else self.before + self.started

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
        return self.judged / self.total if self.total else 0.0

    @property
    def session_tokens(self) -> int:
        return self.session_in + self.session_out

    @property
    def hopeless(self) -> bool:
        return HOPELESS_ATTEMPTS <= self.attempts == self.outside_faults and len(self.outside_tasks) >= HOPELESS_TASKS

    def cost(self, price_in: float, price_out: float) -> float:
        """Of this session, at prices per million tokens."""
        return (self.session_in * price_in + self.session_out * price_out) / 1e6

    def count(self, rollout: Rollout, final: bool) -> None:
        """An attempt that ended now; `final` if there will be no other."""
        tokens_in, tokens_out = _tokens((rollout.response or {}).get("usage"))
        self.attempts += 1
        self.seconds += rollout.seconds.get("total", 0.0)
        self.session_in += tokens_in
        self.session_out += tokens_out
        answered = (rollout.response or {}).get("output") and (
            rollout.failure is None or rollout.failure.stage not in ("model", "agent")
        )
        self.uncounted += bool(answered and not tokens_in + tokens_out)
        if rollout.failure is not None and not rollout.outcome.judged:
            what = f"{rollout.outcome} in {rollout.failure.stage}"
            self.faults[what] += 1
            self.last_failure = f"{what}: {rollout.failure.message}"
            if rollout.failure.retryable:
                self.outside_faults += 1
                if len(self.outside_tasks) < HOPELESS_TASKS:
                    self.outside_tasks.add(rollout.task_index)
        if final:
            stage = rollout.failure.stage if rollout.failure else None
            self._add(rollout.outcome, rollout.reward, tokens_in, tokens_out, stage)

    def count_before(self, outcome: Outcome, reward: float | None, usage: Any, stage: str | None = None) -> None:
        """A rollout that an earlier session finished, and the stage in which it failed."""
        self.before += 1
        self._add(outcome, reward, *_tokens(usage), stage)

    def _add(self, outcome: Outcome, reward: float | None, tokens_in: int, tokens_out: int, stage: str | None) -> None:
        self.outcomes[outcome] += 1
        self.unjudged += outcome is Outcome.VERIFIER_FAULT and stage == "verify"
        self.reward_sum += reward or 0.0
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out

    def row(self) -> Json:
        """What metrics.json holds: the whole run. The counts of `outcomes` sum to `planned`, if that is known."""
        outcomes = {str(outcome): self.outcomes[outcome] for outcome in Outcome}
        outcomes[Outcome.CANCELLED] += max(0, self.total - self.done)
        return {
            "planned": self.planned,
            "outcomes": outcomes,
            "coverage": self.coverage,
            "mean_reward": self.mean,
            "tokens": {"input": self.tokens_in, "output": self.tokens_out},
        }


def _tokens(usage: Any) -> tuple[int, int]:
    """As a server reported them: it may say anything."""
    given = usage if isinstance(usage, Mapping) else {}
    tokens_in, tokens_out = (given.get(name) for name in ("input_tokens", "output_tokens"))
    return token_count(tokens_in), token_count(tokens_out)
