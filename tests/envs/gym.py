"""Servers as NeMo Gym's are: pydantic bodies that drop what they do not declare, a session cookie that every answer sets
anew, 422 with `detail`, 500 with a bare string; one with tools, one that is played by steps, and an agent."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    input: Any
    tools: list[Any] = []
    temperature: float | None = None


class ResponseBody(BaseModel):
    """The fields that NeMo Gym's readers insist on."""

    id: str
    created_at: float
    model: str
    object: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    tool_choice: Any
    tools: list[Any]


class Seed(BaseModel):
    start: int = 0


class Verify(BaseModel):
    responses_create_params: Params
    response: ResponseBody
    goal: int
    note: str | None = None


class Add(BaseModel):
    by: int


class Reset(BaseModel):
    model_config = ConfigDict(extra="allow")
    responses_create_params: Params


class Step(Reset):
    response: ResponseBody


def text_of(response: ResponseBody) -> str:
    return "".join(part["text"] for item in response.output if item["type"] == "message" for part in item["content"])


def base(name: str) -> FastAPI:
    app = FastAPI()
    app.state.seen = []
    cookie = f"{name}___{name.lower()}"

    @app.middleware("http")
    async def session(request: Request, call_next: Any) -> Response:
        given = request.cookies.get(cookie)
        known = json.loads(base64.b64decode(given)) if given else {"session_id": secrets.token_hex(8)}
        request.state.session = known["session_id"]
        app.state.seen.append((request.url.path, known["session_id"], await request.body()))
        try:
            answer: Response = await call_next(request)
        except Exception as error:  # noqa: BLE001 - as NeMo Gym does
            answer = JSONResponse(repr(error), 500)
        # Signed with a time in NeMo Gym: another value each time, with "=" in it.
        value = base64.b64encode(json.dumps({**known, "n": len(app.state.seen)}).encode()).decode()
        answer.set_cookie(cookie, value + "=" * (-len(value) % 4))
        return answer

    return app


def counter() -> FastAPI:
    """Resources server: bring a count to a goal."""
    app = base("Counter")
    counts: dict[str, int] = {}

    @app.post("/seed_session")
    async def seed_session(body: Seed, request: Request) -> dict[str, Any]:
        counts[request.state.session] = body.start
        return {}

    @app.post("/add")
    async def add(body: Add, request: Request) -> dict[str, Any]:
        counts[request.state.session] += body.by
        return {"count": counts[request.state.session]}

    @app.post("/text")
    async def text() -> Response:
        return Response("plain ☃".encode(), media_type="text/plain")

    @app.post("/boom")
    async def boom() -> None:
        raise ValueError("boom")

    @app.post("/gone")
    async def gone() -> None:
        raise HTTPException(503, "no worker")

    @app.post("/verify")
    async def verify(body: Verify, request: Request) -> dict[str, Any]:
        reply = text_of(body.response)
        if reply == "crash":
            raise ValueError("cannot read it")
        if reply == "inner":
            raise RuntimeError("Hit an exception in Counter___counter calling an inner server: b'...'")
        told: dict[str, Any] = body.model_dump() | {"reward": float(counts[request.state.session] == body.goal)}
        if reply == "judge":
            told |= {"reward": 0.0, "_ng_failure_class": "judge_failed", "_ng_failure_judge_error": "no verdict"}
        if reply == "silent":
            del told["reward"]
        return told | {"count": counts[request.state.session], "extracted": reply or None}

    return app


def gymnasium() -> FastAPI:
    """Guess a number: played by steps. It has the paths of a resources server too, as NeMo Gym's have."""
    app = base("Guess")
    goals: dict[str, int] = {}
    app.state.closed = []

    @app.post("/seed_session")
    async def seed_session() -> dict[str, Any]:
        return {}

    @app.post("/verify")
    async def verify() -> None:
        raise NotImplementedError

    @app.post("/reset")
    async def reset(body: Reset, request: Request) -> dict[str, Any]:
        extra = body.model_extra or {}
        goals[request.state.session] = extra["goal"]
        return {"observation": "Guess it.", "info": {"supports_explicit_close": extra.get("closes", False)}}

    @app.post("/step")
    async def step(body: Step, request: Request) -> dict[str, Any]:
        goal = goals[request.state.session]
        calls = [item for item in body.response.output if item["type"] == "function_call"]
        outputs = [{"call_id": call["call_id"], "output": f"the goal is below {goal + 5}"} for call in calls]
        if calls:
            return {"observation": None, "reward": -0.1, "info": {"tool_outputs": outputs}}
        right = text_of(body.response) == str(goal)
        return {
            "observation": None if right else "No.",
            "reward": 1.0 if right else -0.1,
            "terminated": right,
            "truncated": text_of(body.response) == "I give up",
            "info": {"guess": text_of(body.response)},
        }

    @app.post("/close")
    async def close(request: Request) -> dict[str, Any]:
        app.state.closed.append(request.state.session)
        return {}

    return app


def agent(answer: Any) -> FastAPI:
    """Agent server: `/run` answers as `answer(row)` says, a value or a Response."""
    app = base("Agent")

    @app.post("/run")
    async def run(request: Request) -> Any:
        made = answer(await request.json())
        return made if isinstance(made, Response) else JSONResponse(made)

    return app
