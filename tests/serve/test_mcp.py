"""An environment's tools over MCP: the wire by hand, and the protocol's own clients where they are installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import rollforge as rf
from rollforge.records.items import assistant
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.serve.live import serving
from tests.serve.started import BANK, ROLLFORGE, ROW, started

SESSION = "Mcp-Session-Id"


class Bank:
    def reset(self, balance: int = 0) -> str:
        self.balance = balance
        return f"You have {balance}."

    def pay(self, amount: int) -> str:
        """Pay an amount."""
        self.balance -= amount
        return f"left {self.balance}"

    def burn(self) -> None:
        """Burn it."""
        raise rf.InfraFault("the bank is on fire")

    def verify(self, reply: str, target: int = 0) -> float:
        return float(self.balance == target)


class Guess:
    def reset(self, number: int) -> str:
        self.number = number
        return "A number from 1 to 9?"

    def step(self, action: str, number: int) -> tuple[str, float, bool]:
        right = int(action) == number
        return ("right" if right else "wrong"), float(right), right


TASKS = [{"prompt": f"Pay {n}.", "balance": n, "target": 0} for n in (3, 5)]


@dataclass
class Client:
    http: aiohttp.ClientSession
    url: str

    async def send(self, body: Any, path: str = "/mcp", method: str = "POST", **headers: str) -> tuple[int, Any, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, self.url + path, json=body, headers=named) as found:
            text = await found.text()
            return found.status, json.loads(text) if text else None, found.headers

    async def ask(self, method: str, params: Any = None, path: str = "/mcp", **headers: str) -> Any:
        status, found, _ = await self.send({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, path, **headers)
        assert status == 200, found
        assert found["id"] == 7
        return found["result"] if "result" in found else found["error"]

    async def begin(self, path: str = "/mcp", version: str = "2025-06-18") -> tuple[Any, str]:
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": version}}
        status, found, headers = await self.send(body, path)
        assert status == 200, found
        return found["result"], headers[SESSION]


@asynccontextmanager
async def client(target: type = Bank, tasks: Any = TASKS, settings: Settings | None = None) -> AsyncIterator[Client]:
    app = env_app(rf.env(target, tasks=tasks, inline=True), "bank", settings or Settings())
    async with serving(app) as url, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Client(http, url)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


async def test_a_client_opens_a_session_of_its_own_on_the_task_it_names() -> None:
    async with client() as me:
        told, session = await me.begin("/mcp?task=1")
        assert told["protocolVersion"] == "2025-06-18"
        assert told["instructions"] == "Pay 5.\n\nYou have 5."
        assert told["serverInfo"]["name"] == "bank"
        told = await me.send({"jsonrpc": "2.0", "method": "notifications/initialized"}, Mcp_Session_Id=session)
        assert told[:2] == (202, None)
        pay, _ = (await me.ask("tools/list", Mcp_Session_Id=session))["tools"]
        assert pay["name"] == "pay"
        assert pay["inputSchema"]["required"] == ["amount"]
        found = await me.ask("tools/call", call("pay", amount=2), Mcp_Session_Id=session)
        assert found == {"content": [{"type": "text", "text": "left 3"}], "isError": False}
        assert await me.ask("ping", Mcp_Session_Id=session) == {}
        status, _, _ = await me.send(None, method="DELETE", Mcp_Session_Id=session)
        assert status == 200
        status, found, _ = await me.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, Mcp_Session_Id=session)
        assert status == 404
        assert "over" in found["error"]["message"]
        status, found, _ = await me.send(None, "/status", "GET")
        assert found["sessions"]["open"] == 0


async def test_a_seeded_session_is_joined_played_and_judged() -> None:
    async with client() as me:
        status, seed, headers = await me.send({"prompt": "pay", "balance": 9, "target": 4}, "/seed_session")
        assert seed["mcp"]["url_path"] == "/mcp"
        join = {name.replace("-", "_"): value for name, value in seed["mcp"]["headers"].items()}
        assert (await me.ask("initialize", {}, **join))["instructions"] == "pay\n\nYou have 9."
        assert (await me.ask("tools/call", call("pay", amount=5), **join))["content"][0]["text"] == "left 4"
        row = {"responses_create_params": {"input": "pay"}, "target": 4, "response": {"output": [assistant("done")]}}
        cookie = headers["Set-Cookie"].partition(";")[0]
        status, found, _ = await me.send(row, "/verify", Cookie=cookie)
        assert (status, found["reward"]) == (200, 1.0)
        status, _, _ = await me.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, **join)
        assert status == 410


async def test_only_the_tools_that_the_row_declares_are_there() -> None:
    async with client() as me:
        row = {"responses_create_params": {"input": "?", "tools": [{"type": "function", "name": "burn"}]}}
        _, seed, _ = await me.send(row, "/seed_session")
        join = {name.replace("-", "_"): value for name, value in seed["mcp"]["headers"].items()}
        assert [tool["name"] for tool in (await me.ask("tools/list", **join))["tools"]] == ["burn"]
        found = await me.ask("tools/call", call("pay", amount=1), **join)
        assert found["isError"]
        assert "no tool 'pay'; the tools are: burn" in found["content"][0]["text"]


async def test_what_the_policy_can_mend_is_a_result_and_a_fault_is_an_error() -> None:
    async with client() as me:
        _, session = await me.begin()
        for wrong in (call("pay", amount="much"), call("pay"), call("pay", amount=1, more=2), call("verify"), call("_x")):
            assert (await me.ask("tools/call", wrong, Mcp_Session_Id=session))["isError"], wrong
        found = await me.ask("tools/call", call("burn"), Mcp_Session_Id=session)
        assert (found["code"], found["data"]) == (-32603, {"type": "infra_fault"})
        assert "on fire" in found["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": 5}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "prompts/list"}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "server/discover"}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 5}}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pay", "arguments": [1]}}, -32602),
        ({}, -32600),
    ],
)
async def test_messages_that_are_none(body: Any, code: int) -> None:
    async with client() as me:
        _, session = await me.begin()
        status, found, _ = await me.send(body, Mcp_Session_Id=session)
        assert (status, found["error"]["code"]) == (200, code)


async def test_who_is_refused() -> None:
    async with client() as me:
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await me.send(listing))[1]["error"]["code"] == -32600
        forged = f"0.{'0' * 32}.{'0' * 64}"
        assert (await me.send(listing, Mcp_Session_Id=forged))[0] == 404
        assert (await me.send(listing, X_NeMo_Gym_Session_Token=forged))[0] == 401
        assert (await me.send(listing, Origin="http://evil.example"))[0] == 403
        assert (await me.send([listing]))[0] == 400
        assert (await me.send(None, method="GET"))[0] == 405
        assert (await me.send(None, method="DELETE"))[0] == 400
        begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
        for task in ("2", "x", "-1", "1e3", "²", "99999999"):
            assert (await me.send(begin, f"/mcp?task={task}"))[0] == 400, task
        assert (await me.send(begin, Origin="http://localhost:6274"))[0] == 200


async def test_an_unknown_version_is_answered_with_ours_and_sessions_are_limited() -> None:
    async with client(settings=Settings(max_sessions=1)) as me:
        told, _ = await me.begin(version="1999-01-01")
        assert told["protocolVersion"] == "2025-11-25"
        status, found, _ = await me.send({"jsonrpc": "2.0", "id": 1, "method": "initialize"})
        assert (status, found["error"]["type"]) == (503, "too_many_sessions")


async def test_an_environment_that_is_played_by_steps_has_one_tool() -> None:
    async with client(Guess, [{"prompt": "Guess.", "number": 7}]) as me:
        told, session = await me.begin()
        assert told["instructions"] == "Guess.\n\nA number from 1 to 9?"
        assert [tool["name"] for tool in (await me.ask("tools/list", Mcp_Session_Id=session))["tools"]] == ["step"]
        said = []
        for action in ("3", 7, "seven", "7"):
            found = await me.ask("tools/call", call("step", action=action), Mcp_Session_Id=session)
            said.append(found["content"][0]["text"])
        assert said[0] == "wrong"
        assert said[1] == "action: a text is needed"
        assert "ValueError" in said[2]
        assert said[3] == "right\n\nThe episode is over."
        again = await me.ask("tools/call", call("step", action="7"), Mcp_Session_Id=session)
        assert (again["isError"], again["content"][0]["text"]) == (True, "The episode is over.")
        judged = {"prompt": "Guess.", "number": 7, "response": {"output": [assistant("I found it.")]}}
        _, row, _ = await me.send(judged, "/verify", Cookie=f"rollforge_session={session}")
        assert (row["reward"], row["steps"], row["terminated"]) == (1.0, 3, True)
        assert row["response"]["output"][0]["content"][0]["text"] == "I found it."
        status, found, _ = await me.send(judged, "/verify", Cookie=f"rollforge_session={session}")
        assert (status, found["error"]["type"]) == (410, "session_over")


async def test_a_session_is_found_whichever_worker_is_asked(tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text(BANK, encoding="utf-8")
    with started(tmp_path, "bank.py", "--port", "0", "--workers", "2") as service:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector) as http:
            me = Client(http, service.urls["environment"])
            sessions = [(await me.begin())[1] for _ in range(6)]
            _, seed, _ = await me.send(ROW, "/seed_session")
            for _ in range(4):
                for session in sessions:
                    await me.ask("tools/call", call("pay", amount=1), Mcp_Session_Id=session)
                await me.ask("tools/call", call("pay", amount=1), X_NeMo_Gym_Session_Token=token(seed))
            texts = [await me.ask("tools/call", call("pay", amount=0), Mcp_Session_Id=one) for one in sessions]
            assert {found["content"][0]["text"].split()[0] for found in texts} == {"4"}
            assert len({found["content"][0]["text"].split()[1] for found in texts}) <= 2


def token(seed: Any) -> str:
    return str(seed["mcp"]["headers"]["X-NeMo-Gym-Session-Token"])


NOISY = """
import os, sys
import rollforge as rf

