"""What a process has running and open, so that what sessions leave behind can be seen."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rollforge.sandbox.processes import descendants


@dataclass(frozen=True, slots=True)
class Left:
    threads: Counter[str]
    """By name, without numbers."""
    processes: int
    files: Counter[str]
    """Open ones, by what they lead to."""
    on_disk: int
    """Entries of the working folder and of the one for temporary files."""
    tasks: int
    """Of the running loop."""

    def beyond(self, before: Left, most: int) -> list[str]:
        """What there is more of than before, by at least `most`: so few may be a pool that grew."""
        found = [f"{more} threads more, {name!r} among them" for name, more in _grown(self.threads, before.threads, most)]
        if self.processes - before.processes >= most:
            found.append(f"{self.processes - before.processes} processes more")
        found += [f"{more} open files more, {name} among them" for name, more in _grown(self.files, before.files, most)]
        if self.on_disk - before.on_disk >= most:
            found.append(f"{self.on_disk - before.on_disk} files more in the working folder or the temporary one")
        if self.tasks - before.tasks >= most:
            found.append(f"{self.tasks - before.tasks} asyncio tasks more")
        return found


@contextmanager
def own_temporary() -> Iterator[None]:
    """Temporary files go to a folder that nobody else writes to, and that goes away."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="rollforge-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR")
            if variable is not None:
                os.environ["TMPDIR"] = variable


def left() -> Left:
    """To be called on the event loop."""
    gc.collect()  # what only waits for that is nobody's
    threads = Counter(thread.name.rstrip("0123456789-_ ()") or thread.name for thread in threading.enumerate())
    on_disk = _entries(Path.cwd()) + _entries(Path(tempfile.gettempdir()))
    return Left(threads, len(descendants(os.getpid())), _open_files(), on_disk, len(asyncio.all_tasks()))


def _open_files() -> Counter[str]:
    """Sockets, pipes and files; none where there is no /proc."""
    found: Counter[str] = Counter()
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                kind, colon, _ = os.readlink(f"/proc/self/fd/{name}").partition(":")
                found[kind if colon else "files on disk"] += 1
    return found


def _entries(folder: Path) -> int:
    with suppress(OSError):
        return len(os.listdir(folder))
    return 0


def _grown(now: Counter[str], before: Counter[str], most: int) -> list[tuple[str, int]]:
    more = (now - before).most_common()
    total = now.total() - before.total()
    return [(more[0][0], total)] if more and total >= most else []
