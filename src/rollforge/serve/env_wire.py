"""What the routes of an environment take and give: rows, responses, the session's cookie, and their JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from rollforge.envs.base import Verdict
from rollforge.errors import RolloutError, UserError
from rollforge.records.items import Json, Response, check_items, mapping
from rollforge.records.problem import IDEMPOTENCY_KEY, Problem, bad_request, problem_of
from rollforge.records.rows import SHADOWED
from rollforge.records.task import Task
from rollforge.records.whole import whole
from rollforge.serve.sessions import COOKIE, Seat, Sessions


def response_of(row: Json) -> Response:
    """The row's `response`. Raises `Problem` 422 naming what of it cannot be judged."""
    response = row.get("response")
    if not isinstance(response, dict):
        problem: str | None = "is missing" if response is None else f"is {type(response).__name__}, not an object"
        problem = f"response {problem}"
    else:
        problem = check_items(response.get("output"), "response.output")
        usage = response.get("usage")
        if not isinstance(usage, (dict, type(None))):
            problem = problem or f"response.usage is {type(usage).__name__}, not an object"
    if problem is not None:
        raise bad_request(problem, param="response", status=422)
    return response  # type: ignore[return-value]


def in_own_names(response: Response, server: str) -> Response:
    """What a verifier reads: agents that reach the tools over MCP write `mcp__SERVER__` before the name of each."""
    prefix = f"mcp__{server}__"
    output = [
        {**item, "name": item["name"].removeprefix(prefix)} if str(item.get("name")).startswith(prefix) else item
        for item in response.get("output") or ()
    ]
    return {**response, "output": output}


def judged_row(row: Json, task: Task, response: Response, found: Verdict) -> Json:
    """The row with its verdict. Fields whose names the row itself needs go where stored rollouts have them too."""
    own: Json = {"responses_create_params": task.params, "response": whole(response, task.params), "reward": found.reward}
    shadowed = {key: value for key, value in found.fields.items() if key in own or key in _ROWS_OWN}
    if shadowed:
        own["rollforge"] = {**mapping(row.get("rollforge")), SHADOWED: shadowed}
    return {**row, **{key: value for key, value in found.fields.items() if key not in shadowed}, **own}


def key_of(request: Request) -> str | None:
    """What a client calls the opening it asks for, so that it can ask again when it has no answer."""
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key and len(key) > _KEY_LENGTH:
        raise bad_request(f"the {IDEMPOTENCY_KEY} has {len(key)} characters; at most {_KEY_LENGTH}: send a random id")
    return key or None


def needed(sessions: Sessions, request: Request) -> Seat:
    seat = sessions.find(request)
    if seat is None:
        raise bad_request(f"there is no session: POST the task's row to /seed_session, and send its cookie {COOKIE} on")
    return seat


def usable(sessions: Sessions, request: Request) -> Seat | None:
    """The request's session if it has a usable one: on one machine, a client sends the cookies of other services too."""
    try:
        return sessions.find(request)
    except Problem:
        return None


def cookie_of(seat: Seat) -> dict[str, str]:
    return {"Set-Cookie": f"{COOKIE}={seat.cookie}; HttpOnly; Path=/; SameSite=Lax"}


@contextmanager
def kept(seat: Seat) -> Iterator[None]:
    """Errors carry the session's cookie too."""
    try:
        yield
    except (Problem, RolloutError, UserError) as error:
        problem = problem_of(error)
        assert problem is not None
        problem.headers.update(cookie_of(seat))
        raise problem from error


_KEY_LENGTH = 255
_ROWS_OWN = ("rollforge", "_ng_task_index", "_ng_rollout_index")
CODES = (400, 401, 410, 413, 422, 502, 503, 504)
OBJECT: Json = {"type": "object"}
ROW: Json = {
    "type": "object",
    "description": "A task's row: what is asked of the model, and the fields of the verifier.",
    "properties": {"responses_create_params": {"type": "object"}, "prompt": {"type": ["string", "array"]}},
}
VERIFY: Json = {
    "type": "object",
    "description": "The task's row and the model's response.",
    "required": ["response"],
    "properties": {
        "responses_create_params": {"type": "object"},
        "response": {
            "type": "object",
            "required": ["output"],
            "properties": {"output": {"type": "array", "items": {"type": "object"}}},
        },
    },
}
SEED: Json = {
    "type": "object",
    "required": ["tools", "observation"],
    "properties": {"tools": {"type": "array", "items": OBJECT}, "observation": {"type": ["string", "null"]}},
}
VERDICT: Json = {
    "type": "object",
    "required": ["responses_create_params", "response", "reward"],
    "properties": {"responses_create_params": OBJECT, "response": OBJECT, "reward": {"type": "number"}},
}
STEP: Json = {
    "type": "object",
    "required": ["observation", "reward", "terminated", "truncated", "info"],
    "properties": {
        "observation": {"type": ["string", "null"]},
        "reward": {"type": "number"},
        "terminated": {"type": "boolean"},
        "truncated": {"type": "boolean"},
        "info": OBJECT,
    },
}
ROWS: Json = {
    "type": "object",
    "required": ["verify_responses"],
    "properties": {"verify_responses": {"type": "array", "items": OBJECT}},
}
AGGREGATE: Json = {
    "type": "object",
    "required": ["group_level_metrics", "agent_metrics", "key_metrics"],
    "properties": {
        "group_level_metrics": {"type": "array", "items": OBJECT},
        "agent_metrics": OBJECT,
        "key_metrics": OBJECT,
    },
}
