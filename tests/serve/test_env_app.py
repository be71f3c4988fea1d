from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

import rollforge as rf
from rollforge.envs.base import Env, Limits, Tool
from rollforge.errors import DeadlineExceeded, UserError
from rollforge.records.items import assistant, function_call
from rollforge.serve.env_app import env_app
from rollforge.serve.sessions import COOKIE
from rollforge.serve.settings import Settings
from tests.collect.parts import failing_group, nothing
from tests.conformance.test_envs import LowLevel
from tests.serve.live import in_thread, serving


class Count:
    """Count to a goal."""

    closed = 0

    def reset(self, start: int = 0) -> str:
        self.count = start
        return f"It is {start}."

    def add(self, by: int) -> int:
        """Add to it."""
        self.count += by
        return self.count

    def say(self, text: str) -> str:
        """Say it back."""
        if text == "wait":
            time.sleep(0.2)
        return text

    def break_it(self) -> None:
        """Break."""
        raise rf.InfraFault("the counter is on fire")

    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return {"reward": float(self.count == goal), "count": self.count, "reply": reply}

    def close(self) -> None:
        Count.closed += 1


def exact(reply: str, answer: str) -> dict[str, float]:
    """Say it."""
    return {"right": float(reply == answer), "short": 0.0}


ROW = {
    "responses_create_params": {"input": "Bring it to 5."},
    "start": 2,
    "goal": 5,
    "_rowidx": 7,
    "agent_ref": {"name": "a"},
}
EXACT = {"responses_create_params": {"input": [{"role": "user", "content": "Say 4."}]}, "answer": "4", "uuid": "u"}


DECLARED: Any = [checks.status_code_conformance, checks.content_type_conformance, checks.unsupported_method]
"""What of the OpenAPI page holds for every answer."""


def said(text: str) -> dict[str, Any]:
    return {"output": [assistant(text)], "usage": {"input_tokens": 3, "output_tokens": 4}}


