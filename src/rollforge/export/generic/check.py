"""What a reader of these formats would stumble over, in a row written by anybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollforge.export.generic.rows import FUNCTION, alternation
from rollforge.export.text import for_calls
from rollforge.records.items import Json, inside
from rollforge.records.lossless import loads
from rollforge.records.messages import ROLES

_NAME = "{} is no function's name: OpenAI takes letters, digits, _ and -, 64 at most"
FROM = ("system", "human", "gpt", "function_call", "observation")


def prompt_completion_score(row: Json) -> Iterator[str]:
    for name in ("prompt", "completion"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            yield f"{name} is {_short(row.get(name))}, not text"
    yield from _score(row)


def messages_score(row: Json) -> Iterator[str]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield f"messages is {_short(messages)}, not a list of messages"
    else:
        for number, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                yield f"messages[{number}] has no role: {_short(message)}"
            elif "content" not in message:
                yield f"messages[{number}] has no content"
        yield from for_calls(("messages", messages))
    yield from _score(row)


def sharegpt(row: Json) -> Iterator[str]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        yield f"conversations is {_short(turns)}, not a list of {{from, value}}"
        return
    names = []
    for number, turn in enumerate(turns):
        place = f"conversations[{number}]"
        if not isinstance(turn, dict) or turn.get("from") not in FROM:
            yield f"{place}.from is {_short(turn.get('from') if isinstance(turn, dict) else turn)}; known: {', '.join(FROM)}"
            return
        names.append(turn["from"])
        if not isinstance(turn.get("value"), str):
            yield f"{place}.value is {_short(turn.get('value'))}, not text"
        elif turn["from"] == "function_call" and not _is_calls(turn["value"]):
            yield f"{place}.value is no call {{name, arguments}} as JSON, nor a list of them: {_short(turn['value'])}"
    problem = alternation(names)
    if problem:
        yield f"conversations: {problem}: LLaMA-Factory leaves such rows out"
    tools = row.get("tools", "")
    if not isinstance(tools, str):
        yield f"tools is {_short(tools)}, not JSON text"
    elif tools and not _is_list(tools):
        yield f"tools is not the JSON of a list: {_short(tools)}"


def openai(row: Json) -> Iterator[str]:
    yield from _messages(row, "messages")
    messages = row.get("messages")
    if isinstance(messages, list) and not any(inside(message, "role") == "assistant" for message in messages):
        yield "messages: at least one assistant message is needed"
    yield from _openai_rest(row, ("messages", "tools", "parallel_tool_calls", "functions"))


def openai_dpo(row: Json) -> Iterator[str]:
    given = row.get("input")
    if not isinstance(given, dict):
        yield f"input is {_short(given)}, not {{messages, tools, parallel_tool_calls}}"
    else:
        yield from (f"input.{problem}" for problem in _messages(given, "messages"))
        yield from (f"input.{problem}" for problem in _openai_rest(given, ("messages", "tools", "parallel_tool_calls")))
    for name in ("preferred_output", "non_preferred_output"):
        output = row.get(name)
        yield from _messages(row, name)
        if isinstance(output, list) and [inside(message, "role") for message in output] != ["assistant"]:
            yield f"{name}: one assistant message is needed, there are {len(output)} messages"
    if "preferred_output" in row and row["preferred_output"] == row.get("non_preferred_output"):
        yield "preferred_output and non_preferred_output are the same"


def mapped(row: Json) -> Iterator[str]:
    if not row:
        yield "the row is empty"


def _messages(row: Json, name: str) -> Iterator[str]:
    messages = row.get(name)
    if not isinstance(messages, list) or not messages:
        yield f"{name} is {_short(messages)}, not a list of messages"
        return
    called: list[Any] = []
    waiting: list[Any] = []
    """Calls without a result so far."""
    for number, message in enumerate(messages):
        place = f"{name}[{number}]"
        role = inside(message, "role")
        if role not in ROLES:
            yield f"{place}.role is {_short(role)}; known: {', '.join(ROLES)}"
            continue
        if not message.get("content") and not message.get("tool_calls") and role != "tool":
            yield f"{place} has neither content nor tool calls"
        if role == "tool" and message.get("tool_call_id") not in called:
            yield f"{place}.tool_call_id {_short(message.get('tool_call_id'))} is the id of no call before it"
        if role != "tool" and waiting:
            yield f"{place}: the calls before it have no result ({', '.join(map(_short, waiting))}): OpenAI refuses the file"
            waiting = []
        elif message.get("tool_call_id") in waiting:
            waiting.remove(message["tool_call_id"])
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            yield f"{place}.tool_calls is {_short(calls)}, not a list"
            continue
        for call in calls:
            function = inside(call, "function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not call.get("id"):
                yield f"{place}.tool_calls: a call without id or function.name: {_short(call)}"
                continue
            called.append(call["id"])
            waiting.append(call["id"])
            if not FUNCTION.fullmatch(function["name"]):
                yield f"{place}.tool_calls: {_NAME.format(_short(function['name']))}"
            if not isinstance(function.get("arguments"), str):
                yield f"{place}.tool_calls: arguments of {function['name']} are no text: OpenAI wants the JSON as a string"


def _openai_rest(row: Json, known: tuple[str, ...]) -> Iterator[str]:
    for name in row:
        if name not in known:
            yield f"{name} is no field of the format ({', '.join(known)}): OpenAI refuses the file"
    tools = row.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        function = inside(tool, "function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield f"tools[{number}] is not {{type: function, function: {{name, ...}}}}: {_short(tool)}"
        elif not FUNCTION.fullmatch(function["name"]):
            yield f"tools[{number}]: {_NAME.format(_short(function['name']))}"
    if "parallel_tool_calls" in row and not isinstance(row["parallel_tool_calls"], bool):
        yield f"parallel_tool_calls is {_short(row['parallel_tool_calls'])}, not true or false"


def _score(row: Json) -> Iterator[str]:
    score = row.get("score")
    if not isinstance(score, (int, float)) or isinstance(score, bool):
        yield f"score is {_short(score)}, not a number"


def _is_calls(text: str) -> bool:
    try:
        value = loads(text.rpartition("</think>")[2])
    except ValueError:
        return False
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(isinstance(call, dict) and "name" in call and "arguments" in call for call in calls)


def _is_list(text: str) -> bool:
    try:
        return isinstance(loads(text), list)
    except ValueError:
        return False


def _short(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
