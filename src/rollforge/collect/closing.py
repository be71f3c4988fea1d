"""The end of what holds connections, threads or processes: environments, models, agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rollforge.errors import InfraFault, RolloutError, stage

CLOSE_SECONDS = 10.0


async def close(thing: Any, warn: Callable[[str], None], name: str = "") -> None:
    """Call its `aclose()`, if it has one. What goes wrong or takes too long is told, not raised: the work is done."""
    aclose = getattr(thing, "aclose", None)
    if aclose is None:
        return
    try:
        with stage("close", InfraFault):
            async with asyncio.timeout(CLOSE_SECONDS):
                await aclose()
    except RolloutError as error:
        warn(f"closing {name or type(thing).__name__}: {error}")
