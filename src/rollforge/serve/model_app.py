"""A model as a service, in the dialects of OpenAI (Responses, Chat Completions) and Anthropic (Messages).

    request --asked--> params --Model--> response --> the dialect's answer, or its events (`serve.events`)

`responses`, `chat_completions`, `messages`, `count_tokens` and `tokenize` take the model and the request, so that whoever
stands between (the gateway) can give a model of its own. Names of models are not compared: what a client calls the model is
passed on, and a backend that was loaded with a name uses that.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from rollforge.collect.closing import aclose
from rollforge.errors import UnknownParameter
from rollforge.models.base import Model
from rollforge.models.base import Request as Call
from rollforge.models.stream import stream
from rollforge.models.transport import BadRequest
from rollforge.records.anthropic import message_from
from rollforge.records.chat import chat_completion, chat_request
from rollforge.records.items import Json, Params
from rollforge.records.items import Response as Answer
from rollforge.records.messages import Dialect
from rollforge.records.problem import Problem, bad_request
from rollforge.records.whole import whole
from rollforge.serve.app import App, answer, body, make_app, spec
from rollforge.serve.asked import INPUT, of_chat, of_messages, of_responses
from rollforge.serve.events import Encoder, streamed
from rollforge.serve.gone import while_connected
from rollforge.serve.settings import Settings
from rollforge.serve.stream_chat import ChatEvents
from rollforge.serve.stream_messages import MessagesEvents
from rollforge.serve.stream_responses import ResponsesEvents


def model_app(model: Model, name: str, settings: Settings) -> App:
    """The application of one model; it closes the model in the end. Raises `UserError` as `make_app` does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await aclose(model)

    about = f"The model `{name}` in three dialects: Responses, Chat Completions, Messages."
    return make_app(
        f"rollforge model {name}",
        about,
        [model_routes(model, name)],
        settings,
        lifespan=lifespan,
        status=lambda: {"model": name},
    )


def model_routes(model: Model, name: str) -> APIRouter:
    router = APIRouter(tags=["model"])
    errors = (400, 401, 413, 422, 424, 501, 502, 504)

    @router.post("/v1/responses", openapi_extra=spec(RESPONSES, {"type": "object"}, errors, streams=True))
    async def create_response(request: Request) -> Response:
        """OpenAI Responses: one model call."""
        return await responses(model, request)

    @router.post("/v1/chat/completions", openapi_extra=spec(CHAT, {"type": "object"}, errors, streams=True))
    async def create_completion(request: Request) -> Response:
        """OpenAI Chat Completions."""
        return await chat_completions(model, request)

    @router.post("/v1/messages", openapi_extra=spec(MESSAGES, {"type": "object"}, errors, streams=True))
    async def create_message(request: Request) -> Response:
        """Anthropic Messages."""
        return await messages(model, request)

    @router.post("/v1/messages/count_tokens", openapi_extra=spec(MESSAGES, {"type": "object"}, errors))
    async def count(request: Request) -> Response:
        """How many tokens a Messages request is, where the backend can say."""
        return await count_tokens(model, request)

    @router.post("/tokenize", openapi_extra=spec(_TOKENIZE, {"type": "object"}, errors))
    async def token_ids(request: Request) -> Response:
        """The token ids of a `prompt` or of chat `messages`, where the backend can say."""
        return await tokenize(model, request)

    @router.get("/v1/models", openapi_extra=spec(errors=(401,)))
    async def models(_: Request) -> Response:
        """The model that is served."""
        return answer(models_list([name]))

    @router.get("/v1/models/{id:path}", openapi_extra=spec(errors=(401, 404)))
    async def one_model(request: Request) -> Response:
        wanted = request.path_params["id"]
        if wanted != name:
            raise Problem(404, "not_found_error", f"there is no model {wanted!r:.200} here; there is {name!r}")
        return answer(model_row(name))

    return router


async def responses(model: Model, request: Request) -> Response:
    given = await body(request)
    params = of_responses(given)
    return await _answered(model, request, given, params, partial(whole, params=params), lambda: ResponsesEvents(params))


async def chat_completions(model: Model, request: Request) -> Response:
    given = await body(request)
    params = of_chat(given)
    convert = partial(_completion, given=given)
    options = given.get("stream_options")
    usage = isinstance(options, dict) and bool(options.get("include_usage"))
    name = str(params.get("model") or "")
    return await _answered(model, request, given, params, convert, lambda: ChatEvents(name, convert, usage=usage))


async def messages(model: Model, request: Request) -> Response:
    given = await body(request)
    params = of_messages(given)
    name = str(params.get("model") or "")
    return await _answered(model, request, given, params, message_from, lambda: MessagesEvents(name))


async def count_tokens(model: Model, request: Request) -> Response:
    params = of_messages(await body(request))
    count, ids = getattr(model, "count", None), getattr(model, "tokenize", None)
    with_faults = partial(_ours, request)
    if count is not None:
        return answer({"input_tokens": await with_faults(count(params))})
    if ids is not None:
        return answer({"input_tokens": len(await with_faults(ids(chat_request(params))))})
    raise Problem(501, "not_supported_error", "the model behind this service cannot count tokens")


