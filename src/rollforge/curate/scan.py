"""The first pass: a sample for every row with a verdict, made in workers; all other lines, counted by reason."""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rollforge.bulk.blocks import Block, Unusable, lines, read
from rollforge.bulk.original import Original, replaced
from rollforge.curate.report import Tally
from rollforge.curate.step import Fact, Sample, complete
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import loads
from rollforge.stats.source import find_each


@dataclass(frozen=True, slots=True)
class Input:
    path: Path
    run: str
    """As the user named it."""
    env: str
    """For rows that do not name their environment."""
    split: str | None = None


@dataclass(slots=True)
class Scanned:
    """What is known of a block's lines."""

    source: int
    samples: list[Sample] = field(default_factory=list)
    """Of the rows with a verdict."""
    lost: list[tuple[int, str]] = field(default_factory=list)
    """Rows that no step sees: (at, why), such as "no verdict: timeout"."""
    bad: list[tuple[int, Unusable]] = field(default_factory=list)
    """Lines that are no rows."""
    read: dict[str, Tally] = field(default_factory=dict)
    """Of the rows, by environment."""


def inputs(runs: Sequence[str | Path]) -> list[Input]:
    """The files of all runs. Raises `UserError` for what is not there, and for what is there twice."""
    found = [
        Input(path, source.name, source.env, source.splits[number] if source.splits else None)
        for source in find_each(runs)
        for number, path in enumerate(source.files)
    ]
    if not found:
        raise UserError("no runs given")
    return found


def scan(block: Block, *, inputs: Sequence[Input], facts: Mapping[str, Fact]) -> Scanned:
    found = Scanned(block.source)
    source, given = block.source, inputs[block.source]
    names = {"": given.env}  # one string for all rows of an environment: pickled once
    computed = facts.items()
    eager = False
    for at, line in lines(block):
        record = read(line, eager=eager)
        if isinstance(record, Unusable):
            found.bad.append((at, record))
            continue
        if record.reward is None:
            found.lost.append((at, f"no verdict: {record.outcome}"))
            continue
        named = record.env
        try:
            prompt = record.prompt
            # Of the row's own environment: shards of one file are no two environments.
            group = record.group
        except (UserError, ValueError) as error:
            found.bad.append((at, Unusable(str(error), record.line[:60])))
            continue
        record.env = env = names.setdefault(named, named)
        try:
            known = {name: fact(record) for name, fact in computed}
        except (UserError, ValueError) as error:
            found.lost.append((at, str(error)))
            continue
        eager = record.answered  # what the facts asked of this row they will ask of the next
        # A row that has its environment from the name of its file takes it along.
        changes: Json = {} if named else {"rollforge": {"env": env}}
        tally = found.read.get(env)
        if tally is None:
            tally = found.read[env] = Tally()
        tally.add(record.reward)
        found.samples.append(Sample(source, at, env, group, prompt, record.reward, known, changes, given.split))
    for name, fact in computed:
        complete(name, fact, found.samples)
    return found


_NEEDED = (
    "a rollout is one object a line with responses_create_params (what was asked), response.output (what the model did) and "
    "reward, as rollforge collect and ng_collect_rollouts write them"
)


def other_rows(file: Path) -> str | None:
    """What a file without a single usable rollout holds instead, by its first line, and what a rollout needs."""
    with open(file, "rb") as handle:
        lines = (line.removeprefix(BOM_UTF8).strip() for line in handle)
        first = next((line for line in lines if line), None)
    if first is None:
        return None
    try:
        row = loads(first)
    except ValueError:
        table = file.suffix == ".csv" or (b"," in first and first[:1] not in b"{[")
        return f"it holds {'rows of CSV' if table else 'lines that are not JSON'}: {_NEEDED}"
    if not isinstance(row, dict):
        return f"its lines are JSON, but no objects: {_NEEDED}"
    keys = ", ".join(list(row)[:8]) or "none"
    if not {"response", "output"} & row.keys():
        if {"prompt", "responses_create_params"} & row.keys() and not {"completion", "chosen"} & row.keys():
            return f"it holds tasks (keys: {keys}), which nobody has answered: rollforge collect makes rollouts of them"
        if {"messages", "conversations", "completion", "chosen"} & row.keys():
            return f"it holds a trainer's examples (keys: {keys}), not rollouts: {_NEEDED}"
    wrong = _wrong(first) if {"responses_create_params", "reward"} <= row.keys() else None
    return f"in its first row: {wrong}" if wrong else f"its rows have the keys {keys}: {_NEEDED}"


def _wrong(line: bytes) -> str | None:
    try:
        record = read(line)
        if isinstance(record, Unusable):
            return record.reason
        _ = record.group, record.items()
    except (UserError, ValueError) as error:
        return str(error)
    return None


class Hashing:
    """Blocks as they pass by on their way to the workers, and what the files hold: no further pass for the hashes."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [Original(path) for path in files]
        self._hashes = [hashlib.sha256() for _ in files]
        self._room = memoryview(bytearray(1 << 18))
        self.sizes = [0] * len(files)

    def through(self, blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            self._add(self._hashes[block.source], block.source, block.start, block.end)
            self.sizes[block.source] = block.end
            yield block

    def check(self) -> None:
        """Raises `UserError` for files in which no longer stands what was hashed: what is known of them is wrong."""
        for source, (file, size) in enumerate(zip(self.files, self.sizes, strict=True)):
            file.open().close()
            if not file.untouched():
                again = hashlib.sha256()
                self._add(again, source, 0, size)
                if again.digest() != self._hashes[source].digest():
                    raise replaced(file.path)

    def row(self, source: int) -> Json:
        return {"bytes": self.sizes[source], "sha256": self._hashes[source].hexdigest()}

    def _add(self, to: hashlib._Hash, source: int, start: int, end: int) -> None:
        with self.files[source].open() as file:
            file.seek(start)
            while start < end:
                size = file.readinto(self._room[: end - start])
                if not size:
                    raise replaced(self.files[source].path)
                to.update(self._room[:size])
                start += size
