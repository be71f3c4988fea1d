"""Which tasks a policy learns from, and which it is measured on: never the same ones."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollforge.collect.config import EnvConfig
from rollforge.envs.base import Env
from rollforge.envs.load import load_env
from rollforge.envs.tasks import env_tasks
from rollforge.errors import UserError
from rollforge.records.lossless import dumps
from rollforge.records.rows import BadLine
from rollforge.records.task import Task

HELD_OUT = 8
"""One task in so many is held out where the environment has no split of its own."""
REPEATED = 1000
"""So many tasks in a row that came before, and there are no others."""


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Task]
    test: list[Task]


def split_tasks(env: EnvConfig, file: Path | None, train: int, test: int) -> Split:
    """At most so many tasks to learn from and to be measured on: the environment's own splits, or the tasks of a file (or
    of an environment without splits) divided by their ids, in the same way every time.

    Raises `UserError` if there is none of a kind, or none at all.
    """
    made = load_env(env.use)
    options = {name: value for name, value in (env.model_extra or {}).items() if name != "split"}
    splits = _splits(made, options) if file is None else None
    if splits is not None:
        learned, measured = (_read(made, None, chosen, limit) for chosen, limit in zip(splits, (train, test), strict=True))
        return _complete(env.use, learned, measured)
    # Enough to have both kinds; tasks without end are cut.
    tasks = _read(made, file, options, (train + test) * 2)
    held = [_held_out(task) for task in tasks]
    if len(tasks) > 1 and not any(held):
        held[min(range(len(tasks)), key=lambda i: tasks[i].id)] = True
    return _complete(
        env.use,
        [task for task, out in zip(tasks, held, strict=True) if not out][:train],
        [task for task, out in zip(tasks, held, strict=True) if out][:test],
    )


def held_out_tasks(env: EnvConfig, file: Path | None, limit: int, learned: frozenset[str] = frozenset()) -> list[Task]:
    """Tasks to be measured on, none of those whose ids are given: of the file, of the environment's own test split, or,
    where it has none, any other. Empty if all of them are learned from."""
    if file is None and not learned:
        return split_tasks(env, None, 1, limit).test
    made = load_env(env.use)
    options = dict(env.model_extra or {})
    splits = _splits(made, options) if file is None else None
    tasks = _read(made, file, splits[1] if splits else options, limit + len(learned))
    return [task for task in tasks if task.id not in learned][:limit]


def write_tasks(path: Path, tasks: list[Task]) -> Path:
    """As rows that every reader of tasks takes; ids are kept."""
    rows = (dumps({"responses_create_params": task.params, **task.fields, "task_id": task.id}) for task in tasks)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(row + b"\n" for row in rows))
    return path


def _splits(env: Env, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The options that generate its tasks to learn from and those that are held out; None if it knows no splits."""
    for more in ({"n": None}, {}):
        train, test = ({**more, **options, "split": split} for split in ("train", "test"))
        try:
            if all(next(env_tasks(env, None, chosen), None) is not None for chosen in (train, test)):
                return train, test
        except UserError:
            continue
    return None


def _read(env: Env, file: Path | None, options: dict[str, Any], limit: int) -> list[Task]:
    """Each once: generators without end repeat themselves when they know no more."""
    found: dict[str, Task] = {}
    repeated = 0
    for task in env_tasks(env, file, options):
        if isinstance(task, BadLine):
            continue
        repeated = repeated + 1 if task.id in found else 0
        found.setdefault(task.id, task)
        if len(found) >= limit or repeated >= REPEATED:
            break
    return list(found.values())


def _held_out(task: Task) -> bool:
    return zlib.crc32(task.id.encode()) % HELD_OUT == 0


def _complete(name: str, train: list[Task], test: list[Task]) -> Split:
    if not train or not test:
        raise UserError(f"{name} has {len(train)} tasks to learn from and {len(test)} to be measured on: both are needed")
    return Split(train, test)
