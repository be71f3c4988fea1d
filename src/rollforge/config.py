"""Typed configuration: YAML, then overrides, into a pydantic class that knows every key."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rollforge.errors import UserError, unknown


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises `UserError` with the line of what is wrong."""
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-99-99 is a ValueError
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{place}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: the file holds {type(value).__name__}, not keys and values")
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins; mappings are merged key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_set(text: str) -> dict[str, Any]:
    """`a.b=value` as nested mappings; the value is read as YAML (numbers, lists, true). Raises `UserError`."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"{text!r} is not of the form key=value (a.b=value for a key inside another)")
    try:
        parsed: Any = yaml.load(value, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = getattr(error, "problem", None) or error
        raise UserError(f"{text!r}: the value is not YAML: {what} (quote it: {path}='\"...\"')") from error
    for key in reversed(keys):
        parsed = {key: parsed}
    return parsed  # type: ignore[no-any-return]


def with_set(values: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """`values`, and over them what each `--set` says. Raises `UserError`."""
    return reduce(merge, map(parse_set, texts), dict(values))


def validate(section: type[S], values: Mapping[str, Any], where: str) -> S:
    """The configuration object. Raises `UserError` naming the key, its value, and the nearest known key."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        # A key that nobody knows may be the one that is missing, with a typo.
        first = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            owner = _owner(section, first["loc"][:-1])
            raise unknown("key", path, owner.model_fields if owner else (), f"(in {where})") from None
        shown = "" if first["type"] == "missing" else f" (got {repr(first['input'])[:80]})"
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {path}{': ' if path else ''}{message}{shown}") from None


def _owner(section: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The class of the section at `path`, through optional sections and lists of sections."""
    owner: type[BaseModel] | None = section
    for part in path:
        if isinstance(part, int):
            continue
        field = owner.model_fields.get(part) if owner else None
        owner = _section_in(field.annotation) if field else None
    return owner


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `1e-5` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused by what follows
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
