"""Answers as they are being made: deltas, and at last the whole response.

A model that can stream has `stream(request)`, which yields what this module's `stream` yields; any other is awaited, and its
answer replayed. The whole response is what counts: deltas are for whoever watches. They come in the order of its output,
except that what a server says out of order (or in another form than it will have) is only in the response.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from rollforge.errors import InfraFault
from rollforge.models.base import Model, Request
from rollforge.records.items import Item, Response, assistant, function_call, item_type, text_of
from rollforge.records.lossless import loads
from rollforge.records.problem import FAULTS, raised


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer."""

    kind: Literal["text", "reasoning", "call", "arguments", "item"]
    """call: a function call begins; arguments: a piece of its arguments; item: one is complete (not all models say so)."""
    text: str
    index: int
    """Of the item in the output."""
    call_id: str = ""
    name: str = ""
    """Of the function that is called."""
    id: str = ""
    """Of the item, where the server has named it already."""
    item: Item = field(default_factory=dict)
    """The complete one, of kind item."""


BROKEN_OFF = "broken_off"
"""Why an answer is incomplete of which the caller wanted no more."""
Events: TypeAlias = AsyncGenerator[Delta | Response, None]


async def stream(model: Model, request: Request) -> Events:
    """Deltas, then the Response. Raises as the model does; the consumer closes it (`aclosing`) to give the call up."""
    own = getattr(model, "stream", None)
    if own is None:
        response = await model(request)
        for delta in deltas(response):
            yield delta
        yield response
        return
    async with aclosing(own(request)) as events:
        async for event in events:
            yield event


def broken_off(error: Any, source: str) -> Exception:
    """What an error in the middle of a stream means; one of a service of this package keeps its name."""
    told = error if isinstance(error, dict) else {"message": error}
    text = f"{source} broke its answer off with an error: {told.get('message')!s:.500}"
    for name in (told.get("type"), told.get("code")):
        if isinstance(name, str) and name in FAULTS:
            return raised(500, {"error": {**told, "type": name, "message": text}}, source)
    return InfraFault(text)


def deltas(response: Response) -> Iterator[Delta]:
    """A whole answer in one piece per item."""
    for index, item in enumerate(response.get("output") or []):
        kind, id = item_type(item), str(item.get("id") or "")
        if kind == "message":
            yield Delta("text", text_of(item.get("content")), index, id=id)
        elif kind == "reasoning":
            yield Delta("reasoning", text_of(item.get("content")) or text_of(item.get("summary")), index, id=id)
        elif kind == "function_call":
            call = str(item.get("call_id") or "")
            yield Delta("call", "", index, call, item["name"], id)
            yield Delta("arguments", str(item.get("arguments") or ""), index, call, id=id)
        yield Delta("item", "", index, item=item)


def so_far(told: Iterable[Delta]) -> Response:
    """The answer of which no more than these deltas was wanted: a call whose arguments are not all there is left out."""
    begun: dict[int, Delta] = {}
    texts: dict[int, str] = {}
    items: dict[int, Item] = {}
    for delta in told:
        if delta.kind == "item":
            items[delta.index] = delta.item
        else:
            begun.setdefault(delta.index, delta)
            texts[delta.index] = texts.get(delta.index, "") + delta.text
    found = (items.get(index) or _part(begun[index], texts[index]) for index in sorted({*begun, *items}))
    output = [item for item in found if item is not None]
    return {"output": output, "status": "incomplete", "incomplete_details": {"reason": BROKEN_OFF}, "usage": None}


def _part(delta: Delta, text: str) -> Item | None:
    if delta.kind == "text" and text:
        return assistant(text, delta.id or f"msg_{delta.index}") | {"status": "incomplete"}
    if delta.kind == "reasoning" and text:
        summary = [{"type": "summary_text", "text": text}]
        return {"type": "reasoning", "id": delta.id or f"rs_{delta.index}", "summary": summary}
    try:
        whole = delta.kind == "call" and isinstance(loads(text), dict)
    except ValueError:
        return None
    return function_call(delta.name, text, delta.call_id, delta.id or None) if whole else None
