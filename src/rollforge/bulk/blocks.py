"""Files cut into blocks at line ends, which workers read.

blocks(files) ─► spread(work, …, workers) ─► results in the order of the blocks
                    └ a worker reads its block itself and returns little: counts, or the name of a file it wrote
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rollforge.bulk.alien import alien_file
from rollforge.bulk.original import regular
from rollforge.bulk.record import Record
from rollforge.errors import UserError, reported

SIZE = 8 << 20
LONGEST = 256 << 20
"""Bytes of a line beyond its block. Rows with the token ids of every turn are long; a file without line ends must not fill
the memory."""


class TooLong(UserError):
    pass


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, the bytes [start, end)."""

    source: int
    """Number of the file, in the order given."""
    file: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """A line that no `Record` could be made of."""

    reason: str
    text: bytes
    """The line's beginning."""


def blocks(files: Sequence[str | Path], size: int | None = None, longest: int = LONGEST) -> Iterator[Block]:
    """All files in blocks of about `size` bytes (default: `SIZE`), in order. Raises `UserError` if a file cannot be read,
    `TooLong` for a line that goes on for `longest` bytes after its block's end."""
    size = size or SIZE
    for source, path in enumerate(files):
        regular(path)
        with reported(f"cannot read {path}"), open(path, "rb") as file:
            start, last = 0, os.fstat(file.fileno()).st_size
            while start < last:
                file.seek(min(start + size, last) - 1)
                if len(file.readline(longest)) >= longest:
                    where = f"it goes on at byte {start + size:,}"
                    what = alien_file(path) or f"a line is longer than {longest >> 20} MB ({where}): is this JSON Lines?"
                    raise TooLong(f"{path}: {what}")
                yield Block(source, str(path), start, file.tell())
                start = file.tell()


def lines(block: Block) -> Iterator[tuple[int, bytes]]:
    """(where the line starts, the line without its end) of a block; blank lines too."""
    with open(block.file, "rb", buffering=1 << 18) as file:
        file.seek(block.start)
        at = block.start
        while at < block.end:
            line = file.readline()
            if not line:
                return
            text = line.strip()
            yield at, text.removeprefix(BOM_UTF8).strip() if at == 0 else text
            at += len(line)


def records(block: Block, env: str = "", *, eager: bool = False) -> Iterator[tuple[int, Record | Unusable]]:
    """The rows of a block with the places where they start; `env` is for rows that do not name their environment, `eager`
    says that their responses will be asked for."""
    for at, line in lines(block):
        yield at, read(line, env, eager=eager)


def read(line: bytes, env: str = "", *, eager: bool = False) -> Record | Unusable:
    try:
        if not line:
            return Unusable("blank line", b"")
        return Record(line, env, eager=eager)
    except UserError as error:
        return Unusable(str(error), line[:60])
    except ValueError as error:
        return Unusable(f"not JSON ({error})", line[:60])


def read_at(file: IO[bytes], at: int, env: str = "", *, eager: bool = False) -> Record | Unusable:
    """The row that starts at a byte of a file."""
    return read(line_at(file, at), env, eager=eager)


def line_at(file: IO[bytes], at: int) -> bytes:
    """The line that starts at a byte of a file."""
    file.seek(at)
    line = file.readline().strip()
    return line if at else line.removeprefix(BOM_UTF8).strip()


def line_number(file: str | Path, at: int) -> int:
    """The number, from 1, of the line that starts at a byte."""
    count, left = 1, at
    with open(file, "rb") as handle:
        while left > 0:
            piece = handle.read(min(left, 1 << 20))
            if not piece:
                break
            count += piece.count(b"\n")
            left -= len(piece)
    return count
