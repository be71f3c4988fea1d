"""Which rows count, and what of each is kept: from files, block by block in one or several processes, or from `Rollout`s.

A rollout (task and repeat of one source) that has a reward is done, whatever attempts failed before it; one that only failed
counts once, with its last failure.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from rollforge.bulk.blocks import Block, Unusable, blocks, records
from rollforge.bulk.conversation import Item, all_text, is_error, items_of, model_calls
from rollforge.bulk.record import Record
from rollforge.bulk.workers import spread
from rollforge.errors import UserError
from rollforge.records.items import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    first_of,
    input_items,
    mapping,
    prompt_text,
    token_drift,
)
from rollforge.records.items import Item as RawItem
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.rows import LARGEST, BadLine, lacks_reward, task_key
from rollforge.stats.columns import MOST_COLUMNS, MOST_ENVS, MOST_TOOLS, Columns, Label, Part, Store, ToolUse
from rollforge.stats.visible import capped

UNNAMED = "(unnamed)"
_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class FailureKind:
    env: str
    outcome: Outcome
    stage: str
    type: str


@dataclass(slots=True)
class Fragment:
    """What some rows gave; small, and sent from one process to another."""

    parts: dict[str, Part] = field(default_factory=dict)
    failed: list[tuple[int, FailureKind, str]] = field(default_factory=list)
    """(key, kind, message) of the attempts without a reward."""
    bad: list[BadLine] = field(default_factory=list)
    """In a fragment of a file, lines are counted from its block's first."""
    bad_count: int = 0
    unrewarded: int = 0
    """Of these, the rows that lack nothing but a usable reward."""
    used: int = 0
    lines: int = 0

    def done(self) -> Fragment:
        """After the last row."""
        for part in self.parts.values():
            part.done()
        return self


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
    unrewarded: int = 0
    used: list[int] = field(default_factory=list)
    """Rows used, per source."""
    store: Store = field(default_factory=Store)
    attempts: array[int] = field(default_factory=lambda: array("q"))
    """Failed attempts in the order read: the rollout's key, and (next) the number of their kind."""
    kinds: dict[FailureKind, int] = field(default_factory=dict)
    envs: set[str] = field(default_factory=set)

    def add(self, fragment: Fragment, keep_bad: int, before: int = 0) -> None:
        """`before`: lines of the file before the fragment's."""
        for name, part in fragment.parts.items():
            env = self._told(name)
            self.sets.setdefault(env, Columns(env, self.store)).extend(part)
        for key, kind, message in fragment.failed:
            kind = replace(kind, env=self._told(kind.env))
            self.messages.setdefault(kind, message)
            self.failed_attempts += 1
            if key:
                self.attempts.extend((key, self.kinds.setdefault(kind, len(self.kinds))))
            else:
                self.failed[kind] += 1  # without an index every row is a rollout of its own
        for line in fragment.bad[: max(0, keep_bad - len(self.bad))]:
            self.bad.append(BadLine(line.file, line.line + before, line.reason, line.text))
        self.bad_count += fragment.bad_count
        self.unrewarded += fragment.unrewarded
        self.used[-1] += fragment.used

    def _told(self, env: str) -> str:
        """The name under which an environment is told."""
        name = capped(env, self.envs, MOST_ENVS)
        if name == env:
            self.envs.add(env)
        return name

    def finish(self) -> None:
        keys = [columns.marks["key"].read() for columns in self.sets.values() if columns.size]
        done = np.concatenate([np.zeros(0, np.int64), *keys])
        done = done[done != 0]
        self.repeated = len(done)
        done = np.unique(done)
        self.repeated -= len(done)
        names = list(self.kinds)
        last = dict(zip(self.attempts[::2], self.attempts[1::2], strict=True))
        failed = np.array(list(last), np.int64)
        for key in failed[~np.isin(failed, done)].tolist():
            self.failed[names[last[key]]] += 1


