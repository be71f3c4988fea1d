"""Where tasks come from when no file is named: the data sets of an agent, else the environment's own tasks."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from rollforge.envs.load import load_env
from rollforge.errors import UserError, unknown
from rollforge.nemo.builtin import ENVIRONMENTS
from rollforge.nemo.config import AGENTS, RESOURCES, Server, find
from rollforge.nemo.profile import write_jsonl
from rollforge.records.rows import BadLine
from rollforge.records.task import Task

TYPES = ("train", "validation", "benchmark", "example")
"""Of data sets, in the order they are looked for."""
OWN_TASKS = 100
"""Of an environment's own tasks, when no limit says otherwise: many environments make as many as one likes."""


def tasks_of(agent: str | None, servers: Iterable[Server], output: Path, limit: int | None) -> tuple[Path, str]:
    """The file, and where it is from. Raises `UserError` if nothing is known of the agent's tasks."""
    known = {(server.type, server.name): server for server in servers}
    names = [name for type, name in known if type == AGENTS]
    if agent is None:
        if len(names) != 1:
            raise UserError("give +input_jsonl_fpath=FILE.jsonl (the tasks), or +agent_name=NAME to use the agent's own")
        agent = names[0]
    server = known.get((AGENTS, agent))
    if server is None:
        raise unknown("agent", agent, names)
    entries = [entry for entry in server.block.get("datasets") or [] if isinstance(entry, dict)]
    for entry in sorted(entries, key=lambda entry: TYPES.index(entry["type"]) if entry.get("type") in TYPES else 9):
        path = find(str(entry.get("jsonl_fpath") or ""))
        if path.is_file():
            return path, f"the {entry.get('type')} data of {agent}"
    resources = known.get((RESOURCES, server.target("resources_server") or ""))
    own = _own(resources) if resources is not None else None
    if own is None:
        raise UserError(f"{agent} has no data set that is here: give +input_jsonl_fpath=FILE.jsonl")
    path = output.with_name(f"{output.stem}_tasks.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    tasks = (task for task in own if not isinstance(task, BadLine))
    rows = ({"responses_create_params": task.params, **task.fields} for task in tasks)
    write_jsonl(path, islice(rows, limit or OWN_TASKS))
    return path, f"tasks of the environment itself, written to {path}"


def _own(server: Server) -> Iterable[Task | BadLine] | None:
    use = server.block.get("use") if server.implementation == "rollforge" else ENVIRONMENTS.get(server.implementation)
    env = load_env(str(use)) if use else None
    tasks: Iterable[Task | BadLine] | None = env.tasks() if env is not None and hasattr(env, "tasks") else None
    return tasks
