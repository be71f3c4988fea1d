"""The instruction environment: rows in NeMo Gym's shape, and tasks that can be solved, but not by empty talk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rollforge.envs.decorate import PythonEnv
from rollforge.envs.instruction_following import instruction_following
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of

IDS = ["paragraphs:paragraphs", "detectable_format:title", "length_constraints:number_words"]
KWARGS = [{}, None, {"num_words": 20, "relation": "less than", "keyword": None}]
GOOD = "<<It>>\nOne part.\n***\nTwo parts."


@pytest.fixture
async def env() -> AsyncIterator[PythonEnv]:
    yield instruction_following
    await instruction_following.aclose()


@pytest.mark.parametrize(
    ("row", "reply", "reward"),
    [
        ({"instruction_id_list": IDS, "kwargs": KWARGS, "id": 5}, GOOD, 1),
        ({"verifier_metadata": {"instruction_id_list": IDS, "kwargs": KWARGS, "prompt": "?"}}, GOOD, 1),
        ({"instruction_id_list": IDS, "kwargs": KWARGS, "grading_mode": None}, GOOD + " one" * 20, 0),
        ({"instruction_id_list": IDS, "kwargs": KWARGS, "grading_mode": "fraction"}, GOOD + " one" * 20, 2 / 3),
        ({"verifier_metadata": {"instruction_id_list": IDS, "kwargs": KWARGS, "grading_mode": "fraction"}}, "x", 1 / 3),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": [None]}, 'Here:\n"x"', 0),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": [None], "loose": True}, 'Here:\n"x"', 1),
    ],
)
async def test_rows(env: PythonEnv, row: dict[str, Any], reply: str, reward: float) -> None:
    assert (await attempt(env, task(**row), reply)).reward == pytest.approx(reward)
    assert (await solved(env, task(**row))).reward == 1


async def test_the_verdict_says_what_was_followed(env: PythonEnv) -> None:
    verdict = await attempt(env, task(instruction_id_list=IDS, kwargs=KWARGS), "<<It>>")
    assert verdict.fields == {
        "follow_all_instructions": False,
        "follow_instruction_list": [False, True, True],
        "followed_strict": pytest.approx(2 / 3),
        "followed_loose": pytest.approx(2 / 3),
    }


async def test_rows_that_cannot_be_judged(env: PythonEnv) -> None:
    rows: tuple[dict[str, Any], ...] = (
        {},
        {"instruction_id_list": []},
        {"instruction_id_list": ["no:such"], "kwargs": [{}]},
        {"instruction_id_list": IDS, "kwargs": [{}]},
        {"instruction_id_list": IDS, "kwargs": KWARGS, "grading_mode": "half"},
    )
    for row in rows:
        with pytest.raises(VerifierFault):
            await attempt(env, task(**row), GOOD)


@pytest.mark.parametrize(
    ("ids", "kwargs"),
    [
        (["keywords:forbidden_words", "first_word:first_word_sent"], [{"forbidden_words": ["part"]}, {"first_word": "so"}]),
        (["last_word:last_word_sent", "paragraphs:paragraphs"], [{"last_word": "end"}, None]),
        (
            ["length_constraints:number_paragraphs", "count:lowercase_counting", "detectable_format:number_bullet_lists"],
            [{"num_paragraphs": 2}, {"N": 3}, {"num_bullets": 5}],
        ),
        (
            ["length_constraints:nth_paragraph_first_word", "last_word:last_word_answer"],
            [{"num_paragraphs": 4, "nth_paragraph": 3, "first_word": "crash"}, {"last_word": "end"}],
        ),
    ],
)
async def test_rows_that_its_own_tasks_do_not_have(env: PythonEnv, ids: list[str], kwargs: list[Any]) -> None:
    assert (await solved(env, task(instruction_id_list=ids, kwargs=kwargs))).reward == 1


def test_the_reference_knows_when_it_knows_none() -> None:
    contradiction = ["change_case:english_capital", "change_case:english_lowercase"]
    assert instruction_following.solve(task(instruction_id_list=contradiction, kwargs=[{}, {}])) is None


async def test_its_tasks_can_be_solved_and_not_by_empty_talk(env: PythonEnv) -> None:
    rows = [one for level in ("easy", "medium", "hard") for one in tasks_of(env, n=60, level=level)]
    assert {one.fields["kind"] for one in rows} == {"words", "length", "structure", "format", "letters", "ends", "whole"}
    for verdict in await asyncio.gather(*(solved(env, one) for one in rows)):
        assert verdict.reward == 1
    for reply in ("", "x", "word " * 400, "Yes. " * 60, "I cannot do that."):
        for verdict in await asyncio.gather(*(attempt(env, one, reply) for one in rows)):
            assert verdict.reward == 0 or reply == "I cannot do that."


def test_a_task_names_a_family_of_a_group_once() -> None:
    for one in tasks_of(instruction_following, n=100):
        assert len(set(one.fields["instruction_id_list"])) == len(one.fields["instruction_id_list"])
        assert len(one.fields["kwargs"]) == len(one.fields["instruction_id_list"])
        assert str(one.params["input"]).count("\n- ") == len(one.fields["kwargs"])
