"""The names of the expression language: what each means, and how it is found in a row.

Most are a function of the row alone (`fact(name)`), computed where the row is read, and only as deep as needed: `reward` and
`usage` cost nothing, what asks for the conversation decodes the response once for all of them. `reward` after shaping,
`source` and the names of the group are known to the pipeline only: `LATER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from operator import attrgetter
from typing import Any, TypeAlias

from rollforge.bulk.blocks import Unusable, read_at
from rollforge.bulk.conversation import Item, all_text, has_refusal, is_error, model_calls
from rollforge.bulk.record import Record
from rollforge.curate.step import Fact, Sample, Workspace
from rollforge.errors import UserError
from rollforge.records.items import BYTES_PER_TOKEN, INPUT_TOKENS, OUTPUT_TOKENS, Json, first_of, inside, text_of
from rollforge.records.messages import split_think

Path: TypeAlias = tuple[str | int, ...]

ROOTS = {
    "task": "a field of the row's top level, of the task or of the verdict: task.level, task.metadata.source",
    "metrics": "the same, if it is a number (true is 1), or one of the row's object `metrics`: metrics.accuracy",
    "usage": "token counts of the response: usage.output_tokens_details.reasoning_tokens",
    "seconds": "wall-clock seconds: seconds.total, seconds.model, seconds.tools, seconds.verify",
}
"""What stands before a dot, with any names after it; what a row does not have is null."""

GROUP = {
    "group.size": "attempts at the task",
    "group.solve_rate": "share of the attempts with a reward of at least `success` (1.0)",
    "group.mean": "their mean reward",
    "group.std": "the standard deviation of their rewards (n - 1); 0 for a single attempt",
    "group.min": "the lowest reward",
    "group.max": "the highest reward",
    "group.gap": "the highest reward less the lowest",
    "group.best": "whether this is the attempt with the highest reward (of equal ones the first)",
}

LATER = frozenset(("reward", "source", *GROUP, "task.reward", "metrics.reward", "task.task_name"))
"""What earlier steps of a pipeline may have changed, or what no single row can tell."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value inside a row: the fact for `task.a.b` and its like."""

    root: str
    path: Path

    def __call__(self, record: Record) -> Any:
        first, *rest = self.path
        if self.root == "usage":
            return inside(record.usage, *self.path)
        if self.root == "seconds":
            return inside(record.block.get("seconds"), *self.path)
        value = inside(record.field(first) if isinstance(first, str) else None, *rest)
        if self.root == "task":
            return value
        return number(inside(record.field("metrics"), *self.path) if value is None else value)


def number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    return value if isinstance(value, (int, float)) else None


def fact(name: str, among: Iterable[str] | None = None) -> Fact:
    """The fact for a name of `ABOUT`, or for a dotted one under one of `ROOTS`. Raises `UserError` for others, naming those
    known (default: all)."""
    if name in _FACTS:
        return _FACTS[name][0]
    root, dot, rest = name.partition(".")
    if root in ROOTS and dot and all(rest.split(".")):
        return Field(root, tuple(rest.split(".")))
    own = "" if dot else f"a field of the row is task.{name}; "
    names = list(among or ABOUT)
    if near := get_close_matches(name, names):
        raise UserError(f"unknown fact {name!r}; {own}did you mean {' or '.join(near)}?")
    raise UserError(f"unknown fact {name!r}; {own}known: {', '.join([*names, *(f'{root}.<field>' for root in ROOTS)])}")


_last: tuple[Record | None, list[Item]] = (None, [])
# Most facts look at the items: what was decoded for the first of them serves the others.


def _items(record: Record) -> list[Item]:
    global _last
    if _last[0] is not record:
        _last = (record, record.items())
    return _last[1]


def _written(record: Record) -> Iterator[str]:
    """All that the model wrote."""
    for item in _items(record):
        if item.kind == "function_call":
            yield f"{item.name}{item.arguments or ''}"
        elif item.kind == "reasoning":
            yield all_text(item.content) or all_text(item.summary)
        elif item.said:
            yield all_text(item.content)


def _generated(record: Record) -> int | None:
    """Sampled tokens, where the row holds their ids."""
    if b'"generation_token_ids"' not in record.line:
        return None
    return sum(len(item.get("generation_token_ids") or ()) for item in record.rollout.output) or None


def _count(usage: Json, names: Iterable[str]) -> int | None:
    value = first_of(usage, names)
    # A table that rows went through may have made 12.0 of 12.
    return int(value) if type(value) is int or (type(value) is float and value.is_integer()) else None


def _bytes(texts: Iterator[str]) -> int:
    return -(-sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_PER_TOKEN)


def tokens(record: Record) -> int:
    known = _count(record.usage, OUTPUT_TOKENS)
    known = _generated(record) if known is None else known
    return _bytes(_written(record)) if known is None else known


