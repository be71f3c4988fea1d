"""Arguments of a user's functions, filled by name from the task; and the state of a user's object, there and back."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.records.items import prompt_text
from rollforge.records.task import Task


def bind(function: Callable[..., Any], task: Task, skip: int = 0, **special: Any) -> dict[str, Any]:
    """The arguments of a user's function, by name: special values, then the row's fields, then its own defaults.

    A function with `**row` gets every field of the row and the prompt. Raises `VerifierFault` naming what the row lacks.
    """
    names, required, everything = parameters(function)
    special |= {"task": task, "prompt": prompt_text(task.params), "seed": _seed(task)}
    arguments: dict[str, Any] = {**task.fields, "prompt": special["prompt"]} if everything else {}
    for name in names[skip:]:
        # A row may name its own seed; the other special names are never the row's.
        if name in special and not (name == "seed" and "seed" in task.fields):
            arguments[name] = special[name]
        elif name in task.fields:
            arguments[name] = task.fields[name]
        elif name in required:
            fields = ", ".join(task.fields) or "none"
            what = f"{function.__qualname__}() needs {name!r}, which the task row lacks (its fields: {fields})"
            raise VerifierFault(what)
    return arguments


def restore(instance: Any, state: Any) -> None:
    """Give an instance the state that `object.__getstate__` read."""
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return
    # What object.__getstate__ returns: the attributes, or a pair with the slots of classes that have some.
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    for name, value in {**(attributes or {}), **(slots or {})}.items():
        object.__setattr__(instance, name, value)


def _seed(task: Task) -> int:
    """The same for every repeat of a task: members of a group see the same episode."""
    return int.from_bytes(hashlib.sha256(task.id.encode()).digest()[:4], "big")


_CACHE: dict[Any, tuple[list[str], set[str], bool]] = {}


def parameters(function: Callable[..., Any]) -> tuple[list[str], set[str], bool]:
    """Names in order, those without a default, and whether there is `**kwargs`."""
    found = _CACHE.get(function)
    if found is None:
        parameters = list(inspect.signature(function).parameters.values())
        plain = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        required = {p.name for p in plain if p.default is p.empty}
        everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        found = _CACHE[function] = ([p.name for p in plain], required, everything)
    return found
