"""OpenEnv servers: one of the package's own as a process, and what a broken one may say."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Limits, ToolCall
from rollforge.envs.openenv import OpenEnv, openenv
from rollforge.errors import DeadlineExceeded, InfraFault, SetupError, UserError, VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import Response, assistant
from rollforge.records.task import Task

SERVER = Path(__file__).with_name("openenv_server.py")
real = pytest.mark.skipif(importlib.util.find_spec("openenv") is None, reason="needs the package openenv-core")


@contextmanager
def server(kind: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVER), str(port), kind])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            try:
                with urllib.request.urlopen(f"{url}/health") as found:
                    assert found.status == 200
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        else:
            raise TimeoutError(f"{SERVER.name} did not come up")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def guess() -> Iterator[str]:
    with server("guess") as url:
        yield url


def tasks(env: OpenEnv, **options: Any) -> list[Task]:
    return [task for task in env.tasks(**options) if isinstance(task, Task)]


@real
@pytest.mark.extras
async def test_the_action_schema_is_a_tool_and_rewards_are_summed(guess: str) -> None:
    env = openenv(guess)
    (one,) = tasks(env, n=1)
    async with env.open(tasks(env, n=4)[3]) as session:
        (tool,) = session.tools
        assert tool.name == "step"
        assert tool.parameters["required"] == ["number"]
        assert set(tool.parameters["properties"]) == {"number"}
        assert session.observation == "A number from 1 up?"
        told = [
            await session.call(ToolCall("step", action)) for action in ({"number": 1}, {"number": "x"}, {}, {"number": 13})
        ]
        assert [output.error for output in told] == [False, True, True, True]
        assert told[0].text == "higher"
        assert "number" in told[1].text
        assert "unlucky" in told[3].text
        assert (await session.call(ToolCall("stp", {}))).error
        assert (await session.call(ToolCall("step", {"number": 4}))).text == "right\nThe episode is over."
        assert (await session.call(ToolCall("step", {"number": 4}))).error
        found = await session.verify({"output": [assistant("done")]})
    assert (found.reward, found.fields) == (0.75, {"steps": 2, "terminated": True})
    assert one.params["input"] == "Act through the tool `step` until the episode is over."


@real
@pytest.mark.extras
async def test_sessions_wait_for_a_place_and_the_rows_fields_go_to_reset(guess: str) -> None:
    env = openenv(guess, tasks=[{"prompt": "Guess.", "seed": n, "low": 20} for n in range(7)], reward="last")

    async def one(task: Task) -> float:
        async with env.open(task) as session:
            await session.call(ToolCall("step", {"number": 1}))
            await session.call(ToolCall("step", {"number": 20 + task.fields["seed"]}))
            return (await session.verify({"output": []})).reward

    assert await asyncio.gather(*map(one, tasks(env))) == [1.0] * 7
    full = openenv(guess, wait_seconds=0.2)
    async with env.open(tasks(env)[0]), env.open(tasks(env)[0]):
        with pytest.raises(InfraFault, match="took no session within"):
            async with full.open(tasks(full, n=1)[0]):
                pytest.fail("it opened")


@real
@pytest.mark.extras
async def test_it_is_played_by_steps_with_an_action_of_the_text(guess: str) -> None:
    env = openenv(guess, prompt="Guess {seed}.", action=lambda text: {"number": int(text)})
    said = iter(("five", "1", "13", "3"))

    async def model(request: Request, /) -> Response:
        return {"output": [assistant(next(said))]}

    runner = Runner(env=env, env_name="g", model=model, model_name="m", agent=ToolLoop())
    rollout = await runner(tasks(env, n=3)[2], 0)
    assert (rollout.outcome, rollout.reward) == ("scored", 0.75)
    output = rollout.response["output"] if rollout.response else []
    seen = [item["content"] for item in output if item.get("role") == "user"]
    assert "invalid literal" in seen[0]
    assert seen[1] == "higher"
    assert "unlucky" in seen[2]
    assert seen[3] == "right"


@real
@pytest.mark.extras
async def test_a_server_of_mcp_tools_shows_these_tools() -> None:
    with server("calls") as url:
        env = openenv(url)
        async with env.open(tasks(env, n=1)[0]) as session:
            assert [tool.name for tool in session.tools] == ["shout"]
            assert session.tools[0].parameters["required"] == ["text"]
            assert (await session.call(ToolCall("shout", {"text": "hi"}))).text == "HI"
            assert (await session.call(ToolCall("shout", {"text": ""}))).error
            assert (await session.call(ToolCall("shout", {}))).error


SCHEMA = {"action": {"type": "object", "properties": {"go": {"type": "string"}}}}


@asynccontextmanager
async def saying(*messages: str | bytes | None, schema: Any = SCHEMA) -> AsyncIterator[str]:
    """A server that answers with these, in turn; None closes, and after the last it is silent."""

    async def play(request: web.Request) -> web.WebSocketResponse:
        talk = web.WebSocketResponse()
        await talk.prepare(request)
        answers = iter(messages)
        async for _ in talk:
            answer = next(answers, "")
            if answer is None:
                break
            if isinstance(answer, bytes):
                await talk.send_bytes(answer)
            elif answer:
                await talk.send_str(answer)
        return talk

    async def told(_: web.Request) -> web.Response:
        return web.json_response(schema) if schema is not None else web.Response(status=404)

    app = web.Application()
    app.add_routes([web.get("/ws", play), web.get("/schema", told)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


FIRST = '{"type": "observation", "data": {"observation": {"a": 1, "b": null}, "reward": null, "done": false}}'


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        ((None,), InfraFault, "broke off in reset"),
        (("{nonsense",), VerifierFault, "does not speak OpenEnv"),
        (("[]",), VerifierFault, "does not speak OpenEnv"),
        ((b"\x00",), InfraFault, "broke off"),
        (('{"type": "observation", "data": 5}',), VerifierFault, "with int, not an object"),
        (('{"type": "error", "data": {"message": "no", "code": "FACTORY_ERROR"}}',), VerifierFault, "refused reset: no"),
        ((FIRST, None), InfraFault, "broke off in step"),
        ((FIRST, '{"type": "observation", "data": {"observation": {}, "reward": "much"}}'), VerifierFault, "not a number"),
        ((FIRST, '{"type": "observation", "data": {"observation": {}, "reward": 1e999}}'), VerifierFault, "speak|finite"),
        ((FIRST, '{"type": "error", "data": {"message": "gone", "code": "SESSION_ERROR"}}'), VerifierFault, "refused step"),
    ],
)
async def test_what_a_broken_server_says_is_no_verdict(answers: Any, kind: type[Exception], message: str) -> None:
    async with saying(*answers) as url:
        env = openenv(url)
        with pytest.raises(kind, match=message):
            await once(env)


async def once(env: OpenEnv) -> None:
    async with env.open(tasks(env, n=1)[0]) as session:
        assert session.observation == "1"
        await session.call(ToolCall("step", {"go": "on"}))


async def test_a_silent_server_is_given_up() -> None:
    async with saying(FIRST) as url:
        env = openenv(url)
        env.limits = Limits(tool=0.3)
        with pytest.raises(DeadlineExceeded, match="step of http"):
            async with env.open(tasks(env, n=1)[0]) as session:
                await session.call(ToolCall("step", {}))


async def test_what_is_no_openenv_server() -> None:
    async with saying(schema=None) as url:
        for env in (openenv(url), openenv(f"{url}/elsewhere", action=str)):
            with pytest.raises(SetupError, match="no OpenEnv server"):
                async with env.open(tasks(env, n=1)[0]):
                    pytest.fail("it opened")
    nobody = openenv("http://127.0.0.1:9")
    with pytest.raises(InfraFault, match="cannot connect"):
        async with nobody.open(tasks(nobody, n=1)[0]):
            pytest.fail("it opened")
    with pytest.raises(UserError, match="begins with http"):
        openenv("localhost:8000")
