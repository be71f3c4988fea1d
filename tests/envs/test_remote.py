"""Environments behind HTTP: NeMo Gym's servers as they answer, and what becomes of dead, slow and lying ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

import rollforge as rf
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Limits, ToolCall
from rollforge.envs.load import load_env
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, RolloutError, SetupError, VerifierFault
from rollforge.models.service import Service
from rollforge.records.items import assistant, final_text, function_call
from rollforge.records.rollout import Outcome
from rollforge.records.task import Task, task_from_row
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.envs.gym import counter, gymnasium
from tests.models.server import HANG, Reply, Server, serve
from tests.serve.live import serving

TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"by": {"type": "integer"}}}}


def task(*tools: str, **fields: Any) -> Task:
    declared = [TOOL, *({"type": "function", "name": name} for name in tools)]
    row = {"responses_create_params": {"input": "Count.", "tools": declared}, "start": 2, "goal": 5, "uuid": "u1", **fields}
    return task_from_row(row, 7)


@asynccontextmanager
async def remote(app: FastAPI) -> AsyncIterator[RemoteEnv]:
    async with serving(app) as url:
        env = RemoteEnv(url)
        try:
            yield env
        finally:
            await env.aclose()


@asynccontextmanager
async def lying(*answers: Any) -> AsyncIterator[tuple[RemoteEnv, Server]]:
    async with serve(*answers) as server:
        env = RemoteEnv(server.root)
        try:
            yield env, server
        finally:
            await env.aclose()


def reply(text: str) -> Any:
    return {"output": [assistant(text)]}


async def test_a_session_of_a_resources_server_keeps_its_state_behind_its_cookie() -> None:
    app = counter()
    async with remote(app) as env, env.open(task()) as one, env.open(task(start=100)) as other:
        assert [tool.name for tool in one.tools] == ["add"]
        assert (await one.call(ToolCall("add", {"by": 1}))).text == '{"count":3}'
        assert (await other.call(ToolCall("add", {"by": 1}))).text == '{"count":101}'
        assert (await one.call(ToolCall("add", {"by": 2}))).text == '{"count":5}'
        verdict = await one.verify(reply("done"))
        assert verdict.reward == 1.0
        # The row's own fields are no part of the verdict; what its server does not declare is not lost either.
        assert verdict.fields == {"note": None, "count": 5, "extracted": "done"}
        assert (await other.verify(reply(""))).reward == 0.0
    seeds = [json.loads(body) for path, _, body in app.state.seen if path == "/seed_session"]
    assert [(seed["start"], seed["uuid"], seed["_ng_task_index"]) for seed in seeds] == [(2, "u1", 7), (100, "u1", 7)]
    assert len({session for path, session, _ in app.state.seen if path == "/add"}) == 2
    assert not [path for path, *_ in app.state.seen if path == "/close"]


async def test_what_a_row_has_as_null_is_not_sent() -> None:
    app = counter()
    row = {"responses_create_params": {"input": "Count.", "tool_choice": None, "parallel_tool_calls": None}, "start": 2}
    async with remote(app) as env, env.open(task_from_row({**row, "goal": 2, "note": None})) as session:
        assert (await session.verify(reply("done"))).reward == 1.0
    sent = {path: json.loads(body) for path, _, body in app.state.seen if path in ("/seed_session", "/verify")}
    assert [body["responses_create_params"] for body in sent.values()] == [{"input": "Count."}] * 2
    assert sent["/seed_session"]["note"] is None  # of a task's own fields a null is one


async def test_what_a_tool_answers_is_what_the_policy_reads() -> None:
    async with remote(counter()) as env, env.open(task("text", "boom", "gone", "missing")) as session:
        assert (await session.call(ToolCall("text", {}))).text == "plain ☃"
        wrong = await session.call(ToolCall("add", {"by": "x"}))
        assert (wrong.error, "int_parsing" in wrong.text) == (True, True)
        broken = await session.call(ToolCall("boom", {}))
        assert (broken.error, broken.text) == (True, "\"ValueError('boom')\"")
        missing = await session.call(ToolCall("missing", {}))
        assert (missing.error, missing.text) == (True, '{"detail":"Not Found"}')
        with pytest.raises(InfraFault, match="/gone answered 503: no worker"):
            await session.call(ToolCall("gone", {}))


@pytest.mark.parametrize(
    "name", ["verify", "seed_session", "aggregate_metrics", "mcp", "", "..", "undeclared", "add/../verify"]
)
async def test_no_tool_call_reaches_another_path(name: str) -> None:
    app = counter()
    async with remote(app) as env, env.open(task("verify", "seed_session", "aggregate_metrics", "mcp", "..")) as session:
        before = len(app.state.seen)
        output = await session.call(ToolCall(name, {"reward": 1.0}))
        assert (output.error, "unknown tool" in output.text) == (True, True)
        assert len(app.state.seen) == before


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("judge", JudgeFault, "no verdict"),
        ("crash", VerifierFault, "answered 500: ValueError.'cannot read it'"),
        ("inner", JudgeFault, "inner server"),
        ("silent", VerifierFault, "without a reward"),
    ],
)
async def test_a_verdict_that_could_not_be_had_is_no_zero(text: str, kind: type[RolloutError], says: str) -> None:
    async with remote(counter()) as env, env.open(task()) as session:
        with pytest.raises(kind, match=says):
            await session.verify(reply(text))


async def test_a_row_that_the_server_refuses_is_not_tried_again() -> None:
    async with remote(counter()) as env:
        with pytest.raises(VerifierFault, match="seed_session answered 422"):
            async with env.open(task(start="two")):
                pass
        async with env.open(task(goal="five")) as session:
            with pytest.raises(VerifierFault, match="verify answered 422"):
                await session.verify(reply(""))


async def guess(request: Any) -> Any:
    """Asks once, then guesses three numbers."""
    items = request.params["input"]
    said = [item for item in items if item.get("role") == "assistant"]
    usage = {"input_tokens": 5, "output_tokens": 1}
    if not any(item.get("type") == "function_call" for item in items):
        return {"output": [function_call("hint", "{}", "call_1")], "usage": usage}
    return {"output": [assistant(str(len(said) + 3))], "usage": usage}


def runner(env: Any, model: Any, **options: Any) -> Runner:
    agent = ToolLoop(**options)
    return Runner(env=env, env_name="e", model=model, model_name="m", agent=agent)


async def test_a_gymnasium_server_is_played_by_steps() -> None:
    app = gymnasium()
    async with remote(app) as env:
        rollout = await runner(env, guess)(task(goal=5), 0)
    assert (rollout.outcome, rollout.reward) == (Outcome.SCORED, pytest.approx(0.7))
    assert rollout.fields["terminated"] is True
    assert (rollout.fields["steps"], rollout.fields["info"]) == (4, {"guess": "5"})
    assert [item.get("role") or item["type"] for item in rollout.params["input"]] == ["user", "user"]
    kinds = [item.get("role") or item["type"] for item in rollout.output]
    calls = ["function_call", "function_call_output", "assistant", "user", "assistant", "user", "assistant"]
    assert kinds == calls
    assert rollout.output[1]["output"] == "the goal is below 10"
    assert rollout.response is not None
    assert rollout.response["usage"] == {"input_tokens": 20, "output_tokens": 4}
    steps = [json.loads(body) for path, _, body in app.state.seen if path == "/step"]
    # Each step tells the last answer only.
    assert [len(step["response"]["output"]) for step in steps] == [1, 1, 1, 1]
    assert len({session for path, session, _ in app.state.seen if path in ("/reset", "/step")}) == 1
    assert not app.state.closed


async def test_an_episode_that_is_cut_short_says_so() -> None:
    async def give_up(request: Any) -> Any:
        return {"output": [assistant("I give up")]}

    app = gymnasium()
    async with remote(app) as env:
        few = await runner(env, guess, max_turns=2)(task(goal=5, closes=True), 0)
        truncated = await runner(env, give_up)(task(goal=5), 0)
    assert few.response is not None
    assert (few.reward, few.response["incomplete_details"]) == (pytest.approx(-0.2), {"reason": "max_turns"})
    assert (few.fields["terminated"], few.fields["truncated"]) == (False, True)
    assert truncated.response is not None
    assert (truncated.fields["truncated"], truncated.response["incomplete_details"]) == (True, {"reason": "truncated"})
    assert len(app.state.closed) == 1  # the one that asked for it


async def test_a_gymnasium_server_needs_an_agent_that_steps() -> None:
    async with remote(gymnasium()) as env, env.open(task()) as session:
        with pytest.raises(VerifierFault, match="must take steps"):
            await session.call(ToolCall("add", {}))
        with pytest.raises(VerifierFault, match="no step was taken"):
            await session.verify(reply("5"))


async def test_one_without_seed_session_is_known_by_its_reset() -> None:
    def answer(path: str, body: Any) -> Any:
        return Reply({"detail": "Not Found"}, 404) if path == "/seed_session" else {"observation": "Go.", "info": {}}

    async with serve() as server:
        server.answers = [lambda body: answer(server.seen[-1].path, body)]
        env = RemoteEnv(server.root)
        for _ in range(2):
            async with env.open(task()) as session:
                assert session.observation == "Go."
        await env.aclose()
    assert [seen.path for seen in server.seen] == ["/seed_session", "/reset", "/reset"]


async def test_what_is_no_environment_stops_the_run() -> None:
    async with lying(Reply({"detail": "Not Found"}, 404)) as (env, _):
        with pytest.raises(SetupError, match="neither /seed_session nor /reset"):
            async with env.open(task()):
                pass


SEEDED = {"tools": [TOOL], "observation": None}
OPENINGS: dict[str, tuple[Any, type[Exception], str]] = {
    "silence": (HANG, DeadlineExceeded, "no answer within 0.3 s"),
    "a web page": (Reply(b"<html>login"), InfraFault, "not JSON.*<html>login"),
    "a list": ([1], VerifierFault, "list, not an object"),
    "a token is asked for": (
        Reply({"type": "error", "error": {"type": "authentication_error", "message": "a bearer token is needed"}}, 401),
        SetupError,
        "a bearer token is needed; export ROLLFORGE_TOKEN",
    ),
    "a fault of the environment": (
        Reply({"type": "error", "error": {"type": "verifier_fault", "message": "no such file", "stage": "open"}}, 422),
        VerifierFault,
        "no such file",
    ),
    "a key was wrong behind it": (
        Reply({"type": "error", "error": {"type": "setup_error", "message": "wrong key"}}, 424),
        SetupError,
        "wrong key",
    ),
    "it moved": (Reply(b"", 307, {"Location": "http://elsewhere/"}), InfraFault, "answered 307"),
}


@pytest.mark.parametrize("name", OPENINGS)
async def test_what_is_wrong_with_opening_is_told(name: str) -> None:
    answer, kind, says = OPENINGS[name]
    async with lying(answer) as (env, _):
        env.limits = Limits(tool=0.3, verify=0.3)
        with pytest.raises(kind, match=says):
            async with env.open(task()):
                pass


async def test_a_full_service_is_waited_for() -> None:
    full = {"type": "error", "error": {"type": "too_many_sessions", "message": "full"}}
    answers = [Reply(full, 503, {"Retry-After": "0"})] * 8
    async with lying(*answers, SEEDED, {"reward": 1}) as (env, server), env.open(task()) as session:
        assert (await session.verify(reply("x"))).reward == 1.0
    assert [seen.path for seen in server.seen] == ["/seed_session"] * 9 + ["/verify"]  # judged is closed


@asynccontextmanager
async def losing(url: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A way to the service on which the first answer gets lost, and that answer."""
    lost: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        asking = asyncio.create_task(carry(reader, there[1]))
        if lost:
            await carry(there[0], writer)
        else:
            lost.append(await there[0].read(1 << 16))
        for end in (there[1], writer):
            end.close()
        await asking

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}", lost


