"""An environment gymnasium style: a client tells each answer of the model, and is told what its tool calls gave.

/reset row -> observation   /step the last response -> tool outputs, in the end the reward   /close

One that is played by steps takes them as they come; the rewards it tells add up to that of its verdict.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from fastapi import APIRouter, Request, Response

from rollforge.agents.episode import answer_items
from rollforge.agents.tool_loop import ToolLoop
from rollforge.envs.base import Step
from rollforge.records.items import Json, add_usage, function_call_output, item_type, tool_name, user
from rollforge.records.items import Response as ModelResponse
from rollforge.records.problem import Problem
from rollforge.serve.app import answer, body, spec
from rollforge.serve.env_wire import CODES, OBJECT, ROW, STEP, VERIFY, cookie_of, kept, needed, response_of
from rollforge.serve.sessions import Seat, Sessions


def add_steps(router: APIRouter, sessions: Sessions, opened: Callable[[Request], Awaitable[Seat]]) -> None:
    @router.post("/reset", tags=["gymnasium"], openapi_extra=spec(ROW, OBJECT, CODES))
    async def reset(request: Request) -> Response:
        """Open a session for a task's row, gymnasium style."""
        seat = await opened(request)
        info: Json = {"supports_explicit_close": True, "tools": [tool.row() for tool in seat.tools]}
        info |= {"steps": True} if seat.stepwise else {}
        return answer({"observation": seat.observation, "info": info}, headers=cookie_of(seat))

    @router.post("/step", tags=["gymnasium"], openapi_extra=spec(VERIFY, STEP, CODES))
    async def step(request: Request) -> Response:
        """Run the tool calls of the model's last response; one without any ends the episode with its reward. Where the
        environment takes steps, take one."""
        seat = needed(sessions, request)
        with kept(seat):
            take = played if seat.stepwise else _stepped
            return answer(await take(seat, response_of(await body(request))), headers=cookie_of(seat))

    @router.post("/close", tags=["gymnasium"], openapi_extra=spec({"type": "object"}, OBJECT, CODES))
    async def close(request: Request) -> Response:
        """Close the session. One that is over already is closed."""
        try:
            await sessions.close(needed(sessions, request))
        except Problem as problem:
            if problem.status != 410:
                raise
        return answer({})


async def _stepped(seat: Seat, response: ModelResponse) -> Json:
    items = answer_items(response, len(seat.output))
    seat.output += items
    seat.usage = add_usage(seat.usage, response.get("usage"))
    calls = [item for item in items if item.get("type") == "function_call"]
    cut = response.get("status") == "incomplete" or bool(response.get("incomplete_details"))
    outputs = []
    for item in () if cut else calls:
        output = await LOOP.run_call(item, declared(seat), seat)
        seat.output.append(output)
        outputs.append({"call_id": output["call_id"], "output": output["output"]})
    over = cut or (not calls and any(item_type(item) == "message" for item in items))
    info: Json = {"tool_outputs": outputs}
    reward = 0.0
    if over:
        found = await seat.verify({**response, "output": seat.output, "usage": seat.usage})
        reward, info = found.reward, {**found.fields, **info}
    return {"observation": None, "reward": reward, "terminated": over, "truncated": False, "info": info}


async def played(seat: Seat, response: ModelResponse) -> Json:
    step = await taken(seat, response)
    told: Json = {"observation": step.observation, "terminated": step.terminated, "truncated": step.truncated}
    info: Json = {**step.info, "tool_outputs": [{"call_id": name, "output": text} for name, text in step.outputs]}
    reward = step.reward
    if seat.ended:
        found = await seat.verify({**response, "output": seat.output, "usage": seat.usage})
        reward = found.reward - seat.told
        told["verdict"] = {**found.fields, "reward": found.reward}
        info = {**{name: value for name, value in found.fields.items() if name not in (*told, "info")}, **info}
    seat.told += reward
    return {**told, "reward": reward, "info": info}


async def taken(seat: Seat, response: ModelResponse) -> Step:
    """A step, which the session's episode keeps."""
    seat.output += (items := answer_items(response, len(seat.output)))
    seat.usage = add_usage(seat.usage, response.get("usage"))
    step = await seat.take_step({**response, "output": items})
    seat.output += [function_call_output(name, text) for name, text in step.outputs]
    seat.output += [user(step.observation)] if step.observation else []
    seat.ended = step.terminated or step.truncated
    return step


LOOP = ToolLoop()


def declared(seat: Seat) -> Collection[str]:
    """What the policy was told of: the row's own tools, of those that there are."""
    there = [tool.name for tool in seat.tools]
    wanted = [tool_name(tool) for tool in seat.task.params.get("tools") or []]
    return [name for name in there if name in wanted] if wanted else there