def read_rows(sources: Sequence[Iterable[Rollout | BadLine]], keep_bad: int) -> Pass:
    """Of rollouts as objects. Each source is read once, in order."""
    found = Pass()
    for number, source in enumerate(sources):
        found.used.append(0)
        rows = iter(source)
        while some := list(islice(rows, _AT_ONCE)):
            fragment = Fragment()
            for row in some:
                if isinstance(row, BadLine):
                    fragment.bad_count += 1
                    fragment.unrewarded += lacks_reward(row.reason)
                    if len(found.bad) + len(fragment.bad) < keep_bad:
                        fragment.bad.append(row)
                else:
                    _add_rollout(fragment, number, row)
            found.add(fragment.done(), keep_bad)
    found.finish()
    return found


def read_files(
    sources: Sequence[Sequence[tuple[str, str]]],
    keep_bad: int,
    workers: int = 1,
    seen: Callable[[int], None] | None = None,
) -> Pass:
    """Of files: for each source (file, name of the environment for rows that name none). `seen` is told the bytes read."""
    found = Pass()
    files = [file for source in sources for file, _ in source]
    of = [number for number, source in enumerate(sources) for _ in source]
    envs = [env for source in sources for _, env in source]
    cut = list(blocks(files))
    lines = Counter[int]()
    at = -1
    for block, fragment in zip(cut, spread(partial(_read_block, of, envs, keep_bad), cut, workers), strict=True):
        while at < of[block.source]:
            at += 1
            found.used.append(0)
        found.add(fragment, keep_bad, lines[block.source])
        lines[block.source] += fragment.lines
        if seen is not None:
            seen(block.end - block.start)
    found.used += [0] * (len(sources) - len(found.used))
    found.finish()
    return found


def _read_block(of: Sequence[int], envs: Sequence[str], keep_bad: int, block: Block) -> Fragment:
    fragment = Fragment()
    for _, row in records(block, envs[block.source], eager=True):
        fragment.lines += 1
        bad = row if isinstance(row, Unusable) else _problem(fragment, of[block.source], row)
        if bad is None:
            continue
        fragment.bad_count += 1
        fragment.unrewarded += lacks_reward(bad.reason)
        if len(fragment.bad) < keep_bad:
            text = bad.text.decode("utf-8", "replace") + ("..." if len(bad.text) == 60 else "")
            fragment.bad.append(BadLine(block.file, fragment.lines, bad.reason, text))
    return fragment.done()


def _problem(fragment: Fragment, source: int, record: Record) -> Unusable | None:
    try:
        _add_record(fragment, source, record)
    except (UserError, ValueError) as error:
        return Unusable(str(error), record.line[:60])
    return None


def _add_record(fragment: Fragment, source: int, record: Record) -> None:
    env = record.env or UNNAMED
    block = record.block
    index = record.task_index
    prompt = record.prompt
    task = block.get("task") or record.numbered or prompt.hex()[:16]
    group = task, b"" if record.named else record.task_key  # as the other `task_key` says of rollouts
    key = _key(source, env, group, index, record.index)
    if record.reward is None:
        fragment.failed.append((key, *_failure(env, record.outcome, record.rollout.failure)))
        fragment.used += 1
        return
    # Whatever may turn out to be broken is read before anything is counted.
    said, usage, cut = _said(record.items()), record.usage, record.incomplete
    metrics = list(record.numbers())
    components = record.field("reward_components")
    answer = record.field("extracted_answer") if "extracted_answer" in record else said.reply
    rollout = record.rollout if said.tokens else None
    fragment.used += 1
    part = _part(fragment, env, record.outcome, cut)
    numbers = _numbers(record.reward, block.get("attempt", 1), said)
    if rollout is not None:
        numbers["contiguous"] = _contiguous(rollout)
    _add_tokens(numbers, usage, rollout.output if rollout is not None else ())
    if "seconds" in block:
        _add_seconds(numbers, block["seconds"])
    for name, value in metrics:
        _add_metric(numbers, name, value)
    if components is not None:
        _add_components(numbers, components)
    mark = hash((env, group)) or 1
    if mark not in part.labels:
        part.labels[mark] = Label(mark, task, index, _start(record.question))
    if said.called:
        _use(part.tools, said.called, said.failed)
    asked = int.from_bytes(prompt[:8], "little", signed=True) or 1
    part.add(numbers, (mark, key, asked, _mark(_answer(answer)), said.answered, said.whole))


