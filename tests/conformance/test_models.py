"""What every Model must do. A new backend is one line in MODELS; one that speaks to a server also says how that answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rollforge.errors import DeadlineExceeded, InfraFault, SetupError
from rollforge.models import anthropic, azure, chat, openai, scripted, transformers, vllm
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.load import load_model
from rollforge.models.tiny import SHIPPED
from rollforge.records.blocks import INVALID
from rollforge.records.items import (
    Item,
    Params,
    Response,
    assistant,
    check_items,
    final_text,
    function_call,
    function_call_output,
    reasoning_text,
    tool_calls,
    user,
)
from rollforge.records.task import Task
from rollforge.serve.model_app import model_app
from rollforge.serve.settings import Settings
from tests.models.server import HANG, Reply, closing, completion, serve
from tests.serve.live import serving


@dataclass(frozen=True)
class Answer:
    """What the model behind a server says."""

    text: str | None = "hi"
    calls: tuple[tuple[str, str], ...] = ()
    reasoning: str | None = None
    cut: bool = False


@dataclass(frozen=True)
class Backend:
    load: Callable[[ModelOptions], Model]
    wire: Callable[[Answer], Any] | None = None
    """How its server says an answer; None: it has no server."""
    path: str = "/v1"
    served: bool = False
    """Whether it stands behind a service of this package, asked over HTTP."""


def as_chat(answer: Answer) -> Any:
    said = completion(answer.text, answer.calls, "length" if answer.cut else None, reasoning_content=answer.reasoning)
    said["choices"][0] |= {"token_ids": [5, 6], "logprobs": {"content": [{"token": "t", "logprob": -0.5}] * 2}}
    return said | {"prompt_token_ids": [1, 2, 3]}


def as_response(answer: Answer) -> Any:
    output: list[Item] = []
    if answer.reasoning:
        output.append({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": answer.reasoning}]})
    if answer.text is not None:
        output.append(assistant(answer.text, "msg_1"))
    output += [function_call(name, arguments, f"call_{n}", f"fc_{n}") for n, (name, arguments) in enumerate(answer.calls)]
    usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    answered = {"id": "resp_1", "object": "response", "created_at": 1.0, "model": "m", "status": "completed"}
    return {**answered, "output": output, "usage": usage, **(cut if answer.cut else {})}


def as_message(answer: Answer) -> Any:
    content: list[Any] = [{"type": "thinking", "thinking": answer.reasoning, "signature": "s"}] if answer.reasoning else []
    content += [{"type": "text", "text": answer.text}] if answer.text is not None else []
    for n, (name, arguments) in enumerate(answer.calls):
        given = json.loads(arguments) if arguments.startswith("{") else {INVALID: arguments}
        content.append({"type": "tool_use", "id": f"call_{n}", "name": name, "input": given})
    stop = "max_tokens" if answer.cut else "tool_use" if answer.calls else "end_turn"
    usage = {"input_tokens": 11, "output_tokens": 7}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"} | {
        "content": content, "stop_reason": stop, "usage": usage
    }  # fmt: skip


MODELS: dict[str, Backend] = {
    "anthropic": Backend(lambda options: anthropic.load("m", options), as_message),
    "chat": Backend(lambda options: chat.load("m", options), as_chat),
    "vllm": Backend(lambda options: vllm.load("m", options), as_chat),
    "openai": Backend(lambda options: openai.load("m", options), as_response),
    "azure": Backend(lambda options: azure.load("m", options), as_chat, "/openai/v1"),
    "url": Backend(lambda options: load_model(options.base_urls[0], replace(options, base_urls=())), as_response, ""),
    "scripted": Backend(lambda options: scripted.load("echo", options)),
}
MODELS["transformers"] = Backend(lambda options: transformers.load(str(SHIPPED), options))
MODELS |= {f"{name}, served": replace(MODELS[name], served=True) for name in ("chat", "vllm", "openai", "scripted")}
SERVED = [name for name, backend in MODELS.items() if backend.wire]
NEEDS = {"transformers": (pytest.mark.extras, pytest.mark.filterwarnings("default"))}
ALL = [pytest.param(name, marks=NEEDS.get(name, ())) for name in MODELS]

TOOLS = [
    {
        "type": "function",
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
        "strict": True,
    }
]
FORMAT = {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-key-of-azure")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def opened(name: str, *answers: Any, **options: Any) -> AsyncIterator[tuple[Model, list[Any]]]:
    """The model, and the bodies of what its server was asked. Answers are `Answer`s, or what the server sends as it is."""
    backend = MODELS[name]
    if name in NEEDS:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    if backend.wire is None:
        async with reached(backend, backend.load(ModelOptions(**options)), options) as model:
            yield model, []
        return
    wired = [backend.wire(answer) if isinstance(answer, Answer) else answer for answer in answers or (Answer(),)]
    asked: list[Any] = []

    def answer(body: Any) -> Any:
        asked.append(body)
        return wired[min(len(asked), len(wired)) - 1]

    async with serve(answer) as server:
        loaded = backend.load(ModelOptions(base_urls=(server.root + backend.path,), **options))
        async with reached(backend, loaded, options) as model:
            yield model, asked


@asynccontextmanager
async def reached(backend: Backend, loaded: Any, options: dict[str, Any]) -> AsyncIterator[Any]:
    """The model itself, or what speaks to the service that it stands behind; closed in the end."""
    if not backend.served:
        async with closing(loaded):
            yield loaded
        return
    async with (
        serving(model_app(loaded, "m", Settings())) as url,
        closing(load_model(url, ModelOptions(**options))) as model,
    ):
        yield model


def ask(*items: Item, rollout: str = "r", **params: Any) -> Request:
    given: Params = {"input": list(items) or [user("2+2?")], **params}  # type: ignore[typeddict-item]
    task: Params = {"input": given["input"][:1]}  # type: ignore[typeddict-item]
    return Request(given, task=Task(task, id="t", index=0), rollout=rollout)


def check(response: Response) -> None:
    """A complete Response, whatever it says."""
    assert isinstance(response["id"], str)
    assert response["id"]
    assert response["object"] == "response"
    assert response["status"] in ("completed", "incomplete")
    assert bool(response.get("incomplete_details")) == (response["status"] == "incomplete")
    assert check_items(response["output"], "output") is None
    for item in response["output"]:
        assert item["type"] in ("message", "reasoning", "function_call")
        if item["type"] == "message":
            assert item["role"] == "assistant"
            assert all(part["type"] in ("output_text", "refusal") for part in item["content"])
        if item["type"] == "function_call":
            assert isinstance(item["arguments"], str)
            assert item["call_id"]
    ids = [item["id"] for item in response["output"]]
    assert len(set(ids)) == len(ids)
    usage = response["usage"]
    if usage is not None:
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert min(usage["input_tokens"], usage["output_tokens"]) >= 0


@pytest.mark.parametrize("name", ALL)
async def test_the_answer_is_a_complete_response(name: str) -> None:
    async with opened(name) as (model, _):
        response = await model(ask())
    check(response)
    assert response["output"]
    assert isinstance(response["model"], str)


@pytest.mark.parametrize("name", ALL)
async def test_the_request_is_left_as_it_was(name: str) -> None:
    request = ask(tools=TOOLS, text={"format": FORMAT}, temperature=1.0)
    before = deepcopy(request)
    async with opened(name) as (model, _):
        await model(request)
    assert request == before


@pytest.mark.parametrize("name", ALL)
async def test_a_conversation_goes_on_with_what_the_model_said(name: str) -> None:
    items: list[Item] = [user("2+2?")]
    async with opened(name, Answer(None, (("add", '{"a": 2, "b": 2}'),)), Answer("4")) as (model, _):
        for _turn in range(3):
            response = await model(ask(*items, tools=TOOLS))
            check(response)
            items += response["output"]
            calls = tool_calls(response)
            if not calls:
                break
            items += [function_call_output(call["call_id"], "4") for call in calls]
    assert items[-1]["type"] == "message"


@pytest.mark.parametrize("name", ALL)
async def test_parameters_of_every_kind_are_accepted(name: str) -> None:
    everything = {"seed": 1, "stop": ["\n"], "top_k": 3, "temperature": 0.7, "top_p": 0.9, "max_output_tokens": 50}
    nothing = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": None, "metadata": None, "reasoning": None}
    async with opened(name) as (model, _):
        for params in (everything, nothing, {"text": {"format": FORMAT}}):
            check(await model(ask(**params)))


@pytest.mark.parametrize("name", ALL)
async def test_many_at_once_get_an_answer_each(name: str) -> None:
    async with opened(name) as (model, _):
        responses = await asyncio.gather(*(model(ask(user(f"{n}"), rollout=f"{n}")) for n in range(50)))
    for response in responses:
        check(response)


@pytest.mark.parametrize("name", SERVED)
async def test_text_reasoning_and_calls_arrive(name: str) -> None:
    said = Answer("let me see", (("add", '{"a":1}'), ("add", "not json")), "why")
    async with opened(name, said) as (model, asked):
        response = await model(ask(tools=TOOLS))
    assert (final_text(response), reasoning_text(response)) == ("let me see", "why")
    assert [(call["name"], call["arguments"]) for call in tool_calls(response)] == list(said.calls)
    assert response["usage"]["total_tokens"] == 18
    assert "add" in json.dumps(asked[0]["tools"])


@pytest.mark.parametrize("name", SERVED)
async def test_an_answer_cut_off_is_incomplete(name: str) -> None:
    async with opened(name, Answer("I thi", cut=True)) as (model, _):
        response = await model(ask())
    check(response)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("name", SERVED)
async def test_the_wanted_format_and_the_sampling_reach_the_server(name: str) -> None:
    async with opened(name) as (model, asked):
        await model(ask(text={"format": FORMAT}, seed=7, stop=["x"], top_k=4))
    body = asked[0]
    if name == "anthropic":
        assert body["output_config"]["format"] == {"type": "json_schema", "schema": FORMAT["schema"]}
        assert (body["stop_sequences"], body["top_k"], body["model"]) == (["x"], 4, "m")
        return
    format = body["text"]["format"] if "text" in body else body["response_format"]["json_schema"]
    assert (format["name"], format["schema"]) == (FORMAT["name"], FORMAT["schema"])
    assert (body["seed"], body["stop"], body["top_k"]) == (7, ["x"], 4)
    assert body.get("model") == (None if name == "url" else "m")  # a service knows which it has


FAILURES: dict[str, tuple[Reply, type[Exception]]] = {
    "wrong key": (Reply({"error": {"message": "no"}}, 401), SetupError),
    "no such model": (Reply({"error": {"message": "The model `m` does not exist"}}, 404), SetupError),
    "wrong address": (Reply(b"404 page not found", 404), SetupError),
    "bad request": (Reply({"error": {"message": "no"}}, 400), InfraFault),
    "overloaded": (Reply(b"", 503), InfraFault),
    "too many": (Reply(b"", 429), InfraFault),
    "a web page": (Reply(b"<html>"), InfraFault),
    "another shape": (Reply({"hello": "world"}), InfraFault),
    "a list": (Reply([]), InfraFault),
    "silence": (HANG, DeadlineExceeded),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", SERVED)
async def test_failures_are_of_their_class(name: str, failure: str) -> None:
    reply, error = FAILURES[failure]
    async with opened(name, reply, retries=0, call_seconds=0.1 if reply is HANG else 60.0) as (model, _):
        with pytest.raises(error, match=r"http://127\.0\.0\.1"):
            await model(ask())
