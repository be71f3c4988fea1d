"""What a process has running and open, and what it made on disk, so that what sessions leave behind can be seen."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rollforge.audit.made import watching
from rollforge.sandbox.processes import descendants


@dataclass(frozen=True, slots=True)
class Left:
    threads: Counter[str]
    """By name, without numbers."""
    processes: int
    files: Counter[str]
    """Open ones, by what they lead to."""
    on_disk: frozenset[str]
    """What is in the working folder, what is anywhere below the one for temporary files, and what was made elsewhere."""
    tasks: int
    """Of the running loop."""

    def beyond(self, before: Left, most: int) -> list[str]:
        """What there is more of than before, by at least `most`: so few may be a pool that grew."""
        found = [f"{more} threads more, {name!r} among them" for name, more in _grown(self.threads, before.threads, most)]
        if self.processes - before.processes >= most:
            found.append(f"{self.processes - before.processes} processes more")
        found += [f"{more} open files more, {name} among them" for name, more in _grown(self.files, before.files, most)]
        if len(self.on_disk) - len(before.on_disk) >= most:
            one = min(self.on_disk - before.on_disk)
            found.append(f"{len(self.on_disk) - len(before.on_disk)} files more on disk, {one} among them")
        if self.tasks - before.tasks >= most:
            found.append(f"{self.tasks - before.tasks} asyncio tasks more")
        return found


@contextmanager
def looking() -> Iterator[Callable[[], Left]]:
    """Yields what looks around, to be called on the event loop. Temporary files go to a folder of their own meanwhile."""
    with watching() as made, own_temporary() as own:

        def look() -> Left:
            gc.collect()  # what only waits for that is nobody's
            threads = Counter(thread.name.rstrip("0123456789-_ ()") or thread.name for thread in threading.enumerate())
            below = {str(path) for path in own.rglob("*")}
            on_disk = frozenset(_entries(Path.cwd()) | below | made())
            return Left(threads, len(descendants(os.getpid())), _open_files(), on_disk, len(asyncio.all_tasks()))

        yield look


@contextmanager
def own_temporary() -> Iterator[Path]:
    """Temporary files go to a folder that nobody else writes to, and that goes away."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="rollforge-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR")
            if variable is not None:
                os.environ["TMPDIR"] = variable


def _open_files() -> Counter[str]:
    """Sockets, pipes and files; none where there is no /proc."""
    found: Counter[str] = Counter()
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                kind, colon, _ = os.readlink(f"/proc/self/fd/{name}").partition(":")
                found[kind if colon else "files on disk"] += 1
    return found


def _entries(folder: Path) -> set[str]:
    with suppress(OSError):
        return {str(folder / name) for name in os.listdir(folder)}
    return set()


def _grown(now: Counter[str], before: Counter[str], most: int) -> list[tuple[str, int]]:
    more = (now - before).most_common()
    total = now.total() - before.total()
    return [(more[0][0], total)] if more and total >= most else []
