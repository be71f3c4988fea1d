"""A stored rollout as an agent: its tool calls again, in order, and then the answer it had.

What the environment shows and answers is compared with what it did: a state that was not reproduced must not be judged.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from rollforge.agents.episode import shortened
from rollforge.collect.rollout import OBSERVED
from rollforge.envs.base import Env, Limits, Session, Step, ToolCall
from rollforge.errors import SetupError, VerifierFault
from rollforge.models.base import Model, Request
from rollforge.records.items import (
    Item,
    Params,
    Response,
    input_items,
    item_type,
    model_calls,
    prompt_text,
    text_of,
    tool_name,
)
from rollforge.records.lossless import loads
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task

SHOWN = 100
"""Characters of what differs."""


@dataclass(frozen=True, slots=True)
class Stored(Task):
    """A task with the attempt at it that is judged again."""

    rollout: Rollout | None = None
    place: tuple[str, int] = ("", 0)
    own: bool = False
    """Whether `params` are known to be the task's own, without what the environment had shown."""
    differs: list[str] = field(default_factory=list)
    """In what the replay left the stored conversation, if it was let."""


async def no_model(request: Request, /) -> Response:
    """The model beside a `Replay`."""
    raise SetupError("a stored rollout has its answers already: nobody asks a model")


@dataclass(frozen=True, slots=True)
class Opening:
    """The environment for stored rollouts. Rows that do not say what of their prompt it had shown are opened twice: first to
    see it, then with the prompt that the task had."""

    env: Env

    @property
    def limits(self) -> Limits | None:
        return getattr(self.env, "limits", None)

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        assert isinstance(task, Stored)
        if not task.own:
            async with self.env.open(task) as session:
                seen = session.observation
                if not seen or not prompt_text(task.params).endswith(seen):
                    yield session
                    return
            task = replace(task, params=unshown(task.params, len(seen)))
        async with self.env.open(task) as session:
            yield session


class Replay:
    """The agent that has played already: makes the stored tool calls again, in order, and says what was said."""

    def __init__(self, replay: bool, force: bool, remedy: str = "") -> None:
        self._replay = replay
        self._force = force
        self._remedy = remedy
        """What to do where the state is not reproduced, for the message."""

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        """Raises `VerifierFault` at the first thing that the environment shows or answers otherwise than is stored."""
        assert isinstance(task, Stored)
        assert task.rollout is not None
        response = task.rollout.response
        assert response is not None
        step = getattr(session, "step", None)
        known = self._replay and session.observation is not None and OBSERVED in task.rollout.extra
        if (step is not None or known) and said(task.params) != said(task.rollout.params):
            self._note(task, "opening it", session.observation or "", prompt_text(task.rollout.params)[-SHOWN:])
        if step is not None:  # judged as it goes: without the steps there is nothing to judge
            # What was collected elsewhere has no `seconds`. An environment that reads its state from such a prompt shows
            # nothing on opening, and has other words for what the row says.
            worded = bool(task.rollout.seconds) or session.observation is not None
            await self._take_steps(task, step, response["output"], worded)
        elif self._replay and session.tools:
            await self._call_tools(task, session, response["output"])
        return response

    async def _take_steps(self, task: Stored, step: Any, items: list[Item], compared: bool) -> None:
        turns = _turns(items)
        for number, (made, answered) in enumerate(turns, 1):
            found: Step = await step({"output": made})
            if compared and not _same_step(answered, found, last=number == len(turns)):
                shown = [text for _, text in found.outputs] + [found.observation or ""]
                self._note(task, f"step {number}", " ".join(shown), " ".join(map(_text, answered)))

    async def _call_tools(self, task: Stored, session: Session, items: list[Item]) -> None:
        declared = {tool_name(tool) for tool in task.params.get("tools") or []}
        waiting: dict[str, list[Item]] = {}  # some servers give one id to several calls of an answer
        for item in items:
            if item.get("type") == "function_call":
                waiting.setdefault(str(item.get("call_id")), []).append(item)
            elif item.get("type") == "function_call_output":
                calls = waiting.get(str(item.get("call_id")))
                made = _made(calls.pop(0), declared) if calls else None
                if made is None:
                    continue  # answered by the loop: it never came to the environment
                found = (await session.call(made)).text
                if not _same(_text(item), found):
                    self._note(task, f"{made.name}({dict(made.arguments)!r:.100})", found, _text(item))

    def _note(self, task: Stored, what: str, found: str, stored: str) -> None:
        differs = f"{what} gave {found!r:.{SHOWN}}, it was {stored!r:.{SHOWN}}"
        if self._force:
            task.differs.append(differs)
            return
        error = VerifierFault(f"state not reproduced: {differs}{self._remedy}")
        error.stage = "tools"
        raise error