print("hello from the import")

@rf.env(tasks=[{"prompt": "pay", "target": 6}, {"prompt": "pay more", "target": 60}])
class Noisy:
    def reset(self, target: int): self.left = target; print("reset")
    def pay(self, amount: int) -> int:
        "Pay."
        print("paying")
        os.write(1, b"straight to the descriptor")
        self.left -= amount
        return self.left
    def close(self): open("closed", "w").close()
    def verify(self, reply: str) -> float: return 1.0
"""


def test_stdio_says_nothing_but_the_protocol_and_closes_the_session(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call("pay", amount=50)},
    ]
    lines = [json.dumps(messages[0]), json.dumps(messages[1]), "", "{nonsense", "[]", json.dumps(messages[2]), ""]
    done = subprocess.run(
        [ROLLFORGE, "serve", "noisy.py", "--stdio", "--task", "1"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert found[1]["result"]["instructions"] == "pay more"
    assert found[2]["result"]["content"][0]["text"] == "10"
    assert found[None]["error"]["code"] == -32700
    assert len(done.stdout.splitlines()) == 4
    assert "paying" in done.stderr
    assert (tmp_path / "closed").exists()


async def test_stdio_ends_on_a_signal_and_closes_the_session(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(ROLLFORGE, "serve", "noisy.py", "--stdio"),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    assert json.loads(await process.stdout.readline())["result"] == {}
    process.terminate()
    await process.communicate()
    assert process.returncode == 0
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stdio"], "name it"),
        (["weather", "--stdio", "--task", "99999"], "has no task 99999"),
        (["weather", "--stdio", "--port", "3"], "nothing of port"),
    ],
)
def test_what_stdio_refuses(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [ROLLFORGE, "serve", *arguments], input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason="needs rollforge[mcp]")
async def test_the_protocols_own_client_over_http_and_stdio(tmp_path: Path) -> None:
    mcp: Any = importlib.import_module("mcp")
    if not hasattr(mcp, "Client"):
        pytest.skip("needs mcp 2")
    stdio: Any = importlib.import_module("mcp.client.stdio")
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    parameters = stdio.StdioServerParameters(command=ROLLFORGE, args=["serve", "noisy.py", "--stdio"], cwd=tmp_path)
    async with client() as me:
        with open(tmp_path / "stderr", "w", encoding="utf-8") as err:  # noqa: ASYNC230
            transports = ((f"{me.url}/mcp?task=1", "left 3"), (stdio.stdio_client(parameters, errlog=err), "4"))
            for transport, text in transports:
                async with mcp.Client(transport) as other:
                    assert "pay" in [tool.name for tool in (await other.list_tools()).tools]
                    found = await other.call_tool("pay", {"amount": 2})
                    assert (found.content[0].text, found.is_error) == (text, False)
                    assert (await other.call_tool("pay", {"amount": "x"})).is_error
        assert (await me.send(None, "/status", "GET"))[1]["sessions"]["open"] == 0
