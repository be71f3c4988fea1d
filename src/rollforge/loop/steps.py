"""The steps that a loop takes, as functions: each has a directory of its own, and called again it goes on."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from rollforge.collect.config import CollectConfig
from rollforge.collect.run import Collection, Summary
from rollforge.evaluate.config import EvalConfig
from rollforge.evaluate.paired import compare_runs
from rollforge.evaluate.run import Around, evaluate
from rollforge.records.items import Json
from rollforge.stats.estimate import Mean, finite
from rollforge.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Measured:
    """A policy on the tasks that are held out."""

    runs: Path
    """The directory of its runs."""
    reward: Json
    """value, low, high."""
    rollouts: int
    tasks: int
    stopped: str | None = None
    """Why not all was played, if so."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two policies on the same tasks and draws."""

    difference: Json
    """value, low, high."""
    p_value: float
    worse: bool
    """Significantly."""


class Steps(Protocol):
    """What curates and exports is not among them: nobody needs another."""

    def ready(self, config: TrainConfig, /) -> None:
        """Raises `UserError` if something that training needs is not there."""
        ...

    def collect(self, config: CollectConfig, /) -> Summary: ...
    def train(self, config: TrainConfig, /) -> Path:
        """The directory of the trained model."""
        ...

    def evaluate(self, config: EvalConfig, /) -> Measured: ...
    def compare(self, before: Path, after: Path, /) -> Compared: ...


class RealSteps:
    """`around` is entered for each collection, to show how it goes."""

    def __init__(self, around: Around = nullcontext) -> None:
        self._around = around

    def ready(self, config: TrainConfig, /) -> None:
        from rollforge.train.policy import checkpoint, need_for

        need_for(config)
        checkpoint(config.model)

    def collect(self, config: CollectConfig, /) -> Summary:
        collection = Collection(config)
        with self._around(collection):
            return asyncio.run(collection.run())

    def train(self, config: TrainConfig, /) -> Path:
        from rollforge.train.run import train

        return train(config).model

    def evaluate(self, config: EvalConfig, /) -> Measured:
        done = asyncio.run(evaluate(config, self._around))
        if not done.models:  # stopped before a rollout had ended
            return Measured(done.path, {}, 0, 0, done.stopped)
        overall = done.models[0].overall
        uncovered = (
            f"eval: {overall.judged} of {overall.planned} rollouts have a reward, less than eval.min_coverage wants; mend "
            "what failed and run the loop again with `retry_failed: true`, or lower it"
            if done.uncovered
            else None
        )
        # Not that of the evaluation: it may hold those of another model that was named there first, by mistake.
        runs = next(iter(done.models[0].runs.values()))[0].parent
        return Measured(runs, _mean(overall.reward), overall.judged, overall.tasks, done.stopped or uncovered)

    def compare(self, before: Path, after: Path, /) -> Compared:
        found = compare_runs(before, after)
        return Compared(_mean(found.difference), found.p_value, found.significant and (found.difference.value or 0) < 0)


def _mean(mean: Mean) -> Json:
    row: Json = finite(asdict(mean))
    return {key: row[key] for key in ("value", "low", "high")}
