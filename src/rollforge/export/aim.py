"""`--set`: which key of a framework's configuration is meant for which target.

policy.x=1                  for every target named
nemo-rl:policy.x=1          for the kinds of one framework
nemo-rl:grpo:policy.x=1     for one kind; what is aimed more narrowly wins
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.errors import UserError, unknown
from rollforge.export.target import Target


def aimed(given: Mapping[str, Any], wanted: Sequence[tuple[Target, str]]) -> list[dict[str, Any]]:
    """The keys for each of `wanted`. Raises `UserError` for an aim at none of them, and for a key that is not aimed and
    that the configuration of one of them does not have."""
    found: list[list[tuple[int, str, Any]]] = [[] for _ in wanted]
    for text, value in given.items():
        *at, key = text.split(":")
        mine = [number for number, (target, kind) in enumerate(wanted) if at == [target.name, kind][: len(at)]]
        if not mine:
            names = {name for target, kind in wanted for name in (target.name, f"{target.name}:{kind}")}
            raise unknown("target", ":".join(at), names, f"(in --set {text})")
        for number in mine:
            wrong = None if at else wrong_key(*wanted[number], key)
            if wrong:
                target, kind = wanted[number]
                aim = f"aim it: --set {target.name}:{kind}:{key}=..., or at the target that has it"
                raise UserError(f"--set {key}: {wrong}; {aim}")
            found[number].append((len(at), key, value))
    return [{key: value for _, key, value in sorted(keys, key=lambda one: one[0])} for keys in found]


def wrong_key(target: Target, kind: str, key: str) -> str | None:
    """Why the configuration has no such key; None if it may have it."""
    known = target.sections(kind) if target.sections else None
    first = key.lstrip("+~").partition(".")[0]
    if known is None or first in known:
        return None
    return str(unknown(f"part of {target.name}:{kind}'s configuration:", first, known))
