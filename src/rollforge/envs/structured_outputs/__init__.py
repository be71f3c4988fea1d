"""Structured outputs: what a text says, as JSON, YAML, TOML, XML or CSV that fits a schema, or as the arguments of a tool.

Rows of NeMo Gym's `structured_outputs` work as they are (`verify.schema`). The tools are those of the row: the one that is
called takes the answer, and says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rollforge.envs.base import Session, Tool, ToolCall, ToolOutput, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.structured_outputs.reference import solve
from rollforge.envs.structured_outputs.tasks import tasks
from rollforge.envs.tools import error_text
from rollforge.errors import VerifierFault
from rollforge.records.items import Response
from rollforge.records.task import Task
from rollforge.verify.json_schema import violations
from rollforge.verify.schema import ABSENT, structured_call, structured_output

MODES = ("binary", "fraction")
RECEIVED = "Received. There is nothing more to do."


def structured_output_of(
    reply: str,
    response: Mapping[str, Any],
    schema_str: str,
    schema_type: str | None = None,
    response_mode: str | None = None,
    tool_name: str | None = None,
    tool_payload_key: str | None = None,
    expected_output: Any = None,
    grading_mode: str | None = None,
) -> dict[str, Any]:
    """Say what a text says in a form that fits a schema."""
    mode = grading_mode or "binary"
    if mode not in MODES:
        raise VerifierFault(f"grading_mode is {mode!r}; known: {', '.join(MODES)}")
    expected = ABSENT if expected_output is None else expected_output
    partial = mode == "fraction"
    if response_mode == "tool_call":
        named: dict[str, Any] = {"tool_name": tool_name, "payload_key": tool_payload_key}
        return structured_call(response, schema_str, **named, expected=expected, partial=partial)
    if response_mode not in (None, "text"):
        raise VerifierFault(f"response_mode is {response_mode!r}; known: text, tool_call")
    return structured_output(reply, schema_str, schema_type or "json", expected=expected, partial=partial)


@dataclass(frozen=True, slots=True)
class RowTools:
    """A session with the tools of its row."""

    session: Session
    tools: Sequence[Tool]
    observation: None = None

    async def call(self, call: ToolCall, /) -> ToolOutput:
        tool = next((tool for tool in self.tools if tool.name == call.name), None)
        if tool is None:
            return await self.session.call(call)
        try:
            wrong = violations(dict(call.arguments), tool.parameters)[:3]
        except VerifierFault:  # the verdict is by the row's schema, not by what the tool tells of itself
            wrong = []
        if wrong:
            problems = "; ".join(f"{one.path}: {one.message}" for one in wrong)
            return ToolOutput(error_text(f"invalid arguments for {call.name}: {problems}"), error=True)
        return ToolOutput(RECEIVED)

    async def verify(self, response: Response, /) -> Verdict:
        return await self.session.verify(response)


class StructuredOutputs(PythonEnv):
    """Its own tools are none; those of a session are the row's."""

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        async with super().open(task) as session:
            yield RowTools(session, _tools(task.params.get("tools")))


def _tools(rows: Any) -> list[Tool]:
    """Of a row, flat or as Chat Completions has them."""
    inner = [row.get("function") if isinstance(row.get("function"), dict) else row for row in rows or ()]
    whole = {"type": "object", "properties": {}}
    return [
        Tool(row["name"], row.get("description") or "", row.get("parameters") or whole)
        for row in inner
        if isinstance(row.get("name"), str)
    ]


structured_outputs = StructuredOutputs(structured_output_of, name="structured_outputs", tasks=tasks, solve=solve)