class Client:
    """Keeps cookies as NeMo Gym's agents do: those of the last answer, and no others."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url
        self.cookies: dict[str, str] = {}
        self.headers: Any = {}

    async def post(self, path: str, row: Any = None, status: int = 200) -> Any:
        body = row if isinstance(row, bytes) else json.dumps({} if row is None else row)
        async with self.http.post(f"{self.url}{path}", data=body, cookies=self.cookies) as got:
            text = await got.text()
            assert got.status == status, text
            self.headers = got.headers
            self.cookies = {name: cookie.value for name, cookie in got.cookies.items()}
        if got.content_type != "application/json":
            return text
        value = json.loads(text)
        if status >= 400:
            assert value["type"] == "error"
            assert value["request_id"] == got.headers["X-Request-Id"]
            return value["error"]
        return value

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.url}{path}") as got:
            return await (got.json() if got.content_type == "application/json" else got.text())


@asynccontextmanager
async def served(env: Env, **options: Any) -> AsyncIterator[Any]:
    """Makes clients of the environment, served."""
    async with serving(env_app(env, "it", Settings(**options))) as url, aiohttp.ClientSession() as http:
        yield lambda: Client(http, url)


async def test_an_episode_with_tools() -> None:
    before = Count.closed
    async with served(rf.env(Count, inline=True)) as client:
        me = client()
        seeded = await me.post("/seed_session", ROW)
        assert seeded["observation"] == "It is 2."
        assert [tool["name"] for tool in seeded["tools"]] == ["add", "say", "break_it"]
        assert seeded["tools"][0]["parameters"]["properties"] == {"by": {"type": "integer"}}
        attributes = set(me.headers["Set-Cookie"].split("; ")[1:])
        assert attributes == {"HttpOnly", "Path=/", "SameSite=Lax"}
        assert await me.post("/add", {"by": 2}) == "4"
        assert me.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "X-Rollforge-Tool-Error" not in me.headers
        assert "valid integer" in (await me.post("/add", {"by": "x"}))["error"]
        assert me.headers["X-Rollforge-Tool-Error"] == "1"
        assert (await me.post("/subtract", {"by": 2}, 404))["message"].endswith("the tools are: add, say, break_it")
        assert (await me.post("/add", [1], 400))["message"] == "the body is list, not an object"
        assert (await me.post("/break_it", {}, 502))["type"] == "infra_fault"
        assert await me.post("/say", {"text": '{"a": "☃"}'}) == {"a": "☃"}
        assert await me.post("/say", {"text": '{"a": '}) == '{"a": '
        assert await me.post("/add", {"by": 1}) == "5"
        judged = await me.post("/verify", ROW | {"response": said("done")})
        assert {key: judged[key] for key in ("reward", "count", "reply")} == {"reward": 1.0, "count": 5, "reply": "done"}
        assert {key: judged[key] for key in ROW} == ROW
        assert judged["response"]["usage"]["total_tokens"] == 7
        assert judged["response"]["output"] == said("done")["output"]
        assert (await client().get("/status"))["sessions"]["open"] == 0
        assert Count.closed == before + 1


async def test_verify_without_a_session_judges_in_a_fresh_one() -> None:
    async with served(rf.env(Count, inline=True)) as client:
        fresh = await client().post("/verify", ROW | {"response": said("done")})
        assert (fresh["reward"], fresh["count"]) == (0.0, 2)
        assert (await client().post("/verify", ROW | {"start": 5, "response": said("done")}))["reward"] == 1.0
        assert "rollforge_sessions 0.0" in await client().get("/metrics")
        assert await client().get("/reverify_mode") == "unsupported"


async def test_a_function_is_stateless_and_may_be_seeded_with_nothing() -> None:
    async with served(rf.env(exact)) as client:
        assert await client().get("/reverify_mode") == "stateless"
        for seed in (None, {}, EXACT):
            me = client()
            if seed is not None:
                assert await me.post("/seed_session", seed) == {"tools": [], "observation": None}
            judged = await me.post("/verify", EXACT | {"response": said("4")})
            assert (judged["reward"], judged["reward_components"]) == (1.0, {"right": 1.0, "short": 0.0})
            assert judged["uuid"] == "u"
        short = await client().post("/verify", {"prompt": "Say 4.", "answer": "4", "response": said("5")})
        assert (short["reward"], short["responses_create_params"]) == (0.0, {"input": "Say 4."})
        assert (await client().get("/status"))["sessions"]["open"] == 0


def names_called(response: Any) -> Any:
    """Call something."""
    return {"reward": 1.0, "called": [item["name"] for item in response["output"] if item["type"] == "function_call"]}


async def test_a_verifier_reads_the_names_of_tools_without_what_mcp_puts_before_them() -> None:
    made = [function_call(name, "{}", "c") for name in ("mcp__it__add", "add", "mcp__other__add", "mcp__it__")]
    async with served(rf.env(names_called, inline=True)) as client:
        judged = await client().post("/verify", {"prompt": "Go.", "response": {"output": made}})
    assert judged["called"] == ["add", "add", "mcp__other__add", ""]
    assert [item["name"] for item in judged["response"]["output"]] == [item["name"] for item in made]


async def test_a_session_may_start_from_a_row_without_a_prompt() -> None:
    async with served(rf.env(Count, inline=True)) as client:
        me = client()
        await me.post("/seed_session", {"start": 4, "goal": 5})
        assert await me.post("/add", {"by": 1}) == "5"
        assert (await me.post("/verify", {"responses_create_params": {}, "response": said("")}))["reward"] == 1.0


async def test_sessions_side_by_side_know_nothing_of_each_other() -> None:
    async with served(rf.env(Count)) as client:

        async def live(number: int) -> float:
            me = client()
            await me.post("/seed_session", ROW | {"start": number, "goal": number * 11})
            for _ in range(10):
                await me.post("/add", {"by": number if number % 2 else 0})
            return (await me.post("/verify", ROW | {"goal": number * 11, "response": said("")}))["reward"]  # type: ignore[no-any-return]

        rewards = await asyncio.gather(*(live(number) for number in range(1, 41)))
        assert rewards == [float(number % 2) for number in range(1, 41)]


async def test_seeding_again_closes_the_session_before() -> None:
    before = Count.closed
    async with served(rf.env(Count, inline=True), max_sessions=1) as client:
        me = client()
        await me.post("/seed_session", ROW)
        first = dict(me.cookies)
        await me.post("/seed_session", ROW | {"start": 9})
        assert Count.closed == before + 1
        assert await me.post("/add", {"by": 0}) == "9"
        old = client()
        old.cookies = first
        assert (await old.post("/add", {"by": 0}, 410))["type"] == "session_over"
        assert (await client().post("/seed_session", ROW, 503))["type"] == "too_many_sessions"
        other = client()
        other.cookies = {COOKIE: "of another service"}
        assert (await other.post("/add", {"by": 0}, 401))["type"] == "authentication_error"
        await me.post("/close")
        other.cookies = {COOKIE: "of another service"}
        await other.post("/seed_session", ROW)
        assert await other.post("/add", {"by": 0}) == "2"


async def test_tools_need_a_session() -> None:
    async with served(rf.env(Count, inline=True)) as client:
        for path in ("/add", "/step", "/close"):
            assert "seed_session" in (await client().post(path, {"by": 1}, 400))["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/", 405), ("//", 404), ("/../x", 404), ("/%2e%2e%2fadd", 404), ("/add%2f", 404), ("/_run", 404)),
        *(("/__init__", 404), ("/reset%00", 404), ("/v1/responses", 404), ("/run", 404), ("/health", 405)),
        *(("/docs", 405), ("/add%0d%0aX-Injected:%201", 404), (f"/{'a' * 5000}", 404), ("/%ff%fe", 404)),
    ],
)
def test_no_other_path_reaches_a_tool(counting: str, path: str, status: int) -> None:
    got, headers, body = ask(counting, "POST", path, b"{}")
    assert (got, json.loads(body)["type"]) == (status, "error")
    assert "X-Injected" not in headers


def ask(url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    """A request exactly as given, by a client that corrects nothing."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        got = connection.getresponse()
        return got.status, dict(got.getheaders()), got.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def counting() -> Iterator[str]:
    with in_thread(env_app(rf.env(Count, inline=True), "count", Settings(max_body_mb=1))) as url:
        yield url


