"""The function_calling environment: rows in the shape of NeMo Gym's `xlam_fc`; the calls are the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import ToolCall, Verdict
from rollforge.envs.function_calling import function_calling
from rollforge.errors import VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import Response, assistant, function_call
from rollforge.records.task import Task
from tests.envs.drive import task, tasks_of

PARAMETERS = {"symbol": {"type": "string"}, "period": {"type": "string", "default": "9"}, "format": {"type": "string"}}
TOOLS = [
    {"type": "function", "name": "t3ma", "description": "T3MA.", "parameters": {"type": "object", "properties": PARAMETERS}},
    {"type": "function", "name": "profile", "description": "Profile.", "parameters": {"type": "object", "properties": {}}},
]
ROW = {"id": 0, "tools": TOOLS, "expected_answers": [{"name": "t3ma", "arguments": {"symbol": "ETH", "period": 14}}]}


def calls(*made: tuple[str, dict[str, Any]]) -> list[Any]:
    return [function_call(name, json.dumps(arguments), f"c{number}") for number, (name, arguments) in enumerate(made)]


async def judged(one: Task, made: Sequence[Any], reply: str = "Done.") -> Verdict:
    async with function_calling.open(one) as session:
        return await session.verify({"output": [*made, assistant(reply)]})


@pytest.mark.parametrize(
    ("row", "made", "reward"),
    [
        ({}, [("t3ma", {"symbol": "ETH", "period": "14"})], 1),
        ({}, [("t3ma", {"symbol": "ETH", "period": 14})], 1),
        ({}, [("t3ma", {"symbol": "ETH", "period": "14", "format": None})], 1),
        ({}, [("t3ma", {"symbol": "ETH", "period": "14", "format": "csv"})], 0),
        ({}, [("t3ma", {"symbol": "ETH"})], 0),
        ({}, [("t3ma", {"symbol": "ETH", "period": "14"}), ("profile", {})], 0),
        ({"allow_extra": True}, [("t3ma", {"symbol": "ETH", "period": "14"}), ("profile", {})], 1),
        ({"partial": True}, [("t3ma", {"symbol": "ETH", "period": "14"}), ("profile", {})], 2 / 3),
        ({}, [("profile", {})], 0),
        ({}, [], 0),
        ({"expected_answers": []}, [], 1),
        ({"expected_answers": []}, [("profile", {})], 0),
        ({"expected_answers": None, "expected_call": {"name": "profile", "arguments": {}}}, [("profile", {})], 1),
        (
            {"expected_answers": None, "expected_action": {"type": "function_call", "name": "profile", "arguments": "{}"}},
            [("profile", {})],
            1,
        ),
        ({"expected_answers": None, "expected_action": {"type": "message", "content": "?"}}, [("profile", {})], 0),
    ],
)
async def test_rows(row: dict[str, Any], made: list[tuple[str, dict[str, Any]]], reward: float) -> None:
    assert (await judged(task(**{**ROW, **row}), calls(*made))).reward == pytest.approx(reward)


async def test_where_no_call_is_right_a_word_is() -> None:
    assert (await judged(task(**{**ROW, "expected_answers": []}), [], " ")).reward == 0


async def test_rows_without_expected_calls_have_no_reward() -> None:
    for row in ({"expected_answers": None}, {"expected_answers": [{"arguments": {}}]}, {"expected_answers": "t3ma"}):
        with pytest.raises(VerifierFault, match="expected"):
            await judged(task(**{**ROW, **row}), [])


async def test_the_tools_are_those_of_the_row() -> None:
    async with function_calling.open(task(**ROW)) as session:
        assert [tool.row()["name"] for tool in session.tools] == ["t3ma", "profile"]
        assert json.loads((await session.call(ToolCall("profile", {}))).text) == {"status": "accepted"}
        assert "t3ma, profile" in (await session.call(ToolCall("other", {}))).text
    async with function_calling.open(task(expected_answers=[])) as session:
        assert list(session.tools) == []
        assert "none" in (await session.call(ToolCall("other", {}))).text


def run(model: Any) -> Runner:
    return Runner(env=function_calling, env_name="", model=model, model_name="", agent=ToolLoop())


async def test_calls_may_be_made_at_once_or_one_after_another() -> None:
    gold = [{"name": "profile", "arguments": {}}, {"name": "t3ma", "arguments": {"symbol": "ETH"}}]
    one = task(**{**ROW, "expected_answers": gold})
    made = calls(("t3ma", {"symbol": "ETH"}), ("profile", {}))

    async def at_once(request: Request, /) -> Response:
        asked = any(item.get("type") == "function_call" for item in request.params["input"])
        return {"output": [assistant("Done.")] if asked else list(made)}

    async def in_turn(request: Request, /) -> Response:
        asked = sum(item.get("type") == "function_call" for item in request.params["input"])
        return {"output": [made[asked]] if asked < 2 else [assistant("Done.")]}

    for model in (at_once, in_turn):
        rollout = await run(model)(one, 0)
        assert rollout.reward == 1
        outputs = [item["output"] for item in rollout.response["output"] if item["type"] == "function_call_output"]
        assert outputs == ['{"status":"accepted"}'] * 2


async def test_a_policy_is_told_what_is_no_call() -> None:
    async def model(request: Request, /) -> Response:
        asked = any(item.get("type") == "function_call" for item in request.params["input"])
        bad = [function_call("t3ma", '{"symbol":', "a"), function_call("nothing", "{}", "b")]
        return {"output": [assistant("Done.")] if asked else bad}

    rollout = await run(model)(task(**ROW), 0)
    first, second = (item["output"] for item in rollout.response["output"] if item["type"] == "function_call_output")
    assert "the arguments of t3ma are not as it declares them" in first
    assert "unknown tool 'nothing'" in second
    assert rollout.reward == 0


async def test_every_task_is_solved_by_its_reference() -> None:
    for one in tasks_of(function_calling, n=150, seed=2):
        solution = function_calling.solve(one)
        assert solution is not None
        made = list(solution)
        gold = one.fields["expected_answers"]
        assert (await judged(one, calls(*made))).reward == 1  # type: ignore[arg-type]
        assert (await judged(one, calls(*reversed(made)))).reward == 1  # type: ignore[call-overload]
        assert (await judged(one, calls(*made[1:]))).reward == 0  # type: ignore[arg-type]
        assert (await judged(one, calls(*made, made[0]))).reward == 0  # type: ignore[arg-type]
        declared = {tool["name"]: tool["parameters"] for tool in one.params["tools"]}
        for call in gold:
            schema = declared[call["name"]]
            assert set(schema["required"]) <= set(call["arguments"]) <= set(schema["properties"])
