"""The coding environment: its problems, and rows in the shapes found in the wild."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rollforge.envs.coding import coding
from rollforge.envs.coding.problems import PROBLEMS
from rollforge.envs.jailed import JailedEnv
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of
from tests.jails import isolated

__all__ = ["isolated"]

TESTS = {"inputs": ["2\n", "5\n"], "outputs": ["4\n", "25\n"]}
SQUARE = "```python\nprint(int(input()) ** 2)\n```"


@pytest.fixture
async def env(isolated: None) -> AsyncIterator[JailedEnv]:
    yield coding
    await coding.aclose()


@pytest.mark.parametrize(
    "row",
    [
        {"verifier_metadata": {"unit_tests": TESTS}, "hash_id": "1", "dataset": "taco", "source": "codeforces"},
        {"verifier_metadata": {"unit_tests": {**TESTS, "fn_name": None}, "difficulty": "easy"}},
        {"tests": TESTS},
    ],
)
async def test_rows(env: JailedEnv, row: dict[str, Any]) -> None:
    verdict = await attempt(env, task(**row), SQUARE)
    assert (verdict.reward, verdict.fields["passed"], verdict.fields["tests"]) == (1, 2, 2)
    assert (await attempt(env, task(**row), SQUARE.replace("2", "3"))).reward == 0
    assert (await attempt(env, task(**row), "")).reward == 0


async def test_rows_set_how_they_are_judged(env: JailedEnv) -> None:
    wrong = "```python\nn = int(input())\nprint(4)\n```"
    row = task(verifier_metadata={"unit_tests": TESTS, "partial": True})
    assert (await attempt(env, row, wrong)).reward == 0.5
    row = task(verifier_metadata={"unit_tests": TESTS, "seconds": 0.3})
    assert (await attempt(env, row, "```python\nwhile True: pass\n```")).fields["failure"] == "test 1: out of time"


async def test_assertions_are_tests_too(env: JailedEnv) -> None:
    row = task(tests=["assert f(2) == 3", "assert f(-1) == 0"])
    assert (await attempt(env, row, "```python\ndef f(x):\n    return x + 1\n```")).reward == 1


@pytest.mark.parametrize("row", [{}, {"verifier_metadata": {}}, {"verifier_metadata": {"unit_tests": "x"}}, {"tests": {}}])
async def test_rows_without_tests_cannot_be_judged(env: JailedEnv, row: dict[str, Any]) -> None:
    with pytest.raises(VerifierFault):
        await attempt(env, task(**row), SQUARE)


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
async def test_every_reference_solution_passes(env: JailedEnv, level: str) -> None:
    for one in tasks_of(env, n=12, level=level):
        assert (await solved(env, one)).reward == 1


async def test_what_the_statement_shows_is_not_enough(env: JailedEnv) -> None:
    """A table of the examples passes no task: they are not among the tests."""
    for one in tasks_of(env, n=60):
        tests = one.fields["verifier_metadata"]["unit_tests"]
        assert len(tests["inputs"]) >= 8
        prompt = str(one.params["input"])
        assert len(set(tests["outputs"])) > 1, prompt
        if "fn_name" not in tests:
            assert not any(f"Input:\n{given}Output" in prompt for given in tests["inputs"])


def test_all_problems_are_drawn() -> None:
    prompts = [str(one.params["input"]) for one in tasks_of(coding, n=400)]
    for levels in PROBLEMS.values():
        for problems in levels:
            for problem in problems:
                opening = problem.statement.split("<k>")[0][:40]
                assert any(prompt.startswith(opening) for prompt in prompts)
