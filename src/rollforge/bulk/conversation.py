"""Items to chat messages at the speed of the decoder, for the conversations that nearly all rows hold.

`records.messages` is the reference and knows every shape. Here items are decoded into structs that know the usual fields
only; whatever has others (images, refusals, unknown types and keys) is answered with None, and the reference does it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from rollforge.records.items import Json
from rollforge.records.messages import Dialect

_NOTHING = msgspec.Raw()


class Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None


Content: TypeAlias = str | list[Part] | None


class Item(msgspec.Struct, forbid_unknown_fields=True):
    type: str | None = None
    role: str | None = None
    content: Content = None
    summary: list[Part] | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: Content = None
    id: msgspec.Raw = _NOTHING
    status: msgspec.Raw = _NOTHING
    encrypted_content: msgspec.Raw = _NOTHING
    prompt_token_ids: msgspec.Raw = _NOTHING
    generation_token_ids: msgspec.Raw = _NOTHING
    generation_log_probs: msgspec.Raw = _NOTHING


_ITEMS = msgspec.json.Decoder(list[Item])
_INPUT = msgspec.json.Decoder(str | list[Item])


def input_chat(raw: msgspec.Raw, dialect: Dialect) -> list[Json] | None:
    """`responses_create_params.input` as chat messages; None where the reference must do it."""
    try:
        found = _INPUT.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return [{"role": "user", "content": found}] if isinstance(found, str) else _chat(found, dialect)


def output_chat(raw: msgspec.Raw, dialect: Dialect) -> list[Json] | None:
    """`response.output` as chat messages; None where the reference must do it."""
    try:
        found = _ITEMS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return _chat(found, dialect)


def _chat(items: list[Item], dialect: Dialect) -> list[Json] | None:
    if dialect.tokens or not dialect.flat:
        return None
    messages: list[Json] = []
    turn: _Turn | None = None
    for item in items:
        kind = item.type or ("message" if item.role is not None else "")
        said = kind == "message" and (item.role or "assistant") == "assistant"
        if kind == "function_call" or kind == "reasoning" or said:
            if (
                turn is not None
                and not turn.calls
                and (turn.tokens or (kind != "function_call" and turn.content is not None))
            ):
                messages.append(turn.message(dialect))
                turn = None
            if turn is None:
                turn = _Turn()
            if not turn.add(kind, item):
                return None
            continue
        text = _text(item.content if kind == "message" else item.output)
        if text is None or item.generation_token_ids or item.name or item.arguments or item.summary:
            return None
        if turn is not None:
            messages.append(turn.message(dialect))
            turn = None
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
    if turn is not None:
        messages.append(turn.message(dialect))
    return messages


class _Turn:
    """What one model call said, as `records.messages.Turn` puts it together."""

    __slots__ = ("calls", "content", "reasoning", "tokens")

    def __init__(self) -> None:
        self.reasoning: list[str] = []
        self.content: str | None = None
        self.calls: list[Json] = []
        self.tokens = False

    def add(self, kind: str, item: Item) -> bool:
        """False for what only the reference knows."""
        if item.generation_token_ids:
            self.tokens = True
        if kind == "function_call":
            if item.name is None or item.role or item.content or item.summary or item.output or item.encrypted_content:
                return False
            function = {"name": item.name, "arguments": item.arguments or ""}
            self.calls.append({"id": item.call_id, "type": "function", "function": function})
        elif kind == "reasoning":
            parts = item.content or item.summary
            if parts:
                self.reasoning.append(parts if isinstance(parts, str) else "".join(part.text or "" for part in parts))
        else:
            text = _text(item.content)
            if text is None or item.name or item.call_id or item.arguments or item.output or item.summary:
                return False
            if not self.content:
                self.content = text
            elif text:
                self.content = f"{self.content}\n{text}"
        return True

    def message(self, dialect: Dialect) -> Json:
        content = self.content
        message: Json = {"role": "assistant", "content": ""}
        if self.reasoning:
            thought = "\n\n".join(self.reasoning)
            if dialect.reasoning == "think":
                end = "</think>" if content is not None or self.calls else ""
                content = f"<think>{thought}{end}{content or ''}"
            elif dialect.reasoning != "none":
                message[dialect.reasoning] = thought
        message["content"] = content or ""
        if self.calls:
            message["tool_calls"] = self.calls
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
