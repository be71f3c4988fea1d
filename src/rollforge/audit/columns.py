"""What a look at rewards keeps of each rollout: a few numbers and hashes, never texts. Rows stream by."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

import numpy as np

from rollforge.records.items import Response, final_text, item_type, mapping, reasoning_text, text_of, tool_calls
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine, task_key
from rollforge.stats.estimate import Numbers

MOST_FIELDS = 64
EXAMPLES = 3
SPEAKS = re.compile(
    r"note to the grader|award full marks|\[\[[AB](?:=B)?\]\]|ignore (?:all )?(?:previous|prior) instructions|"
    r"(?:verdict|judg(?:e)?ment|final grade|score)\s*:\s*(?:correct|1\.0|10)|as the (?:grader|judge)|system override|"
    r"sys\.exit\(0\)|os\._exit|all tests passed",
    re.IGNORECASE,
)
FORMS = {
    "a box": re.compile(r"\\boxed\s*\{"),
    "an Answer: line": re.compile(r"\banswer\s*(?::|is\b)", re.IGNORECASE),
    "answer tags": re.compile(r"<answer>"),
    "thinking tags": re.compile(r"<think>"),
    "a code fence": re.compile(r"```"),
    "Markdown": re.compile(r"^(?:#{1,6} |[-*] |\d+\. )|\*\*", re.MULTILINE),
    "a JSON object": re.compile(r"^\s*\{"),
}

Name: TypeAlias = tuple[str | None, str, int | bytes]
"""A task's environment, and what attempts at it share (`task_key`)."""


@dataclass(slots=True)
class Columns:
    """One entry per judged rollout in each."""

    names: dict[Name, int] = field(default_factory=dict)
    """Of tasks, numbered."""
    task: array[int] = field(default_factory=lambda: array("q"))
    reward: array[float] = field(default_factory=lambda: array("d"))
    numbers: dict[str, array[float]] = field(default_factory=dict)
    """Measures and the verdict's own numbers; NaN where there is none."""
    answered: array[int] = field(default_factory=lambda: array("q"))
    """A hash of the reply, the calls, and what was said before somebody else spoke; 0: nothing was said."""
    said: array[int] = field(default_factory=lambda: array("q"))
    """A hash of the extracted answer, or of the reply; 0 for none."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of rollouts. One that has a reward is done, whatever attempts failed before it; one that only failed counts once."""
    speaks: list[str] = field(default_factory=list)
    """Places of well-paid replies that speak to the grader."""
    speaking: int = 0
    bad: int = 0
    rows: int = 0

    @property
    def size(self) -> int:
        return len(self.reward)

    @property
    def rewards(self) -> Numbers:
        return np.array(self.reward, dtype=np.float64)

    def column(self, name: str) -> Numbers:
        return np.array(self.numbers[name], dtype=np.float64)

    @property
    def groups(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(self.task, dtype=np.int64)


def read(rollouts: Iterable[Rollout | BadLine], success: float) -> Columns:
    found = Columns()
    done, failed = array("q"), dict[int, Outcome]()
    for row in rollouts:
        found.rows += 1
        if isinstance(row, BadLine):
            found.bad += 1
            continue
        # Without an index every row is a rollout of its own.
        name = (row.env, *task_key(row))
        key = 0 if row.index is None else hash((name, row.task_index, row.index)) or 1
        if row.reward is not None:
            found.outcomes[row.outcome] += 1
            done.append(key)
            _add(found, row, name, success)
        elif key:
            failed[key] = row.outcome
        else:
            found.outcomes[row.outcome] += 1
    lost = np.array(list(failed), np.int64)
    found.outcomes.update(failed[key] for key in lost[~np.isin(lost, np.array(done, np.int64))].tolist())
    for values in found.numbers.values():
        _fill(values, found.size)
    return found


def _add(found: Columns, row: Rollout, name: Name, success: float) -> None:
    text, calls = final_text(row.response), tool_calls(row.response)
    at = found.size
    found.task.append(found.names.setdefault(name, len(found.names)))
    found.reward.append(row.reward or 0.0)
    made = [(call.get("name"), call.get("arguments")) for call in calls]
    actions = _actions(row.response)
    found.answered.append(_mark([text.strip(), made, actions]) if text.strip() or made or any(actions) else 0)
    answer = row.fields.get("extracted_answer", text.strip()[-200:])
    found.said.append(_mark(answer) if answer not in (None, "") else 0)
    _put(found, at, "length", float(len(text)))
    _put(found, at, "reasoning length", float(len(reasoning_text(row.response))))
    _put(found, at, "tool calls", float(len(calls)))
    _put(found, at, "cut short", float(row.incomplete is not None))
    for form, pattern in FORMS.items():
        _put(found, at, f"form: {form}", float(pattern.search(text[:20_000]) is not None))
    for key, value in row.fields.items():
        if isinstance(value, (int, float)) and not key.startswith("_") and row.outcome is Outcome.SCORED:
            _put(found, at, f"field: {key}", float(value))
    for key, value in mapping(row.fields.get("reward_components")).items():
        if isinstance(value, (int, float)):
            _put(found, at, f"part: {key}", float(value))
    if (row.reward or 0.0) >= success and SPEAKS.search(text[-5_000:]):
        found.speaking += 1
        if len(found.speaks) < EXAMPLES:
            found.speaks.append(f"task {row.task_index if row.task_index is not None else row.task}, repeat {row.index}")


def _actions(response: Response | None) -> list[str]:
    """What the policy said before the last message of somebody else: the steps of an episode, its turns to a user."""
    output = (response or {}).get("output") or []
    messages = [item for item in output if item_type(item) == "message"]
    spoke = [at for at, item in enumerate(messages) if item.get("role") not in (None, "assistant")]
    before = messages[: spoke[-1]] if spoke else []
    return [text_of(item.get("content")).strip() for item in before if item.get("role") in (None, "assistant")]


def _put(found: Columns, at: int, name: str, value: float) -> None:
    values = found.numbers.get(name)
    if values is None:
        if len(found.numbers) >= MOST_FIELDS:
            return
        values = found.numbers[name] = array("d")
    _fill(values, at)
    values.append(value)


def _fill(values: array[float], size: int) -> None:
    if len(values) < size:
        values.extend([float("nan")] * (size - len(values)))


def _mark(value: object) -> int:
    """The same in every process: two runs are compared by it."""
    return int.from_bytes(blake2b(dumps(value), digest_size=8).digest(), "big", signed=True) or 1
