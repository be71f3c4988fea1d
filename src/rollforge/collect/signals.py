"""SIGINT and SIGTERM for an event loop: told to the loop, and past it when it is blocked."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BLOCKED_SECONDS = 1.0

_LISTENING: list[Callable[[int], None]] = []


@contextmanager
def on_signals(loop: asyncio.AbstractEventLoop, interrupt: Callable[[str], None]) -> Iterator[None]:
    """While the body runs, each signal calls `interrupt` on the loop with its name; where several bodies run, that of each.

    A loop that is blocked by somebody's code cannot: then the next signal, a second later or more, raises
    `KeyboardInterrupt` in that code. Signals that are ignored (nohup, background jobs) stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python gives signals to the main thread only
        return
    waiting: float | None = None
    ended = False

    def on_loop(name: str) -> None:
        nonlocal waiting
        waiting = None
        interrupt(name)

    def tell(number: int) -> None:
        nonlocal waiting
        now = time.monotonic()
        if waiting is not None and now - waiting >= BLOCKED_SECONDS:
            raise KeyboardInterrupt
        waiting = waiting or now
        loop.call_soon_threadsafe(on_loop, signal.Signals(number).name)

    def handle(number: int, frame: Any) -> None:
        if ended:  # whoever began after us and ended after us has put us back
            _pass_on(number, frame, before[signal.Signals(number)])
            return
        for listener in _LISTENING:
            listener(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handle)
    _LISTENING.append(tell)
    try:
        yield
    finally:
        ended = True
        _LISTENING.remove(tell)
        for number in handled:
            if signal.getsignal(number) is handle:
                signal.signal(number, before[number] or signal.SIG_DFL)


def _pass_on(number: int, frame: Any, handler: Any) -> None:
    if callable(handler):
        handler(number, frame)
    else:
        signal.signal(number, handler or signal.SIG_DFL)
        signal.raise_signal(number)
