"""How long one request may take, for whoever answers it in pieces: an answer that has begun ends in its own form."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rollforge.records.problem import Problem

LIMIT = "rollforge.limit"
"""Where a scope has its `Limit`."""
LAST_SECONDS = 5.0
"""How long a caller may take to read how its answer ended."""


class Limit:
    """The time of one request. `deadline` is around all of it."""

    __slots__ = ("deadline", "on_late", "seconds", "status")

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.timeout(seconds)
        self.seconds = seconds
        self.status = 0
        """What became of an answer whose head said something else."""
        self.on_late: Callable[[str], None] | None = None
        """Told when the time is over, and how long it was, before the caller is."""

    def taken_over(self) -> float | None:
        """The time of the loop at which to end. Who takes it over ends the answer in its own form; it is cut off later."""
        when = self.deadline.when()
        if when is not None and not self.deadline.expired():
            self.deadline.reschedule(when + LAST_SECONDS)
        return when

    def ran_out(self) -> Problem:
        what = f"the request took longer than {self.seconds:g} s"
        if self.on_late is not None:
            self.on_late(what)
        self.status = 504
        return Problem(504, "timeout", what)
