"""The second pass: the rows that were kept, written once each, with their changes; and a directory that appears when it
is complete.

A row without changes is copied as the bytes it is. Orders stand in the order of the input, so a unit of work is a stretch
of one file. Where rows change, workers edit them into part files and this process joins the parts; else it copies alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import queue
import shutil
import tempfile
import threading
import time
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec

from rollforge.bulk.blocks import SIZE
from rollforge.bulk.original import Original
from rollforge.bulk.workers import spread
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads

MANIFEST = "manifest.json"


Order: TypeAlias = tuple[int, int, str, int, Json | None]
"""Write this row: (source, at, target, copies, changes). A plain tuple: there is one for every row, and they go through the
disk when there are many. The target is a file's name without `.jsonl`. The changes are top-level fields; `rollforge` is
merged into the row's own block, and a changed reward leaves the first one in `rollforge.reward_before`."""


Lines: TypeAlias = Iterable[bytes | memoryview]
Part: TypeAlias = tuple[str, int, Lines | str]
"""(target, rows, their lines, or the name of a file that holds them)"""


_LINES = 20_000
"""Of a unit, copies included."""


class Unit(NamedTuple):
    file: Original
    orders: list[Order]


def units(orders: Iterable[Order], files: Sequence[Original], size: int) -> Iterator[Unit]:
    """Orders, sorted by place, in stretches of about `size` bytes."""
    held: list[Order] = []
    source = end = -1
    lines = 0
    for order in orders:
        if order[1] >= end or order[0] != source or lines >= _LINES:
            if held:
                yield Unit(files[source], held)
                held = []
            source, end, lines = order[0], order[1] + size, 0
        held.append(order)
        lines += order[3]
    if held:
        yield Unit(files[source], held)


_NEAR = 1 << 20
# What is read, cut, hashed and written by one core stays in its cache.
_TAIL = 1 << 14
# Where a unit ends is not known; most last lines are shorter, and are read in one go with the others.


def write(orders: Iterable[Order], files: Sequence[Original], folder: Path, *, changed: bool, workers: int) -> list[Json]:
    """Carry out all orders; `changed`: whether any has changes. Returns an entry of the manifest for each file."""
    outputs: dict[str, _Output] = {}
    made: Iterable[Sequence[Part]]
    if changed and workers > 1:
        made = spread(partial(_parts, folder=folder), units(orders, files, SIZE), workers)
    else:
        made = map(_cut, units(orders, files, _NEAR))
    try:
        for parts in made:
            for target, rows, lines in parts:
                if target not in outputs:
                    outputs[target] = _Output(folder / f"{target}.jsonl", threads=workers > 1)
                outputs[target].add(rows, _read(lines) if isinstance(lines, str) else lines)
        return [output.done() for output in outputs.values()]
    finally:
        for output in outputs.values():
            output.close()


def _cut(unit: Unit) -> list[tuple[str, int, Lines]]:
    """(target, rows, lines) for each target."""
    first, last = unit.orders[0][1], unit.orders[-1][1]
    with unit.file.open() as raw, BufferedReader(raw) as file:
        file.seek(first)
        data = file.read(last - first + _TAIL)
        if data.find(b"\n", last - first) < 0:
            data += file.readline()
    view = memoryview(data)
    pieces: dict[str, list[bytes | memoryview]] = {}
    rows: dict[str, int] = {}
    # Lines that follow each other and go to the same file unchanged are one piece.
    start = stop = 0
    into = ""
    for _, place, target, copies, changes in unit.orders:
        at = place - first
        end = data.find(b"\n", at) + 1
        rows[target] = rows.get(target, 0) + copies
        plain = changes is None and copies == 1 and end and place
        if plain and at == stop and target == into:
            stop = end
            continue
        if stop > start:
            pieces.setdefault(into, []).append(view[start:stop])
        start, stop, into = (at, end, target) if plain else (0, 0, "")
        if plain:
            continue
        # The first line may begin with a mark of its encoding, the last may lack its end.
        text = data[at : end or len(data)].strip()
        text = text.removeprefix(BOM_UTF8).strip() if place == 0 else text
        line = (text if changes is None else _edited(text, changes)) + b"\n"
        pieces.setdefault(target, []).extend([line] * copies)
    if stop > start:
        pieces.setdefault(into, []).append(view[start:stop])
    return [(target, rows[target], _stretches(lines)) for target, lines in pieces.items()]


