"""A model server that answers as it is told and remembers what it was asked; and one that speaks raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web


@dataclass
class Reply:
    """One answer: JSON, or bytes as they are."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: Any


HANG = Reply(status=0)
"""No answer at all, until the client gives up."""


@dataclass
class Server:
    url: str = ""
    """The base URL, ending with /v1."""
    answers: list[Any] = field(default_factory=list)
    """Of one call each, in order; the last one for ever. A Reply, a JSON value, or a function of the request's body."""
    seen: list[Seen] = field(default_factory=list)

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    async def handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = orjson.loads(raw) if raw else None
        self.seen.append(Seen(request.path_qs, dict(request.headers), body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Callable):
            answer = answer(body)
        if answer is HANG:
            await asyncio.Event().wait()
        reply = answer if isinstance(answer, Reply) else Reply(answer)
        payload = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
        headers = {"Content-Type": "application/json", **reply.headers}
        return web.Response(body=payload, status=reply.status, headers=headers)


@asynccontextmanager
async def serve(*answers: Any) -> AsyncIterator[Server]:
    server = Server(answers=list(answers))
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/v1"
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """Reads a request, writes `answer`, closes. Yields the base URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}/v1"


@asynccontextmanager
async def closing(model: Any) -> AsyncIterator[Any]:
    try:
        yield model
    finally:
        if hasattr(model, "aclose"):
            await model.aclose()


def completion(text: str | None = "hi", calls: Any = (), finish: str | None = None, **message: Any) -> dict[str, Any]:
    """What a chat server answers. `calls` are (name, arguments)."""
    made = [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text, **message} | ({"tool_calls": made} if made else {})
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1756074069,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if made else "stop")}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
