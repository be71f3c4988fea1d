"""Several runs or environments in the proportions of their weights, each row labelled with its `task_name`.

A weight's name is a run (as it was given, or its last part without ending) or an environment. What has no weight is dropped.
Where two runs have the same last part, both are called as they were given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import normpath
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from rollforge.config import Section
from rollforge.curate.balance import Named, Pool, Unit, check_weights, of_runs, share_out
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError, unknown
from rollforge.stats.source import SPLITS
from rollforge.stats.thresholds import FEW


class MixArgs(Section):
    weights: Annotated[dict[str, Annotated[float, Field(le=1e9)]], Named]
    """By run or environment; only their proportions count."""
    total: int | None = Field(None, ge=1)
    """Rows of the mix. None: as many as the scarcest part allows; with `upsample` as many as there are."""
    upsample: bool = False
    """Repeat rows of parts that are too small."""
    unit: Unit = "row"
    """Whether the attempts at a task stay together: what is counted are rows all the same."""
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
    """Reads its samples twice: counts, then the choice. Eight bytes of memory a row."""

    facts: Mapping[str, Fact] = {}

    def __init__(self, args: MixArgs) -> None:
        self._args = args
        self.name = "mix " + ", ".join(f"{name} {weight:g}" for name, weight in args.weights.items())
        self.keep_dropped = args.keep_overflow

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        args, weights = self._args, self._args.weights
        parts = _parts(weights, work.runs)
        labels = _labels(work.runs)
        envs: set[str] = set()

        def category(sample: Sample) -> str:
            envs.add(sample.env)
            return (parts[sample.source] if parts else None) or sample.env

        pool = Pool(samples, work, category, args.unit)
        try:
            for name in weights:
                if name in pool.sizes or name in parts or not pool.sizes:
                    continue
                if name in envs:
                    raise UserError(
                        f"{self.name}: all rows of the environment {name!r} are of runs with weights of their own"
                    )
                known = {*envs, *map(short, work.runs)}
                raise unknown(
                    "run or environment", name, known, f"(with rows left of {of_runs(work)}, in the weights of mix)"
                )
            targets = share_out(pool.sizes, weights, args.upsample, args.total, where=self.name) if pool.sizes else {}
            for name, target in targets.items():
                rows = target if args.upsample else min(target, pool.sizes[name])
                if weights.get(name) and rows < args.min_per_task:
                    work.warnings.append(f"{name}: {rows:,} rows; a task needs {args.min_per_task:,} or more")
            for item in pool.choose(targets, work, args.upsample):
                if isinstance(item, Sample):
                    part = parts[item.source] if parts else None
                    item.changes["task_name"] = labels[work.runs[item.source]] if part else item.env
                yield item
        finally:
            pool.close()


def _parts(weights: Mapping[str, float], runs: Sequence[str]) -> list[str | None]:
    """For each run the name of its weight. Raises `UserError` for a name of several runs."""
    paths = {normpath(name): name for name in weights}
    owner: dict[str, str] = {}
    parts: list[str | None] = []
    for run in runs:
        part = paths.get(normpath(run)) or (short(run) if short(run) in weights else None)
        if part and normpath(owner.setdefault(part, run)) != normpath(run):
            raise UserError(f"mix: {part!r} is both {owner[part]} and {run}; give each its weight by its whole name")
        parts.append(part)
    return parts


def _labels(runs: Sequence[str]) -> dict[str, str]:
    """The `task_name` of each run."""
    of: dict[str, set[str]] = {}
    for run in runs:
        of.setdefault(short(run), set()).add(run)
    return {run: name if len(same) == 1 else run for name, same in of.items() for run in same}


def short(run: str) -> str:
    """The name that a run has by itself: `runs/math.jsonl` and `runs/math/train.jsonl` are "math"."""
    path = Path(run)
    name = path.name.removesuffix(".jsonl").removesuffix(".rollouts")
    return (path.parent.name if name in ("rollouts", "failures", *SPLITS) else name) or run
