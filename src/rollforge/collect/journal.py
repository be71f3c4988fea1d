"""An append-only JSONL file with one writer: what was appended survives a kill, and a torn tail is repaired."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from rollforge.errors import SetupError


class Journal:
    """Every line is handed to the operating system at once (a killed process loses none) and forced to disk in groups,
    once a second and on close (a killed machine loses at most that)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._size = self._synced = _repair(self._file)
        except OSError as error:
            raise self._error(error) from error
        self._failed: SetupError | None = None

    def append(self, line: bytes) -> None:
        """`line` ends in a newline. Raises `SetupError` if it cannot be stored, now and ever after; what was stored before
        stays whole."""
        if self._failed is not None:
            raise self._failed
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            # If the torn line cannot be cut off now, the next opening does it.
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            self._failed = self._error(error)
            raise self._failed from error
        self._size += len(line)

    async def sync_forever(self, seconds: float = 1.0) -> None:
        """Force to disk what was appended, again and again. Raises `SetupError` if the disk does not take it."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(seconds)
            if os.fstat(self._file).st_nlink == 0:
                raise SetupError(f"{self.path} was deleted while it was being written")
            if self._size > self._synced:
                size = self._size
                try:
                    await loop.run_in_executor(None, os.fsync, self._file)
                except OSError as error:
                    raise self._error(error) from error
                self._synced = size

    def close(self) -> None:
        try:
            if self._size > self._synced:
                os.fsync(self._file)
        except OSError as error:
            raise self._error(error) from error
        finally:
            os.close(self._file)

    def _error(self, error: OSError) -> SetupError:
        return SetupError(f"cannot write {self.path}: {error.strerror or error}")


def _repair(file: int) -> int:
    """Cut a last line that has no end (its writer was killed); returns the size."""
    size = end = os.fstat(file).st_size
    while end:
        start = max(0, end - (1 << 16))
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end
