"""How many rows of each category stay: no more than a cap, target counts, or target shares. And which: a seeded choice.

A category is an environment, a difficulty (the solve rate of the task's attempts: easy from 0.8, medium from 0.4, hard
below; NeMo Gym's pages on balancing), any name of the expression language (`task.level`), or several ("math/hard").
Difficulty is measured before the recipe drops anything (what a filter on rewards leaves is easy without exception), on the
rewards as the shapes at its beginning leave them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import groupby, islice
from math import floor
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rollforge.config import Section
from rollforge.curate.facts import ABOUT, LATER, fact, neighbours
from rollforge.curate.facts import Field as InRow
from rollforge.curate.grammar import parse
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError, unknown
from rollforge.records.lossless import dumps
from rollforge.stats.thresholds import EASY, EQUAL, LARGEST_ENV, MEDIUM, SUCCESS

Unit = Literal["row", "group"]


def _names(given: Any) -> Any:
    return {_text(name): value for name, value in given.items()} if isinstance(given, dict) else given


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are one category
    return value if isinstance(value, str) else dumps(value).decode()


Named = BeforeValidator(_names)
"""YAML reads the categories of `by: task.level`, and a run called 2024, as numbers."""


class BalanceArgs(Section):
    by: str | list[str] = "env"
    """env, difficulty, a name of the expression language, or several."""
    cap: int | None = Field(None, ge=1)
    """Rows of each category at most. Without cap, counts and shares: as many as the smallest has (upsample: the largest)."""
    counts: Annotated[dict[str, int], Named] | None = None
    """Rows of the categories named; others stay as they are."""
    shares: Annotated[dict[str, float], Named] | None = None
    """Of the whole; categories that are not named are dropped."""
    upsample: bool = False
    """Repeat rows of categories that are too small."""
    unit: Unit | None = None
    """Whether the attempts at a task stay together. None: together if by difficulty, which is a property of the task."""
    success: float = Field(SUCCESS, allow_inf_nan=False)
    """The reward from which an attempt counts as solved, for the difficulty."""
    keep_overflow: bool = True
    """Write what is dropped here to dropped.jsonl, whether or not the other drops are kept."""

    @classmethod
    def short(cls, value: Any) -> dict[str, Any]:
        return {"by": value}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("cap", "counts", "shares") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.counts is not None and any(count < 0 for count in self.counts.values()):
            raise ValueError("counts are not negative")
        if self.shares is not None:
            check_weights(self.shares, "shares")
            if abs(sum(self.shares.values()) - 1) > 1e-3:
                raise ValueError(f"shares add up to {sum(self.shares.values()):g}, not 1")
        if not self.names:
            raise ValueError("by names nothing")
        return self

    @property
    def names(self) -> list[str]:
        return [self.by] if isinstance(self.by, str) else self.by


def steps(args: BalanceArgs) -> list[Step]:
    return [Balance(args)]


def check_weights(weights: Mapping[str, float], name: str) -> None:
    """Raises `ValueError`."""
    if not weights or any(weight < 0 for weight in weights.values()) or not sum(weights.values()) > 0:
        raise ValueError(f"{name} are positive numbers")


class MeasureDifficulty:
    """Adds each sample's difficulty to its facts; drops nothing."""

    facts: Mapping[str, Fact] = {}

    def __init__(self, success: float = SUCCESS) -> None:
        self._success = success - EQUAL
        self.name = "measure difficulty" + (f" (solved from {success})" if success != SUCCESS else "")
        self.fact = self.name.removeprefix("measure ")

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        ordered = work.keep(work.sort(samples, lambda sample: (sample.group, sample.place)))
        # Read twice side by side, one a group ahead: a group may be larger than memory.
        ahead = groupby(ordered, lambda sample: sample.group)
        behind = iter(ordered)
        try:
            for _, group in ahead:
                size = solved = 0
                for sample in group:
                    size += 1
                    solved += sample.reward >= self._success
                level = difficulty(solved / size)
                for sample in islice(behind, size):
                    sample.facts[self.fact] = level
                    yield sample
        finally:
            ordered.close()


def difficulty(solve_rate: float) -> str:
    return "easy" if solve_rate >= EASY - EQUAL else "medium" if solve_rate >= MEDIUM - EQUAL else "hard"


