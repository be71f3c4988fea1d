"""The files that this process and its forks make, wherever they make them: other processes write to the same folders."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any


@contextmanager
def watching() -> Iterator[Callable[[], set[str]]]:
    """Yields what tells the files and folders made since that are there. Forks made meanwhile are watched too; programs that
    they start are not."""
    _hooked()
    with tempfile.TemporaryDirectory(prefix="rollforge-", ignore_cleanup_errors=True) as folder:
        journal = Path(folder, "made")
        journal.touch()
        _journals.append(str(journal))
        try:
            yield lambda: {path for path in map(os.fsdecode, journal.read_bytes().split(b"\0")) if os.path.lexists(path)}
        finally:
            _journals.remove(str(journal))


_journals: list[str] = []
"""Files, for forks cannot add to a list of ours. Of the process, like its audit hooks, which nothing takes away again."""

_PATHS = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "sqlite3.connect": 0}
"""Audit events of what makes a file, and which argument says where."""


@cache
def _hooked() -> None:
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Raises nothing: that would stop what is told here."""
    if not _journals or event not in _PATHS or (event == "open" and not arguments[2] & os.O_CREAT):
        return
    with suppress(OSError, ValueError, TypeError):  # a number of an open file, no path at all
        path = os.path.abspath(os.fsencode(arguments[_PATHS[event]]))
        if not os.path.lexists(path):
            for journal in _journals:
                number = os.open(journal, os.O_WRONLY | os.O_APPEND)
                try:
                    os.write(number, path + b"\0")
                finally:
                    os.close(number)
