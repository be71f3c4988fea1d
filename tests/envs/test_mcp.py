"""Tools from MCP servers: real ones, of the protocol's own package, as processes and over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

if not hasattr(pytest.importorskip("mcp", reason="needs rollforge[mcp]"), "Client"):
    pytest.skip("needs mcp 2", allow_module_level=True)

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Limits, ToolCall
from rollforge.envs.decorate import env
from rollforge.envs.load import load_env
from rollforge.envs.mcp import McpEnv, McpServer, mcp_env
from rollforge.errors import DeadlineExceeded, InfraFault, SetupError, UserError, VerifierFault
from rollforge.models.base import ModelOptions, Solution
from rollforge.models.load import load_model
from rollforge.records.items import assistant
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.envs.drive import solved, task, tasks_of
from tests.serve.live import serving

pytestmark = pytest.mark.extras

NOTES = """
import os, sys, time
from mcp.server.mcpserver import MCPServer
from mcp.types import ImageContent

server = MCPServer("notes")
notes = []

@server.tool()
def add(text: str) -> str:
    "Write a note."
    notes.append(text)
    return f"{len(notes)} notes"

@server.tool(name="list.notes")
def listed() -> str:
    "All notes."
    return "|".join(notes)

@server.tool()
def pid() -> int:
    "Of this process."
    return os.getpid()

@server.tool()
def secret() -> str:
    "What it sees."
    return os.environ.get("MY_SECRET", "nothing") + os.environ.get("GIVEN", "")

@server.tool()
def fail() -> str:
    "Fail."
    raise ValueError("no such thing")

@server.tool()
def die() -> str:
    "Die."
    print("out of ink", file=sys.stderr, flush=True)
    os._exit(3)

@server.tool()
def nap(seconds: float) -> str:
    "Sleep."
    time.sleep(seconds)
    return "rested"

@server.tool()
def picture() -> ImageContent:
    "A picture."
    return ImageContent(type="image", data="aGk=", mime_type="image/png")

server.run()
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> McpServer:
    file = tmp_path_factory.mktemp("mcp") / "notes.py"
    file.write_text(NOTES, encoding="utf-8")
    return McpServer(command=(sys.executable, str(file)))


@pytest.fixture
def made(notes: McpServer) -> McpEnv:
    def solve(expected: str) -> Solution:
        for text in expected.split("|"):
            yield "add", {"text": text}
        return "done"

    @mcp_env(
        notes,
        state={"written": "list.notes"},
        tasks=[{"prompt": "write", "expected": text} for text in ("a|b", "d|e|f")],
        name="noting",
        inline=True,
        solve=solve,
    )
    class Noting:
        def reset(self) -> str:
            self.asked = 0
            return "A blank page."

        def ask(self) -> int:
            """Ask."""
            self.asked += 1
            return self.asked

        def verify(self, written: str, expected: str) -> dict[str, Any]:
            return {"reward": float(written == expected), "asked": self.asked, "written": written}

    return Noting


async def test_the_reference_policy_gets_full_marks_from_the_servers_state(made: McpEnv) -> None:
    verdicts = [await solved(made, one) for one in tasks_of(made)]
    assert [found.reward for found in verdicts] == [1.0, 1.0]
    assert verdicts[1].fields["written"] == "d|e|f"


async def test_tools_are_the_classs_and_the_servers_but_not_those_of_the_state(made: McpEnv) -> None:
    async with made.open(task(expected="")) as session:
        names = [tool.name for tool in session.tools]
        assert names == ["ask", "add", "pid", "secret", "fail", "die", "nap", "picture"]
        add = session.tools[1]
        assert add.description == "Write a note."
        assert add.parameters["properties"]["text"]["type"] == "string"
        assert session.observation == "A blank page."
        hidden = await session.call(ToolCall("list.notes", {}))
        assert hidden.error
        assert "unknown tool" in hidden.text


async def test_what_goes_wrong_in_a_tool_is_told_to_the_policy(made: McpEnv) -> None:
    async with made.open(task(expected="")) as session:
        for call in (ToolCall("fail", {}), ToolCall("add", {"txt": "a"}), ToolCall("add", {"text": {"deep": [1]}})):
            output = await session.call(call)
            assert output.error
            assert output.text
        assert (await session.call(ToolCall("picture", {}))).text == "[image: image/png]"
        assert (await session.call(ToolCall("add", {"text": "ä" * 100_000}))).text == "1 notes"


async def test_each_session_has_a_server_of_its_own_which_ends_with_it(made: McpEnv) -> None:
    async with made.open(task(expected="x")) as one, made.open(task(expected="y")) as other:
        pids = [int((await session.call(ToolCall("pid", {}))).text) for session in (one, other)]
        await one.call(ToolCall("add", {"text": "x"}))
        assert (await other.call(ToolCall("add", {"text": "y"}))).text == "1 notes"
        assert (await one.verify({"output": [assistant("")]})).reward == 1.0
    assert len({*pids, os.getpid()}) == 3
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]  # noqa: ASYNC240


async def test_a_shared_server_serves_all_sessions_and_is_started_again_when_it_died(notes: McpServer) -> None:
    shared = McpServer(command=notes.command, shared=True, only=("pid", "die"), prefix="my.")
    made = mcp_env(shared, inline=True)(_right)
    try:
        async with made.open(task()) as one, made.open(task()) as other:
            assert [tool.name for tool in one.tools] == ["my_pid", "my_die"]
            pids = {(await session.call(ToolCall("my_pid", {}))).text for session in (one, other)}
            assert len(pids) == 1
            with pytest.raises(InfraFault, match="out of ink"):
                await one.call(ToolCall("my_die", {}))
            with pytest.raises(InfraFault, match="ended"):
                await other.call(ToolCall("my_pid", {}))
        async with made.open(task()) as again:
            assert (await again.call(ToolCall("my_pid", {}))).text not in pids
    finally:
        await made.aclose()