def _add_rollout(fragment: Fragment, source: int, rollout: Rollout) -> None:
    env, group = rollout.env or UNNAMED, task_key(rollout)
    key = _key(source, env, group, rollout.task_index, rollout.index)
    fragment.used += 1
    if rollout.reward is None:
        fragment.failed.append((key, *_failure(env, rollout.outcome, rollout.failure)))
        return
    response = rollout.response or {}
    part = _part(fragment, env, rollout.outcome, rollout.incomplete)
    said = _said(items_of(rollout.output))
    numbers = _numbers(rollout.reward, rollout.attempt, said)
    if said.called:
        _use(part.tools, said.called, said.failed)
    if said.tokens:
        numbers["contiguous"] = _contiguous(rollout)
    _add_tokens(numbers, mapping(response.get("usage")), rollout.output if said.tokens else ())
    _add_seconds(numbers, rollout.seconds)
    for name, value in rollout.fields.items():
        _add_metric(numbers, name, value)
    _add_components(numbers, rollout.fields.get("reward_components"))
    mark = hash((env, group)) or 1
    if mark not in part.labels:
        part.labels[mark] = Label(mark, rollout.task, rollout.task_index, _start(prompt_text(rollout.params)))
    prompt = _mark([input_items(rollout.params), rollout.params.get("instructions")])
    answer = rollout.fields.get("extracted_answer", said.reply)
    part.add(numbers, (mark, key, prompt, _mark(_answer(answer)), said.answered, said.whole))


def _part(fragment: Fragment, env: str, outcome: Outcome, cut: str | None) -> Part:
    part = fragment.parts.get(env)
    if part is None:
        part = fragment.parts[env] = Part()
    part.judged[outcome] += 1
    if cut:
        part.cuts[cut[:60]] += 1
    return part


class Said(NamedTuple):
    """What one look at every item finds."""

    reply: str
    """The last message."""
    turns: int
    """As `records.items.model_calls` counts them."""
    thought: bool
    tokens: bool
    """Whether token ids were kept."""
    called: list[str]
    """The names of the tools called."""
    failed: list[str]
    """Of those, the ones whose output is an error; an output without a call, or a second one, is none's."""
    answered: int
    """Marks the reply with the calls, and `whole` the whole conversation; both are 0 where there is neither: what says
    nothing repeats nothing."""
    whole: int


def _said(items: Sequence[Item]) -> Said:
    texts: list[str] = []
    thoughts: list[str] = []
    called: list[str] = []
    calls: list[str | None] = []  # of each its name and its arguments
    unanswered: dict[str | None, list[str]] = {}  # their names by id, which some servers leave out
    failed: list[str] = []
    tokens = False
    for item in items:
        tokens = tokens or bool(item.generation_token_ids)
        kind = item.type or "message"
        if kind == "function_call_output":
            if waiting := unanswered.get(item.call_id):
                name = waiting.pop(0)
                if is_error(item):
                    failed.append(name)
        elif item.role not in (None, "assistant"):
            pass  # somebody else's
        elif kind == "function_call":
            name = item.name or ""
            called.append(name)
            calls += name, item.arguments
            unanswered.setdefault(item.call_id, []).append(name)
        elif kind == "reasoning":
            thoughts.append(all_text(item.content) or all_text(item.summary))
        elif kind == "message":
            texts.append(all_text(item.content))
    reply = texts[-1].strip() if texts else ""
    given = tuple(calls)
    answered = hash((reply, given)) or 1 if reply or given else 0
    whole = hash((tuple(texts), given, tuple(thoughts))) or 1 if answered else 0
    return Said(reply, model_calls(items), bool(thoughts), tokens, called, failed, answered, whole)


