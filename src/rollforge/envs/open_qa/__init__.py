"""Open questions with a short answer: judged by a model whether it is equivalent to the expected one (`verify.judge`).

The judge is an option: `--set env.judge=chat:NAME`. What agrees word for word is right without asking it; without a judge
nothing else is, and `judged_by` says `match`. Rows of NeMo Gym's `equivalence_llm_judge` work as they are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollforge.envs.base import Session, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.open_qa.option import judge_of
from rollforge.envs.open_qa.tasks import tasks
from rollforge.errors import VerifierFault, stage
from rollforge.records.items import Response, final_text, prompt_text
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from rollforge.sandbox.deadline import within
from rollforge.verify.answer import after_thinking
from rollforge.verify.judge import EQUIVALENCE, EQUIVALENCE_LABELS, Judge, equivalent
from rollforge.verify.match import LONG, extract, same_number, same_text, squad_normalized
from rollforge.verify.rubric import rubric


def solve(expected_answer: str = "", template_metadata: Any = None, metadata: Any = None) -> str | None:
    expected = expected_answer or _of(metadata, "expected_answer")
    # With an expression of its own, only the row knows where the answer is to stand.
    return f"\\boxed{{{expected}}}" if expected and not _of(template_metadata, "output_regex") else None


def by_match(
    reply: str,
    expected_answer: Any = None,
    accepted: Sequence[str] = (),
    rubric: Any = None,
    template_metadata: Any = None,
    metadata: Any = None,
) -> dict[str, Any]:
    """Answer a question in a few words."""
    regex = _of(template_metadata, "output_regex")
    answer = _answer(reply, regex)
    shown = answer[:LONG] if answer and not regex else answer
    if rubric is not None:
        return {"reward": 0.0, "extracted_answer": shown, "judged_by": "match"}
    expected = _expected(expected_answer, metadata)
    right = answer is not None and any(_same(answer, gold) for gold in (expected, *accepted))
    return {"reward": float(right), "extracted_answer": shown, "judged_by": "match"}


class OpenQA(PythonEnv):
    """`judge`: a `Judge`, a model or its name, or a mapping with `use`, `base_url`, `votes` ... (`option.JudgeConfig`)."""

    def __init__(self, judge: Any = None, *, name: str = "open_qa") -> None:
        # Matching uses expressions that come with the data: it runs where it can be killed.
        super().__init__(by_match, name=name, tasks=tasks, solve=solve)
        self._wanted = judge
        self._judge = judge_of(judge)

    @property
    def judge(self) -> Judge | None:
        if self._judge is None:
            self._judge = judge_of(self._wanted)
        return self._judge

    def tasks(self, source: str | Path | None = None, *, judge: Any = None, **options: Any) -> Iterator[Task | BadLine]:
        """As every environment's; `judge`, if given, is the judge from now on."""
        if judge is not None and judge != self._wanted:
            self._judge, self._wanted = judge_of(judge), judge
        return super().tasks(source, **options)

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        async with super().open(task) as session:
            yield _Asking(session, task, self)

    async def aclose(self) -> None:
        judge, self._judge = self._judge, None
        close = getattr(judge and judge.model, "aclose", None)
        if close is not None and isinstance(self._wanted, (str, Mapping)):
            await close()
        await super().aclose()


@dataclass(frozen=True, slots=True)
class _Asking:
    """A session that asks the judge where matching does not decide."""

    matching: Session
    task: Task
    env: OpenQA
    tools: Sequence[Tool] = ()
    observation: str | None = None

    async def call(self, call: ToolCall, /) -> ToolOutput:
        return await self.matching.call(call)

    async def verify(self, response: Response, /) -> Verdict:
        first = await self.matching.verify(response)
        judge, row = self.env.judge, self.task.fields
        if row.get("rubric") is not None and judge is None:
            raise VerifierFault("the row has a rubric, which only a judge can apply: --set env.judge=chat:NAME")
        if judge is None or first.reward == 1.0:
            return first
        with stage("verify", VerifierFault):
            asked = (
                self._rubric(judge, response) if row.get("rubric") is not None else self._equivalent(judge, first, response)
            )
            found = await within(self.env.limits.verify, "verify", asked)
        return verdict({**first.fields, **found, "judged_by": "judge"})

    async def _equivalent(self, judge: Judge, first: Verdict, response: Response) -> dict[str, Any]:
        row = self.task.fields
        expected = _expected(row.get("expected_answer"), row.get("metadata"))
        if _of(row.get("template_metadata"), "output_regex"):
            answer = first.fields["extracted_answer"] or ""
        else:
            answer = after_thinking(final_text(response))
        labels = EQUIVALENCE_LABELS if _of(self.env._wanted, "labels") == "nemo_gym" else EQUIVALENCE
        return await equivalent(judge, self._question(), expected, answer, template=labels)

    async def _rubric(self, judge: Judge, response: Response) -> dict[str, Any]:
        row = self.task.fields
        reference = row.get("expected_answer")
        reply = after_thinking(final_text(response))
        return await rubric(judge, self._question(), reply, row["rubric"], reference="" if reference is None else reference)

    def _question(self) -> str:
        question = self.task.fields.get("question")
        return question if isinstance(question, str) and question.strip() else prompt_text(self.task.params)


def _expected(given: Any, metadata: Any) -> str:
    expected = given if given not in (None, "") else _of(metadata, "expected_answer")
    if isinstance(expected, bool) or not isinstance(expected, (str, int, float)) or not str(expected).strip():
        raise VerifierFault(f"expected_answer is {expected!r:.200}: nothing to compare with")
    return str(expected)


def _of(mapping: Any, name: str) -> Any:
    return mapping.get(name) if isinstance(mapping, Mapping) else None


def _answer(reply: str, regex: Any) -> str | None:
    """By the row's expression (the last match, as `equivalence_llm_judge` reads it); the box; the "Answer:" line; all."""
    text = after_thinking(reply).strip()
    if regex:
        try:
            matches = list(re.finditer(regex, text, re.MULTILINE | re.DOTALL))
        except (re.error, TypeError, OverflowError) as error:
            raise VerifierFault(f"output_regex {regex!r:.200} is no regular expression: {error}") from None
        if matches:
            return (
                next((group for group in matches[-1].groups() if group and group.strip()), None) or matches[-1][0]
            ).strip()
        return text or None
    return extract(reply, "boxed") or extract(reply, "final_answer") or text or None


def _same(answer: str, gold: str) -> bool:
    if len(answer) > 4 * len(gold) + LONG:
        return False
    if same_text(answer, gold) or same_number(answer, gold) is True:
        return True
    # Articles do not matter; punctuation may where there is more than words.
    words = gold.replace(" ", "").isalpha()
    return words and squad_normalized(answer) == squad_normalized(gold) != ""