def _stretches(pieces: Lines) -> Lines:
    """A megabyte or a piece at a time: copies of a line are one piece in memory, and gigabytes together."""
    held: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _NEAR:
            yield _joined(held)
            held, size = [], 0
    if held:
        yield _joined(held)


def _joined(pieces: list[bytes | memoryview]) -> bytes | memoryview:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _parts(unit: Unit, folder: Path) -> list[Part]:
    """The same with the lines in files: megabytes do not go through a pipe."""
    parts: list[Part] = []
    for target, rows, lines in _cut(unit):
        handle, name = tempfile.mkstemp(".part", dir=folder)
        with open(handle, "wb") as file:
            file.writelines(lines)
        parts.append((target, rows, name))
    return parts


def _read(name: str) -> Iterator[bytes]:
    """What a part file holds; it is removed."""
    with open(name, "rb") as file:
        os.unlink(name)
        while data := file.read(SIZE):
            yield data


_SPLIT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def _edited(line: bytes, changes: Json) -> bytes:
    # What does not change stays the bytes that it is: a number of 400 digits cannot be written anew.
    split = _SPLIT.decode
    row = split(line) or {}
    block = split(row.get("rollforge", b"null")) or {}
    before = row.get("reward", msgspec.Raw(b"null"))
    if "reward" in changes and changes["reward"] != loads(bytes(before)):
        block.setdefault("reward_before", before)
    label = row.get("task_name", b"null")
    if "task_name" in changes and loads(bytes(label)) not in (None, changes["task_name"]):
        block.setdefault("task_name_before", label)
    block |= _raw(changes.get("rollforge") or {})
    row |= _raw(changes)
    if block:
        row["rollforge"] = msgspec.Raw(msgspec.json.encode(block))
    return msgspec.json.encode(row)


def _raw(fields: Json) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(dumps(value)) for name, value in fields.items()}


