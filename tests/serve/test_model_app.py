"""The model service: its dialects side by side, what it refuses, and callers that go away. SDKs: test_sdks.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollforge.errors import DeadlineExceeded, InfraFault, SetupError
from rollforge.models import anthropic, chat, openai, scripted, tiny
from rollforge.models.base import ModelOptions, Request
from rollforge.models.stream import Delta, Events, stream
from rollforge.models.transport import BadRequest
from rollforge.records.items import Response, assistant, function_call, function_call_output, user
from rollforge.serve.events import Encoder
from rollforge.serve.model_app import model_app
from rollforge.serve.settings import Settings
from rollforge.serve.stream_chat import ChatEvents
from rollforge.serve.stream_messages import MessagesEvents
from rollforge.serve.stream_responses import ResponsesEvents
from tests.serve.live import in_thread, serving
from tests.serve.talker import TOKENS, Streamer, Talker

PATHS = {
    "responses": ("/v1/responses", {"input": "hi"}),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    "messages": ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}),
}


@asynccontextmanager
async def served(model: Any, **options: Any) -> AsyncIterator[Any]:
    """A function that posts, and gives the status and the JSON (or the text of a stream)."""
    async with serving(model_app(model, "talker", Settings(**options))) as url, aiohttp.ClientSession(url) as client:

        async def post(path: str, body: Any, **headers: str) -> tuple[int, Any]:
            data = body if isinstance(body, bytes) else json.dumps(body)
            async with client.post(path, data=data, headers=headers) as answer:
                text = await answer.text()
                assert answer.headers["X-Request-Id"]
                return answer.status, json.loads(text) if answer.content_type == "application/json" else text

        post.client = client  # type: ignore[attr-defined]
        yield post


# Answers


async def test_parameters_reach_the_model_in_one_form() -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "top_k": 3, "min_p": 0.1}
    model = Talker()
    async with served(model) as post:
        bodies = {
            "responses": {"max_output_tokens": 9, "stop": ["END"], "store": True},
            "chat": {"max_tokens": 9, "stop": ["END"], "stream_options": {"include_usage": True}},
            "messages": {"max_tokens": 9, "stop_sequences": ["END"]},
        }
        for name, more in bodies.items():
            path, body = PATHS[name]
            assert (await post(path, {**body, **sampling, **more, "model": "m"}))[0] == 200
    for call in model.asked:
        assert {key: value for key, value in call.params.items() if key != "input"} == {
            **sampling,
            "max_output_tokens": 9,
            "stop": ["END"],
            "model": "m",
        }
    assert len({call.seed for call in model.asked}) == 3  # equal requests are different draws


async def test_token_ids_of_earlier_answers_reach_the_model() -> None:
    said = {"role": "assistant", "content": "four", **TOKENS}
    model = Talker()
    async with served(model) as post:
        await post("/v1/chat/completions", {"messages": [{"role": "user", "content": "2+2?"}, said]})
        await post("/v1/responses", {"input": [{"role": "user", "content": "2+2?"}, assistant("four") | TOKENS]})
    for call in model.asked:
        assert {key: call.params["input"][-1][key] for key in TOKENS} == TOKENS  # type: ignore[index]


async def test_images_and_files_pass() -> None:
    image = "data:image/png;base64,AAAA"
    model = Talker()
    async with served(model) as post:
        parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": image}}]
        await post("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})
        source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
        blocks = [{"type": "text", "text": "?"}, {"type": "image", "source": source}]
        await post("/v1/messages", {"messages": [{"role": "user", "content": blocks}]})
        items = [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": image}]
        await post("/v1/responses", {"input": [{"role": "user", "content": items}]})
    for call in model.asked:
        part = call.params["input"][0]["content"][1]  # type: ignore[index]
        assert (part["type"], part["image_url"]) == ("input_image", image)


async def test_an_agents_whole_episode_streams_as_responses() -> None:
    episode = [function_call("f", "{}", "c", "fc_1"), function_call_output("c", "4") | {"id": "fco_1"}, assistant("4")]

    async def agent(request: Any, /) -> Response:
        return {"id": "r", "status": "completed", "output": episode, "usage": None}

    async with served(agent) as post:
        _, plain = await post("/v1/responses", {"input": "hi"})
        _, text = await post("/v1/responses", {"input": "hi", "stream": True})
        status, refused = await post("/v1/chat/completions", {"messages": []})
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [item["type"] for item in plain["output"]] == ["function_call", "function_call_output", "message"]
    assert events[-1]["response"]["output"] == plain["output"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (status, "one model call" in refused["error"]["message"]) == (400, True)


async def test_tokenize_and_count_where_the_backend_can() -> None:
    chat = {"messages": [{"role": "user", "content": "2+2?"}]}
    model = tiny.load(None, ModelOptions())
    async with served(model) as post:
        status, prompt = await post("/tokenize", {"prompt": "hello"})
        _, ids = await post("/tokenize", chat)
        _, closed = await post("/tokenize", {**chat, "add_generation_prompt": False})
        _, counted = await post("/v1/messages/count_tokens", chat)
        _, answer = await post("/v1/responses", {"input": "2+2?", "max_output_tokens": 2})
        assert (await post("/tokenize", {"messages": [{"content": "x"}]}))[0] == 400
    assert (status, prompt["count"]) == (200, len(prompt["tokens"]))
    assert ids["tokens"] == answer["output"][-1]["prompt_token_ids"]
    assert counted == {"input_tokens": len(ids["tokens"])}
    assert 0 < closed["count"] < ids["count"]
    assert ids["tokens"][: closed["count"]] == closed["tokens"]
    async with served(scripted.load("echo", ModelOptions())) as post:
        for path in ("/tokenize", "/v1/messages/count_tokens"):
            status, problem = await post(path, chat)
            assert (status, problem["error"]["type"]) == (501, "not_supported_error")


async def test_the_service_closes_its_model() -> None:
    class Closing(Talker):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    model = Closing()
    async with served(model):
        assert not model.closed
    assert model.closed


# Refusals and failures

FAILURES = [
    (InfraFault("it broke"), 502, "infra_fault"),
    (DeadlineExceeded("too slow"), 504, "timeout"),
    (SetupError("wrong key"), 424, "setup_error"),
    (BadRequest("no such format", 422), 422, "invalid_request_error"),
    (BadRequest("too large", 413), 413, "invalid_request_error"),
]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_keep_their_names(name: str, stream: bool) -> None:
    path, body = PATHS[name]
    for error, status, kind in FAILURES:
        async with served(Talker(fail=error)) as post:
            answered, problem = await post(path, {**body, "stream": stream})
        assert (answered, problem["error"]["type"], problem["error"]["message"]) == (status, kind, str(error))


async def read(events: Events) -> list[Any]:
    async with aclosing(events):
        return [event async for event in events]


@pytest.mark.parametrize("load", [anthropic.load, chat.load, openai.load])
async def test_faults_in_a_stream_keep_their_names_over_hops(load: Any) -> None:
    for error in (DeadlineExceeded("too slow"), InfraFault("it broke"), SetupError("wrong key")):
        async with serving(model_app(Streamer(fail=error), "talker", Settings())) as url:
            model = load("m", ModelOptions(base_urls=(f"{url}/v1",)))
            with pytest.raises(type(error), match=str(error)):
                await read(stream(model, Request({"input": [user("hi")]})))
            await model.aclose()


@pytest.mark.parametrize("name", PATHS)
async def test_a_bug_is_a_500_and_its_text_stays_in_the_log(name: str, caplog: pytest.LogCaptureFixture) -> None:
    path, body = PATHS[name]
    async with served(Streamer(fail=RuntimeError("secret"))) as post:
        _, text = await post(path, {**body, "stream": True})
    assert "server_error" in text
    assert "secret" not in text
    assert "secret" in caplog.text


HOSTILE: list[tuple[str, Any, str]] = [
    ("responses", {"input": 5}, "input"),
    ("responses", {}, "input is missing"),
    ("responses", {"input": [5]}, r"input\[0\]"),
    ("responses", {"input": [{"type": 5}]}, "type"),
    ("responses", {"input": [{"role": 5, "content": "x"}]}, "role"),
    ("responses", {"input": [{"role": "user", "content": 5}]}, "content"),
    ("responses", {"input": [{"role": "user", "content": [5]}]}, "content"),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": {}}]}]}, "text"),
    ("responses", {"input": [{"type": "function_call", "name": "f", "arguments": []}]}, "arguments"),
    ("responses", {"input": [{"type": "function_call", "name": "f"}]}, "call_id"),
    ("responses", {"input": [{"role": "assistant", "content": "x", "prompt_token_ids": "abc"}]}, "prompt_token_ids"),
    ("responses", {"input": "x", "tools": [{"type": "function"}]}, "tools"),
    ("responses", {"input": "x", "tools": {"a": 1}}, "tools is"),
    ("responses", {"input": "x", "text": {"format": ["json"]}}, "text.format is"),
    ("responses", {"input": "x", "stream": "yes"}, "stream is 'yes'"),
    ("responses", {"input": "x", "temperature": True}, "temperature"),
    ("responses", {"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    ("responses", {"input": "x", "seed": 10**30}, "seed"),
    ("responses", {"input": "x", "background": True}, "background is not supported"),
    ("responses", {"input": "x", "include": [5]}, "include"),
    ("responses", {"input": "x", "text": "json"}, "text is"),
    ("chat", {"messages": "hi"}, "no messages"),
    ("chat", {"messages": [None]}, r"messages\[0\]"),
    ("chat", {"messages": [{"role": "assistant", "tool_calls": 5}]}, "not a list of calls"),
    ("chat", {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}]}, "name"),
    ("chat", {"messages": [{"role": "user", "content": "x"}], "tools": [5]}, "shape"),
    ("chat", {"messages": [{"role": "user", "content": "x"}], "functions": [{"name": "f"}]}, "functions"),
    ("messages", {"messages": [{"role": "user", "content": "x"}], "thinking": 5}, "shape"),
    ("messages", {"messages": [{"role": "user", "content": "x"}], "system": [5]}, ""),
]


@pytest.mark.parametrize(("name", "body", "says"), HOSTILE)
async def test_what_cannot_be_asked_is_a_400_that_says_what(name: str, body: Any, says: str) -> None:
    import re

    async with served(tiny.load(None, ModelOptions())) as post:
        status, problem = await post(PATHS[name][0], {"max_output_tokens": 1, "max_tokens": 1, **body})
    if says:
        assert (status, problem["type"], problem["error"]["type"]) == (400, "error", "invalid_request_error")
        assert re.search(says, problem["error"]["message"])
    assert status in (200, 400)


async def test_bodies_that_are_no_json_too_deep_or_too_large() -> None:
    async with served(Talker(), max_body_mb=0.1) as post:
        assert (await post("/v1/responses", b"{"))[0] == 400
        assert (await post("/v1/responses", b"[]"))[0] == 400
        assert (await post("/v1/responses", b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}"))[0] == 400
        assert (await post("/v1/responses", b'{"input": "' + b"x" * 200_000 + b'"}'))[0] == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "role",
                    "content",
                    "text",
                    "name",
                    "arguments",
                    "call_id",
                    "output",
                    "function",
                    "tool_calls",
                    "summary",
                ]
            )
            | st.text(max_size=2),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "text", "input_text", "tool_use"])
ITEM = st.dictionaries(
    st.sampled_from(["content", "name", "arguments", "call_id", "output", "summary", "id"]), JSON
).flatmap(
    lambda rest: st.builds(
        lambda kind, role: {"type": kind, "role": role, **rest}, KINDS, st.sampled_from(["user", "assistant"])
    )
)
FIELDS = ["tools", "tool_choice", "text", "reasoning", "metadata", "stop", "temperature", "stream", "include", "system"]
BODY = st.builds(
    lambda items, more: {"input": items, "messages": items, **more},
    st.lists(ITEM | JSON, max_size=3),
    st.dictionaries(
        st.sampled_from([*FIELDS, "logprobs", "stream_options", "output_config", "response_format"]), JSON, max_size=3
    ),
)


@pytest.fixture(scope="module")
def url() -> Any:
    with in_thread(model_app(tiny.load(None, ModelOptions()), "tiny", Settings())) as url:
        yield url


@pytest.fixture(scope="module", params=[anthropic.load, chat.load, openai.load])
def behind(request: Any, url: str) -> Any:
    """The same once more, with another backend in front of it."""
    model = request.param("tiny", ModelOptions(base_urls=(f"{url}/v1",), retries=0))
    with in_thread(model_app(model, "behind", Settings())) as found:
        yield found


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODY, path=st.sampled_from([path for path, _ in PATHS.values()]))
async def test_no_body_makes_a_500(url: str, behind: str, body: Any, path: str) -> None:
    for base in (url, behind):
        async with (
            aiohttp.ClientSession(base) as client,
            client.post(path, json={**body, "max_tokens": 1, "max_output_tokens": 1}) as answer,
        ):
            text = await answer.text()
        # What the tiny policy refuses is a failure of the upstream to the service in front of it.
        assert answer.status < 500 or (base == behind and "infra_fault" in text), text
    assert "server_error" not in text


async def test_the_description_is_true(url: str) -> None:
    """schemathesis over the OpenAPI: requests as described and not, no 500, answers as declared."""
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{url}/openapi.json")
    checked = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if "v1" not in operation.path and operation.path != "/tokenize":
            continue

        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            if isinstance(case.body, dict):
                case.body |= {"max_tokens": 1, "max_output_tokens": 1}
            answer = case.call(base_url=url)
            assert answer.status_code < 500, (case.body, answer.content)

        await asyncio.to_thread(check)
        checked.append(operation.path)
    assert len(checked) == 7


# Callers that go away


@pytest.mark.parametrize("kind", [Talker, Streamer])
@pytest.mark.parametrize("name", PATHS)
async def test_a_caller_that_goes_away_cancels_the_model(kind: Any, name: str) -> None:
    path, body = PATHS[name]
    model = kind(hang=True)
    async with served(model) as post:
        asking = asyncio.create_task(post(path, {**body, "stream": kind is Streamer}))
        await model.begun.wait()
        asking.cancel()
        await model.cancelled.wait()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(model.asked) == 1


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages/count_tokens"])
async def test_a_caller_that_goes_away_amid_its_body_is_no_fault_of_the_server(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Talker()) as post:
        base = post.client._base_url
        _, writer = await asyncio.open_connection(base.host, base.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        while 'status="499"' not in (text := await (await post.client.get("/metrics")).text()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert 'status="500"' not in text
    assert not caplog.records


@pytest.mark.parametrize("name", PATHS)
async def test_a_stream_whose_time_is_over_ends_in_its_own_form(name: str, caplog: pytest.LogCaptureFixture) -> None:
    path, body = PATHS[name]
    async with served(model := Streamer(hang=True), request_seconds=0.2) as post:
        status, text = await post(path, {**body, "stream": True})
        metrics = await (await post.client.get("/metrics")).text()
    assert status == 200
    assert "longer than 0.2 s" in text
    assert model.cancelled.is_set()
    if name == "chat":
        assert text.endswith("data: [DONE]\n\n")
    assert f'path="{path}",status="504"}} 1.0' in metrics
    assert not caplog.records


# What was streamed and what comes out in the end may differ


def final(*items: Any) -> Response:
    return {"id": "r", "status": "completed", "output": list(items), "usage": None, "model": "m"}


def completion(response: Response) -> Any:
    from rollforge.records.chat import chat_completion

    return chat_completion(response)


def encoders() -> list[Encoder]:
    return [ResponsesEvents({}), ChatEvents("m", completion), MessagesEvents("m")]


THOUGHT = {"type": "reasoning", "id": "rs_9", "summary": [{"type": "summary_text", "text": "a"}]}
CASES: dict[str, tuple[list[Delta], Response]] = {
    "text that was reasoning": ([Delta("text", "a</think>b", 0)], final(THOUGHT, assistant("b") | TOKENS)),
    "text that came after calls": (
        [Delta("call", "", 0, "c", "f"), Delta("arguments", "{}", 0, "c")],
        final(assistant("b"), function_call("f", "{}", "c") | TOKENS),
    ),
    "nothing was streamed": ([], final(THOUGHT, assistant("b"), function_call("f", '{"a": 1}', "c"))),
    "a tail is missing": ([Delta("text", "a", 0)], final(assistant("ab"))),
    "a text that is no part": ([Delta("text", "a", 0)], final(function_call("f", "{}", "c"))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_end_makes_good_what_the_stream_lacked(case: str) -> None:
    deltas, response = CASES[case]
    for encoder in encoders():
        data = b"".join([*encoder.start(), *(e for d in deltas for e in encoder.delta(d)), *encoder.end(response)])
        events = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]
        if isinstance(encoder, ResponsesEvents):
            check_responses(events, response)
        if isinstance(encoder, MessagesEvents):
            opened = [event["index"] for event in events if event["type"] == "content_block_start"]
            closed = [event["index"] for event in events if event["type"] == "content_block_stop"]
            assert opened == closed == list(range(len(opened)))
        assert "b" in data.decode() or case == "a text that is no part"


def check_responses(events: list[Any], response: Response) -> None:
    """Every item is begun and ended once under one id and place, and the last event has them all in that order."""
    added = {event["output_index"]: event["item"]["id"] for event in events if event["type"].endswith("output_item.added")}
    done = {event["output_index"]: event["item"] for event in events if event["type"].endswith("output_item.done")}
    assert {index: item["id"] for index, item in done.items()} == added
    output = events[-1]["response"]["output"]
    kinds = sorted(item["type"] for item in output)
    assert kinds == sorted(item["type"] for item in response["output"])
    assert [item["id"] for item in output] == [item["id"] for _, item in sorted(done.items()) if item in output]
    tokens = [item.get("generation_token_ids") for item in output]
    assert all(found is None for found in tokens[:-1])
    assert (tokens[-1] is None) == ("generation_token_ids" not in response["output"][-1])
