"""What others may see of a configuration, and of a text that says what something is made of, or where it is."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from rollforge.errors import UserError
from rollforge.records.lossless import dumps

HIDDEN = "***"


def without_secrets(value: Any, key: str = "", *, marked: bool = False) -> Any:
    """A configuration for others to see: no header values, nothing under a key that names a secret, texts as `shown`.

    `marked`: what was hidden leaves a mark, so that two configurations can be compared (32 bits: enough to notice a change,
    too few to find the secret by). What is marked already stays as it is.
    """
    secret = value is not None and _SECRET.search(key)
    if isinstance(value, Mapping) and not secret:
        if key == "headers":
            return dict.fromkeys(map(str, value), HIDDEN)
        return {str(name): without_secrets(item, str(name), marked=marked) for name, item in value.items()}
    if isinstance(value, list) and not secret:
        return [without_secrets(item, key, marked=marked) for item in value]
    if (isinstance(value, (int, float, bool)) or value is None) and not secret:
        return value
    if not marked:
        return HIDDEN if secret else shown(str(value))
    if isinstance(value, str) and _MARKED.search(value):
        return value
    hidden = "" if secret else shown(str(value))
    mark = HIDDEN + hashlib.sha256(dumps(value, sort_keys=True)).hexdigest()[:8]
    return hidden if hidden == value else f"{hidden} {mark}".lstrip()


def with_secrets(stored: Any, given: Any, path: str = "") -> Any:
    """What `without_secrets` hid, put back from a configuration that has it. Raises `UserError` for what it has not."""
    if isinstance(stored, Mapping):
        inside = given if isinstance(given, Mapping) else {}
        return {key: with_secrets(one, inside.get(key), f"{path}.{key}" if path else key) for key, one in stored.items()}
    if isinstance(stored, list):
        beside = given if isinstance(given, list) and len(given) == len(stored) else [None] * len(stored)
        pairs = enumerate(zip(stored, beside, strict=True))
        return [with_secrets(one, other, f"{path}[{at}]") for at, (one, other) in pairs]
    if not isinstance(stored, str) or not (stored == HIDDEN or _MARKED.search(stored)):
        return stored
    if given is None:
        raise UserError(f"{path} is hidden where it was stored, and is not given now")
    return given


def shown(text: str) -> str:
    """URLs without user, password and query, a command as the name of its program: keys have been seen in all of them."""
    if text.startswith(_COMMAND):
        return _COMMAND + program(text.removeprefix(_COMMAND))
    return _USER.sub(r"\1", _QUERY.sub(r"\1", text))


def typed(path: object) -> str:
    """A path as a word of a command that can be copied: quoted where the shell needs it, and never an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def program(command: str) -> str:
    """The name of the program that a command line begins with."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    names = (os.path.basename(word) for word in words if not _ASSIGNMENT.match(word))
    return next(names, "")


_SECRET = re.compile(
    r"(^|[_-])(api[_-]?key|key|token|secret|password|passwd|authorization|credentials?|cookie)$", re.IGNORECASE
)
_MARKED = re.compile(r"(^| )\*\*\*[0-9a-f]{8}$")
_COMMAND = "command:"
_ASSIGNMENT = re.compile(r"\w+=")
_QUERY = re.compile(r"(://[^\s?#]*)[?#]\S*")
_USER = re.compile(r"(://)[^/\s]*@")
