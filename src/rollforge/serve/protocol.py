"""HTTP/1.1 as our services speak it: the bytes of a connection in, calls of the application and their answers out.

    bytes --httptools--> Exchange --a task--> app(scope, receive, send) --> one write for head and body
                             '-- scope[EXCHANGE], for an application that goes without messages

Any ASGI application runs on it. Requests of one connection are answered one after the other; what comes too early, or
faster than it is read, waits at the sender. uvicorn has the sockets, the lifespan and the shutdown (`serve.run`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import uvicorn
from httptools import HttpParserError, HttpParserInvalidURLError, HttpParserUpgrade, HttpRequestParser, parse_url
from starlette.types import Scope
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from rollforge.records.lossless import dumps
from rollforge.records.problem import Problem, bad_request
from rollforge.serve.exchange import EXCHANGE, Exchange, Headers, status_line

MAX_HEAD = 64 * 2**10
"""Bytes in a row that are no body."""
AHEAD = 64 * 2**10
"""Bytes of a body that wait here to be read."""


class HttpProtocol(asyncio.Protocol):
    """One connection, as uvicorn makes it."""

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        self.transport: asyncio.Transport
        self.full: asyncio.Future[None] | None = None
        """While more waits to be sent than should: done when it is over."""
        self._state = server_state
        self._app: Any = config.loaded_app
        self._refused: Callable[[int], None] | None = getattr(self._app, "refused", None)
        self._keep_seconds = config.timeout_keep_alive
        self._scope: Scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "root_path": ""}
        self._app_state = app_state
        self._loop = asyncio.get_running_loop()
        self._parser: Any = HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._again = b""
        """A head to be read once more, without the wish for another protocol."""
        self._silent = 0
        """Bytes since the last of a body."""
        self._incoming: Exchange | None = None
        """Whose body is coming."""
        self._active: Exchange | None = None
        """Which is being answered; the others wait."""
        self._queued: deque[tuple[Exchange, Scope]] = deque()
        self._paused = self._last = False
        self._idle_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def tasks(self) -> set[Any]:
        return self._state.tasks

    @property
    def headers(self) -> Headers:
        """Of every answer."""
        return self._state.default_headers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._state.connections.add(self)  # type: ignore[arg-type]
        server, client = get_local_addr(self.transport), get_remote_addr(self.transport)
        self._scope = {**self._scope, "scheme": "http", "server": server, "client": client}
        self._close_idle()

    def connection_lost(self, error: Exception | None) -> None:
        self._state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        for exchange in (self._active, *(waiting for waiting, _ in self._queued)):
            if exchange is not None:
                exchange.leave()
        self._queued.clear()
        self._parser = None  # which holds methods of this

    def pause_writing(self) -> None:
        self.full = self._loop.create_future()

    def resume_writing(self) -> None:
        full, self.full = self.full, None
        if full is not None and not full.done():
            full.set_result(None)

    def shutdown(self) -> None:
        """From uvicorn: what is under way may end."""
        self._last = True
        if self._active is None:
            self.transport.close()
        else:
            self._active.keep = False

    def data_received(self, data: bytes) -> None:
        self._silent += len(data)
        try:
            self._feed(data)
        except HttpParserError as error:
            why = error.__context__  # of one that a method of ours ended
            self._refuse(why if isinstance(why, Problem) else bad_request(f"this is no HTTP request: {error}"))
        else:
            if self._silent > MAX_HEAD:
                self._refuse(bad_request(f"the head of a request may have {MAX_HEAD >> 10} KB", status=431))

    def go_on(self) -> None:
        """Read on, after a pause."""
        if self._paused and not self._queued and not self._last and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def finish(self, exchange: Exchange) -> None:
        """It is answered."""
        self._state.total_requests += 1
        if not exchange.keep or self._last:
            self.transport.close()
        elif self._queued:
            self._begin(*self._queued.popleft())
        else:
            self._active = None
            self._idle_since = self._loop.time()
        self.go_on()

    def fail(self, exchange: Exchange) -> None:
        """It will not be answered any more."""
        if not exchange.started and not exchange.gone:
            self._say(Problem(500, "server_error", "this is a bug of the server"))
        self.transport.close()

    # What the parser finds. An exception ends the parsing.

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming is None:  # else it is behind a body in chunks
            name = name.lower()
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise Problem(501, "not_supported_error", f"the transfer encoding {value!r:.100} is not known: send chunked")
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        modern = version == "1.1"
        if parser.should_upgrade() and method != "CONNECT":
            # Nobody needs to follow such a wish, but the parser would take what comes next for the other protocol.
            lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade"]
            self._again = b"%b %b HTTP/%b\r\n%b\r\n" % (method.encode(), self._url, version.encode(), b"".join(lines))
            return
        hosts = sum(name == b"host" for name, _ in headers)
        if hosts > 1 or (modern and not hosts):
            raise bad_request(f"a request of HTTP/1.1 has one Host header, and this has {hosts}")
        shown, query = _target(method, self._url)
        exchange = Exchange(
            self,
            keep=modern and parser.should_keep_alive(),
            modern=modern,
            headless=method == "HEAD",
            expects=modern and any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers),
        )
        scope = {
            **self._scope,
            "http_version": version,
            "method": method,
            "path": unquote(shown) if "%" in shown else shown,
            "raw_path": shown.encode(),
            "query_string": query,
            "headers": headers,
            "state": dict(self._app_state),
            EXCHANGE: exchange,
        }
        self._incoming = exchange
        if self._active is None:
            self._begin(exchange, scope)
        else:
            self._queued.append((exchange, scope))
            self._pause()

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        exchange = self._incoming
        if exchange is not None and not exchange.ended:
            exchange.parts.append(data)
            exchange.ahead += len(data)
            exchange.wake()
            if exchange.ahead > AHEAD:
                self._pause()

    def on_message_complete(self) -> None:
        self._silent = 0
        exchange, self._incoming = self._incoming, None
        if exchange is not None:
            exchange.arrived = True
            exchange.wake()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                self._parser = HttpRequestParser(self)
                data = self._again + data[upgrade.args[0] :]

    def _begin(self, exchange: Exchange, scope: Scope) -> None:
        self._active = exchange
        self.tasks.add(self._loop.create_task(exchange.run(self._app, scope)))

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _end(self) -> None:
        """Nothing more is read."""
        self._last = True
        if self._active is None:
            self.transport.close()
            return
        self._active.keep = False
        self._pause()

    def _refuse(self, problem: Problem) -> None:
        whole = self._active is not None and self._active.arrived
        if not whole and (self._active is None or not self._active.started):
            self._say(problem)
            if self._refused is not None:
                self._refused(problem.status)
        if not whole:
            self.transport.close()
        self._end()

    def _say(self, problem: Problem) -> None:
        request_id = f"req_{secrets.token_hex(12)}"
        body = dumps(problem.row(request_id))
        head = b"content-type: application/json\r\nx-request-id: %b\r\n" % request_id.encode()
        head += b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(status_line(problem.status) + head + body)

    def _close_idle(self) -> None:
        """One timer for a connection, and not one for each of its requests."""
        left = self._idle_since + self._keep_seconds - self._loop.time()
        if self._active is None and left <= 0:
            self.transport.close()
        else:
            wait = left if self._active is None else self._keep_seconds
            self._timer = self._loop.call_later(max(wait, 0.1), self._close_idle)


def _target(method: str, url: bytes) -> tuple[str, bytes]:
    """Path and query. Raises `Problem`, the answer to what is none of ours."""
    if method == "CONNECT":
        raise Problem(501, "not_supported_error", "this is a service and no proxy: it does not CONNECT to others")
    path, _, query = url.partition(b"?")
    try:
        if url[:1] != b"/" or b"#" in url:
            parsed = parse_url(url)
            path, query = parsed.path or b"/", parsed.query or b""
        return path.decode("ascii"), query
    except (HttpParserInvalidURLError, UnicodeDecodeError):
        raise bad_request(f"the target of a request is a path or a URL with a host, not {url[:100]!r}") from None
