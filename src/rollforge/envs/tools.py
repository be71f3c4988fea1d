"""Tools from Python functions: the JSON Schema the policy sees, and the check of its arguments before the call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, Required, get_type_hints

import orjson
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rollforge.envs.base import Tool
from rollforge.errors import UserError
from rollforge.records.items import Json


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool and the function behind it."""

    tool: Tool
    name: str
    """The attribute of the environment's instance that is called."""
    adapter: TypeAdapter[dict[str, Any]]

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The checked and converted arguments. Raises `BadArguments` with a text for the policy."""
        try:
            return self.adapter.validate_python(given)
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors(include_url=False)
            )
            raise BadArguments("; ".join(problems)) from None


class BadArguments(Exception):
    """The policy's arguments do not fit the tool's schema."""


def function_tool(function: Callable[..., Any], name: str) -> FunctionTool:
    """Read a function's type hints and docstring (Google or reST style). `self` is left out.

    Raises `UserError` for `*args`, unresolvable hints, and types that have no JSON Schema.
    """
    where = f"tool {name!r} ({function.__module__})"
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise UserError(f"{where}: cannot read its type hints: {error}") from error
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    extra = False
    for parameter in list(inspect.signature(function).parameters.values()):
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise UserError(f"{where}: parameter {parameter} cannot be filled by name")
        elif parameter.default is parameter.empty:
            fields[parameter.name] = Required[hints.get(parameter.name, Any)]
        else:
            fields[parameter.name] = NotRequired[hints.get(parameter.name, Any)]
            defaults[parameter.name] = parameter.default
    try:
        # A TypedDict rather than a model: a parameter may be called anything, `schema` or `copy` too.
        arguments: Any = _typed_dict("arguments", fields)
        arguments.__pydantic_config__ = ConfigDict(extra="allow" if extra else "forbid")
        adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(arguments)
        schema = adapter.json_schema()
    except (PydanticSchemaGenerationError, ValueError) as error:
        raise UserError(f"{where}: no JSON Schema for its parameters: {str(error).splitlines()[0]}") from error
    description, described = read_docstring(inspect.getdoc(function) or "")
    return FunctionTool(Tool(name, description, _parameters(schema, described, defaults)), name, adapter)


_typed_dict: Any = TypedDict  # called with fields that no type checker can know


def _parameters(schema: Json, described: Mapping[str, str], defaults: Mapping[str, Any]) -> Json:
    """pydantic's schema without its titles, with the docstring's descriptions and the defaults."""
    properties = {name: _untitled(value) for name, value in schema.get("properties", {}).items()}
    for name, value in properties.items():
        if name in described:
            value.setdefault("description", described[name])
        if isinstance(defaults.get(name), (str, int, float, bool)):
            value["default"] = defaults[name]
    parameters: Json = {"type": "object", "properties": properties}
    for key in ("required", "additionalProperties", "$defs"):
        if key in schema:
            parameters[key] = schema[key]
    return parameters


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untitled(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_untitled(v) for v in value] if isinstance(value, list) else value


_SECTION = re.compile(r"^(args|arguments|parameters|params|returns?|raises|yields?|examples?|notes?):\s*$", re.IGNORECASE)
_GOOGLE = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_REST = re.compile(r"^\s*:(\w+)(?:\s+[\w\[\], |.]+?)?(?:\s+(\w+))?:\s*(.*)$")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description before any section, and what is said of each parameter (`Args:` or `:param x:`)."""
    description: list[str] = []
    described: dict[str, str] = {}
    section = current = ""
    indent = 0
    for line in text.splitlines():
        heading = _SECTION.match(line)
        rest = _REST.match(line)
        if heading:
            section, current, indent = heading[1].lower(), "", 0
        elif rest:
            section, current = "rest", rest[2] if rest[1] == "param" and rest[2] else ""
            if current:
                described[current] = rest[3]
        elif not section:
            description.append(line)
        elif section in ("args", "arguments", "parameters", "params"):
            entry = _GOOGLE.match(line)
            if entry and (not indent or len(entry[1]) <= indent):
                indent, current = len(entry[1]), entry[2]
                described[current] = entry[3]
            elif current and line.strip():
                described[current] = f"{described[current]} {line.strip()}".strip()
        elif current and line.strip():
            described[current] = f"{described[current]} {line.strip()}".strip()
    return "\n".join(description).strip(), described


def result_text(value: Any) -> str:
    """What the policy reads of a tool's return value: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()


def error_text(message: str) -> str:
    """A tool error as the policy reads it."""
    return orjson.dumps({"error": message}).decode()