@pytest.mark.parametrize("name", ["run", "status", "health", "metrics", "docs", "ready"])
async def test_a_tool_cannot_be_called_like_a_path(name: str) -> None:
    def tool(self: Any) -> str:
        """Do it."""
        return ""

    env = rf.env(type("Taken", (Count,), {name: tool}))
    with pytest.raises(UserError, match=f"its tool '{name}'"):
        env_app(env, "taken", Settings())


async def test_an_environment_by_hand_has_the_tools_of_its_sessions() -> None:
    async with served(LowLevel()) as client:
        me = client()
        assert "seed_session" in (await me.post("/add", {"by": 1}, 400))["message"]
        await me.post("/seed_session", {"prompt": "?", "start": 1, "goal": 3})
        assert "'sub'" in (await me.post("/sub", {"by": 1}, 404))["message"]
        assert await me.post("/add", {"by": 2}) == "3"
        assert await me.post("/add", {"by": None}) == "no"
        assert me.headers["X-Rollforge-Tool-Error"] == "1"
        row = {"prompt": "?", "start": 1, "goal": 3, "response": said("solved")}
        assert (await me.post("/verify", row))["reward"] == 1.0
        assert await client().get("/reverify_mode") == "unsupported"
        # What the row lacks is the environment's own exception.
        lacking = await client().post("/seed_session", {"prompt": "?"}, 422)
        assert (lacking["type"], lacking["stage"]) == ("verifier_fault", "open")
        assert "KeyError: 'start'" in lacking["message"]


