"""`rollforge eval`: models side by side on the same tasks, and a gate against regressions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX, given, seldom_collect_garbage
from rollforge.cli.output import exit_if_signalled, print_json, prints_aside, show
from rollforge.cli.tables import table
from rollforge.errors import RollforgeError, UserError, unknown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rollforge.evaluate.config import EvalConfig
    from rollforge.evaluate.paired import Changed, Contrast, Paired
    from rollforge.evaluate.run import Compared, Evaluated, Played

MOST_VALUES, MOST_MODES, MOST_NOTES = 40, 8, 12


def evaluate(
    models: list[str] = typer.Argument(None, metavar="MODEL...", help="Models, as backend[:name]; the first is compared."),
    env: list[str] = typer.Option([], "--env", "-e", help="Environment; may be repeated."),
    repeats: int | None = typer.Option(None, "--repeats", "-k", help="Rollouts per task (default 4)."),
    limit: int | None = typer.Option(None, "--limit", "-n", help="Only the first so many tasks of each environment."),
    tasks: Path | None = typer.Option(None, help="JSONL file of tasks, instead of the environment's own."),
    seed: int | None = typer.Option(None, help="Of every draw, the same for all models; sent to servers too (default 0)."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Directory of the evaluation; one that exists is resumed."),
    baseline: Path | None = typer.Option(
        None, metavar="RUN", help="Compare with this run or earlier evaluation; exit with 1 on a significant regression."
    ),
    config: Path | None = typer.Option(None, "--config", "-c", help="YAML with any of the settings; options win over it."),
    temperature: float | None = typer.Option(None, help="Sampling temperature."),
    top_p: float | None = typer.Option(None, help="Nucleus sampling."),
    max_output_tokens: int | None = typer.Option(None, help="Tokens per model call."),
    base_url: list[str] = typer.Option([], help="The model servers' URL, as in http://localhost:8000/v1; may be repeated."),
    api_key_env: str | None = typer.Option(None, help="Name of the environment variable that holds the key."),
    by: list[str] = typer.Option([], help="A field of the tasks that is a category (default: level, kind, ... if there)."),
    success: float | None = typer.Option(None, help="The reward from which a rollout counts as solved (default 1)."),
    min_coverage: float | None = typer.Option(None, help="Share of rollouts that must get a reward (default 1)."),
    examples: int | None = typer.Option(None, help="Transcripts named for each failure mode (default 2)."),
    concurrency: int | None = typer.Option(None, help="Rollouts in flight (default 64)."),
    max_turns: int | None = typer.Option(None, help="Model calls per rollout (default 16)."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="When resuming, attempt again what failed for good."),
    set_: list[str] = typer.Option([], "--set", help="Any other setting, as in --set env.split=test (of all environments)."),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Let models play the same tasks with the same draws, and compare them. Killed or interrupted, the same command goes on.

    Exit status 1: a significant regression against --baseline, or too few rollouts with a reward.
    """
    options: dict[str, Any] = {
        "models": models or None,
        "env": env or None,
        "repeats": repeats,
        "limit": limit,
        "tasks": tasks,
        "seed": seed,
        "out": out,
        "baseline": baseline,
        "sampling": {"temperature": temperature, "top_p": top_p, "max_output_tokens": max_output_tokens},
        "by": by or None,
        "success": success,
        "min_coverage": min_coverage,
        "examples": examples,
        "concurrency": concurrency,
        "agent": {"max_turns": max_turns},
        "retry_failed": retry_failed or None,
    }
    model: dict[str, Any] = {"base_url": base_url or None, "api_key_env": api_key_env}
    done = _run(_settings(config, given(options), given(model), set_))
    if json:
        print_json(done.row(), allow_nan=False)
    else:
        _print(done)
    for problem in [*done.regressions, *done.uncovered]:
        print(f"error: {'regression of ' if problem in done.regressions else ''}{problem}", file=sys.stderr)
    exit_if_signalled(done.stopped)
    sys.exit(0 if done.success else 1)


