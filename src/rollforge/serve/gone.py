"""Callers that go away before they have their answer: what was done for them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Receive

from rollforge.records.problem import Problem
from rollforge.serve.exchange import EXCHANGE, Exchange

T = TypeVar("T")


class Gone(Problem):
    """The answer that nobody will read."""

    def __init__(self) -> None:
        super().__init__(499, "client_gone", "the caller went away before its answer was ready")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """What the work gives, in the task that waits for it. Raises `Gone` when the caller has gone.

    The request's body must have been read: all that can still come is the news that the caller has gone.
    """
    waiting = asyncio.current_task()
    assert waiting is not None
    gone = over = False

    def leave() -> None:
        nonlocal gone
        if not over:
            gone = True
            waiting.cancel()

    exchange: Exchange | None = request.scope.get(EXCHANGE)
    watching = None
    if exchange is not None:
        exchange.watch(leave)
    else:  # another server's
        watching = asyncio.create_task(_watch(request.receive, leave))
    try:
        return await work
    except asyncio.CancelledError:
        if gone and waiting.uncancel() == 0:
            raise Gone from None
        raise
    finally:
        over = True
        if exchange is not None:
            exchange.unwatch(leave)
        if watching is not None:
            watching.cancel()


async def _watch(receive: Receive, leave: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    leave()
