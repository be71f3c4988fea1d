"""Metrics over verified rollouts: pass@k and majority voting per score, subsets, and the answer to `/aggregate_metrics`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from rollforge.stats.aggregate import aggregate
from rollforge.stats.passk import pass_at_k

from .config_types import AggregateMetrics
from .global_config import TASK_INDEX_KEY_NAME

Row = dict[str, Any]
Scores = dict[str, float]
_SPREAD = ("std_dev_across_runs", "std_err_across_runs", "avg_sample_std_dev")


def compute_pass_majority_metrics(
    tasks: Sequence[Sequence[Row]],
    score_fn: Callable[[Row], dict[str, float | bool]] | None = None,
    answer_key: str | None = None,
) -> tuple[dict[str, Any], list[list[Scores]], list[str], int]:
    """Percentages `pass@k/<score>`, `pass@1[avg-of-k]/<score>` with their spread; with `answer_key` `majority@k/<score>`.

    Gives also the scores of every rollout, their names, and the most rollouts a task has.
    """
    scores = [[_scores(row, score_fn, answer_key) for row in rollouts] for rollouts in tasks]
    answers = [[row.get(answer_key) if answer_key else None for row in rollouts] for rollouts in tasks]
    names = sorted({name for rollouts in scores for found in rollouts for name in found})
    most = max(map(len, tasks), default=0)
    if not tasks:
        return {}, [], [], 0
    metrics: dict[str, Any] = {}
    for k in range(1, most + 1):
        for name in names:
            columns = [[found[name] for found in rollouts if name in found] for rollouts in scores]
            _put(metrics, f"pass@{k}/{name}", [_pass(values, k) for values in columns if len(values) >= k])
            _put(metrics, f"pass@1[avg-of-{k}]/{name}", [fmean(values[:k]) for values in columns if values])
            if answer_key is not None:
                voted = [_majority(given[:k], found[:k], name) for given, found in zip(answers, scores, strict=True)]
                _put(metrics, f"majority@{k}/{name}", voted)
    runs = {name: _runs(scores, name, most) for name in names}
    metrics["per_sample_aggregate"] = {name: values for name, values in runs.items() if values}
    for k in range(2, most + 1):
        for name, values in runs.items():
            if len(values[:k]) > 1:
                spread = stdev(values[:k])
                metrics[f"pass@1[avg-of-{k}]/{name}/std_dev_across_runs"] = spread
                metrics[f"pass@1[avg-of-{k}]/{name}/std_err_across_runs"] = spread / len(values[:k]) ** 0.5
    return metrics, scores, names, most


def add_avg_sample_std_dev(metrics: Row, all_score_dicts: list[list[Scores]], score_names: list[str], max_k: int) -> None:
    """Add the mean over tasks of the deviation within a task, for every k from 2 on."""
    for k in range(2, max_k + 1):
        for name in score_names:
            columns = [[found[name] for found in rollouts[:k] if name in found] for rollouts in all_score_dicts]
            spread = [stdev(values) for values in columns if len(values) > 1]
            if spread:
                metrics[f"pass@1[avg-of-{k}]/{name}/avg_sample_std_dev"] = fmean(spread)


def compute_subset_metrics(
    tasks: Sequence[Sequence[Row]],
    subset_key: str,
    score_fn: Callable[[Row], dict[str, float | bool]] | None = None,
    answer_key: str | None = None,
) -> dict[str, Any]:
    """The same metrics for the tasks of each value of a field, under `<value>/`."""
    subsets: dict[Any, list[Sequence[Row]]] = {}
    for rollouts in tasks:
        if rollouts and rollouts[0].get(subset_key):
            subsets.setdefault(rollouts[0][subset_key], []).append(rollouts)
    found = {value: compute_pass_majority_metrics(rows, score_fn, answer_key)[0] for value, rows in subsets.items()}
    return {
        f"{value}/{key}": number
        for value, metrics in found.items()
        for key, number in metrics.items()
        if key != "per_sample_aggregate"
    }


def highest_k_metrics(
    agent_metrics: dict[str, Any],
    pattern: str,
    score_names: list[str] | None = None,
    exclude_names: list[str] | None = None,
) -> dict[str, Any]:
    """The metrics named like `pattern` (say `pass@{k}`) with the highest k; those of spread left out."""
    form = re.compile(re.escape(pattern).replace(r"\{k\}", r"(\d+)") + "/(.+)")
    matches = [(int(match[1]), match[2], key) for key in agent_metrics if (match := form.fullmatch(key))]
    kept = [
        (k, key)
        for k, name, key in matches
        if not name.endswith(_SPREAD) and (score_names is None or name in score_names) and name not in (exclude_names or ())
    ]
    top = max((k for k, _ in kept), default=0)
    return {key: agent_metrics[key] for k, key in kept if k == top}


class AggregateMetricsMixin:
    """The two hooks with which a server shapes the answer to `/aggregate_metrics`."""

    def compute_metrics(self, tasks: list[list[Row]]) -> dict[str, Any]:
        """More metrics, from the verified rollouts of each task."""
        return {}

    def get_key_metrics(self, agent_metrics: dict[str, Any]) -> dict[str, Any]:
        """Those that stand for the whole."""
        return {key: value for key, value in agent_metrics.items() if key.startswith("mean/")}


def compute_aggregate_metrics(
    verify_responses: list[Row],
    compute_metrics_fn: Callable[[list[list[Row]]], dict[str, Any]] | None = None,
    get_key_metrics_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> AggregateMetrics:
    """Mean, max, min, median and deviation of every numeric field, by task and over all; then the hooks' own."""
    if not verify_responses:
        return AggregateMetrics()
    found = AggregateMetrics.model_validate(aggregate(verify_responses))
    if compute_metrics_fn is not None:
        own = compute_metrics_fn(_by_task(verify_responses))
        if own:  # then pass@k is the server's to define
            found.agent_metrics = {key: value for key, value in found.agent_metrics.items() if not key.startswith("pass@")}
        by_task = {row[TASK_INDEX_KEY_NAME]: row for row in own.pop("per_task_metrics", None) or ()}
        for group in found.group_level_metrics:
            group.update(by_task.get(group.get(TASK_INDEX_KEY_NAME), {}))
        found.agent_metrics.update(own)
    if get_key_metrics_fn is not None:
        found.key_metrics = get_key_metrics_fn(found.agent_metrics)
    return found


