"""What a training came to: report.json, report.md, curve.png, and the same in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollforge.evaluate.attempts import find_runs, read_attempts
from rollforge.evaluate.paired import compare_runs
from rollforge.evaluate.score import score
from rollforge.records.items import Json
from rollforge.train.curve import Point, draw, plot
from rollforge.train.watch import Watch, read_metrics


def evaluations(folder: Path) -> dict[int, Path]:
    """The run directories of the evaluations by their step, in order."""
    steps = {int(path.name.partition("-")[2]): path for path in folder.glob("step-*")}
    return dict(sorted(steps.items()))


def write_report(path: Path, watch: Watch, about: Json) -> Json:
    """Compares the first evaluation with the last, task by task and draw by draw."""
    runs = evaluations(path / "eval")
    curve = [_point(step, run) for step, run in runs.items()]
    report: Json = {**about, "curve": [{"step": p.step, "reward": p.mean, "low": p.low, "high": p.high} for p in curve]}
    if len(runs) > 1:
        first, *_, last = runs.values()
        report["comparison"] = compare_runs(first, last).row()
        report["evaluations"] = {"base": str(first.relative_to(path)), "final": str(last.relative_to(path))}
    report["seconds"] = {
        **about["seconds"],
        "training": watch.training_seconds,
        "evaluation": watch.evaluation_seconds,
    }
    if watch.counts is not None:
        report["rollouts"] = watch.counts.row()
        report["seconds"]["rollouts"] = watch.counts.seconds
        report["rollout_share"] = watch.counts.seconds / watch.training_seconds if watch.training_seconds else None
    rewards = [(row["step"], row["reward"]) for row in read_metrics(path / "metrics.jsonl") if "reward" in row]
    title = f"{about['model']}: {about['method'].upper()}" + (f" in {about['env']}" if about["env"] else "")
    draw(path / "curve.png", curve, rewards, title)
    (path / "report.md").write_text(_markdown(report, curve), "utf-8")
    return report


def shown(report: Json) -> str:
    """For a terminal."""
    points = [Point(row["step"], row["reward"], row["low"], row["high"]) for row in report["curve"]]
    return "\n".join([plot(points), "", *_facts(report)] if points else _facts(report))


def _point(step: int, run: Path) -> Point:
    mean = score(read_attempts(find_runs(run), 1.0, ()), 1.0).reward
    assert mean.value is not None  # an evaluation without a reward has ended the training
    return Point(step, mean.value, mean.low, mean.high)


def _markdown(report: Json, curve: Sequence[Point]) -> str:
    title = f"# {report['method'].upper()} of {report['model']}" + (f" in {report['env']}" if report["env"] else "")
    lines = [title, "", "![the reward on held-out tasks over the steps](curve.png)", ""]
    lines += [f"- {line}" for line in _facts(report)]
    if curve:
        lines += ["", "| step | reward on held-out tasks | 95 % interval |", "|---|---|---|"]
        lines += [f"| {p.step} | {p.mean:.3f} | {_interval(p.low, p.high)} |" for p in curve]
    categories = (report.get("comparison") or {}).get("by_category") or {}
    for name, values in categories.items():
        lines += ["", f"| {name} | tasks | before | after | difference |", "|---|---|---|---|---|"]
        for value, one in values.items():
            means = " | ".join(_mean(one[side]) for side in ("before", "after", "difference"))
            lines.append(f"| {value} | {one['tasks']} | {means} |")
    return "\n".join(lines) + "\n"


def _facts(report: Json) -> list[str]:
    compared, seconds = report.get("comparison"), report["seconds"]
    lines = []
    if compared:
        lines.append(
            f"held-out reward {_mean(compared['before'])} -> {_mean(compared['after'])}; difference "
            f"{_mean(compared['difference'])}, p = {compared['p_value']:.2g} "
            f"({compared['rollouts']} pairs of rollouts, {compared['tasks']} tasks)"
        )
    elif not report["curve"]:
        lines.append(f"not measured: {report.get('not_measured')}")
    minutes = seconds["all"] / 60
    lines.append(f"{report['steps']} steps in {minutes:.1f} minutes, {seconds['evaluation'] / 60:.1f} of them evaluation")
    if "rollouts" in report:
        rollouts = report["rollouts"]
        unjudged = rollouts["rollouts"] - sum(rollouts["outcomes"].get(name, 0) for name in ("scored", "policy_fault"))
        drifted = sum(rollouts["flaws"].values())
        lines.append(f"rollouts and their rewards took {report['rollout_share'] or 0:.0%} of the time of the steps")
        lines.append(
            f"of {rollouts['rollouts']:,} rollouts {unjudged} had no verdict and {drifted} drifted "
            f"({rollouts['drifted_share']:.2%}): masked, in no group's mean"
        )
        apart = rollouts["log_probs"]
        lines.append(
            f"log probabilities of the sampler and of the trainer are at most {apart['max']:.1e} apart "
            f"({apart['tokens']:,} tokens)"
        )
    return lines


def _mean(mean: Any) -> str:
    value = "none" if mean["value"] is None else f"{mean['value']:.3f}"
    return value + (f" [{_interval(mean['low'], mean['high'])}]" if mean["low"] is not None else "")


def _interval(low: float | None, high: float | None) -> str:
    return "none" if low is None or high is None else f"{low:.3f} to {high:.3f}"
