"""Function calling: the calls are the answer (`verify.tool_calls`). Rows of NeMo Gym's `xlam_fc`, and rows with an
`expected_action`, work as they are; the tools are those that the row declares, and nobody runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.declared import DeclaredEnv
from rollforge.envs.function_calling.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.records.items import Response
from rollforge.records.task import Task
from rollforge.verify.tool_calls import expected_calls, tool_calls

Calls = Sequence[Mapping[str, Any]] | Mapping[str, Any]


def solve(
    expected_answers: Calls | None = None,
    expected_call: Calls | None = None,
    expected_action: Mapping[str, Any] | None = None,
) -> Solution:
    for call in expected_calls(_expected(expected_answers, expected_call, expected_action)):
        yield call["name"], call["arguments"]
    return "Done."


def verify(
    reply: str,
    response: Response,
    task: Task,
    expected_answers: Calls | None = None,
    expected_call: Calls | None = None,
    expected_action: Mapping[str, Any] | None = None,
    ordered: bool = False,
    allow_extra: bool = False,
    partial: bool = False,
) -> dict[str, Any]:
    """Make exactly the tool calls that the request asks for."""
    expected = _expected(expected_answers, expected_call, expected_action)
    options = {"ordered": bool(ordered), "allow_extra": bool(allow_extra), "partial": bool(partial)}
    found = tool_calls(response, expected, task.params.get("tools"), **options)
    if not found["num_expected"] and not reply.strip():
        found["reward"] = 0.0  # where no call is right, a word is
    return found


def _expected(answers: Calls | None, call: Calls | None, action: Mapping[str, Any] | None) -> Calls:
    found = next((value for value in (answers, call, action) if value is not None), None)
    if found is None:
        raise VerifierFault("the row has no expected_answers, expected_call or expected_action")
    return found


function_calling = DeclaredEnv(verify, tasks=tasks, name="function_calling", inline=True, solve=solve)
