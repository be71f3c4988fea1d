"""Callers that go away before they have their answer: what was done for them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from rollforge.records.problem import Problem

T = TypeVar("T")


class Gone(Problem):
    """The answer that nobody will read."""

    def __init__(self) -> None:
        super().__init__(499, "client_gone", "the caller went away before its answer was ready")


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """What the work gives. Raises `Gone` when the caller has gone.

    The request's body must have been read: all that can still come is the news that the caller has gone. The work runs in
    the task that waits for it, and only the watching in one of its own.
    """
    waiting = asyncio.current_task()
    assert waiting is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        waiting.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and waiting.uncancel() == 0:
            raise Gone from None
        raise
    finally:
        watching.cancel()
