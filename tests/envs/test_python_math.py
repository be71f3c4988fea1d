"""The python_math environment: the tool, its state, and the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rollforge.envs.base import Session, ToolCall
from rollforge.envs.jailed import JailedEnv
from rollforge.envs.python_math import python_math
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of
from tests.jails import isolated

__all__ = ["isolated"]

ROW = task(id=0, expected_result="\\(\\frac{1}{4}\\)", expected_code_contains="")


@pytest.fixture
async def env(isolated: None) -> AsyncIterator[JailedEnv]:
    yield python_math
    await python_math.aclose()


async def execute(session: Session, code: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await session.call(ToolCall("execute_python", {"code": code}))).text)
    return answer


async def test_the_state_is_kept_between_calls(env: JailedEnv) -> None:
    async with env.open(ROW) as session, env.open(ROW) as other:
        assert await execute(session, "import math\nx = [1, 2]\ndef f(n):\n    return n * len(x)\nprint('defined')") == {
            "stdout": "defined\n",
            "stderr": "",
            "result": None,
        }
        assert (await execute(session, "x.append(3)\nf(math.factorial(3))"))["result"] == "18"
        assert (await execute(session, "1 / 0\nx = 0"))["error_message"] == "ZeroDivisionError: division by zero"
        assert (await execute(session, "x"))["result"] == "[1, 2, 3]"
        assert "NameError" in (await execute(other, "x"))["error_message"]


async def test_random_numbers_are_the_same_when_code_runs_again(env: JailedEnv) -> None:
    async with env.open(ROW) as session:
        drawn = (await execute(session, "import random\nr = random.random()\nr"))["result"]
        assert (await execute(session, "r"))["result"] == drawn


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("exit()", "SystemExit"),
        ("import os; os._exit(3)", "the interpreter ended (exit status 3)"),
        ("x = 'x' * 10**12", "MemoryError"),
        ("def f(: pass", "SyntaxError"),
        ("open('/etc/shadow')", ""),
        ("input()", "EOFError"),
        ("open('report', 'w').write('[]')\nimport os; os._exit(0)", "the interpreter ended"),
        ("import rollforge", "ModuleNotFoundError"),
    ],
)
async def test_code_that_goes_wrong_is_told_so(env: JailedEnv, code: str, error: str) -> None:
    async with env.open(ROW) as session:
        assert error in (await execute(session, code))["error_message"]
        assert (await execute(session, "1 + 1"))["stdout"] == ""


async def test_code_that_does_not_end_is_stopped_and_forgotten(env: JailedEnv) -> None:
    limits = env.limits
    env.limits = type(limits)(tool=3.0)
    try:
        async with env.open(ROW) as session:
            assert "TimeoutError" in (await execute(session, "y = 1\nwhile True: pass"))["error_message"]
            assert "NameError" in (await execute(session, "y"))["error_message"]
    finally:
        env.limits = limits


async def test_rows(env: JailedEnv) -> None:
    assert (await attempt(env, ROW, "So \\boxed{\\dfrac{1}{4}}")).reward == 1
    assert (await attempt(env, ROW, "So \\boxed{4}")).reward == 0
    assert (await attempt(env, ROW, "")).reward == 0
    assert (await attempt(env, ROW, "It is not 1/4")).reward == 0
    assert (await solved(env, ROW)).reward == 1
    with pytest.raises(VerifierFault):
        await attempt(env, task(id=0), "\\boxed{4}")


async def test_reference_solutions(env: JailedEnv) -> None:
    for one in tasks_of(env, n=18):
        assert (await solved(env, one)).reward == 1


async def test_the_code_of_a_task_prints_its_answer(env: JailedEnv) -> None:
    async with env.open(ROW) as session:
        for one in tasks_of(env, n=12, seed=5):
            answer = await execute(session, one.fields["code"])
            assert answer["stdout"].strip() == one.fields["expected_result"]
