"""`anthropic:MODEL`: a server of the Messages API (Anthropic, vLLM's /v1/messages, another `rollforge serve`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from rollforge.errors import InfraFault, SetupError
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.chat import out_of_context
from rollforge.models.dial import Target, targets
from rollforge.models.stream import Delta, Events, broken_off
from rollforge.models.transport import BadRequest, Endpoint, Transport, endpoint
from rollforge.records.anthropic import messages_request, response_from_message
from rollforge.records.blocks import STREAMED, output_item
from rollforge.records.items import Json, Params, Response
from rollforge.records.lossless import loads

PUBLIC = "https://api.anthropic.com"
VERSION = "2023-06-01"
COUNTED = ("messages", "model", "output_config", "system", "thinking", "tool_choice", "tools")
"""What is part of a prompt; the counting endpoint refuses the rest."""


def load(name: str | None, options: ModelOptions) -> Model:
    """The address is with or without /v1. Raises `UserError` if Anthropic's own server is meant and there is no key."""
    given = options.base_urls or (os.environ.get("ANTHROPIC_BASE_URL") or PUBLIC,)
    key_env = options.api_key_env or "ANTHROPIC_API_KEY"
    # Only Anthropic's own must have a key, and its header is another than everybody's.
    keyed = bool(os.environ.get(key_env)) or any("api.anthropic.com" in url for url in given)
    header = "x-api-key" if keyed else "Authorization"
    bases = tuple(url.strip().rstrip("/").removesuffix("/v1") for url in given)
    where = endpoint(replace(options, base_urls=bases), "anthropic", "", "ANTHROPIC_API_KEY", header=header)
    return MessagesModel(name, replace(options, headers={"anthropic-version": VERSION, **options.headers}), where)


class MessagesModel:
    """One server of the Messages API, with its connections."""

    keeps_deadline = True

    def __init__(self, name: str | None, options: ModelOptions, where: Endpoint) -> None:
        self._name = name
        self._extra = dict(options.extra_body)
        self._to: Sequence[Target] = targets(where.bases, "/v1/messages")
        self._count: Sequence[Target] = targets(where.bases, "/v1/messages/count_tokens")
        self._check = f'{where.check("/v1/models")} -H "anthropic-version: {VERSION}"'
        self._transport = Transport(options, where, self._check)

    def __repr__(self) -> str:
        return f"MessagesModel({self._name!r}, {self._to[0].shown!r})"

    async def __call__(self, request: Request, /) -> Response:
        body = self._body(request.params)
        try:
            answer = await self._transport.post(self._to, body, request.rollout)
        except BadRequest as error:
            return out_of_context(error, body)
        return self._response(answer)

    async def stream(self, request: Request) -> Events:
        """As `models.stream` has it."""
        body, message = self._body(request.params) | {"stream": True}, _Message(self._to[0].shown)
        try:
            async with aclosing(self._transport.stream(self._to, body, request.rollout)) as events:
                async for event in events:
                    delta = message.add(event)
                    if delta is not None:
                        yield delta
        except BadRequest as error:
            yield out_of_context(error, body)
            return
        if not message.ended:
            raise InfraFault(f"{message.source} ended its stream before its message was complete; check: {self._check}")
        yield self._response(message.whole)

    async def count(self, params: Params) -> int:
        """How many tokens these parameters are as a prompt."""
        asked = {key: value for key, value in self._body(params).items() if key in COUNTED}
        answer = await self._transport.post(self._count, asked)
        if not isinstance(answer, dict) or not isinstance(answer.get("input_tokens"), int):
            raise InfraFault(f"{self._count[0].shown} answered with no count: {answer!r:.200}")
        return int(answer["input_tokens"])

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _body(self, params: Params) -> Json:
        body = messages_request(params)
        if self._name:
            body["model"] = self._name
        elif not body.get("model"):
            raise SetupError(f"no model is named: --model anthropic:NAME; the names it knows: {self._check}")
        return body | {"stream": False} | self._extra

    def _response(self, message: Any) -> Response:
        try:
            return response_from_message(message)
        except InfraFault as error:
            raise InfraFault(f"{self._to[0].shown}: {error}; check: {self._check}") from None
        except (KeyError, TypeError) as error:
            raise InfraFault(f"{self._to[0].shown} answered with no usable message ({error!r}): {message!r:.200}") from error


class _Message:
    """A streamed message put together again."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.whole: Json = {}
        self.ended = False
        self._arguments: dict[int, str] = {}

    def add(self, event: Any) -> Delta | None:
        """Raises `InfraFault` for an error, and for what is no event."""
        try:
            return self._take(event)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InfraFault(f"{self.source} streams what is no message ({error!r}): {event!r:.200}") from error

    def _take(self, event: Json) -> Delta | None:
        match event["type"]:
            case "message":
                # The server did not stream.
                self.whole, self.ended = event, True
            case "message_start":
                self.whole = {**event["message"], "content": []}
            case "content_block_start":
                return self._begin(event["index"], event["content_block"])
            case "content_block_delta":
                return self._piece(event["index"], event["delta"])
            case "content_block_stop":
                return self._end(event["index"])
            case "message_delta":
                self.whole |= event["delta"]
                self.whole["usage"] = {**(self.whole.get("usage") or {}), **(event.get("usage") or {})}
            case "message_stop":
                self.ended = True
            case "error":
                raise broken_off(event["error"], self.source)
        return None

    def _begin(self, index: int, block: Json) -> Delta | None:
        self.whole["content"].append(dict(block))
        if block["type"] == "tool_use":
            self._arguments[index] = ""
            return Delta("call", "", index, block["id"], block["name"])
        return None

    def _piece(self, index: int, delta: Json) -> Delta | None:
        block = self.whole["content"][index]
        match delta["type"]:
            case "text_delta":
                block["text"] += delta["text"]
                return Delta("text", delta["text"], index)
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
                return Delta("reasoning", delta["thinking"], index)
            case "signature_delta":
                block["signature"] = (block.get("signature") or "") + delta["signature"]
            case "input_json_delta":
                self._arguments[index] = self._arguments.get(index, "") + delta["partial_json"]
                if block["type"] == "tool_use":
                    return Delta("arguments", delta["partial_json"], index, block["id"])
        return None

    def _end(self, index: int) -> Delta | None:
        block, arguments = self.whole["content"][index], self._arguments.get(index)
        if arguments and block["type"] == "tool_use":
            block[STREAMED] = arguments
        elif arguments:
            # Of a tool that the server itself runs.
            block["input"] = loads(arguments)
        return Delta("item", "", index, item=output_item(block))
