"""Arguments of a user's functions, filled by name from the task."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from rollforge.errors import UserError, VerifierFault
from rollforge.records.items import prompt_text
from rollforge.records.task import Task


def bind(function: Callable[..., Any], task: Task, **given: Any) -> dict[str, Any]:
    """The arguments of a user's function, by name: those given, then the row's fields, then `prompt`, `seed` and `task`,
    then its own defaults. A function with `**row` gets every field of the row and the prompt.

    What comes from the row is a copy: all repeats of a task share the row, and a game may play on its board.
    Raises `VerifierFault` naming what the row lacks.
    """
    names, required, everything = parameters(function)
    arguments: dict[str, Any] = {}
    for name in names:
        if name in given:
            arguments[name] = given[name]
        elif name in task.fields:
            arguments[name] = copied(task.fields[name])
        elif name in _OF_TASK:
            arguments[name] = _OF_TASK[name](task)
        elif name in required:
            fields = ", ".join(task.fields) or "none"
            what = f"{function.__qualname__}() needs {name!r}, which the task row lacks (its fields: {fields})"
            raise VerifierFault(what)
    if everything:
        rest = {"prompt": prompt_text(task.params), **task.fields}
        arguments |= {name: copied(value) for name, value in rest.items() if name not in names}
    return arguments


def copied(value: Any) -> Any:
    """A copy of JSON data."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def parameters(function: Callable[..., Any]) -> tuple[list[str], set[str], bool]:
    """Names in order, those without a default, and whether there is `**kwargs`; without the `self` of a bound method.

    Raises `UserError` for parameters that cannot be filled by name.
    """
    if inspect.ismethod(function):
        return signature(function.__func__, True)
    return signature(function, False)


@lru_cache(1024)
def signature(function: Callable[..., Any], method: bool) -> tuple[list[str], set[str], bool]:
    """As `parameters`; of a `method` that is not bound yet, its first parameter is left out."""
    found = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    unnamed = [p.name for p in found if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    if unnamed:
        raise UserError(f"{function.__qualname__}(): parameter {unnamed[0]!r} cannot be filled by name; remove the '/'")
    plain = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = {p.name for p in plain if p.default is p.empty}
    return [p.name for p in plain], required, any(p.kind is p.VAR_KEYWORD for p in found)


def _task(task: Task) -> Task:
    return replace(task, params=copied(task.params), fields=copied(task.fields))


def _seed(task: Task) -> int:
    """The same for every repeat of a task: members of a group see the same episode."""
    return int.from_bytes(hashlib.sha256(task.id.encode()).digest()[:4], "big")


_OF_TASK: dict[str, Callable[[Task], Any]] = {"task": _task, "prompt": lambda task: prompt_text(task.params), "seed": _seed}