@pytest.mark.parametrize("style", ["tools", "steps"])
async def test_a_lost_answer_to_the_opening_leaves_no_second_session(style: Any) -> None:
    def sure(reply: str) -> float:
        return 1.0

    app = env_app(rf.env(sure, inline=True), "sure", Settings())
    async with serving(app) as url, losing(url) as (way, lost):
        env, asking = RemoteEnv(way, style=style), Service(url)
        async with env.open(task()):
            status = (await asking.call("GET", "/status", seconds=9)).json()
            assert status["sessions"]["open"] == 1
        status = (await asking.call("GET", "/status", seconds=9)).json()
        await asking.aclose()
        await env.aclose()
    assert b"rollforge_session=" in lost[0]
    assert status["sessions"]["open"] == 0


async def test_each_opening_has_a_key_of_its_own_that_its_tries_share() -> None:
    answers = [Reply({}, 502), SEEDED, {"reward": 1}, SEEDED, {"reward": 1}]
    async with lying(*answers) as (env, server):
        for _ in range(2):
            async with env.open(task()) as session:
                await session.verify(reply("x"))
    keys = [(seen.path, seen.headers.get("Idempotency-Key")) for seen in server.seen]
    one, other = keys[0][1], keys[3][1]
    assert None not in (one, other)
    assert one != other
    assert keys == [
        *[("/seed_session", one)] * 2,
        ("/verify", None),
        ("/seed_session", other),
        ("/verify", None),
    ]


