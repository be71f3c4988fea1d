"""Work spread over processes, results in the order of the work.

    items ─► spread(work, items, workers) ─► results
               └ each worker has a pipe of its own: item in, result out, one at a time

A queue that workers share (`concurrent.futures`) cannot tell when one of them is killed while it sends: the rest never
comes, and the parent waits for ever. A pipe of its own ends with its worker.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from rollforge.errors import UserError

A = TypeVar("A")
B = TypeVar("B")


def spread(work: Callable[[A], B], items: Iterable[A], workers: int = 1) -> Iterator[B]:
    """`work` of every item, in order, in `workers` processes (1: in this one), at most four a core. Only a few items are
    under way at once.

    What `work` takes and returns must be picklable; it is itself inherited by the workers, however large. What it raises is
    raised here. Raises `UserError` when a worker is killed.
    """
    workers = min(workers, 4 * cores())
    if workers <= 1:
        for item in items:
            with _no_cycles():
                result = work(item)
            yield result
        return
    with _staff(work, workers) as staff:
        coming = enumerate(items)
        idle, busy = list(staff), dict[Connection, int]()
        done: dict[int, tuple[bool, Any]] = {}
        wanted = 0
        while True:
            for worker in wait(busy, None if busy and wanted not in done else 0):
                assert isinstance(worker, Connection)
                done[busy.pop(worker)] = _exchange(staff[worker], worker.recv)
                idle.append(worker)
            while idle and len(busy) + len(done) <= 2 * workers and (given := next(coming, None)) is not None:
                worker = idle.pop()
                _exchange(staff[worker], worker.send, given[1])
                busy[worker] = given[0]
            if wanted in done:
                good, result = done.pop(wanted)
                if not good:
                    raise result
                yield result
                wanted += 1
            elif not busy:
                return


def cores() -> int:
    """How many processes this one may use at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(size: int) -> int:
    """How many processes are worth starting for so many bytes: no more than there are cores, at least 64 MB each."""
    return max(1, min(cores(), size >> 26))


@contextmanager
def _staff(work: Callable[[Any], Any], count: int) -> Iterator[dict[Connection, BaseProcess]]:
    """Processes that wait for items, and the pipes to them."""
    context = multiprocessing.get_context("fork")
    staff: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            staff[ours] = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
            staff[ours].start()
            theirs.close()  # or its end would not be heard of
        yield staff
    finally:
        for process in staff.values():
            if process.pid is not None:
                process.kill()  # of what else it is told in its first moments Python forgets
                process.join()
        for ours in staff:
            ours.close()


def _exchange(process: BaseProcess, say: Callable[..., Any], *what: Any) -> Any:
    try:
        return say(*what)
    except (EOFError, OSError) as error:
        process.join()
        if process.exitcode == -signal.SIGTERM:
            time.sleep(0.2)  # who tells the whole group to end tells this process as well
        raise UserError("a worker process was killed (out of memory?); fewer at once: --workers 1") from error


# In a worker


def _serve(work: Callable[[Any], Any], to: Connection, parent: int) -> None:
    # Ctrl-C goes to the whole group: the parent stops the work, the workers just end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    gc.disable()
    # A parent that is killed cannot stop them: they would wait for work for ever.
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            item = to.recv()
            try:
                result = True, work(item)
            except Exception as error:  # noqa: BLE001
                error.add_note(f"In a worker process:\n{traceback.format_exc()}")
                result = False, error
            to.send(result)


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
