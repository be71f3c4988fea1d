"""A wait with a deadline that says what was waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from rollforge.errors import DeadlineExceeded

T = TypeVar("T")


async def within(seconds: float, what: str, awaitable: Awaitable[T]) -> T:
    """The result of `awaitable`, which is cancelled when the time is over. Raises `DeadlineExceeded` naming `what`.

    A `TimeoutError` of the awaitable's own passes through: it is not this deadline.
    """
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await awaitable
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"{what} took longer than {seconds:g} s") from None
