"""Conversations, as items and as chat messages, both ways.

Text is kept to the character: a model's own words must tokenise to the same ids again. What chat messages have no place for
(ids and status of items, encrypted reasoning) ends there; unknown keys go where the other side has a place for them; an
item that Chat Completions cannot express raises `NoMessage`. Shapes: the OpenAI API reference; `reasoning_content`
(DeepSeek, SGLang, llama.cpp) and `reasoning` (vLLM, OpenRouter, Ollama) are those servers' own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollforge.errors import UserError
from rollforge.records.items import TOKEN_FIELDS, Item, Json, input_items, item_type, text_of
from rollforge.records.lossless import dumps


class NoMessage(UserError):
    """An item has no form as a chat message. What the message says to do is for whoever is about to ask a model."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; use a model with a Responses endpoint (--model openai:NAME), or leave such items out of the task"
        )
        self.what = what


Reasoning = Literal["think", "reasoning_content", "reasoning", "none"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What Chat Completions leaves open, and servers do differently."""

    reasoning: Reasoning = "think"
    """How earlier reasoning travels: as `<think>...</think>` at the head of the content, in a field, or not at all."""
    developer: str = "developer"
    """The role that developer messages get; "system" for chat templates that know no other."""
    max_tokens: str = "max_tokens"
    """"max_completion_tokens" where the server refuses the older name."""
    flat: bool = False
    """Content that is nothing but text parts becomes one string (chat templates of text models want strings)."""
    tokens: bool = False
    """Token ids and log probabilities of earlier calls go back on the assistant messages (NeMo RL's server uses them)."""


ROLES = ("system", "developer", "user", "assistant", "tool")
"""Those that chat templates know."""
WIRE = Dialect()
"""For servers."""
TEMPLATE = Dialect(flat=True)
"""For chat templates and exports."""


def messages(params: Mapping[str, Any], output: Iterable[Item] = (), dialect: Dialect = TEMPLATE) -> list[Json]:
    """The prompt and what followed as chat messages. `instructions` lead, as a system message; what one model call said
    (reasoning, text, tool calls) is one message, with content "" where it only called tools."""
    found: list[Json] = []
    if params.get("instructions"):
        found.append({"role": "system", "content": params["instructions"]})
    turn: Turn | None = None
    for item in as_items((*input_items(params), *output)):
        kind = assistant_kind(item)
        if kind:
            if turn is not None and turn.ends_before(kind):
                found.append(turn.message(dialect))
                turn = None
            turn = turn or Turn()
            turn.add(kind, item)
            continue
        if turn is not None:
            found.append(turn.message(dialect))
            turn = None
        found.append(_other_message(item, dialect))
    if turn is not None:
        found.append(turn.message(dialect))
    return found


def items_from_messages(chat: Iterable[Json]) -> list[Item]:
    """Chat messages as input items. Raises `UserError` for what is no message."""
    items: list[Item] = []
    for place, message in enumerate(chat):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "assistant":
            items += turn_items(message, place, items)
        elif role == "tool":
            items.append(_tool_item(message))
        elif isinstance(role, str):
            item = {"type": "message", "role": role, "content": _parts_from_chat(message.get("content"), "input_text")}
            items.append(item | others(message, ("role", "content")))
        else:
            raise UserError(f"messages[{place}] is no chat message (it has no role): {str(message)[:100]}")
    return items


def as_items(items: Sequence[Item]) -> Sequence[Item]:
    """The items, of which some may be chat messages (data sets mix both): those as the Responses API has them. Where none
    is one, the same object. Raises `UserError` for tool calls that are none."""
    if not any(map(_is_chat, items)):
        return items
    found: list[Item] = []
    for place, item in enumerate(items):
        if not _is_chat(item):
            found.append(item)
        elif item.get("role") == "tool":
            found.append(_tool_item(item))
        elif item.get("role", "assistant") == "assistant":
            found += turn_items(item, place, found)
        else:
            found.append({**item, "content": _parts_from_chat(item["content"], "input_text")})
    return found


def _is_chat(item: Item) -> bool:
    """Whether it says what only chat messages have a place for."""
    if item_type(item) != "message":
        return False
    role, content = item.get("role"), item.get("content")
    if role == "tool" or (role == "assistant" and any(map(item.get, _CHAT_KEYS))):
        return True
    return isinstance(content, list) and any(isinstance(p, dict) and p.get("type") in _CHAT_PARTS for p in content)


def _tool_item(message: Json) -> Item:
    content = _parts_from_chat(message.get("content"), "input_text")
    item = {"type": "function_call_output", "call_id": message.get("tool_call_id") or "", "output": content}
    return item | others(message, ("type", "role", "content", "tool_call_id"))


class Turn:
    """The assistant message being put together from the items of one model call."""

    __slots__ = ("calls", "content", "extra", "reasoning", "refusal", "tokens")

    def __init__(self) -> None:
        self.reasoning: list[str] = []
        self.content: Any = None
        self.refusal: str | None = None
        self.calls: list[Json] = []
        self.extra: Json = {}
        self.tokens: Json = {}

    def ends_before(self, kind: str) -> bool:
        # Servers want the tools' outputs right after the message that called them: whatever else the call said joins it.
        if self.calls:
            return False
        return bool(self.tokens) or (kind != "function_call" and self.content is not None)

    def add(self, kind: str, item: Item) -> None:
        if "generation_token_ids" in item:
            self.tokens = {field: item[field] for field in TOKEN_FIELDS if field in item}
        if kind == "function_call":
            function = {"name": item.get("name"), "arguments": _as_text(item.get("arguments"))}
            call = {"id": text_or_json(item.get("call_id")), "type": "function", "function": function}
            self.calls.append(call | others(item, _CALL_KEYS))
        elif kind == "reasoning":
            full, summary = item.get("content"), item.get("summary")
            if full or summary:
                self.reasoning.append(text_of(full) or text_of(summary))
        else:
            self._add_message(item)

    def _add_message(self, item: Item) -> None:
        content = item.get("content")
        if isinstance(content, list):
            refusals = [part.get("refusal") or "" for part in content if _kind(part) == "refusal"]
            if refusals:
                self.refusal = "".join(refusals)
            rest = [part for part in content if _kind(part) != "refusal"]
            plain = all(isinstance(part, str) or _kind(part) in _TEXTS for part in rest)
            content = text_of(rest) if plain else [_part_to_chat(part) for part in rest]
        else:
            content = _as_text(content)
        self.content = content or "" if not self.content else _joined(self.content, content or "")
        self.extra |= others(item, _MESSAGE_KEYS)

    def message(self, dialect: Dialect) -> Json:
        content = self.content
        message: Json = {"role": "assistant", "content": ""}
        if self.reasoning:
            thought = "\n\n".join(self.reasoning)
            if dialect.reasoning == "think":
                # Reasoning with nothing behind it was cut off: the tag stays open.
                end = "</think>" if content is not None or self.calls else ""
                head = f"<think>{thought}{end}"
                content = head if not content else _joined(head, content, between="")
            elif dialect.reasoning != "none":
                message[dialect.reasoning] = thought
        message["content"] = content or ""
        if self.refusal is not None:
            message["refusal"] = self.refusal
        if self.calls:
            message["tool_calls"] = self.calls
        if dialect.tokens:
            message |= self.tokens
        # What is known goes before what else the item had: some servers write `tool_calls: []` beside the calls.
        return message | others(self.extra, message) if self.extra else message


def _joined(first: Any, second: Any, between: str = "\n") -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}{between}{second}" if second else first
    return [part for one in (first, second) for part in ([{"type": "text", "text": one}] if isinstance(one, str) else one)]


def assistant_kind(item: Item) -> str:
    """reasoning, message or function_call if a model said it, else ""."""
    kind = item.get("type") or item_type(item)
    if kind == "message":
        return kind if item.get("role", "assistant") == "assistant" else ""
    return kind if kind in ("function_call", "reasoning") else ""


def _other_message(item: Item, dialect: Dialect) -> Json:
    kind = item_type(item)
    if kind == "message":
        role = dialect.developer if item["role"] == "developer" else item["role"]
        message = {"role": role, "content": _content_to_chat(item.get("content"), dialect)}
        return message | others(item, _MESSAGE_KEYS)
    if kind == "function_call_output":
        content = _content_to_chat(item.get("output"), dialect)
        return {"role": "tool", "tool_call_id": text_or_json(item.get("call_id")), "content": content} | others(
            item, _OUTPUT_KEYS
        )
    raise NoMessage(f"the conversation has an item of type {kind or '?'!r}, which Chat Completions cannot express")


_CALL_KEYS = frozenset(("type", "id", "call_id", "name", "arguments", "status", *TOKEN_FIELDS))
_MESSAGE_KEYS = frozenset(("type", "id", "role", "content", "status", *TOKEN_FIELDS))
_OUTPUT_KEYS = frozenset(("type", "id", "call_id", "output", "status"))
_TEXTS = frozenset(("output_text", "input_text", "text"))
_CHAT_PARTS = ("text", "image_url", "file")
"""No set: anything may stand under `type`."""


def others(given: Mapping[str, Any], known: Container[str]) -> Json:
    """What `given` has beside the known keys, without nulls."""
    return {key: value for key, value in given.items() if key not in known and value is not None}


def translate(
    given: Mapping[str, Any], into: Json, how: Mapping[str, Callable[..., object]], but: Container[str], *more: Any
) -> None:
    """Parameters of one API as those of another: `how(into, value, *more)` for those it has another way, the others as they
    are; no nulls, and none of `but`."""
    for key, value in given.items():
        if value is None or key in but:
            continue
        if key in how:
            how[key](into, value, *more)
        else:
            into[key] = value


def _kind(part: Any) -> str:
    """A part that names no type but has a text is one (the NeMo RL pages show such rollouts)."""
    if not isinstance(part, dict):
        return ""
    kind = part.get("type") or ("text" if isinstance(part.get("text"), str) else "")
    return kind if isinstance(kind, str) else ""


# Content: a string, or a list of parts. Parts of unknown types are the same on both sides.


def _content_to_chat(content: Any, dialect: Dialect) -> Any:
    if isinstance(content, list):
        if dialect.flat and all(isinstance(part, str) or _kind(part) in _TEXTS for part in content):
            return text_of(content)
        return [_part_to_chat(part) for part in content]
    return _as_text(content)


def text_or_json(value: Any) -> str | None:
    """Ids, arguments and outputs are text; some servers and data sets have the value itself."""
    return value if isinstance(value, str) or value is None else dumps(value).decode()


def _as_text(value: Any) -> str:
    return text_or_json(value) or ""


def _part_to_chat(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    match _kind(part):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text") or ""} | others(part, _TEXT_KEYS)
        case "input_image":
            image = part.get("image_url")
            if not isinstance(image, dict):
                given = (("url", image), ("detail", part.get("detail")), ("file_id", part.get("file_id")))
                image = {key: value for key, value in given if value is not None}
            return {"type": "image_url", "image_url": image} | others(part, _IMAGE_KEYS)
        case "input_file":
            return {"type": "file", "file": {key: part[key] for key in part if key != "type"}}
    return part


def _parts_from_chat(content: Any, text: str) -> Any:
    """`text` is the type that text parts get: input_text, or output_text on the assistant's side."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return [_part_from_chat(part, text) for part in content]


def _part_from_chat(part: Any, text: str) -> Any:
    if isinstance(part, str):
        return {"type": text, "text": part}
    match _kind(part):
        case "text":
            return {**part, "type": text}
        case "image_url":
            image = part.get("image_url")
            image = {"url": image} if isinstance(image, str) else image or {}
            moved = {"image_url" if key == "url" else key: value for key, value in image.items()}
            return {"type": "input_image", **moved} | others(part, ("type", "image_url"))
        case "file":
            return {"type": "input_file", **(part.get("file") or {})} | others(part, ("type", "file"))
    return part


_TEXT_KEYS = frozenset(("type", "text", "annotations", "logprobs"))
_IMAGE_KEYS = frozenset(("type", "image_url", "detail", "file_id"))


# An assistant message as items


def turn_items(message: Json, place: int | None, before: Sequence[Item] = (), logprobs: Any = None) -> list[Item]:
    """Reasoning, message, calls, in that order, at least one. Ids are made of the message's place in its conversation;
    without one it is an answer, whose items are complete output items with fresh ids."""
    fresh = place is None
    items: list[Item] = []
    thought, text = _reasoning_of(message, lenient=fresh)
    if thought is not None:
        name = f"rs_{unique() if fresh else place}"
        items.append({"type": "reasoning", "id": name, "summary": [{"type": "summary_text", "text": thought}]})
    calls = message.get("tool_calls") or _legacy_call(message)
    if not isinstance(calls, list):
        raise UserError(f"tool_calls is {type(calls).__name__}, not a list of calls: {str(calls)[:100]}")
    extra = others(message, _ASSISTANT_KEYS)
    refusal = message.get("refusal")
    # Without text there is still a message if nothing else would stand for the turn, or to keep two turns apart.
    needed = extra or refusal or not (items or calls) or (text == "" and not calls)
    apart = bool(before) and not items and assistant_kind(before[-1]) != ""
    if text or needed or (apart and calls):
        items.append(extra | _message_item(message, text, fresh, logprobs))
    seen: set[str] = set()
    for number, call in enumerate(calls):
        items.append(_call_item(call, place, number, seen))
    tokens = {field: message[field] for field in TOKEN_FIELDS if message.get(field) is not None}
    if tokens and items:
        items[-1] |= tokens
    return items


def _reasoning_of(message: Json, *, lenient: bool) -> tuple[str | None, Any]:
    """The reasoning and the rest of the content; None where there is nothing but reasoning (it was cut off)."""
    content = message.get("content")
    for field in _REASONING_KEYS:
        thought = message.get(field)
        if isinstance(thought, str) and thought:
            return thought, content or None
    # A model's answer is read leniently; a conversation stays as it is to the character.
    if isinstance(content, str) and ("think>" in content if lenient else content.startswith("<think>")):
        return split_think(content)
    return None, content or ""


def split_think(text: str) -> tuple[str | None, str | None]:
    """(reasoning, answer) of a reply with `<think>...</think>` at its head. Reasoning is None if there is none, the answer
    is None if the reply ends within it. The opening tag may be missing: some chat templates put it into the prompt."""
    head = text.lstrip()
    inside, closed, rest = text.partition("</think>")
    if head.startswith("<think>"):
        thought = inside.lstrip()[len("<think>") :]
        return (thought, rest) if closed else (thought, None)
    return (inside, rest) if closed and "<think>" not in inside else (None, text)


def _message_item(message: Json, text: Any, fresh: bool, logprobs: Any) -> Item:
    refusal = message.get("refusal")
    if not fresh and not refusal and not message.get("annotations"):
        return {"type": "message", "role": "assistant", "content": _parts_from_chat(text, "output_text")}
    if isinstance(text, list):
        content = _parts_from_chat(text, "output_text")
    else:
        content = [{"type": "output_text", "text": text or "", "annotations": []}] if text or not refusal else []
    if content and message.get("annotations"):
        content[0]["annotations"] = [_flat_annotation(annotation) for annotation in message["annotations"]]
    if content and logprobs:
        content[0]["logprobs"] = logprobs
    if refusal:
        content = [*content, {"type": "refusal", "refusal": refusal}]
    if not fresh:
        return {"type": "message", "role": "assistant", "content": content}
    return {"type": "message", "id": f"msg_{unique()}", "role": "assistant", "status": "completed", "content": content}


def _call_item(call: Json, place: int | None, number: int, seen: set[str]) -> Item:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        kind = call.get("type") if isinstance(call, dict) else type(call).__name__
        raise UserError(f"a tool call of type {kind!r} cannot be used; only functions are: {str(call)[:100]}")
    call_id = str(call.get("id") or "")
    if not call_id or call_id in seen:
        call_id = f"call_{unique()}" if place is None else f"call_{place}_{number}"
    seen.add(call_id)
    arguments = _as_text(function.get("arguments"))
    item: Item = {"type": "function_call", "call_id": call_id, "name": function.get("name") or "", "arguments": arguments}
    if place is None:
        item |= {"id": f"fc_{unique()}", "status": "completed"}
    return others(call, _TOOL_CALL_KEYS) | item


def _legacy_call(message: Json) -> list[Json]:
    function = message.get("function_call")
    return [{"function": function}] if isinstance(function, dict) else []


def _flat_annotation(annotation: Json) -> Json:
    """url_citation and the like: nested under their type in Chat Completions, flat in Responses."""
    kind = annotation.get("type") or ""
    inner = annotation.get(kind)
    return {"type": kind, **inner} if isinstance(inner, dict) else annotation


_REASONING_KEYS = ("reasoning_content", "reasoning")
_CHAT_KEYS = (*_REASONING_KEYS, "refusal", "tool_calls", "function_call")
_ASSISTANT_KEYS = frozenset(
    ("role", "content", *_REASONING_KEYS, "refusal", "tool_calls", "function_call", "annotations", *TOKEN_FIELDS)
)
_TOOL_CALL_KEYS = frozenset(("id", "type", "index", "function"))


def unique() -> str:
    return os.urandom(12).hex()