def prompt_tokens(record: Record) -> int:
    known = _count(record.usage, INPUT_TOKENS)
    return _bytes(text_of(m["content"]) for m in record.prompt_messages()) if known is None else known


def total_tokens(record: Record) -> int:
    known = _count(record.usage, ("total_tokens",))
    return prompt_tokens(record) + tokens(record) if known is None else known


def estimated(record: Record) -> bool:
    return _count(record.usage, OUTPUT_TOKENS) is None and _generated(record) is None


def _prompt_estimated(record: Record) -> bool:
    return _count(record.usage, INPUT_TOKENS) is None


def _total_estimated(record: Record) -> bool:
    return _count(record.usage, ("total_tokens",)) is None and (estimated(record) or _prompt_estimated(record))


GUESSED: Mapping[str, Fact] = {
    "tokens": estimated,
    "prompt_tokens": _prompt_estimated,
    "total_tokens": _total_estimated,
}
"""Counts -> whether that of a row is an estimate."""


def turns(record: Record) -> int:
    return model_calls(_items(record))


def tool_calls(record: Record) -> int:
    return sum(item.kind == "function_call" for item in _items(record))


def tool_errors(record: Record) -> int:
    return sum(item.kind == "function_call_output" and is_error(item) for item in _items(record))


def chars(record: Record) -> int:
    return sum(map(len, _written(record)))


def truncated(record: Record) -> bool:
    return record.incomplete is not None


def empty(record: Record) -> bool:
    return not any(item.kind.endswith("_call") or (item.said and all_text(item.content).strip()) for item in _items(record))


def reasoning(record: Record) -> bool:
    return any(thought.strip() for item in _items(record) for thought in _thoughts(item))


def _thoughts(item: Item) -> Iterator[str]:
    if item.kind == "reasoning":
        yield all_text(item.content) or all_text(item.summary)
    elif item.said:
        yield from (each for each in (item.reasoning_content, item.reasoning) if isinstance(each, str))
        yield split_think(all_text(item.content))[0] or ""


def refused(record: Record) -> bool:
    return b'"refusal"' in record.line and has_refusal(_items(record))


def text(record: Record) -> str:
    return next((all_text(item.content) for item in reversed(_items(record)) if item.said), "")


def prompt(record: Record) -> str:
    asked = next((m["content"] for m in reversed(record.prompt_messages()) if m["role"] == "user"), "")
    return text_of(asked)


def outcome(record: Record) -> str:
    return str(record.outcome)


_FACTS: dict[str, tuple[Callable[[Record], Any], str]] = {
    "reward": (attrgetter("reward"), "the reward, as the steps before left it"),
    "tokens": (tokens, "output tokens: of the usage, else counted token ids, else estimated (4 bytes a token)"),
    "prompt_tokens": (prompt_tokens, "input tokens: of the usage (which may add up all model calls), else estimated"),
    "total_tokens": (total_tokens, "both together"),
    "estimated": (estimated, "whether `tokens` is an estimate"),
    "turns": (turns, "model calls"),
    "tool_calls": (tool_calls, "calls of tools"),
    "tool_errors": (tool_errors, "tool calls that returned an error"),
    "chars": (chars, "characters that the model wrote: text, reasoning, names and arguments of calls"),
    "truncated": (truncated, "whether the answer was cut short"),
    "failed": (
        attrgetter("failed"),
        "whether the response says that it failed: an error, or the status failed or cancelled",
    ),
    "empty": (empty, "whether the answer has neither text nor calls"),
    "reasoning": (reasoning, "whether the answer has reasoning to read: an item, or a think tag at its head"),
    "refused": (refused, "whether the model refused"),
    "text": (text, "the final text, of the last assistant message"),
    "prompt": (prompt, "the text of the last user message of the prompt"),
    "env": (attrgetter("env"), "the environment's name"),
    "model": (attrgetter("model"), "the model's name"),
    "outcome": (outcome, "how the attempt ended: scored, policy_fault"),
    "repeat": (attrgetter("index"), "which repeat of the task this is, from 0"),
}

ABOUT: dict[str, str] = {
    **{name: about for name, (_, about) in _FACTS.items()},
    "source": "the run that the row comes from, as it was given",
    **GROUP,
}
"""Every name in one line."""


def neighbours(field: Field, sample: Sample, work: Workspace) -> list[str]:
    """Names of what stands in a row beside the field."""
    if not work.files:
        return []
    with open(work.files[sample.source], "rb") as file:
        record = read_at(file, sample.at)
    if isinstance(record, Unusable):  # it changed while it was read
        return []
    *way, last = field.path
    whole = {"usage": record.usage, "seconds": record.block.get("seconds")}
    there = inside(whole[field.root] if field.root in whole else record.fields(_NOT_FIELDS), *way)
    start = ".".join(map(str, (field.root, *way)))
    return [f"{start}.{key}" for key in there if key != last] if isinstance(there, dict) else []


_NOT_FIELDS = ("agent_ref", "_ng_task_index", "_ng_rollout_index")
