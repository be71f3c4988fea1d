"""The rows of NeMo Gym's own hand-off pages: `{input, output, ground_truth}`, `{messages, tools}` or `{input, output}`, and
`{prompt, chosen, rejected, ...}`; one row per rollout, or per pair.

    grpo, sft   blocks ─► rows of a block, in part files of the workers ─► the output, in order
    dpo         blocks ─► attempts (task, reward, place, texts) ─► sorted on disk ─► pairs; long texts are read again

These formats hold the last question and the last answer; `rollforge export` keeps whole conversations, and writes the
configuration too. The output has its final name only when it is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from rollforge.bulk.alien import refuse_alien
from rollforge.bulk.blocks import Block, Unusable, blocks, records
from rollforge.bulk.original import Original
from rollforge.bulk.record import Record, for_the_same
from rollforge.bulk.spill import Kept, add_to_runs, grouped, sort
from rollforge.bulk.workers import spread
from rollforge.errors import UserError, reported
from rollforge.export.check_rows import decoded
from rollforge.export.make import DIALECTS, How, answer_of, make_demonstration, origin_of, told, why_no_answer
from rollforge.export.options import Input
from rollforge.export.pairs import (
    EQUAL_TEXTS,
    Attempt,
    Funnel,
    Left,
    Pairing,
    across,
    at_least,
    for_across,
    left_over,
    pair_up,
)
from rollforge.export.passes import Rows
from rollforge.export.target import Refused, Settings
from rollforge.export.text import loose, plain
from rollforge.records.items import Json
from rollforge.records.lossless import dumps

NAMED = 1000
"""So many rows that could not be used are named; all are counted."""


@dataclass(slots=True)
class Transformed:
    lines: dict[str, int] = field(default_factory=dict)
    """Read, per file."""
    written: int = 0
    below: int = 0
    """Rollouts under the reward threshold."""
    unusable: Counter[str] = field(default_factory=Counter)
    """By reason."""
    named: list[str] = field(default_factory=list)
    """`file:line: reason`, of the first ones."""
    notes: Counter[str] = field(default_factory=Counter)
    """What rows lost or lack, though they were written."""
    funnel: Funnel | None = None
    advice: list[str] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Of pairs: gaps, chosen rewards, rejected rewards."""

    @property
    def read(self) -> int:
        return sum(self.lines.values())


@dataclass(frozen=True, slots=True)
class ToGrpo:
    """`{input, output, ground_truth}`: the last user message, the final text, the expected answer where the row has one."""

    reward_threshold: float | None = None
    ground_truth: bool = True
    output: Literal["text", "answer"] = "text"
    """"answer": the expected answer, with which NeMo RL compares; rows without one are left out."""
    answer: str | None = None
    """Dotted path of the field with the expected answer; None: where rows usually have it."""
    reward: bool = False

    def __call__(self, record: Record, source: int, at: int, notes: Counter[str]) -> Json:
        answer = answer_of(record, self.answer)
        row: Json = {"input": _asked(record, notes)}
        if self.output == "answer":
            from rollforge.export.nemo_rl.rows import matched

            if answer is None:
                raise Refused(why_no_answer(record, self.answer))
            row["output"] = matched(answer.strip())
        else:
            row["output"] = _said(record)
            _note_calls(record, notes)
            notes["rows whose output is empty: the rollout ends without a text"] += not row["output"]
        if self.ground_truth and answer is not None:
            row["ground_truth"] = answer
        if answer is None and self.ground_truth:
            notes[f"rows without an expected answer: {why_no_answer(record, self.answer)}"] += 1
        if self.reward:
            row["reward"] = _reward(record)
        return row


@dataclass(frozen=True, slots=True)
class ToSft:
    """`{messages, tools}`, the whole conversation, or `{input, output}`, the last question and the final text."""

    reward_threshold: float = 0.95
    format: Literal["openai", "simple"] = "openai"

    def __call__(self, record: Record, source: int, at: int, notes: Counter[str]) -> Json:
        from rollforge.export.nemo_rl.rows import sft

        if self.format == "openai":
            row = sft(make_demonstration(record, origin_of(record, source, at), _HOW), _SETTINGS)
            for what in {what for _, what in loose(row["messages"])}:
                notes[f"rows with {what}"] += 1
            return row
        said = _said(record)
        if not said:
            raise Refused("the final text is empty")
        _note_calls(record, notes)
        return {"input": _asked(record, notes), "output": said}


def transform_rows(
    files: Sequence[str | Path], output: str | Path | None, make: ToGrpo | ToSft, workers: int = 1
) -> Transformed:
    """One row per rollout from the threshold on, in the order of the files. `output` None: standard output. Nothing is
    written where no row could be made. Raises `UserError` if a file cannot be read or written."""
    total = Transformed()
    originals = _checked(files, output)
    with written_to(output, total) as out, _beside(output) as folder:
        for block, part, lines in spread(partial(_rows, make, folder if workers > 1 else None), blocks(files), workers):
            if isinstance(lines, Path):
                with lines.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 20)
                lines.unlink()
            else:
                out.write(lines)
            _add(total, part, block)
        for one in originals:
            one.check()
    return total


