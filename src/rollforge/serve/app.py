"""What all services share: one ASGI application with health, limits, token, request ids, metrics and one error shape.

    request --> Gate: id, draining?, token?, size and time limits, count --> route --> JSON
                 '-- every exception --> problem.row()

Routes take the `Request` and nothing else, read its raw body (`body`) and write raw JSON (`answer`): typed bodies would cost
more than the work itself. What they take and give is declared for the OpenAPI page by `openapi_extra=spec(...)`. FastAPI
has the page and the paths with parameters; the gate itself finds those without, at a third of the cost.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import secrets
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollforge import __version__
from rollforge.errors import UserError, describe
from rollforge.models.hops import REQUEST_ID
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.records.problem import Problem, bad_request, problem_of
from rollforge.serve.exchange import EXCHANGE, Exchange
from rollforge.serve.gone import Gone
from rollforge.serve.limit import LIMIT, Limit
from rollforge.serve.settings import Settings

log = logging.getLogger(__name__)

OPEN = ("/", "/health", "/ready")
"""Paths that need no token."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNKNOWN = "(unknown)"

Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    title: str,
    description: str,
    routers: Sequence[APIRouter],
    settings: Settings,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    status: Callable[[], Json] = dict,
    keyed: tuple[str, ...] = (),
) -> App:
    """The application of one service.

    `keyed` are beginnings of paths whose routes check keys of their own: the token of the service is not asked for there.
    `status` is what `/status` shows beside uptime and requests in flight.
    Raises `UserError` if the variable that should hold the token is not set.
    """
    app = App(
        title=title, description=description, version=__version__, lifespan=lifespan, redoc_url=None, redirect_slashes=False
    )
    # FastAPI's own answers (unknown path, wrong method) take the same shape; the rest is the gate's.
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _http_error)
    gauges = Gauges()
    app.state.gauges = gauges
    routers = [common(gauges, status), *routers]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.state.methods = {route.path: set() for route in routes}
    for route in routes:
        app.state.methods[route.path] |= route.methods or set()
        if route.param_convertors and route.openapi_extra is not None:
            route.openapi_extra["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in route.param_convertors
            ]
    for router in routers:
        app.include_router(router)
    direct = {
        (method, route.path): route.endpoint
        for route in routes
        if not route.param_convertors
        for method in route.methods or ()
    }
    # Without the outermost layer, which answers what goes wrong with a page of its own: that is for the gate to do.
    inner: Any = app.build_middleware_stack()
    app.front = Gate(inner.app, settings, gauges, direct, keyed)
    return app


class App(FastAPI):
    """FastAPI behind the gate: what the gate answers itself does not pass through FastAPI at all."""

    front: ASGIApp

    def refused(self, status: int) -> None:
        """What was no request, and was answered before it could become one."""
        self.state.gauges.count(UNKNOWN, UNKNOWN, status, time.perf_counter())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.front(scope, receive, send)


