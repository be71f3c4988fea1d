"""Programming problems with hidden tests: one reply with a program, which is run in the sandbox (`verify.code`).

Rows of NeMo Gym's `code_gen` work as they are: `verifier_metadata.unit_tests` has `inputs`, `outputs` and, for a function
instead of a whole program, `fn_name`. Rows may have `tests` instead: the same, a list of assertions, or
HumanEval's `test` and `entry_point`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.coding.tasks import tasks
from rollforge.envs.jailed import jailed
from rollforge.errors import VerifierFault
from rollforge.verify.code import TOLERANCE, CodeLimits, code


def solve(program: str | None = None) -> str | None:
    return program and f"```python\n{program}\n```"


@jailed(name="coding", tasks=tasks, solve=solve)
async def coding(
    reply: str,
    verifier_metadata: Mapping[str, Any] | None = None,
    tests: Mapping[str, Any] | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write a Python program that passes hidden tests."""
    settings = verifier_metadata if isinstance(verifier_metadata, Mapping) else {}
    wanted = tests or settings.get("unit_tests")
    if not isinstance(wanted, (Mapping, list)):
        raise VerifierFault("the row has neither verifier_metadata.unit_tests nor tests")
    limits = CodeLimits(seconds=settings.get("seconds") or 10.0, memory_mb=settings.get("memory_mb") or 1024)
    return await code(
        reply,
        wanted,
        extract=settings.get("extract") or "last_block",
        partial=bool(settings.get("partial")),
        tolerance=settings.get("tolerance", TOLERANCE),
        limits=limits,
    )
