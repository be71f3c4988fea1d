"""A trainer's driver on our side of NeMo Gym's Python interface: its policy server, its checks of what comes back."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rollforge.errors import InfraFault, SetupError, UserError, VerifierFault
from rollforge.nemo.live import TransportError
from rollforge.nemo.run_helper import GlobalConfigDictParserConfig, RolloutCollectionHelper, RunHelper
from rollforge.records.items import Json
from tests.nemo.test_live import nemo_rl_accepts

MODEL = """
policy_model:
  responses_api_models:
    vllm_model:
      entrypoint: app.py
      base_url: ${policy_base_url}
      api_key: ${policy_api_key}
      model: ${policy_model_name}
      return_token_id_information: true
      uses_reasoning_parser: true
"""
WEATHER = """
simple_weather:
  resources_servers:
    example_single_tool_call: {entrypoint: app.py, domain: agent}
simple_weather_agent:
  responses_api_agents:
    simple_agent:
      entrypoint: app.py
      resources_server: {type: resources_servers, name: simple_weather}
      model_server: {type: responses_api_models, name: policy_model}
"""
TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


class Policy:
    """What NeMo RL's vLLM worker offers: token ids on the message, and a prompt that continues the tokens it is given."""

    def __init__(self) -> None:
        self.bodies: list[Json] = []
        self.failing = 0

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        text = json.dumps(body["messages"][0])
        if "impossible" in text or self.failing > 0:
            self.failing -= 1
            return web.json_response({"error": {"message": "the worker died"}}, status=500)
        if "endless" in text:
            message = "This model's maximum context length is 10 tokens. However, you requested 50 tokens"
            return web.json_response({"error": {"message": message, "code": 400}}, status=400)
        messages = body["messages"]
        before = [message for message in messages if message.get("generation_token_ids")]
        prompt = before[-1]["prompt_token_ids"] + before[-1]["generation_token_ids"] if before else []
        start = messages.index(before[-1]) + 1 if before else 0
        prompt = prompt + [len(prompt) + place for place, _ in enumerate(messages[start:])]
        called = any(message["role"] == "tool" for message in messages)
        if "retokenised" in text and called:
            prompt = [7, *prompt[1:]]
        new = [100, 101] if called else [200, 201, 202]
        call = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
        message = {"role": "assistant", "content": "It is cold."} if called else {"role": "assistant", "tool_calls": [call]}
        tokens = {"prompt_token_ids": prompt, "generation_token_ids": new, "generation_log_probs": [-0.5] * len(new)}
        choice = {"index": 0, "finish_reason": "stop" if called else "tool_calls", "message": {**message, **tokens}}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(new), "total_tokens": len(prompt) + len(new)}
        return web.json_response({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


@pytest.fixture
async def policy() -> AsyncIterator[Policy]:
    policy = Policy()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", policy.complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    policy.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"  # type: ignore[attr-defined]
    yield policy
    await runner.cleanup()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class At:
    def __init__(self, port: int) -> None:
        self.host, self.port = "127.0.0.1", port


@pytest.fixture
async def gym(policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[At]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vllm_model_for_training.yaml").write_text(MODEL)
    (tmp_path / "weather.yaml").write_text(WEATHER)
    head = At(free_port())
    helper = RunHelper()
    given = {
        "config_paths": ["vllm_model_for_training.yaml", "weather.yaml"],
        "policy_model_name": "m",
        "policy_api_key": "dummy_key",
        "policy_base_url": [policy.url],
        "default_host": "127.0.0.1",
        "port_range_low": 5000,
        "port_range_high": 5999,
        "global_aiohttp_connector_limit": 65536,
        "global_aiohttp_connector_limit_per_host": 16384,
        "ray_head_node_address": "127.0.0.1:6379",
        "head_server": {"host": "0.0.0.0", "port": head.port},
    }
    config = GlobalConfigDictParserConfig(Path("missing.yaml"), given, skip_load_from_cli=True)
    await asyncio.to_thread(helper.start, config)
    helper.poll()
    yield head
    await asyncio.to_thread(helper.shutdown)
    with pytest.raises(InfraFault, match="does not run"):
        helper.poll()


def rows(*prompts: str) -> list[Json]:
    made = []
    for number, prompt in enumerate(prompts):
        params = {"input": [{"role": "user", "content": prompt}], "tools": [TOOL], "temperature": 1.0, "top_p": 1.0}
        agent = {"type": "responses_api_agents", "name": "simple_weather_agent"}
        made.append({"responses_create_params": {**params, "max_output_tokens": 64}, "agent_ref": agent, "_rowidx": number})
    return made


async def driven(head: At, examples: list[Json]) -> dict[int, Json]:
    """As NeMo RL drives it, with the checks that would end its batch."""
    found = {}
    for task in RolloutCollectionHelper().run_examples(examples=examples, head_server_config=head):
        row, result = await task
        assert any(row is one for one in examples)
        nemo_rl_accepts(result)
        assert result["agent_ref"]["name"] == "simple_weather_agent"
        found[row["_rowidx"]] = result
    assert sorted(found) == list(range(len(examples)))
    return found


async def test_rollouts_with_tools_come_back_with_contiguous_tokens(gym: At, policy: Policy) -> None:
    found = await driven(gym, rows("the weather in Oslo?", "the weather in Oslo?", "and in Rome?"))
    for result in found.values():
        assert result["reward"] == 1.0
        kinds = [item["type"] for item in result["response"]["output"]]
        assert kinds == ["function_call", "function_call_output", "message"]
        assert "mask_sample" not in result
    assert all(body["logprobs"] is True and body["top_logprobs"] == 0 for body in policy.bodies)
    assert all(body["return_tokens_as_token_ids"] is True for body in policy.bodies)
    assert {body["max_tokens"] for body in policy.bodies} == {64}


async def test_faults_end_nothing_and_are_no_zeros(gym: At, policy: Policy) -> None:
    policy.failing = 2
    prompts = ["a", "a", "retokenised", "impossible", "endless", "b"]
    found = await driven(gym, rows(*prompts))
    masked = {prompts[number] for number, result in found.items() if result.get("mask_sample")}
    assert masked == {"retokenised", "impossible", "endless"}
    assert found[3]["reward"] == 1.0  # the mean of what was judged
    assert all(found[number]["instance_config"]["mask_sample"] for number in (2, 3, 4))


@pytest.mark.parametrize(
    ("reference", "told"),
    [({"name": "simple_wether_agent"}, "did you mean simple_weather_agent"), (None, "unknown agent ''"), ("x", "row 2")],
)
async def test_an_agent_that_nobody_knows_is_told_before_any_row_runs(
    gym: At, policy: Policy, reference: Any, told: str
) -> None:
    examples = [rows("a")[0], {**rows("a")[0], "agent_ref": reference}]
    for task in list(RolloutCollectionHelper().run_examples(examples, gym)):
        with pytest.raises(SetupError, match=told) as caught:
            await task
        assert not hasattr(caught.value, "status")
    assert not policy.bodies


async def test_a_row_that_is_refused_is_not_tried_again(gym: At, caplog: pytest.LogCaptureFixture) -> None:
    refused = rows("a")[0]
    del refused["responses_create_params"]["input"]
    (task,) = RolloutCollectionHelper().run_examples([refused], gym)
    with pytest.raises(VerifierFault, match="input"):
        await task
    assert "attempt 1" not in caplog.text


async def test_without_a_head_the_one_that_was_started_is_asked(gym: At) -> None:
    (task,) = RolloutCollectionHelper().run_examples(rows("a"))
    _, result = await task
    assert result["reward"] == 1.0


async def test_a_head_that_is_not_there_is_an_error_of_the_infrastructure() -> None:
    (task,) = RolloutCollectionHelper().run_examples(rows("a"), At(free_port()))
    with pytest.raises(TransportError, match="no head server") as caught:
        await task
    assert caught.value.status == 503


def test_a_wrong_configuration_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"missing\.yaml"):
        RunHelper().start(GlobalConfigDictParserConfig(None, {"config_paths": ["missing.yaml"]}, skip_load_from_cli=True))


def test_a_port_that_is_taken_is_told(policy_config: tuple[Path, Json]) -> None:
    _, given = policy_config
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        helper = RunHelper()
        config = {**given, "head_server": {"host": "127.0.0.1", "port": port}}
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"):
            helper.start(GlobalConfigDictParserConfig(None, config, skip_load_from_cli=True))
        helper.shutdown()


def test_servers_that_end_while_they_are_shut_down() -> None:
    (loop := asyncio.new_event_loop()).close()
    thread = threading.Thread(target=time.sleep, args=(0.1,))
    thread.start()
    RunHelper(thread, loop, asyncio.Event()).shutdown()
    assert not thread.is_alive()


@pytest.fixture
def policy_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Json]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "weather.yaml").write_text(WEATHER)
    given = {"policy_model_name": "m", "policy_api_key": "k", "policy_base_url": "http://127.0.0.1:9/v1"}
    return tmp_path, {"config_paths": ["model.yaml", "weather.yaml"], **given}


def test_the_names_that_nemo_rl_imports(gym_names: Any) -> None:
    from nemo_gym.cli import GlobalConfigDictParserConfig as Config  # type: ignore[import-not-found]
    from nemo_gym.cli import RunHelper as Helper
    from nemo_gym.rollout_collection import RolloutCollectionHelper as Collection  # type: ignore[import-not-found]
    from nemo_gym.server_utils import HEAD_SERVER_KEY_NAME, BaseServerConfig  # type: ignore[import-not-found]

    assert (Config, Helper, Collection) == (GlobalConfigDictParserConfig, RunHelper, RolloutCollectionHelper)
    assert HEAD_SERVER_KEY_NAME == "head_server"
    assert BaseServerConfig(host="h", port=1).port == 1


@pytest.fixture
def gym_names() -> None:
    from rollforge.nemo import activate

    before = list(sys.path)
    activate(ours=True)
    assert sys.path != before or any(path.endswith("compat") for path in sys.path)
