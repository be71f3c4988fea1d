"""Rollouts made for the tests of statistics."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rollforge.records.items import Item, assistant, function_call, function_call_output
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.rows import dump, row_of


def made(
    reward: float | None = 1.0,
    task: int = 0,
    index: int | None = 0,
    *,
    reply: str = "4",
    output: list[Item] | None = None,
    response: dict[str, Any] | None = None,
    prompt: str | None = None,
    **more: Any,
) -> Rollout:
    """A rollout of task `task`; without a reward it is an infrastructure fault."""
    items = [assistant(reply)] if output is None else output
    values: dict[str, Any] = {
        "params": {"input": prompt or f"question {task}"},
        "response": {"output": items, **(response or {})},
        "reward": reward,
        "outcome": Outcome.SCORED,
        "task": f"task{task:04}",
        "task_index": task,
        "index": index,
        "env": "math",
    }
    if reward is None:
        failure = Failure("model", "InfraFault", "HTTP 503", retryable=True)
        values |= {"response": None, "outcome": Outcome.INFRA_FAULT, "failure": failure}
    return Rollout(**{**values, **more})


def grid(rewards: Iterable[Iterable[float]], **more: Any) -> list[Rollout]:
    """One task per row, one repeat per number."""
    return [made(reward, task, index, **more) for task, row in enumerate(rewards) for index, reward in enumerate(row)]


def called(name: str, output: str, call_id: str = "c0", arguments: str = "{}") -> list[Item]:
    return [function_call(name, arguments, call_id), function_call_output(call_id, output)]


def write(path: Path, rollouts: Iterable[Rollout]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(dump(row_of(rollout)) for rollout in rollouts))
    return path
