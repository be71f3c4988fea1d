"""`scripted:FILE.jsonl`: answers written down by hand, one line each.

A line is `{"text": ...}`, `{"tool_calls": [{"name": ..., "arguments": {...}}]}`, both, or `{"output": [items]}`. It may say
which conversation it is for: `task` (the task's id, or its index) or `prompt` (the text of its last user message), and
`repeat`; the lines of one conversation are its model calls in file order. Lines that say nothing are dealt: a line without
tool calls ends a conversation, and a rollout gets conversation number (task index + repeat), modulo how many there are.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from rollforge.errors import SetupError, UserError, reported, unknown
from rollforge.models.base import Request
from rollforge.records.items import Item, check_items, input_items, model_calls, prompt_text

Part: TypeAlias = str | tuple[str, str] | Item
"""Of an answer: a text, a tool call (name, the JSON text of its arguments), or a ready item."""

KEYS = ("text", "tool_calls", "output", "task", "prompt", "repeat")


@dataclass(frozen=True, slots=True)
class Line:
    parts: list[Part]
    calls: bool
    """Whether it calls tools, so that the conversation goes on."""
    task: str | int | None
    prompt: str | None
    repeat: int | None


def recorded(path: Path) -> Callable[[Request], list[Part]]:
    """The policy that answers with the lines of `path`. Raises `UserError` naming the line that cannot be used."""
    lines = _read(path)
    addressed: dict[tuple[str, str | int], list[Line]] = {}
    dealt: list[list[Line]] = []
    open_ended = False
    for line in lines:
        if line.task is not None:
            addressed.setdefault(("task", line.task), []).append(line)
        elif line.prompt is not None:
            addressed.setdefault(("prompt", line.prompt), []).append(line)
        else:
            if not open_ended:
                dealt.append([])
            dealt[-1].append(line)
            open_ended = line.calls

    def answer(request: Request) -> list[Part]:
        found = _addressed(addressed, request)
        if not found and dealt:
            first = (request.task.index or 0) if request.task else 0
            found = dealt[(first + request.index) % len(dealt)]
        turn = calls_made(request)
        if turn < len(found):
            return found[turn].parts
        raise SetupError(_missing(path, request, turn, len(found)))

    return answer


def calls_made(request: Request) -> int:
    """How many model calls the conversation already holds, after the task's prompt."""
    prompt = len(input_items(request.task.params)) if request.task else 0
    return len(model_calls(input_items(request.params)[prompt:]))


def _addressed(addressed: dict[tuple[str, str | int], list[Line]], request: Request) -> list[Line]:
    keys: list[tuple[str, str | int]] = []
    if request.task is not None:
        keys.append(("task", request.task.id))
        if request.task.index is not None:
            keys.append(("task", request.task.index))
    keys.append(("prompt", prompt_text(request.task.params if request.task else request.params)))
    lines = next((addressed[key] for key in keys if key in addressed), [])
    return [line for line in lines if line.repeat == request.index] or [line for line in lines if line.repeat is None]


def _missing(path: Path, request: Request, turn: int, found: int) -> str:
    task = request.task
    name = f"task {task.id} (index {task.index})" if task else "this prompt"
    answers = f"{found} answer{'s' if found != 1 else ''}"
    hint = f'{{"task": "{task.id}", "text": "..."}}' if task else '{"prompt": "...", "text": "..."}'
    return f"{path} has {answers} for {name}, repeat {request.index}, and call {turn + 1} asks for more; add a line: {hint}"


def _read(path: Path) -> list[Line]:
    with reported(f"cannot read the recorded answers {path}"):
        content = path.read_bytes()
    lines = []
    for number, text in enumerate(content.removeprefix(BOM_UTF8).splitlines(), 1):
        if not text.strip():
            continue
        try:
            lines.append(_line(orjson.loads(text)))
        except orjson.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON ({error.msg}, column {error.colno})") from error
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from error
    if not lines:
        raise UserError(f'{path} has no recorded answers; a line is for example {{"text": "4"}}')
    return lines


def _line(row: Any) -> Line:
    if not isinstance(row, dict):
        raise UserError(f"the line is {type(row).__name__}, not an object")
    for key in row:
        if key not in KEYS:
            raise unknown("key of a recorded answer", key, KEYS)
    text, calls, output = row.get("text"), row.get("tool_calls"), row.get("output")
    if text is None and calls is None and output is None:
        raise UserError("a recorded answer has text, tool_calls or output")
    if text is not None and not isinstance(text, str):
        raise UserError(f"text is {type(text).__name__}, not a string")
    if calls is not None and not isinstance(calls, list):
        raise UserError(f"tool_calls is {type(calls).__name__}, not a list")
    if output is not None and (text is not None or calls is not None):
        raise UserError("output stands alone: text and tool_calls are its short form")
    problem = check_items(output, "output") if output is not None else None
    if problem:
        raise UserError(problem)
    parts: list[Part] = [text] if text is not None else []
    parts += [_call(call, index) for index, call in enumerate(calls or [])]
    parts += output or []
    return Line(
        parts=parts,
        calls=bool(calls) or any(item.get("type") == "function_call" for item in output or []),
        task=_typed(row, "task", (str, int)),
        prompt=_typed(row, "prompt", (str,)),
        repeat=_typed(row, "repeat", (int,)),
    )


def _call(call: Any, index: int) -> tuple[str, str]:
    name = call.get("name") if isinstance(call, dict) else None
    if not isinstance(name, str):
        raise UserError(f'tool_calls[{index}] is no {{"name": ..., "arguments": {{...}}}}')
    arguments = call.get("arguments", {})
    # A string is what the model wrote, valid or not.
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _typed(row: dict[str, Any], key: str, types: tuple[type, ...]) -> Any:
    value = row.get(key)
    if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
        raise UserError(f"{key} is {value!r}, not {' or '.join(kind.__name__ for kind in types)}")
    return value
