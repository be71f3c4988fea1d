"""The arithmetic environment: its tasks, its tools, its verifier, its reference policy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest

from rollforge.envs.arithmetic import arithmetic
from rollforge.envs.arithmetic.tasks import LEVELS, OPERATIONS, tasks, value
from rollforge.envs.base import ToolCall
from rollforge.errors import UserError
from rollforge.records.items import Response, assistant
from rollforge.records.task import Task, task_from_row


def row(**options: Any) -> Task:
    return task_from_row(next(iter(tasks(1, **options))))


async def reward(reply: str, answer: int) -> float:
    task = task_from_row({"prompt": "What is 47 × 23?", "answer": answer})
    response: Response = {"output": [assistant(reply)]}
    async with arithmetic.open(task) as session:
        return (await session.verify(response)).reward


def test_tasks_are_deterministic_and_differ_by_seed() -> None:
    assert list(tasks(50, seed=3)) == list(tasks(50, seed=3))
    assert list(tasks(50, seed=3)) != list(tasks(50, seed=4))


def test_every_problem_of_a_set_is_another_one_and_its_answer_is_right() -> None:
    rows = list(tasks(1000))
    assert len({str(r["steps"]) for r in rows}) == len({task_from_row(r).id for r in rows}) == 1000
    for r in rows:
        assert r["answer"] == value([tuple(step) for step in r["steps"]])
        for operand in (n for step in r["steps"] for n in step[1:] if n is not None):
            assert str(operand) in r["prompt"]


def test_divisions_leave_no_remainder() -> None:
    for r in tasks(500, operations="divide,subtract", level=["easy", "hard"]):
        left = None
        for operation, a, b in r["steps"]:
            a, b = left if a is None else a, left if b is None else b
            assert operation != "divide" or a % b == 0, r
            left = OPERATIONS[operation](a, b)


def test_no_problem_is_in_both_splits_whatever_the_seed() -> None:
    def problems(split: str, seed: int) -> set[str]:
        chosen = tasks(800, seed=seed, split=split, level="easy", operations=["add", "multiply"])
        return {f"{r['operation']} {sorted(r['steps'][0][1:])}" for r in chosen}

    assert not problems("train", 1) & problems("test", 2)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_level_and_operations_can_be_chosen(level: str, operation: str) -> None:
    for r in tasks(20, level=level, operations=operation):
        assert r["level"] == level
        assert set(r["operation"].split("+")) == {operation}
        assert len(r["steps"]) == (2 if level == "hard" else 1)


def test_the_stream_has_no_end_and_a_set_says_when_there_are_not_enough() -> None:
    endless = tasks(None, level="easy", operations="divide")
    assert sum(1 for _ in islice(endless, 3000)) == 3000
    with pytest.raises(UserError, match=r"only about \d+ different train problems of divide at level easy"):
        list(tasks(3000, level="easy", operations="divide"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "medum"}, "did you mean medium"),
        ({"operations": "add,divde"}, "did you mean divide"),
        ({"split": "tset"}, "did you mean test"),
        ({"operations": []}, "no operation is chosen"),
    ],
)
def test_unknown_names_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(tasks(1, **options))


async def test_the_reference_policy_earns_full_reward_with_the_tools() -> None:
    for r in tasks(60, seed=7):
        task = task_from_row(r)
        solution = arithmetic.solve(task)
        assert solution is not None
        async with arithmetic.open(task) as session:
            try:
                step = next(solution)
                while True:
                    name, arguments = step
                    step = solution.send((await session.call(ToolCall(name, arguments))).text)
            except StopIteration as done:
                verdict = await session.verify({"output": [assistant(done.value)]})
        assert verdict.reward == 1.0, r


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("1081", 1081, 1.0),
        ("The answer is 1,081.", 1081, 1.0),
        ("47 × 23 = **1081**", 1081, 1.0),
        ("It is 1081.0", 1081, 1.0),
        ("The answer is -48.", -48, 1.0),
        ("The answer is −48.", -48, 1.0),
        ("<think>1081?</think> 1081", 1081, 1.0),
        ("The answer is 48.", -48, 0.0),
        ("1081 or 1082", 1081, 0.0),
        ("10811081", 1081, 0.0),
        ("1081%", 1081, 0.0),
        ("1081/1", 1081, 0.0),
        ("<think>1081", 1081, 0.0),
        ("one thousand and eighty-one", 1081, 0.0),
        ("", 1081, 0.0),
    ],
)
async def test_the_last_number_of_the_reply_counts(reply: str, answer: int, expected: float) -> None:
    assert await reward(reply, answer) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("add", {"a": 47, "b": 23}, "70"),
        ("subtract", {"a": 47, "b": 98}, "-51"),
        ("multiply", {"a": 47, "b": 23}, "1081"),
        ("divide", {"a": 47, "b": 23}, "2"),
    ],
)
async def test_tools(name: str, arguments: dict[str, int], text: str) -> None:
    async with arithmetic.open(row()) as session:
        output = await session.call(ToolCall(name, arguments))
        assert (output.text, output.error) == (text, False)
        assert (await session.call(ToolCall(name, {"a": "many", "b": 1}))).error


async def test_division_by_zero_is_an_error_for_the_policy() -> None:
    async with arithmetic.open(row()) as session:
        output = await session.call(ToolCall("divide", {"a": 1, "b": 0}))
        assert output.error
        assert "ZeroDivisionError" in output.text
