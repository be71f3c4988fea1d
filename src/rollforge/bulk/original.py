"""Input files that are opened by their names again and again while something is made of them."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from rollforge.errors import UserError, reported


def regular(path: str | Path) -> os.stat_result:
    """Its numbers. Raises `UserError` for what cannot be read, and for a directory, a pipe or a device: nearly all work goes
    over its files more than once, or cuts them into blocks, which a pipe does not bear."""
    with reported(f"cannot read {path}"):
        found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path} is a directory, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a file; files are read more than once, so a pipe will not do: save it first")
    return found


class Original:
    """A file as it was at the start. Meanwhile it may grow, as that of a running collection does, but not become another."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` for what is no file."""
        self.path = path
        self._first = regular(path)

    @property
    def size(self) -> int:
        """Bytes at the start."""
        return self._first.st_size

    def open(self) -> FileIO:
        """Raises `UserError` for another file under the name, and for one that became shorter."""
        with reported(f"cannot read {self.path}"):
            file = open(self.path, "rb", buffering=0)
        now = os.fstat(file.fileno())
        if os.path.samestat(now, self._first) and now.st_size >= self.size:
            return file
        file.close()
        raise replaced(self.path)

    def untouched(self) -> bool:
        now = os.stat(self.path)
        return (now.st_size, now.st_mtime_ns) == (self.size, self._first.st_mtime_ns)

    def check(self) -> None:
        """Raises `UserError` where it was replaced, cut, or written anew without growing."""
        with self.open() as file:
            if os.fstat(file.fileno()).st_size == self.size and not self.untouched():
                raise replaced(self.path)


def replaced(path: str | Path) -> UserError:
    return UserError(f"{path} was replaced or cut while it was read; run the command again when nothing changes it")
