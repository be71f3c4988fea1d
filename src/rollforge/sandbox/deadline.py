"""A wait with a deadline that says what was waited for, and that does not run while the call queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TypeVar

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
        raise DeadlineExceeded(f"{what} took longer than {seconds:g} s") from None


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
