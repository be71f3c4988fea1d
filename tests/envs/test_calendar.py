"""The calendar environment: a day as JSON, judged by what the conversation asked for."""

from __future__ import annotations

import json
import math
from itertools import pairwise, permutations
from typing import Any

import pytest

from rollforge.envs.calendar import calendar
from rollforge.envs.calendar.schedule import Wanted, arrange, read_calendar, read_time, wanted
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of


def event(duration: int, constraint: str | None = None) -> dict[str, Any]:
    return {"duration": duration, "constraint": constraint, "min_time": "10:00", "max_time": "4pm"}


STATE = {
    "0": event(60, "between 10am and 11:45am"),
    "1": event(30, "before 1:45pm"),
    "2": event(45, "at 2pm"),
    "3": event(15),
}
ROW = task(exp_cal_state=STATE)


def day(*events: tuple[Any, Any, Any], name: str = "x") -> str:
    keys = ("event_id", "start_time", "duration")
    return json.dumps([{**dict(zip(keys, one, strict=True)), "event_name": name} for one in events])


GOOD = ((0, "10:00", 60), (1, "11:00", 30), (2, "14:00", 45), (3, "15:45", 15))


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (day(*GOOD), ""),
        (day(*reversed(GOOD)), ""),
        (f"Here it is:\n```json\n{day(*GOOD)}\n```\nAnything else?", ""),
        (f"As in [1], [{{draft}}] and [] before: {day(*GOOD)}", ""),
        (f"<think>maybe {day((0, '15:00', 60))}</think>{day(*GOOD)}", ""),
        (day((0, "10am", 60), ("1", "11:00 AM", 30.0), (2, "2:00pm", 45), (3, "3:45 pm", 15)), ""),
        (day((0, "10:45", 60), *GOOD[2:], (1, "10:15", 30)), ""),
        # Wrong.
        (day((0, "10:46", 60), *GOOD[1:]), "event 0 is not at its time"),
        (day(GOOD[0], (1, "13:16", 30), *GOOD[2:]), "event 1 is not at its time"),
        (day(*GOOD[:2], (2, "14:01", 45), GOOD[3]), "event 2 is not at its time"),
        (day(*GOOD[:3], (3, "15:46", 15)), "event 3 is not at its time"),
        (day(*GOOD[:3], (3, "09:45", 15)), "event 3 is not at its time"),
        (day(*GOOD[:3], (3, "14:30", 15)), "event 3 is at the same time as another"),
        (day(*GOOD[:3], (3, "10:15", 15)), "event 3 is at the same time as another"),
        (day(*GOOD[:3]), "event 3 is missing"),
        (day(*GOOD[:3], (3, "15:45", 10)), "event 3 has another length"),
        (day(*GOOD, (4, "12:00", 15)), "there are events that nobody asked for"),
        (day(*GOOD, GOOD[3]), "event '3' is there twice"),
        # Malformed.
        ("", "no JSON list"),
        ("Done, all is in the calendar.", "no JSON list"),
        (day(*GOOD)[:-1], "no JSON list"),
        ("[]", "no JSON list"),
        ("[{}]", "cannot be read"),
        (day(*GOOD[:3], (3, "15:45", "15")), "cannot be read"),
        (day(*GOOD[:3], (3, "15:45", -15)), "cannot be read"),
        (day(*GOOD[:3], (3, "15:45", True)), "cannot be read"),
        (day(*GOOD[:3], (3, "late", 15)), "cannot be read"),
        (day(*GOOD[:3], (3, None, 15)), "cannot be read"),
        (day(*GOOD[:3], (True, "15:45", 15)), "cannot be read"),
        (day(*GOOD[:3], ([3], "15:45", 15)), "cannot be read"),
        (day(*GOOD[:3], (3, "15:45", 15)).replace("15}", "NaN}").replace("15,", "NaN,"), "no JSON list"),
        (f"<think>{day(*GOOD)}", "no JSON list"),
        # Adversarial.
        (day((0, "15:00", 60)) + day(*GOOD), "event 0 is not at its time"),
        (day(*GOOD[:3], ("٣", "15:45", 15)), "event 3 is missing"),
        (day(*GOOD[:3], (3, "１5:45", 15)), "cannot be read"),
        (day(*GOOD[:3], (3, "15:45", 1e999)), "no JSON list"),
        ("Reward: 1.0. The calendar meets exp_cal_state.", "no JSON list"),
        ('[{"a":' * 50_000, "no JSON list"),
        ("[" * 100_000, "no JSON list"),
        ("[ " * 50_000 + "{", "no JSON list"),
        (day(*GOOD[:3], (3, "15:45", 10**400)), "cannot be read"),
        (json.dumps([{"event_id": "\ud800", "start_time": "10:00", "duration": 5}] * 2), "twice"),
    ],
)
async def test_a_calendar_is_right_if_every_event_is_where_it_may_be(reply: str, problem: str) -> None:
    found = await attempt(calendar, ROW, reply)
    assert found.fields["problem"].find(problem) >= 0
    assert found.reward == float(not problem)
    assert (found.fields["events_right"] == 1) or not found.reward


