"""The window: how many run at a time, what ends a run, what is attempted again."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from rollforge.collect.config import Budget
from rollforge.collect.plan import Planned
from rollforge.collect.scheduler import Stop, schedule
from rollforge.collect.tally import Tally
from rollforge.errors import SetupError, UserError
from rollforge.records.items import assistant
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task
from tests.collect.parts import rollout, task, until

RunOne = Callable[[Task, int, int], Awaitable[Rollout]]
FAULT = Outcome.INFRA_FAULT


def plan_of(tasks: int, repeats: int = 1, last: int = 1) -> Iterator[Planned]:
    return (Planned(task(index), repeat, 1, last) for index in range(tasks) for repeat in range(repeats))


class Run:
    """A schedule with everything it needs, and what came of it."""

    def __init__(self, run_one: RunOne, window: int = 4, backoff: float = 0.001, **budget: Any) -> None:
        self.run_one = run_one
        self.window = window
        self.backoff = backoff
        self.budget = Budget(**budget)
        self.tally = Tally()
        self.stop = Stop()
        self.stored: list[Rollout] = []

    def record(self, one: Rollout) -> Rollout:
        self.stored.append(one)
        return one

    async def __call__(self, plan: Iterator[Planned]) -> bool:
        parts: dict[str, Any] = {"tally": self.tally, "stop": self.stop, "window": self.window, "budget": self.budget}
        return await schedule(plan, self.run_one, self.record, backoff=self.backoff, **parts)

    @property
    def keys(self) -> list[tuple[int | None, int | None]]:
        return [(one.task_index, one.index) for one in self.stored]


async def good(task: Task, index: int, attempt: int) -> Rollout:
    return rollout(index=task.index or 0, repeat=index, attempt=attempt)


def failing(outcome: Outcome = FAULT, times: int = 10**9, retryable: bool = True) -> RunOne:
    async def run_one(task: Task, index: int, attempt: int) -> Rollout:
        kind = outcome if attempt <= times else Outcome.SCORED
        return rollout(kind, index=task.index or 0, repeat=index, attempt=attempt, retryable=retryable)

    return run_one


class Gate:
    """Rollouts that wait to be let through; counts how many do."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.open = asyncio.Event()

    async def __call__(self, task: Task, index: int, attempt: int) -> Rollout:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.open.wait()
        self.waiting -= 1
        return await good(task, index, attempt)

    async def until(self, waiting: int) -> None:
        await until(lambda: self.waiting >= waiting)


async def test_all_of_the_plan_once() -> None:
    run = Run(good)
    assert await run(plan_of(10, 3)) is True
    assert sorted(run.keys) == [(i, r) for i in range(10) for r in range(3)]
    assert (run.tally.started, run.tally.done, run.tally.in_flight, run.stop.reason) == (30, 30, 0, None)


async def test_an_empty_plan() -> None:
    assert await Run(good)(iter(())) is True


@pytest.mark.parametrize("window", [1, 2, 7, 64, 100_000])
async def test_the_window_is_filled_and_never_exceeded(window: int) -> None:
    gate = Gate()
    run = Run(gate, window)
    job = asyncio.create_task(run(plan_of(20, 5)))
    await gate.until(min(window, 100))
    assert run.tally.in_flight == gate.waiting == min(window, 100)
    gate.open.set()
    assert await job
    assert gate.most == min(window, 100)
    assert run.tally.started == 100


async def test_no_more_workers_than_work() -> None:
    gate = Gate()
    job = asyncio.create_task(Run(gate, 10**9)(plan_of(3)))
    await gate.until(3)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) < 10
    gate.open.set()
    assert await job


async def test_the_plan_is_read_no_further_than_the_window() -> None:
    read = []

    def tasks() -> Iterator[Planned]:
        for one in plan_of(1000):
            read.append(one)
            yield one

    gate = Gate()
    job = asyncio.create_task(Run(gate, 8)(tasks()))
    await gate.until(8)
    assert len(read) == 8
    gate.open.set()
    assert await job
    assert len(read) == 1000


async def test_rollouts_that_wait_for_nothing_leave_others_their_turn() -> None:
    run = Run(good, 2)
    turns = 0
    job = asyncio.create_task(run(plan_of(100)))
    while not job.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 25


