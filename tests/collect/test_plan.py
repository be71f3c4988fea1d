"""The plan: what is to be done, in which order, under which keys; and what is left of it."""

from __future__ import annotations

from itertools import count as numbers
from itertools import islice
from typing import Any

import pytest

from rollforge.collect.plan import MAX_REPEATS, Done, Planned, count, plan
from rollforge.errors import UserError
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from tests.collect.parts import task

BAD = BadLine("tasks.jsonl", 3, "not JSON")


def planned(tasks: list[Task | BadLine], repeats: int = 1, limit: int | None = None, **more: Any) -> list[Planned]:
    options: dict[str, Any] = {"done": Done(), "max_attempts": 3, "bad": lambda line: None, **more}
    return list(plan(tasks, repeats, limit, options.pop("bad"), **options))


def keys(found: list[Planned]) -> list[tuple[int | None, int]]:
    return [(one.task.index, one.index) for one in found]


def row(index: int, rollout_index: int | None = None) -> Task:
    fields = {} if rollout_index is None else {"_ng_rollout_index": rollout_index}
    return task(index, **fields)


def test_groups_stay_together_and_in_order() -> None:
    assert keys(planned([task(0), task(1)], repeats=3)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_first_attempt_of_each() -> None:
    assert {(one.attempt, one.last) for one in planned([task(0), task(1)], repeats=2)} == {(1, 3)}


@pytest.mark.parametrize(
    ("indices", "repeats", "expected", "refused"),
    [
        ([None, None], 1, [(0, 0), (1, 0)], []),  # an environment that numbers nothing
        ([0, 1, 2], 1, [(0, 0), (1, 0), (2, 0)], []),
        ([7, 8], 2, [(7, 0), (7, 1), (8, 0), (8, 1)], []),  # a shard keeps its numbers
        ([0, 5, 2], 1, [(0, 0), (5, 0), (2, 0)], []),
        ([5, 5], 1, [(5, 0)], [2]),
        ([0, 1, 0], 1, [(0, 0), (1, 0)], [3]),
        ([0, 1, 3, 3], 1, [(0, 0), (1, 0), (3, 0)], [4]),
        ([3, 1, 2, 3], 1, [(3, 0), (1, 0), (2, 0)], [4]),
        ([-1, -2], 1, [(-1, 0), (-2, 0)], []),
        # NeMo Gym's materialised inputs
        ([(0, 0), (0, 1), (1, 0), (1, 1)], 1, [(0, 0), (0, 1), (1, 0), (1, 1)], []),
        ([(0, 1), (0, 0)], 1, [(0, 1), (0, 0)], []),
        ([(0, 0), (0, 1)], 2, [(0, 0), (0, 1), (0, 2), (0, 3)], []),  # each row is repeated
        ([(0, 0), (0, 0)], 1, [(0, 0)], [2]),
        ([(0, 0), 0], 1, [(0, 0)], [2]),
        ([0, (0, 0)], 1, [(0, 0)], [2]),
        ([0, 1, (0, 1), (1, 0)], 1, [(0, 0), (1, 0), (0, 1)], [4]),
        ([(0, -1), (0, MAX_REPEATS), (0, 3)], 1, [(0, 3)], [1, 2]),
        ([(0, MAX_REPEATS // 2)], 2, [], [1]),
    ],
)
def test_indices(indices: list[Any], repeats: int, expected: list[Any], refused: list[int]) -> None:
    tasks = [row(*index) if isinstance(index, tuple) else task(index) for index in indices]
    bad: list[BadLine] = []
    assert keys(planned(tasks, repeats, bad=bad.append)) == expected
    assert [line.line for line in bad] == refused
    assert all("index" in line.reason for line in bad)
    assert count(tasks, repeats, None, 60) == len(expected)


@pytest.mark.parametrize("limit", [1, 2, 3, 10**30])
def test_limit_counts_usable_tasks(limit: int) -> None:
    tasks = [BAD, task(0), BAD, task(1), task(2)]
    assert keys(planned(tasks, 2, limit)) == [(i, r) for i in range(min(limit, 3)) for r in range(2)]
    assert count(tasks, 2, limit, 60) == min(limit, 3) * 2


def test_limit_reads_no_further() -> None:
    def tasks() -> Any:
        yield task(0)
        raise AssertionError("read beyond the limit")

    assert keys(planned(tasks(), 2, 1)) == [(0, 0), (0, 1)]
    assert count(tasks(), 2, 1, 60) == 2


def test_bad_lines_are_handed_over_as_they_come() -> None:
    bad: list[BadLine] = []
    assert keys(planned([BAD, task(0), BAD], bad=bad.append)) == [(0, 0)]
    assert bad == [BAD, BAD]


def test_the_same_row_twice_is_two_tasks() -> None:
    found = planned([task(0, task_id="a"), task(1, task_id="a")], 2)
    assert keys(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_endless_stream_is_read_as_far_as_needed_and_not_counted() -> None:
    endless = (task(number) for number in numbers())
    found = plan(endless, 2, None, lambda line: None, done=Done(), max_attempts=1)
    assert [one.task.index for one in islice(found, 5)] == [0, 0, 1, 1, 2]
    assert count((task(number) for number in numbers()), 2, None, 0.01) is None


def test_done_is_left_out() -> None:
    done = Done()
    assert [done.add(key) for key in [(0, 1), (0, 1), (2, 0), (-3, 5)]] == [True, False, True, True]
    assert [key in done for key in [(0, 1), (0, 0), (2, 0), (1, 0), (-3, 5)]] == [True, False, True, False, True]
    assert keys(planned([task(0), task(1), task(2)], 2, done=done)) == [(0, 0), (1, 0), (1, 1), (2, 1)]


def test_attempts_go_on_where_they_were() -> None:
    done = Done()
    done.failed((0, 0), 2)
    done.failed((0, 0), 1)
    assert [(one.attempt, one.last) for one in planned([task(0)], 2, done=done)] == [(3, 3), (1, 3)]
    assert [(one.attempt, one.last) for one in planned([task(0)], 2, done=done, afresh=True)] == [(3, 5), (1, 3)]


def test_another_task_under_a_known_index() -> None:
    done = Done()
    done.saw(1, task(1).id)
    assert keys(planned([task(0), task(1)], done=done)) == [(0, 0), (1, 0)]
    with pytest.raises(UserError, match=rf"task 1 is not the one .*\(its id was {task(1).id}, it is {task(9).id} now\)"):
        planned([task(0), task(9, _ng_task_index=1)], done=done)


def test_another_content_under_a_known_id() -> None:
    named, changed = task(0, task_id="a"), task(0, task_id="a", answer="no")
    done = Done()
    done.saw(0, named.content)
    assert keys(planned([named], done=done)) == [(0, 0)]
    with pytest.raises(UserError, match=r"task 0 is not the one .*\(its content was another\)"):
        planned([changed], done=done)
    done.saw(0, "a")  # of a run that did not note it
    assert keys(planned([changed], done=done)) == [(0, 0)]


def test_rows_that_are_repeats_may_differ() -> None:
    done = Done()
    done.saw(0, row(0, 1).id)
    assert keys(planned([row(0, 0), row(0, 1)], done=done)) == [(0, 0), (0, 1)]