async def test_a_session_that_nobody_waits_for_is_closed() -> None:
    closed = asyncio.Event()

    class Slow:
        @asynccontextmanager
        async def open(self, task: Any, /) -> AsyncIterator[Any]:
            try:
                await asyncio.sleep(0.3)
                async with LowLevel().open(task) as session:
                    yield session
            finally:
                closed.set()

    async with serving(env_app(Slow(), "slow", Settings())) as url, aiohttp.ClientSession() as http:
        row = {"prompt": "?", "start": 1, "goal": 1}
        with pytest.raises(TimeoutError):
            await http.post(f"{url}/seed_session", json=row, timeout=aiohttp.ClientTimeout(total=0.1))
        await asyncio.wait_for(closed.wait(), 10)
        async with http.get(f"{url}/status") as answer:
            assert (await answer.json())["sessions"]["open"] == 0


async def test_session_tools_cannot_be_called_like_a_path_either() -> None:
    @dataclass
    class Sly:
        closed: bool = False

        @asynccontextmanager
        async def open(self, task: Any, /) -> AsyncIterator[Any]:
            async with LowLevel().open(task) as session:
                session.tools = (Tool("verify"),)  # type: ignore[misc]
                yield session
            self.closed = True

    env = Sly()
    async with served(env) as client:
        assert "'verify'" in (await client().post("/seed_session", {"prompt": "?", "start": 1, "goal": 1}, 400))["message"]
    assert env.closed


FAULTS = [
    (rf.VerifierFault("no key"), 422, "verifier_fault", "no key"),
    (rf.JudgeFault("no verdict"), 502, "judge_fault", "no verdict"),
    (rf.PolicyFault("cheated"), 422, "policy_fault", "cheated"),
    (rf.InfraFault("no disk"), 502, "infra_fault", "no disk"),
    (DeadlineExceeded("too slow"), 504, "timeout", "too slow"),
    (ZeroDivisionError("division by zero"), 422, "verifier_fault", "ZeroDivisionError: division by zero"),
    (SystemExit(3), 422, "verifier_fault", "SystemExit"),
]


@pytest.mark.parametrize(("error", "status", "kind", "message"), FAULTS)
async def test_faults_of_a_verifier_keep_their_name(error: BaseException, status: int, kind: str, message: str) -> None:
    async def verify(reply: str) -> float:
        raise error

    async with served(rf.env(verify)) as client:
        for seeded in (True, False):
            me = client()
            if seeded:
                await me.post("/seed_session", EXACT)
            found = await me.post("/verify", EXACT | {"response": said("4")}, status)
            assert (found["type"], found.get("stage")) == (kind, "verify")
            assert message in found["message"]
        assert (await client().get("/status"))["sessions"]["open"] == 0


@pytest.mark.parametrize("before", [nothing, failing_group])
async def test_deadlines_of_tools_and_verifiers(before: Callable[[], Awaitable[None]]) -> None:
    class Slow:
        async def wait(self) -> str:
            """Wait."""
            await before()
            await asyncio.sleep(60)
            return ""

        async def verify(self) -> float:
            await before()
            await asyncio.sleep(60)
            return 1.0

    env = rf.env(Slow)
    env.limits = Limits(tool=0.4, verify=0.4)
    async with served(env) as client:
        me = client()
        await me.post("/seed_session", EXACT)
        assert (await me.post("/wait", {}, 504))["message"] == "wait took longer than 0.4 s"
        assert (await me.post("/verify", EXACT | {"response": said("")}, 504))["type"] == "timeout"


