"""A rollout as blocks of text: what was asked, thought, called, answered, and what it was worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollforge.errors import UserError
from rollforge.records.items import INPUT_TOKENS, OUTPUT_TOKENS, Item, first_of, input_items, item_type, text_of, tool_name
from rollforge.records.lossless import dumps
from rollforge.records.messages import as_items
from rollforge.records.rollout import Rollout
from rollforge.stats.text import number
from rollforge.stats.visible import one_line, visible

Kind = Literal["system", "user", "assistant", "reasoning", "call", "output", "other"]

MOST_CHARS, MOST_LINES = 1500, 30
"""Of a text that is not asked for in full."""
MOST_FIELDS = 30


@dataclass(frozen=True, slots=True)
class Block:
    kind: Kind
    title: str
    text: str
    """Safe to print, whole."""


def blocks(rollout: Rollout) -> Iterator[Block]:
    """The conversation, in order: instructions, prompt, and every item since."""
    params = rollout.params
    instructions, tools = params.get("instructions"), params.get("tools")
    if isinstance(instructions, str) and instructions:
        yield Block("system", "instructions", visible(instructions))
    if isinstance(tools, list) and tools:
        names = (str(tool_name(tool) or tool.get("type")) if isinstance(tool, dict) else "?" for tool in tools)
        yield Block("system", "tools", visible(", ".join(names)))
    called: dict[str, str] = {}
    for item in _items([*input_items(params), *rollout.output]):
        yield _block(item, called)


def _items(given: list[Item]) -> Sequence[Item]:
    try:
        return as_items(given)
    except UserError:
        return given  # calls that are none are shown as they are


def headline(rollout: Rollout) -> str:
    """`arithmetic, task 3 (1f0c…), repeat 0: reward 1.000`"""
    task = rollout.task if rollout.task_index is None else f"{rollout.task_index} ({rollout.task})"
    parts = [rollout.env or "", f"task {task}" if task else "", "" if rollout.index is None else f"repeat {rollout.index}"]
    worth = "no reward" if rollout.reward is None else f"reward {number(rollout.reward)}"
    return f"{one_line(', '.join(part for part in parts if part), 120)}: {worth}"


def facts(rollout: Rollout) -> Iterator[tuple[str, str]]:
    """What became of it: outcome, failure, the verdict's and the task's fields, cost."""
    yield "outcome", str(rollout.outcome) + (f", attempt {rollout.attempt}" if rollout.attempt > 1 else "")
    failure = rollout.failure
    if failure is not None:
        again = "another attempt may succeed" if failure.retryable else "another attempt would not help"
        where = f"{one_line(failure.type, 60)} in {one_line(failure.stage, 20)}"
        yield "failure", f"{where}: {visible(failure.message)} ({again})"
    if rollout.incomplete:
        yield "cut short", one_line(rollout.incomplete, 60)
    shown = [(name, value) for name, value in rollout.fields.items() if not _is_bulk(name, value)]
    for name, value in shown[:MOST_FIELDS]:
        yield one_line(name, 30), one_line(value if isinstance(value, str) else _json(value), 300)
    if len(shown) > MOST_FIELDS:
        yield "", f"and {len(shown) - MOST_FIELDS} more fields"
    usage: Any = (rollout.response or {}).get("usage")
    if isinstance(usage, dict) and (made := first_of(usage, OUTPUT_TOKENS)) is not None:
        given = first_of(usage, INPUT_TOKENS)
        yield "tokens", f"{'?' if given is None else given} in, {made} out"
    if rollout.seconds:
        yield "seconds", ", ".join(f"{one_line(name, 20)} {number(value)}" for name, value in rollout.seconds.items())
    if rollout.token_drift is not None:
        yield "token ids", f"the prompt of model call {rollout.token_drift} does not continue the tokens before it"


def shortened(text: str) -> tuple[str, int]:
    """The beginning of the text, and how many characters were left out."""
    kept = "\n".join(text[:MOST_CHARS].split("\n")[:MOST_LINES])
    return kept, len(text) - len(kept)


def _block(item: Item, called: dict[str, str]) -> Block:
    """`called`: the names of the calls so far by their id, to name their outputs."""
    kind = item_type(item)
    if kind == "message":
        role = str(item.get("role", "assistant"))
        roles: dict[str, Kind] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
        return Block(roles.get(role, "other"), one_line(role, 20), visible(_content(item.get("content"))))
    if kind == "reasoning":
        text = _content(item.get("content")) or _content(item.get("summary"))
        if not text and item.get("encrypted_content"):
            text = "(encrypted)"
        return Block("reasoning", "reasoning", visible(text))
    if kind == "function_call":
        name = called[str(item.get("call_id"))] = one_line(str(item["name"]), 60)
        arguments = item.get("arguments")
        return Block("call", f"call {name}", visible(arguments if isinstance(arguments, str) else _json(arguments)))
    if kind == "function_call_output":
        name = called.get(str(item.get("call_id")), "")
        return Block("output", f"output of {name}" if name else "output", visible(_content(item.get("output"))))
    return Block("other", one_line(str(kind), 40), visible(_json(item)))


def _content(content: Any) -> str:
    """The text, with parts that are none (images, files) named in brackets."""
    text = text_of(content)
    if isinstance(content, list):
        others = (part for part in content if isinstance(part, dict) and not isinstance(part.get("text"), str))
        text += "".join(f"\n[{other.get('type')}]" for other in others)
    elif content is not None and not isinstance(content, str):
        text = _json(content)
    return text


def _is_bulk(name: str, value: Any) -> bool:
    """What the conversation shows already, or what only machines read."""
    return name in ("output", "usage", "agent_ref") or value is None or (isinstance(value, Mapping) and not value)


def _json(value: Any) -> str:
    return dumps(value, default=str).decode()