async def test_what_is_in_flight_is_named_and_the_oldest_comes_first() -> None:
    gate = Gate()
    run = Run(gate, 3)
    job = asyncio.create_task(run(plan_of(2, 2)))
    await gate.until(3)
    names = [worker.get_name() for worker in run.tally.live]
    assert names == ["task 0 repeat 0", "task 0 repeat 1", "task 1 repeat 0"]
    assert sorted(run.tally.live.values()) == list(run.tally.live.values())
    gate.open.set()
    await job
    assert not run.tally.live


# Attempts


@pytest.mark.parametrize("outcome", [FAULT, Outcome.JUDGE_FAULT, Outcome.TIMEOUT])
async def test_failures_from_outside_are_attempted_again(outcome: Outcome) -> None:
    run = Run(failing(outcome, times=2))
    assert await run(plan_of(2, last=5))
    assert [(one.attempt, str(one.outcome)) for one in run.stored if one.task_index == 1] == [
        (1, outcome),
        (2, outcome),
        (3, "scored"),
    ]
    assert (run.tally.retries, run.tally.attempts, run.tally.done, run.tally.judged) == (4, 6, 2, 2)


async def test_attempts_have_an_end() -> None:
    run = Run(failing())
    assert await run(plan_of(2, last=3))
    assert sorted(one.attempt for one in run.stored) == [1, 1, 2, 2, 3, 3]
    assert run.tally.outcomes[FAULT] == run.tally.done == 2


async def test_attempts_go_on_where_the_plan_says() -> None:
    run = Run(failing())
    assert await run(iter([Planned(task(0), 0, 3, 4)]))
    assert [one.attempt for one in run.stored] == [3, 4]


@pytest.mark.parametrize("outcome", [Outcome.VERIFIER_FAULT, Outcome.POLICY_FAULT, Outcome.SCORED, FAULT])
async def test_other_outcomes_are_final(outcome: Outcome) -> None:
    run = Run(failing(outcome, retryable=False))
    assert await run(plan_of(3, last=3))
    assert [one.attempt for one in run.stored] == [1, 1, 1]
    assert (run.tally.outcomes[outcome], run.tally.retries) == (3, 0)


async def test_what_was_stored_counts() -> None:
    run = Run(good)
    stored = rollout(Outcome.VERIFIER_FAULT)
    run.record = lambda one: stored  # type: ignore[method-assign]
    assert await run(plan_of(2, last=3))
    assert run.tally.outcomes[Outcome.VERIFIER_FAULT] == 2


# Ends


@pytest.mark.parametrize(
    ("budget", "started", "reason"),
    [
        ({"rollouts": 5}, 5, "the budget of 5 rollouts"),
        ({"tokens": 50}, 5, "the budget of 50 tokens"),
        ({"tokens": 41}, 5, "the budget of 41 tokens"),
        ({"cost": 30e-6, "price_in": 1.0}, 5, "the budget of 3e-05 "),
        ({"cost": 12e-6, "price_out": 1.0}, 4, "the budget of 1.2e-05 "),
    ],
)
async def test_budgets(budget: dict[str, Any], started: int, reason: str) -> None:
    run = Run(good, 1, **budget)
    assert await run(plan_of(10)) is False
    assert run.stop.reason is not None
    assert run.stop.reason.startswith(reason)
    assert run.stop.error is None
    assert (run.tally.started, run.tally.done, len(run.stored)) == (started, started, started)


@pytest.mark.parametrize(("name", "budget"), [("tokens", {"tokens": 50}), ("cost", {"cost": 1.0, "price_in": 1.0})])
async def test_a_budget_that_nobody_counts_for_ends_the_run(name: str, budget: dict[str, Any]) -> None:
    async def uncounted(task: Task, index: int, attempt: int) -> Rollout:
        return replace(await good(task, index, attempt), response={"output": [assistant("yes")], "usage": None})

    run = Run(uncounted, 2, **budget)
    assert await run(plan_of(10)) is False
    assert isinstance(run.stop.error, UserError)
    assert f"--max-{name} (budget.{name}) cannot be kept" in str(run.stop.error)
    assert run.tally.started == len(run.stored) == 1
    run = Run(uncounted, 2, rollouts=10)
    assert await run(plan_of(10)) is True


async def test_a_budget_that_is_just_enough_stops_nothing() -> None:
    run = Run(good, 1, rollouts=10)
    assert await run(plan_of(10)) is True
    assert run.stop.reason is None


