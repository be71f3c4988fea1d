"""The choice environment: rows in the shape of NeMo Gym's `mcqa`, and puzzles with exactly one right option."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest

from rollforge.envs.base import Limits
from rollforge.envs.choice import choice
from rollforge.envs.decorate import PythonEnv
from rollforge.errors import DeadlineExceeded, VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of

ROW = {"options": [{"A": "red"}, {"B": "blue"}], "expected_answer": "B"}


@pytest.fixture
async def env() -> AsyncIterator[PythonEnv]:
    limits = choice.limits
    yield choice
    choice.limits = limits
    await choice.aclose()


@pytest.mark.parametrize(
    ("row", "reply", "reward"),
    [
        ({}, "\\boxed{B}", 1),
        ({}, "\\boxed{blue}", 0),
        ({"grading_mode": None}, "\\boxed{B}", 1),
        ({"grading_mode": "lenient_boxed"}, "\\boxed{blue}", 1),
        ({"grading_mode": "lenient_answer_colon"}, "Answer: b", 1),
        ({"grading_mode": "lenient_answer_colon_md"}, "**Answer: B**", 1),
        ({"grading_mode": "lenient_answer_colon_md"}, "**Answer: A or B**", 0),
        ({"template_metadata": {"output_regex": r"choose (\w)"}}, "I choose B", 1),
        ({"template_metadata": {"output_regex": [r"pick (\w)", r"choose (\w)"]}}, "I choose A \\boxed{B}", 0),
        ({"template_metadata": {"other": 1}}, "\\boxed{B}", 1),
        ({"options": {"A": "red", "B": "blue"}}, "\\boxed{B}", 1),
        ({"uuid": "1", "metadata": {"expected_answer": "A"}}, "\\boxed{A}", 0),
    ],
)
async def test_rows(env: PythonEnv, row: dict[str, Any], reply: str, reward: float) -> None:
    assert (await attempt(env, task(**{**ROW, **row}), reply)).reward == reward
    assert (await solved(env, task(**{**ROW, **row}))).reward == 1


async def test_the_verdict_names_the_letter(env: PythonEnv) -> None:
    assert (await attempt(env, task(**ROW), "\\boxed{A}")).fields == {"extracted_answer": "A"}
    assert (await attempt(env, task(**ROW), "A")).fields == {"extracted_answer": None}


async def test_rows_that_cannot_be_answered_have_no_reward(env: PythonEnv) -> None:
    for row in ({"expected_answer": "C"}, {"grading_mode": "strict"}, {"expected_answer": ""}):
        with pytest.raises(VerifierFault, match=r"expected_answer|grading_mode"):
            await attempt(env, task(**{**ROW, **row}), "\\boxed{B}")
    with pytest.raises(VerifierFault, match="expected_answer"):
        await attempt(env, task(options=[]), "\\boxed{B}")


async def test_an_expression_that_takes_for_ever_is_ended(env: PythonEnv) -> None:
    env.limits = replace(Limits(), verify=0.3)
    row = task(**ROW, template_metadata={"output_regex": r"(x+x+)+y"})
    with pytest.raises(DeadlineExceeded, match="verify"):
        await attempt(env, row, "x" * 60)
    env.limits = Limits()
    assert (await attempt(env, row, "\\boxed{B}")).reward == 1


def test_options_are_different_and_the_right_letter_moves_about() -> None:
    rows = [one.fields for one in tasks_of(choice, n=400)]
    for row in rows:
        texts = [text for option in row["options"] for text in option.values()]
        assert len(texts) == len(set(texts)) == 4 + ("easy", "medium", "hard").index(row["level"])
        assert [letter for option in row["options"] for letter in option] == list("ABCDEF")[: len(texts)]
    letters = [row["expected_answer"] for row in rows if row["level"] == "easy"]
    assert all(letters.count(letter) > len(letters) / 8 for letter in "ABCD")


def _cases(kind: str) -> list[tuple[str, str]]:
    """Question and the text of the right option, of many tasks of a kind."""
    found = []
    for one in tasks_of(choice, kind=kind, n=100):
        right = one.fields["expected_answer"]
        text = next(option[right] for option in one.fields["options"] if right in option)
        found.append((str(one.params["input"]).split("\n\n")[0], text))
    return found


def test_rankings_have_one_answer() -> None:
    places = ["", "second", "third", "fourth", "fifth", "sixth"]
    for question, right in _cases("ranking"):
        clues = re.findall(r"(\w+) is (\w+) than (\w+)", question)
        pairs = [(a, b) if word in ("taller", "older", "faster") else (b, a) for a, word, b in clues]
        orders = [
            order
            for order in permutations({name for pair in pairs for name in pair})
            if all(order.index(a) < order.index(b) for a, b in pairs)
        ]
        place = re.search(r"Who is the (?:(\w+) )?\w+est\?", question)
        assert place is not None
        assert [order[places.index(place[1] or "")] for order in orders] == [right]


def test_dates_and_days_are_right() -> None:
    names = [date(2021, 2, day).strftime("%A") for day in range(1, 8)]
    for question, right in _cases("weekday"):
        days = int(re.findall(r"\d+", question)[0]) * (-1 if "ago" in question else 1)
        today = next(name for name in names if f"Today is {name}" in question)
        assert names[(names.index(today) + days) % 7] == right
    for question, right in _cases("date"):
        found = re.search(r"is (\d+) days after (\w+) (\d+)", question)
        assert found is not None
        start = next(date(2021, month, int(found[3])) for month in range(1, 13) if f"{date(2021, month, 1):%B}" == found[2])
        end = start + timedelta(days=int(found[1]))
        assert f"{end:%B} {end.day}" == right


def test_units_and_turns_are_right() -> None:
    for question, right in _cases("units"):
        rules = {a: (int(ratio), b) for a, ratio, b in re.findall(r"1 (\w+) is (\d+) (\w+)s", question)}
        found = re.search(r"How many (\w+)s are (\d+) (\w+)s\?", question)
        assert found is not None
        assert Fraction(right) * _size(rules, found[1]) == int(found[2]) * _size(rules, found[3])
    eighths = {"right": 2, "left": -2, "around": 4, "half right": 1, "half left": -1}
    compass = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
    for question, right in _cases("direction"):
        found = re.search(r"You face ([\w-]+) and turn ([^.(]+)\.", question)
        assert found is not None
        turned = sum(eighths[turn] for turn in found[2].split(", then "))
        assert compass[(compass.index(found[1]) + turned) % 8] == right


def _size(rules: dict[str, tuple[int, str]], unit: str) -> int:
    """How many of the smallest unit it is."""
    ratio, smaller = rules.get(unit, (1, ""))
    return ratio * (_size(rules, smaller) if smaller else 1)
