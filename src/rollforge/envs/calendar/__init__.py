"""A calendar kept in conversation: the reply shows the day as JSON, and every event has to lie where the user wants it.

Rows of NeMo Gym's `calendar` work as they are. `names`, of our own tasks, says what the events must be called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rollforge.envs.calendar.schedule import SOLVED, Wanted, arrange, problem, read_calendar, wanted
from rollforge.envs.calendar.tasks import listed, tasks
from rollforge.envs.decorate import env
from rollforge.errors import VerifierFault
from rollforge.verify.answer import after_thinking


def solve(exp_cal_state: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str | None:
    expected = wanted(exp_cal_state)
    starts = arrange(expected) if len(expected) <= SOLVED else None
    if starts is None:
        return None
    return json.dumps(listed(expected, starts, names or {}))


@env(name="calendar", tasks=tasks, solve=solve, inline=True)  # type: ignore[untyped-decorator]
def calendar(reply: str, exp_cal_state: Mapping[str, Any], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Keep a calendar as the user asks, without overlaps."""
    expected = wanted(exp_cal_state)
    answer = after_thinking(reply).strip()
    events = read_calendar(answer)
    if not expected:  # nothing was planned yet, and nothing needs to be shown
        return _verdict(
            "" if answer and not events else "there are events that nobody asked for" if events else "empty", 0, 0
        )
    if events is None:
        wrong, right = "no JSON list of events", 0
    else:
        wrong, right = problem(events, expected)
        wrong = wrong or _misnamed(events, names or {})
    if wrong and _impossible(expected):
        raise VerifierFault("no calendar meets the row's exp_cal_state: its events do not fit into their times")
    return _verdict(wrong, right, len(expected))


def _verdict(wrong: str, right: int, of: int) -> dict[str, Any]:
    return {"reward": float(not wrong), "events_right": right / of if of else float(not wrong), "problem": wrong}


def _misnamed(events: list[dict[str, Any]], names: Mapping[str, str]) -> str:
    for event in events:
        name = names.get(str(event["event_id"]))
        if name is not None and " ".join(str(event.get("event_name")).split()).casefold() != name.casefold():
            return f"event {event['event_id']} has another name"
    return ""


def _impossible(expected: list[Wanted]) -> bool:
    return len(expected) <= SOLVED and arrange(expected) is None
