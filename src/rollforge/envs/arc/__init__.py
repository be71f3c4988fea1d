"""ARC: find the rule that makes outputs of inputs from a few examples, and give the output of one more grid.

Rows of NeMo Gym's `arc_agi` work as they are (`verify.grid` says what differs).
"""

from __future__ import annotations

from typing import Any

from rollforge.envs.arc.tasks import boxed_text, tasks
from rollforge.envs.decorate import env
from rollforge.verify.grid import grid_match


def solve(expected_output: list[list[int]]) -> str:
    return boxed_text(expected_output)


@env(name="arc", tasks=tasks, solve=solve, inline=True)  # type: ignore[untyped-decorator]
def arc(reply: str, expected_output: Any) -> dict[str, Any]:
    """Find the rule of a few grids, apply it to another."""
    return grid_match(reply, expected_output)
