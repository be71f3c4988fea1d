"""Names what is stuck: code that blocks the event loop, and a rollout that takes far longer than the others.

Every wait of a rollout has a deadline, and deadlines need the loop; only code that does not give it back (an `async`
tool that computes, an inline verifier that hangs) gets past them. A thread notices that. Beside it, on the loop, whoever
is in flight for long is named once.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rollforge.collect.tally import Tally

WAITS = {
    "_Attempt.ask": "the model",
    "_Attempt.call": "a tool",
    "_Attempt.verify": "the verifier",
    "_pause": "its next attempt",
}
"""What a rollout waits for, by the function that waits."""

MOST_NAMED = 20


class Watchdog:
    def __init__(
        self, report: Callable[[str], None], tally: Tally, seconds: float = 5.0, slow: float = 300.0, times: float = 10.0
    ) -> None:
        """`report` gets one text per blockage of more than `seconds`, from another thread; and one per rollout that is in
        flight for more than `slow` seconds and `times` the average."""
        self._report = report
        self._tally = tally
        self._seconds = seconds
        self._slow, self._times = slow, times
        self._named: set[tuple[str, float]] = set()
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
        self._name_slow()
        self._timer = self._loop.call_later(min(1.0, self._seconds / 2), self._beat)

    def _name_slow(self) -> None:
        tally = self._tally
        average = tally.seconds / tally.attempts if tally.attempts else 0.0
        limit = max(self._slow, self._times * average)
        for worker, began in tally.live.items():
            seconds = self._last - began
            if seconds < limit or len(self._named) >= MOST_NAMED:
                return  # the others began later
            key = worker.get_name(), began
            if key not in self._named:
                self._named.add(key)
                usual = f" (on average they take {average:.1f} s)" if tally.attempts else ""
                self._report(f"{key[0]} has been in flight for {seconds:.0f} s{waits_for(worker)}{usual}")

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


def waits_for(worker: asyncio.Task[Any]) -> str:
    """`, waiting for a tool`: from the innermost function of ours that the worker is in, or the task of its attempt, which
    has the same name."""
    found = ""
    for task in asyncio.all_tasks():
        waiting: Any = task.get_coro() if task.get_name() == worker.get_name() else None
        while waiting is not None:
            code = getattr(waiting, "cr_code", None) or getattr(waiting, "ag_code", None)
            found = WAITS.get(getattr(code, "co_qualname", ""), found)
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return f", waiting for {found}" if found else ""
