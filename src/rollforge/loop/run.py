"""A loop from recipe to last policy: each step once, in order, and which of them are done is on disk before the next.

    tasks ─► eval ─► │ target ─► collect ─► curate ─► export ─► train ─► eval │ ─► …
                     │    └ by what failed before           the next policy ──┘

Killed anywhere, the same call goes on: a step that is done is known by `loop.json`; the one that was under way goes on by
itself (collect, train, eval) or begins again (the others, which take seconds).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rollforge.collect.run_dir import write_json
from rollforge.curate.run import curate_rollouts
from rollforge.errors import RollforgeError, UserError
from rollforge.export.run import export_rollouts
from rollforge.export.writer import sha256
from rollforge.loop.config import LoopConfig
from rollforge.loop.lineage import LINEAGE, MADE_OF, lineage, made_of, mark_model, model_digest, run_facts
from rollforge.loop.plan import (
    Policy,
    acts_in,
    check,
    collection,
    evaluation,
    files_of,
    held_out,
    holds_out,
    listed,
    played,
    start,
    tasks_name,
    training,
)
from rollforge.loop.state import State, opened
from rollforge.loop.steps import Steps
from rollforge.loop.tasks import TARGETED, TEST, TRAIN, fix_tasks, hold_out, refuse_overlap, solve_rates, target_tasks
from rollforge.records.items import Json


@dataclass(frozen=True, slots=True)
class Looped:
    out: Path
    rows: list[Json]
    """The policy of the start, and what each iteration came to."""
    model: str
    """The last policy, as `--model` takes it."""
    stopped: str | None
    """Why the loop has not come to its end, if so; the same call goes on where something can."""

    def row(self) -> Json:
        return {"out": str(self.out), "model": self.model, "stopped": self.stopped, "iterations": self.rows}


def run_loop(
    config: LoopConfig,
    out: str | Path,
    steps: Steps,
    *,
    apply_next: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Looped:
    """Run a loop in the directory `out`, or go on with it. Not inside a running event loop: steps have one of their own.

    `apply_next`: a recipe that differs from the stored one holds from the first iteration on that has not begun. Raises
    `UserError` before anything is started if the recipe cannot work, and whatever a step raises.
    """
    out = Path(out).resolve()
    check(config, out, steps)
    with opened(out, config, apply_next) as state:
        walk = _Walk(state, steps, say)
        policy, stopped = start(state.config(1)), None
        try:
            policy = walk.start()
            for iteration in range(1, config.iterations + 1):
                policy = walk.iteration(iteration, policy)
        except _Stopped as stop:
            stopped = str(stop)
        write_json(out / LINEAGE, lineage(state.steps))
        return Looped(out, table(state.steps), policy.played.use, stopped)


def table(steps: Mapping[str, Json]) -> list[Json]:
    """A row for the start and for each iteration: what was collected, learned from, and measured."""
    rows: dict[int, Json] = {}
    for name, facts in steps.items():
        if name.startswith("iteration-"):
            row = rows.setdefault(facts["iteration"], {"iteration": facts["iteration"]})
            row |= {facts["kind"]: {key: facts[key] for key in _SHOWN[facts["kind"]] if key in facts}}
    return [rows[n] for n in sorted(rows)]


_SHOWN = {
    "target": ("tasks", "more", "dropped"),
    "collect": ("rollouts", "mean", "coverage"),
    "curate": ("rows", "taken"),
    "export": ("rows",),
    "train": ("id", "model", "parent"),
    "kept": ("policy",),
    "eval": ("model", "reward", "rollouts", "tasks", "change", "since_start"),
}


class _Stopped(RollforgeError):
    """The loop cannot go on; nothing is broken."""


class _Walk:
    def __init__(self, state: State, steps: Steps, say: Callable[[str], None]) -> None:
        self._state = state
        self._steps = steps
        self._say = say
        self._out = state.path
        self._begin: Policy

    def start(self) -> Policy:
        """The first policy, measured if there is an evaluation."""
        config = self._state.config(1)
        policy = start(config)
        self._tasks(config, 1)
        if config.eval is not None:
            policy = self._measured(config, 0, policy, None)
        self._begin = policy
        return policy

    def iteration(self, n: int, policy: Policy) -> Policy:
        """The policy with which the next one goes on."""
        config = self._state.config(n)
        tasks = self._tasks(config, n)
        if n > 1 and config.model.use != self._state.config(n - 1).model.use:
            policy = self._begin = self._given(config, n, policy)
        data: list[Path] = []
        if config.collect is not None:
            if config.target is not None and n > 1:
                tasks = self._target(config, n, policy, tasks)
            runs = self._collected(config, n, policy, tasks)
            data = self._curated(config, n, runs) if config.curate is not None else runs
            if config.export is not None:
                self._exported(config, n, data)
        if config.train is None:
            return policy
        parent = self._begin if config.restart else policy
        made = self._trained(config, n, parent, data, tasks)
        if config.eval is None:
            return made
        made = self._measured(config, n, made, policy)
        return self._kept(config, n, made, policy)

    def _given(self, config: LoopConfig, n: int, before: Policy) -> Policy:
        """A policy that a changed recipe brings in, from a trainer elsewhere perhaps."""
        policy = replace(start(config), id=f"given-{n}")
        if config.eval is None:
            return policy
        return self._measured(config, n, policy, before, "eval" if config.train is None else "given")

    def _tasks(self, config: LoopConfig, n: int) -> Path:
        since = self._state.since(n)
        name = tasks_name(since)
        if config.collect is not None or holds_out(config):
            self._step(name, "tasks", since, lambda: self._fix_tasks(config, self._folder(name)))
        return self._out / name / TRAIN

    def _fix_tasks(self, config: LoopConfig, folder: Path) -> Json:
        limit = held_out(config)
        if config.collect is None:
            env = acts_in(config)
            assert env is not None  # `check` sees to it
            counts = {"train": 0, "test": hold_out(env, (config.train or {}).get("tasks"), limit or 0, folder)}
        else:
            counts = fix_tasks(collection(config, start(config), 1, self._out), limit, folder)
            if config.eval is not None and limit is None:
                asked = evaluation(config, start(config), folder / TEST, self._out)
                refuse_overlap(folder / TRAIN, [asked.collection(asked.models[0], env, self._out) for env in asked.env])
        return counts | {"files": {file.name: sha256(file) for file in sorted(folder.glob("*.jsonl"))}}

    def _target(self, config: LoopConfig, n: int, policy: Policy, tasks: Path) -> Path:
        target, name = config.target, f"iteration-{n}/target"
        assert target is not None

        def work() -> Json:
            if target.by and policy.measured is not None:
                runs = [file.parent for file in sorted(policy.measured.glob("**/rollouts.jsonl"))]
            else:
                runs = [self._out / f"iteration-{before}/collect" for before in range(1, n)]
            counts = target_tasks(tasks, solve_rates(runs, target), target, self._folder(name) / TARGETED)
            if not counts["tasks"]:
                what = f"all {counts['dropped']} tasks are solved at {target.drop:g} or above"
                raise _Stopped(f"{name}: {what}, none is left to learn from")
            return counts

        self._step(name, "target", n, work)
        return self._out / name / TARGETED

    def _collected(self, config: LoopConfig, n: int, policy: Policy, tasks: Path) -> list[Path]:
        name = f"iteration-{n}/collect"

        def work() -> Json:
            summary = self._steps.collect(collection(config, policy, n, self._out, tasks))
            tally = summary.tally
            if summary.stopped is not None:
                raise _Stopped(summary.stopped)
            if not summary.success:
                raise _Stopped(
                    f"{name}: {tally.judged} of {tally.total} rollouts have a reward, less than collect.min_coverage wants; "
                    "mend what failed and run the loop again with `retry_failed: true`, or lower it"
                )
            more = {"mean": tally.mean, "coverage": tally.coverage, "judged": tally.judged}
            runs = run_facts(self._out / name, self._out)
            return {"model": policy.id, "played": policy.played.use, "runs": runs, "rollouts": tally.total, **more}

        self._step(name, "collect", n, work)
        first = 1 if config.window is None else max(1, n - config.window + 1)
        runs = [self._out / f"iteration-{one}/collect" for one in range(first, n + 1)]
        return [run for run in runs if run.exists()]

    def _curated(self, config: LoopConfig, n: int, runs: list[Path]) -> list[Path]:
        name = f"iteration-{n}/data"

        def work() -> Json:
            recipe = {"seed": config.seed, **(config.curate or {})}
            done = curate_rollouts(runs, self._out / name, recipe=recipe, overwrite=True)
            if done.folder is None:
                took = done.report.took_all
                why = f"the step {took.name!r} took all that was left" if took else "there were none to begin with"
                raise _Stopped(f"{name}: no rollout is left to learn from: {why}; collect more, or ask less of them")
            files = {file.name: sha256(file) for file in files_of(done.folder)}
            return {"rows": done.report.rows, "taken": done.report.stages[0].taken, "files": files}

        self._step(name, "curate", n, work)
        return [self._out / name]

    def _exported(self, config: LoopConfig, n: int, data: list[Path]) -> None:
        name = f"iteration-{n}/export"

        def work() -> Json:
            options = dict(config.export or {})
            done = export_rollouts(data, listed(options.pop("to")), self._out / name, overwrite=True, **options)
            if done.failed:
                found = [
                    f"{one.name}: {text}" for one in done.targets for text in [*map(str, one.problems[:3])] or ["no row"]
                ]
                raise _Stopped(f"{name}: {'; '.join(found)}")
            return {"rows": {one.name: one.rows for one in done.targets}}

        self._step(name, "export", n, work)

    def _trained(self, config: LoopConfig, n: int, parent: Policy, data: list[Path], tasks: Path) -> Policy:
        name, id_ = f"iteration-{n}/training", f"iteration-{n}"

        def work() -> Json:
            asked = training(config, parent, n, data, tasks, self._out)
            held = self._out / tasks_name(self._state.since(n)) / TEST
            if held.exists() and asked.eval.env is None and asked.eval.tasks is None:
                asked = asked.model_copy(update={"eval": asked.eval.model_copy(update={"tasks": held})})
            model = self._steps.train(asked)
            learned = [file for folder in asked.data if folder.is_relative_to(self._out) for file in files_of(folder)]
            runs = [self._out / step for step, facts in self._state.steps.items() if facts["kind"] == "collect"]
            own = made_of(learned, runs[-(config.window or n) :], self._out, self._folder(id_) / MADE_OF)
            facts = {
                "id": id_,
                "model": str(model.relative_to(self._out)) if model.is_relative_to(self._out) else str(model),
                "digest": model_digest(model),
                "parent": parent.id,
                "method": asked.method,
                "training": name,
                "made_of": own,
                "data": [str(path) for path in asked.data],
                "live": asked.env.use if asked.method == "grpo" and asked.env else None,
            }
            mark_model(model, {"loop": str(self._out), "iteration": n, **facts})
            return facts

        facts = self._step(name, "train", n, work)
        model = self._out / facts["model"]
        if not model.is_dir():
            raise UserError(f"{model} is gone, but {name} was done: restore it, or choose another --out")
        return Policy(id_, played(config, model), str(model))

    def _measured(self, config: LoopConfig, n: int, policy: Policy, before: Policy | None, folder: str = "eval") -> Policy:
        name = f"iteration-{n}/{folder}"

        def work() -> Json:
            asked = evaluation(config, policy, self._out / tasks_name(self._state.since(n)) / TEST, self._out / name)
            found = self._steps.evaluate(asked)
            if found.stopped is not None:
                raise _Stopped(found.stopped)
            facts: Json = {"model": policy.id, "played": policy.played.use, "reward": found.reward}
            facts |= {"rollouts": found.rollouts, "tasks": found.tasks, "folder": str(found.runs.relative_to(self._out))}
            for key, other in (("change", before), ("since_start", self._begin if before else None)):
                if other is not None and other.measured is not None:
                    compared = self._steps.compare(other.measured, found.runs)
                    facts[key] = {**compared.difference, "p_value": compared.p_value, "worse": compared.worse}
            return facts | {"runs": run_facts(found.runs, self._out)}

        facts = self._step(name, "eval", n, work)
        return replace(policy, measured=self._out / facts["folder"])

    def _kept(self, config: LoopConfig, n: int, made: Policy, before: Policy) -> Policy:
        """The better of the two, or what the recipe says; once decided, it stays."""
        name = f"iteration-{n}/kept"
        if name not in self._state.steps:
            change = self._state.steps[f"iteration-{n}/eval"].get("change") or {}
            worse = bool(change.get("worse"))
            fell = (
                f"iteration {n} made the policy worse: {change.get('value') or 0:+.3f} (p {change.get('p_value') or 0:.2g})"
            )
            if worse and config.regression == "stop":
                raise _Stopped(f"{fell}; `regression: back` goes on with the one before it, `ignore` with this one")
            if worse:
                self._say(f"{fell}; regression: {config.regression}")
            kept = before if worse and config.regression == "back" else made
            self._state.finish(name, {"kind": "kept", "iteration": n, "policy": kept.id})
        return made if self._state.steps[name]["policy"] == made.id else before

    def _step(self, name: str, kind: str, iteration: int, work: Callable[[], Json]) -> Json:
        done = self._state.steps.get(name)
        if done is not None:
            if not (self._out / name).exists():
                raise UserError(f"{self._out / name} is gone, but that step was done: restore it, or choose another --out")
            return done
        self._say(name)
        began = time.monotonic()
        facts = {"kind": kind, "iteration": iteration, **work(), "seconds": round(time.monotonic() - began, 3)}
        self._state.finish(name, facts)
        write_json(self._out / LINEAGE, lineage(self._state.steps))
        return facts

    def _folder(self, name: str) -> Path:
        folder = self._out / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
