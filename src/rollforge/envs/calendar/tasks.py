"""Tasks of the calendar environment: conversations in which a day fills up, and a last request that it must give way to.

Each is made from a day on which everything has its place, so there is an answer; no calendar shown before is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from rollforge.envs.calendar.schedule import Wanted, arrange, problem, wanted
from rollforge.envs.generate import Kinds, Make, generated
from rollforge.records.items import Item, Json

RULES = """
You keep the user's calendar of one day.
- Answer every message with the whole calendar as a JSON list:
  [{{"event_id": 0, "event_name": "...", "start_time": "HH:MM", "duration": 30}}, ...]
  Times have 24 hours, durations are minutes.
- The calendar is empty at first. Events lie between {first} and {last} and never overlap.
- What the user once said about the time of an event holds until the user says otherwise. "Before 11:00" means that the
  event is over by 11:00, "after 11:00" that it does not begin earlier.
- Move other events where a request needs room, as long as they stay within what was said of them. Ask nothing.
""".strip()
NAMES = (
    """
Architecture review, Board call, Budget talk, Candidate interview, Code walk-through, Customer visit, Demo rehearsal,
Design critique, Fire drill, Garden tour, Hiring debrief, Lab inspection, Language lesson, Lunch with Mia, Mentoring hour,
Network upgrade, Photo session, Press briefing, Reading group, Roadmap talk, Safety training, Stand-up, Supplier call,
Team breakfast, Tool demo, Vaccination, Warehouse check, Yoga class
""".replace("\n", " ")
    .strip()
    .split(", ")
)
DURATIONS = (15, 30, 30, 45, 60, 60, 75, 90)
HOURS = ((10, 16), (9, 17), (8, 14), (9, 15))
STEP = 15


@generated("calendar")
def tasks() -> Kinds:
    """Rows `{responses_create_params, exp_cal_state, names, kind, level}`. Kinds: what is asked last: add (an event with a
    time), constrain (a time for one that is there), lengthen, cancel. Level: two or three, four or five, six or seven
    events."""
    return {kind: _maker(kind) for kind in ("add", "constrain", "lengthen", "cancel")}


def listed(expected: Sequence[Wanted], starts: Mapping[str, int], names: Mapping[str, str]) -> list[Json]:
    """A calendar as the reply shows it."""
    return [
        {
            "event_id": int(one.id) if one.id.isdecimal() else one.id,
            "event_name": names.get(one.id, f"event {one.id}"),
            "start_time": _day_time(starts[one.id]),
            "duration": one.duration,
        }
        for one in sorted(expected, key=lambda one: starts[one.id])
    ]


def _maker(kind: str) -> Make:
    def made(rng: Random, level: int) -> tuple[str, Json]:
        while True:
            row = _conversation(rng, 2 + 2 * level + rng.randint(0, 1), kind)
            if row is not None:
                return json.dumps([row["exp_cal_state"], row["names"]]), row

    return made


Request = tuple[str, str, Json | None]
"""What the user says, of which event, and what is wanted of it from now on; None: nothing, it goes."""


def _conversation(rng: Random, count: int, kind: str) -> Json | None:
    """None if the events do not fit into the day, or a calendar shown before would do for the last request."""
    hours = rng.choice(HOURS)
    places = _day(rng, count, hours)
    if places is None:
        return None
    names = {str(id): name for id, name in enumerate(rng.sample(NAMES, count))}
    frame = {"min_time": f"{hours[0]:02d}:00", "max_time": f"{hours[1]:02d}:00"}
    items: list[Item] = [_item("system", RULES.format(first=frame["min_time"], last=frame["max_time"]))]
    state: dict[str, Json] = {}
    starts: dict[str, int] = {}
    shown: list[list[Json]] = []
    for text, id, event in _requests(rng, kind, names, places, hours):
        items.append(_item("user", text))
        state.pop(id, None)
        if event is not None:
            state[id] = {"event_id": int(id), **event, **frame}
        expected = wanted(state)
        starts = _moved(starts, expected)
        shown.append(listed(expected, starts, names))
        items.append(_item("assistant", json.dumps(shown[-1])))
    if not all(problem(before, expected)[0] for before in shown[:-1]):
        return None
    kept = {id: name for id, name in names.items() if id in state}
    state = {id: state[id] for id in kept}
    return {"responses_create_params": {"input": items[:-1]}, "exp_cal_state": state, "names": kept}


def _moved(starts: Mapping[str, int], expected: Sequence[Wanted]) -> dict[str, int]:
    """A calendar for what is expected now: nothing is moved that can stay, if that is possible."""
    kept = {one.id: starts[one.id] for one in expected if one.id in starts}
    kept = {one.id: kept[one.id] for one in expected if one.id in kept and _fits(one, kept[one.id], expected, kept)}
    for one in expected:
        if one.id not in kept:
            free = (start for start in range(one.earliest, one.latest, STEP) if _fits(one, start, expected, kept))
            start = next(free, None)
            if start is None:
                return arrange(expected) or {}
            kept[one.id] = start
    return kept


def _fits(one: Wanted, start: int, expected: Sequence[Wanted], starts: Mapping[str, int]) -> bool:
    end = start + one.duration
    others = (
        (starts[other.id], starts[other.id] + other.duration) for other in expected if other.id in starts and other != one
    )
    return one.earliest <= start and end <= one.latest and all(end <= first or last <= start for first, last in others)


def _day(rng: Random, count: int, hours: tuple[int, int]) -> list[tuple[int, int]] | None:
    """Starts and durations of events that follow each other, in no order."""
    durations = [rng.choice(DURATIONS) for _ in range(count)]
    free = (hours[1] - hours[0]) * 60 - sum(durations)
    if free < 0:
        return None
    gaps = sorted(rng.randrange(0, free + 1, STEP) for _ in range(count))
    places = []
    passed = 0
    for gap, duration in zip(gaps, durations, strict=True):
        places.append((hours[0] * 60 + gap + passed, duration))
        passed += duration
    rng.shuffle(places)
    return places


def _requests(
    rng: Random, kind: str, names: Mapping[str, str], places: Sequence[tuple[int, int]], hours: tuple[int, int]
) -> Iterator[Request]:
    """The course of a conversation that `places` meets at every turn."""
    special = str(len(names) - 1 if kind == "add" else rng.randrange(len(names)))
    held: dict[str, Json] = {}
    for (id, name), (start, duration) in zip(names.items(), places, strict=True):
        condition, said = _condition(rng, start, duration, hours)
        label = f"'{name}' (event id {id})"
        if id == special and kind == "add":
            yield f"Please add {label}, {duration} minutes. {_capital(said)}.", id, _event(duration, condition)
            return
        length, later = duration, rng.random() < 0.6
        if id == special:
            later = kind != "constrain"
            length = duration - STEP if kind == "lengthen" and duration > STEP else duration
        held[id] = _event(length, None)
        yield rng.choice(ADD).format(label, length), id, held[id]
        if later:
            held[id] = _event(length, condition)
            yield f"About {label}: {said}.", id, held[id]
    name, (start, duration) = names[special], places[int(special)]
    label = f"'{name}' (event id {special})"
    if kind == "cancel":
        yield f"{label} is off, please take it out of the calendar. Everything else stays as I said.", special, None
    elif kind == "constrain":
        condition, said = _condition(rng, start, duration, hours)
        yield f"One more thing about {label}: {said}.", special, _event(duration, condition)
    else:
        old = held[special]
        longer = duration - old["duration"]
        text = f"{label} needs {longer} minutes more, {duration} in all. What I said of its time still holds."
        yield text, special, {**old, "duration": duration}


ADD = (
    "Could you add {}? It takes {} minutes.",
    "Please put {} into the calendar, {} minutes.",
    "I also need {}, for {} minutes.",
)


def _condition(rng: Random, start: int, duration: int, hours: tuple[int, int]) -> tuple[str, str]:
    """A condition that this place meets: as the row has it, and as the user says it."""
    end = start + duration
    first = max(hours[0] * 60, start - STEP * rng.randint(0, 4))
    last = min(hours[1] * 60, end + STEP * rng.randint(0, 4))
    kind, times = rng.choice((("at", (start,)), ("before", (last,)), ("after", (first,)), ("between", (first, last))))
    said = rng.choice(SAID[kind]).format(*(_any_time(rng, time) for time in times))
    return f"{kind} {' and '.join(map(_half_day_time, times))}", said


SAID = {
    "at": ("it begins at {}", "it has to be at {}"),
    "before": ("it must be over by {}", "it is to end by {} at the latest"),
    "after": ("it cannot begin before {}", "it is to start at {} or later"),
    "between": ("it has to lie between {} and {}", "it can only be between {} and {}"),
}


def _event(duration: int, condition: str | None) -> Json:
    return {"duration": duration, "constraint": condition}


def _item(role: str, text: str) -> Item:
    return {"role": role, "content": text}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _any_time(rng: Random, minutes: int) -> str:
    return rng.choice((_day_time, _half_day_time))(minutes)


def _day_time(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _half_day_time(minutes: int) -> str:
    hour, minute = divmod(minutes, 60)
    return f"{hour % 12 or 12}{f':{minute:02d}' if minute else ''}{'pm' if hour >= 12 else 'am'}"
