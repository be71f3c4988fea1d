"""A model for tests of services: it calls the first tool it is given, then says what the tool said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from rollforge.models.base import Request
from rollforge.models.stream import Delta
from rollforge.records.items import Response, assistant, function_call, input_items, prompt_text

TOKENS = {"prompt_token_ids": [1, 2], "generation_token_ids": [3, 4], "generation_log_probs": [-0.5, -0.25]}


class Talker:
    """Remembers what it was asked. `before` is awaited first; `fail` is raised, in a stream after the first delta."""

    def __init__(self, *, fail: Exception | None = None, hang: bool = False) -> None:
        self.asked: list[Request] = []
        self.fail = fail
        self.hang = hang
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Request, /) -> Response:
        self.asked.append(request)
        self.begun.set()
        if self.fail is not None:
            raise self.fail
        if self.hang:
            await self._wait()
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        items = input_items(request.params)
        outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
        thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
        if request.params.get("tools") and not outputs:
            name = request.params["tools"][0]["name"]
            output: list[Any] = [thought, function_call(name, '{"city": "Rome"}', "call_1", "fc_1") | TOKENS]
        else:
            text = outputs[-1] if outputs else prompt_text(request.params)
            output = [thought, assistant(text if isinstance(text, str) else "parts", "msg_1") | TOKENS]
        usage: Any = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
        return {"id": "resp_1", "model": "talker", "status": "completed", "output": output, "usage": usage}

    async def _wait(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Streamer(Talker):
    """The same, in pieces of one character."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Response, None]:
        self.asked.append(request)
        self.begun.set()
        response = self._answer(request)
        for index, item in enumerate(response["output"]):
            if item["type"] == "function_call":
                yield Delta("call", "", index, item["call_id"], item["name"])
                kind, text = "arguments", item["arguments"]
            elif item["type"] == "reasoning":
                kind, text = "reasoning", item["summary"][0]["text"]
            else:
                kind, text = "text", item["content"][0]["text"]
            for piece in text:
                yield Delta(kind, piece, index)
                if self.fail is not None:
                    raise self.fail
                if self.hang:
                    await self._wait()
        yield response
