"""Parts that the tests of the engine are made of: tasks, rows, and an environment whose every step can be scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollforge.envs.base import Tool, ToolCall, ToolOutput
from rollforge.records.items import assistant, function_call
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.task import Task, task_from_row


def task(index: int | None = 0, **fields: Any) -> Task:
    return task_from_row({"prompt": f"question {index}", "answer": "yes", **fields}, index)


def rollout(
    outcome: Outcome = Outcome.SCORED, index: int = 0, repeat: int = 0, attempt: int = 1, *, retryable: bool = False
) -> Rollout:
    failure = None if outcome is Outcome.SCORED else Failure("model", "Fault", "it failed", retryable)
    return Rollout(
        params={"input": f"question {index}"},
        response={"output": [assistant("yes")], "usage": {"input_tokens": 7, "output_tokens": 3}},
        reward={Outcome.SCORED: 1.0, Outcome.POLICY_FAULT: 0.0}.get(outcome),
        outcome=outcome,
        task=f"task-{index}",
        task_index=index,
        index=repeat,
        attempt=attempt,
        failure=failure,
    )


def reply(text: str = "yes") -> dict[str, Any]:
    return {"output": [assistant(text)], "usage": {"input_tokens": 7, "output_tokens": 3}}


def calling(name: str = "look", arguments: str = "{}") -> dict[str, Any]:
    return {"output": [function_call(name, arguments, "call_1")], "usage": {"input_tokens": 7, "output_tokens": 3}}


async def for_ever() -> Any:
    await asyncio.Event().wait()


async def nothing() -> None: ...


async def failing_group() -> None:
    """A TaskGroup whose child fails: before Python 3.13, it leaves its parent `cancelling()`."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_failing())
    except* ConnectionError:
        pass


async def _failing() -> None:
    await asyncio.sleep(0)
    raise ConnectionError


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to set
            await asyncio.sleep(0.001)


@dataclass
class Script:
    """An environment, its session and nothing else: each step is a function that a test may replace."""

    opening: Callable[[], Awaitable[Any]] = nothing
    tool: Callable[[], Awaitable[Any]] = nothing
    judge: Callable[[], Awaitable[Any]] = nothing
    closing: Callable[[], Awaitable[Any]] = nothing
    tools: list[Tool] = field(default_factory=lambda: [Tool("look")])
    observation: str | None = None
    name: str = "script"
    opened: int = 0
    closed: int = 0

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Script]:
        await self.opening()
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1
            await self.closing()

    async def call(self, call: ToolCall, /) -> ToolOutput:
        found = await self.tool()
        return found if isinstance(found, ToolOutput) else ToolOutput("seen")

    async def verify(self, response: Any, /) -> Any:
        found = await self.judge()
        return 1.0 if found is None else found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def keys(path: Path) -> list[tuple[int, int]]:
    return [(row["_ng_task_index"], row["_ng_rollout_index"]) for row in rows(path)]
