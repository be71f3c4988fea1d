"""`anthropic:MODEL`: the Messages API, Anthropic's own and others'. Streaming: test_stream.py."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.models import anthropic
from rollforge.models.base import ModelOptions, Request
from rollforge.records.items import final_text, user
from tests.models.server import Reply, closing, serve

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "4"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
ASK = Request({"input": [user("2+2?")], "temperature": 0.5})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def load(url: str, **options: Any) -> Any:
    return closing(anthropic.load("m", ModelOptions(base_urls=(url,), retries=0, **options)))


async def test_what_is_sent_and_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    async with serve(ANSWER) as server, load(server.url, extra_body={"service_tier": "auto"}) as model:
        response = await model(ASK)
    assert final_text(response) == "4"
    assert response["usage"]["total_tokens"] == 4
    seen = server.seen[0]
    assert (seen.path, seen.headers["x-api-key"]) == ("/v1/messages", "sk-ant-secret")
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert seen.body == {
        "model": "m",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}],
        "temperature": 0.5,
        "stream": False,
        "service_tier": "auto",
    }


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
async def test_the_address_is_with_or_without_its_version(end: str) -> None:
    async with serve(ANSWER) as server, load(server.root + end) as model:
        await model(ASK)
    assert server.seen[0].path == "/v1/messages"
    assert "x-api-key" not in server.seen[0].headers  # a server of one's own needs no key


def test_anthropics_own_server_needs_a_key() -> None:
    with pytest.raises(UserError, match=r"anthropic at https://api\.anthropic\.com needs a key: export ANTHROPIC_API_KEY"):
        anthropic.load("m", ModelOptions())
    with pytest.raises(UserError, match="MY_KEY is not set"):
        anthropic.load("m", ModelOptions(api_key_env="MY_KEY"))


async def test_a_model_must_be_named_somewhere() -> None:
    async with serve(ANSWER) as server, closing(anthropic.load(None, ModelOptions(base_urls=(server.url,)))) as model:
        await model(Request({"input": [user("hi")], "model": "named"}))  # type: ignore[typeddict-unknown-key]
        with pytest.raises(SetupError, match="no model is named: --model anthropic:NAME"):
            await model(ASK)
    assert server.seen[0].body["model"] == "named"


def said(kind: str, message: str, status: int) -> Reply:
    return Reply({"type": "error", "error": {"type": kind, "message": message}}, status)


async def test_failures_are_of_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    wrong: list[tuple[Reply, type[Exception], str]] = [
        (said("authentication_error", "invalid x-api-key sk-ant-secret", 401), SetupError, r"\*\*\*.*ANTHROPIC_API_KEY"),
        (said("not_found_error", "model: m", 404), SetupError, "model: m; the models it has: curl"),
        (said("overloaded_error", "Overloaded", 529), InfraFault, "529: Overloaded"),
        (said("invalid_request_error", "messages: at least one", 400), InfraFault, "at least one"),
        (Reply({"content": [{"type": "tool_use"}]}), InfraFault, "no usable message"),
        (Reply({"hello": "world"}), InfraFault, "no message of the Messages API"),
    ]
    for reply, error, match in wrong:
        async with serve(reply) as server, load(server.url) as model:
            with pytest.raises(error, match=match) as raised:
                await model(ASK)
        assert "sk-ant-secret" not in str(raised.value)


async def test_a_conversation_too_long_is_an_empty_answer() -> None:
    long = "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000"
    for message in ("prompt is too long: 210000 tokens > 200000 maximum", long):
        async with serve(said("invalid_request_error", message, 400)) as server, load(server.url) as model:
            response = await model(ASK)
        assert response["incomplete_details"] == {"reason": "max_context"}


async def test_tokens_are_counted_by_the_server() -> None:
    async with serve({"input_tokens": 12}, {"what": 1}) as server, load(server.url) as model:
        assert await model.count(ASK.params) == 12
        with pytest.raises(InfraFault, match="no count"):
            await model.count(ASK.params)
    assert server.seen[0].path == "/v1/messages/count_tokens"
    assert server.seen[0].body.keys() == {"messages", "model"}
