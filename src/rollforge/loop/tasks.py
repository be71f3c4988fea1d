"""The tasks of a loop: fixed once, those to be measured on held out; and how often each is tried, by how it went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rollforge.collect.config import CollectConfig, EnvConfig
from rollforge.envs.load import load_env
from rollforge.envs.tasks import env_tasks
from rollforge.errors import UserError
from rollforge.loop.config import Target
from rollforge.records.items import Json
from rollforge.records.lossless import dumps
from rollforge.records.rows import BadLine, read_tasks
from rollforge.records.task import Task
from rollforge.stats.source import find_run
from rollforge.stats.thresholds import EQUAL
from rollforge.train.tasks import split_tasks, write_tasks

TRAIN, TEST, TARGETED = "train.jsonl", "test.jsonl", "tasks.jsonl"


def fix_tasks(config: CollectConfig, held_out: int | None, folder: Path) -> Json:
    """Write the tasks that every iteration collects, and, if `held_out`, at most so many to be measured on.

    Raises `UserError` if there is none.
    """
    limit = config.limit or _ALL
    if held_out is None:
        train, test = list(islice(_read(config), limit)), 0
        if not train:
            raise UserError("there is no task to collect rollouts of")
    else:
        assert config.env is not None  # `check` sees to it
        split = split_tasks(config.env, config.tasks, limit, held_out)
        train, test = split.train, len(split.test)
        write_tasks(folder / TEST, split.test)
    write_tasks(folder / TRAIN, train)
    return {"train": len(train), "test": test}


def hold_out(env: EnvConfig, file: Path | None, limit: int, folder: Path) -> int:
    """Write tasks that a training in the environment does not learn from; how many."""
    tasks = split_tasks(env, file and Path(file), 1, limit).test
    write_tasks(folder / TEST, tasks)
    return len(tasks)


def refuse_overlap(train: Path, measured: Iterable[CollectConfig]) -> None:
    """Raises `UserError` if a policy would be measured on tasks that it has learned from."""
    learned = {task.id for task in read_tasks(train) if isinstance(task, Task)}
    for config in measured:
        tasks = list(islice(_read(config), config.limit or _ALL))
        both = sum(task.id in learned for task in tasks)
        if both:
            raise UserError(
                f"{both} of the {len(tasks)} tasks of `eval` are among those that are collected: the policy would be "
                "measured on what it has learned; leave out eval.env and eval.tasks to have tasks held out, or name others"
            )


_ALL = 1_000_000
"""A list of tasks without a limit."""


@dataclass(slots=True)
class Rate:
    attempts: int = 0
    solved: int = 0

    @property
    def value(self) -> float:
        return self.solved / self.attempts


def solve_rates(runs: Iterable[Path], target: Target) -> dict[str, Rate]:
    """By task, or by category where the target names fields; of several runs the last with a verdict counts."""
    rates: dict[str, Rate] = {}
    for run in runs:
        of_run: dict[str, Rate] = {}
        for rollout in find_run(run).rollouts():
            if isinstance(rollout, BadLine) or rollout.reward is None:
                continue
            rate = of_run.setdefault(_key(target, rollout.task, rollout.task_fields), Rate())
            rate.attempts += 1
            rate.solved += rollout.reward >= target.success - EQUAL
        rates |= of_run
    return rates


def target_tasks(tasks: Path, rates: dict[str, Rate], target: Target, out: Path) -> Json:
    """Write the tasks again, those that fail `target.times` times, without those that are solved.

    The copies are further repeats of the same task (`_ng_rollout_index`), so that its rollouts stay one group.
    """
    counts = {"tasks": 0, "more": 0, "dropped": 0}

    def rows() -> Iterator[bytes]:
        for task in read_tasks(tasks):
            assert isinstance(task, Task)  # written by `fix_tasks`
            rate = rates.get(_key(target, task.id, task.fields))
            if rate and target.drop is not None and rate.value >= target.drop:
                counts["dropped"] += 1
                continue
            fails = rate is not None and rate.value < target.below
            counts["tasks"] += 1
            counts["more"] += fails
            row = {"responses_create_params": task.params, **task.fields, "_ng_task_index": task.index}
            for copy in range(target.times if fails else 1):
                yield dumps({**row, "_ng_rollout_index": copy}) + b"\n"

    with open(out, "wb") as file:
        file.writelines(rows())
    return counts


def _key(target: Target, task: str, fields: Json) -> str:
    return dumps([fields.get(name) for name in target.by]).decode() if target.by else task


def _read(config: CollectConfig) -> Iterator[Task]:
    env = load_env(config.env.use) if config.env else None
    options = config.env.model_extra if config.env else None
    found = env_tasks(env, config.tasks, options, remedy="give some with collect.tasks")
    return (task for task in found if isinstance(task, Task))
