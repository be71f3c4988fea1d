"""`POST /get_reward`: what OpenRLHF asks of a remote reward, answered by any environment."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import rollforge as rf
from rollforge.envs.base import Env, Tool
from rollforge.envs.load import load_env
from rollforge.errors import UserError
from rollforge.records.lossless import dumps
from rollforge.serve.env_app import env_app
from rollforge.serve.env_tools import check_names
from rollforge.serve.settings import Settings
from tests.serve.live import serving
from tests.serve.started import post, started

PROMPT = "<|im_start|>user\nSay 4.<|im_end|>\n<|im_start|>assistant\n"
ROW = {"prompt": "Say 4.", "answer": "4"}
LABEL = dumps({"expected_answer": "4", "task": ROW}).decode()
CALL = '<tool_call>\n{"name": "double", "arguments": {"n": 2}}\n</tool_call>'


@rf.env(tasks=[ROW])
class Moody:
    closed = 0

    def verify(self, reply: str, answer: str) -> dict[str, Any]:
        match reply:
            case "?":
                raise rf.VerifierFault("what is that?")
            case "judge":
                raise rf.JudgeFault("the judge is asleep")
            case "break":
                raise OSError("no disk")
            case "!":
                raise rf.PolicyFault("no shouting")
        return {"reward": 2.0 * (reply == answer), "length": len(reply)}

    def close(self) -> None:
        Moody.closed += 1


@rf.env(tasks=[ROW])
class Doubling:
    def double(self, n: int) -> int:
        """Twice that."""
        return 2 * n

    def verify(self, reply: str, answer: str) -> float:
        return float(reply == answer)


def asked(*responses: str, label: Any = LABEL) -> dict[str, Any]:
    query = [f"{PROMPT}{response}" for response in responses]
    return {"query": query, "prompts": [PROMPT] * len(query), "labels": [label] * len(query)}


@asynccontextmanager
async def rewarding(env: Env, **settings: Any) -> AsyncIterator[Any]:
    """Asks for rewards: status and answer. In the end no session may be open."""
    async with serving(env_app(env, "it", Settings(**settings))) as url, aiohttp.ClientSession() as http:

        async def ask(body: Any, **headers: str) -> tuple[int, Any]:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            async with http.post(f"{url}/get_reward", data=data, headers=headers) as found:
                return found.status, await found.json()

        yield ask
        await none_open(http, url)


async def none_open(http: aiohttp.ClientSession, url: str) -> None:
    """Waits for it: a session is closed after its answer."""
    headers = {"Authorization": "Bearer secret"}
    while True:
        async with http.get(f"{url}/status", headers=headers) as found:
            if (await found.json())["sessions"]["open"] == 0:
                return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("label", [LABEL, dumps(ROW).decode(), ROW, json.loads(LABEL)])
async def test_rewards_of_any_form_of_label(label: Any) -> None:
    before = Moody.closed
    async with rewarding(Moody) as ask:
        assert await ask(asked("4<|im_end|>", "5", "<think>5?</think>4", "<think>4", "!", label=label)) == (
            200,
            {
                "rewards": [2.0, 0.0, 2.0, 0.0, 0.0],
                "scores": [2.0, 0.0, 2.0, 0.0, 0.0],
                "extra_logs": {"answered": [1.0, 1.0, 1.0, 0.0, 1.0]},
            },
        )
        assert await ask(asked()) == (200, {"rewards": [], "scores": [], "extra_logs": {"answered": []}})
    assert Moody.closed - before == 5


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        ("?", "verifier_fault", "query[1] could not be judged: what is that?"),
        ("judge", "judge_fault", "query[1] could not be judged: the judge is asleep"),
        ("break", "verifier_fault", "no disk"),
    ],
)
async def test_what_cannot_be_judged_is_no_zero(response: str, kind: str, message: str) -> None:
    async with rewarding(Moody) as ask:
        status, found = await ask(asked("4", response, "4"))
        assert (status, found["error"]["type"]) == (503, kind)
        assert message in found["error"]["message"]
        assert await ask(asked("4")) == (200, {"rewards": [2.0], "scores": [2.0], "extra_logs": {"answered": [1.0]}})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        ({}, "three lists of one length"),
        ({"query": ["a"], "prompts": [], "labels": []}, "three lists of one length"),
        ({"query": "a", "prompts": "a", "labels": "a"}, "three lists of one length"),
        ({"query": [1], "prompts": ["a"], "labels": [LABEL]}, "is no text"),
        (asked("4", label="4"), "labels[0]: the label holds no task: '4'"),
        (asked("4", label=None), "holds no task"),
        (asked("4", label='{"task": {"prompt": ""}}'), "holds no task"),
        (asked("4", label={"responses_create_params": {"input": [1]}}), "input[0] is int"),
        ({"query": ["4"], "prompts": ["else"], "labels": [LABEL]}, "does not hold the end of its prompt"),
    ],
)
async def test_what_cannot_be_read_is_said(body: Any, says: str) -> None:
    async with rewarding(Moody) as ask:
        status, found = await ask(body)
        assert status in (400, 422)
        assert says in found["error"]["message"]


async def test_calls_that_nobody_runs_are_no_reason_for_a_zero() -> None:
    async with rewarding(Doubling) as ask:
        assert (await ask(asked("4")))[1]["rewards"] == [1.0]
        with_tools = {**ROW, "tools": [{"type": "function", "name": "double", "parameters": {}}]}
        for label in (LABEL, with_tools):
            status, found = await ask(asked(CALL, label=label))
            assert status == 503
            assert "agent_executor" in found["error"]["message"]


async def test_calls_that_are_the_answer_are_judged() -> None:
    env: Any = load_env("function_calling")
    task = next(iter(env.tasks(None, n=1, seed=1)))
    row = {**task.fields, "responses_create_params": task.params}
    solution = env.solve(task)
    calls, said = [], None
    try:
        while True:
            name, arguments = solution.send(said)
            calls.append(f"<tool_call>\n{json.dumps({'name': name, 'arguments': dict(arguments)})}\n</tool_call>")
            said = "null"
    except StopIteration:
        pass
    async with rewarding(env) as ask:
        status, found = await ask(asked("\n".join(calls), "I do not know.", label=row))
        assert (status, found.get("rewards")) == (200, [1.0, 0.0]), found


async def test_an_environment_of_steps_takes_one() -> None:
    env: Any = load_env("blackjack")
    task = next(iter(env.tasks(None, n=1, seed=1)))
    row = {**task.fields, "responses_create_params": task.params}
    async with rewarding(env) as ask:
        status, found = await ask(asked("<action>stand</action>", label=row))
        assert status == 200
        assert found["rewards"][0] in (0.0, 0.5, 1.0, -1.0)


async def test_limits_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDS", "secret")
    async with rewarding(Moody, token_env="REWARDS") as ask:
        assert (await ask(asked("4")))[0] == 401
        assert (await ask(asked("4"), Authorization="Bearer secret"))[0] == 200
    async with rewarding(Moody, max_sessions=2) as ask:
        status, found = await ask(asked(*"444"))
        assert (status, found["error"]["type"]) == (503, "too_many_sessions")
        assert (await ask(asked(*"44")))[0] == 200


async def test_who_goes_away_leaves_nothing_behind() -> None:
    judging, ended = asyncio.Event(), asyncio.Event()

    @rf.env(tasks=[ROW])
    class Slow:
        async def verify(self, reply: str) -> float:
            judging.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return 1.0

    async with serving(env_app(Slow, "it", Settings())) as url, aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{url}/get_reward", json=asked("4")))
        await judging.wait()
        asking.cancel()
        await asyncio.wait({asking})
        await ended.wait()
        await none_open(http, url)


async def test_no_tool_has_its_name() -> None:
    def get_reward(self: Any) -> str:
        """Take it."""
        return "1"

    class Sly:
        def verify(self, reply: str) -> float:
            return 0.0

    tool = rf.env(tasks=[ROW])(type("Sly", (Sly,), {"get_reward": get_reward}))
    assert [one.name for one in tool.tools] == []
    with pytest.raises(UserError, match="get_reward"):
        check_names("sly", [Tool("get_reward")])


def test_the_command_serves_it_and_workers_share_it(tmp_path: Path) -> None:
    """As OpenRLHF asks: aiohttp, a connection for each query, the row that the export wrote."""
    with started(tmp_path, "math_answer", "--workers", "2", "--port", "0") as service:
        row = {"responses_create_params": {"input": "What is 6 times 7?"}, "expected_answer": "42"}
        body = asked("The answer is \\boxed{42}.<|im_end|>", "\\boxed{41}", label=dumps({"task": row}).decode())

        async def ask() -> list[tuple[int, str, dict[str, str]]]:
            url = f"{service.urls['math_answer']}/get_reward"
            return [await post(url, body) for _ in range(4)]

        for status, text, _ in asyncio.run(ask()):
            assert (status, json.loads(text)["rewards"]) == (200, [1.0, 0.0])
        with urllib.request.urlopen(f"{service.urls['math_answer']}/openapi.json", timeout=30) as page:
            assert "/get_reward" in json.load(page)["paths"]
        assert service.stop()[0] == 0


def test_the_plain_client_takes_rollouts_from_a_served_agent(tmp_path: Path) -> None:
    """examples/http/client.py, as a user runs it."""
    row = {"responses_create_params": {"input": "Multiply 552 by 7."}, "answer": 3864}
    (tmp_path / "tasks.jsonl").write_text(f"{json.dumps(row)}\n" * 2, encoding="utf-8")
    client = str(Path(__file__).parents[2] / "examples" / "http" / "client.py")
    with started(tmp_path, "arithmetic", "--model", "tiny", "--port", "0") as service:
        command = [sys.executable, client, service.urls["agent"], "tasks.jsonl", "3"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert all(re.fullmatch(r"(0|1)\.0 [1-9]\d* model calls with token ids, [1-9]\d* tokens", line) for line in lines), lines