class _Output:
    """A file and its hash; the hash in a thread, where more than one core may be used."""

    def __init__(self, path: Path, threads: bool) -> None:
        self._path = path
        self._file = open(path, "wb", buffering=0)
        self._hash = hashlib.sha256()
        self._rows = self._size = 0
        self._queue: queue.Queue[bytes | memoryview | None] = queue.Queue(2)
        self._thread = threading.Thread(target=self._follow, daemon=True) if threads else None
        if self._thread:
            self._thread.start()

    def add(self, rows: int, lines: Lines) -> None:
        for data in lines:
            if self._thread:
                self._queue.put(data)
            else:
                self._hash.update(data)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._size += len(data)
        self._rows += rows

    def done(self) -> Json:
        self.close()
        return {"file": self._path.name, "rows": self._rows, "bytes": self._size, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        if self._thread:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._file.close()

    def _follow(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hash.update(data)


class Draft:
    """A directory under another name until `publish()`; without it nothing remains, nor after a kill once run again.

    It is made in `.NAME.curating` beside the final one. `overwrite`: of an earlier directory of this kind (it has a
    manifest.json) the files that its manifest names give way at `publish()`, not before; what else stands there stays.

        lock    whoever holds it is at work; without a holder the rest is a killed run's
        new     what is written
        old     the earlier directory, between the renames: put back if this run is killed there
        gone    what is being removed
    """

    def __init__(self, out: Path, overwrite: bool = False) -> None:
        self.out = out
        self.carried: list[str] = []
        """What no curation had written, and is in the new directory."""
        self._overwrite = overwrite
        if not out.name:
            raise UserError(f"--out {out} names no directory of its own")

    @property
    def folder(self) -> Path:
        return self._place / "new"

    def __enter__(self) -> Self:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            # Where the directory itself cannot be renamed, its files are.
            self._within = self.out.is_dir() and (os.path.ismount(self.out) or not os.access(self.out.parent, os.W_OK))
            self._place = (self.out if self._within else self.out.parent) / f".{self.out.name}.curating"
            self._lock = self._locked()
            try:
                self._restore()
                self._check()
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
            except BaseException:
                self._leave()
                raise
        except OSError as error:
            raise UserError(f"cannot write {self.out}: {error.strerror or error} ({error.filename})") from error
        return self

    def publish(self) -> None:
        if self._within:
            self._move_in(self.folder)
            return
        old = self._place / "old"
        try:
            if self.out.exists():
                os.rename(self.out, old)
            os.rename(self.folder, self.out)
        except OSError as error:
            if old.exists():
                os.rename(old, self.out)
            if error.errno != errno.EBUSY:
                raise
            # A mount that looks like any other directory.
            with tempfile.TemporaryDirectory(dir=self.out, prefix=f".{self.out.name}.curating-") as here:
                self._move_in(Path(shutil.copytree(self.folder, here, dirs_exist_ok=True)))
            return
        self._settle(old)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot write {self.out}: {error.strerror or error}; it is as before") from error

    def _locked(self) -> int:
        path = self._place / "lock"
        if os.path.lexists(self._place) and not {one.name for one in self._place.iterdir()} <= {"lock", *_PARTS}:
            raise UserError(f"{self._place} is there, and no curation made it: rename it, or give another --out")
        self._place.mkdir(exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            _lock(lock)
            if not os.path.samestat(os.fstat(lock), os.stat(path)):
                raise BlockingIOError(f"{path} was another's")
        except OSError:
            os.close(lock)
            raise UserError(f"another command is writing {self.out} at this moment") from None
        return lock

    def _restore(self) -> None:
        """After a kill between the renames."""
        old = self._place / "old"
        shutil.rmtree(self._place / "gone", ignore_errors=True)
        if old.exists() and not self.out.exists():
            os.rename(old, self.out)
        self._settle(old)

    def _check(self) -> None:
        out = self.out
        if not out.exists():
            return
        if not out.is_dir():
            raise UserError(f"{out} is a file; --out names a directory")
        if all(one == self._place or one.name == "lost+found" for one in out.iterdir()):
            return
        if not self._overwrite:
            raise UserError(f"{out} is there already; another --out, or --overwrite to replace it")
        if not _written(out):
            raise UserError(
                f"{out} has no {MANIFEST} of a curation, so it is not a data set made here: remove it yourself if it may go"
            )

    def _settle(self, old: Path) -> None:
        """Take over what no curation wrote from the directory that was there before; the rest of it goes."""
        if not old.exists():
            return
        written = _written(old)
        for one in sorted(old.iterdir()):
            if one.name not in written:
                to = _free(self.out / one.name)
                os.rename(one, to)
                self.carried.append(to.name)
        # Under this name it is not looked at again, should this run be killed now.
        gone = self._place / "gone"
        os.rename(old, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _move_in(self, folder: Path) -> None:
        """File by file, the manifest last."""
        written = _written(self.out)
        for one in [one for one in self.out.iterdir() if one.name in written and one.is_file()]:
            one.unlink()
        self.carried = sorted(one.name for one in self.out.iterdir() if one not in (self._place, folder))
        for one in sorted(folder.iterdir(), key=lambda one: one.name == MANIFEST):
            if one.name in self.carried:
                os.rename(self.out / one.name, _free(self.out / one.name))
            os.rename(one, self.out / one.name)

    def _leave(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self._restore()
            os.unlink(self._place / "lock")
            self._place.rmdir()
        os.close(self._lock)


def _lock(handle: int) -> None:
    """Raises `BlockingIOError`. The workers of a command that was killed have its lock until they notice: half a second."""
    for _ in range(20):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


_PARTS = ("new", "old", "gone")


def _written(folder: Path) -> set[str]:
    """The files of a curation, by its manifest; none where there is no manifest."""
    try:
        manifest = loads((folder / MANIFEST).read_bytes())
        return {MANIFEST, *(str(file["file"]) for file in manifest["outputs"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _free(path: Path) -> Path:
    while os.path.lexists(path):
        path = path.with_name(f"{path.name}.old")
    return path


def small(folder: Path, name: str, text: str) -> Json:
    """Write a small file; its entry in the manifest."""
    data = text.encode()
    (folder / name).write_bytes(data)
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def json_text(value: Any) -> str:
    # ASCII only: texts of models in it cannot steer a terminal. By way of `dumps`: names of files need not be Unicode.
    import json

    return json.dumps(json.loads(dumps(value)), indent=2, allow_nan=False) + "\n"
