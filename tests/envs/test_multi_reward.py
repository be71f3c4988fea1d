"""The multi_reward environment: three components apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Verdict
from rollforge.envs.multi_reward import multi_reward
from rollforge.errors import VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import Response, assistant, function_call, function_call_output
from rollforge.records.task import Task
from tests.envs.drive import task, tasks_of

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city."}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
ROW = {"tools": [TOOL], "expected_call": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
OSLO = function_call("get_weather", '{"city": "Oslo"}', "1")
OUTPUT = function_call_output("1", '{"city": "Oslo"}')
REASONING = {"type": "reasoning", "summary": []}


async def judged(one: Task, *items: Any) -> Verdict:
    async with multi_reward.open(one) as session:
        return await session.verify({"output": list(items)})


@pytest.mark.parametrize(
    ("items", "correctness", "valid", "form"),
    [
        ([OSLO], 1, 1, 1),
        ([REASONING, OSLO, OUTPUT], 1, 1, 1),
        ([OSLO, OUTPUT, assistant("It is sunny.")], 1, 1, 0),
        ([OSLO, assistant(" ")], 1, 1, 1),
        ([assistant("Let me see."), OSLO], 1, 1, 0),
        ([function_call("get_weather", '{"city": "Rome"}', "1")], 0, 1, 1),
        ([function_call("get_weather", '{"city": 5}', "1")], 0, 0, 1),
        ([function_call("get_weather", '{"city": "Oslo", "days": 2}', "1")], 0, 0, 1),
        ([function_call("get_weather", '{"town": "Oslo"}', "1")], 0, 0, 1),
        ([function_call("get_weather", '{"city": "Oslo"', "1")], 0, 0, 1),
        ([function_call("get_time", '{"city": "Oslo"}', "1")], 0, 0, 1),
        ([OSLO, OSLO], 1, 1, 0),
        ([OSLO, function_call("get_weather", '{"city": "Rome"}', "2")], 0, 1, 0),
        ([assistant('{"name": "get_weather", "arguments": {"city": "Oslo"}}')], 0, 0, 0),
        ([], 0, 0, 0),
    ],
)
async def test_components(items: list[Any], correctness: int, valid: int, form: int) -> None:
    found = await judged(task(**ROW), *items)
    parts = {"correctness": correctness, "schema_valid": valid, "format": form}
    assert found.reward == correctness + valid + form
    assert found.fields["reward_components"] == parts
    assert {name: found.fields[name] for name in parts} == parts


async def test_weights() -> None:
    weights = {"correctness": 0.8, "schema_valid": 0.1, "format": 0.1}
    assert (await judged(task(**ROW, weights=weights), OSLO)).reward == pytest.approx(1)
    with pytest.raises(VerifierFault, match="weights"):
        await judged(task(**ROW, weights={"correctness": 1}), OSLO)


async def test_rows_without_an_expected_call_have_no_reward() -> None:
    for row in ({"expected_call": {}}, {"expected_call": {"arguments": {}}}):
        with pytest.raises(VerifierFault, match="expected"):
            await judged(task(**{**ROW, **row}), OSLO)


async def test_the_first_answer_is_the_whole_attempt() -> None:
    asked: list[Any] = []

    async def model(request: Request, /) -> Response:
        asked.append(request)
        return {"output": [OSLO]}

    run = Runner(env=multi_reward, env_name="", model=model, model_name="", agent=ToolLoop())
    assert ((await run(task(**ROW), 0)).reward, len(asked)) == (3, 1)


async def test_every_task_is_solved_by_its_reference() -> None:
    for one in tasks_of(multi_reward, n=100):
        solution = multi_reward.solve(one)
        assert solution is not None
        [(name, arguments)] = list(solution)
        made = function_call(name, json.dumps(dict(arguments)), "1")
        assert (await judged(one, made)).reward == 1
        wrong = function_call(name, json.dumps({**arguments, next(iter(arguments)): "?"}), "1")
        assert (await judged(one, wrong)).fields["correctness"] == 0
