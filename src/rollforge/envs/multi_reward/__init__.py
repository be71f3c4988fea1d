"""One tool call, graded on three things apart: whether it is the right one, whether it is valid, whether it is all there is.

For trainers that weigh or normalise reward components one by one (GDPO, https://arxiv.org/abs/2601.05242). Rows of NeMo
Gym's `example_tool_call_multireward` work as they are. The first answer of the model is the whole attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforge.envs.declared import OneAnswerEnv
from rollforge.envs.multi_reward.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.records import items
from rollforge.records.items import Response, item_type, text_of
from rollforge.records.task import Task
from rollforge.verify.compose import weighted
from rollforge.verify.tool_calls import expected_calls, made_calls, tool_calls, valid_call


def solve(expected_call: Mapping[str, Any]) -> Solution:
    [call] = expected_calls(expected_call)
    yield call["name"], call["arguments"]
    return ""


def verify(
    response: Response, task: Task, expected_call: Mapping[str, Any], weights: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Make exactly one tool call, the right one, and say nothing else."""
    if not expected_call:
        raise VerifierFault("the row has no expected_call")
    tools = task.params.get("tools")
    made = made_calls(response)
    right = [bool(tool_calls({"output": [call]}, expected_call, tools)["reward"]) for call in items.tool_calls(response)]
    parts = {
        "correctness": float(bool(right) and all(right)),
        "schema_valid": float(bool(made) and all(valid_call(call, tools) for call in made)),
        "format": float(len(made) == 1 and not _says(response)),
    }
    found = weighted(parts, weights)
    del found["parts"]
    return {**found, **parts, "predicted_calls": made[:32]}


def _says(response: Response) -> bool:
    """Whether there is a message with text."""
    messages = (item for item in response.get("output") or [] if item_type(item) == "message")
    return any(item.get("role", "assistant") == "assistant" and text_of(item.get("content")).strip() for item in messages)


multi_reward = OneAnswerEnv(verify, tasks=tasks, name="multi_reward", inline=True, solve=solve)
