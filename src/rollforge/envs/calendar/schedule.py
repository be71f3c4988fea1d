"""Events of one day: what was asked of them, whether a calendar keeps to it, and a calendar that does. Times are minutes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rollforge.errors import VerifierFault

LISTS_READ = 100
"""Places in a reply at which a list of objects is looked for."""
SOLVED = 14
"""So many events at most can be arranged (2 ** 14 sets of them)."""
DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Wanted:
    """An event with the time it must lie in."""

    id: str
    duration: int
    earliest: int
    """Its start."""
    latest: int
    """Its end."""


def wanted(expected: Mapping[str, Any]) -> list[Wanted]:
    """The events of a row's `exp_cal_state`: id to `{duration, constraint, min_time, max_time}`; the constraint is null,
    `before T`, `after T`, `between T and T` or `at T`. Raises `VerifierFault` for what cannot be read."""
    if not isinstance(expected, Mapping):
        raise VerifierFault(f"exp_cal_state is {type(expected).__name__}, not a mapping of event ids")
    return [_wanted(str(id), event) for id, event in expected.items()]


def _wanted(id: str, event: Any) -> Wanted:
    try:
        duration, earliest, latest = event["duration"], _clock(event["min_time"]), _clock(event["max_time"])
        if type(duration) is not int or duration <= 0:
            raise ValueError(f"the duration {duration!r:.40} is no number of minutes")
        word, _, rest = str(event.get("constraint") or "").strip().partition(" ")
        if word == "before":
            latest = min(latest, _clock(rest))
        elif word == "after":
            earliest = max(earliest, _clock(rest))
        elif word == "at":
            earliest, latest = max(earliest, _clock(rest)), min(latest, _clock(rest) + duration)
        elif word == "between":
            first, _, last = rest.partition(" and ")
            earliest, latest = max(earliest, _clock(first)), min(latest, _clock(last))
        elif word:
            raise ValueError(f"the constraint {event['constraint']!r:.60} is none of before, after, between, at")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerifierFault(f"event {id!r:.40} of exp_cal_state cannot be read: {error}") from error
    return Wanted(id, duration, earliest, latest)


def read_time(text: Any) -> int | None:
    """`14:05`, `2:05pm`, `2 pm`; None for anything else."""
    found = _TIME.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 40 else None
    if found is None:
        return None
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "").lower()
    if minute > 59 or hour > (12 if half else 24) or not (half or found[2]):
        return None
    return (hour % 12 + 12 * (half == "pm") if half else hour) * 60 + minute


_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s?([ap]m)?", re.IGNORECASE | re.ASCII)


def _clock(text: Any) -> int:
    time = read_time(text)
    if time is None:
        raise ValueError(f"{text!r:.40} is no time of day")
    return time


def read_calendar(reply: str) -> list[dict[str, Any]] | None:
    """The first JSON list of objects in a reply, in any reply in linear time; None if there is none."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    for start in islice(re.finditer(r"\[\s*\{", reply), LISTS_READ):
        try:
            found, _ = decoder.raw_decode(reply, start.start())
        except (ValueError, RecursionError):
            continue
        if all(isinstance(event, dict) for event in found):
            return found  # type: ignore[no-any-return]
    return None


def problem(events: Sequence[Mapping[str, Any]], expected: Sequence[Wanted]) -> tuple[str, int]:
    """What is wrong with a calendar first of all ("" if nothing is), and how many expected events are as they should be."""
    placed: dict[str, tuple[int, int]] = {}
    wrong = ""
    for event in events:
        id, start = event.get("event_id"), read_time(event.get("start_time"))
        duration: Any = event.get("duration")
        whole = int(duration) if type(duration) in (int, float) and 0 < duration <= DAY else 0
        if type(id) not in (int, str) or start is None or not whole or whole != duration:
            wrong = wrong or f"an event cannot be read: {event!r:.120}"
        elif str(id) in placed:
            wrong = wrong or f"event {str(id)!r:.40} is there twice"
        else:
            placed[str(id)] = (start, start + whole)
    for one in expected:
        start, end = placed.get(one.id, (-1, -1))
        if start < 0:
            wrong = wrong or f"event {one.id} is missing"
        elif end - start != one.duration:
            wrong = wrong or f"event {one.id} has another length"
        elif start < one.earliest or end > one.latest:
            wrong = wrong or f"event {one.id} is not at its time"
    if not wrong and len(placed) > len(expected):
        wrong = "there are events that nobody asked for"
    clashing = _clashing(placed)
    if not wrong and clashing:
        wrong = f"event {min(clashing)} is at the same time as another"
    times = ((one, placed[one.id]) for one in expected if one.id in placed and one.id not in clashing)
    good = (end - start == one.duration and one.earliest <= start and end <= one.latest for one, (start, end) in times)
    return wrong, sum(good)


def _clashing(placed: Mapping[str, tuple[int, int]]) -> set[str]:
    """The events that overlap with one that began earlier."""
    clashing, until = set(), -1
    for id, (start, end) in sorted(placed.items(), key=lambda item: item[1]):
        if start < until:
            clashing.add(id)
        until = max(until, end)
    return clashing


def arrange(expected: Sequence[Wanted]) -> dict[str, int] | None:
    """Starts for all events so that none overlap, each as early as its turn allows; None if there are none.

    Exact: of all orders of a set of events, the one that ends first is the best for the rest (Held and Karp). Raises
    `ValueError` for more than `SOLVED` events.
    """
    if len(expected) > SOLVED:
        raise ValueError(f"{len(expected)} events are too many to arrange")
    ends: list[int | None] = [None] * (1 << len(expected))
    last = [0] * len(ends)
    ends[0] = 0
    for chosen in range(len(ends)):
        for one, event in enumerate(expected):
            before = ends[chosen & ~(1 << one)] if chosen >> one & 1 else None
            if before is None:
                continue
            end = max(before, event.earliest) + event.duration
            best = ends[chosen]
            if end <= event.latest and (best is None or end < best):
                ends[chosen], last[chosen] = end, one
    chosen = len(ends) - 1
    if ends[chosen] is None:
        return None
    return dict(_backwards(expected, ends, last, chosen))


def _backwards(
    expected: Sequence[Wanted], ends: Sequence[int | None], last: Sequence[int], chosen: int
) -> Iterator[tuple[str, int]]:
    while chosen:
        event, end = expected[last[chosen]], ends[chosen]
        assert end is not None
        yield event.id, end - event.duration
        chosen &= ~(1 << last[chosen])


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
