"""Items to chat messages at the speed of the decoder, for the conversations that nearly all rows hold.

`records.messages` is the reference and knows every shape. Here items are decoded into structs that know the usual types
only; a conversation with others (images, refusals, unknown items) is answered with None, and the reference does it.
Only what trainers know is kept, by both: keys that somebody's server added would turn up as columns of nulls in the
next row.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import orjson

from rollforge.records.items import Json, item_type, text_of
from rollforge.records.lossless import dumps
from rollforge.records.messages import Dialect

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

    @property
    def kind(self) -> str:
        """Messages may leave `type` out; they have a role."""
        return self.type or ("message" if self.role is not None else "")

    @property
    def said(self) -> bool:
        """Whether it is a message of the model's."""
        return self.kind == "message" and (self.role or "assistant") == "assistant"


MESSAGE_KEYS = ("role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "tool_call_id", "name")


_INPUT = msgspec.json.Decoder(str | list[Item])


def input_chat(raw: msgspec.Raw, dialect: Dialect) -> list[Json] | None:
    """`responses_create_params.input` as chat messages; None where the reference must do it."""
    try:
        found = _INPUT.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return [{"role": "user", "content": found}] if isinstance(found, str) else _chat(found, dialect)


def output_chat(items: list[Item], dialect: Dialect) -> list[Json] | None:
    """A response's items as chat messages; None where the reference must do it."""
    return _chat(items, dialect)


def last_turn(items: list[Item]) -> list[Item] | None:
    """The items that the last assistant message is made of; None where the reference must say what is wrong."""
    start = end = 0
    for place, item in enumerate(items, 1):
        kind = item.kind
        if kind not in _KINDS or (kind == "function_call" and item.name is None):
            return None
        if kind == "function_call_output" or (kind == "message" and (item.role or "assistant") != "assistant"):
            continue
        if end < place - 1:
            start = place - 1
        end = place
    return items[start:end]


_KINDS = frozenset(("message", "reasoning", "function_call", "function_call_output"))


def item_of(item: Json) -> Item:
    """Any item, read leniently."""
    arguments = item.get("arguments")
    return Item(
        type=item_type(item),
        role=item.get("role", "assistant" if item_type(item) == "message" else None),
        content=text_of(item.get("content")),
        summary=[Part(text=text_of(item.get("summary")))],
        name=item.get("name") if isinstance(item.get("name"), str) else None,
        call_id=str(item["call_id"]) if item.get("call_id") is not None else None,
        arguments=arguments if isinstance(arguments, str) or arguments is None else dumps(arguments).decode(),
        output=text_of(item.get("output")),
        status=item["status"] if isinstance(item.get("status"), str) else None,
        error=msgspec.Raw(b"true") if item.get("error") else _NOTHING,
        generation_token_ids=msgspec.Raw(b"[]") if item.get("generation_token_ids") else _NOTHING,
    )


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


def _chat(items: list[Item], dialect: Dialect) -> list[Json] | None:
    if dialect.tokens or not dialect.flat:
        return None
    messages: list[Json] = []
    # What one model call said, as `records.messages.Turn` puts it together.
    thoughts: list[str] = []
    told: str | None = None
    calls: list[Json] = []
    tokens = started = False
    for item in items:
        kind = item.type or ("message" if item.role is not None else "")
        said = kind == "reasoning" or (kind == "message" and (item.role or "assistant") == "assistant")
        if said or kind == "function_call":
            if started and not calls and (tokens or (said and told is not None)):
                messages.append(_turn(thoughts, told, calls, dialect))
                thoughts, told, tokens = [], None, False
            started = True
            if item.generation_token_ids:
                tokens = True
            if kind == "function_call":
                if item.name is None or item.role or item.content or item.summary or item.output:
                    return None
                function = {"name": item.name, "arguments": item.arguments or ""}
                calls.append({"id": item.call_id, "type": "function", "function": function})
            elif kind == "reasoning":
                parts = item.content or item.summary
                if parts:
                    thoughts.append(all_text(parts))
            else:
                text = _text(item.content)
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
            messages.append(_turn(thoughts, told, calls, dialect))
            thoughts, told, calls, tokens, started = [], None, [], False, False
        if kind == "message":
            if item.call_id or item.output:
                return None
            messages.append({"role": dialect.developer if item.role == "developer" else item.role, "content": text})
        elif kind == "function_call_output":
            if item.role or item.content:
                return None
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text})
        else:
            return None
    if started:
        messages.append(_turn(thoughts, told, calls, dialect))
    return messages


def _turn(thoughts: list[str], told: str | None, calls: list[Json], dialect: Dialect) -> Json:
    message: Json = {"role": "assistant", "content": ""}
    content = told
    if thoughts:
        thought = "\n\n".join(thoughts)
        if dialect.reasoning == "think":
            end = "</think>" if content is not None or calls else ""
            content = f"<think>{thought}{end}{content or ''}"
        elif dialect.reasoning != "none":
            message[dialect.reasoning] = thought
    message["content"] = content or ""
    if calls:
        message["tool_calls"] = calls
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
