"""The chat format of a checkpoint: conversation to token ids, generated text to items."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from rollforge.errors import SetupError, UserError
from rollforge.models.template import ChatTemplate
from rollforge.records.chat import chat_request
from rollforge.records.items import Item, Json, Params, assistant, function_call, input_items
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import TEMPLATE, assistant_kind, split_think

REMEMBERED = 10_000
"""Prompts of which is remembered what text they were made of (two hashes each)."""
RENDERED = 256
"""Conversations whose text is kept."""


class ChatFormat:
    """A chat template with its tokenizer."""

    def __init__(
        self, template: str, tokenizer: Tokenizer, special_tokens: Mapping[str, str], eos_ids: frozenset[int], vocab: int
    ) -> None:
        self._tokenizer = tokenizer
        self._eos = {id: tokenizer.id_to_token(id) or "" for id in eos_ids}
        self._vocab = vocab
        self._made_of: dict[int, int] = {}
        self._rendered = lru_cache(RENDERED)(self._render)
        self._renders = False
        added = tokenizer.get_added_tokens_decoder().values()
        self._unsaid = re.compile("|".join(re.escape(token.content) for token in added if token.special) or r"(?!)")
        self._template = ChatTemplate(template, special_tokens)

    @classmethod
    def of(cls, tokenizer: Any, eos_ids: Iterable[int] = (), **variables: Any) -> ChatFormat:
        """That of a tokenizer of transformers (a fast one). `eos_ids`: further ends of an answer (generation_config).
        `variables`: what the template is told beside the conversation (`enable_thinking=False`).

        Raises `UserError` if it has no chat template or is a slow one.
        """
        fast, template = getattr(tokenizer, "backend_tokenizer", None), tokenizer.chat_template
        if isinstance(template, dict):  # several by name
            template = template.get("tool_use") or template.get("default")
        if not isinstance(fast, Tokenizer):
            raise UserError(f"{type(tokenizer).__name__} is a slow tokenizer: rollforge needs a fast one (tokenizer.json)")
        if not isinstance(template, str):
            raise UserError(f"the tokenizer {tokenizer.name_or_path!r} has no chat template")
        special = {role: text for role, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
        eos = {*eos_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
        return cls(template, fast, special | variables, frozenset(eos), len(tokenizer))

    def prompt_ids(self, params: Params) -> list[int]:
        """The token ids of the conversation so far and the opening of an answer.

        Where earlier answers bring their token ids, those stand as they were generated, and only what was added since is
        rendered: each prompt begins with the tokens of the calls before it, even where the template would write the same
        answer differently. That is kept up only while the earlier prompt is still what this conversation renders to: an
        edited history is rendered anew.
        """
        items = input_items(params)

        @cache
        def text(count: int) -> str:
            return self.render(params, items[:count])

        @cache
        def ids(count: int) -> list[int]:
            last = next((i for i in reversed(range(count)) if self._own_tokens(items[i])), None)
            if last is None:
                return self.encode(text(count))
            tail = self._tail(params, items, last, text(count))
            prompt = items[last]["prompt_token_ids"]
            made_of = self._made_of.get(hash(tuple(prompt)))
            starts = _call_starts(items, last)
            # What is not remembered is computed again, back to the first turn.
            unedited = any(hash(text(s)) == made_of for s in starts) or any(ids(s) == prompt for s in starts)
            if tail is None or not unedited:
                return self.encode(text(count))
            return [*prompt, *items[last]["generation_token_ids"], *self.encode(tail)]

        prompt = ids(len(items))
        self._made_of[hash(tuple(prompt))] = hash(text(len(items)))
        if len(self._made_of) > REMEMBERED:
            self._made_of.pop(next(iter(self._made_of)))
        return prompt

    def render(self, params: Params, items: Sequence[Item], *, generation: bool = True) -> str:
        """The text of a conversation, with the opening of an answer unless `generation` is False."""
        body = chat_request({**params, "input": list(items)}, TEMPLATE)
        tools = None if params.get("tool_choice") == "none" else body.get("tools")
        chat = [_with_objects(message) for message in body["messages"]]
        # Repeats of a task begin alike, and a later turn renders its earlier ones again.
        return self._rendered(dumps([chat, tools, generation]))

    def _render(self, conversation: bytes) -> str:
        chat, tools, generation = loads(conversation)
        try:
            text = self._template.render(chat, tools, generation=generation)
        except (TemplateError, TypeError) as error:
            # One that has rendered others is no wrong template: the task is at fault, its tools perhaps.
            kind = UserError if self._renders else SetupError
            raise kind(f"the checkpoint's chat template cannot render this conversation: {error}") from error
        self._renders = True
        return text

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def items(self, text: str, params: Params, name: str) -> list[Item]:
        """What a generated text says: reasoning, message, tool calls. At least one item; ids begin with `name`."""
        thought, said = split_think(text)
        output: list[Item] = []
        if thought is not None:
            summary = [{"type": "summary_text", "text": self._unsaid.sub("", thought).strip("\n")}]
            output.append({"type": "reasoning", "id": f"rs_{name}", "summary": summary})
        calls: list[tuple[str, str]] = []
        if said is not None and params.get("tools") and params.get("tool_choice") != "none":
            said, calls = read_tool_calls(said)
        said = self._unsaid.sub("", said or "").removeprefix("\n\n" if output else "")
        if calls:
            said = said.rstrip("\n")
        if said or not (output or calls):
            output.append(assistant(said, f"msg_{name}"))
        for number, (tool, arguments) in enumerate(calls):
            output.append(function_call(tool, arguments, f"call_{name}_{number}"))
        return output

    def _own_tokens(self, item: Item) -> bool:
        """Whether the item carries token ids that this checkpoint could have made."""
        prompt, generated = item.get("prompt_token_ids"), item.get("generation_token_ids")
        if not (isinstance(prompt, list) and isinstance(generated, list) and generated):
            return False
        return all(isinstance(id, int) and 0 <= id < self._vocab for id in (*prompt, *generated))

    def _tail(self, params: Params, items: Sequence[Item], last: int, text: str) -> str | None:
        """What follows the tokens of item `last` in `text`; None if the template renders earlier turns in another way once
        there are later ones."""
        kept = self.render(params, items[: last + 1], generation=False)
        if not text.startswith(kept):
            return None
        final = items[last]["generation_token_ids"][-1]
        # The template closes the turn by the ending token (and a line break); a generation that was cut lacks it.
        ends = (
            [self._eos[final]] if final in self._eos and self._eos[final] in kept else [e for e in self._eos.values() if e]
        )
        closing = max(((kept.rfind(end), end) for end in ends), default=(-1, ""))
        if closing[0] < 0 or kept[closing[0] + len(closing[1]) :].strip():
            return text[len(kept) :]
        return text[closing[0] + (len(closing[1]) if final in self._eos else 0) :]


def read_tool_calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text outside of `<tool_call>` blocks, and the calls: name and arguments, both as the model wrote them. A block in
    which no name can be read stays in the text; one that was cut off before its closing tag counts."""
    calls: list[tuple[str, str]] = []

    def take(match: re.Match[str]) -> str:
        call = _read_call(match[1])
        if call is None:
            return match[0]
        calls.append(call)
        return ""

    outside = re.sub(r"<tool_call>(.*?)(?:</tool_call>|\Z)\n?", take, text, flags=re.DOTALL)
    return outside, calls