def _by_task(rows: list[Row]) -> list[list[Row]]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get(TASK_INDEX_KEY_NAME, 0), []).append(row)
    return [groups[key] for key in sorted(groups)]


def _scores(row: Row, score_fn: Callable[[Row], dict[str, float | bool]] | None, answer_key: str | None) -> Scores:
    found = {"accuracy": row["reward"]} if score_fn is None else score_fn(row)
    if answer_key is not None:
        found = {**found, "no_answer": row.get(answer_key) is None}
    return {name: int(value) if isinstance(value, bool) else value for name, value in found.items()}


def _pass(values: list[float], k: int) -> float:
    if all(value in (0, 1) for value in values):
        return pass_at_k(len(values), sum(map(bool, values)), k)
    return max(values[:k])


def _majority(answers: Sequence[Any], scores: Sequence[Scores], name: str) -> float:
    given = [(answer, found) for answer, found in zip(answers, scores, strict=True) if answer is not None and name in found]
    votes = Counter((answer, found[name]) for answer, found in given)
    top = max(votes.values(), default=0)
    return fmean([worth for (_, worth), count in votes.items() if count == top] or [0.0])


def _runs(scores: list[list[Scores]], name: str, most: int) -> list[float]:
    """The mean over the tasks of their first rollout, of their second, and so on."""
    columns = [[row[run][name] for row in scores if run < len(row) and name in row[run]] for run in range(most)]
    return [100.0 * fmean(values) for values in columns if values]


def _put(metrics: Row, key: str, values: list[float]) -> None:
    if values:
        metrics[key] = 100.0 * fmean(values)
