"""Server blocks as our objects: which backend a model server is, what it sends, what stands for which environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from fastapi import FastAPI, Request

from rollforge.errors import UserError
from rollforge.models.base import ModelOptions
from rollforge.models.base import Request as ModelRequest
from rollforge.nemo.arguments import parse_arguments
from rollforge.nemo.config import Server, read_config
from rollforge.nemo.gym import built, started
from rollforge.nemo.models import ignored, model_of
from rollforge.serve.settings import Settings
from tests.serve.live import serving

RESPONSE = {"id": "r", "object": "response", "output": [{"type": "message", "role": "assistant", "content": "hi"}]}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
}


def upstream(seen: list[Any]) -> FastAPI:
    app = FastAPI()

    async def note(request: Request) -> None:
        seen.append((request.url.path, dict(request.query_params), dict(request.headers), await request.json()))

    @app.post("/v1/chat/completions")
    @app.post("/openai/deployments/m/chat/completions")
    async def chat(request: Request) -> Any:
        await note(request)
        return COMPLETION

    @app.post("/v1/responses")
    async def responses(request: Request) -> Any:
        await note(request)
        return RESPONSE

    return app


async def sent(implementation: str, block: dict[str, Any], params: dict[str, Any], base: str = "/v1") -> Any:
    """What reaches the upstream: path, query, headers, body."""
    seen: list[Any] = []
    async with serving(upstream(seen)) as url:
        key = "openai_base_url" if implementation in ("openai_model", "azure_openai_model") else "base_url"
        server = Server("policy_model", "responses_api_models", implementation, {key: url + base, **block})
        model, _ = model_of(server, ModelOptions())
        try:
            await model(ModelRequest({"input": [{"role": "user", "content": "x"}], **params}))  # type: ignore[typeddict-item]
        finally:
            await model.aclose()  # type: ignore[attr-defined]
    return seen[0]


@pytest.mark.parametrize(
    ("implementation", "block", "path"),
    [
        ("openai_model", {"openai_model": "m", "openai_api_key": "sk-1"}, "/v1/responses"),
        ("vllm_model", {"model": "m", "api_key": "sk-1"}, "/v1/chat/completions"),
        ("vllm_model", {"model": "m", "api_key": ["sk-1"], "is_responses_native": "true"}, "/v1/responses"),
        ("inference_provider", {"model": "m", "api_key": "sk-1"}, "/v1/chat/completions"),
    ],
)
async def test_model_servers_are_backends(implementation: str, block: dict[str, Any], path: str) -> None:
    found, _, headers, body = await sent(implementation, block, {"temperature": 0.5})
    assert found == path
    assert headers["authorization"] == "Bearer sk-1"
    assert body["model"] == "m"
    assert body["temperature"] == 0.5
    assert "sk-1" not in os.environ.values()


async def test_azure_takes_its_version_from_the_query() -> None:
    block = {"openai_model": "m", "openai_api_key": "k", "default_query": {"api-version": "2030-01-01"}}
    path, query, headers, _ = await sent("azure_openai_model", block, {}, base="")
    assert (path, query, headers["api-key"]) == (
        "/openai/deployments/m/chat/completions",
        {"api-version": "2030-01-01"},
        "k",
    )


async def test_what_metadata_carries_and_what_is_pinned() -> None:
    block = {
        "model": "m",
        "sampling_overrides": {"temperature": 0.0},
        "extra_body": {"min_p": 0.1},
        "chat_template_kwargs": {"enable_thinking": False},
        "replace_developer_role_with_system": True,
        "default_headers": {"X-Team": "a"},
    }
    params = {
        "input": [{"role": "developer", "content": "d"}, {"role": "user", "content": "x"}],
        "temperature": 1.0,
        "metadata": {"extra_body": '{"seed": 3, "top_k": 5}', "note": "kept"},
    }
    _, _, headers, body = await sent("vllm_model", block, params)
    assert {key: body[key] for key in ("temperature", "seed", "top_k", "min_p")} == {
        "temperature": 0.0,
        "seed": 3,
        "top_k": 5,
        "min_p": 0.1,
    }
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert headers["x-team"] == "a"


async def test_reasoning_can_be_left_out_and_broken_metadata_hurts_nobody() -> None:
    block = {"openai_model": "m", "drop_input_reasoning_items": "true", "num_concurrent_requests": 1}
    items = [{"role": "user", "content": "x"}, {"type": "reasoning", "id": "rs_1", "summary": []}]
    _, _, _, body = await sent("openai_model", block, {"input": items, "metadata": {"extra_body": "{not json"}})
    assert [item.get("type", "message") for item in body["input"]] == ["message"]


def test_keys_without_effect_are_told_and_unknown_models_name_the_known() -> None:
    server = Server("p", "responses_api_models", "vllm_model", {"model": "m", "use_completions_api": True, "host": "x"})
    assert ignored(server) == ["use_completions_api"]
    with pytest.raises(UserError, match="unknown model server 'local_vllm_model'"):
        model_of(Server("p", "responses_api_models", "local_vllm_model", {}), ModelOptions())
    with pytest.raises(UserError, match="base_url is not set"):
        model_of(Server("p", "responses_api_models", "vllm_model", {"model": "m"}), ModelOptions())


MODEL = "policy_model: {responses_api_models: {rollforge: {model: scripted:perfect}}}\n"
AGENT = """
agent:
  responses_api_agents:
    IMPLEMENTATION:
      resources_server: {type: resources_servers, name: mine}
      model_server: {type: responses_api_models, name: policy_model}
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mine: {resources_servers: {nowhere: {}}}", "no resources_servers/nowhere/app.py"),
        ("mine: {resources_servers: {math_with_judge: {should_use_judge: true}}}", "asks no judge"),
        ("mine: {resources_servers: {rollforge: {}}}", "`use` is not set"),
        ("mine: {resources_servers: {mcqa: {}}}" + AGENT.replace("IMPLEMENTATION", "tau2"), "no responses_api_agents/tau2"),
        ("agent: {responses_api_agents: {simple_agent: {}}}", "agent needs resources_server"),
        ("mine: {resources_servers: {mcqa: {port: 1, host: 203.0.113.1}}}", "cannot listen on 203.0.113.1:1"),
    ],
)
async def test_what_cannot_be_made_says_what_there_is(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(MODEL + text)
    config = read_config(parse_arguments(["+config_paths=[a.yaml]"]))
    with pytest.raises(UserError) as error:
        async with built(config, Settings()):
            pass
    assert told in str(error.value)


async def test_an_environment_of_ours_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    agent = AGENT.replace("IMPLEMENTATION", "simple_agent")
    (tmp_path / "a.yaml").write_text(MODEL + "mine: {resources_servers: {rollforge: {use: arithmetic}}}" + agent)
    config = read_config(parse_arguments(["+config_paths=[a.yaml]"]))
    async with built(config, Settings()) as gym:
        assert [(service.kind, service.name) for service in gym.services] == [
            ("model", "policy_model"),
            ("environment", "mine"),
            ("agent", "agent"),
        ]
        assert set(gym.agents) == {"agent"}


async def test_an_agent_passes_on_the_metrics_of_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = Path(__file__).parent / "servers/resources_servers/letters/configs/letters.yaml"
    monkeypatch.chdir(letters.parents[3])
    (tmp_path / "a.yaml").write_text(MODEL)
    config = read_config(parse_arguments([f"+config_paths=[{letters},{tmp_path / 'a.yaml'}]"]))
    rows = [{"reward": 1.0, "extracted_answer": "A", "subject": "art", "_ng_task_index": 0, "_ng_rollout_index": 0}]
    async with started(config, Settings()) as gym:
        at = {service.name: service.url for service in gym.services}
        async with ClientSession() as session:
            found = [
                await (await session.post(f"{at[name]}/aggregate_metrics", json={"verify_responses": rows})).json()
                for name in ("letters", "letters_agent")
            ]
    assert found[0] == found[1]
    assert found[1]["agent_metrics"]["art/pass@1/accuracy"] == 100.0


async def test_the_head_tells_servers_by_the_names_of_their_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = "policy_model: {responses_api_models: {vllm_model: {model: up, base_url: 'http://127.0.0.1:9/v1'}}}\n"
    (tmp_path / "a.yaml").write_text(
        model + "mine: {resources_servers: {mcqa: {}}}" + AGENT.replace("IMPLEMENTATION", "simple_agent")
    )
    config = read_config(parse_arguments(["+config_paths=[a.yaml]"]))
    async with built(config, Settings()) as gym:
        assert {one.name: one.use for one in gym.instances} == {
            "policy_model": "vllm_model",
            "mine": "mcqa",
            "agent": "simple_agent",
        }
