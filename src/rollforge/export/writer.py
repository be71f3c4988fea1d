"""Rows to files: parts by the workers, put together by the parent with one row of every shape first.

    worker: rows of one unit ─► Sheet ─► one part file, segments by (split, environment) ─► Segment (little)
    parent: segments in order ─► the file: rows of new shapes, then all the others; hashed on the way

Readers that guess the types of a JSONL file from its first 10 MB (`datasets.load_dataset("json")`) fail on what only later
rows show, or fill nulls into it. With every shape at the head they
see that a field is mixed, and keep its objects as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

from rollforge.bulk.parquet import arrow
from rollforge.bulk.record import for_the_same
from rollforge.export.examples import Origin
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads

SPLITS = ("train", "validation", "test")


@dataclass(slots=True)
class Tally:
    """What is known of written rows."""

    rows: int = 0
    longest_prompt: int = 0
    longest: int = 0
    answered: int = 0
    desirable: int = 0
    """Judged answers that are good."""
    lacking: Counter[str] = field(default_factory=Counter)
    """Prompts without an expected answer, by why."""
    tools: bool = False
    parallel: int = 0
    """Rows with several calls in one turn; counted where the model's template refuses them."""
    loose: Counter[str] = field(default_factory=Counter)
    """Rows with calls or results that do not belong together, by what they have."""
    over: int = 0
    """Rows longer than `Settings.max_length`."""
    envs: Counter[str] = field(default_factory=Counter)
    rewards: Counter[float] = field(default_factory=Counter)
    """By reward (of the chosen one, of a pair), to one place and four digits: many different rewards are few of these."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Rows by the bits of their tokens: 10 is 512 to 1023."""

    def count(self, env: str, reward: float, prompt: int, tokens: int, answered: bool, tools: bool) -> None:
        self.rows += 1
        if prompt > self.longest_prompt:
            self.longest_prompt = prompt
        if tokens > self.longest:
            self.longest = tokens
        self.answered += answered
        self.tools = self.tools or tools
        self.envs[env] += 1
        self.rewards[round(float(f"{reward:.4g}"), 1)] += 1
        self.lengths[tokens.bit_length()] += 1

    def add(self, other: Tally) -> None:
        self.rows += other.rows
        self.longest_prompt = max(self.longest_prompt, other.longest_prompt)
        self.longest = max(self.longest, other.longest)
        self.answered += other.answered
        self.desirable += other.desirable
        self.tools = self.tools or other.tools
        self.parallel += other.parallel
        self.over += other.over
        # Not `+=`, which looks through all that is there, each time.
        self.lacking.update(other.lacking)
        self.loose.update(other.loose)
        self.envs.update(other.envs)
        self.rewards.update(other.rewards)
        self.lengths.update(other.lengths)


@dataclass(slots=True)
class Segment:
    """Rows of one split and environment in a part file, and where each of them comes from."""

    part: str
    split: str
    env: str
    start: int
    middle: int
    """Rows up to here, their origins after it."""
    end: int
    heads: dict[bytes, tuple[int, int, int]]
    """Shape -> the first row that has it: its number, start and end, counted from the segment's start."""


class Sheet:
    """The rows that one unit of work makes for one target, in a part file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._at = 0
        self._columns: dict[tuple[str, str], _Column] = {}
        self._segments: list[tuple[Segment, Tally]] = []

    def add(self, split: str, env: str, row: Json, line: bytes, origins: tuple[Origin, ...]) -> Tally:
        """`line` is the dumped row. Returns the tally, for the caller to count in."""
        column = self._columns.get((split, env))
        if column is None:
            column = self._columns[split, env] = _Column()
        elif column.size >= _SEGMENT:
            self._flush(split, env, column)
        end = column.size + len(line) + 1
        for shape in new_shapes(row, column.known):
            column.heads[_digest(shape)] = (len(column.lines), column.size, end)
        column.size = end
        column.lines.append(line)
        column.origins.append("\t".join([f"{_cell_text(one.id)}\t{one.source}\t{one.at}" for one in origins]).encode())
        return column.tally

    def close(self) -> list[tuple[Segment, Tally]]:
        """What it wrote, with what is known of the rows."""
        for (split, env), column in self._columns.items():
            self._flush(split, env, column)
        if self._file is not None:
            self._file.close()
        return self._segments

    def _flush(self, split: str, env: str, column: _Column) -> None:
        if self._file is None:
            self._file = open(self._path, "wb", buffering=0)
        column.lines.append(b"")
        column.origins.append(b"")
        rows, origins = b"\n".join(column.lines), b"\n".join(column.origins)
        self._file.write(rows)
        self._file.write(origins)
        start, middle = self._at, self._at + len(rows)
        self._at = middle + len(origins)
        segment = Segment(str(self._path), split, env, start, middle, self._at, column.heads)
        self._segments.append((segment, column.tally))
        column.empty()


class _Column:
    """Rows of one split and environment that are not written yet."""

    __slots__ = ("heads", "known", "lines", "origins", "size", "tally")

    def __init__(self) -> None:
        self.known: dict[Any, None] = {}
        self.empty()

    def empty(self) -> None:
        self.lines: list[bytes] = []
        self.origins: list[bytes] = []
        self.heads: dict[bytes, tuple[int, int, int]] = {}
        self.size = 0
        self.tally = Tally()


def _cell_text(name: str) -> str:
    return name if name.isprintable() else dumps(name).decode()


@dataclass(slots=True)
class Written:
    name: str
    split: str
    env: str | None
    size: int
    sha256: str
    tally: Tally


class Hashed:
    """A file being written, with its size and hash."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> str:
        """The SHA-256."""
        self._file.close()
        return self._hash.hexdigest()


