"""The window: at most N rollouts live at a time, each from plan to journal, failed ones attempted again as a whole.

    plan ──next──> worker 1..N ──run_one──> record (journal, tally) ──> next
                      └── failed, retryable: waits, another attempt

Workers pull, so the plan is never ahead of what is running, and memory does not grow with its length. One `Stop` ends
admission (budget, signal, hopeless run); what is in flight is finished. Cancelling `schedule` ends it at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator

from rollforge.collect.config import Budget
from rollforge.collect.plan import Planned
from rollforge.collect.tally import Tally
from rollforge.errors import SetupError
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task

RunOne = Callable[[Task, int, int], Awaitable[Rollout]]
"""(task, repeat, attempt) to a rollout."""

HOPELESS = 20
"""A run whose first this many attempts all end in infrastructure faults is stopped."""


class Stop:
    """Why nothing new is started, once there is a reason."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.event = asyncio.Event()

    def __call__(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self.event.set()


async def schedule(
    plan: Iterator[Planned],
    run_one: RunOne,
    record: Callable[[Rollout], None],
    *,
    tally: Tally,
    stop: Stop,
    window: int,
    max_attempts: int,
    budget: Budget,
) -> None:
    """Run the plan. Raises `SetupError` when no rollout can succeed; everything else ends in an outcome."""

    async def work() -> None:
        while (planned := _next(plan, tally, stop, budget)) is not None:
            tally.in_flight += 1
            try:
                await _finish(planned)
            finally:
                tally.in_flight -= 1

    async def _finish(planned: Planned) -> None:
        attempt = planned.attempt
        while True:
            rollout = await run_one(planned.task, planned.index, attempt)
            again = bool(rollout.failure and rollout.failure.retryable and attempt < max_attempts)
            record(rollout)
            tally.count(rollout, final=not again)
            _check(tally, stop, budget)
            if not again or stop.reason is not None:
                return
            attempt += 1
            tally.retries += 1
            await _pause(stop, min(30.0, 2.0 ** (attempt - 2)) * random.random())

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(_workers(window, tally)):
                group.create_task(work(), name=f"worker {number}")
    except* SetupError as errors:
        raise errors.exceptions[0] from None


def _workers(window: int, tally: Tally) -> int:
    left = window if tally.planned is None else tally.planned - tally.done
    return max(1, min(window, left))


def _next(plan: Iterator[Planned], tally: Tally, stop: Stop, budget: Budget) -> Planned | None:
    if stop.reason is None and budget.rollouts is not None and tally.started >= budget.rollouts:
        stop(f"the budget of {budget.rollouts} rollouts is used up")
    if stop.reason is not None:
        return None
    planned = next(plan, None)
    if planned is not None:
        tally.started += 1
        task = asyncio.current_task()
        if task is not None:
            task.set_name(f"task {planned.task.index} repeat {planned.index}")  # for the watchdog
    return planned


def _check(tally: Tally, stop: Stop, budget: Budget) -> None:
    if stop.reason is not None:
        return
    if budget.tokens is not None and tally.session_tokens >= budget.tokens:
        stop(f"the budget of {budget.tokens} tokens is used up")
    elif budget.cost is not None and tally.cost(budget.price_in, budget.price_out) >= budget.cost:
        stop(f"the budget of {budget.cost:g} (at the prices given) is used up")
    elif tally.attempts == HOPELESS and tally.infra_faults == HOPELESS:
        raise SetupError(f"the first {HOPELESS} attempts all failed; the last: {tally.last_failure}")


async def _pause(stop: Stop, seconds: float) -> None:
    """Sleep, but not beyond a stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.event.wait()
    except TimeoutError:
        return
