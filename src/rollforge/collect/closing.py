"""The end of what holds connections, threads or processes: environments, models, agents."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rollforge.errors import InfraFault, RolloutError, stage

CLOSE_SECONDS = 10.0


async def aclose(thing: Any) -> None:
    """Call its `aclose()`, if it has one."""
    close = getattr(thing, "aclose", None)
    if close is not None:
        await close()


async def close(thing: Any, warn: Callable[[str], None], name: str = "") -> None:
    """`aclose()`. What goes wrong or takes too long is told, not raised: the work is done."""
    try:
        with stage("close", InfraFault):
            async with asyncio.timeout(CLOSE_SECONDS):
                await aclose(thing)
    except RolloutError as error:
        warn(f"closing {name or type(thing).__name__}: {error}")


@asynccontextmanager
async def in_use(env: Any, warn: Callable[[str], None], name: str = "") -> AsyncIterator[None]:
    """Whoever uses an environment last closes it: the same object may be in two collections at once."""
    _users[id(env)] += 1
    try:
        yield
    finally:
        _users[id(env)] -= 1
        if not _users[id(env)]:
            del _users[id(env)]
            await close(env, warn, name)


_users: Counter[int] = Counter()