class Parts:
    """The segments of one target, as they arrive; `write` makes its files of them."""

    def __init__(self, *, per_env: bool = False, pairs: bool = False, columns: Mapping[str, str] | None = None) -> None:
        self._per_env = per_env
        self._origins = PAIR if pairs else ROLLOUT
        self._columns = columns
        """Given: Parquet."""
        if columns is not None:
            arrow()
        self._segments: dict[tuple[str, str | None], list[Segment]] = {}
        """By file: split, and environment where each has its own."""
        self._tallies: dict[tuple[str, str | None], Tally] = {}
        self._seen: dict[tuple[str, str | None], set[bytes]] = {}

    def add(self, segments: Iterable[tuple[Segment, Tally]]) -> None:
        for segment, tally in segments:
            file = (segment.split, segment.env if self._per_env else None)
            self._tallies.setdefault(file, Tally()).add(tally)
            seen = self._seen.setdefault(file, set())
            new = segment.heads if len(seen) < _SHAPES else {}
            segment.heads = {shape: place for shape, place in new.items() if shape not in seen}
            seen.update(segment.heads)
            self._segments.setdefault(file, []).append(segment)

    def write(self, folder: Path) -> list[Written]:
        """The files in `folder`, and `lineage.tsv`. Part files are deleted as they are used up.

        Without any row for training, what was held out for validation is trained on.
        """
        held = self._segments
        splits = {split for split, _ in held}
        alone = "train" not in splits and "validation" in splits
        envs = sorted({env for _, env in held if env is not None})
        names = file_names(envs) if len(envs) > 1 else {}
        left = Counter(segment.part for segments in held.values() for segment in segments)
        files: list[Written] = []
        lineage = Hashed(folder / LINEAGE)
        lineage.write("\t".join(("file", "row", *self._origins)).encode() + b"\n")
        for split in SPLITS:
            for env in envs if self._per_env else [None]:
                if (split, env) not in held:
                    continue
                name = "train" if alone and split == "validation" else split
                stem = f"{name}-{names[env]}" if env is not None and env in names else name
                files.append(self._file(folder / stem, name, (split, env), left, lineage))
        lineage.close()
        return files

    def _file(self, stem: Path, split: str, held: tuple[str, str | None], left: Counter[str], lineage: Hashed) -> Written:
        columns = self._columns
        path = stem.with_name(f"{stem.name}.{'jsonl' if columns is None else 'parquet'}")
        file = Hashed(path) if columns is None else _Parquet(path, columns)
        row = 0
        for lines, origins in _covered(self._segments[held], left, cover=columns is None):
            file.write(lines)
            text = bytearray()
            for origin in origins:
                row += 1
                text += b"%s\t%d\t%s\n" % (path.name.encode(), row, origin)
            lineage.write(bytes(text))
        digest = file.close()
        return Written(path.name, split, held[1], file.size, digest, self._tallies[held])


LINEAGE = "lineage.tsv"
"""file, row (from 1), then for each rollout it was made of: its id, the number of its file, where its line begins."""
ROLLOUT = ("rollout", "source", "byte")
PAIR = ("chosen", "chosen_source", "chosen_byte", "rejected", "rejected_source", "rejected_byte")