_NAME = re.compile(r'"name"\s*:\s*("(?:[^"\\\n]|\\.)*")')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*')


def _read_call(inside: str) -> tuple[str, str] | None:
    named = _NAME.search(inside)
    if named is None:
        return None
    try:
        name = json.loads(named[1])
    except json.JSONDecodeError:
        return None
    found = _ARGUMENTS.search(inside)
    if found is None:
        return name, "{}" if _is_json(inside) else inside.strip()
    rest = inside[found.end() :]
    try:
        value, end = json.JSONDecoder().raw_decode(rest)
    except (json.JSONDecodeError, RecursionError):
        return name, rest.strip()
    if not _is_json(inside):
        return name, rest.strip()
    # Some models write the arguments as a string that holds JSON.
    return name, value if isinstance(value, str) else rest[:end]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _call_starts(items: Sequence[Item], last: int) -> range:
    """Where the model call that ended with item `last` may have begun, nearest first."""
    start = last
    while start > 0 and assistant_kind(items[start - 1]) and "generation_token_ids" not in items[start - 1]:
        start -= 1
    return range(last, start - 1, -1)


def _with_objects(message: Json) -> Json:
    """Tool calls with their arguments as objects, which most templates want; text that is no JSON object stays text."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [{**call, "function": _with_object(call["function"])} for call in calls]}


def _with_object(function: Json) -> Json:
    try:
        value = json.loads(function["arguments"])
    except (json.JSONDecodeError, TypeError, RecursionError):
        return function
    return {**function, "arguments": value} if isinstance(value, dict) else function
