"""HTTP/1.1 for calls that are made by the million: kept connections, one write for a request, one future for its answer.

    send --> a kept connection, else a new one (`dial`) --> request --> whole Answer --> kept, if nothing came behind it
    open --> the same, with the answer as soon as its head is there; what nobody reads yet waits at the server

A request is sent again only if it may be repeated, and a kept connection ended without a byte for it. Deadlines are the
caller's; a request that is cancelled closes its connection. Redirects are not followed, cookies not kept. httptools reads
what comes, and takes no liberties; how much comes is limited here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from rollforge.models.broken import Closed, CutOff, NoConnection, NotHttp, TooLarge
from rollforge.models.dial import Dialer, Origin, Target, header_lines
from rollforge.models.unpack import Unpacking

MAX_ANSWER = 64 * 2**20
"""Bytes of one answer's body, unpacked."""
MAX_HEAD = 64 * 2**10
"""Bytes in a row that are no body."""
AHEAD = 256 * 2**10
"""Bytes of an opened answer that wait here to be read."""
IDLE_SECONDS = 4.0
"""uvicorn, which most model servers run on, closes an idle connection after 5 s: do not race with it."""
NONE: Mapping[str, str] = MappingProxyType({})


class Client:
    """Connections to servers, and the headers that each request has. Used by one event loop after another, each has its own
    connections."""

    def __init__(self, headers: Mapping[str, str], *, connect_seconds: float = 10.0, limit: int = MAX_ANSWER) -> None:
        """`limit`: bytes of a body, unpacked. Raises `UserError` for headers that cannot be sent."""
        self.limit = limit
        self._headers = {name.lower(): (name, value) for name, value in headers.items()}
        self._lines = header_lines(dict(self._headers.values()))
        self._connect_seconds = connect_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin()

    def _begin(self) -> None:
        self._dialer = Dialer(self._connect_seconds)
        self._all: set[_Connection] = set()
        self._idle: dict[Origin, dict[_Connection, None]] = {}
        """In the order of their last use."""
        self._sweeping: asyncio.TimerHandle | None = None

    def _here(self) -> asyncio.AbstractEventLoop:
        """The running loop. What another one had ended with it: it can neither be asked nor closed."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._begin()
        return loop

    async def send(self, method: str, to: Target, body: bytes | None = None, headers: Mapping[str, str] = NONE) -> Answer:
        """The whole answer, with its `body`. Raises `Broken`, `TooLarge`, and `UserError` as the constructor does."""
        return await self._ask(to.origin, self._request(method, to, body, headers), method, whole=True)

    async def open(self, method: str, to: Target, body: bytes | None = None, headers: Mapping[str, str] = NONE) -> Answer:
        """The answer whose head has come: to be read to its end, or closed. Raises as `send` does."""
        return await self._ask(to.origin, self._request(method, to, body, headers), method, whole=False)

    async def aclose(self) -> None:
        """Close all connections. A later call makes others."""
        self._here()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in [*self._all]:
            connection.close()
        await asyncio.sleep(0)  # the loop does it

    def keep(self, connection: _Connection) -> None:
        """Until another request needs it."""
        loop = self._here()
        connection.since = loop.time()
        self._idle.setdefault(connection.origin, {})[connection] = None
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        self._idle.get(connection.origin, {}).pop(connection, None)

    async def _ask(self, origin: Origin, request: bytes, method: str, *, whole: bool) -> Answer:
        self._here()
        kept = self._kept(origin)
        if kept is not None:
            answer = Answer(kept, method, whole=whole)
            try:
                return await answer.asked(request)
            except Closed:
                if answer.begun or method not in _IDEMPOTENT:
                    raise
        connection = await self._dialer.connect(origin, lambda: _Connection(self, origin))
        self._all.add(connection)
        return await Answer(connection, method, whole=whole).asked(request)

    def _request(self, method: str, to: Target, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        lines = self._lines
        if headers:
            names = {name.lower() for name in headers}
            if not names.isdisjoint(self._headers):
                lines = header_lines(dict(pair for name, pair in self._headers.items() if name not in names))
            lines += header_lines(headers)
        host = b"" if "host" in self._headers else to.host
        size = b"" if body is None and method in _IDEMPOTENT else b"Content-Length: %d\r\n" % len(body or b"")
        return b"".join((method.encode(), to.line, host, to.auth, lines, size, b"\r\n", body or b""))

    def _kept(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            if connection.usable():
                return connection
            connection.close()
        return None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            return
        old = [connection for idle in self._idle.values() for connection in idle if not connection.usable()]
        for connection in old:
            self.forget(connection)
            connection.close()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep) if self._idle else None


class Answer:
    """An answer, as far as it has come. One that was opened gives the pieces of its body as it is iterated over."""

    __slots__ = (
        *("_connection", "_taken", "_unpacking", "_waiting", "begun", "body", "cookies", "ended", "failure", "headers"),
        *("method", "parts", "reason", "size", "status", "whole"),
    )

    def __init__(self, connection: _Connection, method: str, *, whole: bool) -> None:
        self.method = method
        self.whole = whole
        """Whether it is waited for as a whole."""
        self.status = 0
        """0 until the head is there."""
        self.reason = ""
        self.headers: dict[str, str] = {}
        """By their names in small letters."""
        self.cookies: list[str] = []
        """Each `Set-Cookie`."""
        self.body = b""
        self.parts: list[bytes] = []
        """Of the body, what has come and was not taken."""
        self.size = 0
        """Of all that came of the body, in bytes."""
        self.begun = self.ended = False
        self.failure: Exception | None = None
        self._connection = connection
        self._taken = 0
        self._unpacking: Unpacking | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def ahead(self) -> int:
        """Bytes that came and were not taken."""
        return self.size - self._taken

    async def read(self) -> bytes:
        """What is left of the body."""
        return b"".join([part async for part in self])

    def close(self) -> None:
        """What has not come will not be read."""
        if not self.ended:
            self._connection.close()

    async def asked(self, request: bytes) -> Answer:
        """This answer, as far as it is waited for."""
        connection = self._connection
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            connection.ask(request, self)
            await self._waiting
            if self.failure is not None:
                raise self.failure
            packed = self.headers.get("content-encoding")
            if packed and packed.lower() != "identity":
                self._unpacking = Unpacking(packed.lower(), connection.limit)
            if self.whole:
                self.body = self._take()
                self._check_end()
            return self
        except BaseException:
            self.close()
            raise

    def wake(self) -> None:
        """Tell who waits that more is there."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self.parts:
                data = self._take()
                if data:
                    return data
            elif self.failure is not None:
                raise self.failure
            elif self.ended:
                self._check_end()
                raise StopAsyncIteration
            else:
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting

    def _take(self) -> bytes:
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self._taken = self.size
        if not self.ended:
            self._connection.resume()
        return data if self._unpacking is None else self._unpacking.add(data)

    def _check_end(self) -> None:
        if self._unpacking is not None and not self._unpacking.ended:
            raise CutOff("the end of what is packed is missing")


