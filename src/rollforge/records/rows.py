"""Rows: tasks and rollouts as JSON lines, in every shape found in the wild. A line that cannot be used is data too.

Rollout rows come in two shapes: `response.output` (what NeMo Gym and rollforge write) and a top-level `output` (what the
NeMo RL pages show). Both become a `Rollout`; `row_of` writes the first shape and keeps every field that was read.
"""

from __future__ import annotations

import os
import stat
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from rollforge.errors import UserError, reported
from rollforge.records.items import Json, check_items, check_params, input_items, inside
from rollforge.records.lossless import dumps, loads
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


def read_tasks(path: str | Path, read: Callable[[Json, int], Task] = task_from_row) -> Iterator[Task | BadLine]:
    """The tasks of a JSONL file, in order, streamed. `index` counts the usable tasks from 0.

    `read` makes the task of a row and its index. Raises `UserError` at once if the file cannot be read.
    """
    count = 0

    def parse(row: Json) -> Task:
        nonlocal count
        task = read(row, count)
        count += 1
        return task

    return _read(path, parse)


def read_rollouts(path: str | Path) -> Iterator[Rollout | BadLine]:
    """The rollouts of a JSONL file, in order, streamed. Raises `UserError` at once if the file cannot be read."""
    return _read(path, rollout_from_row)


