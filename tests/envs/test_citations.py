"""The citations environment: rows in the shape of NeMo Gym's `citation_if`, and its own, which ask for an answer too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from rollforge.envs.base import Limits
from rollforge.envs.citations import citations
from rollforge.envs.decorate import PythonEnv
from rollforge.errors import DeadlineExceeded, VerifierFault
from rollforge.records.items import assistant, function_call
from rollforge.verify.formats import GRAMMARS, cited
from tests.envs.drive import attempt, solved, task, tasks_of

VERIFIER = {
    "type": "citation_if",
    "mode": "cite",
    "grammar": "ref_colon",
    "id_kind": "snippet",
    "id_regex": "citation_[a-z0-9]{4}:snippet_[0-9]+",
    "valid_id_set": ["citation_ph2u:snippet_1", "citation_dz4y:snippet_1"],
    "expected_ids": ["citation_ph2u:snippet_1"],
    "expected_slack": 1,
    "min_valid_citations": 1,
}
TOOLS = [{"type": "function", "name": "web_search", "parameters": {"type": "object", "properties": {}}}]


@pytest.fixture
async def env() -> AsyncIterator[PythonEnv]:
    limits = citations.limits
    yield citations
    citations.limits = limits
    await citations.aclose()


@pytest.mark.parametrize(
    ("row", "reply", "gate"),
    [
        ({}, "On 31 December 1999 [ref:citation_ph2u:snippet_1].", None),
        ({}, "On 31 December 1999 [ref:citation_ph2u].", "malformed_attempt"),
        ({}, "On 31 December 1999 [ref:citation_dz4y:snippet_1].", "correctness_missed_gold"),
        ({"expected_ids": None}, "On 31 December 1999 [ref:citation_dz4y:snippet_1].", None),
        ({"mode": "no_cite", "expected_ids": None}, "On 31 December 1999.", None),
        ({"mode": "no_cite"}, "On 31 December 1999 [ref:citation_ph2u:snippet_1].", "no_cite"),
        ({"id_regex": None}, "On 31 December 1999 [ref:citation_ph2u:snippet_1].", None),
    ],
)
async def test_rows(env: PythonEnv, row: dict[str, Any], reply: str, gate: str | None) -> None:
    one = task(verifier={**VERIFIER, **row}, tools=TOOLS)
    found = await attempt(env, one, reply)
    assert (found.reward, found.fields["gate_failed"]) == (float(gate is None), gate)
    assert (await solved(env, one)).reward == 1


async def test_a_tool_call_ends_as_a_zero(env: PythonEnv) -> None:
    reply = "On 31 December 1999 [ref:citation_ph2u:snippet_1]."
    async with env.open(task(verifier=VERIFIER, tools=TOOLS)) as session:
        found = await session.verify({"output": [function_call("web_search", "{}", "1"), assistant(reply)]})
    assert (found.reward, found.fields["gate_failed"]) == (0, "structural")


async def test_own_rows_ask_for_the_answer_too(env: PythonEnv) -> None:
    row = {"verifier": VERIFIER, "expected_answers": ["31 December"], "other_answers": ["Oslo"]}
    source = "[ref:citation_ph2u:snippet_1]"
    for said, right in (
        ("On 31  December, 1999", True),
        ("On 31 december", True),
        ("x", False),
        ("On 131 December", False),
        ("On 31 December, in Oslo", False),
        ("Oslo", False),
    ):
        found = await attempt(env, task(**row), f"{said} {source}.")
        assert (found.reward, found.fields["gate_failed"]) == (float(right), None if right else "answer")


async def test_rows_that_cannot_be_satisfied_have_no_reward(env: PythonEnv) -> None:
    rows = [
        {"grammar": "none"},
        {"expected_ids": ["citation_0000:snippet_1"]},
        {"valid_id_set": None},
        {"expected_slack": "x"},
    ]
    for row in rows:
        with pytest.raises(VerifierFault):
            await attempt(env, task(verifier={**VERIFIER, **row}), "x")


async def test_an_expression_that_takes_for_ever_is_ended(env: PythonEnv) -> None:
    env.limits = replace(Limits(), verify=0.3)
    with pytest.raises(DeadlineExceeded, match="verify"):
        await attempt(env, task(verifier={**VERIFIER, "id_regex": "(x+x+)+y"}), "[ref:" + "x" * 60)


async def test_every_task_is_solved_by_its_reference_and_by_nothing_near(env: PythonEnv) -> None:
    seen = set()
    for one in tasks_of(env, n=90, seed=1):
        verifier = one.fields["verifier"]
        seen.add(verifier["grammar"])
        assert (await solved(env, one)).reward == 1
        first = verifier["valid_id_set"][0]
        every = cited("Everything.", verifier["valid_id_set"], verifier["grammar"])
        for reply in (
            "",
            "It was so.",
            cited("x", [first], verifier["grammar"]),
            every,
            " ".join(one.fields["other_answers"]),
        ):
            assert (await attempt(env, one, reply)).reward == 0
    assert seen == set(GRAMMARS)


def test_the_instruction_shows_the_form_and_no_valid_id() -> None:
    for one in tasks_of(citations, n=60, kind="one"):
        [instruction, question] = one.params["input"]
        verifier = one.fields["verifier"]
        assert GRAMMARS[verifier["grammar"]].opening in instruction["content"]
        assert not any(name in instruction["content"] for name in verifier["valid_id_set"])
        assert all(name in question["content"] for name in verifier["valid_id_set"])
