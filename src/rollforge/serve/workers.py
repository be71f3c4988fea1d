"""Starting services: in this process, or in forked ones with this process watching over them.

    this process (sockets, no event loop, no threads)
      |-- fork --> group "agent"        workers 0..N-1    a group is what shares a process: all services, or one each
      |-- fork --> group "environment"  workers 0..N-1    with `processes`; the workers of a group share its sockets
      '-- fork --> head

A worker says on a pipe that it is ready, or why it cannot be. One that dies is started again, later each time. The first
signal ends agents before what they call, so that what is in flight can finish; the second ends all at once. A worker whose
watcher is gone (the other pipe closes) ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import uvloop

from rollforge.errors import RollforgeError, SetupError, UserError, describe
from rollforge.serve.app import token_of
from rollforge.serve.build import Place, Share, places, serve_here
from rollforge.serve.config import Loaded

log = logging.getLogger(__name__)

FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0
"""Seconds before a worker that died is started again: doubled each time it did not live longer than this."""
KILL_SECONDS = 5.0
"""What was told to end at once and does not is killed."""


def start(
    loaded: Loaded,
    *,
    only: Collection[str] = (),
    workers: int = 1,
    processes: bool = False,
    started: Callable[[Sequence[Place]], None],
) -> None:
    """Serve until a signal, then finish what is in flight. `started` is called once, when all services answer.

    Raises `UserError` when the configuration cannot be served, `SetupError` when the services ended without a signal,
    `KeyboardInterrupt` after a second one.
    """
    token_of(loaded.config)  # a variable that is not set is told before anything starts
    placed = places(loaded.config, only)
    try:
        if workers > 1 or processes:
            _Watch(loaded, placed, workers, processes, started).run()
        elif uvloop.run(serve_here(loaded, placed, placed, lambda: started(placed))) is None:
            raise SetupError("the services ended by themselves; what is above says why")
    finally:
        for place in placed:
            place.socket.close()


@dataclass
class _Worker:
    """A process that is to be there."""

    places: Sequence[Place]
    number: int
    workers: int
    rank: int
    """What ends first when all are to end: agents, then what they call, then the head."""
    pid: int = 0
    """0: none now."""
    report: int = -1
    """The end of its pipe that is read here."""
    since: float = 0.0
    wait: float = FIRST_WAIT
    again: float = 0.0
    """When it is started again."""
    ready: bool = False
    told: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        what = self.places[0].name if len(self.places) == 1 else "worker"
        return what if self.workers == 1 else f"{what} {self.number}"


class _Watch:
    """The process that forks the others and starts those again that die."""

    def __init__(
        self,
        loaded: Loaded,
        placed: Sequence[Place],
        workers: int,
        processes: bool,
        started: Callable[[Sequence[Place]], None],
    ) -> None:
        self._loaded = loaded
        self._placed = placed
        self._started = started
        self._secret = secrets.token_bytes(32)
        self._folder = Path(tempfile.mkdtemp(prefix="rollforge-"))
        self._selector = selectors.DefaultSelector()
        self._alive = os.pipe()
        self._signals: list[int] = []
        self._stopping = 0
        self._kill_at = float("inf")
        self._all_ready = False
        served = [place for place in placed if place.kind != "head"]
        groups = [([place], _RANKS[place.kind]) for place in served] if processes else [(served, 0)]
        self._workers = [_Worker(group, number, workers, rank) for group, rank in groups for number in range(workers)]
        self._workers += [_Worker([place], 0, 1, _RANKS["head"]) for place in placed if place.kind == "head"]

    def run(self) -> None:
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._selector.register(wake, selectors.EVENT_READ, None)
        self._inherited = (wake, waker)
        for module in {_MODULES[place.kind] for place in self._placed}:
            import_module(module)  # once, instead of in each process
        try:
            for worker in self._workers:
                self._fork(worker)
            while any(worker.pid or (worker.again and not self._stopping) for worker in self._workers):
                self._step(wake)
        finally:
            self._end()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            wake.close()
            waker.close()
            self._selector.close()
            for fd in self._alive:
                os.close(fd)
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._stopping > 1:
            raise KeyboardInterrupt

    def _note(self, number: int, _: object) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _step(self, wake: socket.socket) -> None:
        """Wait for something to happen, and see to it."""
        now = time.monotonic()
        due = [worker.again for worker in self._workers if worker.again and not self._stopping] + [self._kill_at]
        wait = min(due) - now
        for key, _ in self._selector.select(None if wait == float("inf") else max(0.0, wait)):
            if key.data is None:
                with suppress(BlockingIOError):
                    wake.recv(4096)
            else:
                self._hear(key.data)
        while self._signals:
            self._signals.pop()
            self._stopping += 1
            if self._stopping == 2:
                self._kill_at = time.monotonic() + KILL_SECONDS
        self._reap()
        now = time.monotonic()
        for worker in self._workers:
            if worker.again and worker.again <= now and not self._stopping:
                self._fork(worker)
        if self._stopping:
            self._tell()
        if now >= self._kill_at:
            for worker in self._workers:
                self._send(worker, signal.SIGKILL)

    def _fork(self, worker: _Worker) -> None:
        hear, say = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else both would write what is in it
        # A signal that the child gets before it has its own handlers must wait, not be noted by a copy of this object.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(hear)
            self._be(worker, say)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(say)
        worker.pid, worker.report, worker.since, worker.again, worker.ready = pid, hear, time.monotonic(), 0.0, False
        self._selector.register(hear, selectors.EVENT_READ, worker)

    def _be(self, worker: _Worker, say: int) -> NoReturn:
        """The life of a forked process."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.setpgid(0, 0)  # Ctrl-C goes to the watcher alone, which decides who ends first
            self._selector.close()
            for end in self._inherited:
                end.close()
            os.close(self._alive[1])
            for other in self._workers:
                if other.report >= 0 and other is not worker:
                    with suppress(OSError):
                        os.close(other.report)
            own = {place.name for place in worker.places}
            for place in self._placed:
                if place.name not in own:
                    place.socket.close()
            status = _serve(self._loaded, worker, self._share(worker), self._placed, say, self._alive[0])
        except BaseException as error:  # noqa: BLE001 - nothing may return into the watcher's code
            log.error("%s: %s", worker.name, describe(error))
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _share(self, worker: _Worker) -> Share:
        return Share(worker.number, worker.workers, self._folder, self._secret)

    def _hear(self, worker: _Worker) -> None:
        """What a worker reports. Raises what one could not start for, as long as not all have been ready once."""
        said = os.read(worker.report, 1 << 16)
        if not said:
            self._forget(worker)
            return
        kind, _, text = said.decode(errors="replace").partition(" ")
        if kind == "ready":
            worker.ready = True
            if not self._all_ready and all(other.ready for other in self._workers):
                self._all_ready = True
                self._started(self._placed)
        elif self._all_ready:
            log.error("%s: %s", worker.name, text)
        elif not self._stopping:
            raise UserError(text) if kind == "user" else SetupError(text)

    def _forget(self, worker: _Worker) -> None:
        if worker.report >= 0:
            self._selector.unregister(worker.report)
            os.close(worker.report)
            worker.report = -1

    def _reap(self) -> None:
        """See which have ended, and have them started again unless all are to end."""
        for worker in self._workers:
            if not worker.pid or os.waitpid(worker.pid, os.WNOHANG)[0] == 0:
                continue
            # Its last words may still be in the pipe.
            if worker.report >= 0 and self._said_something(worker):
                self._hear(worker)
            self._forget(worker)
            worker.pid = 0
            if self._stopping:
                continue
            if not self._all_ready:
                raise SetupError(f"{worker.name} ended before it was ready; what is above says why")
            lived = time.monotonic() - worker.since
            worker.wait = FIRST_WAIT if lived > LONGEST_WAIT else min(LONGEST_WAIT, worker.wait * 2)
            worker.again = time.monotonic() + worker.wait
            log.error("%s died after %.1f s; starting it again in %.1f s", worker.name, lived, worker.wait)

    def _said_something(self, worker: _Worker) -> bool:
        return any(key.data is worker for key, _ in self._selector.select(0))

    def _tell(self) -> None:
        """Have those end whose turn it is; on a second signal all, at once."""
        left = [worker for worker in self._workers if worker.pid]
        first = min((worker.rank for worker in left), default=0)
        for worker in left:
            numbers = [signal.SIGTERM] if self._stopping == 1 else [signal.SIGTERM, signal.SIGINT]
            for number in numbers if self._stopping > 1 or worker.rank == first else ():
                if number.name not in worker.told:
                    worker.told.add(number.name)
                    self._send(worker, number)

    def _send(self, worker: _Worker, number: signal.Signals) -> None:
        if worker.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)

    def _end(self) -> None:
        """Nothing is left when this process goes, whatever the reason."""
        for worker in self._workers:
            self._send(worker, signal.SIGTERM)
            self._send(worker, signal.SIGINT)
        end = time.monotonic() + KILL_SECONDS
        for worker in self._workers:
            while worker.pid and os.waitpid(worker.pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > end:
                    self._send(worker, signal.SIGKILL)
                time.sleep(0.01)
            worker.pid = 0
            self._forget(worker)


def _serve(loaded: Loaded, worker: _Worker, share: Share, placed: Sequence[Place], say: int, alive: int) -> int:
    """The work of a forked process; its exit status."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()

        def left_alone() -> None:
            loop.remove_reader(alive)
            shutil.rmtree(share.folder, ignore_errors=True)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(alive, left_alone)
        await serve_here(loaded, worker.places, placed, lambda: _report(say, "ready"), share)

    try:
        uvloop.run(serve())
    except RollforgeError as error:
        _report(say, f"{'user' if isinstance(error, UserError) else 'setup'} {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _report(say: int, text: str) -> None:
    with suppress(BrokenPipeError):
        os.write(say, text.encode()[:60_000])


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
_MODULES = {
    "agent": "rollforge.serve.agent_app",
    "environment": "rollforge.serve.env_app",
    "head": "rollforge.serve.head",
    "model": "rollforge.serve.model_app",
}
_RANKS = {"agent": 0, "environment": 1, "model": 1, "head": 2}