def _numbers(reward: float, attempt: int, said: Said) -> dict[str, float]:
    return {
        "reward": reward,
        "attempt": attempt,
        "turns": said.turns,
        "reply": bool(said.reply),
        "thought": said.thought,
        "calls": len(said.called),
        "call_errors": len(said.failed),
    }


def _use(tools: dict[str, ToolUse], called: Sequence[str], failed: Sequence[str]) -> None:
    for name in set(called):
        use = tools.get(name)
        if use is None:
            if len(tools) >= MOST_TOOLS:
                continue
            use = tools[name] = ToolUse()
        use.rollouts += 1
        use.calls += called.count(name)
        use.errors += failed.count(name) if failed else 0


def _add_tokens(numbers: dict[str, float], usage: Mapping[str, Any], generated: Sequence[RawItem]) -> None:
    """`generated`: items that may have token ids, which are counted where the usage is unknown."""
    given, made = first_of(usage, INPUT_TOKENS), first_of(usage, OUTPUT_TOKENS)
    if made is None and generated:
        generated = [item for item in generated if item.get("generation_token_ids")]
        given = sum(len(item.get("prompt_token_ids") or ()) for item in generated)
        made = sum(len(item["generation_token_ids"]) for item in generated)
    details = first_of(usage, _DETAILS)
    if _is_number(given):
        numbers["tokens.input"] = given
    if _is_number(made):
        numbers["tokens.output"] = made
    if isinstance(details, dict) and _is_number(details.get("reasoning_tokens")):
        numbers["tokens.reasoning"] = details["reasoning_tokens"]


_DETAILS = tuple(f"{name}_details" for name in OUTPUT_TOKENS)


def _add_seconds(numbers: dict[str, float], seconds: Mapping[str, Any]) -> None:
    for name, value in seconds.items():
        if _is_number(value):
            numbers[f"seconds.{name}"] = value


def _add_metric(numbers: dict[str, float], name: str, value: Any) -> None:
    if _is_number(value):
        column = _metric(name)
        if column is not None:
            numbers[column] = float(value)


def _add_components(numbers: dict[str, float], parts: Any) -> None:
    """Of `reward_components`."""
    if isinstance(parts, dict):
        for name, value in parts.items():
            if _is_number(value):
                numbers[f"metric.reward_components.{name}"] = float(value)


@lru_cache(MOST_COLUMNS)
def _metric(field: str) -> str | None:
    """The column of a field; None for ids."""
    if field.startswith("_") or field.lower().rpartition("_")[2] in ("id", "index", "idx", "seed", "uuid"):
        return None
    return f"metric.{field}"


def _contiguous(rollout: Rollout) -> bool:
    return rollout.token_drift is None and token_drift(rollout.output) is None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and abs(value) <= LARGEST


def _answer(value: Any) -> Any:
    """What is voted for: letter case and white space do not count; nothing and the empty text are no vote."""
    if isinstance(value, str):
        # What is longer than an answer is an essay, which nobody writes twice.
        value = " ".join(value.split()).casefold() if len(value) <= 400 else value
    return None if value in ("", [], {}) else value


def _mark(value: Any) -> int:
    """64 bits, the same for equal values within a pass (workers are forked: they share the seed of `hash`); 0 is none."""
    if value is None:
        return 0
    if isinstance(value, str):
        return hash(value) or 1
    return hash(dumps(value, sort_keys=True)) or 1


def _key(source: int, env: str, group: Hashable, task_index: int | None, index: int | None) -> int:
    return 0 if index is None else hash((source, env, group, task_index, index)) or 1


def _failure(env: str, outcome: Outcome, failure: Failure | None) -> tuple[FailureKind, str]:
    stage, kind = (failure.stage, failure.type) if failure else ("unknown", "unknown")
    return FailureKind(env, outcome, stage, kind), _start(failure.message, 300) if failure else ""


def _start(text: str, length: int = 80) -> str:
    text = " ".join(text[: 4 * length].split())
    return text if len(text) <= length else text[: length - 1] + "…"
