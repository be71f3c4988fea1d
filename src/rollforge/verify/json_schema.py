"""JSON Schema (draft 2020-12, and what of draft 4-7 and OpenAPI 3.0 means the same): what breaks it, and how much.

`format` is a note, as the standard has it by default; references stay inside the schema. Keywords that this cannot check and
that would change the result, are a `VerifierFault`: `unevaluatedProperties`, `$dynamicRef`, references to other documents.

How much is counted over the constraints of the schema, not over the values: a list of a thousand right items is worth no
more than one, and a property that is missing loses everything that is said of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

from rollforge.errors import VerifierFault

Schema = Mapping[str, Any] | bool

DEPTH = 200
"""Of schemas within schemas, at a value: references that lead nowhere end here."""


@dataclass(frozen=True, slots=True)
class Violation:
    path: str
    """Where in the value: `$.cast[2].name`."""
    rule: str
    """Which constraint, as a pointer into the schema: `#/properties/cast/type`."""
    message: str
    lost: str | None = None
    """The schema beneath which nothing could hold, if any."""


def violations(value: Any, schema: Schema) -> list[Violation]:
    """What is wrong with JSON data, in the order of the schema. Raises `VerifierFault` for a schema that is none."""
    check_schema(schema)
    return list(_check(value, schema, _At(schema)))


def share(schema: Schema, found: Sequence[Violation]) -> float:
    """The share of the schema's constraints that hold: 1.0 if nothing was found."""
    if not found:
        return 1.0
    rules = set(_rules(schema, "#"))
    broken = {(one.rule, one.lost) for one in found}
    missed = {rule for rule, _ in broken}
    for _, lost in broken:
        if lost is not None:
            missed.update(rule for rule in rules if rule.startswith(f"{lost}/"))
    return 1 - len(missed) / len(rules | missed)


def strictly(schema: Any) -> Any:
    """The schema with every listed property required and no other allowed, as structured outputs are asked for. What stands
    in a list of alternatives (`anyOf`, `allOf`, ...) or in a condition is left as it is written."""
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    if isinstance(schema.get("properties"), Mapping):
        made |= {"required": list(schema["properties"]), "additionalProperties": False}
    for key in ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"):
        if isinstance(made.get(key), Mapping):
            made[key] = {name: strictly(inner) for name, inner in made[key].items()}
    for key in ("items", "additionalProperties", "contains"):
        if isinstance(made.get(key), Mapping):
            made[key] = strictly(made[key])
    return made


def same(left: Any, right: Any) -> bool:
    """Equal as JSON: 1 is 1.0 and is not true."""
    return bool(_hashable(left) == _hashable(right))


def resolved(schema: Any, root: Any) -> Any:
    """The schema that a reference leads to, or the schema itself. Raises `VerifierFault`."""
    for _ in range(DEPTH):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            return schema
        schema = _target(schema["$ref"], root)
    raise VerifierFault("the schema's $ref leads back to itself")


def types_of(schema: Any) -> list[str]:
    """The types that a schema allows; none named is all of them, and an empty list here."""
    named = schema.get("type") if isinstance(schema, Mapping) else None
    types = [named] if isinstance(named, str) else list(named or ())
    return [*types, "null"] if types and schema.get("nullable") is True and "null" not in types else types


# Walking value and schema together.


Steps: TypeAlias = "tuple[Steps, str | int] | None"
"""A way, its last step first: only a violation writes it out. None is where it starts."""


class _At(NamedTuple):
    root: Any
    path: Steps = None
    rule: Steps = None
    depth: int = 0
    leaf: Steps = None
    """Inside of what counts as one constraint: its pointer."""

    def value(self, step: str | int) -> _At:
        return _At(self.root, (self.path, step), self.rule, self.depth, self.leaf)

    def schema(self, *steps: str | int) -> _At:
        rule = self.rule
        for step in steps:
            rule = rule, step
        return _At(self.root, self.path, rule, self.depth + 1, self.leaf)

    def one(self, keyword: str) -> _At:
        """Everything inside is one constraint."""
        return _At(self.root, self.path, self.rule, self.depth + 1, self.leaf or (self.rule, keyword))

    def pointer(self, *steps: str | int) -> str:
        """Of the schema, or of what is beneath it."""
        return _pointer("#", *_way(self.rule), *steps)

    @property
    def place(self) -> str:
        """In the value."""
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in _way(self.path))

    def wrong(self, keyword: str, message: str, lost: str | None = None) -> Violation:
        if self.leaf is not None:
            return Violation(self.place, _pointer("#", *_way(self.leaf)), message)
        return Violation(self.place, self.pointer(keyword), message, lost)


