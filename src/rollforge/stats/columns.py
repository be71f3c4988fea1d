"""One streaming pass over rollouts: a few numbers of each are kept in columns, the rows themselves are not.

    rows of a block ─► Part (numbers in memory) ─► Columns (the same for all blocks, on disk beyond some thousands)

Parts can be made in several processes. A judged rollout costs about 150 bytes of disk, whatever its length.
"""

from __future__ import annotations

import pickle
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rollforge.records.rollout import Outcome

MOST_COLUMNS = 400
MOST_TOOLS = 1000
"""Names come from data: beyond these, further ones are left out, so that hostile rows cannot fill the memory."""
MOST_ENVS = 1000
"""The rows of further ones count as those of one."""

MARKS = ("task", "key", "prompt", "answer", "reply", "conversation")


@dataclass(frozen=True, slots=True)
class Label:
    """What a task is called."""

    mark: int
    """The 64-bit hash of what tells it from others."""
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
class Part:
    """Some judged rollouts of one environment, in the order they were read."""

    size: int = 0
    numbers: dict[str, array[float]] = field(default_factory=dict)
    """Columns by name; one that ends early is unknown for the rest, as is NaN."""
    marks: dict[str, array[int]] = field(default_factory=dict)
    """By `MARKS`: 64-bit hashes; 0 is none."""
    labels: dict[int, Label] = field(default_factory=dict)
    tools: dict[str, ToolUse] = field(default_factory=dict)
    cuts: Counter[str] = field(default_factory=Counter)
    """Why answers were cut short."""
    judged: Counter[Outcome] = field(default_factory=Counter)
    _names: tuple[str, ...] = ()
    _numbers: list[tuple[float, ...]] = field(default_factory=list)
    _marks: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, numbers: dict[str, float], marks: tuple[int, ...]) -> None:
        """Append a row; `marks` as in `MARKS`."""
        names = tuple(numbers)
        if names != self._names:
            # Rows with the same names follow each other, nearly always.
            self.done()
            self._names = names
        self._numbers.append(tuple(numbers.values()))
        self._marks.append(marks)

    def done(self) -> None:
        """After the last row, and wherever the names change."""
        if not self._numbers:
            return
        for name, values in zip(self._names, zip(*self._numbers, strict=True), strict=True):
            column = self.numbers.get(name)
            if column is None:
                if len(self.numbers) >= MOST_COLUMNS:
                    continue
                column = self.numbers[name] = array("d")
            column.extend([nan] * (self.size - len(column)))
            column.extend(values)
        for name, marks in zip(MARKS, zip(*self._marks, strict=True), strict=True):
            self.marks.setdefault(name, array("q")).extend(marks)
        self.size += len(self._marks)
        self._numbers.clear()
        self._marks.clear()


class Store:
    """Bytes in memory while they are few, then in a file without a name that goes away with the store."""

    IN_MEMORY = 4 << 20

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(self.IN_MEMORY, prefix="rollforge-")
        self._end = 0
        weakref.finalize(self, self._file.close)

    def write(self, content: bytes) -> int:
        """Where it was put."""
        self._file.seek(self._end)
        self._file.write(content)
        at, self._end = self._end, self._end + len(content)
        return at

    def read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)


class Column:
    """Numbers of one kind, one per row."""

    AT_ONCE = 8192
    """Values kept in memory."""

    def __init__(self, store: Store, kind: Literal["d", "q"]) -> None:
        self._store = store
        self._kind = kind
        self._last: array[Any] = array(kind)
        self._chunks: list[tuple[int, int]] = []
        self._stored = 0

    def __len__(self) -> int:
        return self._stored + len(self._last)

    def extend(self, values: array[Any]) -> None:
        self._last.extend(values)
        if len(self._last) >= self.AT_ONCE:
            content = self._last.tobytes()
            self._chunks.append((self._store.write(content), len(content)))
            self._stored += len(self._last)
            self._last = array(self._kind)

    def pad(self, size: int) -> None:
        """NaN up to `size`."""
        while len(self) < size:
            self.extend(array("d", [nan]) * min(size - len(self), self.AT_ONCE))

    def read(self) -> NDArray[Any]:
        parts = [np.frombuffer(self._store.read(at, size), self._kind) for at, size in self._chunks]
        return np.concatenate([*parts, np.frombuffer(self._last.tobytes(), self._kind)])


class Columns:
    """The judged rollouts of one environment."""

    def __init__(self, name: str, store: Store | None = None) -> None:
        self.name = name
        self.size = 0
        self.numbers: dict[str, Column] = {}
        self.marks: dict[str, Column] = {}
        self.tools: dict[str, ToolUse] = {}
        self.cuts: Counter[str] = Counter()
        self.judged: Counter[Outcome] = Counter()
        self._store = store or Store()
        self._labels: list[tuple[int, int]] = []

    def extend(self, part: Part) -> None:
        for name, values in part.numbers.items():
            column = self.numbers.get(name)
            if column is None:
                if len(self.numbers) >= MOST_COLUMNS:
                    continue
                column = self.numbers[name] = Column(self._store, "d")
            column.pad(self.size)
            column.extend(values)
        for name, marks in part.marks.items():
            self.marks.setdefault(name, Column(self._store, "q")).extend(marks)
        for name, use in part.tools.items():
            sofar = self.tools.get(name)
            if sofar is None and len(self.tools) < MOST_TOOLS:
                sofar = self.tools[name] = ToolUse()
            if sofar is not None:
                sofar.calls += use.calls
                sofar.errors += use.errors
                sofar.rollouts += use.rollouts
        self.cuts += part.cuts
        self.judged += part.judged
        content = pickle.dumps(list(part.labels.values()))
        self._labels.append((self._store.write(content), len(content)))
        self.size += part.size

    def labels(self) -> Iterator[Label]:
        """Of all tasks in the order they were first read; those that several parts saw come again."""
        for at, size in self._labels:
            yield from pickle.loads(self._store.read(at, size))
