"""An agent as a service: every row an answer, every fault by its name, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest

import rollforge as rf
from rollforge.agents.remote import RemoteRun
from rollforge.envs.base import Tool, ToolCall, ToolOutput
from rollforge.errors import InfraFault, JudgeFault, PolicyFault, SetupError, VerifierFault
from rollforge.records.items import Response, assistant, function_call
from rollforge.records.rows import rollout_from_row
from rollforge.records.task import Task, bare_task
from tests.models.server import closing
from tests.serve.agents import COUNT, agent, runner, says


async def test_run_answers_with_the_verified_row_and_every_field_of_it() -> None:
    async with agent(runner()) as (_, call):
        answer = await call("POST", "/run", COUNT)
    row = answer.json
    assert answer.status == 200
    assert row["reward"] == 1.0
    assert {key: row[key] for key in COUNT if key != "responses_create_params"} == {
        key: value for key, value in COUNT.items() if key != "responses_create_params"
    }
    names = [item.get("name", item["type"]) for item in row["response"]["output"]]
    assert names[::2] == ["get_counter_value", "increment_counter", "message"]
    assert {"id", "object", "created_at", "parallel_tool_calls", "tools", "tool_choice"} <= row["response"].keys()
    assert rollout_from_row(row).index == 2
    assert answer.headers["X-Request-Id"].startswith("req_")


async def test_a_row_is_completed_as_the_environment_completes_its_own() -> None:
    @rf.env(system="Add.", prompt="{a} + 1?", inline=True)
    def plus(reply: str, a: int) -> float:
        return float(reply == str(a + 1))

    async with agent(runner(plus, says([assistant("7")]))) as (url, call), closing(RemoteRun(url, env_name="e")) as one:
        answer = await call("POST", "/run", {"a": 6})
        begun = await call("POST", "/rollouts", {"a": 6})
        refused = await call("POST", "/run", {"b": 6})
        found = await one(bare_task({"a": 6}), 0)
    asked = [
        {"type": "message", "role": "system", "content": "Add."},
        {"type": "message", "role": "user", "content": "6 + 1?"},
    ]
    assert (answer.json["reward"], answer.json["responses_create_params"]["input"]) == (1.0, asked)
    assert begun.json["prompt"] == asked
    assert "the row lacks 'a', which the prompt template needs" in refused.json["error"]["message"]
    assert (found.reward, found.params["input"], found.task) == (1.0, asked, bare_task({"a": 6}).id)


async def test_a_row_that_counts_no_repeats_gets_other_draws_each_time() -> None:
    seeds = []

    async def model(request: Any) -> Response:
        seeds.append(request.seed)
        return {"output": [assistant("7")]}

    row = {key: value for key, value in COUNT.items() if not key.startswith("_ng_")}
    async with agent(runner(model=model)) as (_, call):
        answers = [(await call("POST", "/run", row)).json for _ in range(3)]
        numbered = [(await call("POST", "/run", COUNT)).json for _ in range(2)]
    assert len(set(seeds[:3])) == 3
    assert seeds[3] == seeds[4]
    assert all("_ng_rollout_index" not in answer for answer in answers)
    assert numbered[0]["_ng_rollout_index"] == 2


class Broken:
    """An environment whose verdict, or opening, is what it is told."""

    def __init__(self, fault: Exception, opening: bool = False) -> None:
        self.fault = fault
        self.opening = opening
        self.open_now = 0
        self.closed = 0
        self.tools = [Tool("look")]
        self.observation = None

    @asynccontextmanager
    async def open(self, _: Task) -> AsyncIterator[Any]:
        if self.opening:
            raise self.fault
        self.open_now += 1
        try:
            yield self
        finally:
            self.open_now -= 1
            self.closed += 1

    async def call(self, _: ToolCall) -> ToolOutput:
        return ToolOutput("nothing")

    async def verify(self, _: Response) -> Any:
        raise self.fault


@pytest.mark.parametrize(
    ("fault", "status", "kind", "retryable"),
    [
        (InfraFault("the disk is gone"), 502, "infra_fault", True),
        (JudgeFault("the judge is silent"), 502, "judge_fault", True),
        (VerifierFault("no expected answer"), 422, "verifier_fault", False),
        (ValueError("a bug"), 422, "verifier_fault", False),
    ],
)
async def test_an_attempt_without_a_verdict_is_its_fault_and_brings_the_row(
    fault: Exception, status: int, kind: str, retryable: bool
) -> None:
    async with agent(runner(Broken(fault), says([assistant("7")]))) as (_, call):
        answer = await call("POST", "/run", COUNT)
    error = answer.json["error"]
    assert (answer.status, error["type"], error["retryable"], error["stage"]) == (status, kind, retryable, "verify")
    assert str(fault) in error["message"]
    rollout = rollout_from_row(error["rollout"])
    assert (rollout.outcome, rollout.reward, rollout.output[0]["content"][0]["text"]) == (kind, None, "7")
    assert rollout.fields["_rowidx"] == 12


async def test_a_policy_fault_is_a_justified_zero() -> None:
    async with agent(runner(Broken(PolicyFault("it swore")), says([assistant("7")]))) as (_, call):
        answer = await call("POST", "/run", COUNT)
    assert (answer.status, answer.json["reward"], answer.json["rollforge"]["outcome"]) == (200, 0.0, "policy_fault")


@pytest.mark.parametrize(
    ("model", "status", "kind"),
    [(InfraFault("upstream is down"), 502, "infra_fault"), (SetupError("the key was refused"), 424, "setup_error")],
)
async def test_what_the_model_cannot_do_is_said(model: Exception, status: int, kind: str) -> None:
    async with agent(runner(model=says(model))) as (_, call):
        answer = await call("POST", "/run", COUNT)
    assert (answer.status, answer.json["error"]["type"], answer.json["error"]["message"]) == (status, kind, str(model))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b'{"responses_create_params": 1}', b'{"responses_create_params": {"input": [7]}}'),
        *(b'{"responses_create_params": {"input": ""}}', b'{"prompt": {"a": 1}}', b'{"task": 1}', b"[" * 100_000),
    ],
)
async def test_what_is_no_task_row_is_refused(body: bytes) -> None:
    async with agent(runner()) as (_, call):
        answer = await call("POST", "/run", body)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"


async def test_a_caller_that_goes_away_ends_its_rollout_and_the_session_is_closed() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> Response:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    env = Broken(ValueError("never asked"))
    async with agent(runner(env, slow)) as (url, call):
        for path, body in (("/run", COUNT), ("/v1/responses", {"input": "hello"})):
            began.clear(), ended.clear()
            async with aiohttp.ClientSession() as http:
                going = asyncio.create_task(http.post(url + path, json=body))
                await began.wait()
                assert env.open_now == 1
                going.cancel()
            await ended.wait()
            while env.open_now:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        status = (await call("GET", "/status")).json
    assert env.closed == 2
    assert (status["in_flight"], status["rollouts_under_way"]) == (0, 0)


async def test_an_episode_without_a_verdict_is_a_response_that_the_sdk_reads() -> None:
    calls = says([function_call("get_counter_value", "{}", "c1")], [assistant("It is at 0.")])
    async with agent(runner(model=calls)) as (url, _), openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        response = await client.responses.create(model="any", input="Read the counter.")
    assert [item.type for item in response.output] == ["function_call", "function_call_output", "message"]
    assert response.output_text == "It is at 0."
    assert response.usage is not None
    assert response.usage.total_tokens == 8


async def test_an_episode_needs_no_verdict_but_a_model() -> None:
    async with agent(runner(Broken(VerifierFault("never asked")), says([assistant("7")]))) as (_, call):
        assert (await call("POST", "/v1/responses", {"input": "x"})).json["output"][0]["content"][0]["text"] == "7"
        assert (await call("POST", "/v1/responses", {"input": 3})).status == 400
    async with agent(runner(Broken(VerifierFault("no such task"), opening=True), says([assistant("7")]))) as (_, call):
        answer = await call("POST", "/v1/responses", {"input": "x"})
        assert (answer.status, answer.json["error"]["type"]) == (422, "verifier_fault")


async def test_metrics_of_rows_and_of_the_service() -> None:
    async with agent(runner()) as (_, call):
        rows = [(await call("POST", "/run", {**COUNT, "_ng_rollout_index": number})).json for number in range(2)]
        found = (await call("POST", "/aggregate_metrics", {"verify_responses": rows})).json
        assert found["agent_metrics"]["mean/reward"] == 1.0
        assert (await call("POST", "/aggregate_metrics", {"verify_responses": [1]})).status == 400
        metrics = (await call("GET", "/metrics")).text
    assert 'rollforge_rollouts_total{outcome="scored"} 2.0' in metrics
    assert "rollforge_gateway_rollouts 0.0" in metrics


async def test_many_at_once_keep_apart() -> None:
    async with agent(runner()) as (_, call):
        rows = [{**COUNT, "initial_count": number, "expected_count": number + 4, "_rowidx": number} for number in range(100)]
        answers = await asyncio.gather(*(call("POST", "/run", row) for row in rows))
    assert [answer.json["_rowidx"] for answer in answers] == list(range(100))
    assert {answer.json["reward"] for answer in answers} == {1.0}
