"""The plan: every task times every repeat, minus what is done. Streamed, and resumed by key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from rollforge.errors import UserError
from rollforge.records.rows import BadLine
from rollforge.records.task import Task

Key = tuple[int, int]
"""Task index, repeat."""

MAX_REPEATS = 1 << 20


@dataclass(frozen=True, slots=True)
class Planned:
    task: Task
    index: int
    """Which repeat."""
    attempt: int = 1
    """The next attempt to make: above 1 when earlier ones failed before the run was resumed."""
    last: int = 1
    """The last attempt it may take."""


class Done:
    """What earlier sessions of a run did: the keys that are finished, and the failed attempts of those that are not."""

    def __init__(self) -> None:
        self._repeats: dict[int, int] = {}
        """Per task a bit for each finished repeat: a fifth of the memory of a set of keys."""
        self._tasks: dict[int, str] = {}
        self._attempts: dict[Key, int] = {}

    def __contains__(self, key: Key) -> bool:
        return bool(self._repeats.get(key[0], 0) >> key[1] & 1)

    def add(self, key: Key) -> bool:
        """Finished: it has a final outcome. Whether that is new."""
        before = self._repeats.get(key[0], 0)
        self._repeats[key[0]] = before | 1 << key[1]
        return self._repeats[key[0]] != before

    def failed(self, key: Key, attempt: int) -> None:
        self._attempts[key] = max(attempt, self.attempts(key))

    def attempts(self, key: Key) -> int:
        return self._attempts.get(key, 0)

    def saw(self, index: int, task: str) -> None:
        """The id of the task that had this index, or the hash of its content if it named its id."""
        self._tasks[index] = task

    def check(self, index: int, task: Task) -> None:
        """Raises `UserError` if the task of that index is another one now: keys would no longer say what is done."""
        before = self._tasks.get(index, task.id)
        if before != task.id and before != task.content:
            what = "its content was another" if task.content else f"its id was {before}, it is {task.id} now"
            raise UserError(
                f"task {index} is not the one this run was begun with ({what}): the tasks "
                "have changed, or come in another order each time; go on with the same ones, or choose another --out"
            )


def plan(
    tasks: Iterable[Task | BadLine],
    repeats: int,
    limit: int | None,
    bad: Callable[[BadLine], None],
    *,
    done: Done,
    max_attempts: int,
    afresh: bool = False,
) -> Iterator[Planned]:
    """What is left to do: all repeats of a task together, tasks in order, so that a run cut short has whole groups.

    `afresh`: earlier attempts do not count against `max_attempts`. Raises `UserError` if tasks are not those done before.
    """
    for task, first in numbered(tasks, repeats, limit, bad):
        index: int = task.index  # type: ignore[assignment]
        if "_ng_rollout_index" not in task.fields:  # such rows share an index, and each may have an id of its own
            done.check(index, task)
        for repeat in range(first, first + repeats):
            key = index, repeat
            if key not in done:
                made = done.attempts(key)
                yield Planned(task, repeat, made + 1, max_attempts + (made if afresh else 0))


def numbered(
    tasks: Iterable[Task | BadLine], repeats: int, limit: int | None, bad: Callable[[BadLine], None]
) -> Iterator[tuple[Task, int]]:
    """The usable tasks, each with its index and its first repeat, no two with both the same.

    A task's index is its position, or the `_ng_task_index` of its row (shards of one data set keep their numbers). Rows
    that also carry `_ng_rollout_index` (NeMo Gym's materialised inputs) are repeats already. A row whose place is taken is
    handed to `bad`, as is what was no task to begin with.
    """
    taken: set[Key] | None = None  # none as long as every index is the position
    position, plain, number = -1, 0, 0
    for task in tasks:
        if isinstance(task, BadLine):
            bad(task)
            continue
        position += 1
        index = position if task.index is None else task.index
        given = task.fields.get("_ng_rollout_index")
        first = given * repeats if type(given) is int else 0
        if taken is None and (index != position or type(given) is int):
            taken, plain = set(), position
        reason = None
        if not 0 <= first <= MAX_REPEATS - repeats:
            reason = f"_ng_rollout_index is {given}; with {repeats} repeats it can be 0 to {MAX_REPEATS // repeats - 1}"
        elif taken is not None and ((index, first) in taken or (first == 0 and 0 <= index < plain)):
            reason = f"an earlier row has task index {index} too" + (f", and rollout index {given}" if first else "")
        if reason:
            bad(BadLine("tasks", position + 1, reason))
            continue
        if taken is not None:
            taken.add((index, first))
        yield (task if task.index == index else replace(task, index=index)), first
        number += 1
        if number == limit:
            return


def count(tasks: Iterable[Task | BadLine], repeats: int, limit: int | None, seconds: float) -> int | None:
    """How many rollouts the whole plan has; None if they cannot be counted within `seconds`."""
    deadline = time.monotonic() + seconds
    total = 0
    for _ in numbered(tasks, repeats, limit, lambda line: None):
        total += repeats
        if time.monotonic() > deadline:
            return None
    return total
