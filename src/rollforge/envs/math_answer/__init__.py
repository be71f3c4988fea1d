"""Mathematics with a final answer: one reply, graded by whether its answer equals the expected one (`verify.math`).

Rows of NeMo Gym's `math_with_judge` work as they are; those of `math_with_code` and `math_advanced_calculations` too, but
the tools they offer are not here. The answer is in `expected_answer`, `expected_result`, `answer` or `ground_truth`.
"""

from __future__ import annotations

from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.math_answer.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.verify import math as grading

FIELDS = ("expected_answer", "expected_result", "answer", "ground_truth")


def solve(**row: Any) -> str:
    return f"\\boxed{{{grading.expected_answer(str(_expected(row)))}}}"


@env(name="math_answer", tasks=tasks, solve=solve)  # type: ignore[untyped-decorator]
def math_answer(reply: str, **row: Any) -> dict[str, Any]:
    """Solve a problem and put the answer in a box."""
    return grading.math_answer(reply, _expected(row))


def _expected(row: dict[str, Any]) -> Any:
    for field in FIELDS:
        if row.get(field) is not None:
            return row[field]
    raise VerifierFault(f"the row has none of {', '.join(FIELDS)}")
