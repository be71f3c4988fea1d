"""The arguments of the `ng_*` commands: `+key=value`, `++key=value`, `key=value`, `~key`, with dotted keys.

Values are what Hydra makes of them (numbers, true, null, quoted text, [lists], {mappings}; `05` and `yes` are text); what it
refuses, such as a path with a comma or a space, is text too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from rollforge.config import merge
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
        path = _key(key, word).split(".")
        try:
            found = value(text.strip())
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
        for part in reversed(path):
            found = {part: found}
        values = merge(values, found)
    return Arguments(values, tuple(deleted))


def value(text: str) -> Any:
    """Raises `UserError` for a list, mapping or quotation that does not end."""
    if not text or text[0] not in "[{\"'":
        return _plain(text)
    try:
        # The nodes alone: what a plain word means is Hydra's to say, and `05`, `yes` or `12:30` are something else to YAML.
        node = yaml.compose(text, yaml.BaseLoader)
        assert node is not None
        return _meant(node)
    except (yaml.YAMLError, RecursionError) as error:
        what = getattr(error, "problem", None) or error
        raise UserError(f"{text} is no [list], {{mapping}} or quoted text: {what}") from error


_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False}
_WHOLE, _DIGITS = r"(0|[1-9](_?[0-9])*)", r"[0-9](_?[0-9])*"
_POINT = rf"({_WHOLE}\.|{_WHOLE}?\.{_DIGITS})"
_INT = re.compile(rf"[+-]?{_WHOLE}")
_FLOAT = re.compile(rf"[+-]?({_POINT}|({_WHOLE}|{_POINT})e[+-]?{_DIGITS}|inf|nan)", re.IGNORECASE | re.ASCII)


def _plain(text: str) -> Any:
    """What the words of Hydra's grammar mean; any other is text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _meant(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_meant(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        # What is not there (`{a}`) is null.
        return str(node.value) if node.style else _plain(node.value) if node.value else None
    mapped: Json = {}
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError("a key of a mapping is a list or a mapping")
        # Hydra needs no space after the colon: `{a:1}`, which YAML reads as the key `a:1` without a value.
        name, colon, rest = key.value.partition(":")
        bare = not key.style and isinstance(item, yaml.ScalarNode) and not item.style and not item.value
        if bare and colon and rest:
            mapped[name] = value(rest)
        else:
            mapped[key.value] = _meant(item)
    return mapped


def _key(key: str, word: str) -> str:
    if not KEY.fullmatch(key):
        raise UserError(f"{word!r}: {key!r} is not a key; keys are words joined by dots")
    return key
