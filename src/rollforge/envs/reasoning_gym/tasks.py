"""Problems of the reasoning-gym library, in turn of each data set that is chosen."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from random import Random
from typing import Any

from rollforge.envs.generate import SPLITS, chosen
from rollforge.errors import UserError, describe, unknown
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.verify.reasoning import library, quiet

ASK = "\n\nPut your final answer, and nothing else, between <answer> and </answer>."
BLOCK = 16
"""Problems that are asked of the library at once."""
MISSES = 200
"""So many repeated problems in a row, and a data set has no new ones."""

NOT_SETS = ("composite",)
"""Mixtures of others."""
NO_REFERENCE = ("boxnet", "rush_hour")
"""The library brings no solution; only when asked for by name."""
SLOW = (
    "arc_agi",
    "codeio",
    "figlet_font",
    "group_anagrams",
    "polynomial_equations",
    "puzzle24",
    "quantum_lock",
    "zebra_puzzles",
)
"""Half a second or more for the first problem: they come last."""


def tasks(
    n: int | None = 60,
    seed: int = 0,
    split: str = "train",
    dataset: str | Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Iterator[Json]:
    """Rows `{prompt, question, answer, metadata, kind}`; `kind` is the data set.

    `dataset`: one or several (a list, or a text with commas); if None all that bring a solution, in an order that is drawn,
    slow ones last. `config`: settings of the
    data set, of a single one. The same problem is in the same split whatever the seed, about one in eight in `test`.
    """
    library()
    known = [name for name in sorted(import_module("reasoning_gym.factory").DATASETS) if name not in NOT_SETS]
    names = chosen("dataset", dataset, known)
    if dataset is None:
        names = [name for name in names if name not in NO_REFERENCE]
        Random(f"reasoning_gym {seed}").shuffle(names)  # so that a few tasks are of many sorts
        names.sort(key=SLOW.__contains__)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if config and len(names) != 1:
        raise UserError("config is for one data set; name it: dataset=...")
    return islice(_rows([_problems(name, seed, split, dict(config or {})) for name in names]), n)


def _rows(sources: list[Iterator[Json]]) -> Iterator[Json]:
    """One of each in turn, as long as there are any."""
    while sources:
        for source in list(sources):
            row = next(source, None)
            if row is None:
                sources.remove(source)
            else:
                yield row


def _problems(name: str, seed: int, split: str, config: dict[str, Any]) -> Iterator[Json]:
    seen: set[str] = set()
    block = misses = 0
    while misses < MISSES:
        # Problem i of a data set with seed s is often problem i - 1 of seed s + 1: seeds must lie far apart.
        start = zlib.crc32(f"{name} {seed} {block}".encode())
        block += 1
        for entry in _block(name, start, config):
            question = str(entry["question"])
            problem = f"{question} {entry['answer']}"
            if split != ("test" if zlib.crc32(question.encode()) % 8 == 0 else "train") or problem in seen:
                misses += 1
                continue
            misses = 0
            seen.add(problem)
            yield {"prompt": question + ASK, **entry, "kind": name}


def _block(name: str, seed: int, config: dict[str, Any]) -> Iterator[Json]:
    try:
        with quiet():
            made = library().create_dataset(name, **{"seed": seed, "size": BLOCK, **config})
        for place in range(BLOCK):
            with quiet():
                entry = made[place]
            # Through JSON, as if they came from a file: it has no tuples, and only text as keys.
            yield loads(dumps({key: entry[key] for key in ("question", "answer", "metadata")}, default=str))
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"reasoning-gym cannot make {name} with {config or 'its defaults'}: {describe(error)}") from error
