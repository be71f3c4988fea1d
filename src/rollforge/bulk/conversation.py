"""Items to chat messages at the speed of the decoder, for the conversations that nearly all rows hold.

`records.messages` is the reference and knows every shape. Here items are decoded into structs that know the usual types
only; a conversation with others (images, refusals, unknown items) is answered with None, and the reference does it.
Only what trainers know is kept, by both: keys that somebody's server added would turn up as columns of nulls in the
next row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec
import orjson

from rollforge.errors import UserError
from rollforge.records.items import Item as RawItem
from rollforge.records.items import Json, item_type, text_of
from rollforge.records.messages import Dialect, as_items, text_or_json

_NOTHING = msgspec.Raw()


class Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None


Content: TypeAlias = str | list[Part] | None


class Item(msgspec.Struct, gc=False):
    type: str | None = None
    role: str | None = None
    content: Content = None
    summary: list[Part] | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: Content = None
    status: str | None = None
    error: msgspec.Raw = _NOTHING
    generation_token_ids: msgspec.Raw = _NOTHING
    # What a chat message has that stands among items: the reference's.
    tool_calls: Any = None
    function_call: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None

    @property
    def kind(self) -> str:
        """Messages may leave `type` out; they have a role."""
        return self.type or ("message" if self.role is not None else "")

    @property
    def said(self) -> bool:
        """Whether it is a message of the model's."""
        return self.kind == "message" and (self.role or "assistant") == "assistant"


def model_calls(items: Iterable[Item]) -> int:
    """So many as `records.items.model_calls` finds."""
    count, ended = 0, True
    for item in items:
        if item.type == "function_call_output" or item.role not in (None, "assistant"):
            ended = True
            continue
        count += ended
        ended = bool(item.generation_token_ids)
    return count


def has_refusal(items: Iterable[Item]) -> bool:
    """Whether a refusal is among what was said."""
    contents = (item.content for item in items if isinstance(item.content, list))
    return any(part.type == "refusal" for content in contents for part in content)


