"""Files cut into blocks at line ends, and work on the blocks spread over processes.

blocks(files) ─► spread(work, …, workers) ─► results in the order of the blocks
                    └ a worker reads its block itself and returns little: counts, or the name of a file it wrote
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

from rollforge.bulk.alien import alien_file
from rollforge.bulk.original import regular
from rollforge.bulk.record import Record
from rollforge.errors import UserError, reported

A = TypeVar("A")
B = TypeVar("B")

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


def spread(work: Callable[[A], B], items: Iterable[A], workers: int = 1) -> Iterator[B]:
    """`work` of every item, in order, in `workers` processes (1: in this one), at most four a core. Only a few items are
    under way at once.

    What `work` takes and returns must be picklable; it is itself inherited by the workers, however large. What it raises is
    raised here.
    """
    workers = min(workers, 4 * cores())
    if workers <= 1:
        for item in items:
            with _no_cycles():
                result = work(item)
            yield result
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _prepare, (work, os.getpid())) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_run, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed (out of memory?); fewer at once: --workers 1") from error
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """How many processes this one may use at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(size: int) -> int:
    """How many processes are worth starting for so many bytes: no more than there are cores, at least 64 MB each."""
    return max(1, min(cores(), size >> 26))


_work: list[Callable[[Any], Any]] = []
# In a worker: what it is there for.
_told: list[int] = []
# Signals that told it to end.


def _run(item: Any) -> Any:
    if _told:
        os._exit(143)
    return _work[0](item)


def _prepare(work: Callable[[Any], Any], parent: int) -> None:
    _work[:] = [work]
    # Ctrl-C goes to the whole group: the parent stops the work, the workers just end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    gc.freeze()
    gc.disable()
    # A parent that is killed cannot stop them: they would wait for work for ever.
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM may go to the whole group, too: of a result that is half sent the parent would wait for the rest, for ever."""
    while frame is not None:
        if frame.f_code.co_name == "_sendback_result":  # of the pool
            return _told.append(number)
        frame = frame.f_back
    os._exit(143)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Rows are trees that go away with their last reference: looking for cycles in them costs a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
