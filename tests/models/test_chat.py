"""`chat:MODEL` against a server: what it sends, what it makes of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.models import chat
from rollforge.models.base import ModelOptions, Request
from rollforge.models.transport import BadRequest
from rollforge.records.items import Params, final_text, function_call_output, reasoning_text, tool_calls, user
from tests.models.server import Reply, Server, closing, completion, serve

TOOLS = [{"type": "function", "name": "add", "description": "Add.", "parameters": {"type": "object"}}]


def load(server: Server, name: str | None = "m", **options: Any) -> Any:
    return closing(chat.load(name, ModelOptions(base_urls=(server.url,), **options)))


def ask(*items: Any, **params: Any) -> Request:
    given: Params = {"input": list(items) or [user("hi")], **params}  # type: ignore[typeddict-item]
    return Request(given)


async def test_the_request_and_the_answer() -> None:
    async with serve(completion("4")) as server, load(server) as model:
        response = await model(ask(user("2+2?"), instructions="be brief", temperature=0.5, max_output_tokens=9, seed=1))
    assert server.seen[0].path == "/v1/chat/completions"
    assert server.seen[0].body == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+2?"}],
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 1,
        "stream": False,
    }
    assert final_text(response) == "4"
    assert response["usage"]["total_tokens"] == 18


async def test_a_conversation_with_tools() -> None:
    answers = completion(None, [("add", '{"a": 1}'), ("add", '{"a": 2}')]), completion("3")
    async with serve(*answers) as server, load(server) as model:
        items = [user("add")]
        first = await model(ask(*items, tools=TOOLS))
        items += first["output"] + [function_call_output(call["call_id"], "ok") for call in tool_calls(first)]
        await model(ask(*items, tools=TOOLS))
    sent = server.seen[1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == [message["tool_call_id"] for message in sent[2:]]
    assert server.seen[1].body["tools"][0]["function"]["name"] == "add"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_goes_back_in_the_field_it_came_in(field: str) -> None:
    async with serve(completion("a", **{field: "why"})) as server, load(server) as model:
        first = await model(ask(user("u")))
        assert reasoning_text(first) == "why"
        await model(ask(user("u"), *first["output"], user("v")))
    assert server.seen[1].body["messages"][1] == {"role": "assistant", "content": "a", field: "why"}


async def test_reasoning_in_tags_goes_back_in_tags() -> None:
    async with serve(completion("<think>why</think>a")) as server, load(server) as model:
        first = await model(ask(user("u")))
        assert (reasoning_text(first), final_text(first)) == ("why", "a")
        await model(ask(user("u"), *first["output"], user("v")))
    assert server.seen[1].body["messages"][1]["content"] == "<think>why</think>a"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("think", {"content": "<think>why</think>a"}),
        ("reasoning", {"content": "a", "reasoning": "why"}),
        ("none", {"content": "a"}),
    ],
)
async def test_how_reasoning_goes_back_can_be_said(how: str, expected: Any) -> None:
    async with (
        serve(completion("a", reasoning_content="why")) as server,
        load(server, extra_body={"send_reasoning": how}) as model,
    ):
        first = await model(ask(user("u")))
        await model(ask(user("u"), *first["output"], user("v")))
    assert server.seen[1].body["messages"][1] == {"role": "assistant", **expected}
    assert "send_reasoning" not in server.seen[1].body


def test_how_reasoning_goes_back_is_checked() -> None:
    with pytest.raises(UserError, match=r"send_reasoning is 'x'; known: think, "):
        chat.load("m", ModelOptions(base_urls=("http://h/v1",), extra_body={"send_reasoning": "x"}))


async def test_developer_messages_for_templates_that_know_no_developer() -> None:
    items = [{"role": "developer", "content": "d"}, user("u")]
    async with serve(completion()) as server:
        for extra in ({}, {"developer_role": "system"}):
            async with load(server, extra_body=extra) as model:
                await model(ask(*items))
    assert [seen.body["messages"][0]["role"] for seen in server.seen] == ["developer", "system"]
    assert "developer_role" not in server.seen[1].body


async def test_extra_body_is_merged_last_and_metadata_stays_here() -> None:
    metadata = {"expected": "42", "extra_body": '{"top_k": 5, "seed": 1}'}
    async with serve(completion()) as server, load(server, extra_body={"seed": 2}) as model:
        await model(ask(metadata=metadata))
    body = server.seen[0].body
    assert (body["top_k"], body["seed"]) == (5, 2)
    assert "metadata" not in body


async def test_the_task_may_name_the_model() -> None:
    async with serve(completion()) as server, load(server, None) as model:
        await model(ask(model="theirs"))
        assert server.seen[0].body["model"] == "theirs"
        with pytest.raises(SetupError, match=r"--model chat:NAME.*curl"):
            await model(ask())


CONTEXT = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in "
    "the completion). Please reduce the length of the messages or completion.",
    "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context length is 4096 tokens and "
    "your request has 4000 input tokens (1000 > 4096 - 4000).",
    "Input length (33432) exceeds model's maximum context length (32768).",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "Requested token count exceeds the model's maximum context length of 4096 tokens.",
    "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 and 1000",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "prompt is too long: 200000 tokens > 199999 maximum",
]


@pytest.mark.parametrize("text", CONTEXT)
async def test_an_outgrown_context_is_an_outcome(text: str) -> None:
    async with serve(Reply({"error": {"message": text, "code": 400}}, 400)) as server, load(server) as model:
        response = await model(ask(max_output_tokens=1000))
    assert (response["status"], response["output"]) == ("incomplete", [])
    assert response["incomplete_details"] == {"reason": "max_context"}


async def test_the_code_for_an_outgrown_context_is_enough() -> None:
    answer = Reply({"error": {"message": "zu lang", "code": "context_length_exceeded"}}, 400)
    async with serve(answer) as server, load(server) as model:
        assert (await model(ask()))["incomplete_details"] == {"reason": "max_context"}


@pytest.mark.parametrize(
    "text",
    [
        "temperature must be <= 2",
        "context is not a known field",
        "too many tools: 200 exceed 128",
        "max_tokens is too large",
    ],
)
async def test_other_refusals_are_faults(text: str) -> None:
    async with serve(Reply({"error": {"message": text}}, 400)) as server, load(server) as model:
        with pytest.raises(BadRequest, match="400"):
            await model(ask())


async def test_asking_for_more_than_the_whole_context_is_no_fault_of_the_conversation() -> None:
    async with serve(Reply({"error": {"message": CONTEXT[1]}}, 400)) as server, load(server) as model:
        with pytest.raises(InfraFault, match=r"max_output_tokens is 4096.*context is 4096"):
            await model(ask(max_output_tokens=4096))


@pytest.mark.parametrize("finish", ["abort", "error", "ABORT"])
async def test_an_answer_that_the_server_broke_off_is_not_the_policys(finish: str) -> None:
    async with serve(completion("half a", finish=finish)) as server, load(server) as model:
        with pytest.raises(InfraFault, match=finish):
            await model(ask())


@pytest.mark.parametrize("answer", [{}, {"choices": []}, [], "hi", {"error": {"message": "overloaded"}}])
async def test_an_answer_of_another_shape_names_the_server(answer: Any) -> None:
    async with serve(answer) as server, load(server) as model:
        with pytest.raises(InfraFault, match=r"http://127.0.0.1:\d+/v1/chat/completions.*check: curl"):
            await model(ask())


def test_it_needs_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match=r"--base-url http://HOST:8000/v1.*OPENAI_BASE_URL"):
        chat.load("m", ModelOptions())


async def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(completion()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
        async with closing(chat.load("m", ModelOptions())) as model:
            await model(ask())
        assert server.seen[0].path == "/v1/chat/completions"


def test_openais_own_server_wants_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        chat.load("m", ModelOptions(base_urls=("https://api.openai.com/v1",)))


async def test_the_callers_items_are_left_as_they_are() -> None:
    items = [user("hi"), {"role": "user", "content": [{"type": "input_text", "text": "x"}]}]
    before = repr(items)
    async with serve(completion()) as server, load(server) as model:
        await model(ask(*items, tools=TOOLS))
    assert repr(items) == before
