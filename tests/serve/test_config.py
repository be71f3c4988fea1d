"""rollforge.yaml and the options of a single service: what is read, refused, and shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rollforge.errors import UserError
from rollforge.records.shown import without_secrets
from rollforge.serve.config import Loaded, load_config, single
from rollforge.serve.run import exposed
from rollforge.serve.settings import Settings

YAML = """
models: {policy: {use: "chat:Qwen/Qwen3-8B", base_url: "http://localhost:8000/v1"}, oracle: scripted}
envs: {math: {use: arithmetic, level: hard}, desk: {url: "http://other:8001/"}}
agents: {math_agent: {env: math, model: policy, max_turns: 8, sampling: {temperature: 1}, port: 8100}}
max_sessions: 7
"""


def load(folder: Path, text: str = YAML, **over: Any) -> Loaded:
    path = folder / "rollforge.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, over)


def test_named_services_with_the_defaults_of_a_collection(tmp_path: Path) -> None:
    config = load(tmp_path, drain_seconds=3).config
    assert [(kind, name) for kind, name, _ in config.entries()] == [
        ("model", "policy"),
        ("model", "oracle"),
        ("environment", "math"),
        ("environment", "desk"),
        ("agent", "math_agent"),
    ]
    assert config.models["policy"].base_url == ["http://localhost:8000/v1"]
    assert config.models["oracle"].use == "scripted"
    assert config.envs["math"].model_extra == {"level": "hard"}
    assert config.envs["desk"].url == "http://other:8001"
    agent = config.agents["math_agent"]
    assert agent.env and agent.model  # noqa: PT018
    assert (agent.env.use, agent.model.use, agent.port, agent.use) == ("math", "policy", 8100, "tool_loop")
    assert agent.model_extra == {"max_turns": 8}
    assert (config.max_sessions, config.drain_seconds) == (7, 3)
    assert config.head and config.head.port == 11000  # noqa: PT018


def test_values_come_from_the_environment_and_stay_out_of_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICY_URL", "http://user:hidden@host/v1?key=hidden")
    text = """
models:
  policy: {use: "chat:${MODEL:-tiny}", base_url: "${POLICY_URL}", headers: {X-Key: hidden}, extra_body: {api_key: hidden}}
envs: {math: {use: arithmetic, note: "a $$ sign"}, other: {url: "http://me:hidden@host"}}
"""
    loaded = load(tmp_path, text)
    assert loaded.config.models["policy"].use == "chat:tiny"
    assert loaded.config.models["policy"].base_url == ["http://user:hidden@host/v1?key=hidden"]
    assert loaded.config.envs["math"].model_extra == {"note": "a $ sign"}
    assert "hidden" not in str(loaded.shown)
    assert loaded.shown["models"]["policy"]["base_url"] == "${POLICY_URL}"
    assert loaded.shown["models"]["policy"]["headers"] == {"X-Key": "***"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {a: {use: x, bas_url: 1}}", r"unknown key 'bas_url'; did you mean base_url .*models\.a"),
        ("modles: {a: x}", "unknown key 'modles'; did you mean models"),
        ("envs: {a: {}}", r"envs\.a: it needs `use:`"),
        ("envs: {a: {url: 'host:1'}}", "begins with http"),
        ("envs: {a: 3}", r"envs\.a holds int"),
        ("envs: [a]", "envs holds list"),
        ("envs: {a b: x}", "'a b' cannot name a service"),
        ("envs: {head: x}", r"envs\.head: the name is taken"),
        ("envs: {a: x}\nmodels: {a: x}", r"envs\.a: the name is taken"),
        ("agents: {a: {env: x}}", "missing: model"),
        ("agents: {a: {env: x, model: y, sampling: {temprature: 1}}}", "did you mean temperature"),
        ("envs: {a: '${NOT_SET}'}", r"envs\.a: the environment variable NOT_SET is not set"),
        ("envs: {a: x}\nport: 3", "each service has a port of its own"),
        ("envs: {a: {use: x, port: 70000}}", "port"),
        ("envs:", "names nothing to serve"),
        ("", "names nothing to serve"),
        ("- 1", "holds list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def test_one_service_from_the_words_of_a_collection() -> None:
    env = single({"env": {"use": "my/env.py:bank"}, "max_sessions": 3}, 8000).config
    assert env.envs["bank"].port == 8000
    assert env.max_sessions == 3
    model = single({"model": "chat:Qwen/Qwen3-8B"}, 0).config
    assert model.models["Qwen3-8B"].use == "chat:Qwen/Qwen3-8B"
    values = {
        "env": "arithmetic",
        "model": {"use": "tiny"},
        "agent": {"max_turns": 3},
        "sampling": {"top_p": 0.5},
        "seed": 1,
    }
    agent = single({**values, "deadlines": {"tool": 5}}, 1).config.agents["arithmetic_agent"]
    assert (agent.sampling, agent.seed, agent.deadlines.tool) == ({"top_p": 0.5}, 1, 5)
    assert agent.model_extra == {"max_turns": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "name what to serve"),
        ({"env": "arithmetic", "sampling": {"top_p": 1}}, "sampling is of an agent"),
        ({"model": "tiny", "agent": {"max_turns": 1}}, "agent is of an agent"),
        ({"envv": "arithmetic"}, "did you mean env"),
        ({"env": "arithmetic", "max_session": 1}, "did you mean max_sessions"),
    ],
)
def test_what_one_service_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        single(values, 0)


def test_secrets_are_hidden_wherever_they_are() -> None:
    values = {
        "a": [{"api_key": "s", "openai_api_key": "s", "token": 1, "api_key_env": "NAME", "max_total_tokens": 5}],
        "password": {"x": "s"},
        "url": "see https://u:s@host:1/x?token=s and more",
        "note": None,
    }
    assert without_secrets(values) == {
        "a": [{"api_key": "***", "openai_api_key": "***", "token": "***", "api_key_env": "NAME", "max_total_tokens": 5}],
        "password": "***",
        "url": "see https://host:1/x and more",
        "note": None,
    }


def test_the_files_of_the_documentation_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml[^\n]*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    configs = [load(tmp_path, block).config for block in blocks]
    assert [[name for _, name, _ in config.entries()] for config in configs] == [
        ["policy", "oracle", "sums", "weather", "sums_agent", "weather_agent"],
        ["policy", "sums", "sums_agent"],
    ]


def test_services_that_others_can_reach_are_told_of_whatever_their_own_host_is() -> None:
    here, everywhere = ("http://127.0.0.1:1", "http://[::1]:2"), "http://0.0.0.0:3"
    assert exposed(here, Settings()) is None
    said = exposed((*here, everywhere, "http://[::]:4"), Settings())
    assert said == "listening on 0.0.0.0, ::: other machines can connect, without a token (--token-env NAME asks for one)"
    assert exposed((everywhere,), Settings(token_env="T")) == "listening on 0.0.0.0: other machines can connect"
