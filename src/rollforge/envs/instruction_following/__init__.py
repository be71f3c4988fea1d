"""Follow verifiable instructions: how long, in which format, with which words. Rows of NeMo Gym's `instruction_following`
work as they are, with the fields at the top or in `verifier_metadata` (`verify.instructions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.instruction_following.reference import solve
from rollforge.envs.instruction_following.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.verify.instructions import instructions

Arguments = Sequence[Mapping[str, Any] | None]
MODES = ("binary", "fraction")


@env(name="instruction_following", tasks=tasks, solve=solve)  # type: ignore[untyped-decorator]
def instruction_following(
    reply: str,
    instruction_id_list: Sequence[str] | None = None,
    kwargs: Arguments | None = None,
    grading_mode: str | None = None,
    loose: bool | None = None,
    verifier_metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Answer a request and follow every instruction on how."""
    inner = verifier_metadata or {}
    ids = inner.get("instruction_id_list") or instruction_id_list
    mode = inner.get("grading_mode") or grading_mode or "binary"
    if mode not in MODES:
        raise VerifierFault(f"grading_mode is {mode!r}; known: {', '.join(MODES)}")
    if not ids:
        raise VerifierFault("the row has no instruction_id_list")
    return instructions(reply, ids, inner.get("kwargs", kwargs), loose=bool(loose), partial=mode == "fraction")