async def test_a_request_that_takes_too_long_frees_its_session() -> None:
    class Slow(Count):
        async def reset(self) -> None:  # type: ignore[override]
            await asyncio.sleep(60)

    async with served(rf.env(Slow, inline=True), request_seconds=0.05) as client:
        assert (await client().post("/seed_session", ROW, 504))["type"] == "timeout"
        while (await client().get("/status"))["sessions"]["open"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_client_that_goes_away_leaves_a_usable_session() -> None:
    async with served(rf.env(Count)) as client:
        me = client()
        await me.post("/seed_session", ROW)
        cookies = dict(me.cookies)
        gone = asyncio.create_task(me.post("/say", {"text": "wait"}))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        me.cookies = cookies
        assert await me.post("/add", {"by": 3}) == "5"
        assert (await me.post("/verify", ROW | {"response": said("")}))["reward"] == 1.0


@pytest.mark.parametrize("path", ["/seed_session", "/mcp", "/verify"])
async def test_a_client_that_goes_away_while_its_session_opens_leaves_none(path: str) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Count):
        async def reset(self) -> None:  # type: ignore[override]
            began.set()
            await go_on.wait()

    async with served(rf.env(Slow, inline=True, tasks=[{"prompt": "?"}])) as client:
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        gone = asyncio.create_task(client().post(path, hello if path == "/mcp" else ROW | {"response": said("")}))
        await began.wait()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await asyncio.sleep(0.1)
        go_on.set()
        while (await client().get("/status"))["sessions"]["open"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_unused_sessions_expire() -> None:
    before = Count.closed
    async with served(rf.env(Count, inline=True), session_seconds=0.05) as client:
        me = client()
        await me.post("/seed_session", ROW)
        while (await client().get("/status"))["sessions"] != {"open": 0, "limit": 10_000, "expired": 1}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await me.post("/add", {"by": 1}, 410))["type"] == "session_over"
    assert Count.closed == before + 1


def calls(*called: tuple[str, Any], id: str = "c") -> dict[str, Any]:
    items = [function_call(name, json.dumps(given), f"{id}{n}") for n, (name, given) in enumerate(called)]
    return {"output": items, "usage": {"input_tokens": 1, "output_tokens": 1}}


async def test_an_episode_gymnasium_style() -> None:
    async with served(rf.env(Count, inline=True)) as client:
        me = client()
        start = await me.post("/reset", ROW)
        assert (start["observation"], start["info"]["supports_explicit_close"]) == ("It is 2.", True)
        step = await me.post("/step", ROW | {"response": calls(("add", {"by": 1}), ("nothing", {}), ("verify", {}))})
        assert (step["terminated"], step["truncated"], step["reward"], step["observation"]) == (False, False, 0.0, None)
        first, *unknown = step["info"]["tool_outputs"]
        assert first == {"call_id": "c0", "output": "3"}
        assert all("unknown tool" in output["output"] for output in unknown)
        broken = {
            "output": [
                {**function_call("add", "{by", "d"), "call_id": None, "id": "d9"},
                {"type": "reasoning", "summary": []},
            ]
        }
        (told,) = (await me.post("/step", ROW | {"response": broken}))["info"]["tool_outputs"]
        assert told["call_id"] == "d9"
        assert "not JSON" in told["output"]
        silent = await me.post("/step", ROW | {"response": {"output": [{"type": "reasoning", "summary": []}]}})
        assert (silent["terminated"], silent["info"]) == (False, {"tool_outputs": []})
        await me.post("/step", ROW | {"response": calls(("add", {"by": 2}))})
        end = await me.post("/step", ROW | {"response": said("done")})
        assert (end["terminated"], end["reward"]) == (True, 1.0)
        assert end["info"] == {"tool_outputs": [], "count": 5, "reply": "done"}
        over = dict(me.cookies)
        assert (await me.post("/step", ROW | {"response": said("done")}, 410))["type"] == "session_over"
        me.cookies = over
        assert await me.post("/close") == {}


async def test_the_verdict_of_an_episode_is_over_all_its_steps() -> None:
    seen: list[Any] = []

    class Watch(Count):
        async def verify(self, response: Any) -> float:  # type: ignore[override]
            seen.append(response)
            return 1.0

    async with served(rf.env(Watch, inline=True)) as client:
        me = client()
        await me.post("/reset", ROW)
        await me.post("/step", {"response": calls(("add", {"by": 1}))})
        cut = {
            **calls(("add", {"by": 9}), id="x"),
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
        }
        end = await me.post("/step", {"response": cut})
        assert (end["terminated"], end["info"]) == (True, {"tool_outputs": []})
    (response,) = seen
    kinds = [(item["type"], item.get("output")) for item in response["output"]]
    assert kinds == [("function_call", None), ("function_call_output", "3"), ("function_call", None)]
    assert response["usage"] == {"input_tokens": 2, "output_tokens": 2}


