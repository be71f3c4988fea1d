"""Tools from Python functions: the JSON Schema the policy sees, and the check of its arguments before the call."""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NotRequired, Required, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rollforge.envs.base import Tool
from rollforge.errors import UserError, short
from rollforge.records.items import Json
from rollforge.records.lossless import dumps


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool and the check of its arguments."""

    tool: Tool
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


def function_tool(function: Callable[..., Any], name: str, doc: str, *, method: bool) -> FunctionTool:
    """Read a function's type hints and docstring (Google or reST style); a method's first parameter is left out.

    Raises `UserError` for `*args`, unresolvable hints, types that have no JSON Schema, and names models cannot be told.
    """
    where = f"tool {name!r} ({function.__module__})"
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: models take names of at most 64 letters (a-z, A-Z), digits, _ and -")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UserError(f"{where}: it yields; a tool returns what the model is to read")
    hints = _hints(function, where)
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    extra = False
    for parameter in list(inspect.signature(function).parameters.values())[1 if method else 0 :]:
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise UserError(f"{where}: parameter {parameter} cannot be filled by name")
        elif parameter.default is parameter.empty:
            fields[parameter.name] = Required[hint]
        else:
            fields[parameter.name] = NotRequired[hint | None if parameter.default is None else hint]
            defaults[parameter.name] = parameter.default
    try:
        # A TypedDict rather than a model: a parameter may be called anything, `schema` or `copy` too.
        arguments: Any = _typed_dict("arguments", fields)
        arguments.__pydantic_config__ = ConfigDict(extra="allow" if extra else "forbid")
        adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(arguments)
        schema = adapter.json_schema()
    except (PydanticUserError, TypeError, ValueError) as error:
        raise UserError(f"{where}: no JSON Schema for its parameters: {str(error).splitlines()[0]}") from error
    description, described = read_docstring(doc)
    return FunctionTool(Tool(name, description, _parameters(schema, described, defaults)), adapter)


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    inner = inspect.unwrap(function)
    # What it returns is not ours to understand.
    wanted = {name: hint for name, hint in inner.__annotations__.items() if name != "return"}
    try:
        return get_type_hints(SimpleNamespace(__annotations__=wanted), inner.__globals__, include_extras=True)
    except Exception as error:  # evaluating a hint runs the user's own expression
        raise UserError(f"{where}: cannot read its type hints: {short(error)}") from error


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

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
    for key in ("required", "additionalProperties"):
        if key in schema:
            parameters[key] = schema[key]
    if "$defs" in schema:
        parameters["$defs"] = {name: _untitled(value) for name, value in schema["$defs"].items()}
    return parameters


def _untitled(schema: Any) -> Any:
    """Only where a schema stands: a property may be called `title`, and a default may hold anything."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            cleaned[key] = {name: _untitled(item) for name, item in value.items()}
        elif key in ("default", "const", "enum", "examples", "required"):
            cleaned[key] = value
        elif key != "title":
            cleaned[key] = _untitled(value)
    return cleaned


_SECTION = re.compile(r"^(args|arguments|parameters|params|returns?|raises|yields?|examples?|notes?):\s*$", re.IGNORECASE)
_GOOGLE = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\(.*?\))?:(?:\s+(.*))?$")
_REST = re.compile(r"^\s*:(param|parameter|arg|argument|type|returns?|rtype|raises?|yields?)\b\s*([^:]*):\s*(.*)$")


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
            named = rest[1].startswith(("param", "arg")) and rest[2].split()
            section, current = "rest", named[-1] if named else ""  # `:param int x:` names the type too
            if current:
                described[current] = rest[3]
        elif section and line and not line[0].isspace():
            section, current = "", ""  # back at the margin: the section is over
            description.append(line)
        elif not section:
            description.append(line)
        elif section in ("args", "arguments", "parameters", "params"):
            entry = _GOOGLE.match(line)
            if entry and (not indent or len(entry[1]) <= indent):
                indent, current = len(entry[1]), entry[2]
                described[current] = entry[3] or ""
            elif current and line.strip():
                described[current] = f"{described[current]} {line.strip()}".strip()
        elif current and line.strip():
            described[current] = f"{described[current]} {line.strip()}".strip()
    return "\n".join(description).strip(), described


def result_text(value: Any) -> str:
    """What the policy reads of a tool's return value: text as it is, anything else as JSON."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # no lone surrogates: they cannot be sent or stored
    return dumps(value, default=_shown).decode()


def error_text(message: str) -> str:
    """A tool error as the policy reads it."""
    return dumps({"error": message}).decode()


def _shown(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, (tuple, deque, range)):  # a NamedTuple: orjson knows plain tuples only
        return list(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