def transform_pairs(files: Sequence[str | Path], output: str | Path | None, how: Pairing, workers: int = 1) -> Transformed:
    """`{prompt, chosen, rejected, reward_gap, chosen_reward, rejected_reward}`: pairs of attempts at one task."""
    funnel = Funnel()
    total = Transformed(funnel=funnel)
    originals = _checked(files, output)
    inputs = [Input("", Path(file), "", None) for file in files]
    with written_to(output, total) as out, _beside(output) as spill, Rows(inputs, eager=False) as rows:

        def write(row: Json) -> None:
            out.write(dumps(row) + b"\n")
            total.written += 1
            for place, name in enumerate(("reward_gap", "chosen_reward", "rejected_reward")):
                total.sums[place] += row[name]

        groups = grouped(_attempts(files, total, workers), itemgetter(0), spill, _AT_ONCE)
        left = Kept(spill, sort(_pairs(groups, rows, how, funnel, write), for_across, spill))
        for _, good, bad in across(left, how):
            texts: Callable[[Attempt], Texts] = partial(_texts, rows, {})
            if not _same(texts, good, bad):
                funnel.across += 1
                write(_pair(good, bad, texts))
        left.close()
        for one in originals:
            one.check()
    total.advice = funnel.advice(how)
    if same := funnel.tasks[EQUAL_TEXTS]:
        total.advice.append(
            f"tasks whose attempts end with the same text: {same:,}; where tools were called before it, "
            "rollforge export --to nemo-rl:dpo-messages keeps those turns, too"
        )
    return total


def _checked(files: Sequence[str | Path], output: str | Path | None) -> list[Original]:
    for file in files:
        refuse_alien(file)
        if output is not None and os.path.exists(output) and os.path.samefile(file, output):
            raise UserError(f"{output} is the input itself: the result would replace the rollouts; name another --output")
    return [Original(Path(file)) for file in files]


@contextmanager
def written_to(output: str | Path | None, total: Transformed) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete, and only if rows were written; standard output for None."""
    if output is None:
        import sys

        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    with reported(f"cannot make the directory {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file")
    with reported(f"cannot write {path}"):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as out:
            yield out
        if total.written:
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _beside(output: str | Path | None) -> Iterator[Path]:
    """A temporary directory on the output's disk."""
    folder = None if output is None else Path(output).absolute().parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".rollforge-") as name:
        yield Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Rows

_SETTINGS = Settings()
_HOW = How(reasoning="inline")
"""The pages' rows have no place for reasoning but the text."""


@dataclass(slots=True)
class _Part:
    read: int = 0
    written: int = 0
    below: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    places: list[tuple[int, str]] = field(default_factory=list)
    """Number of the line in the block, from 1, and the reason."""
    notes: Counter[str] = field(default_factory=Counter)

    def leave_out(self, reason: str) -> None:
        """About the line read last."""
        self.unusable[reason] += 1
        if len(self.places) < NAMED:
            self.places.append((self.read, reason))


def _rows(make: ToGrpo | ToSft, folder: Path | None, block: Block) -> tuple[Block, _Part, bytes | Path]:
    """The lines; or the file that holds them, where there is a folder for it: megabytes do not go through a pipe."""
    part, lines = _Part(), []
    for at, record in _usable(block, part):
        if make.reward_threshold is not None and not at_least(_reward(record), make.reward_threshold):
            part.below += 1
            continue
        try:
            row = make(record, block.source, at, part.notes)
            if isinstance(task := record.field("task_name"), str):
                row["task_name"] = task  # of a mix (rollforge curate --mix)
            lines.append(dumps(row))
        except (Refused, UserError) as error:
            part.leave_out(told(error))
    part.written = len(lines)
    lines.append(b"")
    made = b"\n".join(lines)
    if folder is None:
        return block, part, made
    file = folder / f"{block.source}-{block.start}"
    file.write_bytes(made)
    return block, part, file


def _usable(block: Block, part: _Part) -> Iterator[tuple[int, Record]]:
    for at, record in records(block, eager=True):
        part.read += 1
        if isinstance(record, Unusable):
            part.leave_out(record.reason)
        elif record.reward is None:
            part.leave_out(f"no reward (outcome {record.outcome})")
        else:
            yield at, record


def _reward(record: Record) -> float:
    assert record.reward is not None
    return float(record.reward)  # readers take a column's type from its first rows


def _note_calls(record: Record, notes: Counter[str]) -> None:
    called = any(item.kind == "function_call" for item in record.items())
    notes["rollouts with tool calls, which this format has no place for"] += called


