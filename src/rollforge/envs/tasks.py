"""The tasks of an environment: rows given inline, in a JSONL file, or by a function; with their prompts completed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any

from rollforge.envs.bind import parameters
from rollforge.errors import UserError, describe, short, unknown
from rollforge.records.items import input_items, inside, system
from rollforge.records.rows import BadLine, read_tasks
from rollforge.records.task import Task, bare_task, task_from_row, task_id

Tasks = Iterable[Mapping[str, Any]] | str | Path | Callable[..., Iterable[Mapping[str, Any]]]


def env_tasks(
    env: Any,
    source: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    remedy: str = "give some with --tasks FILE.jsonl",
) -> Iterator[Task | BadLine]:
    """The tasks of `env`, made with `options`; those of the file `source` if it is given, read by `env` if it reads tasks.

    Raises `UserError` if there are neither, and for options of an environment that makes no tasks.
    """
    if hasattr(env, "tasks"):
        return env.tasks(source, **(options or {}))  # type: ignore[no-any-return]
    name = name or str(getattr(env, "name", "the environment"))
    if options:
        raise UserError(f"{name} takes no options (got {', '.join(options)}): set them where it is made")
    if source is None:
        raise UserError(f"{name} has no tasks of its own: {remedy}")
    if env is None:
        return read_tasks(source, bare_task)  # whoever plays them knows how to ask
    return read_tasks(source, partial(_with_input, name))


def env_task(env: Any, row: Mapping[str, Any]) -> Task:
    """The task of a row, as `env` reads it: prompt and system message completed. Raises `UserError` for what is no task."""
    return env.read_row(row) if hasattr(env, "read_row") else task_from_row(row)


def _with_input(name: str, row: Mapping[str, Any], index: int | None = None) -> Task:
    try:
        return task_from_row(row, index)
    except UserError as error:
        if not bare_task(row).params["input"]:
            raise UserError(
                f"{error}; {name} does not say how it would ask for this: give the row a prompt, or collect from an agent "
                "service of the environment (--agent URL)"
            ) from None
        raise


@dataclass(frozen=True)
class TaskSource:
    """Raises `UserError` for what cannot be a source of tasks, or a template."""

    name: str
    """Of the environment."""
    rows: Tasks
    folder: Path | None = None
    """What the path of a file is relative to."""
    system: str | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rows, Iterator):
            raise UserError(f"the tasks of {self.name} can be read only once; give a list, or the function that yields them")
        if isinstance(self.rows, Mapping) or not (callable(self.rows) or isinstance(self.rows, (Iterable, Path))):
            what = f"{type(self.rows).__name__}; they are a list of rows, a JSONL file, or a function that yields rows"
            raise UserError(f"the tasks of {self.name} are {what}")
        if self.prompt is not None:
            _check_template(self.prompt)

    def read(self, source: str | Path | None = None, **options: Any) -> Iterator[Task | BadLine]:
        """The tasks, or those of the JSONL file `source`, in order, streamed.

        `options` go to the function; one that it has no parameter for is a `UserError`.
        """
        rows: Any = self.rows if source is None else Path(source)
        if callable(rows):
            return self._complete(self._call(rows, options))
        if options:
            where = f"{rows} is a file" if isinstance(rows, (str, Path)) else "they are a list"
            raise unknown("task option", next(iter(options)), (), f"(the tasks are not generated: {where})")
        if isinstance(rows, (str, Path)):
            return read_tasks(self._file(rows) if source is None else rows, self.read_row)
        return self._complete(rows)

    def read_row(self, row: Mapping[str, Any], index: int | None = None) -> Task:
        """The task of a row, completed. Raises `UserError`."""
        return self._with_system(task_from_row(self._with_prompt(row), index))

    def _file(self, given: str | Path) -> Path:
        here = Path(given).expanduser()
        beside = self.folder / here if self.folder else here
        # Named as it was expected if it is nowhere.
        return here if not beside.exists() and here.exists() else beside

    def _call(self, function: Callable[..., Any], options: Mapping[str, Any]) -> Iterable[Any]:
        names, required, everything = parameters(function)
        for name in options:
            if name not in names and not everything:
                inner = options[name] if name == "env" else None
                hint = (
                    f"(here it is --set {next(iter(inner))}=..., without env.)"
                    if inner and isinstance(inner, Mapping)
                    else ""
                )
                raise unknown("task option", name, names, hint)
        missing = ", ".join(f"{name}=..." for name in names if name in required and name not in options)
        if missing:
            raise UserError(f"the tasks of {self.name} need {missing} (on the command line: --set {missing})")
        try:
            rows = function(**options)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"the tasks of {self.name} cannot be made: {describe(error)}") from error
        if inspect.iscoroutine(rows):
            rows.close()
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise UserError(f"the tasks of {self.name} are {type(rows).__name__}; the function has to yield or return rows")
        return rows

    def _complete(self, rows: Iterable[Any]) -> Iterator[Task | BadLine]:
        iterator = iter(rows)
        number = count = 0
        while True:
            number += 1
            try:
                row = next(iterator)
            except StopIteration:
                return
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"the tasks of {self.name} break off at number {number}: {describe(error)}") from error
            try:
                if not isinstance(row, Mapping):
                    raise UserError(f"the row is {type(row).__name__}, not a mapping")
                yield self.read_row(row, count)
                count += 1
            except UserError as error:
                yield BadLine(f"tasks of {self.name}", number, str(error), f"{row!r:.60}")

    def _with_prompt(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        params = row.get("responses_create_params")
        asked = inside(params, "input") is not None or not isinstance(params, dict | None)
        if self.prompt is None or asked or row.get("prompt") is not None:
            return row
        try:
            prompt = self.prompt.format_map(row)
        except KeyError as error:
            raise UserError(f"the row lacks {error}, which the prompt template needs") from error
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"the prompt template does not fit the row: {short(error)}") from error
        made = {"prompt": prompt} if params is None else {"responses_create_params": {**params, "input": prompt}}
        return {**row, **made}

    def _with_system(self, task: Task) -> Task:
        items = input_items(task.params)
        if self.system is None or task.params.get("instructions") or any(i.get("role") in _SYSTEM for i in items):
            return task
        params: Any = {**task.params, "input": [system(self.system), *items]}
        named = task.id == str(task.fields.get("task_id"))
        return replace(task, params=params, id=task.id if named else task_id(params, task.fields))


_SYSTEM = ("system", "developer")


def _check_template(prompt: str) -> None:
    try:
        names = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]
    except ValueError as error:
        raise UserError(f"the prompt template {prompt!r:.80}: {error} (write {{{{ and }}}} for braces)") from error
    for name in names:
        if not name or name[0].isdigit():
            raise UserError(
                f"the prompt template {prompt!r:.80}: {{{name}}} names no field of a row ({{{{ and }}}} for braces)"
            )
