"""The same attempt in processes of its own: what goes otherwise there goes by chance, what only does so here by a state."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any, Literal

from rollforge.audit.play import Ground, Played
from rollforge.envs.decorate import PythonEnv
from rollforge.errors import RolloutError
from rollforge.models.base import Solution
from rollforge.records.items import Response
from rollforge.records.task import Task
from rollforge.sandbox.workers import Workers

FORKS = 4
SECONDS = 60.0
"""Of one fork. What its environment opened before (connections, say) is closed there, and may hang."""

Cause = Literal["state", "chance", "unknown"]


async def cause(env: Any, task: Task, made: Callable[[], Solution | Response]) -> Cause:
    """Why an attempt at `task` did not end twice alike in this process. It is made twice in each of some forks, which draw
    random numbers of their own: "state" if all forks saw the same and the second time another thing than the first,
    "chance" if they did not, "unknown" if nothing differed, or if it cannot be played there."""
    if not isinstance(env, PythonEnv):
        return "unknown"

    def twice() -> list[Any] | None:
        env.apart = False  # of the fork alone, which has no processes of verifiers
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # Python's own are seeded anew in a fork
        played = asyncio.run(_played(env, task, made))
        return None if any(one.problem for one in played) else [one.said for one in played]

    seen: list[Any] = []
    for _ in range(FORKS):
        with closing(Workers(twice, size=1)) as workers:
            try:
                seen.append(await workers.run(pickle.dumps(()), SECONDS))
            except RolloutError:
                return "unknown"
    if None in seen:
        return "unknown"
    if any(one != seen[0] for one in seen):
        return "chance"
    return "state" if seen[0][0] != seen[0][1] else "unknown"


async def _played(env: PythonEnv, task: Task, made: Callable[[], Solution | Response]) -> list[Played]:
    ground = Ground(env, env.name, env.limits)
    return [await ground.play("afresh", task, made()) for _ in range(2)]
