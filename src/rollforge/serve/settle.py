"""Rollouts at the edge of a service: rows in, rows or named faults out."""

from __future__ import annotations

import secrets
from dataclasses import replace

from rollforge.collect.rollout import Runner
from rollforge.envs.tasks import env_task
from rollforge.errors import SetupError, UnknownParameter
from rollforge.records.items import Json
from rollforge.records.problem import FAULTS, Problem, bad_request
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import row_of
from rollforge.records.whole import whole


async def rollout_of(row: Json, runner: Runner) -> Rollout:
    """One attempt at the task of a row. Raises `UserError` for what is no task row, `Problem` for what its model cannot do,
    `SetupError` as the runner does."""
    index = row.get("_ng_rollout_index")
    task = env_task(runner.env, row)
    try:
        if type(index) is int:
            return await runner(task, index)
        # Callers that do not count their repeats want other draws each time all the same.
        runner = replace(runner, seed=secrets.randbits(31))
        return replace(await runner(task, 0), index=None)
    except UnknownParameter as error:
        if error.name in task.params and error.name not in runner.sampling:
            raise bad_request(str(error), param=error.name) from error
        raise SetupError(str(error)) from error


def settled(rollout: Rollout) -> Json:
    """The row of a judged rollout. Raises the `Problem` of its fault for any other, with the row as `error.rollout`."""
    response = rollout.response
    row = row_of(rollout)
    row["response"] = whole(response, rollout.params) if response is not None else None
    if rollout.outcome.judged:
        return row
    failure = rollout.failure
    kind = str(rollout.outcome)
    raise Problem(
        503 if rollout.outcome is Outcome.CANCELLED else FAULTS[kind][1],
        kind,
        failure.message if failure else kind,
        stage=failure.stage if failure else None,
        retryable=bool(failure and failure.retryable),
        rollout=row,
    )
