"""A counter that keeps its value over the turns of a session: the smallest environment with state.

Rows of NeMo Gym's `example_session_state_mgmt` work as they are, and the reward is theirs: whether the counter ends where
it should.
"""

from __future__ import annotations

import json

from rollforge.envs.counter.tasks import tasks
from rollforge.envs.decorate import env
from rollforge.models.base import Solution


@env(name="counter", tasks=tasks, inline=True)
class counter:
    """Change a counter as asked, reading it where the task does not say what it holds."""

    def reset(self, initial_count: int = 0) -> None:
        self.count = initial_count

    def increment_counter(self, count: int) -> dict[str, bool]:
        """Add to the counter.

        Args:
            count: how much to add; may be negative.
        """
        self.count += count
        return {"success": True}

    def get_counter_value(self) -> dict[str, int]:
        """Read the counter."""
        return {"count": self.count}

    def verify(self, expected_count: int) -> float:
        return float(self.count == expected_count)

    def solve(self, expected_count: int) -> Solution:
        value = json.loads((yield "get_counter_value", {}))["count"]
        if value != expected_count:
            yield "increment_counter", {"count": expected_count - value}
        return f"The counter is at {expected_count}."
