"""Rollouts made by an agent service: what comes back, and what becomes of every way it can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.responses import JSONResponse, PlainTextResponse

from rollforge.agents.remote import RemoteRun
from rollforge.errors import SetupError
from rollforge.records.items import assistant
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import row_of
from rollforge.records.task import Task, task_from_row
from tests.envs.gym import agent
from tests.models.server import HANG, Reply, closing, serve
from tests.serve.live import serving

ROW = {"responses_create_params": {"input": "2+2?"}, "answer": "4", "note": {"n": 1}, "agent_ref": {"name": "a"}}


def task(index: int | None = 3) -> Task:
    return task_from_row(ROW, index)


def verified(row: Any) -> Any:
    """As NeMo Gym answers: what its server does not declare is gone, what it does declare is filled with nulls."""
    params = {"input": row["responses_create_params"]["input"], "temperature": None, "tools": []}
    response = {"id": "resp_1", "output": [assistant("4")], "usage": None, "model": "m"}
    return {"responses_create_params": params, "response": response, "reward": 1.0, "answer": "four", "accuracy": 1}


async def run(answer: Callable[[Any], Any], **options: Any) -> Rollout:
    async with serving(agent(answer)) as url, closing(RemoteRun(url, env_name="e", **options)) as one:
        found: Rollout = await one(task(), 2, 5)
        return found


async def test_a_rollout_of_nemo_gym_is_one_of_this_run() -> None:
    asked: list[Any] = []

    def answer(row: Any) -> Any:
        asked.append(row)
        return verified(row)

    # NeMo Gym's rows have nulls that its own servers refuse.
    found = await run(answer, sampling={"temperature": 0.5, "tool_choice": None})
    assert asked == [
        ROW | {"responses_create_params": {"input": "2+2?", "temperature": 0.5}, "_ng_task_index": 3, "_ng_rollout_index": 2}
    ]
    assert (found.outcome, found.reward, found.model, found.env) == (Outcome.SCORED, 1.0, "m", "e")
    assert (found.task, found.task_index, found.index, found.attempt) == (task().id, 3, 2, 5)
    assert found.fields == {"answer": "four", "note": {"n": 1}, "agent_ref": {"name": "a"}, "accuracy": 1}
    assert found.extra == {"task_fields": {"answer": "4"}}
    assert found.seconds["total"] > 0
    assert row_of(found)["response"]["output"] == [assistant("4")]


async def test_a_rollout_of_ours_keeps_its_outcome_and_its_block() -> None:
    block = {"task": "else", "outcome": "scored", "attempt": 1, "model": "tiny", "seconds": {"total": 2.0}, "new": 1}
    found = await run(lambda row: verified(row) | {"rollforge": block})
    assert (found.model, found.seconds, found.task) == ("tiny", {"total": 2.0}, task().id)
    assert found.extra["new"] == 1


async def test_a_failed_judgement_is_no_zero() -> None:
    found = await run(lambda row: verified(row) | {"reward": 0.0, "_ng_failure_class": "judge_failed"})
    assert (found.outcome, found.reward) == (Outcome.JUDGE_FAULT, None)


def problem(kind: str, status: int, **more: Any) -> Callable[[Any], Any]:
    body = {"type": "error", "error": {"type": kind, "message": "told", "stage": "model", **more}, "request_id": "r"}
    return lambda row: JSONResponse(body, status)


FAILED: dict[str, tuple[Callable[[Any], Any], Outcome, bool]] = {
    "a bare string": (lambda row: JSONResponse("ValueError('told')", 500), Outcome.INFRA_FAULT, True),
    "a proxy": (lambda row: PlainTextResponse("told", 502), Outcome.INFRA_FAULT, True),
    "a row that is refused": (lambda row: JSONResponse({"detail": "told"}, 422), Outcome.VERIFIER_FAULT, False),
    "infrastructure": (problem("infra_fault", 502), Outcome.INFRA_FAULT, True),
    "judge": (problem("judge_fault", 502), Outcome.JUDGE_FAULT, True),
    "verifier": (problem("verifier_fault", 422), Outcome.VERIFIER_FAULT, False),
    "too late": (problem("timeout", 504), Outcome.TIMEOUT, True),
    "policy": (problem("policy_fault", 422), Outcome.POLICY_FAULT, False),
    "no row": (lambda row: ["told"], Outcome.INFRA_FAULT, True),
    "no reward": (lambda row: {**verified(row), "reward": "told"}, Outcome.INFRA_FAULT, True),
    "no JSON": (lambda row: PlainTextResponse("told"), Outcome.INFRA_FAULT, True),
}


@pytest.mark.parametrize("name", FAILED)
async def test_an_error_is_a_rollout_with_its_outcome(name: str) -> None:
    answer, outcome, retryable = FAILED[name]
    found = await run(answer)
    assert found.failure is not None
    assert (found.outcome, found.failure.retryable) == (outcome, retryable)
    assert found.reward == (0.0 if outcome is Outcome.POLICY_FAULT else None)
    assert "told" in found.failure.message or name == "no row"
    assert (found.task, found.index, found.attempt, found.fields["answer"]) == (task().id, 2, 5, "4")
    assert row_of(found)["rollforge"]["outcome"] == outcome


async def test_the_rollout_in_an_error_is_the_rollout() -> None:
    failure = {"stage": "tools", "type": "DeadlineExceeded", "message": "the tool slept", "retryable": True}
    block = {"outcome": "timeout", "attempt": 1, "seconds": {"total": 9.0}, "failure": failure}
    partial = {"output": [assistant("so far")]}

    def answer(row: Any) -> Any:
        made = {**ROW, "response": partial, "reward": None, "rollforge": block}
        return problem("timeout", 504, rollout=made)(row)

    found = await run(answer)
    assert (found.outcome, found.reward, found.output) == (Outcome.TIMEOUT, None, [assistant("so far")])
    assert found.failure is not None
    assert (found.failure.stage, found.failure.message) == ("tools", "the tool slept")


async def test_a_broken_rollout_in_an_error_leaves_the_error() -> None:
    found = await run(problem("judge_fault", 502, rollout={"responses_create_params": 3}))
    assert found.failure is not None
    assert (found.outcome, found.failure.message) == (Outcome.JUDGE_FAULT, "told")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (problem("setup_error", 424), "told"),
        (lambda row: JSONResponse({"detail": "Not Found"}, 404), "is .* an agent service"),
        (problem("authentication_error", 401), "told; export ROLLFORGE_TOKEN"),
    ],
)
async def test_what_concerns_every_rollout_stops_the_run(answer: Any, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        await run(answer)


async def test_a_rollout_is_never_asked_for_twice() -> None:
    async with serve(Reply(b"", 503), HANG) as server, closing(RemoteRun(server.root, env_name="e", seconds=0.2)) as one:
        assert (await one(task(), 0)).outcome is Outcome.INFRA_FAULT
        late = await one(task(), 0)
        assert (late.outcome, len(server.seen)) == (Outcome.TIMEOUT, 2)
        assert late.failure is not None
        assert "no answer within 0.2 s" in late.failure.message
