"""Clients that no one here wrote: the SDKs of OpenAI and Anthropic, curl; `transformers serve` behind the service."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from rollforge.errors import InfraFault
from rollforge.models import chat, tiny
from rollforge.models.base import ModelOptions
from rollforge.serve.model_app import model_app
from rollforge.serve.settings import Settings
from tests.serve.live import serving
from tests.serve.talker import TOKENS, Streamer, Talker

KINDS = [Talker, Streamer]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RESPONSES_TOOL: Any = {"type": "function", "name": "weather", "description": "w", "parameters": SCHEMA, "strict": True}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "w", "parameters": SCHEMA}}
MESSAGES_TOOL: Any = {"name": "weather", "description": "w", "input_schema": SCHEMA}


@asynccontextmanager
async def served(model: Any) -> AsyncIterator[str]:
    async with serving(model_app(model, "talker", Settings())) as url:
        yield url


@asynccontextmanager
async def gpt(model: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with served(model) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        yield client


@asynccontextmanager
async def claude(model: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with served(model) as url, anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        yield client


# OpenAI: Responses


@pytest.mark.parametrize("kind", KINDS)
async def test_responses(kind: Any) -> None:
    async with gpt(kind()) as client:
        response = await client.responses.create(model="m", input="2+2?", instructions="Be brief.", temperature=0.5)
    assert response.output_text == "2+2?"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[-1].to_dict()["generation_token_ids"] == [3, 4]
    assert response.usage
    assert response.usage.total_tokens == 7
    assert (response.temperature, response.instructions) == (0.5, "Be brief.")


@pytest.mark.parametrize("kind", KINDS)
async def test_responses_streamed_with_a_tool(kind: Any) -> None:
    async with gpt(kind()) as client:
        items: list[Any] = [{"role": "user", "content": "Rome?"}]
        async with client.responses.stream(model="m", input=items, tools=[RESPONSES_TOOL]) as stream:
            names = [event.type async for event in stream]
            first = await stream.get_final_response()
        items += [item.to_dict() for item in first.output]
        call = first.output[-1]
        assert call.type == "function_call"
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        async with client.responses.stream(model="m", input=items, tools=[RESPONSES_TOOL]) as stream:
            text = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            second = await stream.get_final_response()
    assert (call.name, call.arguments) == ("weather", '{"city": "Rome"}')
    assert [names[0], names[-1]] == ["response.created", "response.completed"]
    assert "response.function_call_arguments.delta" in names
    assert "response.reasoning_summary_text.delta" in names
    assert "".join(text) == second.output_text == "sunny"
    assert second.output[-1].to_dict()["generation_log_probs"] == [-0.5, -0.25]
    assert len(text) == (5 if kind is Streamer else 1)


# OpenAI: Chat Completions


@pytest.mark.parametrize("kind", KINDS)
async def test_chat(kind: Any) -> None:
    async with gpt(kind()) as client:
        plain = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "2+2?"}])
        told = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "2+2?"}], logprobs=True, extra_body={"return_token_ids": True}
        )
    message = plain.choices[0].message
    assert (message.content, plain.choices[0].finish_reason) == ("2+2?", "stop")
    assert message.to_dict()["reasoning_content"] == "hm"
    assert "generation_token_ids" not in message.to_dict()
    assert {key: told.choices[0].message.to_dict()[key] for key in TOKENS} == TOKENS
    assert told.choices[0].logprobs
    assert [entry.logprob for entry in told.choices[0].logprobs.content or []] == [-0.5, -0.25]


@pytest.mark.parametrize("kind", KINDS)
async def test_chat_streamed_with_a_tool(kind: Any) -> None:
    async with gpt(kind()) as client:
        messages: list[Any] = [{"role": "user", "content": "Rome?"}]
        async with client.chat.completions.stream(
            model="m", messages=messages, tools=[CHAT_TOOL], stream_options={"include_usage": True}
        ) as stream:
            first = await stream.get_final_completion()
        message = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert first.usage
        assert first.usage.total_tokens == 7
        assert message.tool_calls
        call = message.tool_calls[0]
        messages += [message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        parts = await client.chat.completions.create(
            model="m", messages=messages, tools=[CHAT_TOOL], stream=True, extra_body={"return_token_ids": True}
        )
        chunks = [chunk async for chunk in parts]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Rome"}')
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "sunny"
    assert "".join(delta.to_dict().get("reasoning_content", "") for delta in deltas) == "hm"
    assert {key: deltas[-1].to_dict()[key] for key in TOKENS} == TOKENS
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_client_that_blocks() -> None:
    from tests.serve.live import in_thread

    with in_thread(model_app(tiny.load(None, ModelOptions()), "tiny", Settings())) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k") as client:
            completion = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "2+2?"}], max_tokens=5, seed=1
            )
            names = [model.id for model in client.models.list()]
            assert client.models.retrieve("tiny").id == "tiny"
            with pytest.raises(openai.NotFoundError, match="there is no model 'x'"):
                client.models.retrieve("x")
        with anthropic.Anthropic(base_url=url, api_key="k") as claude:
            counted = claude.messages.count_tokens(model="tiny", messages=[{"role": "user", "content": "2+2?"}])
            listed = [model.id for model in claude.models.list()]
    assert completion.usage
    assert completion.usage.prompt_tokens == counted.input_tokens
    assert names == listed == ["tiny"]


# Anthropic


@pytest.mark.parametrize("kind", KINDS)
async def test_messages(kind: Any) -> None:
    async with claude(kind()) as client:
        message = await client.messages.create(
            model="m", max_tokens=50, system="Be brief.", messages=[{"role": "user", "content": "2+2?"}]
        )
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].text == "2+2?"  # type: ignore[union-attr]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 2)


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_streamed_with_a_tool(kind: Any) -> None:
    model = kind()
    async with claude(model) as client:
        messages: list[Any] = [{"role": "user", "content": "Rome?"}]
        async with client.messages.stream(model="m", max_tokens=50, messages=messages, tools=[MESSAGES_TOOL]) as stream:
            first = await stream.get_final_message()
        call = first.content[-1]
        assert call.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
        messages += [{"role": "assistant", "content": first.to_dict()["content"]}, {"role": "user", "content": [result]}]
        async with client.messages.stream(model="m", max_tokens=50, messages=messages, tools=[MESSAGES_TOOL]) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            second = await stream.get_final_message()
    assert (call.name, call.input, first.stop_reason) == ("weather", {"city": "Rome"}, "tool_use")
    assert text == "sunny"
    assert second.content[0].thinking == "hm"  # type: ignore[union-attr]
    assert second.usage.input_tokens == 5
    assert model.asked[1].params["input"][-1]["output"] == "sunny"


# Errors, as the SDKs raise them


async def test_errors_have_the_classes_of_the_sdks() -> None:
    async with gpt(Talker(fail=InfraFault("the engine died"))) as client:
        with pytest.raises(openai.InternalServerError, match="the engine died") as failed:
            await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError, match="temperature is 'hot'"):
            await client.responses.create(model="m", input="hi", temperature="hot")  # type: ignore[call-overload]
        with pytest.raises(openai.BadRequestError, match="n is 2"):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], n=2)
        with pytest.raises(openai.BadRequestError, match="previous_response_id is not supported"):
            await client.responses.create(model="m", input="hi", previous_response_id="resp_1")
    assert failed.value.request_id
    async with claude(Talker(fail=InfraFault("the engine died"))) as client:
        with pytest.raises(anthropic.InternalServerError, match="the engine died"):
            await client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}])


async def test_errors_in_a_stream_are_raised_by_the_sdks() -> None:
    broken = Streamer(fail=InfraFault("the engine died"))
    ask: Any = [{"role": "user", "content": "hi"}]
    async with gpt(broken) as client:
        with pytest.raises(openai.APIError, match="the engine died"):
            async for _ in await client.responses.create(model="m", input="hi", stream=True):
                pass
        with pytest.raises(openai.APIError, match="the engine died"):
            async for _ in await client.chat.completions.create(model="m", messages=ask, stream=True):
                pass
    async with claude(broken) as client:
        with pytest.raises(anthropic.APIStatusError, match="the engine died"):
            async with client.messages.stream(model="m", max_tokens=5, messages=ask) as stream:
                await stream.get_final_message()


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        ("responses", {"input": "hi"}, "event: response.completed"),
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "data: [DONE]"),
        ("messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}, "event: message_stop"),
    ],
)
async def test_curl(path: str, body: Any, last: str) -> None:
    async def curl(url: str, **more: Any) -> str:
        command = ("curl", "-sS", "--fail-with-body", "-i", f"{url}/v1/{path}", "-d", json.dumps(body | more))
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()

    async with served(Streamer()) as url:
        plain = await curl(url)
        streamed = await curl(url, stream=True)
    assert json.loads(plain.partition("\r\n\r\n")[2])
    assert "x-request-id: req_" in plain
    assert "text/event-stream" in streamed
    assert last in streamed


# transformers serve


@pytest.fixture
async def transformers(tmp_path: Path) -> AsyncIterator[str]:
    """Its URL, with the embedded policy as its model: it reads the same files."""
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(tmp_path / "log", "wb") as log:  # noqa: ASYNC230 - it is empty
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).parent / "transformers"), "serve", str(tiny.SHIPPED)),
            *("--device", "cpu", "--host", "127.0.0.1", "--port", str(port)),
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                assert process.returncode is None, (tmp_path / "log").read_text()[-2000:]
                await asyncio.sleep(0.2)
                continue
            writer.close()
            await writer.wait_closed()
            break
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.extras
async def test_transformers_serve_behind_the_service(transformers: str) -> None:
    upstream = chat.load(str(tiny.SHIPPED), ModelOptions(base_urls=(transformers,)))
    ask: Any = [{"role": "user", "content": "2+2?"}]
    async with gpt(upstream) as client:
        plain = await client.responses.create(model="m", input="2+2?", temperature=0, max_output_tokens=20)
        async with client.responses.stream(model="m", input="2+2?", temperature=0, max_output_tokens=20) as stream:
            pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            streamed = await stream.get_final_response()
        completion = await client.chat.completions.create(model="m", messages=ask, temperature=0, max_tokens=20)
    assert plain.output_text
    assert plain.output_text == streamed.output_text == "".join(pieces) == completion.choices[0].message.content
    assert len(pieces) > 1
    assert streamed.usage
    assert streamed.usage.total_tokens > 0
