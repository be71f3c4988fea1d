"""The environment of structured outputs: rows in NeMo Gym's shape, its own tasks in every form, tools of the row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rollforge.envs.base import Session, ToolCall, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.structured_outputs import structured_outputs
from rollforge.envs.structured_outputs.reference import write
from rollforge.errors import VerifierFault
from rollforge.records.items import Response, assistant, function_call
from rollforge.records.task import Task, task_from_row
from rollforge.verify.documents import parse
from tests.envs.drive import attempt, task, tasks_of

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "year": {"type": ["integer", "null"]}}}
ROW = {"schema_str": json.dumps(SCHEMA), "schema_type": "json"}
PARAMETERS = {"type": "object", "properties": {"extraction": SCHEMA}, "required": ["extraction"]}
TOOL = {"type": "function", "name": "answer_1", "description": "", "parameters": PARAMETERS, "strict": True}
CALLED = {
    "responses_create_params": {"input": "Extract.", "tools": [TOOL, {**TOOL, "name": "answer_2"}]},
    **ROW,
    "response_mode": "tool_call",
    "tool_name": "answer_1",
    "tool_payload_key": "extraction",
    "num_turns": 1,
}


@pytest.fixture
async def env() -> AsyncIterator[PythonEnv]:
    yield structured_outputs
    await structured_outputs.aclose()


async def played(env: PythonEnv, of: Task) -> Verdict:
    """The reference policy, its calls among the items of its response."""
    course = env.solve(of)
    assert course is not None
    async with env.open(of) as session:
        return await session.verify(await _response(course, session))


async def _response(course: Any, session: Session) -> Response:
    items = []
    try:
        name, arguments = next(course)
        while True:
            output = await session.call(ToolCall(name, arguments))
            assert not output.error
            items.append(function_call(name, json.dumps(arguments), "c"))
            name, arguments = course.send(output.text)
    except StopIteration as end:
        return {"output": [*items, assistant(end.value)]}


@pytest.mark.parametrize(
    ("row", "reply", "reward"),
    [
        ({}, '{"name": "a", "year": 1}', 1),
        ({"response_mode": "text", "grading_mode": None}, '{"name": "a", "year": null}', 1),
        ({}, '{"name": "a"}', 0),
        ({}, '```json\n{"name": "a", "year": 1}\n```', 0),
        ({"schema_type": "yaml"}, "name: a\nyear: 1", 1),
        ({"schema_type": "xml"}, "<x><name>a</name><year/></x>", 1),
        ({"grading_mode": "fraction"}, '{"name": "a"}', 2 / 3),
        ({"expected_output": {"name": "a", "year": 1}}, '{"name": "a", "year": 2}', 0),
        ({"expected_output": {"name": "a", "year": 1}, "grading_mode": "fraction"}, '{"name": "a", "year": 2}', 0.5),
        ({"source_record_id": "x", "has_distractors": False}, '{"name": "a", "year": 1}', 1),
    ],
)
async def test_rows(env: PythonEnv, row: dict[str, Any], reply: str, reward: float) -> None:
    assert (await attempt(env, task(**{**ROW, **row}), reply)).reward == pytest.approx(reward)
    assert (await played(env, task(**{**ROW, **row}))).reward == 1


async def test_rows_that_answer_by_a_tool(env: PythonEnv) -> None:
    row = task_from_row(CALLED)
    assert (await played(env, row)).reward == 1
    good = function_call("answer_1", '{"extraction": {"name": "a", "year": 1}}', "c")
    for items, error in (
        ([good], None),
        ([good, good], "multiple_tool_calls"),
        ([{**good, "name": "answer_2"}], "wrong_tool_name"),
        ([assistant('{"name": "a", "year": 1}')], "missing_tool_call"),
    ):
        async with env.open(row) as session:
            verdict = await session.verify({"output": items})
        assert (verdict.reward, verdict.fields["error_type"]) == (float(error is None), error)
    async with env.open(row) as session:
        assert [tool.name for tool in session.tools] == ["answer_1", "answer_2"]
        assert not (await session.call(ToolCall("answer_2", {"extraction": {"name": "a", "year": 1}}))).error
        for call in (ToolCall("answer_1", {}), ToolCall("answer_1", {"extraction": 5}), ToolCall("other", {})):
            assert (await session.call(call)).error


async def test_rows_that_cannot_be_judged(env: PythonEnv) -> None:
    for row in ({"schema_str": "{"}, {"schema_type": "ini"}, {"response_mode": "voice"}, {"grading_mode": "half"}):
        with pytest.raises(VerifierFault):
            await attempt(env, task(**{**ROW, **row}), "{}")
    with pytest.raises(VerifierFault, match="schema_str"):
        await attempt(env, task(), "{}")


async def test_its_tasks_have_an_answer_that_only_the_text_tells(env: PythonEnv) -> None:
    rows = tasks_of(env, n=300)
    assert {one.fields["kind"] for one in rows} == {"json", "yaml", "toml", "xml", "csv", "tool_call"}
    for one, verdict in zip(rows, await asyncio.gather(*(played(env, one) for one in rows)), strict=True):
        assert (verdict.reward, verdict.fields["values_right"]) == (1, 1)
        text = str(one.params["input"])
        for value in _leaves(one.fields["expected_output"]):
            assert isinstance(value, bool) or value is None or str(value) in text


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for item in inner for leaf in _leaves(item)]
    return [value]


@pytest.mark.parametrize("kind", ["json", "yaml", "toml", "xml", "csv"])
async def test_what_is_written_is_read_back(kind: str) -> None:
    for one in tasks_of(structured_outputs, n=60, kind=kind, seed=3):
        value = one.fields["expected_output"]
        assert parse(write(value, kind), kind, json.loads(one.fields["schema_str"])) == value
