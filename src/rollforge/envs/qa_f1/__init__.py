"""Questions with short answers, graded as SQuAD and HotpotQA are (`verify.match.qa_match`): rows of NeMo Gym's `hotpotqa_qa`
work as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.qa_f1.tasks import tasks
from rollforge.verify.match import qa_match


def solve(expected_answer: str | Sequence[str]) -> str:
    answer = expected_answer if isinstance(expected_answer, str) else expected_answer[0]
    return json.dumps({"answer": answer}, ensure_ascii=False)


@env(name="qa_f1", tasks=tasks, solve=solve, inline=True)  # type: ignore[untyped-decorator]
def qa_f1(reply: str, expected_answer: str | Sequence[str], metric: str | None = None) -> dict[str, Any]:
    """Answer a question from what several passages say together, as a JSON object with `answer`."""
    return qa_match(reply, expected_answer, metric or "em")
