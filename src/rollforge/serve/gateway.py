"""The gateway: programs that speak to a model over HTTP, each under a base URL of its own, become rollouts.

    POST /rollouts (row) --> Runner opens the session --> {"id", "base_url", "tools_url", "prompt", "tools", ...}
    program --> /rollouts/<id>/v1/...   --> Capture --> the run's model
            --> /rollouts/<id>/tools/x  --> the session
    POST /rollouts/<id>/finish          --> Runner verifies what was captured --> row

To the runner the program is an agent: it waits in `_Program` until the program is finished. So opening, deadlines, faults
and verification are what they are for any other agent. `serve.command` is another agent at the same door.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from rollforge.agents.tool_loop import call_tool
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Session
from rollforge.errors import InfraFault
from rollforge.models.base import Model
from rollforge.records import items
from rollforge.records.items import Json, input_items, tool_name
from rollforge.records.problem import TOOL_ERROR, Problem, bad_request
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task
from rollforge.serve.app import App, answer, body, make_app, received, spec, token_of
from rollforge.serve.asked import ROW
from rollforge.serve.capture import MAX_CALLS, Capture
from rollforge.serve.gone import while_connected
from rollforge.serve.limit import LIMIT
from rollforge.serve.model_app import (
    CHAT,
    MESSAGES,
    RESPONSES,
    chat_completions,
    count_tokens,
    messages,
    model_row,
    models_list,
    responses,
)
from rollforge.serve.settings import Settings
from rollforge.serve.settle import rollout_of, settled

PREFIX = "/rollouts/"
"""Paths below it ask for the key of their rollout, not for the token of the service."""


class Live:
    """One rollout that a program is at work on."""

    def __init__(self, id: str, task: Task, model: Model, session: Session, max_calls: int) -> None:
        self.id = id
        self.task = task
        self.capture = Capture(model, task.params, max_calls=max_calls, stream=getattr(session, "stream", None))
        self.finished: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The program's last word, "" for none."""
        self.used = time.monotonic()
        self.backend: Model = getattr(session, "backend", model)
        """The model as nobody captures it, for what is no call of it."""
        self._session = session
        self._declared = {tool_name(tool) for tool in self.tools}

    @property
    def tools(self) -> list[Json]:
        return [tool for tool in self.task.params.get("tools") or [] if tool.get("type") == "function"]

    @property
    def busy(self) -> bool:
        return len(self.capture.in_flight) > 0

    def row(self, root: str) -> Json:
        """What a program needs to know. `root` is the service's URL."""
        base = f"{root}{PREFIX}{self.id}"
        return {
            "id": self.id,
            "base_url": f"{base}/v1",
            "anthropic_base_url": base,
            "api_key": self.id,
            "tools_url": f"{base}/tools",
            "task": self.task.id,
            "prompt": input_items(self.task.params),
            "instructions": self.task.params.get("instructions"),
            "tools": self.tools,
        }

    async def call(self, name: str, arguments: str) -> Response:
        """What the tool said. A call that cannot be is the policy's mistake, and is answered to it."""
        self.used = time.monotonic()
        output = await self.capture.in_flight(call_tool(self._session, self._declared, name, arguments))
        headers = {TOOL_ERROR: "1"} if output.error else None
        return Response(output.text.encode("utf-8", "replace"), 200, headers, "text/plain")


