"""One streaming pass over rollouts: a few numbers of each are kept in columns, the rows themselves are not.

A judged rollout costs about 300 bytes here, whatever its length. `read_all` decides which rows count: a rollout (task and
repeat of one source) that has a reward is done, whatever attempts failed before it; one that only failed counts once,
with its last failure.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import orjson

from rollforge.records.items import (
    Item,
    final_text,
    input_items,
    item_type,
    model_calls,
    prompt_text,
    reasoning_text,
    text_of,
    token_drift,
    tool_calls,
)
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine

MOST_COLUMNS = 400
MOST_TOOLS = 1000
"""Names come from data: beyond these, further ones are left out, so that hostile rows cannot fill the memory."""

UNNAMED = "(unnamed)"


@dataclass(frozen=True, slots=True)
class TaskKey:
    id: str
    index: int | None
    prompt: str
    """The beginning of its last user message."""


@dataclass(slots=True)
class ToolUse:
    calls: int = 0
    errors: int = 0
    rollouts: int = 0


@dataclass(slots=True)
class Columns:
    """The judged rollouts of one environment."""

    name: str
    size: int = 0
    ids: dict[str, int] = field(default_factory=dict)
    tasks: list[TaskKey] = field(default_factory=list)
    numbers: dict[str, array[float]] = field(default_factory=dict)
    """Columns by name; one that ends early is unknown for the rest, as is NaN."""
    hashes: dict[str, array[int]] = field(default_factory=dict)
    """answer, reply, conversation, prompt: 64-bit hashes; 0 is none."""
    tools: dict[str, ToolUse] = field(default_factory=dict)
    cuts: Counter[str] = field(default_factory=Counter)
    """Why answers were cut short."""
    judged: Counter[Outcome] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class FailureKind:
    env: str
    outcome: Outcome
    stage: str
    type: str


@dataclass(slots=True)
class Pass:
    """What one pass over all sources found."""

    sets: dict[str, Columns] = field(default_factory=dict)
    failed: Counter[FailureKind] = field(default_factory=Counter)
    """Rollouts that have no reward, by their last failure."""
    messages: dict[FailureKind, str] = field(default_factory=dict)
    """The first message of each kind."""
    failed_attempts: int = 0
    repeated: int = 0
    """Judged rows whose task and repeat were already there: two collections in one file?"""
    bad: list[BadLine] = field(default_factory=list)
    bad_count: int = 0
    used: list[int] = field(default_factory=list)
    """Rows used, per source."""


def read_all(sources: Sequence[Iterable[Rollout | BadLine]], keep_bad: int) -> Pass:
    found = Pass()
    done: set[int] = set()
    pending: dict[int, FailureKind] = {}
    for number, source in enumerate(sources):
        used = 0
        for rollout in source:
            if isinstance(rollout, BadLine):
                found.bad_count += 1
                if len(found.bad) < keep_bad:
                    found.bad.append(rollout)
                continue
            used += 1
            key = _key(number, rollout)
            if not rollout.outcome.judged:
                found.failed_attempts += 1
                kind = _failure(rollout, found)
                if key is None:
                    found.failed[kind] += 1  # without an index every row is a rollout of its own
                else:
                    pending[key] = kind
                continue
            if key is not None:
                found.repeated += key in done
                done.add(key)
            add(found.sets.setdefault(rollout.env or UNNAMED, Columns(rollout.env or UNNAMED)), rollout)
        found.used.append(used)
    found.failed.update(kind for key, kind in pending.items() if key not in done)
    return found


def add(columns: Columns, rollout: Rollout) -> None:
    """Append a judged rollout."""
    assert rollout.reward is not None
    task = columns.ids.setdefault(rollout.task, len(columns.tasks))
    if task == len(columns.tasks):
        columns.tasks.append(TaskKey(rollout.task, rollout.task_index, _start(prompt_text(rollout.params))))
    columns.judged[rollout.outcome] += 1
    row: dict[str, float] = {"task": task, "reward": rollout.reward, "attempt": rollout.attempt}
    row |= _conversation(rollout)
    row |= {f"seconds.{name}": value for name, value in rollout.seconds.items() if _is_number(value)}
    row |= {f"metric.{name}": value for name, value in _metrics(rollout.fields)}
    _use_tools(columns, row, rollout.output)
    for name, value in row.items():
        column = columns.numbers.get(name)
        if column is None:
            if len(columns.numbers) >= MOST_COLUMNS:
                continue
            column = columns.numbers[name] = array("d")
        if len(column) < columns.size:
            column.extend([math.nan] * (columns.size - len(column)))
        column.append(value)
    for name, mark in _marks(rollout).items():
        columns.hashes.setdefault(name, array("q")).append(mark)
    reason = _cut(rollout)
    if reason:
        columns.cuts[reason[:60]] += 1
    columns.size += 1


def _conversation(rollout: Rollout) -> dict[str, float]:
    response, output = rollout.response, rollout.output
    row: dict[str, float] = {
        "turns": len(model_calls(output)),
        "reply": bool(final_text(response).strip()),
        "thought": any(item_type(item) == "reasoning" for item in output),
    }
    generated = [item for item in output if item.get("generation_token_ids")]
    if generated:
        row["contiguous"] = rollout.token_drift is None and token_drift(output) is None
    usage: Any = (response or {}).get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts: dict[str, Any] = {"input": usage.get("input_tokens"), "output": usage.get("output_tokens")}
    details = usage.get("output_tokens_details")
    counts["reasoning"] = details.get("reasoning_tokens") if isinstance(details, dict) else None
    if counts["output"] is None and generated:
        counts["input"] = sum(len(item.get("prompt_token_ids") or ()) for item in generated)
        counts["output"] = sum(len(item["generation_token_ids"]) for item in generated)
    return row | {f"tokens.{name}": count for name, count in counts.items() if _is_number(count)}


def _use_tools(columns: Columns, row: dict[str, float], output: Sequence[Item]) -> None:
    calls = [item for item in output if item_type(item) == "function_call"]
    outputs = {str(item.get("call_id")): item for item in output if item_type(item) == "function_call_output"}
    failed = [call for call in calls if is_error(outputs.get(str(call.get("call_id")), {}))]
    row["calls"], row["call_errors"] = len(calls), len(failed)
    for name, count in Counter(call["name"] for call in calls).items():
        if name in columns.tools or len(columns.tools) < MOST_TOOLS:
            use = columns.tools.setdefault(name, ToolUse())
            use.calls += count
            use.rollouts += 1
    for call in failed:
        if call["name"] in columns.tools:
            columns.tools[call["name"]].errors += 1


def is_error(item: Item) -> bool:
    """Whether a tool's output is an error: it says so (`error`, `status`), or its text is a JSON object with a truthy
    `error`, only a `detail` (what FastAPI answers), or begins with "Error" or a Python traceback."""
    if item.get("error") or item.get("status") in ("failed", "incomplete"):
        return True
    text = text_of(item.get("output")).lstrip()
    if text[:5].lower() == "error" or text.startswith("Traceback (most recent call last)"):
        return True
    if not text.startswith("{") or ('"error"' not in text and '"detail"' not in text):
        return False
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and (bool(value.get("error")) or value.keys() == {"detail"})


def _cut(rollout: Rollout) -> str | None:
    """Why the answer is incomplete, None if it is not."""
    response = rollout.response or {}
    details = response.get("incomplete_details")
    if details:
        return str(details.get("reason") or "unknown") if isinstance(details, dict) else str(details)
    return "unknown" if response.get("status") == "incomplete" else None


_ID_NAMES = ("id", "index", "idx", "seed", "uuid")


def _metrics(fields: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers and booleans at the top level that are not an identifier by name, and the parts of the reward."""
    for name, value in fields.items():
        if _is_number(value) and not name.startswith("_") and name.lower().rpartition("_")[2] not in _ID_NAMES:
            yield name, float(value)
    parts = fields.get("reward_components")
    if isinstance(parts, dict):
        for name, value in parts.items():
            if _is_number(value):
                yield f"reward_components.{name}", float(value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _marks(rollout: Rollout) -> dict[str, int]:
    reply = " ".join(final_text(rollout.response).split())
    calls = [(call["name"], call.get("arguments")) for call in tool_calls(rollout.response)]
    said = [reply, calls] if reply or calls else None
    messages = (item for item in rollout.output if item_type(item) == "message")
    texts = [text_of(item.get("content")) for item in messages if item.get("role", "assistant") == "assistant"]
    whole = [texts, calls, reasoning_text(rollout.response)] if rollout.output else None
    prompt = [input_items(rollout.params), rollout.params.get("instructions")]
    marks = {"answer": _answer(rollout.fields.get("extracted_answer", reply)), "reply": said, "conversation": whole}
    return {name: _hash(value) for name, value in marks.items()} | {"prompt": _hash(prompt)}


def _answer(value: Any) -> Any:
    """What is voted for: letter case and white space do not count; nothing and the empty text are no vote."""
    if isinstance(value, str):
        value = " ".join(value.split()).casefold()
    return None if value in ("", [], {}) else value


def _hash(value: Any) -> int:
    if value is None:
        return 0
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True) or 1


def _key(source: int, rollout: Rollout) -> int | None:
    if rollout.index is None:
        return None
    return hash((source, rollout.env, rollout.task, rollout.task_index, rollout.index))


def _failure(rollout: Rollout, found: Pass) -> FailureKind:
    failure = rollout.failure
    stage, kind = (failure.stage, failure.type) if failure else ("unknown", "unknown")
    key = FailureKind(rollout.env or UNNAMED, rollout.outcome, stage, kind)
    found.messages.setdefault(key, _start(failure.message, 300) if failure else "")
    return key


def _start(text: str, length: int = 80) -> str:
    text = " ".join(text[: 4 * length].split())
    return text if len(text) <= length else text[: length - 1] + "…"
