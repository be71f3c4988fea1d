"""What a user wrote, read once: the verifier, the tools and the state of a function or class."""

from __future__ import annotations

import asyncio
import inspect
import io
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

from rollforge.envs.base import Verdict, verdict
from rollforge.envs.bind import signature
from rollforge.envs.tools import FunctionTool, function_tool
from rollforge.errors import UserError

RESERVED = {"reset", "step", "verify", "get_reward", "close", "solve", "seed_session", "aggregate_metrics"}
"""Names that cannot be tools: they mean something to an environment or to the wire."""


class Code:
    """A user's verifier function, or class with tools, state and a verifier, or one that is played by steps.

    Raises `UserError` for what cannot be one.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.is_class = inspect.isclass(target)
        self.functions: dict[str, FunctionTool] = {}
        self.action = ""
        """The parameter of `step` that is told what the policy said; "" for what is not played by steps."""
        self._verify = ""
        if not self.is_class:
            if not inspect.isfunction(inspect.unwrap(target)):
                raise UserError(f"@env is for a function or a class, not {type(target).__name__}: {target!r:.60}")
            signature(target, False)
            return
        _check_class(target)
        self._verify = next((name for name in ("verify", "get_reward") if self.has(name)), "")
        if self.has("step"):
            self.action = _action(target)
        elif not self._verify:
            raise UserError(
                f"the class {target.__name__} has neither verify(self, ...) nor get_reward(self), nor step(self, action)"
            )
        else:
            self.functions = _tools(target)
        for name in ("reset", "solve", self._verify):
            found = member(target, name)
            if found is not None:
                signature(*found)

    @property
    def judges(self) -> bool:
        """Whether there is a verifier; a class that is played by steps may do without one."""
        return not self.is_class or bool(self._verify)

    def has(self, name: str) -> bool:
        """Whether the class has a method of that name."""
        return self.is_class and callable(getattr(self.target, name, None))

    def verifier(self, instance: Any) -> Callable[..., Any]:
        return getattr(instance, self._verify) if self.is_class else self.target  # type: ignore[no-any-return]

    def pack(self, instance: Any, arguments: dict[str, Any]) -> bytes | None:
        """What another process needs to judge; None if it cannot leave this one (connections, locks, generators)."""
        try:
            return pickle.dumps((_pickle(instance, self.target) if self.is_class else b"", arguments))
        except (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError, OSError):
            return None

    def unpack(self, packed: bytes) -> tuple[Any, dict[str, Any]]:
        instance, arguments = pickle.loads(packed)
        return (_Unpickler(io.BytesIO(instance), self.target).load() if self.is_class else None), arguments

    def judge(self, instance: Any, arguments: dict[str, Any]) -> Verdict:
        """Call the verifier where there is no event loop: inside a worker."""
        result = self.verifier(instance)(**arguments)
        return verdict(asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result)


def member(target: type, name: str) -> tuple[Callable[..., Any], bool] | None:
    """The function of that name in a class, and whether its first parameter is Python's to fill (not of a static one)."""
    found = inspect.getattr_static(target, name, None)
    function: Any = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    if not callable(function) or not inspect.isfunction(inspect.unwrap(function)):
        return None
    return function, not isinstance(found, staticmethod)


def _check_class(target: type) -> None:
    if inspect.isabstract(target):
        missing = ", ".join(sorted(target.__abstractmethods__))  # type: ignore[attr-defined]
        raise UserError(f"the class {target.__name__} is abstract: it lacks {missing}")
    try:
        needed = signature(target, False)[1]
    except ValueError:  # a class that hides its signature
        return
    if needed:
        what = f"{target.__name__}() needs {', '.join(sorted(needed))}, but an environment's class is made without arguments"
        raise UserError(f"{what}; what depends on the task is given to reset()")


def _action(target: type) -> str:
    found = member(target, "step")
    names = signature(*found)[0] if found else []
    if not names:
        raise UserError(
            f"{target.__name__}.step() has no parameter: write step(self, action), which is told what the policy said"
        )
    return names[0]


def _tools(target: type) -> dict[str, FunctionTool]:
    # In the order they are written, base classes first.
    names = dict.fromkeys(name for base in reversed(target.__mro__) for name in vars(base))
    tools = {}
    for name in names:
        found = None if name.startswith("_") or name in RESERVED else member(target, name)
        doc = inspect.getdoc(getattr(target, name)) if found else None
        if found and doc:
            function, method = found
            tools[name] = function_tool(function, name, doc, method=method)
    return tools


def _pickle(instance: Any, target: type) -> bytes:
    file = io.BytesIO()
    _Pickler(file, target).dump(instance)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """The class goes by reference: its name in the user's file means the environment, so pickle could not find it."""

    def __init__(self, file: io.BytesIO, target: type) -> None:
        super().__init__(file)
        self._target = target

    def persistent_id(self, value: Any) -> str | None:
        return "target" if value is self._target else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, target: type) -> None:
        super().__init__(file)
        self._target = target

    def persistent_load(self, name: str) -> type:
        return self._target


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
