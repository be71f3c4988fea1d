"""What every Env must do, whoever made it and wherever it runs: in this process, or behind HTTP. A further form is one line
in LOCAL."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import rollforge as rf
from rollforge.envs.base import Env, Session, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import InfraFault, RolloutError
from rollforge.records.items import Response, assistant, final_text, function_call, function_call_output, user
from rollforge.records.rows import BadLine
from rollforge.records.task import Task, task_from_row
from rollforge.registry import BUILT_IN
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.serve.live import serving


@dataclass(frozen=True)
class Form:
    """One way to have an environment: `made` starts what it needs and ends it."""

    made: Callable[[], AbstractAsyncContextManager[Any]]
    tasks: Callable[[Any], list[Task]]
    solution: tuple[tuple[str, dict[str, Any]], ...] | None = None
    """The calls before the reply "solved", where the environment has no `solve`."""


# Small ones.

ROW = task_from_row({"prompt": "Bring the count to 5.", "goal": 5, "start": 2, "answer": "solved"})


def function(reply: str, answer: str) -> float:
    """Say it."""
    return float(reply == answer)


async def async_function(reply: str, answer: str) -> dict[str, Any]:
    """Say it, later."""
    await asyncio.sleep(0)
    return {"reward": float(reply == answer), "length": len(reply)}


class Count:
    """Count to a goal."""

    def reset(self, start: int) -> str:
        self.count = start
        return f" It is {start}."

    def add(self, by: int) -> int:
        """Add to it.

        Args:
            by: how much.
        """
        self.count += by
        return self.count

    def verify(self, reply: str, goal: int) -> dict[str, float]:
        return {"count": 0.5 * (self.count == goal), "reply": 0.5 * (reply == "solved")}


class AsyncCount(Count):
    async def reset(self, start: int) -> str:
        return super().reset(start)

    async def add(self, by: int) -> int:
        await asyncio.sleep(0)
        return super().add(by)

    async def verify(self, reply: str, goal: int) -> dict[str, float]:
        return super().verify(reply, goal)


@dataclass
class LowSession:
    count: int
    goal: int
    tools: tuple[Tool, ...] = (
        Tool("add", "Add.", {"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"]}),
    )
    observation: str | None = None
    closed: bool = field(default=False)

    async def call(self, call: ToolCall, /) -> ToolOutput:
        if call.name != "add" or type(call.arguments.get("by")) is not int:
            return ToolOutput("no", error=True)
        self.count += call.arguments["by"]
        return ToolOutput(str(self.count))

    async def verify(self, response: Response, /) -> Verdict:
        return verdict(self.count == self.goal and final_text(response) == "solved")


class LowLevel:
    """The protocol beneath the decorator, by hand."""

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        yield LowSession(task.fields["start"], task.fields["goal"])


def local(make: Callable[[], Any], solution: Any = ()) -> Form:
    @asynccontextmanager
    async def made() -> AsyncIterator[Any]:
        env = make()
        try:
            yield env
        finally:
            if hasattr(env, "aclose"):
                await env.aclose()

    return Form(made, lambda env: [ROW], tuple(solution))


def built_in(name: str) -> Form:
    @asynccontextmanager
    async def made() -> AsyncIterator[Any]:
        if name == "reasoning_gym":
            pytest.importorskip("reasoning_gym")
        env: Any = rf.load_env(name)
        try:
            yield env
        finally:
            await env.aclose()

    def tasks(env: Any) -> list[Task]:
        found = [task for task, _ in zip(env.tasks(), range(3), strict=False)]
        assert found
        assert not any(isinstance(task, BadLine) for task in found)
        return found

    return Form(made, tasks)


class Remote(RemoteEnv):
    """A served environment, with what only the local one can tell."""

    def __init__(self, url: str, local: Any) -> None:
        super().__init__(url)
        self.local = local

    def solve(self, task: Task) -> Any:
        return self.local.solve(task)


def remote(form: Form) -> Form:
    """The same environment as a service of its own."""

    @asynccontextmanager
    async def made() -> AsyncIterator[Any]:
        async with form.made() as local, serving(env_app(local, "e", Settings())) as url:
            env = Remote(url, local)
            try:
                yield env
            finally:
                await env.aclose()

    return Form(made, lambda env: form.tasks(env.local), form.solution)


STEPS = (("add", {"by": 1}), ("add", {"by": 2}))

LOCAL = {
    "function": local(lambda: rf.env(function)),
    "function inline": local(lambda: rf.env(function, inline=True)),
    "async function": local(lambda: rf.env(async_function)),
    "class": local(lambda: rf.env(Count), STEPS),
    "class inline": local(lambda: rf.env(Count, inline=True), STEPS),
    "async class": local(lambda: rf.env(AsyncCount), STEPS),
    "low level": local(LowLevel, STEPS),
    **{name: built_in(name) for name in BUILT_IN["env"]},
}
ENVS = LOCAL | {f"{name}, served": remote(form) for name, form in LOCAL.items()}


@pytest.fixture(params=ENVS)
def form(request: Any) -> Form:
    return ENVS[request.param]


async def solve(env: Any, task: Task, session: Session, form: Form) -> Response:
    """The reference solution, played in a session."""
    output: list[Any] = []
    if form.solution is not None:
        for name, arguments in form.solution:
            assert not (await session.call(ToolCall(name, arguments))).error
        return {"output": [assistant("solved")]}
    course = env.solve(task)
    assert course is not None, "a built-in environment has a reference policy"
    try:
        step = next(course)
        while True:
            if isinstance(step, str):
                step = course.send(await said(session, step))
                continue
            name, arguments = step
            made = function_call(name, json.dumps(dict(arguments)), f"call_{len(output)}")
            stepped = hasattr(session, "step")
            found = await said(session, step) if stepped else (await session.call(ToolCall(name, arguments))).text
            output += [made, function_call_output(made["call_id"], found)]
            step = course.send(found)
    except StopIteration as end:
        if hasattr(session, "step") and end.value:
            await said(session, end.value)
        return {"output": [*output, assistant(end.value)]}


async def said(session: Any, action: Any) -> str:
    """What a step gives: of a tool call (name and arguments) its output, of words the observation."""
    if isinstance(action, str):
        return (await session.step({"output": [assistant(action)]})).observation or ""
    call = function_call(action[0], json.dumps(action[1]), "call_0")
    [(_, text)] = (await session.step({"output": [call]})).outputs
    return text  # type: ignore[no-any-return]


async def test_a_session_shows_its_tools(form: Form) -> None:
    async with form.made() as env:
        for task in form.tasks(env):
            async with env.open(task) as session:
                names = [tool.name for tool in session.tools]
                assert len(set(names)) == len(names)
                assert session.observation is None or isinstance(session.observation, str)
                for tool in session.tools:
                    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name)
                    assert tool.parameters["type"] == "object"
                    assert set(tool.parameters.get("required", ())) <= set(tool.parameters["properties"])
                    assert json.loads(json.dumps(tool.row())) == tool.row()


async def test_the_reference_solution_has_the_best_reward(form: Form) -> None:
    async with form.made() as env:
        for task in form.tasks(env):
            async with env.open(task) as session:
                solved = await session.verify(await solve(env, task, session, form))
            async with env.open(task) as session:
                nothing = await session.verify({"output": [assistant("")]})
            assert solved.reward == 1.0
            assert nothing.reward < 1.0


async def test_what_no_tool_can_do_with_is_told_to_the_policy(form: Form) -> None:
    async with form.made() as env:
        (task, *_) = form.tasks(env)
        async with env.open(task) as session:
            calls = [ToolCall("no_such_tool", {}), ToolCall("verify", {}), ToolCall("", {"a": 1})]
            calls += [ToolCall(tool.name, {}) for tool in session.tools if tool.parameters.get("required")]
            calls += [
                ToolCall(tool.name, {name: {"odd": [None]}})
                for tool in session.tools
                for name in tool.parameters["properties"]
            ]
            for call in calls:
                output = await session.call(call)
                assert (type(output.text), output.error) == (str, True), call


REPLIES: list[Any] = [
    {"output": []},
    {},
    {"output": [], "usage": None, "status": "incomplete"},
    {"output": [{"type": "reasoning", "summary": []}]},
    {"output": [assistant("")]},
    {"output": [assistant("x" * 300_000)]},
    {"output": [assistant("☃ \x00 \u202e 1e999 NaN {{{ \\boxed{ \\boxed{}} ``` <think>")]},
    {"output": [assistant("(" * 5000 + "1" + ")" * 5000)]},
    {"output": [assistant("9" * 5000)]},
    {"output": [user("mine"), {"role": "assistant", "content": None}]},
]


async def test_any_reply_is_judged(form: Form) -> None:
    async with form.made() as env:
        (task, *_) = form.tasks(env)
        for response in REPLIES:
            before = deepcopy((task, response))
            async with env.open(task) as session:
                found = await session.verify(response)
            assert math.isfinite(found.reward)
            assert found.reward < 1.0
            assert json.loads(json.dumps(found.fields, allow_nan=False)) == found.fields
            assert (task, response) == before


async def test_the_same_attempt_is_judged_the_same(form: Form) -> None:
    async with form.made() as env:
        (task, *_) = form.tasks(env)
        found = []
        for _ in range(2):
            async with env.open(task) as session:
                found.append((session.observation, await session.verify(await solve(env, task, session, form))))
        assert found[0] == found[1]


RESERVED: dict[str, Any] = {
    "response": "mine",
    "responses_create_params": [1],
    "rollforge": {"shadowed": {"a": 1}},
    "_ng_task_index": 7,
    "_ng_rollout_index": None,
    "answer": "replaced",
}


def reserving(reply: str, answer: str) -> Any:
    """Say it."""
    return {"reward": float(reply == answer), **RESERVED}


@pytest.mark.parametrize("form", [local(lambda: rf.env(reserving)), remote(local(lambda: rf.env(reserving)))])
async def test_a_verdict_may_have_fields_of_any_name(form: Form) -> None:
    async with form.made() as env:
        [task] = form.tasks(env)
        for stored in ({}, {"rollforge": {"model": "m", "shadowed": {"reward": 9}}}):
            played = replace(task, fields=task.fields | stored, index=3)
            async with env.open(played) as session:
                found = await session.verify({"output": [assistant("solved")]})
            assert (found.reward, found.fields) == (1.0, RESERVED)


async def test_sessions_side_by_side_know_nothing_of_each_other(form: Form) -> None:
    async def live(env: Env, task: Task, solves: bool) -> float:
        async with env.open(task) as session:
            await asyncio.sleep(0)
            response: Response = await solve(env, task, session, form) if solves else {"output": [assistant("?")]}
            await asyncio.sleep(0)
            return (await session.verify(response)).reward

    async with form.made() as env:
        tasks = form.tasks(env)
        rewards = await asyncio.gather(*(live(env, tasks[n % len(tasks)], n % 3 > 0) for n in range(24)))
    assert [reward == 1.0 for reward in rewards] == [n % 3 > 0 for n in range(24)]


async def test_what_is_raised_inside_a_session_comes_out_of_it(form: Form) -> None:
    async with form.made() as env:
        (task, *_) = form.tasks(env)
        fault = InfraFault("the model is gone")
        with pytest.raises(RolloutError) as error:
            async with env.open(task):
                raise fault
        assert error.value is fault
        inside = asyncio.Event()

        async def live() -> None:
            async with env.open(task):
                inside.set()
                await asyncio.sleep(60)

        living = asyncio.create_task(live())
        await inside.wait()
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living
        async with env.open(task) as session:
            assert (await session.verify(await solve(env, task, session, form))).reward == 1.0