def rollout_from_row(row: Json) -> Rollout:
    """Read a rollout row of either shape. Raises `UserError` saying what makes it unusable."""
    fields = dict(row)
    params = fields.pop("responses_create_params", None)
    if not isinstance(params, dict):
        wrong = "no responses_create_params" if params is None else "responses_create_params is not an object"
        raise UserError(wrong)
    problem = check_params(params)
    if problem:
        raise UserError(f"responses_create_params.{problem}")
    block = block_of(fields.pop("rollforge", None))
    outcome, failure = outcome_of(fields, block)
    reward = None
    if outcome.judged:
        reward = reward_of(fields.pop("reward", None))
    elif fields.get("reward") is None:
        fields.pop("reward", None)
    response = fields.pop("response", None)
    if response is None and "output" in fields:
        # Stays in fields too: the shape that was read is written again.
        response = {"output": fields["output"]}
        if isinstance(fields.get("usage"), dict):
            response["usage"] = fields["usage"]
    problem = _response_problem(response, outcome)
    if problem:
        raise UserError(problem)
    task_index, index = _pop(fields, "_ng_task_index", int), _pop(fields, "_ng_rollout_index", int)
    # Last, so that what is asked of the fields above is asked of the row itself.
    fields |= block.pop(SHADOWED, {})
    return Rollout(
        params=params,  # type: ignore[arg-type]
        response=response,
        reward=reward,
        outcome=outcome,
        fields=fields,
        task=block.pop("task", "") or group_of(params, fields, task_index),
        task_index=task_index,
        index=index,
        attempt=block.pop("attempt", 1),
        model=block.pop("model", None) or _text((response or {}).get("model")),
        env=block.pop("env", None) or agent_name(fields),
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
        block["failure"] = asdict(rollout.failure)
    if rollout.token_drift is not None:
        block["token_drift"] = rollout.token_drift
    own: Json = {"responses_create_params": rollout.params, "response": rollout.response, "reward": rollout.reward}
    if rollout.task_index is not None:
        own["_ng_task_index"] = rollout.task_index
    if rollout.index is not None:
        own["_ng_rollout_index"] = rollout.index
    own["rollforge"] = block
    shadowed = {key: value for key, value in rollout.fields.items() if key in own and own[key] != value}
    if shadowed:
        block[SHADOWED] = shadowed
    block |= rollout.extra
    return {**own, **rollout.fields, **own}


SHADOWED = "shadowed"
"""Where the `rollforge` block keeps fields (of a task, of a verdict) whose names the row itself needs."""


def objects(path: Path, least: int = 0) -> Iterator[Json]:
    """The JSON objects among the lines of a file that have `least` bytes; what is none is passed over.

    Raises `OSError` if it cannot be read.
    """
    with open(path, "rb") as file:
        for line in file:
            if len(line) < least:
                continue
            try:
                row = loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def dump(row: Json) -> bytes:
    """One JSON line. Raises `UserError` naming what cannot be stored."""
    try:
        return dumps(row) + b"\n"
    except ValueError as error:
        raise UserError(f"a row cannot be written as JSON: {error}") from error


def _read(path: str | Path, parse: Callable[[Json], T]) -> Iterator[T | BadLine]:
    file = str(path)
    with reported(f"cannot read {file}"):
        # Not opened here: an iterator that nobody starts would keep the file open.
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise IsADirectoryError(0, "it is a directory")
        if not os.access(path, os.R_OK):
            raise PermissionError(0, "permission denied")
    return _lines(file, parse)


def _lines(file: str, parse: Callable[[Json], T]) -> Iterator[T | BadLine]:
    with reported(f"cannot read {file}"):
        handle = open(file, "rb")
    with handle:
        for number, line in enumerate(handle, 1):
            text = line.strip()
            if number == 1:
                text = text.removeprefix(BOM_UTF8).strip()
            if not text:
                yield BadLine(file, number, "blank line")
                continue
            try:
                row = loads(text)
                if not isinstance(row, dict):
                    raise UserError(f"the line is {type(row).__name__}, not an object")
                yield parse(row)
            except UserError as error:
                yield BadLine(file, number, str(error), _start(text))
            except ValueError as error:
                yield BadLine(file, number, f"not JSON ({error})", _start(text))


def _start(text: bytes, length: int = 60) -> str:
    shown = text[:length].decode("utf-8", "replace")
    return shown + ("..." if len(text) > length else "")


_BLOCK: dict[str, type] = {
    "task": str,
    "attempt": int,
    "model": str,
    "env": str,
    "seconds": dict,
    "token_drift": int,
    "failure": dict,
    SHADOWED: dict,
}


def block_of(value: Any) -> Json:
    """The row's `rollforge` object; what is null is not there. Raises `UserError` for a field of another type."""
    if not isinstance(value, (dict, type(None))):
        raise UserError(f"rollforge is {type(value).__name__}, not an object")
    block: Json = dict(value or {})
    for key, kind in _BLOCK.items():
        if block.get(key) is None:
            block.pop(key, None)
        elif type(block[key]) is not kind:
            raise UserError(f"rollforge.{key} is {type(block[key]).__name__}, not {kind.__name__}")
        elif kind is int and abs(block[key]) > LARGEST:
            raise UserError(f"rollforge.{key} {_TOO_LARGE}")
    for name, seconds in block.get("seconds", {}).items():
        if not isinstance(seconds, (int, float)):
            raise UserError(f"rollforge.seconds.{name} is {seconds!r}, not a number")
        if abs(seconds) > LARGEST:
            raise UserError(f"rollforge.seconds.{name} {_TOO_LARGE}")
    return block


def outcome_of(fields: Json, block: Json) -> tuple[Outcome, Failure | None]:
    name = block.pop("outcome", None)
    stored = block.get("failure")
    failure = _failure(stored) if isinstance(stored, dict) else None
    if failure is not None and asdict(failure) == stored:
        del block["failure"]
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
    return Outcome.SCORED, failure


def _failure(stored: Json) -> Failure:
    stage, kind, message = (_text(stored.get(key)) or "unknown" for key in ("stage", "type", "message"))
    return Failure(stage, kind, message, retryable=stored.get("retryable") is True)


def reward_of(value: Any) -> float:
    if value is None:
        raise UserError("no reward")
    if not isinstance(value, (int, float)):
        raise UserError(f"reward is {value!r}, not a number")
    if not abs(value) <= LARGEST:
        raise UserError(f"reward is {value}" if isinstance(value, float) else f"reward {_TOO_LARGE}")
    return float(value) if isinstance(value, bool) else value


LARGEST = sys.float_info.max
"""Some readers of JSON take a whole number of 400 digits for what it is: no float holds it."""
_TOO_LARGE = "is a whole number of more digits than any float holds"


def lacks_reward(reason: str) -> bool:
    """Whether it is a reason of `reward_of` for which a row is not used; its prompt can be read then."""
    return reason == "no reward" or reason.startswith("reward is ")


def _response_problem(response: Any, outcome: Outcome) -> str | None:
    needed = outcome is Outcome.SCORED  # a policy may fault before its first answer is whole
    if response is None:
        return "no response.output and no output" if needed else None
    if not isinstance(response, dict):
        return f"response is {type(response).__name__}, not an object"
    usage, output = response.get("usage"), response.get("output")
    if usage is not None and not isinstance(usage, dict):
        return f"response.usage is {type(usage).__name__}, not an object"
    if output is None:
        return "response has no output" if needed else None
    return check_items(output, "output")


def _pop(fields: Json, key: str, kind: type[T]) -> T | None:
    """Leaves a value of another type where it is, so that it is written again."""
    return fields.pop(key) if type(fields.get(key)) is kind else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def group_of(params: Mapping[str, Any], fields: Json, task_index: int | None) -> str:
    """A stored row from elsewhere names its task by index; without one, the same prompt is the same task."""
    agent = agent_name(fields)
    if task_index is not None:
        return f"{agent}:{task_index}" if agent else f"{task_index}"
    asked = {key: params.get(key) for key in ("input", "instructions", "tools")}
    truth = _truth(params, fields)
    return task_id(asked, {"agent": agent} if truth is None else {"agent": agent, "truth": truth})


def task_key(rollout: Rollout) -> tuple[str, int | bytes]:
    """What attempts at one task share, and other tasks do not. NeMo Gym's indices begin anew in every collection: there what
    was asked and what was expected belong to it (as a hash, good for this process)."""
    params = rollout.params
    if rollout.task_index is None or rollout.task != group_of(params, rollout.fields, rollout.task_index):
        return rollout.task, b""
    tools = params.get("tools")
    told = told_of(tools) if isinstance(tools, list) else tools
    asked = [params.get("instructions"), input_items(params), told, _truth(params, rollout.fields)]
    return rollout.task, hash(dumps(asked, sort_keys=True))


def told_of(tools: Iterable[Any]) -> list[str]:
    """What the policy is told of tools, whatever their order; nulls say nothing."""
    said = ({k: v for k, v in tool.items() if v is not None} if isinstance(tool, dict) else tool for tool in tools)
    return sorted(dumps(tool, sort_keys=True).decode() for tool in said)


def _truth(params: Mapping[str, Any], fields: Json) -> Any:
    places = [fields, *(fields.get(name) for name in HOLDERS), params.get("metadata")]
    found = (place.get(name) for place in places if isinstance(place, dict) for name in TRUTHS)
    return next((value for value in found if value is not None), params.get("ground_truth"))


TRUTHS = ("expected_answer", "ground_truth", "reference_answer", "gold_answer", "correct_answer", "expected_answers")
"""Names of an expected answer that nobody gives to what a model answered."""
HOLDERS = ("verifier_metadata", "reward_model", "metadata", "extra_info", "sample")
"""Objects of the row in which they may stand."""


def agent_name(fields: Json) -> str | None:
    return _text(inside(fields, "agent_ref", "name"))
