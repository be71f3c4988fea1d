"""Every data set of the reasoning-gym library: puzzles made without end, scored by the library (`verify.reasoning`).

Needs the extra: pip install 'rollforge[reasoning-gym]'. Rows of NeMo Gym's `reasoning_gym` work as they are.
"""

from __future__ import annotations

import json
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.reasoning_gym.tasks import tasks
from rollforge.verify import reasoning

EXAMPLES = ("example_answer", "example_correct_answer", "possible_answer")
"""Where the metadata of problems with many answers have one."""


def solve(metadata: dict[str, Any], answer: str | None = None) -> str | None:
    found = answer if answer is not None else next((metadata[name] for name in EXAMPLES if name in metadata), None)
    if found is None:
        return None
    return f"<answer>{found if isinstance(found, str) else json.dumps(found)}</answer>"


@env(name="reasoning_gym", tasks=tasks, solve=solve)  # type: ignore[untyped-decorator]
def reasoning_gym(reply: str, metadata: Any, answer: Any = None, question: str = "") -> dict[str, Any]:
    """Solve puzzles of a hundred kinds: algebra, algorithms, games, geometry, graphs, logic."""
    return reasoning.reasoning_gym(reply, answer, metadata, question)
