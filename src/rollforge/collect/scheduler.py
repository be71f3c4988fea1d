"""The window: at most N rollouts live at a time, each from plan to journal, failed ones attempted again as a whole.

    plan ──next──> worker 1..N ──run_one──> record (journal, tally) ──> next
                      └── failed, retryable: waits, another attempt

Workers pull, so the plan is never ahead of what is running, and memory does not grow with its length. One `Stop` ends
admission (budget, signal, broken plan); what is in flight is finished. Cancelling `schedule` ends it at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator

from rollforge.collect.config import Budget
from rollforge.collect.plan import Planned
from rollforge.collect.tally import Tally
from rollforge.errors import SetupError, UserError
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task

RunOne = Callable[[Task, int, int], Awaitable[Rollout]]
"""(task, repeat, attempt) to a rollout. Raises `SetupError` when no rollout of the run can succeed, nothing else."""

LONGEST_WAIT = 30.0
"""Seconds between two attempts."""


class Stop:
    """Why nothing new is started, once there is a reason."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.error: Exception | None = None
        """What the run ends with, if the reason is an error."""
        self.event = asyncio.Event()

    def __call__(self, reason: str, error: Exception | None = None) -> None:
        self.error = self.error or error
        if self.reason is None:
            self.reason = reason
            self.event.set()


async def schedule(
    plan: Iterator[Planned],
    run_one: RunOne,
    record: Callable[[Rollout], Rollout],
    *,
    tally: Tally,
    stop: Stop,
    window: int,
    budget: Budget,
    backoff: float = 1.0,
) -> bool:
    """Run the plan; whether it was read to its end. `record` stores an attempt and gives back what was stored; `backoff` is
    the longest wait before a second attempt, in seconds, and doubles with each further one.

    Raises `SetupError` at once when no rollout can succeed or none can be stored. What `plan` raises (`UserError`) stops the
    run, and becomes `stop.error`. Everything else ends in an outcome.
    """
    workers, ended = 0, False

    def pull() -> Planned | None:
        nonlocal ended
        if stop.reason is not None:
            return None
        try:
            planned = next(plan, None)
        except UserError as error:
            stop("the tasks cannot be read on", error)
            return None
        if planned is None:
            ended = True
        elif budget.rollouts is not None and tally.started >= budget.rollouts:
            stop(f"the budget of {budget.rollouts} rollouts is used up")
            return None
        return planned

    async def work() -> None:
        nonlocal workers
        worker = asyncio.current_task()
        assert worker is not None
        while (planned := pull()) is not None:
            if workers < window:
                workers += 1
                group.create_task(work())
            tally.started += 1
            worker.set_name(f"task {planned.task.index} repeat {planned.index}")
            tally.live[worker] = time.monotonic()
            try:
                await finish(planned)
            finally:
                del tally.live[worker]

    async def finish(planned: Planned) -> None:
        for attempt in range(planned.attempt, planned.last + 1):
            rollout = record(await run_one(planned.task, planned.index, attempt))
            again = bool(rollout.failure and rollout.failure.retryable) and attempt < planned.last
            tally.count(rollout, final=not again)
            _check(tally, stop, budget)
            # A rollout may have waited for nothing: let the others, signals and clocks have their turn.
            await asyncio.sleep(0)
            if again and not stop.event.is_set():
                wait = min(LONGEST_WAIT, backoff * 2.0 ** min(attempt - planned.attempt, 9))
                await _pause(stop, wait * random.uniform(0.5, 1.0))
            if not again or stop.event.is_set():
                return
            tally.retries += 1

    try:
        async with asyncio.TaskGroup() as group:
            workers = 1
            group.create_task(work())
    except BaseExceptionGroup as errors:
        fatal = errors.subgroup(SetupError)
        if fatal is None:
            raise
        raise fatal.exceptions[0] from None
    return ended


def _check(tally: Tally, stop: Stop, budget: Budget) -> None:
    if stop.reason is not None:
        return
    kept = "tokens" if budget.tokens is not None else "cost" if budget.cost is not None else None
    if kept and tally.uncounted:
        problem = (
            f"the budget --max-{kept} (budget.{kept}) cannot be kept: the model's answers count no tokens (`usage`); "
            "leave it out, or use --max-rollouts or --max-minutes"
        )
        stop(problem, UserError(problem))
    elif budget.tokens is not None and tally.session_tokens >= budget.tokens:
        stop(f"the budget of {budget.tokens} tokens is used up")
    elif budget.cost is not None and tally.cost(budget.price_in, budget.price_out) >= budget.cost:
        stop(f"the budget of {budget.cost:g} (at the prices given) is used up")
    elif tally.hopeless:
        raise SetupError(f"the first {tally.attempts} attempts all failed; the last: {tally.last_failure}")


async def _pause(stop: Stop, seconds: float) -> None:
    """Sleep, but not beyond a stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.event.wait()
    except TimeoutError:
        return
