"""The plan: every task times every repeat, minus what is done. Streamed, and resumed by key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from rollforge.records.rows import BadLine
from rollforge.records.task import Task


@dataclass(frozen=True, slots=True)
class Planned:
    task: Task
    index: int
    """Which repeat."""
    attempt: int = 1
    """The first attempt still to make: above 1 when earlier ones failed before the run was resumed."""


class Done:
    """The keys (task index, repeat) that have a final outcome, and the failed attempts of those that do not."""

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._attempts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: tuple[int, int]) -> bool:
        return self._number(key) in self._keys

    def add(self, key: tuple[int, int]) -> bool:
        """Whether it is new."""
        before = len(self._keys)
        self._keys.add(self._number(key))
        self._attempts.pop(self._number(key), None)
        return len(self._keys) > before

    def failed(self, key: tuple[int, int], attempt: int) -> None:
        if key not in self:
            self._attempts[self._number(key)] = max(attempt, self.attempts(key))

    def attempts(self, key: tuple[int, int]) -> int:
        return self._attempts.get(self._number(key), 0)

    @staticmethod
    def _number(key: tuple[int, int]) -> int:
        # One int in a set takes half the memory of a tuple of two; no run has 2**20 repeats.
        return key[0] << 20 | key[1]


def plan(
    tasks: Iterable[Task | BadLine], repeats: int, limit: int | None, done: Done, bad: Callable[[BadLine], None]
) -> Iterator[Planned]:
    """What is left to do: all repeats of a task together, tasks in order, so that a run cut short has whole groups.

    A task's index is its position, or the `_ng_task_index` of its row (shards of one data set keep their numbers). Rows
    that also carry `_ng_rollout_index` (NeMo Gym's materialised inputs) are repeats already; another row with the same
    index is handed to `bad`.
    """
    taken: set[tuple[int, int]] = set()
    for position, task in enumerate(_usable(tasks, limit, bad)):
        index = position if task.index is None else task.index
        given = task.fields.get("_ng_rollout_index")
        first = given * repeats if isinstance(given, int) else 0
        if index != position or taken:
            if (index, first) in taken or (not taken and index < position):
                bad(BadLine("tasks", position + 1, f"_ng_task_index {index} stands on an earlier row too"))
                continue
            taken.add((index, first))
        for repeat in range(first, first + repeats):
            if (index, repeat) not in done:
                yield Planned(replace(task, index=index), repeat, done.attempts((index, repeat)) + 1)


def _usable(tasks: Iterable[Task | BadLine], limit: int | None, bad: Callable[[BadLine], None]) -> Iterator[Task]:
    number = 0
    for task in tasks:
        if isinstance(task, BadLine):
            bad(task)
            continue
        number += 1
        yield task
        if number == limit:
            return


def count(tasks: Iterable[Task | BadLine], limit: int | None, seconds: float = 1.0) -> int | None:
    """How many tasks there are, at most `limit`; None if they cannot be counted within `seconds`."""
    deadline = time.monotonic() + seconds
    number = 0
    for _ in islice((task for task in tasks if isinstance(task, Task)), limit):
        number += 1
        if time.monotonic() > deadline:
            return None
    return number
