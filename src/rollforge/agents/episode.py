"""What every loop needs: an episode under way, the items of one model call, and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollforge.errors import InfraFault
from rollforge.models.base import Model, Request
from rollforge.records.items import Item, Response, Usage, add_usage, check_items, input_items, inside, text_of
from rollforge.records.task import Task


class Episode:
    """A task that a model is at work on."""

    def __init__(self, task: Task, model: Model) -> None:
        self._params = task.params
        self._model = model
        self._prompt = input_items(task.params)
        self.output: list[Item] = []
        """What it said and was told, in order."""
        self.tokens = 0
        """Generated so far."""
        self.last: Response = {}
        """The last answer."""
        self._usage: Usage | None = None

    async def ask(self) -> list[Item]:
        """The model's next items, which are part of the output."""
        answer = await self._model(Request({**self._params, "input": self._prompt + self.output}))
        new = answer_items(answer, len(self.output))
        self.last = answer
        self.output += new
        self._usage = add_usage(self._usage, answer.get("usage"))
        self.tokens += _generated(answer, new)
        return new

    def response(self, reason: str | None = None) -> Response:
        """Of the whole episode; `reason` says why it was cut."""
        response: Response = {**self.last, "output": self.output, "usage": self._usage}
        if reason is not None:
            response["status"], response["incomplete_details"] = "incomplete", {"reason": reason}
        return response


def answer_items(response: Any, before: int) -> list[Item]:
    """The items of a model's answer, every call with an id of its own. Copies where one had none: the model may keep its
    own."""
    if not isinstance(response, dict):
        raise InfraFault(f"the model returned {type(response).__name__}, not a response")
    if response.get("status") in ("failed", "cancelled"):
        raise InfraFault(
            f"the model's answer has the status {response['status']}: {response.get('error') or 'no reason given'}"
        )
    items = response.get("output") or []
    problem = check_items(items, "output")
    if problem:
        raise InfraFault(f"the model's answer cannot be used: {problem}")
    found: list[Item] = []
    seen = set[str]()
    for number, item in enumerate(items, before):
        if item.get("type") == "function_call":
            call_id = item.get("call_id") or item.get("id") or f"call_{number}"
            call_id = f"{call_id}_{number}" if str(call_id) in seen else call_id
            seen.add(str(call_id))
            item = item if call_id == item.get("call_id") else {**item, "call_id": call_id}
        found.append(item)
    return found


def shortened(text: str, most: int) -> str:
    """A tool's output as the policy is shown it."""
    return text if len(text) <= most else f"{text[:most]}\n[cut: {len(text)} characters, {most} shown]"


def _generated(response: Response, items: Sequence[Item]) -> int:
    """Tokens of one answer: as its usage says, else counted, else estimated (four characters each)."""
    count = inside(response, "usage", "output_tokens")
    if isinstance(count, (int, float)):
        return int(count)
    counted = sum(len(item.get("generation_token_ids") or ()) for item in items)
    texts = (
        text_of(item.get("content")) + text_of(item.get("summary")) + str(item.get("arguments") or "") for item in items
    )
    return counted or sum(map(len, texts)) // 4