def _asked(record: Record, notes: Counter[str]) -> str:
    """The last user message, as the pages have it; the last of all where no user speaks."""
    messages = record.prompt_messages()
    text = _question(messages)
    notes["prompts with system text or earlier turns, which this format has no place for"] += len(messages) > 1
    return text


@for_the_same
def _question(messages: list[Json]) -> str:
    if not messages:
        raise Refused("the prompt is empty")
    last = next((message for message in reversed(messages) if message["role"] == "user"), messages[-1])
    text = last["content"]
    if not isinstance(text, str):
        raise Refused("the prompt holds more than text")
    if not text:
        raise Refused("the prompt is empty")
    return text


def _said(record: Record) -> str:
    """The final text; what was called, where the last turn only called tools; "" if nothing was said."""
    last = record.last_message(DIALECTS["drop"])
    if last is None:
        return ""
    if not isinstance(last["content"], str):
        raise Refused("the answer holds more than text")
    text: str = last["content"]
    if not text and last.get("tool_calls"):
        for call in last["tool_calls"]:
            call["function"]["arguments"] = decoded(call["function"]["arguments"])
        text = plain([last])[0]["content"]
    return text


def _add(total: Transformed, part: _Part, block: Block) -> None:
    before = total.lines.get(block.file, 0)
    for line, reason in part.places[: NAMED - len(total.named)]:
        total.named.append(f"{block.file}:{before + line}: {reason}")
    total.lines[block.file] = before + part.read
    total.written += part.written
    total.below += part.below
    total.unusable += part.unusable
    total.notes += part.notes


# Pairs


Texts: TypeAlias = tuple[str, str]
"""Question and answer."""
Told: TypeAlias = tuple[float, int, int, int, str, str, Texts | None]
"""An `Attempt`, and its texts, if they are short enough to be kept with it."""
Run: TypeAlias = tuple[bytes, list[Told]]
"""A task, and attempts at it that stand together."""

_CARRIED = 2000
"""Characters of question and answer that are short enough: reading their row again takes longer than sorting them along."""
_AT_ONCE = 2500


def _attempts(files: Sequence[str | Path], total: Transformed, workers: int) -> Iterator[Run]:
    for block, part, runs in spread(_index, blocks(files), workers):
        _add(total, part, block)
        yield from runs


def _index(block: Block) -> tuple[Block, _Part, list[Run]]:
    part = _Part()
    runs: list[Run] = []
    for at, record in _usable(block, part):
        try:
            task, said = record.group, _said(record)
            asked = _asked(record, part.notes)
        except (Refused, UserError) as error:
            part.leave_out(told(error))
            continue
        if not said:
            part.leave_out("the final text is empty")
            continue
        _note_calls(record, part.notes)
        texts = (asked, said) if len(asked) + len(said) <= _CARRIED else None
        add_to_runs(runs, task, (_reward(record), len(said), block.source, at, "", record.env, texts))
    return block, part, runs


def _pairs(
    groups: Iterable[list[Run]], rows: Rows, how: Pairing, funnel: Funnel, write: Callable[[Json], None]
) -> Iterator[Left]:
    """Write the pairs of each task; what may make pairs of different prompts is yielded."""
    for group in groups:
        every = [one for _, run in group for one in run]
        attempts = [Attempt(*one[:6]) for one in every]
        texts = partial(_texts, rows, {one[2:4]: one[6] for one in every if one[6] is not None})
        pairs, outcome = pair_up(attempts, how, partial(_same, texts), partial(_judged, texts))
        funnel.count(attempts, outcome, len(pairs), how)
        for good, bad in pairs:
            write(_pair(good, bad, texts))
        if how.strategy == "stratified" and how.across_prompts:
            for is_high, free in zip((True, False), left_over(attempts, pairs, how), strict=True):
                yield from (Left(is_high, one) for one in free)


def _texts(rows: Rows, known: dict[Any, Texts], one: Attempt) -> Texts:
    place = (one.source, one.at)
    if place not in known:
        record = rows.at(one)
        known[place] = (_asked(record, Counter()), _said(record))
    return known[place]


def _same(texts: Callable[[Attempt], Texts], good: Attempt, bad: Attempt) -> bool:
    return _bare(texts, good) == _bare(texts, bad)


def _bare(texts: Callable[[Attempt], Texts], one: Attempt) -> str:
    return texts(one)[1].strip()


def _judged(texts: Callable[[Attempt], Texts], one: Attempt) -> tuple[float, str]:
    return one.reward, _bare(texts, one)  # its rows hold the rewards


def _pair(good: Attempt, bad: Attempt, texts: Callable[[Attempt], Texts]) -> Json:
    prompt, chosen = texts(good)
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": texts(bad)[1],
        "reward_gap": good.reward - bad.reward,
        "chosen_reward": good.reward,
        "rejected_reward": bad.reward,
    }
