"""NeMo Gym's aggregate metrics: one number per name, over all rollouts and over those of each task.

Names are theirs (`mean/reward`, `std/input_tokens`, `pass@4/reward`), and so are units: `pass@k` is a percentage. Unlike
theirs, a rollout without a reward is counted (`rollouts` against `judged`) instead of vanishing, and `pass@k` of rewards
between 0 and 1 is the expected highest of k, not the highest of the first k.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rollforge.records.items import Json, inside, mapping
from rollforge.records.rollout import Outcome
from rollforge.records.rows import group_of
from rollforge.stats.passk import best_at_k

MOST_K = 64
"""The largest k of `pass@k`."""


def aggregate(rows: Sequence[Json]) -> Json:
    """`group_level_metrics` (one per task: by `_ng_task_index`, then in order of appearance), `agent_metrics` (over all) and
    `key_metrics` (its means, and `pass@k` of the largest k), of what `/verify` or `/run` answered.

    Metrics are the numbers and booleans at the top of a row, those of `reward_components` and of `response.usage`.
    """
    groups: dict[int | str, list[Json]] = {}
    for row in rows:
        groups.setdefault(_task(row), []).append(row)
    judged = {task: [numbers for row in members if (numbers := _numbers(row))] for task, members in groups.items()}
    rates = _pass_at_k([[numbers["reward"] for numbers in members] for members in judged.values()])
    everything = _described([numbers for members in judged.values() for numbers in members], len(rows)) | rates
    headline = list(rates)[-1:]
    return {
        "group_level_metrics": [
            {"_ng_task_index" if isinstance(task, int) else "task": task, **_described(judged[task], len(groups[task]))}
            for task in sorted(groups, key=lambda task: (0, task) if isinstance(task, int) else (1, 0))
        ],
        "agent_metrics": everything,
        "key_metrics": {name: value for name, value in everything.items() if name.startswith("mean/") or name in headline},
    }


def _task(row: Json) -> int | str:
    index = row.get("_ng_task_index")
    if type(index) is int:
        return index
    block = row.get("rollforge")
    named = row.get("task_id") if not isinstance(block, dict) else block.get("task") or row.get("task_id")
    if isinstance(named, (str, int)):
        return str(named)
    return group_of(mapping(row.get("responses_create_params")), row, None)


def _numbers(row: Json) -> dict[str, float] | None:
    """The metrics of a judged rollout; None for one without a reward (NeMo Gym marks it, with a reward of 0)."""
    outcome = inside(row, "rollforge", "outcome")
    unjudged = outcome is not None and outcome not in (Outcome.SCORED, Outcome.POLICY_FAULT)
    if _number(row.get("reward")) is None or row.get("_ng_failure_class") or unjudged:
        return None
    usage, parts = inside(row, "response", "usage"), row.get("reward_components")
    named: list[tuple[str, Any]] = [(key, value) for key, value in row.items() if not key.startswith("_")]
    if isinstance(parts, dict):
        named += [(f"reward_components/{key}", value) for key, value in parts.items()]
    if isinstance(usage, dict):
        named += usage.items()
    return {key: number for key, value in named if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _described(judged: Sequence[dict[str, float]], rollouts: int) -> Json:
    columns: dict[str, list[float]] = {}
    for numbers in judged:
        for name, number in numbers.items():
            columns.setdefault(name, []).append(number)
    found: Json = {"rollouts": rollouts, "judged": len(judged)}
    for name, values in columns.items():
        found |= _finite((f"{what}/{name}", value) for what, value in _description(sorted(values)))
    return found


def _description(values: Sequence[float]) -> Iterable[tuple[str, float]]:
    """Of sorted values. The standard deviation is the sample's (n - 1), 0 for a single value, as theirs."""
    n = len(values)
    mean = sum(values) / n
    squares = sum((value - mean) * (value - mean) for value in values)
    yield "mean", mean
    yield "max", values[-1]
    yield "min", values[0]
    yield "median", (values[(n - 1) // 2] + values[n // 2]) / 2
    yield "std", math.sqrt(squares / (n - 1)) if n > 1 else 0.0


def _pass_at_k(tasks: Sequence[Sequence[float]]) -> Json:
    """For k = 1, 2, 4, ... and the largest number of attempts: the mean over the tasks that have as many."""
    most = min(MOST_K, max(map(len, tasks), default=0))
    found: list[tuple[str, float]] = []
    with np.errstate(all="ignore"):  # rewards near the end of what a float holds; what comes out is left out
        for k in sorted({1 << power for power in range(most.bit_length()) if most} | ({most} if most else set())):
            values = [float(best_at_k(rewards, k)) for rewards in tasks if len(rewards) >= k]
            found.append((f"pass@{k}/reward", 100 * sum(values) / len(values)))
    return _finite(found)


def _finite(named: Iterable[tuple[str, float]]) -> Json:
    return {name: value for name, value in named if math.isfinite(value)}