def _settings(file: Path | None, options: dict[str, Any], model: dict[str, Any], more: list[str]) -> EvalConfig:
    """`model` and what `--set env.x=...` says go to every model, to every environment."""
    from rollforge.config import merge, parse_set, read_yaml, validate
    from rollforge.evaluate.config import EvalConfig, all_used

    values = merge(read_yaml(file) if file else {}, options)
    for name in ("models", "env"):
        values[name] = all_used(values.get(name, []))
    every: dict[str, Any] = {"model": model, "env": {}}
    for text in more:
        for key, value in parse_set(text).items():
            if key in every and isinstance(value, dict):
                every[key] = merge(every[key], value)
            else:
                values = merge(values, {key: value})
    values["models"] = [merge(one, every["model"]) if isinstance(one, dict) else one for one in values["models"]]
    values["env"] = [merge(one, every["env"]) if isinstance(one, dict) else one for one in values["env"]]
    where = str(file or "the options")
    for key in values:
        if key not in EvalConfig.model_fields:
            raise unknown("key", key, EvalConfig.model_fields, f"(in {where}; the environment's own are env.{key})")
    if not values["models"]:
        raise UserError("give a model to evaluate: rollforge eval tiny --env arithmetic")
    if not values["env"]:
        raise UserError("name an environment: --env arithmetic (list them: rollforge env list)")
    return validate(EvalConfig, values, where)


def _run(config: EvalConfig) -> Evaluated:
    import uvloop

    from rollforge.cli.progress import progress, say
    from rollforge.evaluate.run import evaluate
    from rollforge.records.shown import typed

    seldom_collect_garbage()
    begun = []

    def around(collection: Any) -> Any:
        begun.append(collection)
        return progress(collection)

    try:
        with prints_aside():
            return uvloop.run(evaluate(config, around))
    except (RollforgeError, KeyboardInterrupt):
        if any(collection.tally.done for collection in begun):
            say(f"what was played is kept; the same command with --out {typed(begun[0].path.parent.parent)} goes on")
        raise


def _print(done: Evaluated) -> None:
    from rich.console import Group

    from rollforge.records.shown import typed

    show(Group(*_parts(done)))
    if done.stopped:
        print(f"\nstopped: {done.stopped}; the same command with --out {typed(done.path)} goes on")
    first = next((runs[0].parent for model in done.models for runs in model.runs.values()), None)
    again = f"   as a baseline: rollforge eval ... --baseline {typed(first)}" if first else ""
    print(f"\nevaluation: {done.path}{again}")


def _parts(done: Evaluated) -> Iterator[RenderableType]:
    yield from _scores(done.models)
    for comparison in done.comparisons:
        yield from _comparison(comparison)
    if len(done.models) > 2 or not done.comparisons:  # the comparison of two shows them side by side
        for field in dict.fromkeys(field for model in done.models for field in model.categories):
            yield from _category(done.models, field)
    yield from _failures(done.models)


def _scores(models: list[Played]) -> Iterator[RenderableType]:
    from rollforge.stats.text import interval, number, percent
    from rollforge.stats.visible import one_line

    ks = sorted({each.k for model in models for each in model.overall.pass_at})
    shown = sorted({*ks[:1], *ks[-1:]})  # a terminal holds two; --json has them all
    rows, passes = [], []
    for model in models:
        several = [("all", model.overall)] * (len(model.environments) != 1)
        for env, score in [*model.environments.items(), *several]:
            name = one_line(model.name, 40), one_line(env, 30)
            cells = number(score.judged), number(score.tasks), percent(score.coverage), interval(score.reward)
            rows.append((*name, *cells))
            found = {each.k: interval(each.share) for each in score.pass_at}
            passes.append((*name, *(found.get(k, "-") for k in shown)))
    columns = ("model", "environment", "rollouts", "tasks", "coverage", "mean reward")
    yield from table("Rewards, with 95 % intervals over tasks", columns, rows, words=2)
    yield from table("At least one of k attempts solved", (*columns[:2], *(f"pass@{k}" for k in shown)), passes, words=2)


