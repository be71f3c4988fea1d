"""Typed configuration: YAML, then overrides, into a pydantic class that knows every key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

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
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    if not equals or not path:
        raise UserError(f"{text!r} is not of the form key=value (a.b=value for a key inside another)")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{text!r}: the value is not YAML: {error}") from error
    for key in reversed(path.split(".")):
        parsed = {key: parsed}
    return parsed  # type: ignore[no-any-return]


def validate(section: type[S], values: Mapping[str, Any], where: str) -> S:
    """The configuration object. Raises `UserError` naming the key, its value, and the nearest known key."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            owner = _owner(section, first["loc"][:-1])
            raise unknown("key", path, owner.model_fields if owner else (), f"(in {where})") from None
        shown = repr(first["input"])
        raise UserError(f"{where}: {path}: {first['msg']} (got {shown[:80]})") from None


def _owner(section: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    owner: Any = section
    for part in path:
        field = owner.model_fields.get(part) if isinstance(part, str) else None
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return None
        owner = field.annotation
    return owner  # type: ignore[no-any-return]
