"""Whole rollouts made elsewhere: an agent service, ours or NeMo Gym's, takes a task row and answers with a verified one.

POST /run  row --> 200: the rollout
              |--> an error of ours with the rollout in it: that one, with its outcome
              '--> any other error, no answer, too late: a rollout without a reward, whose outcome says why
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from rollforge.envs.remote import without_nulls
from rollforge.errors import (
    DeadlineExceeded,
    InfraFault,
    JudgeFault,
    RolloutError,
    SetupError,
    UserError,
    VerifierFault,
)
from rollforge.models.service import Answer, Service
from rollforge.records.items import Json, Params, inside, token_drift
from rollforge.records.rollout import Failure, Outcome, Rollout, outcome_for
from rollforge.records.rows import rollout_from_row
from rollforge.records.task import Task


class RemoteRun:
    """Rollouts by the agent service at `url`: a `RunOne` of the engine."""

    def __init__(
        self,
        url: str,
        *,
        env_name: str,
        token_env: str | None = None,
        seconds: float = 3600.0,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        self._service = Service(url, token_env=token_env)
        self._env_name = env_name
        self._seconds = seconds
        self._sampling = dict(sampling or {})
        self._ran = False

    def __repr__(self) -> str:
        return f"RemoteRun({self._service.shown!r})"

    async def __call__(self, task: Task, index: int, attempt: int = 1, /) -> Rollout:
        """One attempt. Raises nothing but `SetupError`, which concerns the whole run, and cancellation."""
        started = time.perf_counter()
        sent = self._row(task, index)
        try:
            # Never sent twice: each call costs a whole rollout, and gives another one.
            answer = await self._service.call("POST", "/run", sent, seconds=self._seconds, refuse=False)
            found = self._read(answer)
        except RolloutError as error:
            found = self._failed(sent, error)
        return self._stamped(found, task, index, attempt, time.perf_counter() - started)

    async def aclose(self) -> None:
        await self._service.aclose()

    def _row(self, task: Task, index: int) -> Json:
        params = without_nulls({**task.params, **self._sampling})
        if not params["input"]:
            del params["input"]  # the environment there makes it of the row
        row: Json = {**task.fields, "responses_create_params": params, "_ng_rollout_index": index}
        return row if task.index is None else {**row, "_ng_task_index": task.index}

    def _read(self, answer: Answer) -> Rollout:
        if answer.ok:
            self._ran = True
            row = answer.json()
            if not isinstance(row, dict):
                raise InfraFault(f"{answer.source} answered with {type(row).__name__}, not a rollout")
        else:
            row = _inside(answer)
            if row is None:
                raise self._refused(answer)
        try:
            return rollout_from_row(row)
        except UserError as error:
            if not answer.ok:
                raise self._refused(answer) from error
            raise InfraFault(f"{answer.source} answered {answer.status} with no usable rollout: {error}") from error

    def _refused(self, answer: Answer) -> RolloutError | SetupError:
        error = self._service.fault(answer)
        if answer.status in (404, 405) and not self._ran:
            return SetupError(f"{error}; is {self._service.shown} an agent service? it has no POST /run")
        if answer.status in (400, 413, 422) and type(error) is InfraFault and answer.problem != "infra_fault":
            return VerifierFault(str(error))  # the row itself is refused: so would it be again
        return error

    def _failed(self, sent: Json, error: RolloutError) -> Rollout:
        outcome = outcome_for(error)
        retryable = isinstance(error, (InfraFault, JudgeFault, DeadlineExceeded)) and error.stage != "verify"
        return Rollout(
            params=cast("Params", {"input": [], **sent["responses_create_params"]}),
            response=None,
            reward=0.0 if outcome is Outcome.POLICY_FAULT else None,
            outcome=outcome,
            failure=Failure(error.stage or "agent", type(error).__name__, str(error), retryable),
        )

    def _stamped(self, found: Rollout, task: Task, index: int, attempt: int, seconds: float) -> Rollout:
        """What this side knows better: which attempt at which task it is, and the fields a server may have dropped."""
        fields = {**task.fields, **found.fields}
        replaced = {key: value for key, value in task.fields.items() if fields[key] != value}
        extra = {"task_fields": replaced, **found.extra} if replaced else found.extra
        drift = token_drift(found.output) if found.token_drift is None else found.token_drift
        return replace(
            found,
            fields=fields,
            task=task.id,
            task_index=task.index,
            index=index,
            attempt=attempt,
            env=self._env_name,
            seconds=found.seconds or {"total": round(seconds, 6)},
            token_drift=drift,
            extra=extra,
        )


def _inside(answer: Answer) -> Json | None:
    """The rollout that an error of ours brings along."""
    row = inside(answer.value, "error", "rollout") if answer.problem else None
    return row if isinstance(row, dict) else None