class Balance:
    """Reads its samples twice: counts, then the choice. Eight bytes of memory a row."""

    def __init__(self, args: BalanceArgs) -> None:
        self._args = args
        self.name = f"balance by {' and '.join(args.names)}"
        measure = MeasureDifficulty(args.success)
        self._difficulty = measure.fact
        self.first: tuple[Step, ...] = (measure,) if "difficulty" in args.names else ()
        self.keep_dropped = args.keep_overflow
        self._unit: Unit = args.unit or ("group" if "difficulty" in args.names else "row")
        known = [(name, None) if name in _OWN else _named(name) for name in args.names]
        self._names = [name for name, _ in known]
        self.facts: Mapping[str, Fact] = {name: fact for name, fact in known if fact is not None}

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        args = self._args
        pool = Pool(self._watched(samples, work), work, lambda sample: self._category(sample, work), self._unit)
        try:
            named = args.counts or args.shares or {}
            for name in named:
                if name not in pool.sizes:
                    work.warnings.append(str(unknown("category", name, pool.sizes, "(no rows are of it)")))
            targets = self._targets(pool.sizes)
            if args.shares:
                targets = share_out(pool.sizes, args.shares, args.upsample, where=f"{self.name} (of {of_runs(work)})")
            yield from pool.choose(targets, work, args.upsample)
        finally:
            pool.close()

    def _watched(self, samples: Iterable[Sample], work: Workspace) -> Iterator[Sample]:
        """The samples as they are. Raises `UserError` for a field that none of them has."""
        first, rows = None, 0
        nulls = dict.fromkeys(self.facts, 0)
        for sample in samples:
            first = first or sample
            rows += 1
            for name in nulls:
                nulls[name] += self._value(sample, name) is None
            yield sample
        for name, count in nulls.items():
            field = self.facts[name]
            if first is not None and count == rows:
                if not isinstance(field, InRow):
                    raise UserError(f"{self.name}: no row has its {name}")
                raise unknown("field", name, neighbours(field, first, work), f"(no row has it, in {self.name})")
            if count:
                work.warnings.append(f"{count:,} of {rows:,} rows have no {name}; they are a category of their own, null")

    def _category(self, sample: Sample, work: Workspace) -> str:
        own = {"env": sample.env, "source": work.runs[sample.source] if work.runs else str(sample.source)}
        return "/".join(own[name] if name in own else _text(self._value(sample, name)) for name in self._names)

    def _value(self, sample: Sample, name: str) -> Any:
        if name == _LABEL and "task_name" in sample.changes:  # of a mix before
            return sample.changes["task_name"]
        return sample.facts[self._difficulty if name == "difficulty" else name]

    def _targets(self, sizes: Mapping[str, int]) -> dict[str, int]:
        args = self._args
        if args.counts is not None:
            return {name: args.counts.get(name, size) for name, size in sizes.items()}
        largest = max(sizes.values(), default=0)
        if args.cap is not None:
            return {name: min(args.cap, largest if args.upsample else size) for name, size in sizes.items()}
        return dict.fromkeys(sizes, largest if args.upsample else min(sizes.values(), default=0))


_OWN = ("env", "source", "difficulty")
_LABEL = "task.task_name"


def of_runs(work: Workspace) -> str:
    """The runs that the rows come from, as the user named them."""
    names = [*dict.fromkeys(work.runs)] or ["the rows given"]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _named(name: str) -> tuple[str, Fact]:
    """The name as expressions have it, and its fact."""
    node = parse(name) if "[" in name else None  # task["a b"], task.list[0]
    if node is not None:
        if node.kind != "name":
            raise UserError(f"balance by {name!r} is not possible: by takes a name, and a filter an expression")
        name = node.name
    if name in LATER and name != _LABEL:
        raise UserError(f"balance by {name!r} is not possible: it is not known when rows are read")
    if node is not None and node.value is not None:
        return name, node.value
    return name, fact(name, dict.fromkeys([*_OWN, *(known for known in ABOUT if known not in LATER)]))


def share_out(
    sizes: Mapping[str, int],
    shares: Mapping[str, float],
    upsample: bool,
    total: int | None = None,
    *,
    where: str = "balance",
) -> dict[str, int]:
    """Rows of each category that make the shares come true: of `total` rows in all, else of as many as there are (with
    `upsample`), else of as many as the scarcest category allows. Raises `UserError`, naming the step (`where`), for a
    category without rows."""
    whole = sum(shares.values())
    wanted = {name: share / whole for name, share in shares.items() if share}
    empty = sorted(name for name in wanted if not sizes.get(name))
    if empty:
        there = ", ".join(f"{name} {size:,}" for name, size in sizes.items()) or "none"
        raise UserError(f"{where}: no rows of {', '.join(map(repr, empty))} for its share; rows there are: {there}")
    if total is None and upsample:
        total = sum(sizes.values())
    elif total is None:
        total = sum(sizes[name] for name in wanted)
        if any(rows != sizes[name] for name, rows in _parts(wanted, total).items()):  # they are not what is asked already
            total = floor(min(sizes[name] / share for name, share in wanted.items()) + EQUAL)
    return dict.fromkeys(sizes, 0) | _parts(wanted, total)


