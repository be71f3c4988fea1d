"""Answers as they are being made: server-sent events in, deltas and the whole response out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rollforge.errors import DeadlineExceeded, InfraFault, SetupError
from rollforge.models import anthropic, chat, openai, scripted, tiny, vllm
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.chunks import Chunks
from rollforge.models.sse import event_data
from rollforge.models.stream import Delta, stream
from rollforge.records.chat import response_from_completion
from rollforge.records.items import Response, final_text, reasoning_text, tool_calls, user
from tests.models.server import Reply, closing, completion, raw_server, serve

ASK = Request({"input": [user("2+2?")]})


def sse(*events: Any, done: bool = True) -> Reply:
    data = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    return Reply(data + (b"data: [DONE]\n\n" if done else b""), headers={"Content-Type": "text/event-stream"})


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> Any:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | more


def chunked(content: list[Any], finish: str = "stop") -> list[Any]:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    return [chunk({"role": "assistant", "content": ""}), *map(chunk, content), chunk({}, finish), usage]


async def read(model: Model, request: Request = ASK) -> tuple[list[Delta], Response]:
    async with aclosing(stream(model, request)) as events:
        found = [event async for event in events]
    *deltas, last = found
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert isinstance(last, dict)
    return deltas, last  # type: ignore[return-value]


def said(deltas: list[Delta], kind: str) -> str:
    return "".join(delta.text for delta in deltas if delta.kind == kind)


@asynccontextmanager
async def streaming(load: Callable[..., Any], *answers: Any, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    async with serve(*answers) as server, closing(load("m", ModelOptions(base_urls=(server.url,), **options))) as model:
        yield model, server


# The format


@given(st.data())
async def test_events_do_not_depend_on_how_they_are_cut(data: Any) -> None:
    texts = data.draw(st.lists(st.text(alphabet="abü: {}").map(lambda text: f"x{text}"), max_size=5))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    whole = "".join(f": comment{end}event: e{end}data: {text}{end}{end}" for text in texts).encode()
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert [event.decode() async for event in event_data(chunks())] == texts


async def test_what_follows_done_is_not_read_and_a_last_line_may_lack_its_end() -> None:
    async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert [event async for event in event_data(chunks(b"data: a\n\ndata: [DONE]\n\ndata: b\n\n"))] == [b"a"]
    assert [event async for event in event_data(chunks(b"data: a\ndata: b\n\ndata: c"))] == [b"a\nb", b"c"]


# Chat


async def test_chat_streams_text_and_ends_with_what_it_would_have_answered_at_once() -> None:
    answer = chunked([{"content": "fo"}, {"content": "ur"}])
    async with streaming(chat.load, sse(*answer), completion("four")) as (model, server):
        deltas, response = await read(model)
        plain = await model(ASK)
    assert [(d.kind, d.text, d.index) for d in deltas] == [("text", "fo", 0), ("text", "ur", 0)]
    assert final_text(response) == final_text(plain) == "four"
    assert response["usage"]["total_tokens"] == 5
    assert response["status"] == "completed"
    body = server.seen[0].body
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


async def test_chat_streams_reasoning_and_calls_in_the_order_of_the_output() -> None:
    calls = [
        {"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "sub", "arguments": "{}"}}]},
    ]
    answer = chunked([{"reasoning_content": "hm"}, {"content": "so"}, *calls], "tool_calls")
    async with streaming(chat.load, sse(*answer)) as (model, _):
        deltas, response = await read(model)
    assert [(d.kind, d.index) for d in deltas] == [
        ("reasoning", 0), ("text", 1), ("call", 2), ("arguments", 2), ("arguments", 2), ("call", 3), ("arguments", 3)
    ]  # fmt: skip
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert [(c["call_id"], c["name"], c["arguments"]) for c in tool_calls(response)] == [
        ("c0", "add", '{"a": 1}'),
        ("c1", "sub", "{}"),
    ]


async def test_calls_without_numbers_or_all_with_the_same_are_kept_apart() -> None:
    for index in ({}, {"index": 0}):
        made = [{"tool_calls": [{**index, "id": f"c{n}", "function": {"name": "f", "arguments": f"{n}"}}]} for n in (0, 1)]
        async with streaming(chat.load, sse(*chunked(made, "tool_calls"))) as (model, _):
            _, response = await read(model)
        assert [(c["call_id"], c["arguments"]) for c in tool_calls(response)] == [("c0", "0"), ("c1", "1")]


@given(
    st.sampled_from(
        ["<think>a < b</think>c", " <think>\nab</think>\n\ncd", "<think>cut of", "<thin ice", "a</think>b", " "]
    ),
    st.data(),
)
def test_think_tags_are_found_however_they_are_cut(text: str, data: Any) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    chunks = Chunks("test")
    deltas = [delta for piece in chunked([{"content": piece} for piece in pieces]) for delta in chunks.add(piece)]
    response = response_from_completion(chunks.completion)
    # An answer whose opening tag stood in the prompt is recognised by the closing one only: too late for a delta.
    if not text.startswith("a<"):
        assert final_text(response).startswith(said(deltas, "text")) or text == "a</think>b"
    if "<think>" in text:
        assert reasoning_text(response).startswith(said(deltas, "reasoning"))
        assert said(deltas, "text") == final_text(response)
    kinds = [delta.kind for delta in deltas]
    assert kinds == sorted(kinds)  # reasoning before text


async def test_vllm_keeps_the_token_ids_of_a_stream() -> None:
    first, *middle, last, usage = chunked([{"content": "a"}, {"content": "b"}])
    first |= {"prompt_token_ids": [1, 2, 3]}
    for number, piece in enumerate(middle):
        piece["choices"][0] |= {"token_ids": [number], "logprobs": {"content": [{"token": "t", "logprob": -0.5}]}}
    async with streaming(vllm.load, sse(first, *middle, last, usage)) as (model, server):
        _, response = await read(model)
    item = response["output"][-1]
    assert item["prompt_token_ids"] == [1, 2, 3]
    assert item["generation_token_ids"] == [0, 1]
    assert item["generation_log_probs"] == [-0.5, -0.5]
    assert server.seen[0].body["return_token_ids"] is True


# Responses


async def test_openai_streams_deltas_and_whole_items() -> None:
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    message |= {"content": [{"type": "output_text", "text": "hi", "annotations": []}]}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
    whole = {"id": "resp_1", "object": "response", "created_at": 1.0, "model": "m", "status": "completed", "usage": None}
    events = [
        {"type": "response.created", "response": whole | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": message | {"content": []}},
        {"type": "response.output_text.delta", "output_index": 0, "item_id": "msg_1", "content_index": 0, "delta": "hi"},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.output_item.added", "output_index": 1, "item": call | {"arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "item_id": "fc_1", "delta": "{}"},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.completed", "response": whole | {"output": [message, call]}},
    ]
    async with streaming(openai.load, sse(*events, done=False)) as (model, server):
        deltas, response = await read(model)
    assert [(d.kind, d.index, d.text) for d in deltas] == [
        ("text", 0, "hi"), ("item", 0, ""), ("call", 1, ""), ("arguments", 1, "{}"), ("item", 1, "")
    ]  # fmt: skip
    assert response["output"] == [message, call]
    assert server.seen[0].body["stream"] is True


# Messages


def spoken(*blocks: tuple[Any, list[Any]], stop: str = "end_turn") -> list[Any]:
    usage = {"input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 1}
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    events: list[Any] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, (block, pieces) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 9}})
    return [*events, {"type": "message_stop"}]


async def test_anthropic_streams_thinking_text_and_calls() -> None:
    thinking = [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "sealed"}]
    arguments = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"a"', ": 1}")]
    events = spoken(
        ({"type": "thinking", "thinking": "", "signature": ""}, thinking),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "so"}]),
        ({"type": "tool_use", "id": "t", "name": "f", "input": {}}, arguments),
        stop="tool_use",
    )
    async with streaming(anthropic.load, sse(*events, done=False)) as (model, server):
        deltas, response = await read(model)
    assert (said(deltas, "reasoning"), said(deltas, "text"), said(deltas, "arguments")) == ("hm", "so", '{"a": 1}')
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call"]
    assert response["output"][0]["encrypted_content"] == "sealed"
    assert tool_calls(response)[0]["arguments"] == '{"a": 1}'  # to the character
    assert response["usage"]["input_tokens"] == 10
    assert response["usage"]["output_tokens"] == 9
    assert server.seen[0].path == "/v1/messages"


# Failures, the same for all


BEGUN: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "chat": (chat.load, chunked([{"content": "a"}, {"content": "b"}])[:2]),
    "openai": (
        openai.load,
        [{"type": "response.output_text.delta", "output_index": 0, "item_id": "m", "delta": "a"}],
    ),
    "anthropic": (anthropic.load, spoken(({"type": "text", "text": ""}, [{"type": "text_delta", "text": "a"}]))[:4]),
}
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "the engine died"}}


@pytest.mark.parametrize("name", BEGUN)
async def test_an_error_in_the_middle_is_an_infra_fault_and_not_tried_again(name: str) -> None:
    load, events = BEGUN[name]
    async with streaming(load, sse(*events, ERROR)) as (model, server):
        with pytest.raises(InfraFault, match="the engine died"):
            await read(model)
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", BEGUN)
async def test_a_connection_that_breaks_in_the_middle_is_an_infra_fault(name: str) -> None:
    load, events = BEGUN[name]
    data: bytes = sse(*events, done=False).body
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        raw_server(head + b"%x\r\n%s\r\n" % (len(data), data)) as url,
        closing(load("m", ModelOptions(base_urls=(url,)))) as model,
    ):
        with pytest.raises(InfraFault, match=r"cut its answer off .* in the middle of a stream"):
            await read(model)


@pytest.mark.parametrize("name", BEGUN)
async def test_a_key_that_a_server_repeats_is_starred_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load, events = BEGUN[name]
    monkeypatch.setenv("MY_KEY", "sk-1234567890")
    error = {"type": "error", "error": {"message": "bad key sk-1234567890"}}
    async with streaming(load, sse(*events, error), api_key_env="MY_KEY") as (model, _):
        with pytest.raises(InfraFault, match=r"bad key \*\*\*"):
            await read(model)


@pytest.mark.parametrize("name", BEGUN)
@pytest.mark.parametrize("done", [True, False])
async def test_a_stream_that_ends_too_early_is_no_answer(name: str, done: bool) -> None:
    load, events = BEGUN[name]
    async with streaming(load, sse(*events, done=done)) as (model, server):
        with pytest.raises(InfraFault, match=r"ended its stream .*check: curl"):
            await read(model)
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", BEGUN)
@pytest.mark.parametrize(
    "odd", [b"data: <html>\n\n", b"data: [1]\n\n", b'data: {"choices": [5], "type": 3}\n\n', b'data: "x"\n\n']
)
async def test_what_is_no_event_is_an_infra_fault(name: str, odd: bytes) -> None:
    load, events = BEGUN[name]
    answer = sse(*events, done=False)
    async with streaming(load, Reply(answer.body + odd, headers=answer.headers)) as (model, _):
        with pytest.raises(InfraFault, match=r"127\.0\.0\.1"):
            await read(model)


@pytest.mark.parametrize("name", BEGUN)
async def test_before_the_first_event_it_is_tried_again(name: str) -> None:
    load, events = BEGUN[name]
    empty = sse(done=False)
    async with streaming(load, Reply(b"", 503), empty, sse(*events)) as (model, server):
        with pytest.raises(InfraFault, match="ended its stream"):
            await read(model)
    assert len(server.seen) == 3


@pytest.mark.parametrize("name", BEGUN)
async def test_a_refusal_is_what_it_is_without_streaming(name: str) -> None:
    load, _ = BEGUN[name]
    long = Reply({"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, 400)
    async with streaming(load, Reply({"error": {"message": "no"}}, 401), long) as (model, _):
        with pytest.raises(SetupError):
            await read(model)
        _, response = await read(model)
    assert response["incomplete_details"] == {"reason": "max_context"}


async def test_a_server_that_does_not_stream_gives_its_answer_at_once() -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "4"}], "stop_reason": "end_turn"}
    whole = {"output": [{"type": "message", "role": "assistant", "content": "4"}], "status": "completed"}
    for load, answer in ((chat.load, completion("4")), (anthropic.load, message), (openai.load, whole)):
        async with streaming(load, answer) as (model, _):
            _, response = await read(model)
        assert final_text(response) == "4"


@asynccontextmanager
async def stuck(first: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that sends something and then nothing, and knows when its client has gone."""
    gone = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(first)
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1", gone
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("begun", [True, False])
async def test_the_deadline_covers_the_whole_stream(begun: bool) -> None:
    first = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in chunked([{"content": "a"}])[:2])
    async with (
        stuck(first if begun else b": wait\n\n") as (url, gone),
        closing(chat.load("m", ModelOptions(base_urls=(url,), call_seconds=0.2))) as model,
    ):
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s \(call_seconds\)"):
            await read(model)
        await gone.wait()


async def test_giving_up_in_the_middle_ends_the_request() -> None:
    first = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in chunked([{"content": "a"}])[:2])
    async with stuck(first) as (url, gone), closing(chat.load("m", ModelOptions(base_urls=(url,)))) as model:
        async with aclosing(stream(model, ASK)) as events:
            assert (await anext(events)).text == "a"
        await gone.wait()


# Models that do not stream


@pytest.mark.parametrize("load", [scripted.load, tiny.load])
async def test_others_are_replayed(load: Any) -> None:
    model = load("echo" if load is scripted.load else None, ModelOptions())
    request = Request({"input": [user("2+2?")], "max_output_tokens": 8}, seed=1)
    try:
        deltas, response = await read(model, request)
    finally:
        if load is tiny.load:
            await model.aclose()
    assert said(deltas, "text") == final_text(response)
    assert [delta.item for delta in deltas if delta.kind == "item"] == response["output"]
