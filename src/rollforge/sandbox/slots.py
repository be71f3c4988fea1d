"""How much goes on at once."""

from __future__ import annotations

import asyncio
import os


class Slots:
    """At most `size` at a time in the running loop: an environment may be used by one loop after another."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def here(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._free is None or self._loop is not loop:
            self._free, self._loop = asyncio.Semaphore(self._size), loop
        return self._free


def cores() -> int:
    """How many processes this one may use at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