def _parts(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to the total."""
    parts = {name: total * share for name, share in shares.items()}
    found = {name: floor(part + EQUAL) for name, part in parts.items()}
    # What is left of the whole goes to the parts that lost most by rounding down.
    for name in sorted(parts, key=lambda name: found[name] - parts[name])[: total - sum(found.values())]:
        found[name] += 1
    return found


_CATEGORIES = 10_000
_OFTEN = 4
"""Rows repeated more often are learned by heart."""
_MOST = 1_000
"""Nobody means more repeats."""


class Pool:
    """Samples by category, on disk, with the rank of each in a shuffled order: of seed and sample alone, not of the order in
    which samples come. The copies that earlier steps made count as rows, and rank behind all first ones."""

    def __init__(
        self, samples: Iterable[Sample], work: Workspace, category: Callable[[Sample], str], unit: Unit = "row"
    ) -> None:
        self._category, self._unit = category, unit
        self._salt = str(work.seed).encode()[-16:]
        self._ranks: dict[str, array[int]] = {}
        self._samples: Counter[str] = Counter()
        self._copies: Counter[str] = Counter()
        """The most of one sample, by category."""
        self._kept = work.keep(self._counted(samples))
        self.sizes = {name: len(self._ranks[name]) for name in sorted(self._ranks)}

    def choose(self, targets: Mapping[str, int], work: Workspace, upsample: bool) -> Iterator[Sample | Drop]:
        """Every sample, kept or dropped, so that each category has the rows of its target, or fewer."""
        choices = {name: _Choice(self._ranks.pop(name), targets[name], upsample) for name in self.sizes}
        rows = {name: choice.rows for name, choice in choices.items()}
        work.notes["categories"] = {name: {"in": self.sizes[name], "out": rows[name]} for name in self.sizes}
        if self._unit == "group":
            work.notes["attempts at a task"] = "stay together"
        for name, choice in choices.items():
            if choice.rows < choice.target:
                torn = upsample or choice.rows < self.sizes[name]
                few = "there are no more; upsample: true repeats some"
                why = "no more whole groups fit (unit: row parts them)" if torn else few
                work.warnings.append(f"{name}: {choice.rows:,} rows instead of {choice.target:,}, {why}")
            times = choice.most * self._copies[name] if choice.most > 1 else 1
            if times > _MOST:
                raise UserError(
                    f"{name}: {targets[name]:,} rows of the {self._samples[name]:,} there are would repeat each "
                    f"{times:,} times, more than {_MOST:,}: ask for fewer, or collect more"
                )
            if times > _OFTEN:
                work.warnings.append(f"{name}: its rows are repeated up to {times:,} times; collect more of them")
        work.warnings.extend(lopsided(rows))
        if any(rows[name] > size for name, size in self.sizes.items()):
            copies = sum(max(0, count - self._samples[name]) for name, count in rows.items())
            work.warnings.append(
                f"{copies:,} of the rows are copies. SFT trains on each of them; prompts (GRPO) and pairs (DPO) are made "
                f"once per task, where copies change nothing: weights in the trainer's own mix do"
            )
        for sample in self._kept:
            name = self._category(sample)
            choice = choices[name]
            times = sum(map(choice.times, self._ranks_of(sample)))
            if times:
                sample.copies = times
                yield sample
            else:
                yield Drop(sample, "overflow" if choice.target else "no share", {"category": name})

    def close(self) -> None:
        self._kept.close()

    def _counted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            name = self._category(sample)
            ranks = self._ranks.get(name)
            if ranks is None:
                if len(self._ranks) >= _CATEGORIES:
                    raise UserError(f"more than {_CATEGORIES:,} categories ({name!r} is one): take something coarser")
                ranks = self._ranks[name] = array("Q")
            ranks.extend(self._ranks_of(sample))
            self._samples[name] += 1
            self._copies[name] = max(self._copies[name], sample.copies)
            yield sample

    def _ranks_of(self, sample: Sample) -> Iterator[int]:
        own = sample.group if self._unit == "group" else b"%d:%d" % sample.place
        for copy in range(sample.copies):
            chance = blake2b(own + b" %d" % copy if copy else own, digest_size=8, salt=self._salt).digest()
            yield min(copy, _MOST) << 52 | int.from_bytes(chance) >> 12


class _Choice:
    """How often each sample of a category is written: those first in rank once more than the others. Attempts that stay
    together share their rank: all of them or none, and what no longer fits is passed over for what does."""

    def __init__(self, ranks: array[int], target: int, upsample: bool) -> None:
        import numpy as np

        size = len(ranks)
        self.target = target
        self._all, rest = divmod(target, size)
        if self._all and not upsample:
            self._all, rest = 1, 0
        room = rest
        order, sizes = np.unique(np.frombuffer(ranks, np.uint64), return_counts=True)
        taken = []
        while room and len(order):
            count = int(np.searchsorted(np.cumsum(sizes), room, side="right"))
            taken.append(order[:count])
            room -= int(sizes[:count].sum())
            fits = sizes[count:] <= room
            order, sizes = order[count:][fits], sizes[count:][fits]
        first, *more = taken or [order[:0]]
        self._last = int(first[-1]) if len(first) else -1
        self._more = {rank for ranks in more for rank in ranks.tolist()}
        """Behind the first that did not fit: together smaller than that."""
        self.rows = self._all * size + rest - room
        self.most = self._all + (room < rest)

    def times(self, rank: int) -> int:
        return self._all + (rank <= self._last or rank in self._more)


def lopsided(rows: Mapping[str, int]) -> Iterator[str]:
    """A warning where one category is most of the data (NeMo Gym's pages: no type above 40-50 %)."""
    whole = sum(rows.values())
    for name, count in rows.items():
        if len(rows) > 1 and count > LARGEST_ENV * whole:
            yield f"{name} is {count / whole:.0%} of the rows; no category should be more than {LARGEST_ENV:.0%}"