async def test_only_the_tools_of_the_row_are_run_in_an_episode() -> None:
    tools: list[Any] = [{"type": "function", "function": {"name": "say"}}, {"name": ["odd"]}, {"name": "nowhere"}]
    async with served(rf.env(Count, inline=True)) as client:
        me = client()
        await me.post("/reset", ROW | {"responses_create_params": {"input": "?", "tools": tools}})
        step = await me.post("/step", {"response": calls(("add", {"by": 1}), ("say", {"text": "x"}))})
        told = [output["output"] for output in step["info"]["tool_outputs"]]
        assert "unknown tool 'add'; the tools are: say" in told[0]
        assert told[1] == "x"


async def test_metrics_are_aggregated() -> None:
    async with served(rf.env(exact)) as client:
        rows = []
        for task, reply in ((0, "4"), (0, "5"), (1, "4")):
            rows.append(await client().post("/verify", EXACT | {"_ng_task_index": task, "response": said(reply)}))
        found = await client().post("/aggregate_metrics", {"verify_responses": rows})
        assert found["agent_metrics"]["mean/reward"] == pytest.approx(2 / 3)
        assert found["agent_metrics"]["mean/output_tokens"] == 4
        assert [(group["_ng_task_index"], group["mean/reward"]) for group in found["group_level_metrics"]] == [
            (0, 0.5),
            (1, 1.0),
        ]
        empty = await client().post("/aggregate_metrics", {"verify_responses": []})
        assert empty["group_level_metrics"] == []
        for wrong in ({}, {"verify_responses": None}, {"verify_responses": [1]}, {"verify_responses": {"a": 1}}):
            assert "verify_responses" in (await client().post("/aggregate_metrics", wrong, 422))["message"]


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    "x",
    "☃\u0000",
    [],
    [[]],
    [None],
    [1],
    ["x"],
    {},
    {"type": 1},
    {"a": []},
]
ODD += [{"type": []}, {"role": {}}, [{"role": "assistant", "content": 5}], [{"type": "message", "role": []}]]
PATHS = [
    *(("responses_create_params",), ("responses_create_params", "input"), ("responses_create_params", "tools"), ("answer",)),
    *(
        ("responses_create_params", "model"),
        ("responses_create_params", "temperature"),
        ("response",),
        ("response", "output"),
    ),
    *(("response", "usage"), ("response", "usage", "input_tokens"), ("response", "usage", "input_tokens_details")),
    *(("response", "output", 0), ("response", "output", 0, "content"), ("response", "output", 0, "content", 0)),
    *(("response", "output", 0, "content", 0, "text"), ("response", "output", 0, "role"), ("response", "output", 0, "type")),
    *(("response", "output", 0, "content", 0, "type"), ("response", "status"), ("response", "incomplete_details")),
    *(("response", "output", 1, "name"), ("response", "output", 1, "arguments"), ("response", "output", 1, "call_id")),
    *(("_ng_task_index",), ("task_id",), ("agent_ref",), ("reward",), ("rollforge",), ("start",), ("goal",), ("prompt",)),
]


def put(row: Any, path: tuple[Any, ...], value: Any) -> Any:
    row = json.loads(json.dumps(row))
    place = row
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return row


