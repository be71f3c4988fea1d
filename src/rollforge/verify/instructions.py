"""Verifiable instructions: whether a reply does what the families of IFEval and of NeMo Gym's `instruction_following` ask.

A row names the families (`instruction_id_list`) and their arguments (`kwargs`). Strict: the reply as it stands. Loose, as in
IFEval: also without its first line, its last line, both, or its asterisks. Source: Zhou et al., "Instruction-Following
Evaluation for Large Language Models", 2023. The checks are in `instructions_ifeval` and `instructions_more`.

What no reply could be judged by is a `VerifierFault`: a family that is not known, an argument that is missing (theirs is
drawn at random then) or not what it must be. An empty reply follows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.errors import VerifierFault, unknown
from rollforge.verify.instructions_arguments import Family
from rollforge.verify.instructions_ifeval import IFEVAL
from rollforge.verify.instructions_more import MORE

FAMILIES: Mapping[str, Family] = {**IFEVAL, **MORE}


def instructions(
    reply: str,
    instruction_id_list: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None = None,
    *,
    loose: bool = False,
    partial: bool = False,
) -> dict[str, Any]:
    """1 if the reply follows all instructions, else 0, or with `partial` the share that it follows.

    The verdict has `follow_all_instructions` and `follow_instruction_list`, strictly or loosely as asked, and both shares:
    `followed_strict`, `followed_loose`. Raises `VerifierFault` for instructions that cannot be checked.
    """
    checks = read(instruction_id_list, kwargs)
    strict = [bool(reply.strip()) and check(reply) for check in checks]
    variants = [text for text in loosened(reply) if text.strip()]
    loosely = [held or any(check(text) for text in variants) for held, check in zip(strict, checks, strict=True)]
    followed = loosely if loose else strict
    reward = sum(followed) / len(followed) if partial else float(all(followed))
    return {
        "reward": reward,
        "follow_all_instructions": all(followed),
        "follow_instruction_list": followed,
        "followed_strict": sum(strict) / len(strict),
        "followed_loose": sum(loosely) / len(loosely),
    }


def read(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None] | None) -> list[Any]:
    """A check of a text for each instruction. Raises `VerifierFault`."""
    given = [None] * len(ids) if kwargs is None else kwargs
    if isinstance(ids, str) or not ids:
        raise VerifierFault(f"instruction_id_list is {ids!r:.80}, not a list of instructions")
    if len(given) != len(ids):
        raise VerifierFault(f"there are {len(ids)} instructions, but arguments for {len(given)} (kwargs)")
    checks = []
    for name, arguments in zip(ids, given, strict=True):
        family = FAMILIES.get(name)
        if family is None:
            raise VerifierFault(str(unknown("instruction", str(name), FAMILIES)))
        checks.append(family.read(name, arguments or {}))
    return checks


def loosened(reply: str) -> list[str]:
    """The reply without what a chat puts around an answer: first line, last line, both; each also without asterisks."""
    lines = reply.split("\n")
    cuts = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cuts[1:], *(text.replace("*", "") for text in cuts)]
