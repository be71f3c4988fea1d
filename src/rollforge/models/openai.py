"""`openai:MODEL`: a server of the Responses API (OpenAI, vLLM's /v1/responses, the model servers of NeMo Gym)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal

from rollforge.errors import InfraFault, SetupError
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.chat import out_of_context
from rollforge.models.dial import Target, targets
from rollforge.models.service import TOKEN_ENV
from rollforge.models.stream import Delta, Events, broken_off
from rollforge.models.transport import BadRequest, Endpoint, Transport, endpoint
from rollforge.records.chat import responses_request
from rollforge.records.items import TOKEN_FIELDS, Item, Json, Response, check_items

PUBLIC = "https://api.openai.com/v1"
log = logging.getLogger(__name__)


def load(name: str | None, options: ModelOptions) -> Model:
    """Raises `UserError` if OpenAI's own server is meant and there is no key for it."""
    where = endpoint(options, "openai", "OPENAI_BASE_URL", "OPENAI_API_KEY", default=PUBLIC)
    return ResponsesModel(name, options, where, targets(where.bases, "/responses"))


def at(url: str, options: ModelOptions) -> Model:
    """The service at a URL, with or without /v1, which knows which model it has. Raises `UserError` for what is no URL."""
    bases = tuple(base.rstrip("/").removesuffix("/v1") + "/v1" for base in (url, *options.base_urls))
    where = endpoint(replace(options, base_urls=bases), "the model service", "", TOKEN_ENV)
    return ResponsesModel(None, options, where, targets(where.bases, "/responses"), named=False)


class ResponsesModel:
    """One server of the Responses API, with its connections."""

    keeps_deadline = True

    def __init__(
        self, name: str | None, options: ModelOptions, where: Endpoint, to: Sequence[Target], *, named: bool = True
    ) -> None:
        """`named`: the server has to be told which model is meant."""
        self._name = name
        self._named = named
        self._extra = dict(options.extra_body)
        self._to = to
        self._public = where.public
        self._check = where.check()
        self._transport = Transport(options, where, self._check)
        self._dropped: set[str] = set()

    def __repr__(self) -> str:
        return f"ResponsesModel({self._name!r}, {self._to[0].shown!r})"

    async def __call__(self, request: Request, /) -> Response:
        body = self._body(request)
        try:
            answer = await self._transport.post(self._to, body, request.rollout)
        except BadRequest as error:
            return out_of_context(error, body)
        return response_of(answer, self._to[0].shown)

    async def stream(self, request: Request) -> Events:
        """As `models.stream` has it."""
        body, source = self._body(request) | {"stream": True}, self._to[0].shown
        items: list[Item] = []
        try:
            async with aclosing(self._transport.stream(self._to, body, request.rollout)) as events:
                async for event in events:
                    kind = event.get("type") if isinstance(event, dict) else None
                    if kind == "response.failed":
                        raise broken_off((event.get("response") or {}).get("error"), source)
                    if kind in _LAST or kind is None:
                        response = response_of(event if kind is None else event.get("response"), source)
                        # Some gateways leave out there what they have sent already.
                        response["output"] = response["output"] or items
                        yield response
                        return
                    delta = _delta(event, source)
                    if delta is not None:
                        items += [delta.item] if delta.kind == "item" else []
                        yield delta
        except BadRequest as error:
            yield out_of_context(error, body)
            return
        raise InfraFault(f"{source} ended its stream before its response was complete; check: {self._check}")

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _body(self, request: Request) -> Json:
        body = responses_request(request.params)
        if self._name:
            body["model"] = self._name
        elif self._named and not body.get("model"):
            raise SetupError(f"no model is named: --model openai:NAME; the names it knows: {self._check}")
        # A job in the background is no answer to this call, and some servers stream unless told not to.
        body.pop("background", None)
        body.pop("stream_options", None)
        body["stream"] = False
        body["input"] = [_sent(item, public=self._public) for item in body["input"]]
        if self._public:
            self._drop_unknown(body)
        return body | self._extra

    def _drop_unknown(self, body: Json) -> None:
        if isinstance(body.get("reasoning"), dict):
            # A Messages client's budget: here there is the effort alone.
            body["reasoning"] = {key: value for key, value in body["reasoning"].items() if key != "budget_tokens"}
        for key in body.keys() - PARAMETERS:
            del body[key]
            if key not in self._dropped:
                self._dropped.add(key)
                log.warning(
                    "the Responses API of OpenAI has no parameter %s: it is left out (chat:%s has it)", key, self._name
                )


_LAST = ("response.completed", "response.incomplete")
_PIECES: dict[str, Literal["text", "reasoning", "arguments"]] = {
    "response.output_text.delta": "text",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
    "response.function_call_arguments.delta": "arguments",
}


def _delta(event: Json, source: str) -> Delta | None:
    """What an event adds; None: nothing that a delta could say. Raises `InfraFault` for an error."""
    kind, index = event["type"], event.get("output_index")
    if kind == "error":
        raise broken_off(event.get("error") or event, source)
    item = event.get("item")
    if not isinstance(index, int):
        return None
    if kind in _PIECES and isinstance(event.get("delta"), str):
        return Delta(_PIECES[kind], event["delta"], index, id=str(event.get("item_id") or ""))
    if not isinstance(item, dict):
        return None
    if kind == "response.output_item.done" and check_items([item], "output") is None:
        return Delta("item", "", index, item=item)
    if kind == "response.output_item.added" and item.get("type") == "function_call":
        call, name = str(item.get("call_id") or ""), str(item.get("name") or "")
        return Delta("call", "", index, call, name, str(item.get("id") or ""))
    return None


def response_of(answer: Any, source: str) -> Response:
    """The answer as it came. Raises `InfraFault` if it is none, or says that the server failed."""
    if not isinstance(answer, dict):
        raise InfraFault(f"{source} answered with {type(answer).__name__}, not a response: {answer!r:.200}")
    error = answer.get("error")
    if error:
        text = error.get("message") if isinstance(error, dict) else error
        raise InfraFault(f"{source} answered with an error: {text!s:.500}")
    problem = check_items(answer.get("output"), "output")
    if problem:
        raise InfraFault(f"{source} answered with no usable response: {problem} (keys: {', '.join(answer)})")
    if answer.get("status") not in (None, "completed", "incomplete"):
        raise InfraFault(f"{source} answered with a response that is {answer['status']!r}, not completed")
    return answer  # type: ignore[return-value]


def _sent(item: Item, *, public: bool) -> Item:
    """OpenAI refuses fields and ids that are not its own; other servers may want the token fields back."""
    if not public:
        return item
    prefix = _PREFIXES.get(item.get("type") or "message", "")
    foreign = not str(item.get("id") or "").startswith(prefix)
    if not foreign and item.keys().isdisjoint(TOKEN_FIELDS):
        return item
    return {key: value for key, value in item.items() if key not in TOKEN_FIELDS and not (foreign and key == "id")}


_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}

PARAMETERS = frozenset(
    (
        *("background", "context_management", "conversation", "include", "input", "instructions", "max_output_tokens"),
        *(
            "max_tool_calls",
            "metadata",
            "model",
            "parallel_tool_calls",
            "previous_response_id",
            "prompt",
            "prompt_cache_key",
        ),
        *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options"),
        *("temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    )
)
"""Of the Responses API. Servers other than OpenAI's get whatever else a task or a run says (seed, stop, top_k, ...)."""
