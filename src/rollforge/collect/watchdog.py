"""Names what blocks the event loop: a thread that notices when the loop stops turning, and says which rollout is on it.

Every wait of a rollout has a deadline, and deadlines need the loop; only code that does not give it back (an `async`
tool that computes, an inline verifier that hangs) gets past them.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType


class Watchdog:
    def __init__(self, report: Callable[[str], None], seconds: float = 5.0) -> None:
        """`report` gets one text per blockage, from another thread."""
        self._report = report
        self._seconds = seconds
        self._ended = threading.Event()

    async def __aenter__(self) -> Watchdog:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._beat()
        threading.Thread(target=self._watch, name="rollforge-watchdog", daemon=True).start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended.set()
        self._timer.cancel()

    def _beat(self) -> None:
        self._last = time.monotonic()
        self._timer = self._loop.call_later(min(1.0, self._seconds / 2), self._beat)

    def _watch(self) -> None:
        reported = 0.0
        while not self._ended.wait(self._seconds / 4):
            blocked = time.monotonic() - self._last
            if blocked > self._seconds and self._last != reported:
                reported = self._last
                self._report(self._describe(blocked))

    def _describe(self, blocked: float) -> str:
        task = asyncio.current_task(self._loop)
        who = task.get_name() if task is not None else "a callback"
        frame = sys._current_frames().get(self._thread_id)
        stack = traceback.extract_stack(frame)[-1:] if frame else []
        where = "".join(f" at {line.filename}:{line.lineno} in {line.name}" for line in stack)
        return (
            f"the event loop has been blocked for {blocked:.0f} s by {who}{where}; "
            "no other rollout advances (code that blocks belongs in a sync function without inline=True)"
        )
