"""Tools that a task's row declares and nobody runs: the calls themselves are judged.

The session is played by steps. A call that the tool's schema allows is answered with "accepted", until the policy makes
none; or, `once`, the first answer of the model is the whole attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rollforge.envs.base import Session, Step, Tool, ToolCall, ToolOutput, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.tools import error_text
from rollforge.records.items import Json, Response, tool_calls
from rollforge.records.lossless import dumps
from rollforge.records.task import Task
from rollforge.verify.tool_calls import made_calls, valid_call

ACCEPTED = dumps({"status": "accepted"}).decode()


class DeclaredEnv(PythonEnv):
    """An environment of a verifier function whose tools are those of each row."""

    once = False

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        async with super().open(task) as session:
            yield DeclaredSession(session, task, self.once)


class OneAnswerEnv(DeclaredEnv):
    """The same, with one answer of the model for an attempt: it is told nothing of its calls."""

    once = True


class DeclaredSession:
    def __init__(self, session: Session, task: Task, once: bool) -> None:
        self._session = session
        self._once = once
        rows = task.params.get("tools") or []
        self.tools: Sequence[Tool] = [_tool(row) for row in rows if row.get("type", "function") == "function"]
        self.observation: str | None = None

    async def call(self, call: ToolCall, /) -> ToolOutput:
        return self._answered({"name": call.name, "arguments": dict(call.arguments)})

    async def step(self, response: Response, /) -> Step:
        calls = tool_calls(response)
        pairs = zip(calls, made_calls(response), strict=True)
        outputs = tuple((str(call.get("call_id")), self._answered(made).text) for call, made in pairs)
        return Step(outputs=outputs, terminated=self._once or not calls)

    async def verify(self, response: Response, /) -> Verdict:
        return await self._session.verify(response)

    def _answered(self, made: Json) -> ToolOutput:
        known = [tool.name for tool in self.tools]
        if valid_call(made, [tool.row() for tool in self.tools]):
            return ToolOutput(ACCEPTED)
        if made["name"] in known:
            what = f"the arguments of {made['name']} are not as it declares them"
        else:
            what = f"unknown tool {made['name']!r:.100}; the tools are: {', '.join(known) or 'none'}"
        return ToolOutput(error_text(what), error=True)


def _tool(row: Json) -> Tool:
    inner = row.get("function")
    tool = inner if isinstance(inner, dict) else row
    parameters = tool.get("parameters")
    described = parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}}
    return Tool(str(tool.get("name")), str(tool.get("description") or ""), described)
