"""What a prompt asks, as far as a row of a whole conversation still shows it: splits, exports and checks go by the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from rollforge.bulk.record import Record, digest, for_the_same
from rollforge.records.items import Json, text_of
from rollforge.records.lossless import dumps

T = TypeVar("T")


def up_to_user(messages: Sequence[T]) -> Sequence[T]:
    """The conversation up to its last user turn. Where the model's part begins is not written in it: turns before that one
    were often given, while calls of tools that follow it are nearly always the answer."""
    roles = list(map(role_of, messages))
    if "user" in roles:
        return messages[: len(roles) - roles[::-1].index("user")]
    return messages[: roles.index("assistant")] if "assistant" in roles else messages


def role_of(message: Any) -> Any:
    """system, user, assistant, tool, ..., in the words of either format; None for what is no message."""
    if not isinstance(message, dict):
        return None
    role = message.get("role") or message.get("from")
    if role in ("user", "human"):
        # Where there is no role for what tools said, it is written so.
        said = text_of(message.get("content") or message.get("value"))
        return "tool" if said.startswith("<tool_response>") else "user"
    return "assistant" if role in ("gpt", "model") else role


def asked_of(record: Record) -> bytes:
    """16 bytes: `Record.prompt`; of a prompt that ends with the model's turns or tools' words, what was asked before. Which
    tools were called on the way does not count: what was said is the same."""
    return _before(record.prompt_messages()) or record.prompt


@for_the_same
def _before(chat: list[Json]) -> bytes:
    """b"" where nothing follows what was asked, and no tool was called."""
    asked = up_to_user(chat) or chat
    if len(asked) == len(chat) and not any(message.get("tool_calls") for message in chat):
        return b""
    return digest(dumps([[message["role"], message["content"]] for message in asked]))