def _way(steps: Steps) -> list[str | int]:
    found: list[str | int] = []
    while steps is not None:
        steps, step = steps
        found.append(step)
    return found[::-1]


def _pointer(base: str, *steps: str | int) -> str:
    return "/".join([base, *(str(step).replace("~", "~0").replace("/", "~1") for step in steps)])


def _check(value: Any, schema: Schema, at: _At) -> Iterator[Violation]:
    if at.depth > DEPTH:
        raise VerifierFault(f"the schema has more than {DEPTH} levels at {at.place}, or refers to itself without end")
    if isinstance(schema, bool):
        if not schema:
            yield at.wrong("false", "nothing may stand here")
        return
    types = types_of(schema)
    if types and not any(_is(value, name) for name in types):
        yield at.wrong("type", f"{_shown(value)} is not of type {' or '.join(types)}", at.pointer())
        return
    if value is None and schema.get("nullable") is True:
        return
    for keyword, argument in schema.items():
        check = _CHECKS.get(keyword)
        if check is not None:
            yield from check(value, argument, schema, at)


def _holds(value: Any, schema: Schema, at: _At) -> bool:
    return next(_check(value, schema, at), None) is None


def _plainly(value: Any, schema: Any) -> bool:
    """Whether a type is all that the schema asks for, and the value has it: most places of a long list, told quickly."""
    name = schema.get("type") if isinstance(schema, dict) else None
    return isinstance(name, str) and schema.keys() <= _TYPE_ONLY and _is(value, name)


_TYPE_ONLY = {"type", "title", "description", "default", "examples", "format"}


def _is(value: Any, name: str) -> bool:
    if name == "integer":
        return type(value) is int or (type(value) is float and value.is_integer())
    return isinstance(value, _TYPES[name]) and (name != "number" or not isinstance(value, bool))


_TYPES: dict[str, Any] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}

Check = Callable[[Any, Any, Any, _At], Iterator[Violation]]


