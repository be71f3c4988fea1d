"""How a collection is going: a live panel on a terminal, plain lines elsewhere. Both on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from rollforge.collect.run import Collection
from rollforge.collect.tally import Tally
from rollforge.collect.watchdog import waits_for
from rollforge.stats.visible import one_line

PLAIN_SECONDS = 10.0
PANEL_SECONDS = 0.25
RATE_SECONDS = 30.0
"""Rates are those of the last so many seconds: what time is left follows from how it goes now."""
LONG_SECONDS = 20.0
"""The oldest rollout in flight is shown from this age on."""


@contextmanager
def progress(collection: Collection) -> Iterator[None]:
    """Shows the collection's tally from a thread of its own while the body runs."""
    tally = collection.tally
    meter = Meter(tally)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        collection.warn = lambda text: console.print(text, style="yellow", markup=False, highlight=False)
        panel = Live(
            get_renderable=lambda: _panel(collection, meter),
            console=console,
            refresh_per_second=1 / PANEL_SECONDS,
            transient=True,
        )
        with panel:
            yield
        return
    collection.warn = say
    say(f"{collection.title} -> {collection.path}")
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(PLAIN_SECONDS):
            meter.read()
            say("  ".join(filter(None, (counted(tally), reward(tally), *rates(meter, collection), faults(tally)))))

    threading.Thread(target=report, daemon=True, name="rollforge-progress").start()
    try:
        yield
    finally:
        ended.set()


def say(text: str) -> None:
    """A line on stderr; if nobody reads it any more, the work goes on all the same."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Meter:
    """Speeds, from readings of the tally over the last RATE_SECONDS. It is read by a thread beside the one that counts:
    what has no fixed size is copied in one step."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._readings: deque[tuple[float, int, int]] = deque()

    def read(self) -> None:
        now, tally = time.monotonic(), self.tally
        if not self._readings or now < tally.began:
            self._readings.append((tally.began, 0, 0))
        self._readings.append((now, tally.done - tally.before, tally.session_out))
        while len(self._readings) > 2 and self._readings[1][0] < now - RATE_SECONDS:
            self._readings.popleft()

    @property
    def speed(self) -> tuple[float, float]:
        """Rollouts and generated tokens per second."""
        (first, done, tokens), (last, done_now, tokens_now) = self._readings[0], self._readings[-1]
        seconds = max(last - first, 1e-3)
        return (done_now - done) / seconds, (tokens_now - tokens) / seconds


def counted(tally: Tally) -> str:
    total = f"/{tally.planned:,}" if tally.planned else ""
    before = f" ({tally.before:,} before)" if tally.before else ""
    return f"{tally.done:,}{total}{before}"


def reward(tally: Tally) -> str:
    """The mean with its coverage: over how many of those that ended."""
    if tally.mean is None:
        return "no reward yet"
    return f"mean reward {tally.mean:.3f} over {tally.judged / tally.done:.1%} of what ended"


def rates(meter: Meter, collection: Collection) -> list[str]:
    tally, cost = meter.tally, collection.cost
    rollouts, tokens = meter.speed
    parts = [f"{rollouts:.3g}/s" if rollouts < 10 else f"{rollouts:,.0f}/s"]
    if tally.session_out:
        parts.append(f"{tokens:,.0f} tokens/s")
    parts.append(f"{tally.in_flight:,} in flight")
    if tally.retries:
        parts.append(f"{tally.retries:,} retries")
    if cost is not None:
        parts.append(f"cost {cost:.4g}")
    left = (tally.planned or 0) - tally.done
    if collection.stop.reason:
        parts.append(f"stopping: {collection.stop.reason}")
    elif left > 0 and rollouts > 0:
        parts.append(f"{duration(left / rollouts)} left")
    return parts


def faults(tally: Tally) -> str:
    found = sorted(tally.faults.copy().items(), key=lambda item: -item[1])
    shown = [f"failed: {', '.join(f'{count:,} {fault}' for fault, count in found[:4])}"] if found else []
    if tally.bad_lines:
        shown.append(f"{tally.bad_lines:,} task lines not used")
    return ", ".join(shown)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(min(seconds, 1e9)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _panel(collection: Collection, meter: Meter) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    meter.read()
    tally = meter.tally
    elapsed = duration(time.monotonic() - tally.began)
    # Its own line of the group, one row: the bar takes what the texts leave.
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    done = ProgressBar(total=tally.planned or None, completed=tally.done, pulse=not tally.planned)
    bar.add_row(Text(f" {counted(tally)}"), done, Text(elapsed, style="dim"))
    title = Text(f"{collection.title} -> {collection.path}", style="bold", no_wrap=True, overflow="ellipsis")
    lines = [
        (reward(tally), "green" if tally.judged else "dim"),
        ("  ".join(rates(meter, collection)), ""),
        (faults(tally), "yellow"),
        (f"last: {one_line(tally.last_failure, 500)}" if tally.last_failure else "", "dim"),
        (_oldest(tally), "dim"),
    ]
    texts = [Text(f" {text}", style=style, no_wrap=True, overflow="ellipsis") for text, style in lines if text]
    return Group(title, bar, *texts)


def _oldest(tally: Tally) -> str:
    for worker, began in list(islice(tally.live.items(), 1)):
        age = time.monotonic() - began
        if age > LONG_SECONDS:
            return f"longest in flight: {worker.get_name()}, {duration(age)}{waits_for(worker)}"
    return ""
