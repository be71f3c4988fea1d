"""An environment as a service: NeMo Gym's resources server, and the gymnasium form beside it.

    /seed_session row -> cookie   /<tool> arguments -> text   /verify row + response -> row + reward
    /reset row -> cookie          /step the last response -> tool outputs, in the end the reward        /close
    /mcp the tools over the Model Context Protocol   /get_reward answers of one turn -> rewards, for OpenRLHF

Agents of NeMo Gym go on with the cookies of the last answer only, so every answer of a session repeats its cookie.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import Gauge

from rollforge.collect.closing import aclose
from rollforge.envs.base import Env, Tool
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.items import Response as ModelResponse
from rollforge.records.problem import bad_request
from rollforge.records.task import bare_task
from rollforge.serve.app import App, answer, body, make_app, spec
from rollforge.serve.env_steps import add_steps
from rollforge.serve.env_tools import add_tools, check_names
from rollforge.serve.env_wire import (
    AGGREGATE,
    CODES,
    ROW,
    ROWS,
    SEED,
    VERDICT,
    VERIFY,
    cookie_of,
    in_own_names,
    judged_row,
    key_of,
    response_of,
    usable,
)
from rollforge.serve.gone import while_connected
from rollforge.serve.mcp import add_mcp, mcp_of
from rollforge.serve.reward import add_reward
from rollforge.serve.sessions import Seat, Sessions
from rollforge.serve.settings import Settings


def env_app(env: Env, name: str, settings: Settings, *, secret: bytes | None = None, worker: int = 0) -> App:
    """The application. Its end closes the sessions and the environment.

    `secret` signs the cookies: the same for all workers of one service. Raises `UserError` for what cannot be served.
    """
    sessions = Sessions(env, settings, secret=secret, worker=worker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with sessions.running():
                yield
        finally:
            await aclose(env)

    def status() -> Json:
        counts = {"open": len(sessions), "limit": settings.max_sessions, "expired": sessions.expired}
        return {"kind": "environment", "name": name, "sessions": counts}

    description = getattr(env, "description", None) or f"The environment {name}."
    routers = [env_routes(env, name, sessions)]
    app = make_app(name, str(description), routers, settings, lifespan=lifespan, status=status)
    gauge = Gauge("rollforge_sessions", "Sessions open.", registry=app.state.gauges.registry)
    gauge.set_function(lambda: len(sessions))
    return app


def env_routes(env: Env, name: str, sessions: Sessions) -> APIRouter:
    """The routes. Raises `UserError` if a tool has the name of one of them."""
    router = APIRouter()
    known: list[Tool] | None = getattr(env, "tools", None)
    tools = known or []
    check_names(name, tools)
    stateless = known is not None and not tools

    async def opened(request: Request) -> Seat:
        """A session for the row of the request, in place of the one it had."""
        task, key = bare_task(await body(request)), key_of(request)
        old = usable(sessions, request)
        if old is not None and (key is None or old.key != key):
            await sessions.close(old)
        # A session whose cookie nobody is there to take would stay until it expires.
        seat = await while_connected(request, sessions.open(task, key))
        try:
            check_names(name, seat.tools)
        except UserError:
            seat.end()
            raise
        return seat

    @router.post("/seed_session", tags=["session"], openapi_extra=spec(ROW, SEED, CODES))
    async def seed_session(request: Request) -> Response:
        """Open a session for a task's row. The cookie of the answer goes with every further call."""
        seat = await opened(request)
        shown: Json = {"tools": [tool.row() for tool in seat.tools], "observation": seat.observation}
        shown |= {"steps": True} if seat.stepwise else {}
        shown |= {"mcp": mcp_of(name, seat)} if seat.tools or seat.stepwise else {}
        return answer(shown, headers=cookie_of(seat))

    @router.post("/verify", tags=["session"], openapi_extra=spec(VERIFY, VERDICT, CODES))
    async def verify(request: Request) -> Response:
        """Judge a response: that of the session, which is over then, or without a cookie that of a fresh one."""
        seat = sessions.find(request)
        row = await body(request)
        response = response_of(row)
        task = bare_task({key: value for key, value in row.items() if key != "response"})
        if seat is not None and stateless and not seat.stepwise and not seat.task.fields:
            # Seeded with nothing: what there is to know comes only now.
            seat.end()
            seat = None
        if seat is None:
            seat = await while_connected(request, sessions.open(task))
        # Steps that were taken here are what there is to judge: over MCP, the agent's own response only tells of its calls.
        steps = seat.output if seat.stepwise else []
        episode: ModelResponse = {**response, "output": steps} if steps else in_own_names(response, name)
        found = await seat.verify(episode, task)
        return answer(judged_row(row, task, response, found))

    @router.post("/aggregate_metrics", tags=["metrics"], openapi_extra=spec(ROWS, AGGREGATE, CODES))
    async def aggregate_metrics(request: Request) -> Response:
        """Mean, extremes, median and deviation of every number, overall and per task, and pass@k."""
        from rollforge.stats.aggregate import aggregate  # numpy: not before it is needed

        rows = (await body(request)).get("verify_responses")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise bad_request("verify_responses is not a list of objects", param="verify_responses", status=422)
        return answer(await asyncio.to_thread(aggregate, rows))

    @router.get("/reverify_mode", tags=["metrics"], openapi_extra=spec(response={"type": "string"}))
    async def reverify_mode(_: Request) -> Response:
        """Whether stored responses can be judged again without playing them again."""
        return answer("stateless" if stateless else "unsupported")

    add_steps(router, sessions, opened)
    add_reward(router, sessions)
    add_mcp(router, sessions, env, name)
    add_tools(router, sessions, known)
    return router
