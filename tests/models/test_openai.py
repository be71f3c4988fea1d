"""`openai:MODEL`: the Responses API, OpenAI's own and others'."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.models import openai
from rollforge.models.base import ModelOptions, Request
from rollforge.records.items import assistant, final_text, function_call, user
from tests.models.server import Reply, closing, serve

ANSWER = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1.0,
    "model": "m",
    "status": "completed",
    "error": None,
    "output": [assistant("4")],
    "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
}
PUBLIC = "https://api.openai.com/v1"


def load(url: str, **options: Any) -> Any:
    return closing(openai.load("m", ModelOptions(base_urls=(url,), **options)))


@pytest.fixture
async def proxied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """OpenAI's own address, in plain HTTP and by a proxy that answers in its place."""
    async with serve(ANSWER) as server:
        monkeypatch.setenv("http_proxy", server.root)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890")
        yield server


async def test_the_answer_is_the_servers_own() -> None:
    async with serve(ANSWER) as server, load(server.url, extra_body={"seed": 3}) as model:
        response = await model(Request({"input": [user("2+2?")], "temperature": None, "stream": True, "top_k": 2}))
    assert response == ANSWER
    assert server.seen[0].path == "/v1/responses"
    assert server.seen[0].body == {"input": [user("2+2?")], "model": "m", "seed": 3, "stream": False, "top_k": 2}


async def test_a_task_in_chat_form_is_sent_in_items() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "put", "arguments": "{}"}}
    asked = [user("u"), {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1"}]
    async with serve(ANSWER) as server, load(server.url) as model:
        await model(Request({"input": asked, "tools": [{"type": "function", "function": {"name": "put"}}]}))
    body = server.seen[0].body
    assert [item["type"] for item in body["input"]] == ["message", "function_call", "function_call_output"]
    assert body["tools"] == [{"type": "function", "name": "put"}]


async def test_other_servers_get_the_token_fields_back() -> None:
    item = assistant("a") | {"prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [-1.0]}
    async with serve(ANSWER) as server, load(server.url) as model:
        await model(Request({"input": [item]}))
    assert server.seen[0].body["input"] == [item]


async def test_openai_gets_only_what_it_knows(proxied: Any, caplog: pytest.LogCaptureFixture) -> None:
    items = [
        assistant("a", "msg_1") | {"prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [-1.0]},
        function_call("f", "{}", "call_1"),
        function_call("f", "{}", "call_2", id="fc_2"),
    ]
    async with load(PUBLIC.replace("https", "http")) as model:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                await model(Request({"input": items, "seed": 1, "top_p": 0.5}))  # type: ignore[typeddict-unknown-key]
    body = proxied.seen[0].body
    assert (body["top_p"], "seed" in body) == (0.5, False)
    assert body["input"][0] == assistant("a", "msg_1")
    assert "id" not in body["input"][1]
    assert body["input"][2]["id"] == "fc_2"
    assert [record.getMessage() for record in caplog.records if "seed" in record.getMessage()] == [
        "the Responses API of OpenAI has no parameter seed: it is left out (chat:m has it)"
    ]


WRONG = [
    ([], "list"),
    ({}, "output is NoneType"),
    ({"output": ["x"]}, r"output\[0\] is str"),
    ({"output": [], "error": {"message": "server error"}}, "server error"),
    ({"output": [], "status": "failed"}, "failed"),
    ({"output": [], "status": "in_progress"}, "in_progress"),
]


@pytest.mark.parametrize(("answer", "says"), WRONG)
async def test_an_answer_of_another_shape_is_a_fault(answer: Any, says: str) -> None:
    async with serve(answer) as server, load(server.url) as model:
        with pytest.raises(InfraFault, match=f"/v1/responses.*{says}"):
            await model(Request({"input": [user("hi")]}))


async def test_an_outgrown_context_is_an_outcome() -> None:
    answer = Reply({"error": {"message": "Your input exceeds the context window", "code": "context_length_exceeded"}}, 400)
    async with serve(answer) as server, load(server.url) as model:
        response = await model(Request({"input": [user("hi")]}))
    assert response["incomplete_details"] == {"reason": "max_context"}
    assert final_text(response) == ""


def test_openais_own_server_is_the_default_and_wants_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match=r"https://api.openai.com/v1 needs a key: export OPENAI_API_KEY"):
        openai.load("m", ModelOptions())


async def test_a_model_must_be_named() -> None:
    async with serve(ANSWER) as server, closing(openai.load(None, ModelOptions(base_urls=(server.url,)))) as model:
        with pytest.raises(SetupError, match="openai:NAME"):
            await model(Request({"input": [user("hi")]}))
