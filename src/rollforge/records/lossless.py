"""JSON there and back without loss, where orjson alone is not enough: whole numbers beyond 64 bits, lone surrogates, depth.

orjson does the work; only what it would change or refuse goes the slow way through the standard library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

Default: TypeAlias = Callable[[Any], Any]

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY

_ANY_KEYS = _OPTIONS | orjson.OPT_NON_STR_KEYS
"""A sixth slower."""

_DEPTH = 254
"""Levels that orjson writes; it reads more."""

_SHAPE = bytes.maketrans(b"123456789", b"000000000")
_RUN = b"0" * 19


def loads(text: bytes | str) -> Any:
    """The value of a JSON text. Raises `ValueError` saying what is wrong and where; NaN and Infinity are not JSON, and what
    could not be written again (nested too deeply) is refused."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(_problem(error)) from None
    text = text.encode() if isinstance(text, str) else text
    if len(text) < len(_RUN):
        return value
    try:
        # orjson makes a float of a whole number beyond 64 bits, and the last digits of an expected answer are gone.
        if has_long_number(text):
            value = json.loads(text)
        if len(text) > 2 * _DEPTH and text.count(b"[") + text.count(b"{") > _DEPTH:
            dumps(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def dumps(value: Any, *, sort_keys: bool = False, indent: bool = False, default: Default | None = None) -> bytes:
    """JSON in UTF-8; numbers that are not finite become null, lone surrogates become "?". `indent`: by two spaces.

    `default` makes something JSON can hold of what it cannot; without it, that raises `ValueError` naming its place.
    """
    options = _OPTIONS | (orjson.OPT_SORT_KEYS if sort_keys else 0) | (orjson.OPT_INDENT_2 if indent else 0)
    try:
        return orjson.dumps(value, default, options)
    except TypeError:
        return _dumps(value, sort_keys, indent, default)


def _problem(error: orjson.JSONDecodeError) -> str:
    word = next((word for word in ("NaN", "Infinity") if error.doc.startswith(word, error.pos)), None)
    place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
    return f"{f'{word} is not JSON' if word else error.msg}, {place}"


def _dumps(value: Any, sort_keys: bool, indent: bool, default: Default | None) -> bytes:
    layout: dict[str, Any] = {"indent": 2} if indent else {"separators": (",", ":")}
    try:
        plain = _plain(value, "", default)
        text = json.dumps(plain, ensure_ascii=False, sort_keys=sort_keys, **layout).encode()
        orjson.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return text


def _plain(value: Any, where: str, default: Default | None) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        named = ((key, f"{where}.{key}" if where else str(key), item) for key, item in value.items())
        return {_key(key, where): _plain(item, place, default) for key, place, item in named}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]", default) for index, item in enumerate(value)]
    try:
        return orjson.loads(orjson.dumps(value, None, _ANY_KEYS))
    except TypeError as error:
        if default is not None:
            return _plain(default(value), where, default)
        why = "" if str(error).startswith("Type is not") else f" ({error})"
        raise ValueError(f"{where or 'the value'} is {type(value).__name__}, which JSON cannot hold{why}") from None


def _key(key: Any, where: str) -> str:
    try:
        return next(iter(orjson.loads(orjson.dumps({key: None}, option=_ANY_KEYS))))  # type: ignore[no-any-return]
    except TypeError:
        if isinstance(key, (str, int)):
            return str(key).encode("utf-8", "replace").decode()
        raise ValueError(f"{where or 'the value'} has the key {key!r}, which JSON cannot hold") from None


def has_long_number(text: bytes) -> bool:
    """Whether 20 digits stand in a row that no point precedes, or 19 after a sign: the shortest number that orjson would
    round. Lines of dashes, as in code and tables, are none."""
    shape = text.translate(_SHAPE)
    at = shape.find(_RUN)
    while at >= 0:
        before, after = shape[at - 1 : at], shape[at + len(_RUN) : at + len(_RUN) + 1]
        if before == b"-" or (before != b"." and after == b"0"):
            return True
        at = shape.find(_RUN, at + len(_RUN))
    return False
