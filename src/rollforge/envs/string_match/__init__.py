"""Short answers compared as text, numbers, lists or sets, from the place in the reply that the row names (`verify.match`).

Rows of NeMo Gym's `string_match` work as they are. Expressions of rows (`output_regex`) come with the data and can take for
ever, so the verifier runs in a process of its own.
"""

from __future__ import annotations

from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.string_match.tasks import tasks
from rollforge.verify import match


def solve(
    expected_answer: match.Expected, extraction_mode: str | None = None, sample_reply: str | None = None
) -> str | None:
    answer = ", ".join(map(str, expected_answer)) if isinstance(expected_answer, list) else str(expected_answer)
    if extraction_mode == "regex":
        return sample_reply  # nobody can write a text for any expression
    if extraction_mode == "boxed":
        return f"\\boxed{{{answer}}}"
    return answer if extraction_mode in ("last_line", "full_response") else f"Final answer: {answer}"


@env(name="string_match", tasks=tasks, solve=solve)  # type: ignore[untyped-decorator]
def string_match(
    reply: str,
    expected_answer: match.Expected,
    extraction_mode: str | None = None,
    case_sensitive: bool | None = None,
    answer_type: str | None = None,
    output_regex: str | None = None,
    tolerance: float = 0.0,
    relative_tolerance: float = 0.0,
) -> dict[str, Any]:
    """Give a short answer in the place that the task names."""
    return match.string_match(
        reply,
        expected_answer,
        extraction_mode or "final_answer",
        kind=answer_type or "text",
        case_sensitive=bool(case_sensitive),
        regex=output_regex,
        tolerance=tolerance,
        relative=relative_tolerance,
    )