def _comparison(comparison: Compared) -> Iterator[RenderableType]:
    from rich.text import Text

    from rollforge.stats.text import number
    from rollforge.stats.visible import one_line

    paired = comparison.paired
    rows = [("all", *_contrast(paired))]
    rows += [(one_line(name, 30), *_contrast(each)) for name, each in paired.by_env.items()]
    for field, values in paired.by_category.items():
        shown = list(values.items())[:MOST_VALUES]
        rows += [(one_line(f"{field}: {value}", 40), *_contrast(each)) for value, each in shown]
    columns = ("tasks of", "pairs", "before", "after", "difference", "p", "+ = -")
    title = f"{one_line(comparison.after, 60)} against {one_line(comparison.before, 60)}: the same task and repeat"
    yield from table(title, columns, rows)
    yield Text(f"  {_conclusion(paired)}; + = -: tasks better, equal, worse", style="bold")
    for note in paired.notes[:MOST_NOTES]:
        yield Text(f"  {one_line(note, 300)}", style="yellow")
    changed = [
        (one_line(each.env, 20), _task(each), str(each.rollouts), number(each.before), number(each.after))
        for each in paired.changed
    ]
    yield from table("Tasks that changed most", ("environment", "task", "pairs", "before", "after"), changed, words=2)


def _contrast(each: Contrast) -> tuple[str, ...]:
    from rollforge.stats.text import interval, number

    means = number(each.before.value), number(each.after.value), interval(each.difference)
    return (number(each.rollouts), *means, f"{each.p_value:.2g}", f"{each.wins} {each.ties} {each.losses}")


def _task(each: Changed) -> str:
    from rollforge.stats.visible import one_line

    return one_line(each.task, 20) if each.index is None else f"{each.index} ({one_line(each.task, 20)})"


def _conclusion(paired: Paired) -> str:
    if not paired.significant:
        return "no significant difference (two-sided permutation test over tasks, 95 %)"
    return f"significantly {'better' if (paired.difference.value or 0) > 0 else 'worse'} (p = {paired.p_value:.2g})"


def _category(models: list[Played], field: str) -> Iterator[RenderableType]:
    from rollforge.stats.text import interval, number
    from rollforge.stats.visible import one_line

    values = sorted({value for model in models for value in model.categories.get(field, {})})[:MOST_VALUES]
    rows = []
    for value in values:
        scores = [model.categories.get(field, {}).get(value) for model in models]
        tasks = max(score.tasks if score else 0 for score in scores)
        cells = (interval(score.reward) if score else "-" for score in scores)
        rows.append((one_line(value, 40), number(tasks), *cells))
    columns = (one_line(field, 30), "tasks", *(one_line(model.name, 30) for model in models))
    yield from table(f"Mean reward by {one_line(field, 30)}", columns, rows)


def _failures(models: list[Played]) -> Iterator[RenderableType]:
    from rich.text import Text

    from rollforge.stats.text import share
    from rollforge.stats.visible import one_line, visible

    several = len({mode.env for model in models for mode in model.failures}) > 1
    for model in models:
        totals = {mode.env: round(mode.count / mode.share) for mode in model.failures}
        shown = sorted(model.failures, key=lambda mode: -mode.count)[: MOST_MODES * max(1, len(totals))]
        rows = [
            (visible(f"{mode.env}: {mode.name}" if several else mode.name), share(mode.count, totals[mode.env]))
            for mode in shown
        ]
        yield from table(f"How {one_line(model.name, 60)} failed", ("", "rollouts"), rows)
        for mode in shown:
            for example in mode.examples:
                yield Text(f"  {mode.name}: {example.prompt}", overflow="fold")
                yield Text(f"    {example.what}", style="dim", overflow="fold")
                yield Text(f"    {visible(example.command)}", style="cyan", overflow="fold")
