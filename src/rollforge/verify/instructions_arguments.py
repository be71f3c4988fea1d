"""A family of instructions: its check, and what its arguments must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rollforge.errors import VerifierFault

Argument = Callable[[Any], Any]
"""The argument as the check takes it. Raises `ValueError` saying what it should be."""


@dataclass(frozen=True, slots=True)
class Family:
    check: Callable[..., bool]
    """Of a text that is not empty, and of the arguments by name."""
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def read(self, name: str, given: Mapping[str, Any]) -> Callable[[str], bool]:
        """The check with the arguments of a row; nulls are left out, as data sets have them. Raises `VerifierFault`."""
        if not isinstance(given, Mapping):
            raise VerifierFault(f"the arguments of {name} are {type(given).__name__}, not an object")
        known = {key: value for key, value in given.items() if value is not None}
        for key in known:
            if key not in self.arguments:
                raise VerifierFault(f"{name} has no argument {key!r}; it has: {', '.join(self.arguments) or 'none'}")
        made = {}
        for key, argument in self.arguments.items():
            if key not in known:
                raise VerifierFault(f"{name} needs {key!r}, which the row lacks (in kwargs)")
            try:
                made[key] = argument(known[key])
            except ValueError as error:
                raise VerifierFault(f"{name}: {key} is {known[key]!r:.80}; it must be {error}") from None
        return partial(self.check, **made)


def count(value: Any) -> int:
    """Tables make 3.0 of 3."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return int(value)


def text(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value.strip()


def texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of texts")
    return [text(one) for one in value]


def letter(value: Any) -> str:
    found = text(value)
    if len(found) != 1:
        raise ValueError("one letter")
    return found.lower()


def relation(value: Any) -> Callable[[int, int], bool]:
    if value == "less than":
        return lambda found, asked: found < asked
    if value == "at least":
        return lambda found, asked: found >= asked
    raise ValueError("'less than' or 'at least'")