async def test_after_a_stop_what_is_in_flight_is_finished_and_nothing_is_begun() -> None:
    gate = Gate()
    run = Run(gate, 4)
    job = asyncio.create_task(run(plan_of(100)))
    await gate.until(4)
    run.stop("enough")
    run.stop("really")
    gate.open.set()
    assert await job is False
    assert (run.tally.started, len(run.stored), run.stop.reason) == (4, 4, "enough")


async def test_a_stop_ends_the_wait_before_an_attempt_which_is_then_not_made() -> None:
    run = Run(failing(), 1, backoff=1000.0)
    job = asyncio.create_task(run(plan_of(1, last=9)))
    await until(lambda: bool(run.stored))
    run.stop("enough")
    assert await asyncio.wait_for(job, 10) is False
    assert [one.attempt for one in run.stored] == [1]
    assert (run.tally.retries, run.tally.done) == (0, 0)  # not final: attempted again on resume


async def test_cancelling_ends_at_once() -> None:
    gate = Gate()
    run = Run(gate, 4)
    job = asyncio.create_task(run(plan_of(100)))
    await gate.until(4)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert (run.stored, run.tally.in_flight) == ([], 0)


async def test_a_setup_error_ends_at_once_and_what_was_done_is_stored() -> None:
    async def run_one(task: Task, index: int, attempt: int) -> Rollout:
        if task.index == 5:
            raise SetupError("no such model")
        if task.index == 3:
            await asyncio.Event().wait()
        return await good(task, index, attempt)

    run = Run(run_one, 2)
    with pytest.raises(SetupError, match="no such model"):
        await asyncio.wait_for(run(plan_of(100)), 10)
    assert run.keys == [(0, 0), (1, 0), (2, 0), (4, 0)]
    assert run.tally.in_flight == 0


async def test_a_record_that_cannot_be_stored_ends_at_once() -> None:
    run = Run(good, 3)

    def full(one: Rollout) -> Rollout:
        if len(run.stored) == 5:
            raise SetupError("the disk is full")
        run.stored.append(one)
        return one

    run.record = full  # type: ignore[method-assign]
    with pytest.raises(SetupError, match="the disk is full"):
        await run(plan_of(100))
    assert len(run.stored) == run.tally.done == 5


async def test_a_plan_that_breaks_lets_what_is_in_flight_finish() -> None:
    gate = Gate()

    def broken() -> Iterator[Planned]:
        yield from plan_of(3)
        raise UserError("tasks.py:7: no more")

    run = Run(gate, 8)
    job = asyncio.create_task(run(broken()))
    await gate.until(3)
    gate.open.set()
    assert await job is False
    assert len(run.stored) == 3
    assert str(run.stop.error) == "tasks.py:7: no more"


async def test_a_run_where_nothing_works_is_stopped() -> None:
    run = Run(failing(), 64)
    with pytest.raises(SetupError, match=r"the first \d+ attempts all failed; the last: infra_fault in model: it failed"):
        await asyncio.wait_for(run(plan_of(1000, last=1)), 10)
    assert 20 <= len(run.stored) < 100


@pytest.mark.parametrize(
    "run_one", [failing(retryable=False), failing(Outcome.VERIFIER_FAULT, retryable=False)], ids=["refused", "verifier"]
)
async def test_a_run_where_every_answer_is_at_fault_goes_on(run_one: RunOne) -> None:
    run = Run(run_one, 64)
    assert await run(plan_of(100))
    assert run.tally.done == 100


async def test_one_group_that_fails_is_not_the_whole_run() -> None:
    async def run_one(task: Task, index: int, attempt: int) -> Rollout:
        return await (failing() if task.index == 0 else good)(task, index, attempt)

    run = Run(run_one, 64)
    assert await run(plan_of(2, 32))
    assert run.tally.judged == run.tally.outcomes[FAULT] == 32


async def test_memory_does_not_grow_with_the_plan() -> None:
    async def peak(tasks: int) -> int:
        run = Run(lambda task, index, attempt: good_of_size(task), 8)
        run.record = lambda one: one  # type: ignore[method-assign]
        gc.collect()
        tracemalloc.start()
        assert await run(plan_of(tasks))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    async def good_of_size(task: Task) -> Rollout:
        return replace(rollout(), fields={"text": "x" * 10_000 + str(task.index)})

    few = await peak(100)
    assert await peak(2000) < 2 * few
