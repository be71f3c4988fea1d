"""What NeMo RL is started with, as a file or anybody's script says: the configuration, and over it the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rollforge.config import merge
from rollforge.errors import UserError
from rollforge.export.nemo_rl.config import ALGORITHM
from rollforge.export.nemo_rl.inherit import Found, Values, keys, read
from rollforge.export.shell import known, overrides, read_script

_ENTRY = r"""(?<![^\s"'/])(run_(?:grpo|sft|dpo|rm)(?:_math|_rm|_nemo_gym)?)\.py(?![^\s"'])"""
_ALGORITHM = {"run_rm": "dpo", "run_sft": "sft", "run_dpo": "dpo"}
GONE = ("run_grpo_math", "run_grpo_rm")
"""Up to 0.5 only."""


@dataclass(frozen=True, slots=True)
class Started:
    own: Values
    """What the file says, and over it the command line."""
    parent: Values | None
    values: Values
    """All of it."""
    file: Path | None
    """The configuration; None where it is not known, or not there."""
    script: str = ""
    """`run_sft`"""
    line: int = 0
    """Of the command."""
    given: frozenset[str] = frozenset()
    """Dotted keys of the command line."""
    unread: int = 0
    """The line from which on a script could not be read."""


def started(kind: str, path: Path, found: list[Found]) -> Started | None:
    """Of a script the first command for data of this kind, or else the first one; None where it starts nothing of NeMo RL's.
    Problems with the parents go to `found`. Raises `UserError` for a file that cannot be read."""
    if path.suffix in (".yaml", ".yml"):
        return Started(*read(path, found), path)
    if path.suffix != ".sh":
        return None
    try:
        script = read_script(path.read_text(encoding="utf-8"), _ENTRY)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    commands = [(command.line, *command.split(_ENTRY)[1:]) for command in script.commands]
    fitting = [one for one in commands if fits(kind, one[1][1])]
    for line, entry, words in fitting or commands:
        named = next((word for word in _after(words, "--config")), "")
        file = _file(named, path) if known(named) else None
        own, parent, values = read(file, found) if file else ({"defaults": named or entry[1]}, None, {})
        # Places in lists are left alone.
        given = [one for one in overrides(words) if not any(map(str.isdecimal, one[0].split(".")))]
        found += _refused(given, values) if file and parent is not None else ()
        for key, value in given:
            over: Any = value
            for name in reversed(key.lstrip("+").split(".")):
                over = {name: over}
            own, values = merge(own, over), merge(values, over)
        said = frozenset(key.lstrip("+") for key, _ in given)
        return Started(own, parent, values, file, entry[1], line, said, script.unread)
    return Started({}, None, {}, None, unread=script.unread) if script.unread else None


def fits(kind: str, script: str) -> bool:
    """Whether a script of NeMo RL's trains on data of this kind."""
    if (kind == "nemo-gym") != script.endswith("nemo_gym"):
        return False
    return _ALGORITHM.get(script, "grpo") == ALGORITHM[kind]


def _after(words: tuple[str, ...], flag: str) -> Iterator[str]:
    for word, following in zip(words, (*words[1:], ""), strict=False):
        if word == flag:
            yield following
        elif word.startswith(f"{flag}="):
            yield word.partition("=")[2]


def _file(name: str, script: Path) -> Path | None:
    """The file of this name, or one that is called so beside the script: exports are moved, together."""
    there, beside = Path(name), script.parent / Path(name).name
    if name and beside.is_file() and not (there.is_file() and not os.path.samefile(there, beside)):
        return beside
    return next((one for one in (there, script.parent / name) if name and one.is_file()), None)


def _refused(given: list[tuple[str, Any]], values: Values) -> Iterator[Found]:
    """Hydra adds keys only with a `+`, and with one `+` no key that is there."""
    there = keys(values)
    for key, _ in given:
        name = key.lstrip("+")
        if key == name and name not in there:
            near = get_close_matches(name, there, n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield name, "error", f"the configuration has no such key (not in struct); +{name}=... adds it{hint}"
        elif key == f"+{name}" and name in there:
            yield name, "error", "the configuration has it already (Could not append); leave the + out"