async def test_no_confusion_of_types_is_a_bug() -> None:
    row = {**ROW, **EXACT, "response": {"output": [assistant("4"), function_call("add", '{"by": 1}', "c")], "usage": {}}}
    statuses = set()

    async def tell(me: Client, path: str, odd: Any) -> Any:
        async with me.http.post(f"{me.url}{path}", data=json.dumps(odd), cookies=me.cookies) as got:
            found = await got.json()
            assert got.status < 500, (path, odd, found)
            assert got.status == 200 or found["error"]["message"]
            statuses.add(got.status)
            me.cookies = {name: cookie.value for name, cookie in got.cookies.items()} or me.cookies
            return found

    async with served(rf.env(exact, inline=True)) as function, served(rf.env(Count, inline=True)) as counting:
        for path in PATHS:
            for value in ODD:
                odd = put(row, path, value)
                await tell(function(), "/verify", odd)
                await tell(function(), "/aggregate_metrics", {"verify_responses": [odd, odd, row]})
                me = counting()
                await tell(me, "/reset", {key: item for key, item in odd.items() if key != "response"})
                if me.cookies:
                    await tell(me, "/step", odd)
                    await tell(me, "/close", odd)
    assert statuses == {200, 400, 422}


WRONG = [
    (b"", 422, "response is missing"),
    (b"{", 400, "the body is not JSON"),
    (b"[]", 400, "the body is list, not an object"),
    (b'{"response": NaN}', 400, "NaN is not JSON"),
    (b'{"response": 1}', 422, "response is int, not an object"),
    (b'{"response": {}}', 422, "response.output is NoneType, not a list of items"),
    (b'{"response": {"output": [{"role": "assistant"}, 3]}}', 422, "response.output[1] is int, not an item"),
    (b'{"response": {"output": [{}]}}', 422, "response.output[0] has neither type nor role"),
    (b'{"response": {"output": [{"type": "function_call"}]}}', 422, "response.output[0] is a function_call without a name"),
    (b'{"response": {"output": [], "usage": 3}}', 422, "response.usage is int, not an object"),
    (b'{"response": {"output": []}, "responses_create_params": 3}', 400, "responses_create_params is int"),
    (b'{"response": {"output": []}, "prompt": ""}', 400, "input is empty"),
    (b"[" * 100_000, 400, "the body is not JSON"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "the body is not JSON"),
    (b"\xff\xfe{}", 400, "the body is not JSON"),
]


@pytest.mark.parametrize(("body", "status", "message"), WRONG)
def test_what_is_wrong_with_a_body_is_said(counting: str, body: bytes, status: int, message: str) -> None:
    got, _, told = ask(counting, "POST", "/verify", body)
    assert (got, message in json.loads(told)["error"]["message"]) == (status, True), told


def test_a_body_that_will_be_too_large_is_refused_before_it_comes(counting: str) -> None:
    got, headers, told = ask(counting, "POST", "/verify", b"", {"Content-Length": str(2**20 + 1)})
    assert (got, json.loads(told)["error"]["type"]) == (413, "request_too_large")
    assert {name.lower(): value for name, value in headers.items()}["connection"] == "close"


@pytest.mark.parametrize("levels", [200, 253, 256, 400, 900, 990, 1020])
@pytest.mark.parametrize("where", ["x", "goal", "content", "input", "metrics"])
def test_depth_is_no_bug(counting: str, levels: int, where: str) -> None:
    deep = b"[" * levels + b"]" * levels
    content = deep if where == "content" else b'"done"'
    given = deep if where == "input" else b'"?"'
    body = b'{"responses_create_params": {"input": %b}, "response": {"output": [{"role": "assistant", "content": %b}]}' % (
        given,
        content,
    )
    body += b', "%b": %b, "reward": 1}' % (where.encode(), deep)
    for path, row in (("/verify", body), ("/aggregate_metrics", b'{"verify_responses": [%b]}' % body)):
        status, _, told = ask(counting, "POST", path, row)
        assert status in (200, 400, 422), told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "output", "input", "text", "usage", "name", "tools", "reward", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
