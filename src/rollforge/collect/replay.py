"""A stored rollout as an agent: its tool calls again, in order, and then the answer it had.

What the tools say is compared with what they said: a state that was not reproduced must not be judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from rollforge.agents.episode import shortened
from rollforge.agents.tool_loop import tool_name
from rollforge.envs.base import Session, ToolCall
from rollforge.errors import SetupError, VerifierFault
from rollforge.models.base import Model, Request
from rollforge.records.items import Item, Response, model_calls, text_of
from rollforge.records.lossless import loads
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task


@dataclass(frozen=True, slots=True)
class Stored(Task):
    """A task with the attempt at it that is judged again."""

    rollout: Rollout | None = None
    place: tuple[str, int] = ("", 0)
    differs: list[str] = field(default_factory=list)
    """In what the replay left the stored conversation, if it was let."""


async def no_model(request: Request, /) -> Response:
    """The model beside a `Replay`."""
    raise SetupError("a stored rollout has its answers already: nobody asks a model")


class Replay:
    """The agent that has played already: makes the stored tool calls again, in order, and says what was said."""

    def __init__(self, replay: bool, force: bool) -> None:
        self._replay = replay
        self._force = force

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        """Raises `VerifierFault` at the first output that is another one than the stored."""
        assert isinstance(task, Stored)
        assert task.rollout is not None
        response = task.rollout.response
        assert response is not None
        step = getattr(session, "step", None)
        if step is not None:  # judged as it goes: without the steps there is nothing to judge
            for call_items in model_calls(response["output"]):
                await step({"output": call_items})
            return response
        if not (self._replay and session.tools):
            return response
        declared = {tool_name(tool) for tool in task.params.get("tools") or []}
        waiting: dict[str, Item] = {}
        for item in response["output"]:
            if item.get("type") == "function_call":
                waiting[str(item.get("call_id"))] = item
            elif item.get("type") == "function_call_output":
                call = waiting.pop(str(item.get("call_id")), None)
                made = _made(call, declared) if call else None
                if made is None:
                    continue  # answered by the loop: it never came to the environment
                found = (await session.call(made)).text
                stored = item.get("output")
                if not _same(stored if isinstance(stored, str) else text_of(stored), found):
                    self._note(task, made, text_of(stored), found)
        return response

    def _note(self, task: Stored, call: ToolCall, stored: str, found: str) -> None:
        what = f"{call.name}({dict(call.arguments)!r:.100}) gave {found!r:.100}, it was {stored!r:.100}"
        if self._force:
            task.differs.append(what)
            return
        error = VerifierFault(f"state not reproduced: {what}; --force takes the verdict all the same")
        error.stage = "tools"
        raise error


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
