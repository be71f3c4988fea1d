"""Calls to other servers: within the process as a function call, else over HTTP.

    ServerClient.post(name) --> served in this process --> the application itself, no socket
                            '-> else its host and port --> one aiohttp session for each event loop

A call is sent again only if no connection could be made, for half a minute: a server that is starting. What may have
arrived is never sent twice.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from starlette.types import ASGIApp, Message
from yarl import URL

from rollforge.models.hops import hop
from rollforge.records.lossless import dumps, loads

LONGEST = 3600.0
"""Seconds, unless the caller gives a `timeout`."""
PATIENCE = 30.0
"""Seconds in which a server that refuses connections may still start."""


class Answer:
    """The answer of an application in this process, as far as servers use aiohttp's."""

    def __init__(self, method: str, url: URL, status: int, headers: CIMultiDict[str], body: bytes) -> None:
        self.method = method
        self.url = self.real_url = url
        self.status = status
        self.headers = CIMultiDictProxy(headers)
        self.reason = ""
        self.content = self
        self.cookies: SimpleCookie = SimpleCookie()
        for header in headers.getall("Set-Cookie", []):
            self.cookies.load(header)
        self._body = body

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def request_info(self) -> aiohttp.RequestInfo:
        return aiohttp.RequestInfo(self.url, self.method, CIMultiDictProxy(CIMultiDict()), self.url)

    async def read(self) -> bytes:
        return self._body

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        return self._body.decode(encoding or "utf-8", errors)

    async def json(self, **_: Any) -> Any:
        return loads(self._body)

    def raise_for_status(self) -> None:
        if not self.ok:
            raise aiohttp.ClientResponseError(self.request_info, (), status=self.status, headers=self.headers)

    def release(self) -> None: ...

    def close(self) -> None: ...


async def call(app: ASGIApp, method: str, path: str, base: str, **options: Any) -> Answer:
    """Run one request through `app`. Takes what aiohttp's `request` takes: json, data, headers, cookies, params, timeout."""
    headers = CIMultiDict(options.get("headers") or {})
    body = options.get("data") or b""
    if options.get("json") is not None:
        body = dumps(options["json"])
        headers.setdefault("Content-Type", "application/json")
    cookies = {name: getattr(value, "value", value) for name, value in dict(options.get("cookies") or {}).items()}
    if cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    headers.update(hop())
    url = URL(base + path)
    query = url.raw_query_string or urlencode(options.get("params") or {})
    body = body.encode() if isinstance(body, str) else bytes(body)
    headers["Content-Length"] = str(len(body))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": "http",
        "path": url.path,
        "raw_path": url.raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), str(value).encode("latin-1")) for name, value in headers.items()],
        "server": ("127.0.0.1", 0),
        "client": ("127.0.0.1", 0),
        "state": {},
        "rollforge.inside": True,
    }
    async with asyncio.timeout(_seconds(options.get("timeout"))):
        status, given, answer = await _exchange(app, scope, body)
    return Answer(method.upper(), url, status, given, answer)


async def _exchange(app: ASGIApp, scope: dict[str, Any], body: bytes) -> tuple[int, CIMultiDict[str], bytes]:
    sent = False
    status = 500
    headers: CIMultiDict[str] = CIMultiDict()
    parts: list[bytes] = []

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()  # the caller stays until it has its answer
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.extend((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, headers, b"".join(parts)


async def http(method: str, url: str, **options: Any) -> aiohttp.ClientResponse:
    """One request over HTTP; the body of the answer is still to be read."""
    options["headers"] = {**(options.get("headers") or {}), **hop()}
    options.setdefault("timeout", aiohttp.ClientTimeout(total=LONGEST, sock_connect=10))
    if options.get("cookies") is not None:
        options["cookies"] = {name: getattr(value, "value", value) for name, value in dict(options["cookies"]).items()}
    until = asyncio.get_running_loop().time() + PATIENCE
    pause = 0.05
    while True:
        try:
            return await _session().request(method, url, **options)
        except aiohttp.ClientConnectorError:
            if asyncio.get_running_loop().time() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2)


async def aclose() -> None:
    """Close the connections of the running event loop."""
    session = _sessions.pop(asyncio.get_running_loop(), None)
    if session is not None:
        await session.close()


def _session() -> aiohttp.ClientSession:
    loop = asyncio.get_running_loop()
    if loop not in _sessions or _sessions[loop].closed:
        # Cookies are the callers' business: each of them is another session.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=25)
        _sessions[loop] = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    return _sessions[loop]


def _seconds(timeout: Any) -> float | None:
    if isinstance(timeout, aiohttp.ClientTimeout):
        return timeout.total
    return LONGEST if timeout is None else float(timeout)


_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = weakref.WeakKeyDictionary()

Applications = Mapping[str, ASGIApp]
