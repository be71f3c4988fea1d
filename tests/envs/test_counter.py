"""The counter environment: state over the turns of one session, and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollforge.envs.base import ToolCall
from rollforge.envs.counter import counter
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of

ROW = task(initial_count=3, expected_count=6)


def add(count: Any) -> tuple[str, dict[str, Any]]:
    return "increment_counter", {"count": count}


@pytest.mark.parametrize(
    ("calls", "reward"),
    [
        ([add(1), add(2)], 1.0),
        ([add(3)], 1.0),
        ([add(10), add(-7), ("get_counter_value", {})], 1.0),
        ([], 0.0),
        ([add(6)], 0.0),
        ([add(1), add(2), add(1)], 0.0),
        # What is no number is refused and changes nothing.
        ([add("three"), add(None), add(1.5), ("increment_counter", {}), ("reset", {"initial_count": 6})], 0.0),
        ([add(3), ("increment_counter", {"count": 1, "by": 2})], 1.0),
        ([add(10**30), add(3 - 10**30)], 1.0),
    ],
)
async def test_the_reward_is_where_the_counter_ends(calls: list[tuple[str, dict[str, Any]]], reward: float) -> None:
    assert (await attempt(counter, ROW, "It is at 6.", calls)).reward == reward


async def test_sessions_do_not_share_the_counter() -> None:
    async with counter.open(ROW) as one, counter.open(ROW) as other:
        await one.call(ToolCall(*add(3)))
        values = [json.loads((await session.call(ToolCall("get_counter_value", {}))).text) for session in (one, other)]
        assert values == [{"count": 6}, {"count": 3}]


async def test_a_row_without_a_start_begins_at_zero_and_one_without_an_end_cannot_be_judged() -> None:
    assert (await attempt(counter, task(expected_count=2), calls=[add(2)])).reward == 1
    with pytest.raises(VerifierFault, match="expected_count"):
        await attempt(counter, task(initial_count=2))


async def test_what_is_asked_leads_to_what_is_expected() -> None:
    for one in tasks_of(counter, n=300):
        words, row = str(one.params["input"]).lower().replace(",", "").split(), one.fields
        if row["kind"] == "add":
            steps = [int(words[i + 1]) for i, word in enumerate(words) if word == "add"]
            steps += [-int(words[i + 2]) for i, word in enumerate(words) if word == "take"]
            assert row["initial_count"] + sum(steps) == row["expected_count"]
        elif row["kind"] == "reach":
            assert str(row["expected_count"]) in " ".join(words)
        else:
            assert row["expected_count"] % row["initial_count"] == 0
        assert row["expected_count"] != row["initial_count"]
        assert (await solved(counter, one)).reward == 1
