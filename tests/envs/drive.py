"""Taking an environment through one attempt by hand, as an agent would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rollforge.envs.base import ToolCall, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.records.items import assistant
from rollforge.records.rows import BadLine
from rollforge.records.task import Task, task_from_row

Call = tuple[str, Mapping[str, Any]]


def tasks_of(env: PythonEnv, **options: Any) -> list[Task]:
    tasks = list(env.tasks(**options))
    assert not any(isinstance(task, BadLine) for task in tasks)
    return tasks  # type: ignore[return-value]


def task(**row: Any) -> Task:
    return task_from_row({"prompt": "?", **row})


async def attempt(env: PythonEnv, task: Task, reply: str = "", calls: Iterable[Call] = ()) -> Verdict:
    """The verdict on a reply after these tool calls."""
    async with env.open(task) as session:
        for name, arguments in calls:
            await session.call(ToolCall(name, arguments))
        return await session.verify({"output": [assistant(reply)]})


async def solved(env: PythonEnv, task: Task) -> Verdict:
    """The verdict on the reference policy."""
    solution = env.solve(task)
    assert solution is not None
    async with env.open(task) as session:
        try:
            call = next(solution)
            while True:
                answer = said(session, call) if isinstance(call, str) else _called(session, call)
                call = solution.send(await answer)
        except StopIteration as end:
            if hasattr(session, "step") and end.value:
                await said(session, end.value)
            return await session.verify({"output": [assistant(end.value)]})


async def said(session: Any, action: str) -> str:
    """The observation, where steps are taken."""
    return (await session.step({"output": [assistant(action)]})).observation or ""


async def _called(session: Any, call: Call) -> str:
    return str((await session.call(ToolCall(*call))).text)
