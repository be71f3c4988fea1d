"""The chunks of Chat Completions: a role, pieces, a reason to finish, usage where it was asked for, [DONE]."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rollforge.models.stream import Delta
from rollforge.records.items import Json, Response
from rollforge.records.messages import unique
from rollforge.records.problem import Problem
from rollforge.serve.events import event, rest

DONE = b"data: [DONE]\n\n"


class ChatEvents:
    """One answer. `completion` makes of a response what the client would get without streaming."""

    def __init__(self, model: str, completion: Any, *, usage: bool = False) -> None:
        self._completion = completion
        self._usage = usage
        self._own: Json = {
            "id": f"chatcmpl-{unique()}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._sent = {"content": "", "reasoning_content": ""}
        self._last = {"content": -1, "reasoning_content": -1}
        self._calls: dict[int, int] = {}
        """Index of the item -> of the call."""
        self._arguments: list[str] = []

    def start(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def delta(self, delta: Delta) -> Iterator[bytes]:
        if delta.kind == "call":
            yield self._call(delta.index, delta.call_id, delta.name)
        elif delta.kind == "arguments" and delta.index in self._calls:
            yield self._more_arguments(self._calls[delta.index], delta.text)
        elif delta.kind in ("text", "reasoning") and delta.text:
            field, between = ("content", "\n") if delta.kind == "text" else ("reasoning_content", "\n\n")
            # Several items of a kind are one message: joined as `records.messages` joins them.
            apart = between if self._sent[field] and self._last[field] != delta.index else ""
            self._last[field] = delta.index
            yield self._say(field, apart + delta.text)

    def end(self, response: Response) -> Iterator[bytes]:
        completion = self._completion(response)
        choice = completion["choices"][0]
        message = dict(choice["message"])
        self._own["model"] = completion["model"] or self._own["model"]
        for field in ("reasoning_content", "content"):
            said = message.pop(field, None)
            more = rest(self._sent[field], said) if isinstance(said, str) else said
            if more:
                yield self._say(field, more)
        for place, call in enumerate(message.pop("tool_calls", ())):
            function = call["function"]
            if place >= len(self._arguments):
                yield self._call(-1 - place, call["id"], function["name"])
            more = rest(self._arguments[place], function["arguments"])
            if more:
                yield self._more_arguments(place, more)
        message.pop("role", None)
        last = {key: value for key, value in choice.items() if key not in ("index", "message", "finish_reason")}
        yield self._chunk(message, choice["finish_reason"], **last)
        if self._usage:
            yield event({**self._own, "choices": [], "usage": completion["usage"]})
        yield DONE

    def error(self, problem: Problem, request_id: str) -> Iterator[bytes]:
        yield event(problem.row(request_id))
        yield DONE

    def _say(self, field: str, text: Any) -> bytes:
        if isinstance(text, str):
            self._sent[field] += text
        return self._chunk({field: text})

    def _call(self, index: int, call_id: str, name: str) -> bytes:
        place = self._calls[index] = len(self._arguments)
        self._arguments.append("")
        call = {"index": place, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        return self._chunk({"tool_calls": [call]})

    def _more_arguments(self, place: int, text: str) -> bytes:
        self._arguments[place] += text
        return self._chunk({"tool_calls": [{"index": place, "function": {"arguments": text}}]})

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None, **choice: Any) -> bytes:
        found = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, **choice}
        return event({**self._own, "choices": [found], **({"usage": None} if self._usage else {})})