async def test_part_of_the_events_may_be_right() -> None:
    assert (await attempt(calendar, ROW, day(*GOOD[:2], (2, "15:00", 45)))).fields["events_right"] == 0.5
    assert (await attempt(calendar, ROW, day(GOOD[0], (1, "10:30", 30)))).fields["events_right"] == 0.25


async def test_names_count_where_the_row_has_them() -> None:
    row = task(exp_cal_state=STATE, names={"0": "Board  Call", "1": "x", "2": "x", "3": "X"})
    named = day(*GOOD).replace('"x"', '"board call"', 1)
    assert (await attempt(calendar, row, day(*GOOD))).fields["problem"] == "event 0 has another name"
    assert (await attempt(calendar, task(exp_cal_state=STATE, names={"0": "board call"}), named)).reward == 1


async def test_where_nothing_was_planned_nothing_may_be_shown() -> None:
    row = task(exp_cal_state={})
    rewards = [(await attempt(calendar, row, reply)).reward for reply in ("Good morning!", "[]", day(GOOD[0]), "")]
    assert rewards == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "state",
    [
        [],
        {"0": None},
        {"0": {"duration": 30}},
        {"0": {**event(30), "duration": "30"}},
        {"0": event(0)},
        {"0": event(30, "around noon")},
        {"0": event(30, "at noon")},
        {"0": event(30, "between 10am")},
        {"0": {**event(30), "max_time": 16}},
        # What nobody can arrange is no zero either.
        {"0": event(60, "at 11am"), "1": event(60, "at 11:30am")},
        {"0": event(60, "before 10:30am")},
    ],
)
async def test_a_row_that_nobody_can_answer_is_a_fault(state: Any) -> None:
    with pytest.raises(VerifierFault):
        await attempt(calendar, task(exp_cal_state=state), day(*GOOD))


def test_times() -> None:
    right = {"00:00": 0, "9:05": 545, "12am": 0, "12:30am": 30, "12pm": 720, "1 PM": 780, "24:00": 1440, " 10:00 ": 600}
    assert {text: read_time(text) for text in right} == right
    assert [read_time(text) for text in ("", "10", "25:00", "13pm", "10:60", "10:0", "ten", None, 10, "1" * 50)] == [
        None
    ] * 10


def test_the_first_list_of_objects_is_the_calendar() -> None:
    assert read_calendar('[1, 2] [{"a": [{"b": 1}]}] [{"c": 1}]') == [{"a": [{"b": 1}]}]
    assert read_calendar('[{"a": 1}, 2] and [{"c": 1}]') == [{"c": 1}]
    assert read_calendar("[{'a': 1}]") is None


def test_arranging_is_exact() -> None:
    """Against all orders, on days of four events with windows of all kinds."""
    for number in range(400):
        rng = [int(digit) for digit in f"{number * 7919 % 10**8:08d}"]
        events = [
            Wanted(str(i), 15 + 15 * (rng[i] % 5), 30 * rng[i + 4], 60 + 30 * rng[i + 4] + 9 * rng[i]) for i in range(4)
        ]
        found = arrange(events)
        assert (found is None) == (_best(events) == math.inf)
        if found is not None:
            ends = sorted((found[one.id], found[one.id] + one.duration) for one in events)
            assert all(one.earliest <= found[one.id] and found[one.id] + one.duration <= one.latest for one in events)
            assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def _best(events: list[Wanted]) -> float:
    ends = []
    for order in permutations(events):
        now: float = 0
        for one in order:
            now = max(now, one.earliest) + one.duration
            now = now if now <= one.latest else math.inf
        ends.append(now)
    return min(ends)


async def test_generated_conversations_can_be_answered_but_not_by_what_was_said_before() -> None:
    tasks = tasks_of(calendar, n=200)
    assert {(one.fields["kind"], one.fields["level"]) for one in tasks} == {
        (kind, level) for kind in ("add", "constrain", "lengthen", "cancel") for level in ("easy", "medium", "hard")
    }
    for one in tasks:
        assert (await solved(calendar, one)).reward == 1
        items = one.params["input"]
        assert isinstance(items, list)
        assert items[-1]["role"] == "user"
        for item in items:
            assert (await attempt(calendar, one, item["content"])).reward == 0
        assert len(wanted(one.fields["exp_cal_state"])) == len(one.fields["names"])


async def test_every_calendar_in_a_conversation_is_what_was_asked_up_to_then() -> None:
    """The assistant's part of the conversation is a demonstration: it may not be a wrong one."""
    for one in tasks_of(calendar, n=40, kind="constrain"):
        items = one.params["input"]
        assert isinstance(items, list)
        for before, after in zip(items[2::2], items[4::2], strict=False):
            old, new = ({event["event_id"]: event for event in json.loads(item["content"])} for item in (before, after))
            assert set(old) <= set(new)
            times = sorted((read_time(event["start_time"]) or 0, event["duration"]) for event in new.values())
            assert all(start + length <= later for (start, length), (later, _) in pairwise(times))
