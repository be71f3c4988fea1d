"""Random values that a JSON schema of the plain kind allows: types, enum, const, bounds, anyOf, local $ref."""

from __future__ import annotations

from random import Random
from typing import Any

from rollforge.records.items import Json

DEPTH = 8
"""Nested deeper (a schema that contains itself), optional parts are left out and the rest is null."""


def random_value(schema: Json, rng: Random, root: Json | None = None, depth: int = 0) -> Any:
    """`root` holds the `$defs`; it is `schema` itself unless given."""
    root = schema if root is None else root
    if depth > DEPTH:
        return None
    if "$ref" in schema:
        target = (root.get("$defs") or {}).get(str(schema["$ref"]).rpartition("/")[2]) or {}
        return random_value(target, rng, root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return random_value(rng.choice(schema[key]), rng, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match rng.choice(kind) if isinstance(kind, list) else kind:
        case "integer":
            return rng.randint(*map(int, _bounds(schema)))
        case "number":
            return round(rng.uniform(*_bounds(schema)), 2)
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case "array":
            low = int(schema.get("minItems", 0))
            size = rng.randint(low, max(low, int(schema.get("maxItems", low + 3))))
            return [random_value(schema.get("items") or {}, rng, root, depth + 1) for _ in range(size)]
        case "object":
            required = schema.get("required") or ()
            properties = (schema.get("properties") or {}).items()
            given = {name: part for name, part in properties if name in required or (depth < DEPTH and rng.random() < 0.5)}
            return {name: random_value(part, rng, root, depth + 1) for name, part in given.items()}
        case _:
            return random_words(rng)


def random_words(rng: Random) -> str:
    return " ".join(rng.choices(_VOCABULARY, k=rng.randint(1, 8)))


def _bounds(schema: Json) -> tuple[float, float]:
    low = float(schema.get("minimum", min(-10.0, schema.get("maximum", 0) - 100)))
    return low, max(low, float(schema.get("maximum", low + 110)))


_VOCABULARY = (
    *("river", "amber", "seven", "quiet", "lantern", "north", "copper", "maybe", "glass", "window", "harbour", "cedar"),
    *("left", "yes", "orbit", "A", "x", "12", "-1", "3.5"),
)
