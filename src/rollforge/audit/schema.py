"""Whether tools are declared as model servers take them: their names, and JSON Schemas that say what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rollforge.envs.base import Tool
from rollforge.envs.code import RESERVED as NO_TOOL
from rollforge.envs.code import member
from rollforge.envs.decorate import PythonEnv
from rollforge.records.items import Json

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
RESERVED = frozenset(
    (
        *("seed_session", "verify", "aggregate_metrics", "reverify_mode", "reset", "step", "close", "health", "ready"),
        *("get_reward", "status", "metrics", "docs", "openapi.json", "mcp", "v1", "run"),
    )
)
"""Paths of a service: a tool of that name could not be served."""


def tool_problems(tools: Sequence[Tool], *, described: bool = True) -> Iterator[str]:
    """What is wrong with the declarations, one text each. `described`: each has to say what it does."""
    seen: set[str] = set()
    for tool in tools:
        where = f"tool {tool.name!r}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name):
            yield f"{where}: model servers take names of at most 64 letters, digits, _ and -"
        if tool.name in RESERVED:
            yield f"{where}: the name is a path of the service"
        if tool.name in seen:
            yield f"{where} is declared twice"
        seen.add(tool.name)
        if described and not tool.description.strip():
            yield f"{where} has no description: a model is told only its name"
        if not isinstance(tool.parameters, dict) or tool.parameters.get("type") != "object":
            yield f"{where}: its parameters are no JSON Schema of type object"
            continue
        for problem in schema_problems(tool.parameters):
            yield f"{where}, {problem}"


def untold(env: Any) -> list[str]:
    """Public methods of a class that are no tools because they have no docstring; not those that it has from elsewhere."""
    if not isinstance(env, PythonEnv) or not env.code.is_class or env.stepwise:
        return []
    target: type = env.target
    names = dict.fromkeys(name for base in reversed(target.__mro__) for name in vars(base))
    silent = [name for name in names if not name.startswith("_") and name not in NO_TOOL and name not in env.code.functions]
    return [name for name in silent if (found := member(target, name)) and found[0].__module__ == target.__module__]


def schema_problems(schema: Any, path: str = "parameters", root: Json | None = None) -> Iterator[str]:
    """The parts of JSON Schema (2020-12) that tools use: types, properties, required, items, enum, combinations, $ref."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield f"{path} is {type(schema).__name__}, not a schema"
        return
    root = schema if root is None else root
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [] if kinds is None else [kinds]:
        if kind not in TYPES:
            yield f"{path} has the type {kind!r}; JSON Schema has {', '.join(TYPES)}"
    if "$ref" in schema and not _leads(schema["$ref"], root):
        yield f"{path}: $ref {schema['$ref']!r} leads nowhere"
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        yield f"{path}.enum is no list of values"
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict):
        yield f"{path}.properties is {type(properties).__name__}, not an object"
        properties = {}
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        yield f"{path}.required is no list of names"
    elif properties or schema.get("additionalProperties") is False:
        for name in required:
            if name not in properties:
                yield f"{path} requires {name!r}, which is not among its properties"
    for name, part in _parts(schema, properties):
        yield from schema_problems(part, f"{path}.{name}", root)


def _parts(schema: Json, properties: Json) -> Iterator[tuple[str, Any]]:
    yield from properties.items()
    yield from (schema["$defs"] if isinstance(schema.get("$defs"), dict) else {}).items()
    for key in ("items", "additionalProperties", "not"):
        if key in schema:
            yield key, schema[key]
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if key in schema and not (isinstance(schema[key], list) and schema[key]):
            yield key, schema[key] or None  # told as no schema
        else:
            for number, part in enumerate(schema.get(key, ())):
                yield f"{key}[{number}]", part


def _leads(reference: Any, root: Any) -> bool:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False  # nothing outside of it is sent to a model
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(root, dict) or name not in root:
            return False
        root = root[name]
    return True
