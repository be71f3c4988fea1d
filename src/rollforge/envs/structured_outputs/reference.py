"""Documents written in every format that `verify.documents` reads; and the answer that a row expects, or some that fits."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from rollforge.models.base import Solution
from rollforge.records.lossless import dumps, loads
from rollforge.verify.json_schema import resolved, strictly, types_of, violations


def solve(
    schema_str: str,
    schema_type: str | None = None,
    response_mode: str | None = None,
    tool_name: str | None = None,
    tool_payload_key: str | None = None,
    expected_output: Any = None,
) -> Solution | None:
    schema = strictly(loads(schema_str))
    value = example(schema, schema) if expected_output is None else expected_output
    if violations(value, schema):
        return None
    return _course(value, schema_type or "json", tool_name if response_mode == "tool_call" else None, tool_payload_key)


def _course(value: Any, kind: str, tool_name: str | None, payload_key: str | None) -> Solution:
    if tool_name is None:
        return write(value, kind)
    yield tool_name, {payload_key: value} if payload_key else value
    return "Done."


def write(value: Any, kind: str) -> str:
    """JSON data as text of that kind."""
    if kind == "yaml":
        import yaml

        return str(yaml.safe_dump(value, allow_unicode=True, sort_keys=False))
    if kind == "toml":
        return "\n".join(_toml(value, ""))
    if kind == "xml":
        return _xml("answer", value)
    return _csv(value) if kind == "csv" else dumps(value).decode()


def _toml(table: Mapping[str, Any], name: str) -> list[str]:
    """A table's own values first: behind the head of another they would belong to that."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {_inline(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml(value, f"{name}.{key}" if name else key)
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items()) + "}"
    return dumps(value).decode()  # strings, numbers and booleans are written as in JSON


def _xml(name: str, value: Any) -> str:
    if isinstance(value, dict):
        inner = "".join(_xml(key, item) for key, item in value.items())
    elif isinstance(value, list):
        inner = "".join(_xml("item", item) for item in value)
    else:
        inner = escape(_cell(value))
    return f"<{name}>{inner}</{name}>"


def _csv(rows: Any) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    writer.writerows([_cell(cell) for cell in row.values()] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def example(schema: Any, root: Any) -> Any:
    """A small value that most schemas of data sets accept; None where this knows none."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping):
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return example(schema[key][0], root)
    kinds = types_of(schema) or (["object"] if "properties" in schema else ["string"])
    if "null" in kinds:
        return None
    if kinds[0] == "object":
        return {name: example(inner, root) for name, inner in schema.get("properties", {}).items()}
    if kinds[0] == "array":
        return [example(schema.get("items", {}), root)] * max(1, schema.get("minItems", 0))
    if kinds[0] in ("integer", "number"):
        return schema.get("minimum", 1)
    return True if kinds[0] == "boolean" else "x" * max(1, schema.get("minLength", 0))
