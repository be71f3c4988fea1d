"""Input files that are opened by their names again and again while something is made of them."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from rollforge.errors import UserError


class Original:
    """A file as it was at the start. Meanwhile it may grow, as that of a running collection does, but not become another."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` for what is not there."""
        self.path = path
        try:
            self._first = os.stat(path)
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def size(self) -> int:
        """Bytes at the start."""
        return self._first.st_size

    def open(self) -> FileIO:
        """Raises `UserError` for another file under the name, and for one that became shorter."""
        try:
            file = open(self.path, "rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
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

    def _unreadable(self, error: OSError) -> UserError:
        return UserError(f"cannot read {self.path}: {error.strerror or error}")


def replaced(path: str | Path) -> UserError:
    return UserError(f"{path} was replaced or cut while it was read; run the command again when nothing changes it")
