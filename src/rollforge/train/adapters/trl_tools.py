"""A tool as TRL wants it: a method with type hints and a Google docstring, from which it makes the schema again
(transformers' `get_json_schema`). What hints cannot say of a parameter stands in its description, as JSON Schema."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable
from typing import Any, Literal, Union

from rollforge.envs.base import Tool
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import dumps

RESERVED = ("reset", "get_reward")
"""Methods that TRL calls itself."""


def method(tool: Tool) -> Callable[..., str]:
    """The tool as a method of a class with `_call(name, arguments)`. It takes whatever the policy wrote: wrong arguments are
    the environment's to answer, in its own words.

    Raises `UserError` for names that Python or TRL have no place for.
    """
    if tool.name in RESERVED or tool.name.startswith("_"):
        raise UserError(f"TRL keeps the name of the tool {tool.name!r} for itself; {_INSTEAD}")
    properties: dict[str, Json] = tool.parameters.get("properties") or {}
    required = set(tool.parameters.get("required") or ())
    defs = tool.parameters.get("$defs")
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    said = []
    for name, schema in properties.items():
        if not name.isidentifier() or keyword.iskeyword(name) or name == "self":
            what = f"the tool {tool.name!r} has a parameter {name!r}, which is no name that Python can have"
            raise UserError(f"{what}, and TRL reads Python functions; {_INSTEAD}")
        default = inspect.Parameter.empty if name in required else schema.get("default")
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=hint(schema)))
        said.append(f"    {name}: {_described(name, schema, defs)}")

    def call(self: Any, /, **arguments: Any) -> str:
        text: str = self._call(tool.name, arguments)
        return text

    call.__name__ = call.__qualname__ = tool.name
    call.__doc__ = "\n".join([_line(tool.description) or tool.name, *(["", "Args:", *said] if said else [])])
    call.__annotations__ = {p.name: p.annotation for p in parameters[1:]} | {"return": str}
    call.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
    return call


def hint(schema: Any) -> Any:
    """The type hint that comes nearest to a JSON Schema."""
    if not isinstance(schema, dict):
        return Any
    values = _values(schema)
    if values:
        return Literal[tuple(values)]
    kind = schema.get("type")
    choices = _choices(schema) or ([{**schema, "type": one} for one in kind] if isinstance(kind, list) else [])
    if choices:
        return Union[tuple(map(hint, choices))]  # noqa: UP007 - made at run time
    if kind == "array":
        return list[hint(schema["items"])] if schema.get("items") else list[Any]  # type: ignore[misc]
    if kind == "object":
        inner = schema.get("additionalProperties")
        return dict[str, hint(inner)] if isinstance(inner, dict) and inner else dict  # type: ignore[misc]
    return _TYPES.get(kind, Any) if isinstance(kind, str) else Any


_INSTEAD = "rollforge train grpo (rollforge.train.live) has no such limit"
_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}
_SAID_BY_HINTS = frozenset(
    ("type", "description", "title", "default", "enum", "const", "items", "anyOf", "oneOf", "additionalProperties")
)
_READ_BY_TRANSFORMERS = re.compile(r"\b(Args|Returns|Raises|choices):", re.IGNORECASE)


def _described(name: str, schema: Json, defs: Any) -> str:
    text = _line(str(schema.get("description") or "")) or name
    if not _lossy(schema):
        return text
    whole = {key: value for key, value in schema.items() if key != "description"}
    if defs and b'"$ref"' in dumps(whole):
        whole["$defs"] = defs
    return f"{text} JSON Schema: {dumps(whole).decode()}"


def _lossy(schema: Any) -> bool:
    """Whether the hint leaves something out: properties of objects, bounds, patterns, references."""
    if not isinstance(schema, dict):
        return False
    more = schema.keys() - _SAID_BY_HINTS
    unsaid = ("enum" in schema or "const" in schema) and not _values(schema)
    inner = [schema.get("items"), schema.get("additionalProperties"), *_choices(schema)]
    return bool(more) or unsaid or any(map(_lossy, inner))


def _values(schema: Json) -> list[Any]:
    """What the value must be one of, if hints can say it."""
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return values if all(isinstance(value, (str, int, float, bool, type(None))) for value in values) else []


def _choices(schema: Json) -> list[Any]:
    return schema.get("anyOf") or schema.get("oneOf") or []


def _line(text: str) -> str:
    """In one line, and without what transformers takes for a section of the docstring."""
    return _READ_BY_TRANSFORMERS.sub(r"\1 -", " ".join(text.split()))
