"""Configurations as they may be shown, once interpolation has spread what is secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollforge.records.items import Json
from rollforge.records.shown import HIDDEN, without_secrets

SHORTEST = 6
"""Characters from which a secret is looked for inside other values: `EMPTY` and `dummy` stand there on their own account."""


def shown(values: Json) -> Json:
    """A copy without secrets: those under a key that names one, and the same texts wherever else they stand."""
    hidden: Json = without_secrets(values)
    secrets = sorted({text for text in _secrets(values, hidden) if len(text) >= SHORTEST}, key=len, reverse=True)
    cleaned: Json = _cleaned(hidden, secrets)
    return cleaned


def _secrets(value: Any, hidden: Any) -> Iterator[str]:
    """The texts that are hidden."""
    if isinstance(value, dict) and isinstance(hidden, dict):
        for key, item in value.items():
            yield from _secrets(item, hidden[str(key)])
    elif isinstance(value, list) and isinstance(hidden, list):
        for item, other in zip(value, hidden, strict=True):
            yield from _secrets(item, other)
    elif hidden == HIDDEN:
        yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value.removeprefix("Bearer ")


def _cleaned(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, secrets) for item in value]
    if isinstance(value, str):
        for text in secrets:
            value = value.replace(text, HIDDEN)
    return value
