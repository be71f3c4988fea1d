"""Agents by name: a registered one (`tool_loop`, `command:python agent.py`), or code (`agent.py:name`, `package.x:name`)."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollforge.agents.base import Agent
from rollforge.envs.load import import_file
from rollforge.errors import UserError, unknown
from rollforge.registry import attribute, known, refuse_address, resolve


def load_agent(use: str = "tool_loop", options: Mapping[str, Any] | None = None) -> Agent:
    """The agent that `use` names, made with `options`. Raises `UserError`: unknown name, unknown option, no agent.

    A registered agent is made by a class, or by a function of (argument, options) if it takes an argument.
    """
    options = dict(options or {})
    name, colon, argument = use.partition(":")
    if name in known("agent"):
        found = resolve("agent", name)
        if inspect.isclass(found):
            if colon:
                raise UserError(f"the agent {name} takes no argument ({use!r}); its options are given one by one")
            return _agent(_made(found, use, options), use)
        return _agent(found(argument, options), use)
    refuse_address(use)
    if name.endswith(".py") or (colon and all(part.isidentifier() for part in name.split("."))):
        found = _from_code(name, argument)
        return _agent(_made(found, use, options) if inspect.isclass(found) or options else found, use)
    return _agent(resolve("agent", name, "(or package.module:name)"), use)


def _from_code(place: str, name: str) -> Any:
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise UserError(f"there is no file {place}; an agent in a file is written path/to/file.py:name")
        place = import_file(Path(place)).__name__
    elif os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a command does not look there on its own
    return attribute(f"{place}:{name}")


def _made(factory: Any, use: str, options: dict[str, Any]) -> Any:
    if not callable(factory):
        return factory
    parameters = inspect.signature(factory).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names = [parameter.name for parameter in parameters]
        for option in options:
            if option not in names:
                raise unknown(f"option of the agent {use}", option, names)
    try:
        return factory(**options)
    except TypeError as error:
        raise UserError(f"the agent {use} cannot be made with {options or 'no options'}: {error}") from error


def _agent(found: Any, use: str) -> Agent:
    if not callable(found):
        what = "an agent is an async function of (task, model, session)"
        raise UserError(f"{use} is {type(found).__name__}, not an agent: {what}")
    return found  # type: ignore[no-any-return]
