"""A search with a regular expression that ends: Python's has no limit, and a repeat within a repeat can take for ever.

Its matcher looks for signals while it works: a timer of the processor time that this process uses, whatever else the machine
does, ends it. Signals reach the main thread only, where curation works, in workers too; in other threads there is no limit.
"""

from __future__ import annotations

import re
import signal
import threading
from types import FrameType

from rollforge.errors import RollforgeError, UserError

SECONDS = 1.0
"""Of processor time, for one text. A sound pattern reads a megabyte in hundredths of one."""
PATIENCE = 10
"""So many texts may take longer in one process; with one more the pattern is at fault, and the work ends."""


class HopelessPattern(RollforgeError):
    """Ends the work: with this pattern it would take for ever."""


class Search:
    """A pattern to be searched for. Raises `UserError` for a text that takes too long, `HopelessPattern` once there were too
    many of them."""

    def __init__(self, pattern: re.Pattern[str], seconds: float = SECONDS) -> None:
        self._pattern = pattern
        self._seconds = seconds
        self._late = 0

    def __call__(self, text: str) -> bool:
        try:
            return _search(self._pattern, text, self._seconds)
        except _Stopped:
            self._late += 1
        what = f"the pattern {self._pattern.pattern!r} takes more than {self._seconds:g} s"
        if self._late <= PATIENCE:
            raise UserError(f"{what} on the text")
        raise HopelessPattern(
            f"{what} on text after text (here one of {len(text):,} characters). A repeat within a repeat, such as (a+)+, "
            f"can be read in ever more ways: write it as one, a+, or with possessive repeats, (a++)+, or use contains(...)"
        )


def _search(pattern: re.Pattern[str], text: str, seconds: float) -> bool:
    global _running
    if threading.current_thread() is not threading.main_thread():
        return pattern.search(text) is not None
    if _running is None:
        # Once, and for good: two changes of a handler would take longer than most searches.
        signal.signal(signal.SIGVTALRM, _stop)
    _running = True
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return pattern.search(text) is not None
    finally:
        _running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


_running: bool | None = None
"""Whether there is a search to be stopped; None before the first one."""


class _Stopped(Exception):
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    if _running:
        raise _Stopped
