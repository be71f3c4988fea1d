"""Several runs or environments in the proportions of their weights, each row labelled with its `task_name`.

A weight's name is a run (as it was given, or its last part without ending) or an environment. What has no weight is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from rollforge.config import Section
from rollforge.curate.balance import Pool, check_weights, of_runs, share_out
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import unknown
from rollforge.stats.source import SPLITS
from rollforge.stats.thresholds import FEW


class MixArgs(Section):
    weights: dict[str, float]
    """By run or environment; only their proportions count."""
    total: int | None = Field(None, ge=1)
    """Rows of the mix. None: as many as the scarcest part allows; with `upsample` as many as there are."""
    upsample: bool = False
    """Repeat rows of parts that are too small."""
    min_per_task: int = FEW
    """Warn about parts with fewer rows (NeMo RL's pages on multi-task training: 100 to 500 at least)."""
    keep_overflow: bool = True
    """Write what is dropped here to dropped.jsonl, whether or not the other drops are kept."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        check_weights(self.weights, "weights")
        return self


def steps(args: MixArgs) -> list[Step]:
    return [Mix(args)]


class Mix:
    """Reads its samples twice: counts, then the choice. Eight bytes of memory a sample."""

    facts: Mapping[str, Fact] = {}

    def __init__(self, args: MixArgs) -> None:
        self._args = args
        self.name = "mix " + ", ".join(f"{name} {weight:g}" for name, weight in args.weights.items())
        self.keep_dropped = args.keep_overflow

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        args, weights = self._args, self._args.weights
        parts = [next((name for name in (run, short(run)) if name in weights), None) for run in work.runs]
        envs: set[str] = set()

        def category(sample: Sample) -> str:
            envs.add(sample.env)
            return (parts[sample.source] if parts else None) or sample.env

        pool = Pool(samples, work, category)
        try:
            for name in weights:
                if name not in pool.sizes and pool.sizes:
                    known = {*envs, *map(short, work.runs)}
                    raise unknown(
                        "run or environment", name, known, f"(with rows left of {of_runs(work)}, in the weights of mix)"
                    )
            targets = share_out(pool.sizes, weights, args.upsample, args.total, where=self.name) if pool.sizes else {}
            for name, target in targets.items():
                if 0 < target < args.min_per_task:
                    work.warnings.append(f"{name}: {target:,} rows; a task needs {args.min_per_task:,} or more")
            for item in pool.choose(targets, work, args.upsample):
                if isinstance(item, Sample):
                    part = parts[item.source] if parts else None
                    item.changes["task_name"] = short(part) if part else item.env
                yield item
        finally:
            pool.close()


def short(run: str) -> str:
    """The name that a run has by itself: `runs/math.jsonl` and `runs/math/train.jsonl` are "math"."""
    path = Path(run)
    name = path.name.removesuffix(".jsonl").removesuffix(".rollouts")
    return (path.parent.name if name in ("rollouts", "failures", *SPLITS) else name) or run
