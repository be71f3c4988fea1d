"""Several workers behind one socket: what belongs to another worker's session or rollout is passed on to it.

    caller --> any worker --> own, or nobody's: answered here
                   '--> /run/.../<service>.<n> (a unix socket) --> the worker n that the cookie or the path names,
                        or for a session opened with an Idempotency-Key, the one that the key falls to

`/metrics` and `/status` are asked of all workers and summed. Everything else about a request (token, limits, errors) is
looked at where it is answered.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
from multidict import CIMultiDict
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.records.problem import IDEMPOTENCY_KEY, Problem
from rollforge.serve.app import Gauges, shut_down
from rollforge.serve.sessions import COOKIE, MCP_SESSION, MCP_TOKEN, worker_of

ASK_SECONDS = 5.0


class Forward:
    """The outermost middleware of a service with several workers. `paths`: the unix socket of each worker."""

    def __init__(self, app: ASGIApp, *, gauges: Gauges, worker: int, paths: Sequence[str]) -> None:
        self._app = app
        self._gauges = gauges
        self._worker = worker
        self._paths = paths
        self._pools: dict[int, aiohttp.ClientSession] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                for pool in self._pools.values():
                    await pool.close()
            return
        server = scope.get("server")
        if scope["type"] != "http" or server is None or server[1] is None:  # from another worker: it ends here
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and scope["path"] in _SUMMED:
            await self._of_all(scope, receive, send)
        else:
            owner = _owner(scope, len(self._paths))
            own = owner is None or owner == self._worker or owner >= len(self._paths)
            # While it is shutting down, this one refuses it as well as the other, which may have ended.
            if own or owner is None or self._gauges.draining:
                await self._app(scope, receive, send)
            else:
                self._gauges.number += 1  # in flight here too: this worker ends after it
                try:
                    await self._pass_on(owner, scope, receive, send)
                finally:
                    self._gauges.number -= 1

    def _pool(self, worker: int) -> aiohttp.ClientSession:
        if worker not in self._pools:
            self._pools[worker] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._paths[worker], limit=0, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=ASK_SECONDS),  # the other worker has deadlines
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                max_line_size=1 << 16,
                max_field_size=1 << 16,
            )
        return self._pools[worker]

    async def _pass_on(self, owner: int, scope: Scope, receive: Receive, send: Send) -> None:
        """The whole request and its answer, as streams. A caller that goes away ends the request over there too."""
        sent_all, begun = asyncio.Event(), False

        async def content() -> AsyncIterator[bytes]:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                more = message.get("more_body", False)
                if message.get("body"):
                    yield message["body"]
            sent_all.set()

        async def exchange() -> None:
            nonlocal begun
            headers = _carried(scope["headers"])
            has_body = "Content-Length" in headers or "Transfer-Encoding" in {name.title() for name, _ in _decoded(scope)}
            if not has_body:
                async for _ in content():
                    pass
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            url = URL(f"http://worker{scope['raw_path'].decode('latin-1')}{query}", encoded=True)
            async with self._pool(owner).request(
                scope["method"], url, headers=headers, data=content() if has_body else None, allow_redirects=False
            ) as found:
                begun = True
                kept = [(name.lower(), value) for name, value in found.raw_headers if name.lower() not in _HOP_BYTES]
                await send({"type": "http.response.start", "status": found.status, "headers": kept})
                async for chunk in found.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def until_gone() -> None:
            await sent_all.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        work, gone = asyncio.ensure_future(exchange()), asyncio.ensure_future(until_gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except asyncio.CancelledError:
            if begun:
                raise
            await _say(shut_down(), scope, receive, send)  # nobody else cancels a request here
        except (aiohttp.ClientError, TimeoutError, OSError, _Gone) as error:
            if begun:
                raise
            if not isinstance(error, _Gone) and not isinstance(error.__cause__, _Gone):
                await _say(_lost(error, opening=scope["path"].endswith(_OPENING)), scope, receive, send)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _of_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _carried(scope["headers"])
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(worker, scope["path"], headers)) for worker in range(len(self._paths))]
        answers = [task.result() for task in asked]
        own = answers[self._worker]
        if own is None or own[0] != 200:
            await self._app(scope, receive, send)
            return
        bodies = [body for status, body, _ in filter(None, answers) if status == 200]
        merged = summed(bodies) if scope["path"] == "/metrics" else together(bodies, own[1])
        await Response(merged, media_type=None, headers={"Content-Type": own[2]})(scope, receive, send)

    async def _ask(self, worker: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes, str] | None:
        """Status, body and content type; None of a worker that does not answer."""
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        try:
            async with self._pool(worker).get(f"http://worker{path}", headers=headers, timeout=timeout) as found:
                return found.status, await found.read(), found.headers.get("Content-Type", "")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


def summed(pages: Sequence[bytes]) -> bytes:
    """One page of metrics from those of all workers: samples of the same name and labels are added up."""
    lines: dict[str, float | None] = {}
    for page in pages:
        for line in page.decode().splitlines():
            if line.startswith("#"):
                lines.setdefault(line, None)
                continue
            name, _, value = line.rpartition(" ")
            before = lines.get(name)
            if "_created" in name.partition("{")[0]:
                lines[name] = min(float(value), before or float(value))
            else:
                lines[name] = float(value) + (before or 0.0)
    # A family that one worker has and another lacks comes later: its samples follow its own heading all the same.
    heads: dict[str, list[str]] = {}
    for line, number in lines.items():
        family = line.split(" ")[2] if line.startswith("# ") else _family(line, heads)
        heads.setdefault(family, []).append(line if number is None else f"{line} {number!r}")
    return "".join(f"{line}\n" for group in heads.values() for line in group).encode()


def together(statuses: Sequence[bytes], own: bytes) -> bytes:
    """The status of this worker with the whole numbers of all added up, and each worker's beside it."""
    read: list[Json] = [loads(status) for status in statuses]
    return dumps({**_added(loads(own), read), "workers": read})


