"""A reply as a document: JSON, YAML, TOML, XML or CSV, read strictly into JSON data. What it must look like is for others.

Strict means: one value per key, finite numbers, text keys, no aliases or entities (they can grow without end), at most 100
levels. YAML is read by the core schema of YAML 1.2, so that `NO`, `12:30` and `2024-05-01` are text, and so is `0123`; dates
of TOML are text too. XML and CSV have only text: it becomes numbers, booleans and lists where the schema says so.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, time
from functools import cache
from typing import Any, Literal, NoReturn, get_args

from rollforge.errors import VerifierFault
from rollforge.verify.json_schema import Schema, resolved, types_of

Kind = Literal["json", "yaml", "toml", "xml", "csv"]

DEPTH = 100
LENGTH = 500_000
"""Characters; a longer reply is no document."""
BITS = 14_000
"""Of a whole number; Python writes none that are longer."""


class Unreadable(Exception):
    """The reply is no document of its kind; says why."""


def parse(text: str, kind: str, schema: Schema) -> Any:
    """The document as JSON data. Raises `Unreadable`; and `VerifierFault` for an unknown kind."""
    if kind not in get_args(Kind):
        raise VerifierFault(f"schema_type is {kind!r}; known: {', '.join(get_args(Kind))}")
    if len(text) > LENGTH:
        raise Unreadable(f"{len(text)} characters, at most {LENGTH} are read")
    try:
        if kind == "json":
            value: Any = _json(text)
        elif kind == "yaml":
            value = _yaml(text)
        elif kind == "toml":
            value = _toml(text)
        elif kind == "xml":
            value = _xml(text, schema)
        else:
            value = _csv(text, schema)
        _check(value)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    return value


def unfenced(text: str) -> str:
    """What is inside of a fence, if the reply is one and nothing else; the reply itself otherwise."""
    lines = text.strip().split("\n")
    if len(lines) < 2 or not lines[0].startswith("```") or "`" in lines[0][3:] or lines[-1].strip() != "```":
        return text
    return text if any(line.startswith("```") for line in lines[1:-1]) else "\n".join(lines[1:-1])


def _check(value: Any) -> None:
    """JSON data, finite and not too deep; a loop, since there is no telling how deep it is."""
    pending = [(value, 0)]
    while pending:
        one, depth = pending.pop()
        if depth > DEPTH:
            raise Unreadable(f"it is nested more than {DEPTH} levels deep")
        if isinstance(one, dict):
            wrong = next((key for key in one if not isinstance(key, str)), None)
            if wrong is not None or None in one:
                raise Unreadable(f"a key is {type(wrong).__name__}, no text")
            pending += [(item, depth + 1) for item in one.values()]
        elif isinstance(one, list):
            pending += [(item, depth + 1) for item in one]
        elif isinstance(one, float) and not math.isfinite(one):
            raise Unreadable(f"{one} is no number")
        elif isinstance(one, int) and one.bit_length() > BITS:
            raise Unreadable("a number is too long")
        elif not isinstance(one, (str, int, float, type(None))):
            raise Unreadable(f"{type(one).__name__} is no JSON data")


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except ValueError as error:
        raise Unreadable(str(error)[:200]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Unreadable(f"the key {twice!r:.60} stands there twice")
    return made


def _constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is no JSON")


def _yaml(text: str) -> Any:
    import yaml

    try:
        depth = 0
        # By its events first: nothing is built yet, so neither depth nor aliases can do harm.
        for event in yaml.parse(text, Loader=_yaml_loader()):
            if isinstance(event, yaml.AliasEvent):
                raise Unreadable("aliases are not read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise Unreadable(f"it is nested more than {DEPTH} levels deep")
        return yaml.load(text, _yaml_loader())
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Unreadable(" ".join(str(error).split())[:200]) from None


@cache
def _yaml_loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """YAML 1.2's core schema."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - filled below

    def mapping(loader: Any, node: Any) -> Any:
        pairs = loader.construct_pairs(node, deep=True)
        if any(isinstance(key, (dict, list)) for key, _ in pairs):
            raise Unreadable("a key is no text")
        return _unique(pairs)

    def scalar(kind: str, read: Callable[[str], Any], pattern: re.Pattern[str]) -> Callable[[Any, Any], Any]:
        def made(loader: Any, node: Any) -> Any:
            text = str(loader.construct_scalar(node))
            if not pattern.match(text):  # by an explicit tag, !!bool maybe
                raise Unreadable(f"{text!r:.60} is no {kind}")
            return read(text)

        return made

    whole = r"0|[-+]?[1-9][0-9]*|0o[0-7]+|0x[0-9a-fA-F]+"
    fraction = r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
    fraction += r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    kinds: tuple[tuple[str, str, str, Callable[[str], Any], str], ...] = (
        ("null", r"~|null|Null|NULL|", "~nN", lambda text: None, ""),
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text[0] in "tT", ""),
        ("int", whole, "-+0123456789", lambda text: int(text, 0 if text[:2] in ("0o", "0x") else 10), ""),
        ("float", fraction, "-+.0123456789", lambda text: float(re.sub(r"\.(?=[a-zA-Z])", "", text)), r"|[-+]?[0-9]+"),
    )
    # Of the tags, those of the core schema: what others make (sets, dates, bytes) is no JSON data.
    Loader.yaml_constructors = {
        f"tag:yaml.org,2002:{name}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
        for name in ("str", "seq")
    } | {None: yaml.SafeLoader.yaml_constructors[None], "tag:yaml.org,2002:map": mapping}
    for name, pattern, first, read, more in kinds:
        tag = f"tag:yaml.org,2002:{name}"
        Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), [*first, *([""] * (name == "null"))])
        Loader.add_constructor(tag, scalar(name, read, re.compile(rf"(?:{pattern}{more})\Z")))
    return Loader


