"""State outside the instance: a verifier in a process of its own does not see what tools change in a module or a class."""

from __future__ import annotations

import dis
import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType
from typing import Any

from rollforge.envs.code import member
from rollforge.envs.decorate import PythonEnv


def outside(env: PythonEnv) -> dict[str, bytes]:
    """What the verifier reads of its module and its class, by name: taken before and after, it shows what tools change."""
    values: dict[str, bytes] = {}
    for name, value in _read(env):
        # What has no value to compare (a module, a lock, a connection) is left out.
        with suppress(pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError, OSError):
            values[name] = pickle.dumps(value)
    return values


def _read(env: PythonEnv) -> Iterator[tuple[str, Any]]:
    """By the code of the verifier, and of the functions of its file that it calls."""
    target: type = env.target
    waiting = [found[0] for name in ("verify", "get_reward") if (found := member(target, name))][:1]
    seen: set[Callable[..., Any]] = set()
    while waiting:
        function: Any = inspect.unwrap(waiting.pop())
        if function in seen:
            continue
        seen.add(function)
        for name, is_global in _names(function.__code__):
            method = None if is_global else member(target, name)
            if is_global and name in function.__globals__:
                value = function.__globals__[name]
                if inspect.isfunction(value) and value.__module__ == target.__module__:
                    waiting.append(value)
                else:
                    yield name, value
            elif method is not None:
                waiting.append(method[0])
            elif not is_global and name in vars(env):  # in its own file the class's name means the environment
                yield f"{target.__name__}.{name}", vars(env)[name]
            elif not is_global and any(name in vars(base) for base in target.__mro__):
                yield f"{target.__name__}.{name}", inspect.getattr_static(target, name)


def _names(code: CodeType) -> Iterator[tuple[str, bool]]:
    """Of variables of the module (True) and of attributes."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_METHOD"):
            yield str(step.argval), step.opname == "LOAD_GLOBAL"
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)
