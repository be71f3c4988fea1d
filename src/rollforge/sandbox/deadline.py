"""A wait with a deadline that says what was waited for, and that does not run while the call queues; and how foreign code
is told from somebody who cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from rollforge.errors import DeadlineExceeded

T = TypeVar("T")


async def within(seconds: float, what: str, awaitable: Awaitable[T]) -> T:
    """The result of `awaitable`, which is cancelled when the time is over. Raises `DeadlineExceeded` naming `what`.

    A `TimeoutError` of the awaitable's own passes through: it is not this deadline.
    """
    try:
        async with asyncio.timeout(seconds) as deadline:
            token = _innermost.set(deadline)
            try:
                return await awaitable
            finally:
                _innermost.reset(token)
    except TimeoutError:
        if not deadline.expired():
            raise
    except asyncio.CancelledError:
        if not deadline.expired() or cancelled():
            raise
    raise DeadlineExceeded(f"{what} took longer than {seconds:g} s")


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, done in a task of its own: what foreign code leaves in that task's `cancelling()` does not say
    that anybody cancels the caller. (Before Python 3.13, a TaskGroup of which a child failed leaves 1 there for ever.)"""
    caller = asyncio.current_task()
    assert caller is not None
    here = _Apart(caller, caller.cancelling())
    token = _apart.set(here)
    here.task = task = asyncio.create_task(work, name=caller.get_name())
    _apart.reset(token)
    try:
        return await task
    finally:
        here.task = None  # whose context holds `here`: a circle


def cancelled() -> bool:
    """Whether the running task is to end: whoever waits for it was cancelled, or a deadline further out has passed."""
    deadline, here, task = _innermost.get(), _apart.get(), asyncio.current_task()
    if deadline is not None and deadline.expired():
        return True
    if here is not None and here.task is task:
        return here.caller.cancelling() > here.before
    return task is not None and task.cancelling() > 0


def remaining() -> float | None:
    """Seconds that the innermost `within` leaves the caller; None if there is none, or its clock stands still."""
    deadline = _innermost.get()
    when = deadline.when() if deadline else None
    return None if when is None else max(0.0, when - asyncio.get_running_loop().time())


@asynccontextmanager
async def queued() -> AsyncIterator[None]:
    """Stop the clock of the innermost `within`: what waits for its turn at a scarce thing is not at work yet."""
    deadline, left = _innermost.get(), remaining()
    if deadline is None or left is None or deadline.expired():
        yield
        return
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(asyncio.get_running_loop().time() + left)


_innermost: ContextVar[asyncio.Timeout | None] = ContextVar("deadline", default=None)


@dataclass(slots=True, eq=False)
class _Apart:
    caller: asyncio.Task[Any]
    before: int
    """The caller's `cancelling()` when the work began."""
    task: asyncio.Task[Any] | None = None


_apart: ContextVar[_Apart | None] = ContextVar("apart", default=None)
