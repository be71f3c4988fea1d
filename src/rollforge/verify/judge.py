"""A model as judge. `Judge` owns what its calls share (memory, budget, places); the functions beneath ask it things.

question ─► prompt ─► remembered? ─► budget ─► a place ─► model ─► label of the last line ─► worth
                                                  └ no label: asked again, at most `tries` times ─► JudgeFault

A verdict that could not be had is a `JudgeFault`, never 0. How material is kept from speaking to it: `judge_prompt`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, SetupError, short
from rollforge.models.base import Model, Request
from rollforge.records.items import Json, Response, final_text, inside, user
from rollforge.sandbox.deadline import queued, within
from rollforge.sandbox.slots import Slots
from rollforge.verify.answer import after_thinking
from rollforge.verify.judge_prompt import Template, plain_material, prompt, verdict_label

T = TypeVar("T")

SHOWN = 2000
"""Characters of a judge's reasons that are kept with a verdict."""

EQUIVALENCE = Template(
    "Decide whether a candidate's answer to a question is equivalent to the reference answer.\n"
    "The reference is right, whatever you think of it. Equivalent are other words, notations, units and forms of the same "
    "answer, and a more exact one that includes it. Not equivalent are an answer that lacks an essential part of the "
    "reference, contradicts it, or offers several answers of which one is right. Reasons and style do not count.",
    {"EQUIVALENT": 1.0, "DIFFERENT": 0.0},
)
EQUIVALENCE_LABELS = Template(EQUIVALENCE.task, {"[[A=B]]": 1.0, "[[A!=B]]": 0.0}, coded=False)
"""With the labels of NeMo Gym's `equivalence_llm_judge`, for judges that were trained on them."""
PREFERENCE = Template(
    "Decide which of two replies to a request serves it better.\n"
    "Correctness comes first, then completeness, then clarity. Length, order and confidence do not count.",
    {"A": 1.0, "B": 0.0, "TIE": 0.5},
    mirrored=True,
)
SCORE = Template(
    "Grade a reply to a request from 1 to 5.\n"
    "5: right and complete. 4: right, with a small gap. 3: partly right. 2: mostly wrong. 1: wrong or beside the point. "
    "If there is a reference, it is right. Length, style and confidence do not count.",
    {"1": 0.0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1.0},
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer of a judge."""

    label: str
    worth: float
    text: str
    """Its reasons, cut if they are long."""


@dataclass(slots=True)
class Spent:
    calls: int = 0
    tokens: int = 0
    remembered: int = 0
    """Questions that were answered from memory."""


@dataclass(kw_only=True, eq=False)
class Judge:
    """A model that is asked for verdicts.

    The same question is asked once: answers are remembered, as many as `memory`, while the object lives. Budgets are per
    object too: when one is spent, no further rollout can be judged: a `SetupError`, which ends the run, not an attempt.
    """

    model: Model
    votes: int = 1
    """Opinions per verdict, odd: of yes-or-no questions the majority, of others the mean."""
    swap: bool = False
    """Ask with the two sides exchanged too: yes needs both, a preference is their mean."""
    tries: int = 3
    """How often it is asked when its answer ends with no verdict."""
    seconds: float = 60.0
    """Deadline of one call."""
    concurrency: int = 64
    """Calls in flight."""
    max_calls: int | None = None
    max_tokens: int | None = None
    """Of prompts and answers, by the judge's usage; calls in flight are let finish."""
    memory: int = 10_000
    params: Mapping[str, Any] = field(default_factory=dict)
    """Sampling and other parameters of its requests."""
    spent: Spent = field(default_factory=Spent, init=False)

    def __post_init__(self) -> None:
        if self.votes < 1 or self.votes % 2 == 0:
            raise ValueError(f"votes is {self.votes}; an odd number has a majority")
        if self.tries < 1 or self.concurrency < 1:
            raise ValueError("tries and concurrency are at least 1")
        self._answers: OrderedDict[str, Opinion] = OrderedDict()
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._places = Slots(self.concurrency)

    async def ask(self, template: Template, material: Mapping[str, str], draw: int = 0) -> Opinion:
        """One opinion; another `draw`, another one. Raises `JudgeFault`, or `SetupError` when the budget is spent."""
        key = prompt(template, material, draw).digest
        lock = self._asking.setdefault(key, asyncio.Lock())
        async with lock:  # who has the same question waits for its answer
            known = self._answers.get(key)
            if known is not None:
                self._answers.move_to_end(key)
                self.spent.remembered += 1
                return known
            found = await self._asked(template, material, draw)
            self._answers[key] = found
            while len(self._answers) > self.memory:
                self._answers.popitem(last=False)
            return found

    async def _asked(self, template: Template, material: Mapping[str, str], draw: int) -> Opinion:
        said = ""
        for number in range(self.tries):
            ask = prompt(template, material, draw + 1000 * number)
            params: Any = {**self.params, "input": [user(ask.text)]}
            request = Request(params, rollout=f"judge-{ask.code}", index=draw, seed=int(ask.code[:7], 16))
            response = await self._call(request)
            said = after_thinking(final_text(response)).strip()
            label = verdict_label(template, response, ask.code)
            if label is not None:
                return Opinion(label, template.labels[label], said[:SHOWN])
        labels = ", ".join(template.labels)
        raise JudgeFault(f"the judge gave no verdict ({labels}) in {self.tries} answers; the last ends: {said[-200:]!r}")

    async def _call(self, request: Request) -> Response:
        places = self._places.here()
        async with queued():
            await places.acquire()
        try:
            self._check_budget()
            self.spent.calls += 1
            response = await within(self.seconds, "the judge", self.model(request))
        except (InfraFault, DeadlineExceeded) as error:
            raise JudgeFault(f"the judge did not answer: {short(error)}") from error
        finally:
            places.release()
        if not isinstance(response, dict):
            raise JudgeFault(f"the judge returned {type(response).__name__}, not a response")
        tokens = inside(response, "usage", "total_tokens")
        self.spent.tokens += tokens if isinstance(tokens, int) else len(str(request.params["input"])) // 4
        return response

    def _check_budget(self) -> None:
        for name, limit, used in (
            ("calls", self.max_calls, self.spent.calls),
            ("tokens", self.max_tokens, self.spent.tokens),
        ):
            if limit is not None and used >= limit:
                raise SetupError(f"the judge's budget of {limit} {name} is spent; raise max_{name}, and go on")


async def judged(
    judge: Judge, template: Template, material: Mapping[str, str], swapped: Mapping[str, str] | None = None
) -> Json:
    """The verdict on `material` as `{reward, judge_evaluations}`: by the judge's votes, each with `swapped` if the judge is
    told to exchange the sides and there are two."""
    opinions: list[tuple[Opinion, bool]] = []
    worths: list[float] = []
    for draw in range(judge.votes):
        worths.append(await _vote(judge, template, material, swapped if judge.swap else None, draw, opinions))
        if template.binary and abs(2 * sum(worths) - len(worths)) > judge.votes - len(worths):
            break  # the rest could not turn it
    mean = sum(worths) / len(worths)
    kept = [{"verdict_label": one.label, "swapped": turned, "text": one.text} for one, turned in opinions]
    return {"reward": float(mean > 0.5) if template.binary else mean, "judge_evaluations": kept}


async def _vote(
    judge: Judge,
    template: Template,
    material: Mapping[str, str],
    swapped: Mapping[str, str] | None,
    draw: int,
    opinions: list[tuple[Opinion, bool]],
) -> float:
    first = await judge.ask(template, material, draw)
    opinions.append((first, False))
    if swapped is None or (template.binary and first.worth == 0):
        return first.worth
    second = await judge.ask(template, swapped, draw)
    opinions.append((second, True))
    if template.binary:
        return min(first.worth, second.worth)
    return (first.worth + (1 - second.worth if template.mirrored else second.worth)) / 2


async def equivalent(
    judge: Judge, question: str, expected: str, answer: str, *, template: Template = EQUIVALENCE
) -> dict[str, Any]:
    """1 if the judge holds an answer equivalent to the expected one, else 0. An empty answer is 0 without asking."""
    if not answer.strip():
        return {"reward": 0.0, "judge_evaluations": []}
    material = plain_material(question=question, reference=expected, candidate=answer)
    return await judged(judge, template, material, plain_material(question=question, reference=answer, candidate=expected))


async def preferred(judge: Judge, request: str, a: str, b: str, *, template: Template = PREFERENCE) -> dict[str, Any]:
    """1 if reply `a` is better than `b`, 0 if worse, 0.5 for a tie. An empty reply loses without asking."""
    if not (a.strip() and b.strip()):
        return {"reward": (bool(a.strip()) - bool(b.strip()) + 1) / 2, "judge_evaluations": []}
    material = plain_material(request=request, reply_a=a, reply_b=b)
    return await judged(judge, template, material, plain_material(request=request, reply_a=b, reply_b=a))


async def scored(
    judge: Judge, request: str, reply: str, *, reference: str = "", template: Template = SCORE
) -> dict[str, Any]:
    """What the judge's grade of a reply is worth, 0 to 1. An empty reply is 0 without asking."""
    if not reply.strip():
        return {"reward": 0.0, "judge_evaluations": []}
    return await judged(judge, template, plain_material(request=request, reference=reference, reply=reply))


async def together(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all; the first that fails ends the others, and is raised itself."""
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(one)) for one in awaitables]
    except BaseExceptionGroup as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]


async def _awaited(one: Awaitable[T]) -> T:
    return await one