MESSAGE_KEYS = ("role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "tool_call_id", "name")


_INPUT = msgspec.json.Decoder(str | list[Item])


def input_chat(raw: msgspec.Raw, dialect: Dialect) -> list[Json] | None:
    """`responses_create_params.input` as chat messages; None where the reference must do it."""
    try:
        found = _INPUT.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return [{"role": "user", "content": found}] if isinstance(found, str) else output_chat(found, dialect)


def output_chat(items: list[Item], dialect: Dialect) -> list[Json] | None:
    """A response's items as chat messages; None where the reference must do it."""
    found = turns(items, dialect)
    return None if found is None else [_message(turn, dialect) for turn in found]


def last_turn(items: list[Item]) -> list[Item] | None:
    """The items that the last assistant message is made of; None where the reference must say what is wrong."""
    start = end = 0
    for place, item in enumerate(items):
        kind = item.type or ("message" if item.role is not None else "")
        if kind == "function_call_output" or (kind == "message" and (item.role or "assistant") != "assistant"):
            continue
        if not (kind == "reasoning" or kind == "message" or (kind == "function_call" and item.name is not None)):
            return None
        if _says_more(item):
            return None
        if end < place:
            start = place
        end = place + 1
    return items[start:end]


def items_of(output: Sequence[RawItem]) -> list[Item]:
    """Any items, read leniently; a chat message among them is the items that it stands for."""
    with suppress(UserError):  # with calls that are none it stays what it is
        output = as_items(output)
    return [item_of(item) for item in output]


def item_of(item: Json) -> Item:
    """Any item, read leniently."""
    content = item.get("content")
    return Item(
        type=item_type(item),
        role=item.get("role", "assistant" if item_type(item) == "message" else None),
        content=[_part_of(part) for part in content] if isinstance(content, list) else text_of(content),
        summary=[Part(text=text_of(item.get("summary")))],
        name=item.get("name") if isinstance(item.get("name"), str) else None,
        call_id=text_or_json(item.get("call_id")),
        arguments=text_or_json(item.get("arguments")),
        output=text_of(item.get("output")),
        status=item["status"] if isinstance(item.get("status"), str) else None,
        error=msgspec.Raw(b"true") if item.get("error") else _NOTHING,
        generation_token_ids=msgspec.Raw(b"[]") if item.get("generation_token_ids") else _NOTHING,
    )


def _part_of(part: Any) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    return Part(kind if isinstance(kind, str) else None, text_of([part]))


def all_text(content: Content) -> str:
    """The text of all parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return content[0].text or "" if len(content) == 1 else "".join([part.text or "" for part in content])


_SUSPICIOUS = frozenset("eET{")


def is_error(item: Item) -> bool:
    """Whether a tool's output is an error: it says so (`error`, `status`), or its text is a JSON object with a truthy
    `error`, only a `detail` (what FastAPI answers), or begins with "Error" or a Python traceback."""
    if item.status in ("failed", "incomplete") or (item.error and bytes(item.error) not in _FALSY):
        return True
    output = item.output
    text = (output if isinstance(output, str) else all_text(output)).lstrip()
    if text[:1] not in _SUSPICIOUS:
        return False
    if text[:5].lower() == "error" or text.startswith("Traceback (most recent call last)"):
        return True
    if not text.startswith("{") or ('"error"' not in text and '"detail"' not in text):
        return False
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and (bool(value.get("error")) or value.keys() == {"detail"})


_FALSY = (b"null", b"false", b'""', b"0", b"{}", b"[]")


class Turn(msgspec.Struct, gc=False):
    """A chat message before it is written as one."""

    role: str | None
    content: Any
    calls: Sequence[Item] = ()
    thought: str | None = None
    """Reasoning that the dialect keeps apart."""
    answers: str | msgspec.UnsetType | None = msgspec.UNSET
    """The call whose output this is."""
    refusal: str | None = None


def turns(items: list[Item], dialect: Dialect) -> list[Turn] | None:
    """Items put together as `records.messages` does; None where the reference must do it."""
    if dialect.tokens or not dialect.flat:
        return None
    found: list[Turn] = []
    # What one model call said, as `records.messages.Turn` puts it together.
    thoughts: list[str] = []
    told: str | None = None
    calls: list[Item] = []
    tokens = started = False
    for item in items:
        kind = item.type or ("message" if item.role is not None else "")
        said = kind == "reasoning" or (kind == "message" and (item.role or "assistant") == "assistant")
        if said or kind == "function_call":
            if started and not calls and (tokens or (said and told is not None)):
                found.append(_turn(thoughts, told, [], dialect))
                thoughts, told, tokens = [], None, False
            started = True
            if item.generation_token_ids:
                tokens = True
            if kind == "function_call":
                if item.name is None or item.role or item.content or item.summary or item.output:
                    return None
                calls.append(item)
            elif kind == "reasoning":
                if item.content or item.summary:
                    thoughts.append(all_text(item.content) or all_text(item.summary))
            else:
                text = _text(item.content)
                if _says_more(item):
                    return None
                if text is None or item.name or item.call_id or item.arguments or item.output or item.summary:
                    return None
                if not told:
                    told = text
                elif text:
                    told = f"{told}\n{text}"
            continue
        text = _text(item.content if kind == "message" else item.output)
        if text is None or item.generation_token_ids or item.name or item.arguments or item.summary:
            return None
        if started:
            found.append(_turn(thoughts, told, calls, dialect))
            thoughts, told, calls, tokens, started = [], None, [], False, False
        if kind == "message":
            if item.call_id or item.output or item.role == "tool":
                return None
            found.append(Turn(dialect.developer if item.role == "developer" else item.role, text))
        elif kind == "function_call_output":
            if item.role or item.content:
                return None
            found.append(Turn("tool", text, answers=item.call_id))
        else:
            return None
    if started:
        found.append(_turn(thoughts, told, calls, dialect))
    return found


def is_chat(item: Item) -> bool:
    """Whether only the reference knows which items it stands for."""
    return item.role == "tool" or (item.role == "assistant" and _says_more(item))


def _says_more(item: Item) -> bool:
    """Whether it has keys of a chat message's, empty ones too: the reference keeps them."""
    return (item.tool_calls, item.function_call, item.reasoning_content, item.reasoning, item.refusal) != _NO_MORE


_NO_MORE = (None,) * 5


def turn_of(message: Json) -> Turn:
    """A chat message of the reference's."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    said = [Item(name=call["name"], arguments=call["arguments"]) for call in calls]
    return Turn(message.get("role"), message.get("content"), said, refusal=message.get("refusal"))


def _turn(thoughts: list[str], told: str | None, calls: list[Item], dialect: Dialect) -> Turn:
    if not thoughts:
        return Turn("assistant", told or "", calls)
    thought = "\n\n".join(thoughts)
    if dialect.reasoning == "think":
        end = "</think>" if told is not None or calls else ""
        return Turn("assistant", f"<think>{thought}{end}{told or ''}", calls)
    return Turn("assistant", told or "", calls, None if dialect.reasoning == "none" else thought)


def _message(turn: Turn, dialect: Dialect) -> Json:
    if turn.answers is not msgspec.UNSET:
        return {"role": turn.role, "tool_call_id": turn.answers, "content": turn.content}
    message: Json = {"role": turn.role, "content": turn.content}
    if turn.thought is not None:
        message[dialect.reasoning] = turn.thought
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or ""}}
            for call in turn.calls
        ]
    return message


_TEXTS = frozenset(("output_text", "input_text", "text"))


def _text(content: Content) -> str | None:
    """None where there is more than text."""
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if (part.type not in _TEXTS) if part.type else part.text is None:
            return None
    return content[0].text or "" if len(content) == 1 else "".join([part.text or "" for part in content])