def file_names(envs: Iterable[str]) -> dict[str, str]:
    """A part of a file's name for each environment: letters, digits, `_` and `-`, all different (whatever their case)."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for env in envs:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", env)[:80] or "env"
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        names[env] = name
    return names


def _covered(segments: list[Segment], left: Counter[str], cover: bool) -> Iterator[tuple[bytes, list[bytes]]]:
    """(whole lines, their origins): the first row of every shape, then the others in order."""
    moved: dict[int, dict[int, tuple[int, int]]] = {}
    if cover:
        seen: set[bytes] = set()
        size = 0
        for number, segment in enumerate(segments):
            for shape, (row, start, end) in segment.heads.items():
                if shape not in seen and size + end - start <= _HEAD:
                    seen.add(shape)
                    mine = moved.setdefault(number, {})
                    size += 0 if row in mine else end - start
                    mine[row] = (start, end)
        for number, rows in moved.items():
            data, origins = _read(segments[number])
            for row, (start, end) in sorted(rows.items()):
                yield data[start:end], [origins[row]]
    for number, segment in enumerate(segments):
        data, origins = _read(segment)
        left[segment.part] -= 1
        if not left[segment.part]:
            os.unlink(segment.part)
        at, row = 0, 0
        for hole, (start, end) in sorted(moved.get(number, {}).items()):
            if row < hole:
                yield data[at:start], origins[row:hole]
            at, row = end, hole + 1
        if row < len(origins):
            yield (data[at:] if at else data), origins[row:]


def _read(segment: Segment) -> tuple[bytes, list[bytes]]:
    with open(segment.part, "rb") as file:
        file.seek(segment.start)
        rows = file.read(segment.middle - segment.start)
        return rows, file.read(segment.end - segment.middle).splitlines()


_SHAPES = 1000
"""Shapes looked for in one unit of work, and in one file."""
_SEGMENT = 1 << 19
"""Bytes of rows kept before they are written."""
_HEAD = 6 << 20
"""Bytes that rows of new shapes may take at the head of a file: readers look at the first 10 MB."""


# Shapes


def new_shapes(row: Json, known: dict[Any, None]) -> list[Any]:
    """The shapes in a row that are not `known` yet, and are then, as long as there are not too many: keys and types of every
    object in a list, and of the row itself. Two rows of the same shapes are of one type to a reader that infers types; plain
    messages `{role, content}` are left out."""
    before = len(known)
    known[tuple(row), tuple(map(type, row.values()))] = None
    for key, value in row.items():
        if type(value) is list:
            if key == "tools":
                known.update(_tool_shapes(value))
            else:
                _shape(value, known)
        elif type(value) is dict:
            known[key, _shape(value, known)] = None
    if len(known) == before:
        return []
    new = list(islice(known, before, None))
    if before < _SHAPES:
        return new
    for shape in new:
        del known[shape]
    return []


@for_the_same
def _tool_shapes(tools: list[Any]) -> dict[Any, None]:
    inside: dict[Any, None] = {}
    _shape(tools, inside)
    return inside


def _shape(value: Any, found: dict[Any, None]) -> Any:
    if type(value) is dict:
        types = tuple(map(type, value.values()))
        if dict not in types and list not in types:
            return (tuple(value), types)
        return (tuple(value), types, *[_shape(inner, found) for inner in value.values() if type(inner) in _DEEP])
    inside: Any = None
    for item in value:
        if type(item) is dict:
            inside = dict
            content = type(item.get("content"))
            if "tool_calls" in item and type(item["tool_calls"]) is list:
                found[(content, *item)] = None
                for call in item["tool_calls"]:
                    found[_call_shape(call, found)] = None
            elif content is not str:
                found[_shape(item, found)] = None
            elif len(item) != 2:
                found[tuple(item)] = None  # of a message: whatever else it has is text, too
        elif inside is None:
            inside = _shape(item, found) if type(item) is list else type(item)
    return inside


def _call_shape(call: Any, found: dict[Any, None]) -> Any:
    """What differs between calls is their arguments, nearly always flat."""
    try:
        function = call["function"]
        arguments = function["arguments"]
        types = tuple(map(type, arguments.values()))
    except (KeyError, TypeError, AttributeError):
        return _shape(call, found) if type(call) in _DEEP else type(call)
    if dict in types or list in types:
        return _shape(call, found)
    return (*call, *function, *arguments, *types)


_DEEP = (dict, list)


@lru_cache(2000)
def _digest(shape: Any) -> bytes:
    return hashlib.blake2b(repr(shape).encode("utf-8", "surrogatepass"), digest_size=8).digest()


# Parquet


class _Parquet:
    """JSON lines into a Parquet file of explicit columns."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        pyarrow, parquet = arrow()
        types = {"string": pyarrow.string(), "double": pyarrow.float64(), "int64": pyarrow.int64(), "bool": pyarrow.bool_()}
        self._path, self._columns, self._arrow = path, columns, pyarrow
        self._schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(path, self._schema)
        self.size = 0

    def write(self, lines: bytes) -> None:
        rows = [loads(line) for line in lines.splitlines()]
        data = {name: [_cell(row.get(name), kind) for row in rows] for name, kind in self._columns.items()}
        self._writer.write_table(self._arrow.table(data, self._schema))

    def close(self) -> str:
        self._writer.close()
        self.size = self._path.stat().st_size
        return sha256(self._path)


def _cell(value: Any, kind: str) -> Any:
    return dumps(value).decode() if kind == "string" and value is not None and not isinstance(value, str) else value


def sha256(path: Path, size: int | None = None) -> str:
    """`size`: of so many bytes at the beginning."""
    found, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with open(path, "rb", buffering=0) as file:
        while left > 0 and (piece := file.read(min(left, 1 << 18))):
            found.update(piece)
            left -= len(piece)
    return found.hexdigest()
