"""The head: who there is, where, how they are; in the shapes that NeMo Gym's clients read, and without secrets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from fastapi import APIRouter, FastAPI, Request, Response

from rollforge.serve.app import answer, make_app
from rollforge.serve.config import load_config
from rollforge.serve.head import Instance, head_app
from rollforge.serve.settings import Settings
from tests.serve.live import serving

SEEN: list[dict[str, str]] = []


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def service() -> FastAPI:
    router = APIRouter()

    @router.get("/status")
    async def status(request: Request) -> Response:
        SEEN.append(dict(request.headers))
        return answer({"uptime_seconds": 5.0, "pid": 42, "sessions": {"open": 1}})

    return make_app("math", "", [router], Settings())


def nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def test_services_are_listed_as_they_are(client: aiohttp.ClientSession) -> None:
    theirs = FastAPI()  # has no /status
    async with serving(service()) as url, serving(theirs) as other:
        listed = [
            Instance("math", "environment", "arithmetic", url, folder="/code/arithmetic", domain="agent"),
            Instance("policy", "model", "chat:Qwen/Qwen3-8B", nobody()),
            Instance("old", "environment", other, other, here=False),
        ]
        async with serving(head_app(listed, {}, Settings(), "http://127.0.0.1:11000")) as head:
            found = await (await client.get(f"{head}/server_instances")).json()
            status = await (await client.get(f"{head}/status")).json()
            config = yaml.safe_load(await (await client.get(f"{head}/global_config_dict_yaml")).json())
            async with client.head(f"{head}/health") as alive:
                assert (alive.status, await alive.read()) == (200, b"")
    assert config["math"]["resources_servers"]["arithmetic"]["domain"] == "agent"
    assert (found[0]["dir_path"], found[0]["entrypoint"]) == ("/code/arithmetic", "app.py")
    assert [(one["name"], one["server_type"], one["status"]) for one in found] == [
        ("math", "resources_servers", "success"),
        ("policy", "responses_api_models", "connection_error"),
        ("old", "resources_servers", "success"),
    ]
    first = found[0]
    assert (first["url"], first["pid"], first["uptime_seconds"]) == (url, 42, 5.0)
    assert f"http://{first['host']}:{first['port']}" == url
    fields = (
        "config_path dir_path entrypoint host name pid port process_name server_type start_time status uptime_seconds url"
    )
    assert set(first) == set(fields.split())
    assert status["status"] == "degraded"
    assert status["services"]["math"] == {
        "kind": "environment",
        "uptime_seconds": 5.0,
        "pid": 42,
        "sessions": {"open": 1},
        "status": "success",
    }


async def test_names_lead_to_addresses_as_nemo_gym_reads_them(client: aiohttp.ClientSession) -> None:
    refs = {"resources_server": ("environment", "math"), "model_server": ("model", "policy")}
    listed = [
        Instance("math", "environment", "arithmetic", "http://0.0.0.0:8001"),
        Instance("policy", "model", "chat:Qwen/Qwen3-8B", "http://127.0.0.1:8002"),
        Instance("math_agent", "agent", "tool_loop", "https://far.example", refs),
    ]
    async with serving(head_app(listed, {}, Settings(), "http://127.0.0.1:11000")) as head:
        text = await (await client.get(f"{head}/global_config_dict_yaml", headers={"Host": "gpu-7:11000"})).json()
        forged = await client.get(f"{head}/global_config_dict_yaml", headers={"Host": "evil.example/x: {y"})
        hosts = yaml.safe_load(await forged.json())
    found = yaml.safe_load(text)
    # Reached as gpu-7, so what listens on all interfaces is there too.
    assert found["math"]["resources_servers"]["arithmetic"]["host"] == "gpu-7"
    assert hosts["math"]["resources_servers"]["arithmetic"]["host"] == "127.0.0.1"
    assert found["policy"]["responses_api_models"]["chat_Qwen_Qwen3-8B"]["port"] == 8002
    agent = found["math_agent"]["responses_api_agents"]["tool_loop"]
    assert (agent["host"], agent["port"]) == ("far.example", 443)
    assert agent["resources_server"] == {"type": "resources_servers", "name": "math"}
    assert agent["model_server"] == {"type": "responses_api_models", "name": "policy"}
    assert found["head_server"] == {"host": "127.0.0.1", "port": 11000}


async def test_what_is_shown_of_services_holds_no_keys(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    url, command = "http://me:s3cret@127.0.0.1:9/v1?key=s3cret", "command:KEY=s3cret python3 my_agent.py --key s3cret"
    file = tmp_path / "rollforge.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "models": {"far": {"url": url}, "policy": {"use": "chat:m", "base_url": [url]}},
                "agents": {"mine": {"use": command, "env": "counter", "model": "policy"}},
            }
        )
    )
    listed = [
        Instance("far", "model", url, url),
        Instance("mine", "agent", command, "http://127.0.0.1:9"),
    ]
    async with serving(head_app(listed, load_config(file, {}).shown, Settings(), "http://127.0.0.1:1")) as head:
        texts = [
            await (await client.get(f"{head}/{path}")).text()
            for path in ("server_instances", "global_config_dict_yaml", "config", "status")
        ]
    assert not any("s3cret" in text for text in texts)
    instances, _, config, _ = map(json.loads, texts)
    assert [one["entrypoint"] for one in instances] == ["http://127.0.0.1:9/v1", "command:python3"]
    assert config["agents"]["mine"]["use"] == "command:python3"
    assert config["models"]["policy"]["base_url"] == ["http://127.0.0.1:9/v1"]


async def test_the_token_is_asked_for_and_told_only_to_own_services(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEAD_TOKEN", "hidden-token")
    SEEN.clear()
    config = {"models": {"policy": {"use": "tiny"}}}
    async with serving(service()) as url:
        listed = [Instance("own", "environment", "x", url), Instance("far", "environment", "x", url, here=False)]
        settings = Settings(token_env="HEAD_TOKEN")
        async with serving(head_app(listed, config, settings, "http://127.0.0.1:11000")) as head:
            for path in ("server_instances", "status", "global_config_dict_yaml", "config"):
                refused = await client.get(f"{head}/{path}")
                assert refused.status == 401
                assert (await refused.json())["error"]["type"] == "authentication_error"
            assert not SEEN
            bearer = {"Authorization": "Bearer hidden-token", "X-Request-Id": "trace-1"}
            assert await (await client.get(f"{head}/config", headers=bearer)).json() == config
            everything = [
                await (await client.get(f"{head}/{path}", headers=bearer)).text()
                for path in ("server_instances", "status", "global_config_dict_yaml", "config", "metrics", "openapi.json")
            ]
    assert "hidden-token" not in json.dumps(everything)
    assert {one.get("authorization") for one in SEEN} == {"Bearer hidden-token", None}
    assert {one["x-request-id"] for one in SEEN} == {"trace-1"}