async def test_a_tool_call_whose_answer_is_lost_is_never_sent_again() -> None:
    async with lying(SEEDED, HANG, {}) as (env, server):
        env.limits = Limits(tool=0.3)
        with pytest.raises(DeadlineExceeded):
            async with env.open(task()) as session:
                await session.call(ToolCall("add", {"by": 1}))
    assert [seen.path for seen in server.seen] == ["/seed_session", "/add", "/close"]


async def test_a_cancelled_attempt_closes_its_session() -> None:
    async with lying(SEEDED, HANG, {}) as (env, server):
        inside = asyncio.Event()

        async def live() -> None:
            async with env.open(task()) as session:
                inside.set()
                await session.call(ToolCall("add", {"by": 1}))

        living = asyncio.create_task(live())
        await inside.wait()
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living
    assert server.seen[-1].path == "/close"


async def test_an_attempt_cancelled_while_it_opens_leaves_no_session() -> None:
    def sure(reply: str) -> float:
        return 1.0

    async with serving(env_app(rf.env(sure, inline=True), "sure", Settings())) as url:
        env, asking = RemoteEnv(url), Service(url)

        async def live() -> None:
            async with env.open(task()):
                await asyncio.sleep(60)

        for number in range(200):
            living = asyncio.create_task(live())
            await asyncio.sleep(number % 20 / 5000)
            living.cancel()
            await asyncio.wait((living,))
        answer = await asking.call("GET", "/status", seconds=9)
        await asking.aclose()
        await env.aclose()
    assert answer.json()["sessions"]["open"] == 0


