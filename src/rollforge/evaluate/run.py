"""An evaluation: every model plays the same tasks with the same draws, then they are scored and compared.

OUT/MODEL/ENV   a run directory each: what is there already is not done again
OUT/eval.json   the configuration, and the result (`Evaluated.row()`)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rollforge.collect.run import Collection, reading_tasks
from rollforge.collect.run_dir import new_path, slug, write_json
from rollforge.envs.load import load_env
from rollforge.envs.tasks import env_tasks
from rollforge.errors import UserError, unknown
from rollforge.evaluate.attempts import RESULT, Attempts, field_of, find_runs, read_attempts, run_about
from rollforge.evaluate.config import EvalConfig
from rollforge.evaluate.paired import Paired, compare_attempts
from rollforge.evaluate.score import Mode, Score, TaskScore, failure_modes, score, solved_calls, task_scores
from rollforge.records.items import Json, inside
from rollforge.records.shown import shown, without_secrets
from rollforge.records.task import Task
from rollforge.registry import resolve
from rollforge.stats.estimate import finite
from rollforge.stats.source import RUN, find_run
from rollforge.stats.text import percent

MOST_LOOKED_AT = 10_000
"""Tasks of an environment in which a category is looked for."""

Around = Callable[[Collection], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Played:
    """One model."""

    name: str
    runs: dict[str, list[Path]]
    """Run directories by environment; of several of one name by their folders'."""
    overall: Score
    environments: dict[str, Score]
    categories: dict[str, dict[str, Score]]
    """Field of the task -> value -> score."""
    failures: list[Mode]
    tasks: list[TaskScore]
    repeated: int
    """Rows left out: the task and repeat had a verdict already."""
    bad: int
    """Lines that could not be used."""


@dataclass(frozen=True, slots=True)
class Compared:
    before: str
    after: str
    paired: Paired


@dataclass(frozen=True, slots=True)
class Evaluated:
    path: Path
    models: list[Played]
    comparisons: list[Compared]
    """With the baseline if there is one, else with the first model."""
    regressions: list[str]
    """Against the baseline: significant, at 95 %. Without one there are none."""
    uncovered: list[str]
    """Models that have fewer rewards than `min_coverage` asks for."""
    stopped: str | None
    """Why not everything was played, if it was not."""

    @property
    def success(self) -> bool:
        return not (self.regressions or self.uncovered or self.stopped)

    def row(self) -> Json:
        """The JSON form. Never holds NaN or infinity."""
        models = [
            {**asdict(one), "runs": {env: list(map(str, runs)) for env, runs in one.runs.items()}} for one in self.models
        ]
        return finite(  # type: ignore[no-any-return]
            {
                "version": 1,
                "path": str(self.path),
                "success": self.success,
                "models": models,
                "comparisons": [asdict(one) for one in self.comparisons],
                "regressions": self.regressions,
                "uncovered": self.uncovered,
                "stopped": self.stopped,
            }
        )


async def evaluate(config: EvalConfig, around: Around = nullcontext) -> Evaluated:
    """Play what is left to play, then score and compare. `around` is entered for each collection, to show how it goes.

    Raises `UserError` when the request is wrong (a baseline that shares no task with what was played is told at the end),
    `SetupError` when no rollout of a model can succeed; what was played is kept.
    """
    baseline = read_attempts(find_runs(config.baseline), config.success, config.by) if config.baseline else None
    if baseline is not None and not baseline.judged.any():
        raise UserError(f"{config.baseline} has no rollout with a reward to compare with")
    out = config.out or new_path("eval")
    _refuse_run(out)
    names = _numbered([shown(model.use) for model in config.models])
    folders = _numbered([slug(name) for name in names], "-{}")
    envs = _numbered([slug(env.use) for env in config.env], "-{}")
    plans = [
        [config.collection(model, env, out / folder / place) for env, place in zip(config.env, envs, strict=True)]
        for model, folder in zip(config.models, folders, strict=True)
    ]
    _refuse_exchanged(config, out, folders)
    own = _check_names(config)
    _check_fields(config)
    # Entries of one name (another file, other options) are told apart by their folders.
    labels = [place if own.count(name) > 1 else name for name, place in zip(own, envs, strict=True)]
    played: list[tuple[str, Attempts, dict[str, list[Path]], dict[str, int]]] = []
    stopped = None
    for name, plan in zip(names, plans, strict=True):
        runs: dict[str, list[Path]] = {}
        planned: dict[str, int] = {}
        for env, each in zip(labels, plan, strict=True):
            collection = Collection(each)
            with around(collection):
                summary = await collection.run()
            stopped = summary.stopped
            if summary.tally.done:
                runs[env] = [summary.path]
                planned[env] = summary.tally.total
            if stopped:
                break
        if runs:
            sources = [find_run(path) for paths in runs.values() for path in paths]
            played.append((name, read_attempts(sources, config.success, config.by, [*runs]), runs, planned))
        if stopped:
            break
    result = _result(config, out, played, baseline, stopped)
    write_json(out / RESULT, {"config": config.row(), **result.row()})
    return result


