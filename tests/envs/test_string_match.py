"""The string_match environment: rows in the shape of NeMo Gym's, and tasks with one right answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from rollforge.envs.base import Limits
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.string_match import string_match
from rollforge.errors import DeadlineExceeded, VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of


@pytest.fixture
async def env() -> AsyncIterator[PythonEnv]:
    limits = string_match.limits
    yield string_match
    string_match.limits = limits
    await string_match.aclose()


@pytest.mark.parametrize(
    ("row", "reply", "reward"),
    [
        ({"expected_answer": "Oslo"}, "Final answer: oslo.", 1),
        ({"expected_answer": "Oslo"}, "Oslo", 0),
        ({"expected_answer": "Oslo", "extraction_mode": "boxed", "case_sensitive": False}, "\\boxed{\\text{Oslo}}", 1),
        ({"expected_answer": "80", "extraction_mode": "boxed"}, "\\boxed{80}~km/h", 1),
        ({"expected_answer": "Red Sea", "extraction_mode": "last_line"}, "It is\nRed Sea", 1),
        ({"expected_answer": "Red Sea", "extraction_mode": "full_response"}, "It is\nRed Sea", 0),
        ({"expected_answer": "NaCl", "case_sensitive": True}, "Answer: nacl", 0),
        ({"expected_answer": "NaCl", "extraction_mode": None, "case_sensitive": None}, "Answer: nacl", 1),
        ({"expected_answer": ["a", "b"], "answer_type": "set"}, "Answer: b, a", 1),
        ({"expected_answer": "10", "answer_type": "number", "tolerance": 1}, "Answer: 10.5", 1),
        ({"expected_answer": "10", "answer_type": "number", "relative_tolerance": 0.01}, "Answer: 10.5", 0),
        ({"expected_answer": "7", "extraction_mode": "regex", "output_regex": r"<(\d)>", "sample_reply": "<7>"}, "a <7>", 1),
    ],
)
async def test_rows(env: PythonEnv, row: dict[str, Any], reply: str, reward: float) -> None:
    assert (await attempt(env, task(**row), reply)).reward == reward
    assert (await solved(env, task(**row))).reward == 1


async def test_rows_that_cannot_be_answered_have_no_reward(env: PythonEnv) -> None:
    for row in ({}, {"expected_answer": ""}, {"expected_answer": "x", "extraction_mode": "first_line"}):
        with pytest.raises(VerifierFault, match=r"expected_answer|extraction_mode"):
            await attempt(env, task(**row), "x")


async def test_an_expression_that_takes_for_ever_is_ended(env: PythonEnv) -> None:
    env.limits = replace(Limits(), verify=0.3)
    row = task(expected_answer="x", extraction_mode="regex", output_regex=r"(x+x+)+y")
    with pytest.raises(DeadlineExceeded, match="verify"):
        await attempt(env, row, "x" * 60)


async def test_every_task_is_solved_by_its_reference_and_by_nothing_near(env: PythonEnv) -> None:
    for one in tasks_of(env, n=70, seed=3):
        assert (await solved(env, one)).reward == 1
        for reply in ("", str(one.params["input"]), "Final answer: x", "\\boxed{}"):
            assert (await attempt(env, one, reply)).reward == 0


def test_answers_are_right() -> None:
    for one in tasks_of(string_match, n=300, kind="nth_word,initials,reverse,sort,common"):
        row, asked = one.fields, str(one.params["input"])
        right = row["expected_answer"]
        if row["kind"] == "reverse":
            assert f'"{right[::-1]}"' in asked
        elif row["kind"] == "nth_word":
            words = asked.partition("list: ")[2].partition("?")[0].split()
            place = int(asked.split("number ")[1].partition(",")[0].partition(" ")[0])
            assert right == words[-place if "from the end" in asked else place - 1]
        elif row["kind"] == "initials":
            words = asked.partition("spaces: ")[2].partition(".")[0].split(", ")
            assert right == "".join(word[0] for word in words).upper()
        elif row["kind"] == "sort" and "words" in asked:
            assert right == sorted(asked.partition("alphabetically: ")[2].partition(".")[0].split(", "))
        elif row["kind"] == "common":
            left, other = asked.partition("First: ")[2].partition(". Separate")[0].split(". Second: ")
            assert set(right) == set(left.split(", ")) & set(other.split(", "))
            assert right


def test_numerals_and_units_are_right() -> None:
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    for one in tasks_of(string_match, n=200, kind="roman,convert"):
        row, asked = one.fields, str(one.params["input"])
        if row["kind"] == "convert":
            size = {"kilo": 1000, "metres are": 0, "hours": 60, "litres": 1000, "days": 24}
            number = float(asked.split(" are ")[1].split()[0])
            large = asked.split(" are ")[1].split()[1].rstrip("?")
            factor = 100 if large == "metres" else size[large[:4]] if large.startswith("kilo") else size[large]
            assert float(row["expected_answer"].split()[0]) == pytest.approx(number * factor)
        else:
            words = asked.replace("?", " ").split()
            written = row["expected_answer"] if "Write " in asked[:6] else words[3]
            signs = [values[sign] for sign in written]
            total = sum(-a if a < b else a for a, b in zip(signs, [*signs[1:], 0], strict=True))
            assert total == int(words[1] if "Write " in asked[:6] else row["expected_answer"])