async def tokenize(model: Model, request: Request) -> Response:
    """As vLLM's /tokenize: {"prompt": text} or {"messages": [...], "tools": [...]} -> {"count", "tokens"}."""
    given = await body(request)
    ids = getattr(model, "tokenize", None)
    if ids is None:
        raise Problem(501, "not_supported_error", "the model behind this service cannot tell token ids")
    if not isinstance(given.get("prompt"), str):
        if not isinstance(given.get("messages"), list):
            raise bad_request("give a prompt (a text) or messages (a list)")
        of_chat(given)
    found = await _ours(request, ids(given))
    return answer({"count": len(found), "max_model_len": None, "tokens": found})


def models_list(names: Sequence[str]) -> Json:
    """The answer of GET /v1/models: both SDKs read it."""
    data = [model_row(name) for name in names]
    first, last = (names[0], names[-1]) if names else (None, None)
    return {"object": "list", "data": data, "has_more": False, "first_id": first, "last_id": last}


def model_row(name: str) -> Json:
    ours = {"id": name, "object": "model", "created": 0, "owned_by": "rollforge"}
    return {**ours, "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active"}


async def _answered(
    model: Model,
    request: Request,
    given: Json,
    params: Params,
    convert: Callable[[Answer], Any],
    encoder: Callable[[], Encoder],
) -> Response:
    """The answer of the model, whole or streamed as the request wants it."""
    if not isinstance(given.get("stream") or False, bool):
        raise bad_request(f"stream is {given['stream']!r:.100}, not true or false", param="stream")
    # Two equal requests are two draws. Calls that share a prompt's cache are those that say so.
    call = Call(params, rollout=str(params.get("prompt_cache_key") or ""), seed=secrets.randbits(63))
    if given.get("stream"):
        found: Response = await _ours(request, streamed(request, stream(model, call), encoder()), watch=False)
        return found
    response = await _ours(request, model(call))
    return answer(convert(response))


async def _ours(request: Request, work: Any, *, watch: bool = True) -> Any:
    """The result of a model's work, given up when the caller goes away.

    A request that the upstream refused is refused in turn: it is not the upstream that failed.
    """
    try:
        return await (while_connected(request, work) if watch else work)
    except UnknownParameter as error:
        raise Problem(400, "invalid_request_error", str(error), code="unsupported_parameter", param=error.name) from error
    except BadRequest as error:
        status = error.status if 400 <= error.status < 500 else 400
        raise Problem(status, "invalid_request_error", str(error), code=error.code or None) from error


_TOKENS = ("return_token_ids", "return_tokens_as_token_ids")


def _completion(response: Answer, given: Json) -> Json:
    """With token ids and log probabilities where the request wants them."""
    wanted = any(given.get(key) for key in (*_TOKENS, "logprobs"))
    completion = chat_completion(response, Dialect(reasoning="reasoning_content", tokens=wanted))
    choice = completion["choices"][0]
    ids = choice["message"].get("generation_token_ids")
    if given.get("logprobs") and "logprobs" not in choice and ids:
        # As servers write them that were asked for tokens as ids: the backend told no texts.
        pairs = zip(ids, choice["message"]["generation_log_probs"], strict=True)
        entries = [{"token": f"token_id:{id}", "logprob": p, "bytes": None, "top_logprobs": []} for id, p in pairs]
        choice["logprobs"] = {"content": entries, "refusal": None}
    if not given.get("logprobs"):
        choice.pop("logprobs", None)
    return completion


_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number", "minimum": 0}
_LIST: Json = {"type": "array", "items": {"type": "object"}}
_CHAT_LIST: Json = {"type": "array", "items": {"type": "object", "required": ["role"]}}
_COMMON: Json = {"model": _TEXT, "stream": {"type": "boolean"}, "temperature": _NUMBER, "top_p": _NUMBER, "tools": _LIST}
RESPONSES: Json = {
    "type": "object",
    "required": ["input"],
    "properties": {
        **_COMMON,
        "input": INPUT,
        "instructions": _TEXT,
        "max_output_tokens": {"type": "integer", "minimum": 1},
    },
}
CHAT: Json = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        **_COMMON,
        "messages": _CHAT_LIST,
        "max_tokens": {"type": "integer", "minimum": 1},
        "return_token_ids": {"type": "boolean"},
        "logprobs": {"type": "boolean"},
    },
}
MESSAGES: Json = {
    "type": "object",
    "required": ["messages"],
    "properties": {**_COMMON, "messages": _CHAT_LIST, "max_tokens": {"type": "integer", "minimum": 1}, "system": _TEXT},
}
_TOKENIZE: Json = {
    "type": "object",
    "properties": {"prompt": _TEXT, "messages": _LIST, "tools": _LIST, "add_generation_prompt": {"type": "boolean"}},
}
