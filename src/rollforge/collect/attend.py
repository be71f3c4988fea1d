"""What runs beside a schedule: signals and the sync of the journals, either of which may end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from rollforge.collect.journal import Journal
from rollforge.collect.scheduler import Stop
from rollforge.collect.signals import on_signals
from rollforge.collect.tally import Tally


async def attended(
    work: Coroutine[Any, Any, bool],
    journals: Sequence[Journal],
    *,
    tally: Tally,
    stop: Stop,
    warn: Callable[[str], None],
    units: str = "rollouts",
    unstored: str = "what was collected cannot be stored",
) -> bool:
    """What `work`, a schedule, returns; False if it was ended at once, by a second signal or a disk that takes no more.

    The first signal lets what is in flight finish; `units` names that.
    """
    job = asyncio.create_task(work)
    signals, cut = 0, False

    def interrupt(name: str) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            end_at_once()
        elif not job.done():
            stop(name)
            warn(f"{name}: finishing {tally.in_flight} {units} in flight; again to stop at once")

    def end_at_once() -> None:
        nonlocal cut
        cut = True
        job.cancel()

    def synced(sync: asyncio.Task[None]) -> None:
        error = None if sync.cancelled() else sync.exception()
        if isinstance(error, Exception):
            stop(unstored, error)
            end_at_once()

    syncs = [asyncio.create_task(journal.sync_forever()) for journal in journals]
    for sync in syncs:
        sync.add_done_callback(synced)
    with on_signals(asyncio.get_running_loop(), interrupt):
        try:
            return await job
        except asyncio.CancelledError:
            if not cut:
                raise  # from outside
            return False
        finally:
            for sync in syncs:
                sync.cancel()
            await asyncio.gather(*syncs, return_exceptions=True)