class Gateway:
    """The rollouts under way, and the routes to them."""

    def __init__(self, settings: Settings, *, worker: int = 0, max_calls: int = MAX_CALLS) -> None:
        self._settings = settings
        self._worker = worker
        self._max_calls = max_calls
        self._token = token_of(settings)
        self._live: dict[str, Live] = {}
        self._held: dict[str, _Held] = {}
        """Those that callers began, until they have fetched what became of them."""

    def __len__(self) -> int:
        return len(self._live)

    @asynccontextmanager
    async def live(self, task: Task, model: Model, session: Session, id: str | None = None) -> AsyncIterator[Live]:
        """A rollout that programs can reach while it lasts. What was captured is told to the session in the end."""
        one = Live(id or self.new_id(), task, model, session, self._max_calls)
        self._live[one.id] = one
        try:
            yield one
        finally:
            del self._live[one.id]
            await one.capture.close()
            captured = getattr(session, "captured", None)
            if captured is not None:
                captured(one.capture.params, one.capture.response(), one.capture.extra)

    def new_id(self) -> str:
        return f"{self._worker}.{secrets.token_urlsafe(24)}"

    async def begin(self, row: Json, runner: Runner) -> Live:
        """Raises the `Problem` of what kept the session from opening, or 503 if there are too many."""
        self._expire()
        if len(self._held) >= self._settings.max_sessions:
            message = f"{len(self._held)} rollouts are under way (max_sessions)"
            raise Problem(503, "too_many_sessions", message, headers={"Retry-After": "1"})
        opened: asyncio.Future[Live] = asyncio.get_running_loop().create_future()
        id = self.new_id()
        job = asyncio.create_task(rollout_of(row, replace(runner, agent=_Program(self, id, opened))))
        self._held[id] = _Held(job)
        try:
            await asyncio.wait((job, opened), return_when=asyncio.FIRST_COMPLETED)
            if opened.done():
                return opened.result()
            settled(job.result())
            raise Problem(502, "infra_fault", "the rollout ended before it began")
        finally:
            if not opened.done():
                self._held.pop(id, None)  # a shutdown may have been faster
                await _cancelled(job)

    async def finish(self, id: str, reply: str) -> Rollout:
        """The rollout, verified; until it is, it can be asked for again."""
        held = self._held_by(id)
        live = self._live.get(id)
        if live is not None and not live.finished.done():
            live.finished.set_result(reply)
        await asyncio.wait((held.job,))
        if held.job.cancelled():
            raise Problem(404, "not_found_error", f"no rollout of this id is under way ({_UNKNOWN})")
        rollout = held.job.result()
        self._held.pop(id, None)
        return rollout

    async def cancel(self, id: str) -> None:
        held = self._held_by(id)
        del self._held[id]
        await _cancelled(held.job)

    def find(self, request: Request) -> Live:
        """The rollout of a path. Raises `Problem`: 404 for none of that id, 401 for another key than its own."""
        id = request.path_params["id"]
        live = self._live.get(id)
        self.check_key(request, id)
        if live is None:
            over = "it is over: POST .../finish for what became of it" if id in self._held else _UNKNOWN
            raise Problem(404, "not_found_error", f"no rollout of this id is under way ({over})")
        live.used = time.monotonic()
        return live

    def check_key(self, request: Request, id: str) -> None:
        """The id is the secret; a key beside it may be absent, the same, or the token of the service."""
        given = request.headers.get("authorization", "")
        kind, _, key = given.partition(" ")
        key = key.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", given)
        allowed = [id.encode(), *([self._token] if self._token else [])]
        if key and not any(hmac.compare_digest(key.encode("utf-8", "replace"), known) for known in allowed):
            raise Problem(401, "authentication_error", "the key is not that of this rollout")

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Ends what nobody uses any more; in the end, all."""
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            await _cancelled(sweeper)
            jobs = [held.job for held in self._held.values()]
            self._held.clear()
            for job in jobs:
                await _cancelled(job)

    def _held_by(self, id: str) -> _Held:
        held = self._held.get(id)
        if held is None:
            raise Problem(404, "not_found_error", f"no rollout of this id is under way ({_UNKNOWN})")
        return held

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._settings.session_seconds / 4, 30))
            self._expire()

    def _expire(self) -> None:
        now = time.monotonic()
        for id, held in list(self._held.items()):
            live = self._live.get(id)
            if live is not None and live.busy:
                continue
            if held.job.done():
                held.ended = held.ended or now
            elif live is None or live.finished.done():
                continue  # opening or verifying, which have deadlines of their own
            if now - (held.ended or (live.used if live else now)) > self._settings.session_seconds:
                del self._held[id]
                held.job.cancel()


@dataclass(slots=True)
class _Held:
    job: asyncio.Task[Rollout]
    ended: float = field(default=0.0)


@dataclass(frozen=True, slots=True)
class _Program:
    """The agent of a rollout whose program is somewhere else."""

    gateway: Gateway
    id: str
    opened: asyncio.Future[Live]

    async def __call__(self, task: Task, model: Model, session: Session, /) -> items.Response:
        async with self.gateway.live(task, model, session, self.id) as live:
            self.opened.set_result(live)
            reply = await live.finished
            # Finished with a call under way: it is ended before anything is judged.
            await live.capture.close()
            live.capture.check()
            response = live.capture.response(reply)
            if response is None:
                raise InfraFault("the program finished without a call of the model or a reply of its own")
            return response


def gateway_routes(gateway: Gateway, runner: Runner) -> APIRouter:
    """What begins and ends rollouts; `reach_routes` belong beside it."""
    router = APIRouter(tags=["gateway"])

    @router.post("/rollouts", openapi_extra=spec(ROW, _LIVE, errors=(400, 413, 422, 424, 502, 503, 504)))
    async def begin(request: Request) -> Response:
        """Begin a rollout of a task row; answers where its program finds its model and its tools."""
        live = await while_connected(request, gateway.begin(await body(request), runner))
        return answer(live.row(_root(request)))

    @router.post("/rollouts/{id}/finish", openapi_extra=spec(_FINISH, _ROW, errors=(400, 401, 404, 413, 422, 424, 502, 504)))
    async def finish(request: Request) -> Response:
        """End a rollout; answers its verified row."""
        id = request.path_params["id"]
        gateway.check_key(request, id)
        reply = (await body(request)).get("reply") or ""
        if not isinstance(reply, str):
            raise bad_request(f"reply is {type(reply).__name__}, not a string", param="reply")
        return answer(settled(await gateway.finish(id, reply)))

    @router.delete("/rollouts/{id}", openapi_extra=spec(errors=(401, 404)))
    async def cancel(request: Request) -> Response:
        """End a rollout without a verdict."""
        id = request.path_params["id"]
        gateway.check_key(request, id)
        await gateway.cancel(id)
        return answer({"id": id, "status": "cancelled"})

    return router


def reach_routes(gateway: Gateway) -> APIRouter:
    """What a program uses: its model, in three dialects, and its tools."""
    router = APIRouter(tags=["gateway"])

    @router.get("/rollouts/{id}", openapi_extra=spec(None, _LIVE, errors=(401, 404)))
    async def look(request: Request) -> Response:
        """Prompt, tools and URLs of a rollout under way."""
        return answer(gateway.find(request).row(_root(request)))

    @router.post("/rollouts/{id}/v1/responses", openapi_extra=spec(RESPONSES, errors=_MODEL_ERRORS, streams=True))
    async def create_response(request: Request) -> Response:
        """The model, as the Responses API."""
        return await responses(_asked(gateway, request), request)

    @router.post("/rollouts/{id}/v1/chat/completions", openapi_extra=spec(CHAT, errors=_MODEL_ERRORS, streams=True))
    async def create_completion(request: Request) -> Response:
        """The model, as Chat Completions."""
        return await chat_completions(_asked(gateway, request), request)

    @router.post("/rollouts/{id}/v1/messages", openapi_extra=spec(MESSAGES, errors=_MODEL_ERRORS, streams=True))
    async def create_message(request: Request) -> Response:
        """The model, as Anthropic's Messages."""
        return await messages(_asked(gateway, request), request)

    @router.post("/rollouts/{id}/v1/messages/count_tokens", openapi_extra=spec(MESSAGES, errors=_MODEL_ERRORS))
    async def count(request: Request) -> Response:
        """How many tokens a Messages request is, where the backend can say."""
        return await count_tokens(gateway.find(request).backend, request)

    @router.get("/rollouts/{id}/v1/models", openapi_extra=spec(errors=(401, 404)))
    async def models(request: Request) -> Response:
        """Any name will do; this is one."""
        gateway.find(request)
        return answer(models_list(["rollforge"]))

    @router.get("/rollouts/{id}/v1/models/{model:path}", openapi_extra=spec(errors=(401, 404)))
    async def one_model(request: Request) -> Response:
        """The model, by whatever name."""
        gateway.find(request)
        return answer(model_row(request.path_params["model"]))

    @router.post("/rollouts/{id}/tools/{name:path}", openapi_extra=_TOOL)
    async def tool(request: Request) -> Response:
        """A tool of the environment: arguments in, the text of its output out. What is wrong with a call is such a text
        too, for the policy to read, under a header X-Rollforge-Tool-Error."""
        live = gateway.find(request)
        arguments = (await received(request)).decode("utf-8", "replace")
        return await while_connected(request, live.call(request.path_params["name"], arguments))

    return router