class _Connection(asyncio.Protocol):
    """One connection: with an answer under way, or idle."""

    def __init__(self, client: Client, origin: Origin) -> None:
        self.origin = origin
        self.limit = client.limit
        self.since = 0.0
        """When it became idle, by the clock of the loop."""
        self.transport: asyncio.Transport
        self._client = client
        self._parser: Any = HttpResponseParser(self)
        self._answer: Any = None
        """An `Answer`, or None."""
        self._length = -1
        """What the head of the answer says; -1 if it says nothing."""
        self._silent = 0
        """Bytes since the last of a body."""
        self._again = self._paused = False

    def usable(self) -> bool:
        return not self.transport.is_closing() and asyncio.get_running_loop().time() - self.since < IDLE_SECONDS

    def ask(self, request: bytes, answer: Answer) -> None:
        self._answer, self._length, self._silent = answer, -1, 0
        if self.transport.is_closing():
            self._fail(NoConnection("it was closed at once"))
        else:
            self.transport.write(request)

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        # Not `close`, which would wait for what is still to be sent.
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody has asked
            self.close()
            return
        answer.begun = True
        before, failure = answer.size, None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            failure = NotHttp("it changes to another protocol")
        except HttpParserError as error:
            failure = NotHttp(str(error.__context__ or error))
        self._silent = 0 if answer.size > before else self._silent + len(data)
        if max(answer.size, self._length) > self.limit:
            self._fail(TooLarge())
        elif answer.ended:
            self._end(keep=failure is None and self._again)
        elif failure is not None:
            self._fail(failure)
        elif self._silent > MAX_HEAD:
            self._fail(NotHttp(f"more than {MAX_HEAD >> 10} KiB that are no body"))
        elif answer.status and not answer.whole:
            if answer.ahead > AHEAD and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            answer.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._client.forget(self)
        self._parser = None  # which holds methods of this
        answer = self._answer
        if answer is None:
            return
        if not answer.status:
            self._fail(Closed(str(error or "before its answer was complete")))
        elif error is not None:
            self._fail(CutOff(str(error)))
        elif self._length >= 0 or "transfer-encoding" in answer.headers:
            self._fail(CutOff(f"{answer.size} of {self._length} bytes came" if self._length >= 0 else "its end is missing"))
        else:
            answer.ended = True
            self._end(keep=False)

    def _end(self, *, keep: bool) -> None:
        answer, self._answer = self._answer, None
        # An answer may come before all that it answers was sent.
        if keep and not self.transport.get_write_buffer_size():
            self._client.keep(self)
        else:
            self.close()
        answer.wake()

    def _fail(self, failure: Exception) -> None:
        answer, self._answer = self._answer, None
        answer.failure = failure
        self.close()
        answer.wake()

    # What the parser finds. An exception ends the parsing.

    def on_message_begin(self) -> None:
        if self._answer.ended:
            raise NotHttp("it answered twice")

    def on_status(self, reason: bytes) -> None:
        self._answer.reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if answer.status:  # behind a body in chunks
            return
        key, text = name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")
        if key == "set-cookie":
            answer.cookies.append(text)
        elif key in answer.headers:
            answer.headers[key] += f", {text}"
        else:
            answer.headers[key] = text

    def on_headers_complete(self) -> None:
        answer = self._answer
        answer.status = self._parser.get_status_code()
        self._length = int(answer.headers.get("content-length", -1))
        if answer.method == "HEAD" and answer.status >= 200:
            answer.ended, self._again, self._length = True, False, 0
            raise NotHttp("a body is told of, and does not follow")
        if answer.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise NotHttp(f"an answer in the form {answer.headers['transfer-encoding']!r:.100}")

    def on_body(self, data: bytes) -> None:
        self._answer.parts.append(data)
        self._answer.size += len(data)

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer.status < 200:  # on the way to the answer
            answer.status, answer.reason = 0, ""
            answer.headers.clear()
            answer.cookies.clear()
            self._length = -1
        else:
            answer.ended = True
            self._again = self._parser.should_keep_alive()


_SWEEP_SECONDS = 1.0
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