def _toml(text: str) -> Any:
    import tomllib

    try:
        return _dated(tomllib.loads(text))
    except ValueError as error:
        raise Unreadable(str(error)[:200]) from None


def _dated(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dated(item) for key, item in value.items()}
    if isinstance(value, (date, time)):
        return value.isoformat()
    return [_dated(item) for item in value] if isinstance(value, list) else value


def _xml(text: str, schema: Schema) -> Any:
    """Elements by name, repeated ones as lists, attributes as `@name`, text beside them as `#text`.

    The root is a property of the schema, or else it stands for the whole, whatever its name: XML cannot do without one.
    """
    from xml.parsers import expat

    stack: list[tuple[str, dict[str, Any], list[str]]] = []
    made: dict[str, Any] = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > DEPTH:
            raise Unreadable(f"it is nested more than {DEPTH} levels deep")
        stack.append((name, {f"@{key}": value for key, value in attributes.items()}, []))

    def end(name: str) -> None:
        _, inner, words = stack.pop()
        said = "".join(words).strip()
        value: Any = inner if inner else said or None
        if inner and said:
            inner["#text"] = said
        around = stack[-1][1] if stack else made
        if name not in around:
            around[name] = value
        elif isinstance(around[name], _Repeated):
            around[name].append(value)
        else:
            around[name] = _Repeated((around[name], value))

    def doctype(*_: Any) -> None:
        raise Unreadable("document types and entities are not read")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda words: stack[-1][2].append(words)
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text.strip().encode("utf-8", "replace"), True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise Unreadable(str(error)[:200]) from None
    [(root, whole)] = made.items()
    top = resolved(schema, schema)
    properties = top.get("properties") if isinstance(top, Mapping) else None
    return typed(made if isinstance(properties, Mapping) and root in properties else whole, schema, schema)


class _Repeated(list[Any]):
    """Of one name, side by side: a list already, where a list is asked for."""


def _csv(text: str, schema: Schema) -> Any:
    try:
        lines = [line for line in csv.reader(io.StringIO(text.strip(), newline=""), strict=True) if line]
    except csv.Error as error:
        raise Unreadable(str(error)[:200]) from None
    if not lines:
        raise Unreadable("there is no header")
    header, *rows = lines
    if len(set(header)) < len(header):
        raise Unreadable("a column stands there twice")
    long = next((row for row in rows if len(row) > len(header)), None)
    if long is not None:
        raise Unreadable(f"a row has {len(long)} cells, the header {len(header)}")
    cells = [dict(zip(header, row, strict=False)) for row in rows]
    top = resolved(schema, schema)
    columns = resolved(top.get("items"), schema) if isinstance(top, Mapping) else None
    columns = columns.get("properties") if isinstance(columns, Mapping) else None
    if not rows and isinstance(columns, Mapping) and set(header) != set(columns):
        # Any one line of text is a header, and a table without rows fits most schemas.
        raise Unreadable("there are no rows, and the header is not that of the schema")
    one = len(cells) == 1 and "object" in types_of(top) and "array" not in types_of(top)
    return typed(cells[0] if one else cells, schema, schema)


_INTEGER = re.compile(r"[-+]?\d{1,400}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)
_BOOLEAN = {"true": True, "1": True, "false": False, "0": False}


def typed(value: Any, schema: Any, root: Any) -> Any:
    """Text as the schema has it: numbers, booleans, null, lists of one. What does not fit is left to the check."""
    schema = resolved(schema, root)
    types = types_of(schema)
    if "array" in types and not (value is None and "null" in types):
        inner = schema.get("items", True)
        return [typed(item, inner, root) for item in _listed(value, resolved(inner, root))]
    if isinstance(value, dict):
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        return {key: typed(item, (properties or {}).get(key, True), root) for key, item in value.items()}
    if isinstance(value, list):
        inner = schema.get("items", True) if isinstance(schema, Mapping) else True
        return [typed(item, inner, root) for item in value]
    if value in (None, "") and types and "null" not in types:
        return "" if "string" in types else {} if "object" in types and value is None else value
    if value in (None, ""):
        return None if "null" in types else value
    if not isinstance(value, str) or "string" in types:
        return value
    if "integer" in types and _INTEGER.fullmatch(value):
        return int(value)
    if "number" in types and _NUMBER.fullmatch(value):
        return float(value)
    return _BOOLEAN.get(value.lower(), value) if "boolean" in types else value


def _listed(value: Any, inner: Any) -> list[Any]:
    """The items of a list, which may be wrapped in one element, or be the only one."""
    if isinstance(value, dict) and len(value) == 1:
        [(name, wrapped)] = value.items()
        properties = inner.get("properties") if isinstance(inner, Mapping) else None
        if not (isinstance(properties, Mapping) and name in properties):
            value = wrapped
    if isinstance(value, list):
        return value
    return [] if value in (None, "") else [value]
