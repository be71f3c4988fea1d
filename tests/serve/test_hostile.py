"""Requests that nobody sane sends, to an agent with its gateway and to a head: no bug, no secret, one shape of errors."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollforge.serve.agent_app import agent_app
from rollforge.serve.head import Instance, head_app
from rollforge.serve.settings import Settings
from tests.serve.agents import COUNT, runner
from tests.serve.live import in_thread
from tests.serve.test_env_app import DECLARED

TOKEN = "correct-horse-battery"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)
    limits = Settings(token_env="TEST_TOKEN", max_body_mb=0.1, max_sessions=50)
    with in_thread(agent_app(runner(), "counter_agent", limits)) as url:
        yield url


def sent(url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, head and body of the answer; written by hand where clients would refuse to send it."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        got = connection.getresponse()
        return got.status, str(got.headers), got.read().decode("utf-8", "replace")
    finally:
        connection.close()


AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def sound(status: int, head: str, text: str) -> None:
    assert status != 500, text
    assert TOKEN not in head + text
    if status >= 400:
        error = json.loads(text)
        assert error["type"] == "error"
        assert error["error"]["type"]
        assert error["error"]["message"]
        assert "Traceback" not in text


def test_schemathesis_finds_no_bug_in_an_agent(agent: str) -> None:
    schema = schemathesis.openapi.from_url(f"{agent}/openapi.json", headers=AUTHORIZED)
    status, _, text = sent(agent, "POST", "/rollouts", json.dumps(COUNT).encode(), AUTHORIZED)
    assert status == 200, text
    live = json.loads(text)["id"]
    paths = set()

    @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def hold(data: Any) -> None:
        for operation in schema.get_all_operations():
            case = data.draw(operation.ok().as_strategy())
            if "id" in (case.path_parameters or {}) and data.draw(st.booleans()):
                case.path_parameters["id"] = live
            paths.add(operation.ok().path)
            got = case.call(headers=AUTHORIZED)
            sound(got.status_code, str(got.headers), got.text)
            case.validate_response(got, checks=DECLARED)

    hold()
    assert {"/run", "/v1/responses", "/rollouts", "/rollouts/{id}/v1/messages", "/rollouts/{id}/tools/{name}"} <= paths
    paths_of = {path: route for path, route in schema.raw_schema["paths"].items() if "{" in path}
    assert all(method["parameters"] for route in paths_of.values() for method in route.values())
    live = json.loads(sent(agent, "POST", "/rollouts", json.dumps(COUNT).encode(), AUTHORIZED)[2])["id"]  # that one is over
    for body in ({"input": None}, {"input": [None]}):
        for path in ("/v1/responses", "/run", f"/rollouts/{live}/v1/responses"):
            row = {"responses_create_params": body} if path == "/run" else body
            status, _, _ = sent(agent, "POST", path, json.dumps(row).encode(), AUTHORIZED)
            declared = schema.raw_schema["paths"][path.replace(live, "{id}")]["post"]["requestBody"]["content"]
            valid = jsonschema_rs.is_valid(declared["application/json"]["schema"], row)
            assert (status, valid) == (400, False)


def test_a_wrong_method_is_told_all_that_its_path_has(agent: str) -> None:
    status, head, _ = sent(agent, "PUT", "/rollouts/x", b"", AUTHORIZED)
    assert status == 405
    assert "allow: delete, get" in head.lower()


def test_schemathesis_finds_no_bug_in_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)
    dead = Instance("calc", "environment", "arithmetic", "http://127.0.0.1:9")
    app = head_app([dead], {"head_server": {"port": 1}}, Settings(token_env="TEST_TOKEN"), "http://127.0.0.1:1")
    with in_thread(app) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=AUTHORIZED)
        for operation in schema.get_all_operations():
            case = operation.ok().Case()
            got = case.call(headers=AUTHORIZED)
            sound(got.status_code, str(got.headers), got.text)
            assert got.status_code < 500 or got.status_code == 503


PATHS = [
    *(
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/rollouts/..%2f..%2frun",
        "//run",
        "/run/",
        "/RUN",
        "/run%00",
        "/run?x=%0d%0a",
    ),
    *(
        "/rollouts/" + "a" * 5000,
        "/rollouts/x/tools/verify",
        "/rollouts/x/tools/..%2fverify",
        "/rollouts/%0d%0aSet-Cookie:a/finish",
    ),
    *("/docs/../run", "/openapi.json/x", "/metrics/..", "*", "/\\run", "/run;a=b", "/v1//responses"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE", "BREW"])
def test_paths_lead_nowhere(agent: str, method: str, path: str) -> None:
    status, head, text = sent(agent, method, path, b"{}", AUTHORIZED)
    if "Invalid HTTP request" in text:  # the parser's own word, before anything of ours
        assert status == 400
        return
    sound(status, head, text)
    assert "Set-Cookie" not in head


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"responses_create_params": {"input": ' + b"[" * 400 + b"]" * 400 + b"}}",
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"responses_create_params": {"input": "x"}, "initial_count": 1e999}',
        b'{"responses_create_params": {"input": "x"}, "initial_count": ' + b"9" * 5000 + b"}",
        b'{"responses_create_params": {"input": "\\ud800"}}',
        b'{"responses_create_params": {"input": [{"role": "user", "content": [{"type": 7}]}]}}',
        b'{"responses_create_params": {"input": "x", "tools": [7, null, {"type": "function"}]}}',
        b'{"responses_create_params": {"input": "x", "model": {"a": 1}, "temperature": "hot", "stream": true}}',
        b'{"responses_create_params": {"input": "x"}, "_ng_task_index": -1e30, "_ng_rollout_index": "0", "rollforge": 5}',
        b'{"responses_create_params": {"input": "x"}, "reward": "1", "response": 3, "agent_ref": []}',
        b"\xff\xfe\x00",
        b'{"responses_create_params": {"input": "' + b"x" * 200_000 + b'"}}',
    ],
)
@pytest.mark.parametrize("path", ["/run", "/rollouts", "/v1/responses", "/aggregate_metrics"])
def test_bodies_are_refused_or_judged(agent: str, path: str, body: bytes) -> None:
    sound(*sent(agent, "POST", path, body, AUTHORIZED))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + TOKEN[:-1]},
        {"Authorization": "Basic " + TOKEN},
        {"Authorization": "Bearer " + TOKEN + "\u00e9"},
        {"X-Api-Key": "x" * 10_000},
        {"Cookie": "rollforge_session=0.a.b; token=" + TOKEN},
    ],
)
def test_without_the_token_there_is_nothing(agent: str, headers: dict[str, str]) -> None:
    for path in ("/run", "/rollouts", "/status", "/metrics", "/openapi.json", "/docs"):
        status, _, text = sent(agent, "POST" if path in ("/run", "/rollouts") else "GET", path, b"{}", headers)
        assert status == 401
        assert TOKEN not in text


@pytest.mark.parametrize("given", ["a" * 200, "a b", "a\tb", "\u00e9", "x; Set-Cookie: a=b"])
def test_a_request_id_that_is_none_is_replaced(agent: str, given: str) -> None:
    status, head, _ = sent(agent, "GET", "/health", headers={"X-Request-Id": given})
    assert status == 200
    assert given not in head
    assert "req_" in head


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999"])
def test_lengths_that_are_none(agent: str, length: str) -> None:
    status, _, _ = sent(agent, "POST", "/run", b"", {**AUTHORIZED, "Content-Length": length})
    assert status in (400, 413)
