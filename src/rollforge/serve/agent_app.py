"""An agent as a service: rows in, verified rollouts out; one episode without a verdict; and the gateway for programs.

The wire is NeMo Gym's (`/run`, `/v1/responses`, `/aggregate_metrics`), save that an attempt without a verdict is an error
answer that says why and holds the row, never a reward of 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import Counter, Gauge

from rollforge.collect.rollout import Runner
from rollforge.envs.base import Env, Session, Verdict
from rollforge.models import base
from rollforge.records import items
from rollforge.records.items import Json
from rollforge.records.problem import bad_request
from rollforge.records.task import Task
from rollforge.serve.app import App, answer, body, make_app, spec
from rollforge.serve.asked import ITEM, ROW
from rollforge.serve.gateway import PREFIX, Gateway, gateway_routes, reach_routes
from rollforge.serve.gone import while_connected
from rollforge.serve.model_app import responses
from rollforge.serve.settings import Settings
from rollforge.serve.settle import rollout_of, settled

Metrics = Callable[[list[Json]], Awaitable[Json]]
"""Statistics of verified rows, as an environment with metrics of its own computes them."""


def agent_app(runner: Runner, name: str, settings: Settings, *, metrics: Metrics | None = None, worker: int = 0) -> App:
    """The application. The runner's environment and model are closed by whoever made them."""
    gateway = Gateway(settings, worker=worker)
    outcomes = Counter("rollforge_rollouts", "Rollouts by outcome.", ("outcome",), registry=None)
    app = make_app(
        name,
        f"The agent {name}: environment {runner.env_name}, model {runner.model_name}.",
        [agent_routes(runner, outcomes, metrics), gateway_routes(gateway, runner), reach_routes(gateway)],
        settings,
        lifespan=gateway.lifespan,
        status=lambda: {"environment": runner.env_name, "model": runner.model_name, "rollouts_under_way": len(gateway)},
        keyed=(PREFIX,),
    )
    registry = app.state.gauges.registry
    registry.register(outcomes)
    open_rollouts = Gauge("rollforge_gateway_rollouts", "Rollouts of programs under way.", registry=registry)
    open_rollouts.set_function(lambda: len(gateway))
    return app


def agent_routes(runner: Runner, outcomes: Counter, metrics: Metrics | None) -> APIRouter:
    router = APIRouter(tags=["agent"])

    @router.post("/run", openapi_extra=spec(ROW, _RESULT, errors=(400, 413, 422, 424, 502, 504)))
    async def run(request: Request) -> Response:
        """One rollout of a task row, verified. Every field of the row comes back."""
        row = await body(request)
        rollout = await while_connected(request, rollout_of(row, runner))
        outcomes.labels(str(rollout.outcome)).inc()
        return answer(settled(rollout))

    @router.post("/v1/responses", openapi_extra=spec(_PARAMS, errors=(400, 413, 422, 424, 502, 504), streams=True))
    async def create_response(request: Request) -> Response:
        """One episode without a verdict: all its items in `output`, usage summed."""
        return await responses(_Episode(runner), request)

    @router.post("/aggregate_metrics", openapi_extra=spec(_AGGREGATE))
    async def aggregate_metrics(request: Request) -> Response:
        """Statistics of verified rows."""
        from rollforge.stats.aggregate import aggregate  # numpy: not before it is needed

        rows = (await body(request)).get("verify_responses")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise bad_request("verify_responses is not a list of rows", param="verify_responses")
        return answer(await (metrics(rows) if metrics else asyncio.to_thread(aggregate, rows)))

    return router


class _Episode:
    """To the handler a model: a whole episode is its answer."""

    keeps_deadline = True

    def __init__(self, runner: Runner) -> None:
        self._runner = replace(runner, env=_Unjudged(runner.env))

    async def __call__(self, request: base.Request, /) -> items.Response:
        rollout = await rollout_of({"responses_create_params": request.params}, self._runner)
        settled(rollout)
        assert rollout.response is not None
        return rollout.response


class _Unjudged:
    """An environment whose sessions judge nothing."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self.limits: Any = getattr(env, "limits", None)

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        async with self._env.open(task) as session:
            yield _UnjudgedSession(session)


class _UnjudgedSession:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def verify(self, _: items.Response, /) -> Verdict:
        return Verdict(0.0)


_PARAMS: Json = {
    "type": "object",
    "required": ["input"],
    "properties": {"input": {"anyOf": [{"type": "string"}, {"type": "array", "items": ITEM, "minItems": 1}]}},
}
_RESULT: Json = {
    "type": "object",
    "required": ["responses_create_params", "response", "reward"],
    "properties": {"response": {"type": "object"}, "reward": {"type": "number"}, "rollforge": {"type": "object"}},
}
_AGGREGATE: Json = {
    "type": "object",
    "required": ["verify_responses"],
    "properties": {"verify_responses": {"type": "array", "items": {"type": "object"}}},
}
