"""Names to components: built in, from other packages by entry point, or `package.module:attr`."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from rollforge.errors import UserError, describe, unknown

Kind = Literal["agent", "env", "export", "model"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "agent": {
        "command": "rollforge.serve.command:load",
        "tool_loop": "rollforge.agents.tool_loop:ToolLoop",
    },
    "env": {
        "arithmetic": "rollforge.envs.arithmetic:arithmetic",
        "choice": "rollforge.envs.choice:choice",
        "counter": "rollforge.envs.counter:counter",
        "math_answer": "rollforge.envs.math_answer:math_answer",
        "weather": "rollforge.envs.weather:weather",
    },
    "export": {
        "generic": "rollforge.export.generic:TARGET",
        "nemo-rl": "rollforge.export.nemo_rl:TARGET",
        "openrlhf": "rollforge.export.openrlhf:TARGET",
        "trl": "rollforge.export.trl:TARGET",
        "verl": "rollforge.export.verl:TARGET",
    },
    "model": {
        "anthropic": "rollforge.models.anthropic:load",
        "azure": "rollforge.models.azure:load",
        "chat": "rollforge.models.chat:load",
        "openai": "rollforge.models.openai:load",
        "replay": "rollforge.models.replay:load",
        "scripted": "rollforge.models.scripted:load",
        "tiny": "rollforge.models.tiny:load",
        "vllm": "rollforge.models.vllm:load",
    },
}


_WORDS = {"env": "environment", "export": "export target"}


def known(kind: Kind) -> dict[str, str]:
    """Every registered name with where it leads; packages add theirs in the entry point group `rollforge.<kind>s`."""
    return {
        **{point.name: f"{point.module}:{point.attr}" for point in entry_points(group=f"rollforge.{kind}s")},
        **BUILT_IN[kind],
    }


def resolve(kind: Kind, name: str, hint: str = "") -> Any:
    """The component of that name. Raises `UserError` listing the nearest known names."""
    target = BUILT_IN[kind].get(name) or known(kind).get(name)
    if target is None:
        raise unknown(_WORDS.get(kind, kind), name, known(kind), hint)
    return attribute(target)


def attribute(target: str) -> Any:
    """Import `package.module:attr`. Raises `UserError`: no such module or name, or a module that does not import."""
    module, _, path = target.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"{target!r} is not of the form package.module:name")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        name = error.name or ""
        if module == name or module.startswith(f"{name}."):
            raise UserError(f"there is no module {name!r} (from {target!r})") from error
        raise UserError(f"{target!r} needs the module {name!r}: pip install {name.partition('.')[0]}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{module} cannot be imported: {describe(error)}") from error
    for part in path.split(".") if path else ():
        if not hasattr(found, part):
            raise unknown(f"name in {module}", part, (name for name in dir(found) if not name.startswith("_")))
        found = getattr(found, part)
    return found