BODY = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("responses_create_params", "prompt", "messages", "task_id", "rollforge", "start", "goal"), JSON),
        "response": st.fixed_dictionaries(
            {
                "output": st.lists(
                    st.fixed_dictionaries({"type": st.just("message") | JSON}, optional={"role": JSON, "content": JSON})
                )
            },
            optional={"usage": JSON, "status": JSON},
        )
        | JSON,
        "verify_responses": st.lists(JSON, max_size=3),
        "by": JSON,
    },
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(["/verify", "/seed_session", "/aggregate_metrics", "/reset", "/step", "/add", "/close"]), row=BODY
)
def test_no_body_is_a_bug(counting: str, path: str, row: Any) -> None:
    _, seeded, _ = ask(counting, "POST", "/seed_session", b"{}")
    cookie = {"Cookie": re.split(";", next(value for name, value in seeded.items() if name.lower() == "set-cookie"))[0]}
    status, _, body = ask(counting, "POST", path, json.dumps(row).encode(), cookie)
    assert status in (200, 400, 410, 422), body
    ask(counting, "POST", "/close", b"", cookie)


async def test_a_tool_with_braces_in_its_name_is_no_pattern() -> None:
    class Braces(LowLevel):
        tools = (Tool("{q}"), Tool("add"))

    async with served(Braces()) as client:
        me = client()
        await me.post("/seed_session", {"start": 1, "goal": 3})
        assert "there is no tool 'anything'" in (await me.post("/anything", {}, 404))["message"]
        assert (await me.post("/add", {"by": 2})) == "3"
        assert "/{q}" not in (await me.get("/openapi.json"))["paths"]


async def test_the_row_of_a_verdict_is_that_of_its_request_and_the_state_that_of_the_session() -> None:
    async with served(rf.env(Count)) as client:
        for told, reward in (({}, 1.0), ({"goal": 9}, 0.0), ({"goal": 4, "start": 0}, 0.0), ({"goal": None}, 1.0)):
            me = client()
            await me.post("/seed_session", {**ROW, "start": 3})
            await me.post("/add", {"by": 2})
            judged = await me.post("/verify", {**told, "response": said("")})
            assert (judged["reward"], judged["count"]) == (reward, 5)


def test_schemathesis_finds_no_bug(counting: str) -> None:
    schema = schemathesis.openapi.from_url(f"{counting}/openapi.json")
    paths = set()

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def hold(data: Any) -> None:
        for operation in schema.get_all_operations():
            case = data.draw(operation.ok().as_strategy())
            paths.add(case.operation.path)
            got = case.call()
            assert got.status_code < 500, (case.path, got.text)
            assert got.headers["x-request-id"]
            case.validate_response(got, checks=DECLARED)

    hold()
    assert {"/add", "/say", "/verify", "/seed_session", "/step"} <= paths


async def test_tools_are_documented(tmp_path: Path) -> None:
    @dataclass
    class Point:
        x: int
        next: Point | None = None

    class Shapes:
        def draw(self, points: list[Point]) -> int:
            """Draw a line.

            Args:
                points: its corners.
            """
            return len(points)

        def verify(self) -> float:
            return 1.0

    Shapes.draw.__annotations__ = {"points": list[dict[str, int]], "return": int}
    async with served(rf.env(Shapes, inline=True)) as client:
        document = await client().get("/openapi.json")
        tool = document["paths"]["/draw"]["post"]
        assert (tool["summary"], tool["description"], tool["tags"]) == ("draw", "Draw a line.", ["tools"])
        schema = tool["requestBody"]["content"]["application/json"]["schema"]
        assert schema["required"] == ["points"]
        assert schema["properties"]["points"]["description"] == "its corners."
        assert {"/seed_session", "/verify", "/aggregate_metrics", "/reverify_mode", "/reset", "/step", "/close"} <= set(
            document["paths"]
        )
        assert "/{tool}" not in document["paths"]
        assert "swagger" in (await client().get("/docs")).lower()


async def test_the_environment_is_closed_with_its_service() -> None:
    ended: list[str] = []

    class Closing(LowLevel):
        async def aclose(self) -> None:
            ended.append("env")

    async with served(Closing()) as client:
        await client().post("/seed_session", {"prompt": "?", "start": 1, "goal": 3})
        assert ended == []
    assert ended == ["env"]
