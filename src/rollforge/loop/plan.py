"""A recipe looked at: the policies it speaks of, and what each step is told in each iteration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollforge.collect.config import CollectConfig, EnvConfig, ModelConfig, used
from rollforge.config import merge, validate
from rollforge.curate.recipe import make_recipe
from rollforge.envs.load import load_env
from rollforge.errors import UserError, unknown
from rollforge.evaluate.config import EvalConfig
from rollforge.export.options import Options
from rollforge.export.run import find_target
from rollforge.export.target import Settings
from rollforge.loop.config import DEFAULTS, LoopConfig
from rollforge.loop.lineage import START
from rollforge.loop.steps import Steps
from rollforge.loop.tasks import TEST, TRAIN
from rollforge.records.items import Json
from rollforge.stats.source import SPLITS
from rollforge.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Policy:
    id: str
    played: ModelConfig
    trained_from: str
    """As `TrainConfig.model` has it."""
    measured: Path | None = None
    """The runs of its evaluation."""


def check(config: LoopConfig, out: Path, steps: Steps) -> None:
    """Raises `UserError` for what can be known to be wrong before anything is started."""
    policy = start(config)
    if config.collect is not None:
        collect = collection(config, policy, 1, out)
        if collect.env is not None:
            load_env(collect.env.use)
        elif holds_out(config):
            raise UserError("the agent has an environment of its own: say in `eval` where it is measured, env and tasks")
    if config.curate is not None:
        make_recipe(config.curate, "the recipe, curate")
    if config.export is not None:
        _check_export(config.export)
    if config.eval is not None:
        held_out(config)
        for env in evaluation(config, policy, out / "tasks" / TEST, out).env:
            load_env(env.use)
    if config.train is not None:
        steps.ready(training(config, policy, 1, [out], out / "tasks" / TRAIN, out))


def plan(config: LoopConfig) -> Iterator[tuple[str, str]]:
    """(step, what it does) for each step of all iterations."""
    collect, measured = config.collect and merge(DEFAULTS["collect"], config.collect), config.eval
    policy = config.model.use
    if collect:
        env = acts_in(config)
        held = f"; {held_out(config)} others are held out to be measured on" if holds_out(config) else ""
        yield "tasks", f"{collect['limit'] or 'all'} tasks of {env.use if env else collect.get('tasks')}{held}"
    if measured is not None:
        yield "iteration-0/eval", f"{policy}: {merge(DEFAULTS['eval'], measured)['repeats']} rollouts per task"
    for n in range(1, config.iterations + 1):
        if n > 1 and config.target:
            yield f"iteration-{n}/target", f"{config.target.times} times the repeats for what fails"
        if collect:
            yield f"iteration-{n}/collect", f"{policy}: {collect['repeats']} rollouts per task"
        if config.curate is not None:
            yield f"iteration-{n}/data", f"curate: {', '.join(map(_step_name, config.curate.get('steps', [])))}"
        if config.export is not None:
            yield f"iteration-{n}/export", f"for {config.export.get('to')}"
        if config.train is not None:
            begin = config.model.use if config.restart else policy
            policy = f"the policy of iteration {n}"
            yield f"iteration-{n}/training", f"{config.train.get('method')}, from {begin}"
            if measured is not None:
                yield f"iteration-{n}/eval", f"{policy}, compared with the one before it"


def start(config: LoopConfig) -> Policy:
    named = (config.train or {}).get("model")
    return Policy(START, config.model, str(named or config.model.use))


def played(config: LoopConfig, model: Path) -> ModelConfig:
    if config.trained is not None:
        return config.trained.model_copy(update={"use": config.trained.use.replace("{model}", str(model))})
    backend = "tiny" if config.model.use.partition(":")[0] == "tiny" else "transformers"
    return ModelConfig(use=f"{backend}:{model}")


def collection(config: LoopConfig, policy: Policy, n: int, out: Path, tasks: Path | None = None) -> CollectConfig:
    """`tasks`: the file that was made of the recipe's."""
    values = merge(DEFAULTS["collect"], config.collect or {})
    seed = (config.seed if values.get("seed") is None else values["seed"]) + n - 1
    values |= {"model": policy.played.model_dump(), "seed": seed, "out": out / f"iteration-{n}" / "collect"}
    asked = validate(CollectConfig, values, "the recipe, collect")
    if tasks is None:
        return asked
    env = asked.env and EnvConfig(use=asked.env.use)  # the options went into the tasks
    return asked.model_copy(update={"env": env, "tasks": tasks, "limit": None})


def evaluation(config: LoopConfig, policy: Policy, held_out: Path, out: Path) -> EvalConfig:
    values = merge({"seed": config.seed, **DEFAULTS["eval"]}, config.eval or {})
    if holds_out(config):
        env = acts_in(config)
        if env is None:
            raise UserError("the recipe, eval: say in which environment the policy is measured: `env: arithmetic`")
        values |= {"env": env.use, "tasks": held_out, "limit": None}
    values |= {"models": [policy.played.model_dump()], "out": out}
    return validate(EvalConfig, values, "the recipe, eval")


def holds_out(config: LoopConfig) -> bool:
    """Whether the loop itself holds out the tasks to be measured on: where the recipe says nothing of them."""
    return config.eval is not None and not config.eval.keys() & {"env", "tasks"}


def held_out(config: LoopConfig) -> int | None:
    limit = merge(DEFAULTS["eval"], config.eval or {})["limit"]
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"the recipe, eval: limit is {limit!r}, not a number of tasks")
    return (limit or DEFAULTS["eval"]["limit"]) if holds_out(config) else None


def acts_in(config: LoopConfig) -> EnvConfig | None:
    given: Any = (config.train if config.collect is None else config.collect or {}) or {}
    env = given.get("env")
    return None if env is None else validate(EnvConfig, used(env), "the recipe, env")


def training(config: LoopConfig, parent: Policy, n: int, data: list[Path], tasks: Path, out: Path) -> TrainConfig:
    values: Json = dict(config.train or {})
    values["model"] = parent.trained_from
    if values.get("method") == "grpo" and config.collect is not None:
        values.setdefault("env", config.collect.get("env"))
        if config.curate is None:  # acts in the environment; what was collected says which tasks are worth it
            data = []
            values.setdefault("tasks", tasks)
    values["data"] = [*data, *values.get("data", [])]
    values["seed"] = values.get("seed", config.seed) + n - 1
    values["out"] = out / f"iteration-{n}" / "training"
    return validate(TrainConfig, values, "the recipe, train")


def _check_export(values: Json) -> None:
    if not values.get("to"):
        raise UserError("the recipe, export: say for whom: `to: [trl:sft]`")
    for target in listed(values["to"]):
        find_target(target)
    known = {"to", *Options.model_fields, *Settings.model_fields} - {"overwrite"}
    for key in values:
        if key not in known:
            raise unknown("key", key, known, "(in the recipe, export)")


def files_of(folder: Path) -> list[Path]:
    """Of rollouts that count, in a run directory or a curated one."""
    return [file for name in ("rollouts", *SPLITS) if (file := folder / f"{name}.jsonl").is_file()]


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def tasks_name(since: int) -> str:
    return "tasks" if since == 1 else f"tasks-{since}"


def _step_name(entry: Any) -> str:
    return str(next(iter(entry))) if isinstance(entry, dict) and entry else str(entry)
