"""The arguments of the `ng_*` commands: `+key=value`, `++key=value`, `key=value`, `~key`, with dotted keys.

Values are what Hydra makes of them (numbers, true, null, quoted text, [lists], {mappings}); what it refuses, such as a path
with a comma or a space, is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rollforge.config import merge, parse_set
from rollforge.errors import UserError
from rollforge.records.items import Json

KEY = re.compile(r"[\w@/\-]+(\.[\w@/\-]+)*")


@dataclass(frozen=True, slots=True)
class Arguments:
    values: Json = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    """Dotted keys."""


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Later words win. Raises `UserError` naming the word that is none of the forms."""
    values: Json = {}
    deleted: list[str] = []
    for word in words:
        if word.startswith("~"):
            deleted.append(_key(word[1:].partition("=")[0], word))
            continue
        key, equals, text = word.lstrip("+").partition("=")
        if not equals or word.startswith("+++"):
            raise UserError(f"{word!r} is not of the form +key=value (or ++key=value, key=value, ~key)")
        found: Any = value(text.strip())
        for part in reversed(_key(key, word).split(".")):
            found = {part: found}
        values = merge(values, found)
    return Arguments(values, tuple(deleted))


def value(text: str) -> Any:
    """Raises `UserError` for a list, mapping or quotation that does not end."""
    if not text:
        return ""
    if text[0] in "[{\"'":
        return _hydra(parse_set(f"value={text}")["value"])
    try:
        found = parse_set(f"value={text}")["value"]
    except UserError:
        return text  # *.jsonl, @file, 100%: text to everybody but YAML
    # Dates, `a: b` and `- a` are text here too.
    return found if isinstance(found, (str, int, float)) or text in ("null", "~", "Null", "NULL") else text


def _hydra(found: Any) -> Any:
    """Hydra needs no space after the colon of a mapping: `{a:1}`, which YAML reads as the key `a:1` without a value."""
    if isinstance(found, list):
        return [_hydra(item) for item in found]
    if not isinstance(found, dict):
        return found
    mapped: Json = {}
    for key, item in found.items():
        name, colon, rest = str(key).partition(":")
        if item is None and colon and rest:
            mapped[name] = value(rest)
        else:
            mapped[str(key)] = _hydra(item)
    return mapped


def _key(key: str, word: str) -> str:
    if not KEY.fullmatch(key):
        raise UserError(f"{word!r}: {key!r} is not a key; keys are words joined by dots")
    return key
