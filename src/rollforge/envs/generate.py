"""Generated tasks: a stream of different rows, of chosen kinds and levels, reproducible, with disjoint splits."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice

from rollforge.errors import UserError, unknown
from rollforge.records.items import Json

LEVELS = ("easy", "medium", "hard")
SPLITS = ("train", "test")
MISSES = 2000
"""So many repeated problems in a row, and there are no new ones."""

Make = Callable[[random.Random, int], tuple[str, Json]]
"""Makes one task of a level (0, 1, 2): what identifies the problem, however it is phrased, and the row."""

Kinds = Mapping[str, Make]


def generated(
    name: str, *, n: int = 120, kind: str | None = None
) -> Callable[[Callable[[], Kinds]], Callable[..., Iterator[Json]]]:
    """Decorates what returns the kinds of an environment's tasks: it becomes the function that makes them, with the options
    of `generate`. `n`, `kind`: what those are if nothing is said."""
    usual_n, usual_kind = n, kind

    def decorate(kinds: Callable[[], Kinds]) -> Callable[..., Iterator[Json]]:
        def tasks(
            n: int | None = usual_n,
            seed: int = 0,
            split: str = "train",
            level: str | Sequence[str] | None = None,
            kind: str | Sequence[str] | None = usual_kind,
        ) -> Iterator[Json]:
            return generate(name, kinds(), n=n, seed=seed, split=split, level=level, kind=kind)

        tasks.__doc__ = kinds.__doc__
        return tasks

    return decorate


def generate(
    name: str,
    kinds: Kinds,
    *,
    n: int | None,
    seed: int,
    split: str,
    level: str | Sequence[str] | None,
    kind: str | Sequence[str] | None,
) -> Iterator[Json]:
    """`n` rows with their `kind` and `level`, a different problem each; without end if `n` is None.

    `level` and `kind` choose one or several (a list, or a text with commas), all if None. A problem is in the same split
    whatever the seed, about one in eight in `test`. Raises `UserError` for unknown names, and when there are not so many.
    """
    levels, names = chosen("level", level, LEVELS), chosen("kind", kind, kinds)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return islice(_rows(random.Random(f"{name} {seed}"), kinds, names, levels, split, endless=n is None), n)


def _rows(
    rng: random.Random, kinds: Kinds, names: list[str], levels: list[str], split: str, *, endless: bool
) -> Iterator[Json]:
    seen: set[str] = set()
    misses = 0
    while True:
        kind, level = rng.choice(names), rng.choice(levels)
        problem, row = kinds[kind](rng, LEVELS.index(level))
        if split != ("test" if zlib.crc32(problem.encode()) % 8 == 0 else "train") or problem in seen:
            misses += 1
            if misses < MISSES:
                continue
            if not endless:
                where = f"{', '.join(names)} at level {', '.join(levels)}"
                raise UserError(
                    f"there are only about {len(seen)} different {split} problems of {where}; ask for fewer (n=)"
                )
            seen.clear()
        misses = 0
        seen.add(problem)
        yield {**row, "kind": kind, "level": level}


def chosen(what: str, given: str | Sequence[str] | None, known: Collection[str]) -> list[str]:
    """One or several names of `known`, as a list or as text with commas; all if None. Raises `UserError`."""
    if given is None:
        return list(known)
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    for name in names:
        if name not in known:
            raise unknown(what, name, known)
    if not names:
        raise UserError(f"no {what} is chosen; known: {', '.join(known)}")
    return names
