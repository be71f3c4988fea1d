"""Rewards made of rewards: what each part contributed sums to the reward."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rollforge.envs.base import verdict
from rollforge.errors import JudgeFault, VerifierFault
from rollforge.records.items import Response, function_call
from rollforge.verify.compose import (
    call_penalty,
    cascade,
    gated,
    highest,
    length_penalty,
    lowest,
    penalised,
    weighted,
)


def checked(found: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """The reward and the components, as an environment takes them."""
    made = verdict(found)
    return made.reward, made.fields["reward_components"]


def test_weighted_sums() -> None:
    assert checked(weighted({"a": 1, "b": {"reward": 0.5, "extracted": "x"}})) == (1.5, {"a": 1.0, "b": 0.5})
    assert checked(weighted({"a": 1, "b": 0}, {"a": 0.8, "b": -2})) == (0.8, {"a": 0.8, "b": 0.0})
    assert weighted({"a": 1, "b": 0.5}, {"a": 0.8, "b": 0.2})["parts"] == {"a": 1.0, "b": 0.5}
    with pytest.raises(VerifierFault, match="the weights are for a"):
        weighted({"a": 1, "b": 1}, {"a": 1})


def test_gates() -> None:
    assert checked(gated({"right": 1}, {"style": 0.3})) == (1.3, {"right": 1.0, "style": 0.3})
    assert checked(gated({"right": 0.9}, {"style": 0.3})) == (0.9, {"right": 0.9, "style": 0.0})
    assert checked(gated({"right": 0.9}, {"style": 0.3}, threshold=0.5)) == (1.2, {"right": 0.9, "style": 0.3})
    assert gated({"right": 0}, {"style": 0.3})["parts"] == {"right": 0.0, "style": 0.3}
    assert checked(gated({"right": 1, "safe": 0}, {"style": 1}))[0] == 1
    with pytest.raises(VerifierFault, match="'a' is both"):
        gated({"a": 1}, {"a": 1})


def test_the_lowest_and_the_highest() -> None:
    assert checked(lowest({"a": 0.2, "b": 0.7})) == (0.2, {"a": 0.2, "b": 0.0})
    assert checked(highest({"a": 0.2, "b": 0.7})) == (0.7, {"a": 0.0, "b": 0.7})
    assert checked(lowest({"a": -1, "b": 0}))[0] == -1
    with pytest.raises(VerifierFault, match="no parts"):
        lowest({})


async def test_a_cascade_asks_no_further_than_it_must() -> None:
    asked: list[str] = []

    def rule(score: Any) -> Any:
        def stage() -> Any:
            asked.append("rule")
            return score

        return stage

    async def judge() -> dict[str, Any]:
        asked.append("judge")
        return {"reward": 0.7, "reason": "good"}

    def middling(score: float) -> bool:
        return 0 < score < 1

    found = await cascade({"rule": rule(1.0), "judge": judge})
    assert (checked(found), asked) == ((1.0, {"rule": 1.0}), ["rule"])
    found = await cascade({"rule": rule(None), "judge": judge})
    assert (found["reward"], found["decided_by"], found["reason"]) == (0.7, "judge", "good")
    found = await cascade({"rule": rule({"reward": 0.5, "reason": "unsure"}), "judge": judge}, middling)
    assert (found["decided_by"], found["parts"], found["reason"]) == ("judge", {"rule": 0.5, "judge": 0.7}, "good")
    assert (await cascade({"judge": judge, "rule": rule(None)}, middling))["decided_by"] == "judge"
    for stages in ({}, {"rule": rule(None)}):
        with pytest.raises(VerifierFault, match="had a verdict"):
            await cascade(stages)


async def test_the_fault_of_a_judge_is_no_zero() -> None:
    async def judge() -> float:
        raise JudgeFault("no verdict")

    with pytest.raises(JudgeFault):
        await cascade({"rule": lambda: None, "judge": judge})


def test_penalties() -> None:
    assert checked(penalised(1, {"length": -0.25})) == (0.75, {"score": 1.0, "length": -0.25})
    reward, components = checked(penalised(0.5, {"length": -0.75, "calls": -0.25}))
    assert (reward, components) == (0.0, {"score": 0.5, "length": -0.375, "calls": -0.125})
    assert penalised(0.5, {"length": -0.75})["parts"] == {"score": 0.5, "length": -0.75}
    assert checked(penalised(-1, {"length": -1}))[0] == -1
    assert checked(penalised({"reward": 1}, {"length": -3}, floor=-1, name="right"))[0] == -1
    for costs in ({"length": 0.5}, {"score": -1}, {"length": math.nan}):
        with pytest.raises(VerifierFault):
            penalised(1, costs)


def test_the_penalty_of_length() -> None:
    assert length_penalty("a " * 10, 10, 20) == 0
    assert length_penalty("a " * 15, 10, 20) == -0.5
    assert length_penalty("a " * 1000, 10, 20, 0.3) == -0.3
    for free, full, most in ((5, 5, 1), (-1, 5, 1), (1, 5, -1)):
        with pytest.raises(VerifierFault, match="words"):
            length_penalty("x", free, full, most)


def test_the_penalty_of_calls() -> None:
    response: Response = {"output": [function_call("a", "{}", str(number)) for number in range(5)]}
    assert call_penalty(response, 5, 0.1) == 0
    assert call_penalty(response, 2, 0.1) == pytest.approx(-0.3)
    assert call_penalty(response, 0, 1, 2) == -2
    with pytest.raises(VerifierFault, match="not negative"):
        call_penalty(response, 0, -1)


@pytest.mark.parametrize("part", [None, "1", math.nan, math.inf, {"score": 1}, [1], 10**400])
def test_parts_that_are_no_numbers(part: Any) -> None:
    with pytest.raises(VerifierFault, match="the part 'a'"):
        weighted({"a": part})
