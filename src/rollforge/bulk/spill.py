"""What does not fit into memory: sorting, and sequences that are read again, through temporary files."""

from __future__ import annotations

import heapq
import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")

AT_ONCE = 50_000
"""How many items are held in memory; they are small (a hundred bytes or two)."""
_OPEN = 32
"""So many sorted files become one: a process has a few hundred descriptors, and several steps sort at the same time."""
_BATCH = 1000
_TOGETHER = 16


def add_to_runs(runs: list[tuple[K, list[T]]], key: K, item: T) -> None:
    """Items that share a key and stand together, at most `_TOGETHER`, become one: few are sorted sooner than many."""
    if not runs or runs[-1][0] != key or len(runs[-1][1]) >= _TOGETHER:
        runs.append((key, []))
    runs[-1][1].append(item)


def sort(items: Iterable[T], key: Callable[[T], Any], folder: str | Path, at_once: int = AT_ONCE) -> Iterator[T]:
    """The items in the order of their keys; equal ones stay in the order in which they came. Items must be picklable."""
    held = Sorted(key, folder, at_once)
    try:
        for item in items:
            held.add(item)
        yield from held
    finally:
        held.close()


def grouped(items: Iterable[T], key: Callable[[T], Any], folder: str | Path, at_once: int = AT_ONCE) -> Iterator[list[T]]:
    """The items that share a key, group by group, in the order of the keys."""
    group: list[T] = []
    last: Any = None
    for item in sort(items, key, folder, at_once):
        this = key(item)
        if group and this != last:
            yield group
            group = []
        group.append(item)
        last = this
    if group:
        yield group


class Sorted(Generic[T]):
    """Items in any order, handed back by their keys, equal ones in the order in which they came."""

    def __init__(self, key: Callable[[T], Any], folder: str | Path, at_once: int = AT_ONCE) -> None:
        self._key, self._folder, self._at_once = key, folder, at_once
        self._here: list[T] = []
        self._runs: list[list[Kept[T]]] = []
        """By how often their items were merged: the most often, which came first, in the last list."""

    def add(self, item: T) -> None:
        self._here.append(item)
        if len(self._here) >= self._at_once:
            self._here.sort(key=self._key)
            self._keep(self._here, 0)
            self._here = []

    def __iter__(self) -> Iterator[T]:
        self._here.sort(key=self._key)
        runs = [kept for level in reversed(self._runs) for kept in level]
        return heapq.merge(*runs, self._here, key=self._key) if runs else iter(self._here)

    def close(self) -> None:
        for level in self._runs:
            for kept in level:
                kept.close()

    def _keep(self, run: Iterable[T], level: int) -> None:
        if level == len(self._runs):
            self._runs.append([])
        runs = self._runs[level]
        runs.append(Kept(self._folder, run))
        if len(runs) == _OPEN:
            self._keep(heapq.merge(*runs, key=self._key), level + 1)
            for kept in runs:
                kept.close()
            runs.clear()


class Kept(Generic[T]):
    """Items on disk, in order, to be read as often as needed. The file has no name: it goes away with the process."""

    def __init__(self, folder: str | Path, items: Iterable[T] = ()) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix="rollforge-")
        weakref.finalize(self, self._file.close)
        self._count = 0
        source = iter(items)
        try:
            while batch := list(islice(source, _BATCH)):
                pickle.dump(batch, self._file, pickle.HIGHEST_PROTOCOL)
                self._count += len(batch)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        # By place, not by the file's own position: several readers may be at it at once.
        at = 0
        left = self._count
        while left > 0:
            self._file.seek(at)
            batch: list[T] = pickle.load(self._file)
            at = self._file.tell()
            left -= len(batch)
            yield from batch

    def close(self) -> None:
        self._file.close()