def gateway_app(gateway: Gateway, settings: Settings) -> App:
    """Only what programs use, for whoever runs their rollouts in the same process."""
    routers = [reach_routes(gateway)]
    return make_app("gateway", "Rollouts of programs.", routers, settings, lifespan=gateway.lifespan, keyed=(PREFIX,))


async def _cancelled(job: asyncio.Task[Any]) -> None:
    job.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait((job,))
    if not job.cancelled():
        job.exception()  # read, so that nobody calls it lost


def _asked(gateway: Gateway, request: Request) -> Capture:
    capture = gateway.find(request).capture
    request.scope[LIMIT].on_late = capture.late
    return capture


def _root(request: Request) -> str:
    return str(request.base_url).rstrip("/")


_UNKNOWN = "finished, expired, or never there"
_MODEL_ERRORS = (400, 401, 403, 404, 413, 422, 424, 501, 502, 504)
_TOOL = spec({}, errors=_MODEL_ERRORS)
_TOOL["requestBody"]["required"] = False
_TOOL["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
_ROW: Json = {"type": "object", "description": "The row, with response, reward and what the verifier said."}
_FINISH: Json = {
    "type": "object",
    "properties": {"reply": {"type": "string", "description": "The program's own last word, if its model gave none."}},
}
_LIVE: Json = {
    "type": "object",
    "properties": {key: {"type": "string"} for key in ("id", "base_url", "anthropic_base_url", "api_key", "tools_url")}
    | {"prompt": {"type": "array"}, "tools": {"type": "array"}},
}