def _added(own: Json, others: Sequence[Json]) -> Json:
    total = dict(own)
    for key, value in own.items():
        beside = [other.get(key) for other in others]
        if type(value) is int and key != "pid":
            total[key] = sum(number for number in beside if isinstance(number, int))
        elif isinstance(value, dict):
            total[key] = _added(value, [inner for inner in beside if isinstance(inner, dict)])
    return total


class _Gone(Exception):
    """The caller went away while it was sending."""


def _owner(scope: Scope, workers: int) -> int | None:
    """The worker that a gateway's path names, else the one of the session's cookie, else of the key of its opening."""
    found = _ROLLOUT.match(scope["path"])
    if found:
        return int(found[1])
    owner = falls = None
    for name, value in _decoded(scope):
        if name in _NAMED:
            return worker_of(value)
        if name == _KEY and scope["path"].endswith(_OPENING):
            falls = zlib.crc32(value.encode()) % workers
        if name == "cookie":
            for pair in value.split(";"):
                key, _, cookie = pair.strip().partition("=")
                if key == COOKIE:
                    owner = worker_of(cookie.strip('"'))
    return falls if owner is None else owner


def _decoded(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def _carried(headers: Sequence[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name.decode("latin-1").title(), value.decode("latin-1")) for name, value in headers if name not in _HOP_BYTES
    )


def _lost(error: Exception, *, opening: bool) -> Problem:
    if isinstance(error, (aiohttp.ClientConnectorError, TimeoutError)):
        if opening:
            return shut_down()  # nothing was done: to be asked again, when another runs in its place
        return Problem(410, "session_over", "the worker that had it is gone, and it is over: open a new one")
    return Problem(502, "infra_fault", f"the worker that has it broke off ({type(error).__name__})")


async def _say(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = f"req_{secrets.token_hex(12)}"
    headers = {**problem.headers, "X-Request-Id": request_id}
    content = dumps(problem.row(request_id))
    await Response(content, problem.status, headers, "application/json")(scope, receive, send)


def _family(line: str, heads: Mapping[str, Any]) -> str:
    name = line.partition("{")[0]
    return next((name.removesuffix(end) for end in _ENDS if name.endswith(end) and name.removesuffix(end) in heads), name)


_ENDS = ("_bucket", "_count", "_sum", "")
_SUMMED = ("/metrics", "/status")
_KEY = IDEMPOTENCY_KEY.lower()
_OPENING = ("/seed_session", "/reset")
_NAMED = (MCP_SESSION.lower(), MCP_TOKEN.lower())
_ROLLOUT = re.compile(r"/rollouts/(\d{1,4})\.")
_HOP_BYTES = (
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"),
    *(b"transfer-encoding", b"upgrade", b"date", b"expect"),
)