def said(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the policy was asked, however it is written: who said what."""
    return [(item.get("role") or item_type(item), text_of(item.get("content"))) for item in input_items(params)]


def unshown(params: Params, size: int) -> Params:
    """The prompt without the last `size` characters, which the environment had added to it or had said in a message."""
    items = input_items(params)
    if not size or not items:
        return params
    content: Any = items[-1].get("content")
    text = text_of(content)
    if isinstance(content, list) and len(content) > 1 and len(text_of(content[-1:])) == size:
        items[-1] = {**items[-1], "content": content[:-1]}
    elif len(text) == size:
        items.pop()
    elif len(text) > size and (isinstance(content, str) or all("text" in part for part in content)):
        items[-1] = {**items[-1], "content": text[:-size]}
    return {**params, "input": items}


def _turns(items: Sequence[Item]) -> list[tuple[list[Item], list[Item]]]:
    """Each model call, and what the environment said to it."""
    turns: list[tuple[list[Item], list[Item]]] = [(call_items, []) for call_items in model_calls(items)]
    of_call = {id(item): number for number, (call_items, _) in enumerate(turns) for item in call_items}
    number = -1
    for item in items:
        number = of_call.get(id(item), number)
        if id(item) not in of_call and number >= 0:
            turns[number][1].append(item)
    return turns


def _same_step(stored: Sequence[Item], found: Step, last: bool) -> bool:
    """NeMo Gym's agent does not store what the last step of an episode says."""
    outputs = [(item.get("call_id"), _text(item)) for item in stored if item.get("type") == "function_call_output"]
    observed = "".join(_text(item) for item in stored if item.get("type") != "function_call_output")
    untold = last and (found.terminated or found.truncated)
    answered = len(outputs) == len(found.outputs) and all(
        call_id == id_now and _same(text, now) for (call_id, text), (id_now, now) in zip(outputs, found.outputs, strict=True)
    )
    seen = _same(observed, found.observation or "")
    return (answered or (untold and not outputs)) and (seen or (untold and not observed))


def _made(call: Item, declared: set[Any]) -> ToolCall | None:
    """The call as the tool loop passed it on; None if it did not."""
    arguments = call.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments)
        except (ValueError, RecursionError):
            return None
    if call["name"] not in declared or not isinstance(arguments, dict):
        return None
    return ToolCall(call["name"], arguments, str(call.get("call_id") or ""))


def _same(stored: str, found: str) -> bool:
    """Also where the loop had cut the text, and for the same JSON written otherwise."""
    if stored == found:
        return True
    cut = _CUT.search(stored)
    if cut:
        return shortened(found, int(cut[1])) == stored
    try:
        return bool(loads(stored) == loads(found))
    except (ValueError, RecursionError):
        return False


_CUT = re.compile(r"\n\[cut: \d+ characters, (\d+) shown\]\Z")


def _text(item: Item) -> str:
    """Of what an environment said: a tool's output, or a message."""
    return text_of(item.get("output") if item.get("type") == "function_call_output" else item.get("content"))