def _result(
    config: EvalConfig,
    out: Path,
    played: list[tuple[str, Attempts, dict[str, list[Path]], dict[str, int]]],
    baseline: Attempts | None,
    stopped: str | None,
) -> Evaluated:
    known = solved_calls([attempts for _, attempts, _, _ in played])
    models = [_played(config, *one, known) for one in played]
    against, others = str(config.baseline), played
    if baseline is None and played:
        against, baseline, others = played[0][0], played[0][1], played[1:]
    comparisons = [
        Compared(against, name, compare_attempts(baseline, attempts, config.success))
        for name, attempts, _, _ in others
        if baseline is not None and attempts.judged.any() and baseline.judged.any()
    ]
    regressions = (f"{one.after}, {text}" for one in comparisons for text in one.paired.regressions)
    return Evaluated(
        path=out,
        models=models,
        comparisons=comparisons,
        regressions=list(regressions) if config.baseline else [],
        uncovered=[
            f"{one.name} has {one.overall.judged:,} rewards of {one.overall.planned:,} rollouts: "
            f"coverage {percent(one.overall.coverage)}, and {percent(config.min_coverage)} is asked for"
            for one in models
            if one.overall.coverage < config.min_coverage or not one.overall.judged
        ],
        stopped=stopped,
    )


def _played(
    config: EvalConfig,
    name: str,
    attempts: Attempts,
    runs: dict[str, list[Path]],
    planned: dict[str, int],
    known: set[int],
) -> Played:
    return Played(
        name=name,
        runs=runs,
        overall=score(attempts, config.success, planned=sum(planned.values())),
        environments={
            env: score(attempts, config.success, attempts.env == number, planned.get(env))
            for number, env in enumerate(attempts.envs)
        },
        categories={
            field: {
                values[code]: score(attempts, config.success, codes == code)
                for code in sorted(range(len(values)), key=lambda code: values[code])
            }
            for field, (codes, values) in attempts.categories.items()
        },
        failures=failure_modes(attempts, known, config.examples),
        tasks=list(task_scores(attempts, config.success)),
        repeated=attempts.repeated,
        bad=attempts.bad,
    )


def _check_names(config: EvalConfig) -> list[str]:
    """The environments' own. What is wrong with the last is told before the first is played."""
    names = [getattr(load_env(env.use), "name", None) or env.use for env in config.env]
    for model in config.models:
        if "://" not in model.use:
            resolve("model", model.use.partition(":")[0], "(a model is written backend:name, as in chat:Qwen/Qwen3-8B)")
    return names


def _check_fields(config: EvalConfig) -> None:
    """Raises `UserError` for a category that none of the first tasks has."""
    missing, known = set(config.by), set[str]()
    for given in config.env if missing else ():
        with reading_tasks(given.use):
            tasks = env_tasks(load_env(given.use), config.tasks, given.model_extra, name=given.use)
            for task in islice(tasks, config.limit or MOST_LOOKED_AT):
                if isinstance(task, Task):
                    missing = {name for name in missing if field_of(task.fields, name) is None}
                    known |= task.fields.keys()
                    known |= {
                        f"{key}.{inner}" for key, held in task.fields.items() if isinstance(held, dict) for inner in held
                    }
                if not missing:
                    return
    if missing:
        raise unknown("field of the tasks", min(missing), known, "(--by)")


def _refuse_run(out: Path) -> None:
    if (out / "run.json").exists():
        raise UserError(f"{out} is a run directory; an evaluation holds several: choose another --out")


def _refuse_exchanged(config: EvalConfig, out: Path, folders: list[str]) -> None:
    """Raises `UserError` where models that differ by their server alone would get one another's rollouts: their folders are
    numbered in the order in which they are given."""
    played: dict[str, Json] = {}
    for run in out.glob(f"*/*/{RUN}"):
        about = run_about(run.parent)
        played[run.parent.parent.name] = {key: inside(about, "config", "model", key) for key in ("use", "base_url")}
    for model, folder in zip(config.models, folders, strict=True):
        own = without_secrets({"use": model.use, "base_url": model.base_url})
        other = next((name for name, one in played.items() if one == own), folder)
        if played.get(folder, own) != own and other != folder:
            raise UserError(
                f"{out / other} holds what {own['use']} at {', '.join(own['base_url'])} played, and it would get {folder} "
                "now: give the models in the order that they had, or choose another --out"
            )


def _numbered(names: list[str], suffix: str = " ({})") -> list[str]:
    """Different names: the second of the same gets a 2."""
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = name + suffix.format(number)
        found.append(new)
    return found
