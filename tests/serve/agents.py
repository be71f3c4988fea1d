"""What the tests of the agent service and its gateway have in common."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.load import load_env
from rollforge.models.base import ModelOptions, Request
from rollforge.models.load import load_model
from rollforge.records.items import Response
from rollforge.serve.agent_app import agent_app
from rollforge.serve.settings import Settings
from tests.serve.live import serving

COUNT = {
    "responses_create_params": {"input": [{"role": "user", "content": "Add 4, then tell me the count."}]},
    "initial_count": 3,
    "expected_count": 7,
    "agent_ref": {"type": "responses_api_agents", "name": "counter_agent"},
    "_rowidx": 12,
    "_ng_task_index": 5,
    "_ng_rollout_index": 2,
}


def runner(env: Any = "counter", model: Any = "scripted:perfect", **more: Any) -> Runner:
    made = load_env(env) if isinstance(env, str) else env
    options = ModelOptions(solve=getattr(made, "solve", None))
    return Runner(
        env=made,
        env_name="counter",
        model=load_model(model, options) if isinstance(model, str) else model,
        model_name=model if isinstance(model, str) else "test",
        agent=more.pop("agent", ToolLoop()),
        **more,
    )


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


Call = Callable[..., Awaitable[Answer]]


@asynccontextmanager
async def agent(run: Runner, **settings: Any) -> AsyncIterator[tuple[str, Call]]:
    """The URL of an agent service, and a function that calls it."""
    async with (
        serving(agent_app(run, "counter_agent", Settings(**settings))) as url,
        aiohttp.ClientSession() as http,
    ):

        async def call(method: str, path: str, body: Any = None, **headers: str) -> Answer:
            data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            where = path if path.startswith("http") else url + path
            async with http.request(method, where, data=data, headers=named) as answer:
                return Answer(answer.status, await answer.text(), answer.headers)

        yield url, call


def says(*outputs: Any) -> Callable[[Request], Awaitable[Response]]:
    """A model that says these in turn, the last one for ever."""
    left = list(outputs)

    async def model(_: Request) -> Response:
        output = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(output, Exception):
            raise output
        return {"output": output, "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 1}}

    return model