def test_a_shared_server_is_there_for_the_next_event_loop(notes: McpServer) -> None:
    made = mcp_env(McpServer(command=notes.command, shared=True), inline=True)(_right)

    async def once() -> set[str]:
        async def one() -> str:
            async with made.open(task()) as session:
                return (await session.call(ToolCall("pid", {}))).text

        try:
            return set(await asyncio.gather(*(one() for _ in range(4))))
        finally:
            await made.aclose()

    first, then = asyncio.run(once()), asyncio.run(once())
    assert len(first) == len(then) == 1
    assert first != then


async def test_a_server_that_dies_is_an_infrastructure_fault_and_no_verdict(made: McpEnv) -> None:
    async with made.open(task(expected="")) as session:
        with pytest.raises(InfraFault, match="out of ink"):
            await session.call(ToolCall("die", {}))
        with pytest.raises(InfraFault):
            await session.verify({"output": [assistant("")]})


async def test_a_tool_has_a_deadline_and_the_session_goes_on_after_it(made: McpEnv) -> None:
    async with made.open(task(expected="")) as session:
        made.limits = Limits(tool=0.3)
        session._limits = made.limits  # type: ignore[attr-defined]
        with pytest.raises(DeadlineExceeded, match="nap took longer than"):
            await session.call(ToolCall("nap", {"seconds": 30}))


async def test_a_server_sees_what_it_is_given_and_no_secrets(notes: McpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    made = mcp_env(lambda one: McpServer(command=notes.command, env={"GIVEN": one.fields["given"]}), inline=True)(_right)
    async with made.open(task(given="!")) as session:
        assert (await session.call(ToolCall("secret", {}))).text == "nothing!"


@pytest.mark.parametrize(
    ("server", "kind", "message"),
    [
        (McpServer(command=("/no/such/program",)), SetupError, "No such file"),
        (McpServer(command=(sys.executable, "-c", "raise SystemExit('no ink')")), InfraFault, "no ink"),
        (McpServer(url="http://127.0.0.1:9/mcp"), InfraFault, "cannot be used"),
    ],
)
async def test_a_server_that_cannot_be_had(server: McpServer, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        async with mcp_env(server, inline=True)(_right).open(task()):
            pytest.fail("it opened")


async def test_a_server_that_says_nothing_is_given_up(notes: McpServer) -> None:
    made = mcp_env(McpServer(command=(sys.executable, "-c", "import time; time.sleep(60)")), inline=True)(_right)
    made.limits = Limits(tool=0.5)
    with pytest.raises(DeadlineExceeded, match="starting the MCP server"):
        async with made.open(task()):
            pytest.fail("it opened")


async def test_names_that_are_not_there_or_there_twice() -> None:
    async with serving(env_app(load_env("weather"), "weather", Settings())) as url:
        server = McpServer(url=f"{url}/mcp")
        for servers, state, message in (
            ((McpServer(url=f"{url}/mcp", only=("get",)),), {}, "no tool 'get'; it has: get_weather"),
            ((server, server), {}, "'get_weather' of the MCP server http.* is there already"),
            ((server,), {"reply": "nothing"}, "no server has the tool 'nothing'"),
        ):
            with pytest.raises(SetupError, match=message):
                async with mcp_env(*servers, state=state, inline=True)(_right).open(task()):
                    pytest.fail("it opened")


async def test_a_state_that_cannot_be_had_is_no_verdict(notes: McpServer) -> None:
    async with mcp_env(notes, state={"reply": "fail"}, inline=True)(_right).open(task()) as session:
        with pytest.raises(VerifierFault, match="the state reply cannot be had: fail: Error"):
            await session.verify({"output": [assistant("")]})


def test_what_cannot_be_an_environment() -> None:
    for options in ({}, {"command": ("a",), "url": "http://b"}, {"command": "python server.py"}):
        with pytest.raises(UserError, match="command"):
            McpServer(**options)  # type: ignore[arg-type]

    class Steps:
        def step(self, action: str) -> str:
            return action

    with pytest.raises(UserError, match="played by steps"):
        mcp_env(McpServer(url="http://b"))(Steps)


async def test_ours_over_http_is_a_server_like_any_other() -> None:
    async with serving(env_app(load_env("weather"), "weather", Settings())) as url:
        made = mcp_env(McpServer(url=f"{url}/mcp?task=0"), inline=True)(_right)
        async with made.open(task()) as session:
            assert [tool.name for tool in session.tools] == ["get_weather"]
            assert (await session.call(ToolCall("get_weather", {}))).error


async def test_a_collection_runs_on_it_and_many_sessions_stay_apart(made: McpEnv) -> None:
    model = load_model("scripted:perfect", ModelOptions(solve=made.solve))
    runner = Runner(env=made, env_name="noting", model=model, model_name="scripted", agent=ToolLoop())
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(runner(one, n)) for one in tasks_of(made) for n in range(2)]
    assert [rollout.result().reward for rollout in running] == [1.0] * 4
    await made.aclose()


def _right(reply: str) -> float:
    return 1.0


def test_the_digest_tells_servers_apart(notes: McpServer) -> None:
    one, other = mcp_env(notes)(_right), mcp_env(notes, McpServer(url="http://b"))(_right)
    assert one.digest() == mcp_env(notes)(_right).digest()
    assert len({env(_right).digest(), one.digest(), other.digest()}) == 3
