"""Names to components: built in, from other packages by entry point, or `package.module:attr`."""

from __future__ import annotations

import re
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
        "arc": "rollforge.envs.arc:arc",
        "arithmetic": "rollforge.envs.arithmetic:arithmetic",
        "blackjack": "rollforge.envs.blackjack:blackjack",
        "calculators": "rollforge.envs.calculators:calculators",
        "calendar": "rollforge.envs.calendar:calendar",
        "choice": "rollforge.envs.choice:choice",
        "citations": "rollforge.envs.citations:citations",
        "coding": "rollforge.envs.coding:coding",
        "counter": "rollforge.envs.counter:counter",
        "function_calling": "rollforge.envs.function_calling:function_calling",
        "instruction_following": "rollforge.envs.instruction_following:instruction_following",
        "math_answer": "rollforge.envs.math_answer:math_answer",
        "multi_reward": "rollforge.envs.multi_reward:multi_reward",
        "multi_step": "rollforge.envs.multi_step:multi_step",
        "open_qa": "rollforge.envs.open_qa:OpenQA",
        "python_math": "rollforge.envs.python_math:python_math",
        "qa_f1": "rollforge.envs.qa_f1:qa_f1",
        "reasoning_gym": "rollforge.envs.reasoning_gym:reasoning_gym",
        "search": "rollforge.envs.search:search",
        "sokoban": "rollforge.envs.sokoban:sokoban",
        "sql": "rollforge.envs.sql:sql",
        "string_match": "rollforge.envs.string_match:string_match",
        "structured_outputs": "rollforge.envs.structured_outputs:structured_outputs",
        "user_conversation": "rollforge.envs.user_conversation:user_conversation",
        "weather": "rollforge.envs.weather:weather",
        "workplace": "rollforge.envs.workplace:workplace",
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
        "transformers": "rollforge.models.transformers:load",
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


def refuse_address(reference: str) -> None:
    """Raises `UserError` if it is the address of a service, but no URL as we know it: no name near it was meant."""
    scheme = reference.partition("://")[0]
    if scheme != reference and scheme.lower() in ("http", "https"):
        raise UserError(f"a URL that begins with {scheme}:// is not known: write its scheme and its host in small letters")
    if re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d+(/.*)?", reference) and ".py:" not in reference:
        raise UserError(f"{reference} is an address without a scheme: a service is named by its URL, http://{reference}")


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
