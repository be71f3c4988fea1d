"""Multiple choice: one reply, graded by the letter it chose, in the grading modes of NeMo Gym's `mcqa` (`verify.choice`).

Its rows work as they are: `options`, `expected_answer`, `grading_mode`, and `template_metadata.output_regex`, an expression
that goes before the mode. Those come with the data and can take for ever, so the verifier runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforge.envs.choice.tasks import tasks
from rollforge.envs.decorate import env
from rollforge.errors import VerifierFault
from rollforge.verify import choice as grading

STRICT = "strict_single_letter_boxed"


def solve(expected_answer: str, grading_mode: str | None = None) -> str:
    colon = (grading_mode or STRICT).startswith("lenient_answer_colon")
    return f"Answer: {expected_answer}" if colon else f"\\boxed{{{expected_answer}}}"


@env(name="choice", tasks=tasks, solve=solve)  # type: ignore[untyped-decorator]
def choice(
    reply: str,
    expected_answer: str,
    options: grading.Options | None = None,
    grading_mode: str | None = None,
    template_metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Choose one of several options by its letter."""
    if not isinstance(template_metadata, Mapping | None):
        raise VerifierFault(f"template_metadata is {template_metadata!r:.80}, not an object")
    regex = (template_metadata or {}).get("output_regex")
    return grading.choice(reply, expected_answer, options, grading_mode or STRICT, regex)
