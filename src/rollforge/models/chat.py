"""`chat:MODEL`: any server of the Chat Completions API (vLLM, SGLang, Ollama, llama.cpp, hosted ones)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, get_args

from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.chunks import Chunks
from rollforge.models.dial import Target, targets
from rollforge.models.stream import Events
from rollforge.models.transport import BadRequest, Endpoint, Transport, endpoint
from rollforge.records.chat import chat_request, first_choice, response_from_completion
from rollforge.records.items import Json, Response
from rollforge.records.messages import WIRE, Dialect, Reasoning, unique


def load(name: str | None, options: ModelOptions) -> Model:
    """Raises `UserError` if nothing says where the server is."""
    where = endpoint(options, "chat", "OPENAI_BASE_URL", "OPENAI_API_KEY")
    # Of all servers only OpenAI's own refuses the older name of this parameter.
    dialect = Dialect(max_tokens="max_completion_tokens") if where.public else WIRE
    return ChatModel(name, options, where, targets(where.bases, "/chat/completions"), dialect=dialect)


class ChatModel:
    """One chat server, with its connections."""

    keeps_deadline = True

    def __init__(
        self,
        name: str | None,
        options: ModelOptions,
        where: Endpoint,
        to: Sequence[Target],
        *,
        dialect: Dialect = WIRE,
        check: str = "",
    ) -> None:
        self._name = name
        self._extra = dict(options.extra_body)
        self._to = to
        self._learning = "send_reasoning" not in self._extra
        self._dialect = _with_wishes(dialect, self._extra)
        self._check = check or where.check()
        self._transport = Transport(options, where, self._check)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, {self._to[0].shown!r})"

    async def __call__(self, request: Request, /) -> Response:
        body = self._body(request)
        try:
            completion = await self._transport.post(self._to, body, request.rollout)
        except BadRequest as error:
            return self._refused(error, body)
        return await self._response(completion, body, request)

    async def stream(self, request: Request) -> Events:
        """As `models.stream` has it; the last one is what the call without streaming would have returned."""
        body = self._body(request, stream=True, stream_options={"include_usage": True})
        chunks = Chunks(self._to[0].shown)
        try:
            async with aclosing(self._transport.stream(self._to, body, request.rollout)) as events:
                async for event in events:
                    for delta in chunks.add(event):
                        yield delta
        except BadRequest as error:
            yield self._refused(error, body)
            return
        if not chunks.ended:
            raise InfraFault(f"{self._to[0].shown} ended its stream without a finish_reason; check: {self._check}")
        yield await self._response(chunks.completion, body, request)

    async def _response(self, completion: Any, body: Json, request: Request) -> Response:
        try:
            choice, message = first_choice(completion)
        except InfraFault as error:
            raise InfraFault(f"{self._to[0].shown}: {error}; check: {self._check}") from None
        if str(choice.get("finish_reason")).lower() in ABORTED:
            raise InfraFault(f"{self._to[0].shown} broke its answer off (finish_reason {choice['finish_reason']!r})")
        if self._learning:
            self._learn(message)
        return response_from_completion(completion, await self._tokens(completion, body, request))

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _refused(self, error: BadRequest, body: Json) -> Response:
        return out_of_context(error, body)

    def _body(self, request: Request, **streaming: Any) -> Json:
        body = chat_request(request.params, self._dialect)
        if self._name:
            body["model"] = self._name
        elif not body.get("model"):
            raise SetupError(f"no model is named: --model chat:NAME; the names it knows: {self._check}")
        # Said aloud: some servers stream unless told not to.
        body |= {"stream": False} | streaming
        if not body.get("store"):
            # For the server's archive of answers. The rest of a task's metadata is nobody's business.
            body.pop("metadata", None)
        return body | self._extra if self._extra else body

    async def _tokens(self, completion: Json, body: Json, request: Request) -> Json | None:
        """The training fields of this call; a server that was not asked for any gives none."""
        return None

    def _learn(self, message: Mapping[str, Any]) -> None:
        """A server that sends reasoning in a field gets it back in that field, so that its chat template finds it there."""
        field: Reasoning = "reasoning_content" if message.get("reasoning_content") else "reasoning"
        if isinstance(message.get(field) or None, str) and self._dialect.reasoning != field:
            self._dialect = replace(self._dialect, reasoning=field)


def _with_wishes(dialect: Dialect, extra: Json) -> Dialect:
    """Takes out of `extra` what is meant for the conversion, not for the server: `send_reasoning`, `developer_role`,
    `send_token_ids`."""
    how = extra.pop("send_reasoning", dialect.reasoning)
    if how not in get_args(Reasoning):
        raise UserError(f"send_reasoning is {how!r}; known: {', '.join(get_args(Reasoning))}")
    role = extra.pop("developer_role", dialect.developer)
    return replace(dialect, reasoning=how, developer=role, tokens=bool(extra.pop("send_token_ids", dialect.tokens)))


ABORTED = ("abort", "error", "cancelled")
"""Finish reasons of servers that gave up a request (shutdown, failed worker): no word of the policy's."""


def out_of_context(error: BadRequest, body: Mapping[str, Any]) -> Response:
    """The answer to a conversation that has outgrown the model: incomplete, empty, with the reason "max_context".

    Raises `error` if the server says anything else, and `InfraFault` if more was asked for than the whole context holds:
    that is a wrong option, and no fault of the conversation.
    """
    if error.code not in CONTEXT_CODES and not (_CONTEXT.search(error.text) and _EXCESS.search(error.text)):
        raise error
    asked = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
    size = _SIZE.search(error.text)
    if size and isinstance(asked, int) and asked >= int(size[1]):
        raise InfraFault(f"max_output_tokens is {asked}, but the model's context is {size[1]} tokens: ask for less; {error}")
    return {
        "id": f"resp_{unique()}",
        "object": "response",
        "created_at": time.time(),
        "model": str(body.get("model") or ""),
        "status": "incomplete",
        "incomplete_details": {"reason": "max_context"},
        "output": [],
        "usage": None,
    }


CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")
_CONTEXT = re.compile(r"(context|model) (length|window|size|limit)|max_new_tokens|prompt is too long", re.IGNORECASE)
_EXCESS = re.compile(r"exceed|longer than|too (long|large)|you requested|contains|must be <=", re.IGNORECASE)
_SIZE = re.compile(r"(?:context|model) (?:length|size|window)(?: is| of)? \(?(\d+)", re.IGNORECASE)
