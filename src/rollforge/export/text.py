"""Conversations as plain text, for formats that hold nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rollforge.bulk.record import for_the_same
from rollforge.export.target import Refused
from rollforge.records.items import Json, inside, text_of
from rollforge.records.lossless import dumps


def last_text(messages: Sequence[Json]) -> str:
    """The text of the last assistant message; "" if it only called tools."""
    for message in reversed(messages):
        if message["role"] == "assistant":
            return text_of(message["content"])
    return ""


def for_templates(row: Json, *lists: Any) -> Iterator[str]:
    """Warnings for checks: what the usual chat templates make of messages that hold reasoning, or, in a row without
    pictures, their text in parts."""
    turns = [turn for messages in lists if isinstance(messages, list) for turn in messages if isinstance(turn, dict)]
    if any(turn.get("reasoning_content") or turn.get("reasoning") for turn in turns):
        yield f"warning: a message has {REASONING}"
    parts = [part for turn in turns if isinstance(turn.get("content"), list) for part in turn["content"]]
    seen = any(row.get(name) for name in ("image", "images", "videos"))
    if parts and not seen and all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        yield (
            "warning: content is a list of text parts: chat templates of text models fail on it (TypeError) or print the "
            "list; write text, unless the model sees pictures"
        )


def check_calls(calls: Iterable[Any], where: str) -> Iterator[str]:
    """What is wrong with the tool calls of a message."""
    for call in calls:
        function = inside(call, "function")
        if not isinstance(inside(function, "name"), str):
            yield f"{where} has a tool call without function.name"
        elif isinstance(function.get("arguments"), str):
            yield f"{where} has arguments as text: {QUOTED_TWICE}"


def with_text_arguments(row: Json) -> Json:
    """The row with the arguments of calls in its messages as JSON text."""
    return {key: _with_text(value) if key in _SPOKEN else value for key, value in row.items()}


def _with_text(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_with_text, value))
    if not isinstance(value, dict):
        return value
    return {key: list(map(_text_call, one)) if key == "tool_calls" else _with_text(one) for key, one in value.items()}


def _text_call(call: Json) -> Json:
    function = call["function"]
    return {**call, "function": {**function, "arguments": as_text(function["arguments"])}}


def as_text(arguments: Any) -> Any:
    """Arguments of a call as JSON text, as models write them."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


_SPOKEN = ("messages", "prompt", "completion", "chosen", "rejected")


def only_text(messages: Iterable[Json], reader: str) -> None:
    """Raises `Refused` for pictures, which `reader` takes from elsewhere."""
    if any(not isinstance(message["content"], str) for message in messages):
        raise Refused(f"a message holds more than text ({reader} wants images in a column of their own)")


REASONING = (
    "reasoning in a field of its own: templates that do not know it (Qwen2.5, Llama 3) drop it without a word; "
    "--reasoning inline writes it into the text"
)


QUOTED_TWICE = "templates that write them with tojson quote them twice; write an object"


def of_templates(message: str) -> bool:
    """Whether a check says it of chat templates in general: with one at hand, what that one does is said."""
    return QUOTED_TWICE in message or REASONING in message


NO_RESULT = "a tool call that has no result"
NO_CALL = "a tool's result that answers no call before it"


def loose(messages: Sequence[Any]) -> Iterator[tuple[int, str]]:
    """(place, what) of calls and results, anybody's, that do not belong together; the last turn's calls may wait for theirs.
    Without ids a result is of the first call that waits, as chat templates have it."""
    called: list[Any] = []
    waiting: list[tuple[int, Any]] = []
    last = len(messages) - 1
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        if message.get("role") == "tool":
            given = message.get("tool_call_id") or None
            for number, (_, one) in enumerate(waiting):
                if given is None or one is None or one == given:
                    del waiting[number]
                    break
            else:
                if given is None or given not in called:
                    yield place, NO_CALL
        elif place < last and isinstance(calls := message.get("tool_calls"), list):
            ids = [call.get("id") or None for call in calls if isinstance(call, dict)]
            called += ids
            waiting += [(place, one) for one in ids]
    for place in dict.fromkeys(place for place, _ in waiting):
        yield place, NO_RESULT


def for_calls(*parts: tuple[str, Any]) -> Iterator[str]:
    """Warnings for checks: what is loose in a conversation of such parts (`("prompt", [...]), ("completion", [...])`)."""
    named = [
        (f"{name}[{number}]", message)
        for name, part in parts
        if isinstance(part, list)
        for number, message in enumerate(part)
    ]
    for place, what in loose([message for _, message in named]):
        yield f"warning: {named[place][0]} {'is' if what == NO_CALL else 'has'} {what}: {LEARNED}"


def for_sides(row: Json, *names: str) -> Iterator[str]:
    """The same of a prompt with each of these fields, or of the prompt alone."""
    sides = [(name, row[name]) for name in names if isinstance(row.get(name), list)]
    found = [said for side in sides or [("prompt", [])] for said in for_calls(("prompt", row.get("prompt")), side)]
    yield from dict.fromkeys(found)


LEARNED = "the model would learn it; add what is missing, or leave the row out"


_ONE_CALL = re.compile(r"(^|/)(meta-)?llama-3\.[123]-\d+b", re.IGNORECASE)


def takes_one_call(model: str) -> bool:
    """Whether a model's chat template, by its name, refuses turns with several calls: that of Llama 3.1 to 3.3 raises "This
    model only supports single tool-calls at once!"."""
    return _ONE_CALL.search(model) is not None


def question(messages: Sequence[Json]) -> str:
    """A prompt of one user message as its text. Raises `Refused` for other prompts: the rest of them would be lost."""
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise Refused("the prompt has more than one user message (system or earlier turns would be lost)")
    if not isinstance(messages[0]["content"], str):
        raise Refused("the prompt holds more than text")
    text: str = messages[0]["content"]
    return text


def with_tools(messages: Sequence[Json], tools: Sequence[Json]) -> list[Json]:
    """The tool schemas in the system turn, for loaders that drop a `tools` column. The wording is that of the chat templates
    of Hermes and Qwen models."""
    if not tools:
        return list(messages)
    text = listed(tools)
    first = messages[0] if messages else None
    if first is not None and first["role"] == "system" and isinstance(first["content"], str):
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


@for_the_same
def listed(tools: Sequence[Json]) -> str:
    """Tools with the instructions around them."""
    return _TOOLS.format("\n".join(dumps(tool).decode() for tool in tools))


_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def plain(messages: Iterable[Json]) -> list[Json]:
    """Messages of role and content only: reasoning as `<think>` and calls as `<tool_call>` text of the assistant, results as
    `<tool_response>` text of the user, parallel ones in one turn."""
    found: list[Json] = []
    after_tool = False
    for message in messages:
        content = message["content"]
        if message["role"] == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if after_tool:
                found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{content}"}
                continue
            found.append({"role": "user", "content": content})
        else:
            calls = [
                f"<tool_call>\n{dumps(call['function']).decode()}\n</tool_call>" for call in message.get("tool_calls") or ()
            ]
            told = "\n".join((content, *calls) if content else calls)
            thought = message.get("reasoning_content") or message.get("reasoning")
            if thought:
                told = f"<think>{thought}{'</think>' if told else ''}{told}"
            found.append({"role": message["role"], "content": told})
        after_tool = message["role"] == "tool"
    return found
