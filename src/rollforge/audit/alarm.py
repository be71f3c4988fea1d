"""A clock for code on the event loop: a verifier that runs there and does not end would hold the audit for ever."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def alarm(seconds: float) -> Iterator[Callable[[], Awaitable[None]]]:
    """Raise `SystemExit` in whatever blocks the running event loop for so long: nobody's `except Exception` catches it, and
    the session makes a fault of it. Regular expressions look at signals too. Nothing outside of the main thread, which
    gets the signals. Yields what sets the clock back: to be awaited before what may take so long.

    Seconds of processor time, or six times as many on the clock: on a busy machine it must not ring for nothing.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield _nothing
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise SystemExit(f"the event loop was blocked for {seconds:g} s")

    loop = asyncio.get_running_loop()
    before = {number: signal.signal(number, ring) for number in (signal.SIGALRM, signal.SIGPROF)}
    beat: asyncio.TimerHandle | None = None

    def wind() -> None:
        nonlocal beat
        _set_timers(seconds)
        beat = loop.call_later(seconds / 4, wind)

    async def wound() -> None:
        _set_timers(seconds)

    wind()
    try:
        yield wound
    finally:
        if beat is not None:
            beat.cancel()
        _set_timers(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_timers(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds, 6 * seconds)


async def _nothing() -> None:
    pass