async def test_a_session_is_closed_if_the_second_request_of_its_opening_fails() -> None:
    seeded: dict[str, Any] = {"tools": [], "observation": None, "steps": True}
    async with lying(seeded, Reply({"detail": "no"}, 500), {}) as (env, server):
        with pytest.raises(RolloutError):
            async with env.open(task()):
                pass
    assert [seen.path for seen in server.seen] == ["/seed_session", "/reset", "/close"]


async def test_the_text_of_a_response_may_be_anything() -> None:
    async with remote(counter()) as env, env.open(task()) as session:
        verdict = await session.verify({"output": [{"role": "assistant", "content": "a\ud800b"}], "usage": None})
        assert verdict.fields["extracted"] == "a?b"


async def test_a_url_is_a_reference_to_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(SEEDED, {"reward": 0.5}) as server:
        monkeypatch.setenv("ROLLFORGE_TOKEN", "t-123456")
        env: Any = load_env(server.root)
        rollout = await runner(env, guess_once)(task(), 0)
        await env.aclose()
    assert (rollout.reward, final_text(rollout.response)) == (0.5, "5")
    assert {seen.headers.get("Authorization") for seen in server.seen} == {"Bearer t-123456"}
    assert [tool["name"] for tool in rollout.params["tools"]] == ["add"]


async def guess_once(request: Any) -> Any:
    return reply("5")