class Gauges(Collector):
    """What `/metrics` shows of one application. Services add their own to `registry`.

    Requests are counted here, and become metrics when they are asked for: prometheus_client's own cost many times as much.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = time.time()
        self.draining = False
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, list[float]] = {}
        """Of each path: how many answers took as long as each of `_BOUNDS`, how many longer, and the sum."""
        self.registry.register(self)
        self.in_flight = Gauge("rollforge_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.number = 0
        self.in_flight.set_function(lambda: self.number)

    def count(self, method: str, path: str, status: int, started: float) -> None:
        """A request that is answered. `path` is the route's, not the caller's: there are few of them."""
        key = (method if method in METHODS else UNKNOWN, path, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        seen = self._seconds.get(path) or self._seconds.setdefault(path, [0.0] * (len(_BOUNDS) + 2))
        took = time.perf_counter() - started
        seen[bisect_left(_BOUNDS, took)] += 1
        seen[-1] += took

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        requests = CounterMetricFamily("rollforge_requests", "Requests answered.", labels=("method", "path", "status"))
        for (method, path, status), count in self._requests.items():
            requests.add_metric((method, path, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily("rollforge_request_seconds", "Time to answer.", labels=("path",))
        for path, (*counts, total) in self._seconds.items():
            names = (*(str(bound) for bound in _BOUNDS), "+Inf")
            seconds.add_metric((path,), list(zip(names, accumulate(counts), strict=True)), total)
        yield seconds


class Gate:
    """What every HTTP request passes first, and every exception last."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        gauges: Gauges,
        direct: Mapping[tuple[str, str], Handler],
        keyed: tuple[str, ...] = (),
    ) -> None:
        self.app = app
        self._keyed = keyed
        self._direct = direct
        self._gauges = gauges
        self._settings = settings
        self._max = int(settings.max_body_mb * 2**20)
        self._token = token_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD" and scope["path"] in OPEN:  # as some that watch over services ask
            scope["method"] = "GET"
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        started = time.perf_counter()
        status, path = 0, ""
        limit = scope[LIMIT] = Limit(self._settings.request_seconds)
        gauges = self._gauges
        gauges.number += 1

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            if "rollforge.inside" not in scope:  # called within the process, by what was admitted itself
                self._admit(scope["path"], headers)
            async with limit.deadline:
                endpoint = self._direct.get((scope["method"], scope["path"]))
                if endpoint is None:
                    await self.app(scope, self._limited(receive), send_with_id)
                else:
                    path = scope["path"]
                    exchange: Exchange | None = scope.get(EXCHANGE)
                    found = await endpoint(self._request(scope, receive, exchange))
                    found.raw_headers.append((b"x-request-id", request_id.encode()))
                    status = found.status_code
                    if exchange is not None and type(found) is Response and found.background is None:
                        await exchange.respond(status, found.raw_headers, found.body)
                    else:
                        await found(scope, receive, send)
        except asyncio.CancelledError:
            if status or not gauges.draining:
                raise
            # The time for finishing is over: the caller is told instead of cut off.
            await _send(shut_down(), request_id, scope, receive, send_with_id)
        except Exception as error:
            late = isinstance(error, TimeoutError) and limit.deadline.expired()
            gone = isinstance(error, ClientDisconnect)
            problem = limit.ran_out() if late else Gone() if gone else problem_of(error)
            if status and late:
                return  # nobody takes the rest: it is cut off
            if problem is None:
                log.error("request %s: %s", request_id, describe(error), exc_info=error)
                # What went wrong stays in the log: it may hold what the caller must not see.
                problem = Problem(500, "server_error", f"this is a bug of the server; its log has it under {request_id}")
            if status:
                raise  # the answer is under way: cutting it off is all that is left
            await _send(problem, request_id, scope, receive, send_with_id)
        finally:
            gauges.number -= 1
            REQUEST_ID.reset(token)
            path = path or getattr(scope.get("route"), "path", UNKNOWN)
            gauges.count(scope["method"], path, limit.status or status, started)

    def _admit(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        free = path in OPEN or path.startswith(self._keyed)
        if self._token is not None and not free and not self._knows(headers):
            how = {"WWW-Authenticate": "Bearer"}
            sent = b"authorization" in headers or b"x-api-key" in headers
            what = "that is not the token of this service" if sent else "a bearer token is needed"
            raise Problem(401, "authentication_error", f"{what}: Authorization: Bearer ...", headers=how)
        if self._gauges.draining and path not in OPEN:
            raise shut_down()
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max:
            raise self._too_large()

    def _knows(self, headers: Mapping[bytes, bytes]) -> bool:
        assert self._token is not None
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        # The SDK of Anthropic sends its key in a header of its own.
        given = token.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(given, self._token)

    def _request(self, scope: Scope, receive: Receive, exchange: Exchange | None) -> Request:
        """With its body, where that has come already: then there is nothing to wait for, and no deadline to set."""
        request = Request(scope, self._limited(receive))
        body = exchange.whole() if exchange is not None else None
        if body is not None:
            if len(body) > self._max:
                raise self._too_large()
            request._body = body
        return request

    def _limited(self, receive: Receive) -> Receive:
        size, ended = 0, False

        async def limited() -> Message:
            nonlocal size, ended
            if ended:
                return await receive()  # waiting for the caller to go away
            try:
                async with asyncio.timeout(self._settings.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise Problem(408, "timeout", f"the body did not come within {self._settings.body_seconds:g} s") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                ended = not message.get("more_body")
                if size > self._max:
                    raise self._too_large()
            return message

        return limited

    def _too_large(self) -> Problem:
        return Problem(413, "request_too_large", f"a body may have {self._settings.max_body_mb:g} MB (max_body_mb)")


def token_of(settings: Settings) -> bytes | None:
    """The bearer token callers need. Raises `UserError` if its variable is not set."""
    if settings.token_env is None:
        return None
    token = os.environ.get(settings.token_env, "").strip()
    if not token:
        raise UserError(
            f"the environment variable {settings.token_env} is not set, and it was named as the one with the token"
        )
    return token.encode()


def shut_down() -> Problem:
    return Problem(503, "shutting_down", "the server is shutting down", headers={"Retry-After": "1"})


async def body(request: Request) -> Json:
    """The JSON object of a request; an empty body is an empty object. Raises `Problem` 400 for anything else."""
    raw = await received(request)
    if not raw:
        return {}
    try:
        value = loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise bad_request(f"the body is {type(value).__name__}, not an object")
    return value


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Raises `Problem` 400 for what came in and cannot go out (nesting beyond what JSON writers hold)."""
    try:
        content = dumps(value)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the answer cannot be written as JSON: {error}") from error
    return Response(content, status, headers, "application/json")


def spec(
    request: Json | None = None, response: Json | None = None, errors: Sequence[int] = (400, 413), *, streams: bool = False
) -> Json:
    """`openapi_extra` of a route that reads the raw body: JSON Schemas of what it takes and gives. `streams`: events too."""
    found: Json = {"responses": {str(status): ERROR for status in errors}}
    content: Json = {"application/json": {"schema": response or {}}}
    content |= {"text/event-stream": {"schema": {"type": "string"}}} if streams else {}
    found["responses"]["200"] = {"description": "OK", "content": content}
    if request is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return found


ERROR: Json = {
    "description": "The error, in one shape.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["type", "error", "request_id"],
                "properties": {
                    "type": {"const": "error"},
                    "error": {
                        "type": "object",
                        "required": ["type", "message"],
                        "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                    },
                    "request_id": {"type": "string"},
                },
            }
        }
    },
}


def common(gauges: Gauges, status: Callable[[], Json]) -> APIRouter:
    router = APIRouter(tags=["service"])

    @router.get("/", openapi_extra=spec())
    @router.get("/health", openapi_extra=spec())
    async def health(_: Request) -> Response:
        """The process is alive."""
        return answer({"status": "ok"})

    @router.get("/ready", openapi_extra=spec(errors=(503,)))
    async def is_ready(_: Request) -> Response:
        """It takes work: not while it is shutting down."""
        if gauges.draining:
            return answer({"status": "not ready", "reason": "shutting down"}, 503)
        return answer({"status": "ready"})

    @router.get("/status", openapi_extra=spec())
    async def show_status(_: Request) -> Response:
        """What is going on."""
        own = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.time() - gauges.started, 3),
            "in_flight": gauges.number - 1,
        }
        return answer({**own, **status()})

    @router.get(
        "/metrics", openapi_extra={"responses": {"200": {"description": "Prometheus text", "content": {"text/plain": {}}}}}
    )
    async def metrics(_: Request) -> Response:
        """For Prometheus."""
        return Response(generate_latest(gauges.registry), media_type=CONTENT_TYPE_LATEST)

    return router


async def received(request: Request) -> bytes:
    """The raw body."""
    # Starlette's own goes through two generators, whatever there is to read. It keeps what it read, once it has.
    if hasattr(request, "_body"):
        return await request.body()
    parts, more = [], True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _http_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        kind = {404: "not_found_error", 405: "method_not_allowed"}.get(error.status_code, "invalid_request_error")
        problem = Problem(error.status_code, kind, str(error.detail), headers=error.headers)
        path = getattr(request.scope.get("route"), "path", UNKNOWN)
        if error.status_code == 405 and path in request.app.state.methods:
            # FastAPI tells those of one route, and others may have the same path.
            problem.headers["Allow"] = ", ".join(sorted(request.app.state.methods[path]))
    else:
        problem = bad_request(str(error), status=422)
    return answer(problem.row(request.scope["request_id"]), problem.status, problem.headers)


async def _send(problem: Problem, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    if problem.status in (408, 413):
        problem.headers["Connection"] = "close"  # the rest of the body is still on its way
    content = dumps(problem.row(request_id))
    await Response(content, problem.status, problem.headers, "application/json")(scope, receive, send)


_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds."""
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
