"""Do the tokens of a model call say what its items say?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollforge.records.items import Item, item_type, text_of
from rollforge.records.rollout import Rollout
from rollforge.train.flaws import parting
from rollforge.train.forward import Forward


@dataclass(frozen=True, slots=True)
class Misread:
    text: str
    said: str
    """By the items, around the first difference; as it is, not safe to print."""
    decoded: str


def misread(items: Sequence[Item], generated: Sequence[int], rollout: Rollout, forward: Forward) -> Misread | None:
    """None if the generated tokens, read as a server reads them, are these items. White space does not count, nor how the
    JSON of arguments is written; special tokens are not text."""
    ids = list(generated)
    early = next((place for place, id in enumerate(ids[:-1]) if id in forward.eos), None)
    if early is not None:
        says = f"goes on after an ending token (generated token {early + 1} of {len(ids)})"
        return Misread(says, forward.decode(ids[: early + 1]), forward.decode(ids))
    text = forward.decode(ids[:-1] if ids[-1] in forward.eos else ids)
    stops = _stops(rollout.params)
    places = [place for place in map(text.find, stops) if place >= 0]
    if ids[-1] not in forward.eos and not places and _ended(items[-1]):
        says = "ends without an ending token, though it was not cut off"
        return Misread(says, "", text[-60:])
    text = text[: min(places)] if places else text
    if not forward.reads_calls and any(item_type(item) == "function_call" for item in items):
        return _contains(text, items)
    said, decoded = _said(items), _said(forward.chat.items(text, rollout.params, ""))
    if said == decoded:
        return None
    a, b = json.dumps(said, ensure_ascii=False), json.dumps(decoded, ensure_ascii=False)
    place = parting(a, b)
    start = max(0, place - 40)
    return Misread("its tokens do not say what its items say", a[start : place + 40], b[start : place + 40])


def _said(items: Sequence[Item]) -> list[Any]:
    """Reasoning and text as one, then the calls."""
    texts: list[str] = []
    calls: list[Any] = []
    for item in items:
        if item_type(item) == "function_call":
            calls.append([item.get("name"), _plain(item.get("arguments"))])
        elif item_type(item) == "reasoning":
            texts.append(text_of(item.get("content")) or text_of(item.get("summary")))
        else:
            texts.append(text_of(item.get("content")))
    thought = " ".join(texts).replace("<think>", " ").replace("</think>", " ")
    # A character cut in the middle is left out by some servers.
    return [" ".join(thought.split()).removesuffix("\ufffd"), calls]


def _plain(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (json.JSONDecodeError, RecursionError):
        return " ".join(arguments.split())


def _contains(text: str, items: Sequence[Item]) -> Misread | None:
    """For forms of tool calls that nobody here reads: every word of the items has to be in the text."""
    bare = "".join(text.split())
    for part in _parts(_said(items)):
        if "".join(part.split()) not in bare:
            return Misread("its tokens do not say what its items say", part, text[:200])
    return None


def _parts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [part for key, one in value.items() for part in (str(key), *_parts(one))]
    if isinstance(value, list):
        return [part for one in value for part in _parts(one)]
    return [value if isinstance(value, str) else json.dumps(value)]


def _stops(params: Mapping[str, Any]) -> list[str]:
    stop = params.get("stop") or ()
    return [stop] if isinstance(stop, str) else [str(text) for text in stop if text]


def _ended(item: Item) -> bool:
    """Reasoning with nothing behind it was cut off, whatever its status."""
    return item.get("status") == "completed" and item_type(item) != "reasoning"
