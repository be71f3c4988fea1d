"""Rows: tasks and rollouts as JSON lines, in every shape found in the wild. A line that cannot be used is data too.

Rollout rows come in two shapes: `response.output` (what NeMo Gym and rollforge write) and a top-level `output` (what the
NeMo RL pages show). Both become a `Rollout`; `row_of` writes the first shape and keeps every field that was read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from rollforge.errors import UserError
from rollforge.records.items import Json, check_items
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.task import Task, task_from_row, task_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be used, and why."""

    file: str
    line: int
    reason: str
    text: str = ""
    """The line's beginning."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" + (f": {self.text}" if self.text else "")


def read_tasks(path: str | Path, complete: Callable[[Json], Mapping[str, Any]] | None = None) -> Iterator[Task | BadLine]:
    """The tasks of a JSONL file, in order, streamed. `index` counts the usable tasks from 0.

    `complete` may add to a row before it is read (a prompt made from its fields).
    """
    count = 0

    def parse(row: Json) -> Task:
        nonlocal count
        task = task_from_row(complete(row) if complete else row, count)
        count += 1
        return task

    return _read(path, parse)


def read_rollouts(path: str | Path) -> Iterator[Rollout | BadLine]:
    """The rollouts of a JSONL file, in order, streamed."""
    return _read(path, rollout_from_row)


def rollout_from_row(row: Json) -> Rollout:
    """Read a rollout row of either shape. Raises `UserError` saying what makes it unusable."""
    fields = dict(row)
    params = fields.pop("responses_create_params", None)
    if not isinstance(params, dict):
        wrong = "no responses_create_params" if params is None else "responses_create_params is not an object"
        raise UserError(wrong)
    if not isinstance(params.get("input"), str):
        problem = check_items(params.get("input"), "responses_create_params.input")
        if problem:
            raise UserError(problem)
    block = fields.pop("rollforge", None)
    block = dict(block) if isinstance(block, dict) else {}
    outcome, failure = _outcome(fields, block)
    reward = _reward(fields.pop("reward", None), outcome)
    response = fields.pop("response", None)
    if response is None and "output" in fields:
        # Stays in fields too: the shape that was read is written again.
        response = {"output": fields["output"]}
        if isinstance(fields.get("usage"), dict):
            response["usage"] = fields["usage"]
    if response is not None or outcome.judged:
        problem = _response_problem(response)
        if problem:
            raise UserError(problem)
    task_index, index = _pop_int(fields, "_ng_task_index"), _pop_int(fields, "_ng_rollout_index")
    return Rollout(
        params=params,  # type: ignore[arg-type]
        response=response,
        reward=reward,
        outcome=outcome,
        fields=fields,
        task=block.pop("task", None) or _group(params, fields, task_index),
        task_index=task_index,
        index=index,
        attempt=block.pop("attempt", 1),
        model=block.pop("model", None) or (response or {}).get("model"),
        env=block.pop("env", None) or _agent_name(fields),
        seconds=block.pop("seconds", {}),
        failure=failure,
        token_drift=block.pop("token_drift", None),
        extra=block,
    )


def row_of(rollout: Rollout) -> Json:
    """The stored row (DESIGN: readable by NeMo Gym's tools, which read the reward, the indices and `agent_ref`)."""
    block: Json = {
        "task": rollout.task,
        "outcome": str(rollout.outcome),
        "attempt": rollout.attempt,
        "model": rollout.model,
        "env": rollout.env,
        "seconds": rollout.seconds,
    }
    if rollout.failure is not None:
        failure = rollout.failure
        block["failure"] = asdict(failure)
    if rollout.token_drift is not None:
        block["token_drift"] = rollout.token_drift
    row: Json = {"responses_create_params": rollout.params, "response": rollout.response, "reward": rollout.reward}
    row |= rollout.fields
    if rollout.task_index is not None:
        row["_ng_task_index"] = rollout.task_index
    if rollout.index is not None:
        row["_ng_rollout_index"] = rollout.index
    row["rollforge"] = {**block, **rollout.extra}
    return row


def dump(row: Json) -> bytes:
    """One JSON line. Raises `UserError` naming what cannot be stored."""
    try:
        return orjson.dumps(row, option=_DUMP)
    except TypeError as error:
        raise UserError(f"a row cannot be written as JSON: {error}") from error


_DUMP = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def _read(path: str | Path, parse: Callable[[Json], T]) -> Iterator[T | BadLine]:
    file = str(path)
    try:
        handle = open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    with handle:
        for number, line in enumerate(handle, 1):
            text = line.strip()
            if number == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            if not text:
                yield BadLine(file, number, "blank line")
                continue
            try:
                row = orjson.loads(text)
                if not isinstance(row, dict):
                    raise UserError(f"the line is {type(row).__name__}, not an object")
                yield parse(row)
            except orjson.JSONDecodeError as error:
                yield BadLine(file, number, f"not JSON ({error.msg}, column {error.colno})", _start(text))
            except UserError as error:
                yield BadLine(file, number, str(error), _start(text))


def _start(text: bytes, length: int = 60) -> str:
    shown = text[:length].decode("utf-8", "replace")
    return shown + ("..." if len(text) > length else "")


def _outcome(fields: Json, block: Json) -> tuple[Outcome, Failure | None]:
    name = block.pop("outcome", None)
    stored = block.pop("failure", None)
    failure = Failure(**{k: stored[k] for k in Failure.__slots__ if k in stored}) if isinstance(stored, dict) else None
    if name is not None:
        try:
            return Outcome(name), failure
        except ValueError:
            raise UserError(f"rollforge.outcome is {name!r}; known: {', '.join(Outcome)}") from None
    # NeMo Gym marks a failed judgement with reward 0 and this sentinel: it is not a 0.
    kind = fields.get("_ng_failure_class")
    if kind:
        message = str(fields.get("_ng_failure_judge_error") or kind)
        outcome = Outcome.JUDGE_FAULT if kind == "judge_failed" else Outcome.INFRA_FAULT
        return outcome, Failure("verify" if kind == "judge_failed" else "agent", str(kind), message, retryable=True)
    return Outcome.SCORED, None


def _reward(value: Any, outcome: Outcome) -> float | None:
    if not outcome.judged:
        return None
    if value is None:
        raise UserError("no reward")
    if not isinstance(value, (int, float)):
        raise UserError(f"reward is {value!r}, not a number")
    if not math.isfinite(value):
        raise UserError(f"reward is {value}")
    return value


def _response_problem(response: Any) -> str | None:
    if response is None:
        return "no response.output and no output"
    if not isinstance(response, dict):
        return f"response is {type(response).__name__}, not an object"
    if response.get("output") is None:
        return "response has no output"
    return check_items(response["output"], "output")


def _pop_int(fields: Json, key: str) -> int | None:
    """Leaves what is no integer where it is, so that it is written again."""
    return fields.pop(key) if isinstance(fields.get(key), int) else None


def _group(params: Json, fields: Json, task_index: int | None) -> str:
    """A stored row from elsewhere names its task by index; without one, the same prompt is the same task."""
    agent = _agent_name(fields)
    if task_index is not None:
        return f"{agent}:{task_index}" if agent else f"{task_index}"
    return task_id({key: params.get(key) for key in ("input", "instructions", "tools")}, {"agent": agent})


def _agent_name(fields: Json) -> str | None:
    agent = fields.get("agent_ref")
    name = agent.get("name") if isinstance(agent, dict) else None
    return name if isinstance(name, str) else None
