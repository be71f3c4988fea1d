"""Rubrics: weights, faults that cost, and what is no rubric."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rollforge.envs.base import verdict
from rollforge.errors import InfraFault, JudgeFault, VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import Response
from rollforge.verify.judge import Judge
from rollforge.verify.rubric import Criterion, criteria_of, rubric
from tests.verify.test_judge import part, says

CRITERIA = [
    {"criterion": "names Paris", "weight": 3, "name": "paris"},
    {"text": "names Rome", "points": 1},
    {"description": "names Mars", "weight": -2, "title": "paris"},
]


def literal(text: str, code: str, number: int) -> str:
    wanted = part(text, "CRITERION").removeprefix("names ")
    return f"I looked.\nVerdict {code}: {'MET' if wanted in part(text, 'REPLY') else 'NOT MET'}"


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        ("Paris and Rome", (0.75, 0.25, 0.0, 0.0)),
        ("Paris", (0.75, 0.0, 0.0, 0.0)),
        ("Rome, Paris, Mars", (0.75, 0.25, -0.5, 0.0)),
        ("Mars", (0.0, 0.0, -0.5, 0.5)),
        ("Bonn", (0.0, 0.0, 0.0, 0.0)),
        ("", (0.0, 0.0, 0.0, 0.0)),
    ],
)
async def test_every_criterion_is_a_part_of_the_reward(reply: str, parts: tuple[float, ...]) -> None:
    model, asked = says(literal)
    found = await rubric(Judge(model=model), "Which cities?", reply, CRITERIA)
    components = found["reward_components"]
    assert list(components) == ["paris", "criterion_2", "paris_", "floor"]
    assert tuple(components.values()) == pytest.approx((parts[0], parts[1], parts[2], parts[3]))
    assert verdict(found).reward == pytest.approx(max(0.0, sum(parts)))
    assert len(asked) == (3 if reply else 0)
    assert [one["criterion"] for one in found["judge_evaluations"]] == list(components)[: len(asked)]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "be good",
        [],
        {},
        [""],
        [3],
        [{"weight": 1}],
        [{"criterion": "a", "weight": "1"}],
        [{"criterion": "a", "weight": math.nan}],
        [{"criterion": "a", "weight": 1e300}],
        [{"criterion": "a", "weight": True}],
        [{"criterion": "a", "weight": 0}],
        [{"criterion": "a", "weight": -1}],
    ],
)
async def test_what_is_no_rubric(rows: Any) -> None:
    model, asked = says(literal)
    with pytest.raises(VerifierFault, match=r"rubric"):
        await rubric(Judge(model=model), "?", "a reply", rows)
    assert not asked


def test_short_forms() -> None:
    assert criteria_of(["a", Criterion("b", 2.0)]) == [Criterion("a"), Criterion("b", 2.0)]
    assert criteria_of([{"text": "a", "id": 7, "weight": None}]) == [Criterion("a", 1.0, "7")]


async def test_one_criterion_that_cannot_be_judged_leaves_no_reward() -> None:
    async def model(request: Request, /) -> Response:
        if "names Rome" in str(request.params["input"]):
            raise InfraFault("gone")
        return await says(literal)[0](request)  # type: ignore[no-any-return]

    with pytest.raises(JudgeFault, match="gone"):
        await rubric(Judge(model=model), "?", "Paris", CRITERIA)
