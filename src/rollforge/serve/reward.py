"""Rewards for OpenRLHF's `--reward.remote_url`: single answers, each judged in a session of its own.

    /get_reward {"query", "prompts", "labels"} -> {"rewards", "scores", "extra_logs"}

A label is the task's row. OpenRLHF asks five times, then ends the run: an answer without a verdict is a 503, never a 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from rollforge.envs.base import Verdict
from rollforge.errors import PolicyFault, RolloutError, UserError, VerifierFault
from rollforge.export.openrlhf.wire import row_of, said
from rollforge.records.items import Json, final_text, tool_calls
from rollforge.records.items import Response as ModelResponse
from rollforge.records.messages import items_from_messages
from rollforge.records.problem import Problem, bad_request, problem_of
from rollforge.records.task import Task, task_from_row
from rollforge.serve.app import answer, body, spec
from rollforge.serve.env_wire import CODES
from rollforge.serve.gone import while_connected
from rollforge.serve.sessions import Sessions


def add_reward(router: APIRouter, sessions: Sessions) -> None:
    @router.post("/get_reward", tags=["session"], openapi_extra=spec(ASKED, REWARDS, CODES))
    async def get_reward(request: Request) -> Response:
        """Judge answers of one turn, as OpenRLHF asks for it. Tools are not run."""
        attempts = _attempts(await body(request))
        rewards = await while_connected(request, _judge_all(sessions, attempts))
        logs = {"answered": [float(bool(final_text(response))) for _, response in attempts]}
        return answer({"rewards": rewards, "scores": rewards, "extra_logs": logs})


def _attempts(asked: Json) -> list[tuple[Task, ModelResponse]]:
    lists = [asked.get(key) for key in ("query", "prompts", "labels")]
    if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists if one is not None}) != 1:
        raise bad_request("query, prompts and labels are not three lists of one length", status=422)
    return [_attempt(place, *one) for place, one in enumerate(zip(*lists, strict=True))]


def _attempt(place: int, query: Any, prompt: Any, label: Any) -> tuple[Task, ModelResponse]:
    if not isinstance(query, str) or not isinstance(prompt, str):
        raise bad_request(f"query[{place}] or prompts[{place}] is no text", param="query", status=422)
    try:
        task = task_from_row(row_of(label))
        return task, {"output": items_from_messages([said(query, prompt, task.params)])}
    except UserError as error:
        raise bad_request(f"labels[{place}]: {error}", param="labels", status=422) from error


async def _judge_all(sessions: Sessions, attempts: Sequence[tuple[Task, ModelResponse]]) -> list[float]:
    async with asyncio.TaskGroup() as group:
        judging = [group.create_task(_judge(sessions, task, response)) for task, response in attempts]
    found = [one.result() for one in judging]
    for place, one in enumerate(found):
        if isinstance(one, RolloutError):
            problem = problem_of(one)
            assert problem is not None
            raise Problem(503, problem.type, f"query[{place}] could not be judged: {one}", **problem.more) from one
        if isinstance(one, Problem):
            raise one
    return [one.reward for one in found if isinstance(one, Verdict)]


async def _judge(sessions: Sessions, task: Task, response: ModelResponse) -> Verdict | RolloutError | Problem:
    """The verdict, or why there is none."""
    try:
        seat = await sessions.open(task)
        try:
            if seat.stepwise:
                await seat.take_step(response)
            elif seat.tools and (tool_calls(response) or "<tool_call>" in final_text(response)):
                raise VerifierFault(
                    "the answer calls tools, which a reward server does not run: let the environment be played, by "
                    "--train.agent_func_path with rollforge.train.adapters.openrlhf.agent_executor"
                )
            return await seat.verify(response)
        finally:
            seat.end()
    except PolicyFault:
        return Verdict(0.0)
    except (RolloutError, Problem) as error:
        return error


ASKED: Json = {
    "type": "object",
    "required": ["query", "prompts", "labels"],
    "properties": {
        "query": {"type": "array", "items": {"type": "string"}, "description": "Prompt and response, as text."},
        "prompts": {"type": "array", "items": {"type": "string"}},
        "labels": {
            "type": "array",
            "items": {"type": ["string", "object"]},
            "description": "The task's row, or what `rollforge export --to openrlhf:grpo` writes; an object or JSON text.",
        },
    },
}
_NUMBERS: Json = {"type": "array", "items": {"type": "number"}}
REWARDS: Json = {
    "type": "object",
    "required": ["rewards", "scores", "extra_logs"],
    "properties": {"rewards": _NUMBERS, "scores": _NUMBERS, "extra_logs": {"type": "object"}},
}
