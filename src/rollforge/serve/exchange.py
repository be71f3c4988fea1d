"""One HTTP request and its answer, between a connection (`serve.protocol`) and the application."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Scope

from rollforge.errors import describe

log = logging.getLogger(__name__)

EXCHANGE = "rollforge.exchange"
"""Where a scope has its `Exchange`."""
Headers = Iterable[tuple[bytes, bytes]]


class Link(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    full: asyncio.Future[None] | None
    """While more waits to be sent than should: done when it is over."""

    @property
    def headers(self) -> Headers:
        """Of every answer."""
        ...

    @property
    def tasks(self) -> set[Any]: ...
    def go_on(self) -> None:
        """Read on, after a pause."""
        ...

    def finish(self, exchange: Any) -> None:
        """It is answered."""
        ...

    def fail(self, exchange: Any) -> None:
        """It will not be answered any more."""
        ...


class Exchange:
    """One request and its answer."""

    __slots__ = (
        *("_chunked", "_left", "_link", "_start", "_told", "_waiting", "_watching", "ahead", "arrived", "ended", "expects"),
        *("gone", "headless", "keep", "modern", "parts", "started"),
    )

    def __init__(self, link: Link, *, keep: bool, modern: bool, headless: bool, expects: bool) -> None:
        self.keep = keep
        """Whether the connection is kept after the answer."""
        self.modern = modern
        """Whether the caller knows chunks."""
        self.headless = headless
        """Whether it wants the head alone."""
        self.expects = expects
        """Whether the body comes only when it has been asked for."""
        self.parts: list[bytes] = []
        """Of the body, what has come and was not taken: `ahead` bytes."""
        self.ahead = 0
        self.arrived = self.started = self.ended = self.gone = False
        """The body has come; the answer has begun, is whole; the caller has gone away."""
        self._link = link
        self._told = self._chunked = False
        self._left: int | None = None
        self._start: Message | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._watching: list[Callable[[], object]] = []

    def whole(self) -> bytes | None:
        """The body, if it has come and nobody has begun to read it."""
        if self._told or not self.arrived:
            return None
        self._told = True
        return self._taken()

    async def respond(self, status: int, headers: Headers, body: bytes | memoryview) -> None:
        """The whole answer, in one write."""
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def watch(self, call: Callable[[], object]) -> None:
        """Have it called when the caller goes away."""
        self._watching.append(call)
        if self.gone:
            asyncio.get_running_loop().call_soon(call)

    def unwatch(self, call: Callable[[], object]) -> None:
        self._watching.remove(call)

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def leave(self) -> None:
        """The caller has gone."""
        self.gone = not self.ended
        self.wake()
        for call in [*self._watching] if self.gone else ():
            call()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self.receive, self.send)
            if not self.ended and not self.gone:
                log.error("%s %s: the application gave no whole answer", scope["method"], scope["path"])
        except Exception as error:
            log.error("%s %s: %s", scope["method"], scope["path"], describe(error), exc_info=error)
        finally:
            if not self.ended:
                self._link.fail(self)
            self._link.tasks.discard(asyncio.current_task())

    async def receive(self) -> Message:
        """As ASGI has it."""
        if self.expects and not self.started:
            self.expects = False
            self._link.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.gone or self.ended or self.parts or (self.arrived and not self._told)):
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]
        if self.gone or self.ended:
            return {"type": "http.disconnect"}
        self._told = self.arrived
        return {"type": "http.request", "body": self._taken(), "more_body": not self.arrived}

    async def send(self, message: Message) -> None:
        """As ASGI has it; the head is written with the first of the body."""
        if self.gone:
            return
        if message["type"] == "http.response.start" and self._start is None:
            self._start = message
            return
        if message["type"] != "http.response.body" or self._start is None or self.ended:
            raise RuntimeError(f"{message['type']} is not what comes next in an answer")
        if self._link.full is not None:
            await asyncio.shield(self._link.full)
        body, more, head = message.get("body", b""), message.get("more_body", False), b""
        if not self.started:
            head = self._head(self._start["status"], self._start.get("headers", ()), None if more else len(body))
            self.started = True
        if self.headless:
            body, self._left = b"", None
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer is not as long as its head says")
        if not self._link.transport.is_closing():
            self._link.transport.write(head + body)
        if not more:
            self.ended = True
            self.wake()
            self._link.finish(self)

    def _head(self, status: int, headers: Headers, size: int | None) -> bytes:
        """`size` of the body, None if nobody knows."""
        lines = [status_line(status)]
        if self.expects and not self.arrived:
            self.keep = False  # the body was not asked for, and whether it comes nobody knows
        told = closes = status in (204, 304)
        for name, value in (*self._link.headers, *headers):
            if _BREAK.search(name) or _BREAK.search(value):
                raise RuntimeError(f"the header {name!r} has a line break")
            key = name.lower()
            if key == b"content-length":
                told, self._left = True, int(value)
            elif key == b"transfer-encoding":
                told, self._chunked = True, True
            elif key == b"connection" and b"close" in value.lower():
                self.keep, closes = False, True
            lines += (key, b": ", value, b"\r\n")
        if not told and size is not None:
            lines.append(b"content-length: %d\r\n" % size)
        elif not told and self.modern:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        elif not told:
            self.keep = False  # its end is that of the connection
        lines.append(b"\r\n" if self.keep or closes else b"connection: close\r\n\r\n")
        return b"".join(lines)

    def _taken(self) -> bytes:
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self.ahead = 0
        self._link.go_on()
        return body


@cache
def status_line(code: int) -> bytes:
    try:
        return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\n".encode()
    except ValueError:
        return f"HTTP/1.1 {code} \r\n".encode()


_BREAK = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
