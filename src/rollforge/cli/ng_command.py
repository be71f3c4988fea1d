"""What every `ng_*` command has: a name, the keys it takes, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rollforge.errors import UserError, unknown

if TYPE_CHECKING:
    from rollforge.nemo.arguments import Arguments
    from rollforge.nemo.config import GymConfig
    from rollforge.records.rows import BadLine
    from rollforge.serve.settings import Settings

SHOWN = 20
"""Unusable lines that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    about: str
    run: Callable[[Command, Arguments], int | None]
    """Does it; gives the exit status."""
    keys: dict[str, str] = field(default_factory=dict)
    """What it takes, beside what any configuration may hold."""
    unsupported: dict[str, str] = field(default_factory=dict)
    """Keys of NeMo Gym's that it does not take, with what to do instead."""

    def __call__(self, arguments: Arguments) -> int:
        for key in arguments.values:
            if key in self.unsupported:
                raise UserError(f"{self.name}: +{key} is not supported: {self.unsupported[key]}")
        return self.run(self, arguments) or 0

    def checked(self, config: GymConfig) -> GymConfig:
        """Raises `UserError` for an argument that is nearly a known one; says which have no effect."""
        from rollforge.nemo.config import IGNORED, OURS, UNSUPPORTED

        known = {*self.keys, *OURS, *IGNORED, *UNSUPPORTED}
        for key in config.unused:
            if key in known:
                continue
            if get_close_matches(key, known, n=1, cutoff=0.8):
                raise unknown("key", key, known, f"({self.name} --help lists them)")
            if not isinstance(config.values.get(key), dict):
                say(f"warning: {key} has no effect: neither {self.name} nor a file of the configuration knows it")
        return config

    def only(self, arguments: Arguments, more: Sequence[str] = ()) -> dict[str, Any]:
        """The arguments of a command that reads no configuration. Raises `UserError` for any other key."""
        known = [*self.keys, *more]
        for key in arguments.values:
            if key not in known:
                raise unknown("key", key, known, f"({self.name} --help describes them)")
        return arguments.values

    def describe(self) -> None:
        print(f"{self.name}: {self.about}\n")
        for key, about in self.keys.items():
            print(f"  +{key:<34} {about}")
        if "config_paths" in self.keys:
            print("\nFurther keys are laid over the configuration: +key=value, ++key=value, key=value, ~key (deletes).")


def text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if value is None or value == "" or isinstance(value, (dict, list)):
        raise UserError(f"+{key}= is missing" if not value else f"{key} is {value!r}, not a text")
    return str(value)


def number(values: dict[str, Any], key: str) -> int | None:
    value = values.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise UserError(f"{key} is {value!r}, not a number from 1 on")
    return value


def repeats(value: Any) -> int | dict[str, int]:
    value = 1 if value is None else value
    counts = value.values() if isinstance(value, dict) else [value]
    if not all(type(count) is int and count >= 1 for count in counts):
        raise UserError(f"num_repeats is {value!r}, not a number from 1 on, nor {{AGENT: number, _default: number}}")
    return dict(value) if isinstance(value, dict) else int(value)


def settings_of(config: GymConfig) -> Settings:
    """Of the services: host, and what `+rollforge.KEY=` says."""
    from rollforge.config import validate
    from rollforge.serve.settings import Settings

    given = config.values.get("rollforge") or {}
    if not isinstance(given, dict):
        raise UserError(f"rollforge is {given!r}, not keys and values")
    host = str(config.values.get("default_host") or "127.0.0.1")
    return validate(Settings, {"host": host, **given}, "rollforge")


def say(text: str) -> None:
    from rollforge.cli.progress import say
    from rollforge.stats.visible import one_line

    say(one_line(text, 2000))


def tell(bad: Sequence[BadLine], more: int = 0) -> None:
    """Which lines could not be used; `more` that nobody kept."""
    for line in bad[:SHOWN]:
        say(f"not used: {line}"[:300])
    more += len(bad[SHOWN:])
    if more:
        say(f"not used: {more} more lines")