def _enum(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if not any(same(value, one) for one in argument):
        yield at.wrong("enum", f"{_shown(value)} is none of {_shown(argument)}")


def _const(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if not same(value, argument):
        yield at.wrong("const", f"{_shown(value)} is not {_shown(argument)}")


def _bound(keyword: str, breaks: Callable[[Any, Any], bool], says: str) -> Check:
    def check(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
        if isinstance(argument, bool):  # draft 4: exclusiveMinimum says how minimum is meant
            argument = (
                schema.get({"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}[keyword]) if argument else None
            )
        if _is(value, "number") and argument is not None and breaks(value, argument):
            yield at.wrong(keyword, f"{_shown(value)} is {says} {argument}")

    return check


def _multiple(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    # As they are written: 0.3 is a multiple of 0.1.
    if _is(value, "number") and Fraction(str(value)) % Fraction(str(argument)):
        yield at.wrong("multipleOf", f"{_shown(value)} is no multiple of {argument}")


def _size(keyword: str, kind: type, unit: str) -> Check:
    least = keyword.startswith("min")

    def check(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
        if isinstance(value, kind):
            count = len(value)  # type: ignore[arg-type]
            if count < argument if least else count > argument:
                yield at.wrong(keyword, f"{count} {unit}, {'at least' if least else 'at most'} {argument} are asked for")

    return check


def _pattern(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, str) and not re.search(argument, value):
        yield at.wrong("pattern", f"{_shown(value)} does not match {argument!r:.80}")


def _items(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(argument, list):  # before 2020-12: what is prefixItems now
        yield from _prefix(value, argument, schema, at, "items")
        argument, keyword, start = schema.get("additionalItems", True), "additionalItems", len(argument)
    else:
        keyword, start = "items", len(schema.get("prefixItems", ()))
    if isinstance(value, list):
        each = at.schema(keyword)
        for index in range(start, len(value)):
            if not _plainly(value[index], argument):
                yield from _check(value[index], argument, each.value(index))


def _prefix(value: Any, argument: Any, schema: Any, at: _At, keyword: str = "prefixItems") -> Iterator[Violation]:
    if isinstance(value, list):
        for index, (item, inner) in enumerate(zip(value, argument, strict=False)):
            yield from _check(item, inner, at.value(index).schema(keyword, index))


def _contains(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, list):
        count = sum(_holds(item, argument, at.one("contains")) for item in value)
        least, most = schema.get("minContains", 1), schema.get("maxContains")
        if count < least or (most is not None and count > most):
            asked = f"at least {least}" if count < least else f"at most {most}"
            yield at.wrong("contains", f"{count} items are as `contains` says, {asked} are asked for")


def _unique(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if argument and isinstance(value, list) and len({_hashable(item) for item in value}) < len(value):
        yield at.wrong("uniqueItems", "the items are not all different")


def _required(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, dict):
        for name in argument:
            if name not in value:
                wrong = at.wrong("required", f"{name!r} is missing", at.pointer("properties", name))
                yield wrong if at.leaf else replace(wrong, rule=at.pointer("required", name))


def _properties(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, dict):
        for name, inner in argument.items():
            if name in value and not _plainly(value[name], inner):
                yield from _check(value[name], inner, at.value(name).schema("properties", name))


def _pattern_properties(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, dict):
        for pattern, inner in argument.items():
            for name in value:
                if re.search(pattern, name):
                    yield from _check(value[name], inner, at.value(name).one("patternProperties"))


def _additional(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, dict):
        patterns = list(schema.get("patternProperties", ()))
        for name in value:
            if name in schema.get("properties", ()) or any(re.search(pattern, name) for pattern in patterns):
                continue
            if argument is False:
                yield at.wrong("additionalProperties", f"there is no property {name!r:.80}")
            else:
                yield from _check(value[name], argument, at.value(name).schema("additionalProperties"))


def _property_names(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, dict):
        for name in value:
            yield from _check(name, argument, at.one("propertyNames"))


def _dependent(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if isinstance(value, dict):
        for name, needed in argument.items():
            if name in value and isinstance(needed, list):
                for other in needed:
                    if other not in value:
                        yield at.one("dependentRequired").wrong("", f"{other!r} is missing beside {name!r}")
            elif name in value:
                yield from _check(value, needed, at.one("dependentSchemas"))


def _all_of(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    for index, inner in enumerate(argument):
        yield from _check(value, inner, at.schema("allOf", index))


def _any_of(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if not any(_holds(value, inner, at.one("anyOf")) for inner in argument):
        yield at.wrong("anyOf", f"{_shown(value)} is none of the {len(argument)} alternatives")


def _one_of(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    count = sum(_holds(value, inner, at.one("oneOf")) for inner in argument)
    if count != 1:
        yield at.wrong("oneOf", f"{_shown(value)} fits {count or 'none'} of the alternatives, not one")


def _not(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    if _holds(value, argument, at.one("not")):
        yield at.wrong("not", f"{_shown(value)} is what must not be")


def _if(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    branch = "then" if _holds(value, argument, at.one("if")) else "else"
    yield from _check(value, schema.get(branch, True), at.one("if"))


def _ref(value: Any, argument: Any, schema: Any, at: _At) -> Iterator[Violation]:
    yield from _check(value, _target(argument, at.root), at.one("$ref"))


_CHECKS: dict[str, Check] = {
    "enum": _enum,
    "const": _const,
    "minimum": _bound("minimum", lambda a, b: a < b, "less than"),
    "maximum": _bound("maximum", lambda a, b: a > b, "more than"),
    "exclusiveMinimum": _bound("exclusiveMinimum", lambda a, b: a <= b, "not more than"),
    "exclusiveMaximum": _bound("exclusiveMaximum", lambda a, b: a >= b, "not less than"),
    "multipleOf": _multiple,
    "minLength": _size("minLength", str, "characters"),
    "maxLength": _size("maxLength", str, "characters"),
    "pattern": _pattern,
    "prefixItems": _prefix,
    "items": _items,
    "contains": _contains,
    "minItems": _size("minItems", list, "items"),
    "maxItems": _size("maxItems", list, "items"),
    "uniqueItems": _unique,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": _property_names,
    "minProperties": _size("minProperties", dict, "properties"),
    "maxProperties": _size("maxProperties", dict, "properties"),
    "dependentRequired": _dependent,
    "dependentSchemas": _dependent,
    "dependencies": _dependent,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "$ref": _ref,
}


def _target(reference: str, root: Any) -> Schema:
    found = root
    if not reference.startswith("#"):
        raise VerifierFault(f"the schema refers to another document: {reference!r:.80}")
    if len(reference) > 1 and not reference.startswith("#/"):
        return _anchored(reference[1:], root)
    for step in unquote(reference[1:]).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise VerifierFault(f"the schema refers to {reference!r:.80}, which it does not have") from None
    if not isinstance(found, (Mapping, bool)):
        raise VerifierFault(f"the schema refers to {reference!r:.80}, which is no schema")
    return found


def _anchored(name: str, root: Any) -> Schema:
    found = next(
        (schema for _, schema in _schemas(root, "#") if isinstance(schema, Mapping) and schema.get("$anchor") == name), None
    )
    if found is None:
        raise VerifierFault(f"the schema has no $anchor {name!r:.80}")
    return found


def _hashable(value: Any) -> Any:
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return ("object", frozenset((key, _hashable(item)) for key, item in value.items()))
    return ("array", tuple(_hashable(item) for item in value)) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    text = (
        f"{value!r:.90}"
        if isinstance(value, (str, int, float, bool, type(None)))
        else f"{type(value).__name__} of {len(value)}"
    )
    return text if len(text) < 90 else f"{text[:80]}..."


# The schema by itself.

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems", "contains", "propertyNames", "not", "if", "then", "else")


def _schemas(schema: Any, rule: str) -> Iterator[tuple[str, Any]]:
    """Every schema inside, itself included, with its pointer."""
    pending: list[tuple[str, Any]] = [(rule, schema)]
    while pending:
        rule, schema = pending.pop()
        yield rule, schema
        if not isinstance(schema, Mapping):
            continue
        for key in _MAPS:
            if isinstance(schema.get(key), Mapping):
                pending += [(_pointer(rule, key, name), inner) for name, inner in schema[key].items()]
        for key in (*_LISTS, "items"):
            if isinstance(schema.get(key), list):
                pending += [(_pointer(rule, key, index), inner) for index, inner in enumerate(schema[key])]
        pending += [
            (_pointer(rule, key), schema[key]) for key in _SINGLE if key in schema and not isinstance(schema[key], list)
        ]


def _rules(schema: Any, rule: str) -> Iterator[str]:
    """The constraints that a value is measured by. What is beneath an alternative or a reference counts as one."""
    if not isinstance(schema, Mapping):
        return
    for key, argument in schema.items():
        if key == "required":
            yield from (_pointer(rule, key, name) for name in argument)
        elif key == "properties":
            for name, inner in argument.items():
                yield from _rules(inner, _pointer(rule, key, name))
        elif key in ("items", "additionalProperties", "additionalItems") and isinstance(argument, Mapping):
            yield from _rules(argument, _pointer(rule, key))
        elif key in ("allOf", "prefixItems", "items") and isinstance(argument, list):
            for index, inner in enumerate(argument):
                yield from _rules(inner, _pointer(rule, key, index))
        elif key == "type" or (key in _CHECKS and argument is not True and argument != {}):
            yield _pointer(rule, key)


_UNSUPPORTED = ("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef")
_SHAPES: dict[str, Any] = {
    **dict.fromkeys(_MAPS, Mapping),
    **dict.fromkeys(_LISTS, list),
    **dict.fromkeys(("enum", "required"), list),
    **dict.fromkeys(("dependentRequired", "dependencies"), Mapping),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), (int, float, bool)),
    **dict.fromkeys((k for k in _CHECKS if k.startswith(("min", "max")) and k not in ("minimum", "maximum")), (int, float)),
    **dict.fromkeys(("pattern", "$ref", "$anchor"), str),
}


def check_schema(schema: Any) -> None:
    """Raises `VerifierFault` naming the place where a schema is none."""
    for rule, one in _schemas(schema, "#"):
        if isinstance(one, bool):
            continue
        if not isinstance(one, Mapping):
            raise VerifierFault(f"the schema is wrong at {rule}: {type(one).__name__} is no schema")
        for key, argument in one.items():
            if key in _UNSUPPORTED:
                raise VerifierFault(f"the schema uses {key} at {rule}, which is not supported")
            if key in _SHAPES and not isinstance(argument, _SHAPES[key]):
                raise VerifierFault(f"the schema is wrong at {rule}: {key} is {argument!r:.60}")
        unknown = [name for name in types_of(one) if name not in _TYPES]
        if unknown:
            raise VerifierFault(f"the schema is wrong at {rule}: there is no type {unknown[0]!r}")
        if one.get("multipleOf", 1) <= 0:
            raise VerifierFault(f"the schema is wrong at {rule}: multipleOf is {one['multipleOf']}")
        for pattern in [*one.get("patternProperties", ()), *([one["pattern"]] if "pattern" in one else [])]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise VerifierFault(f"the schema is wrong at {rule}: the pattern {pattern!r:.60}: {error}") from error
