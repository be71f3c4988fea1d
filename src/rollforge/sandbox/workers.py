"""Functions in worker processes that can be killed: for verifiers that are slow, hang, fork, or eat memory.

    loop:    run() --number, packed arguments--> worker (a fork of this process)
             run() <--begun--------------------- the clock starts: function(*arguments)
             run() <--number, pickled result---- or a description of what was raised

One call at a time per worker, so that killing one ends exactly one call. Workers are forks: they know every object this
process knew, notebooks included, and need no import. A worker is killed with all its descendants (elsewhere than on Linux:
with its process group). This contains mistakes and runaway code; it is no security boundary.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from rollforge import errors
from rollforge.errors import DeadlineExceeded, InfraFault, VerifierFault
from rollforge.sandbox.child import BEGUN, HEADER, serve
from rollforge.sandbox.processes import kill_tree
from rollforge.sandbox.slots import Slots, cores


class CannotCarry(Exception):
    """The worker could not unpack what it was sent: the call has to be made in this process."""


class Workers:
    """At most `size` forks that run `function`; a fork is made when needed and replaced when killed."""

    def __init__(
        self,
        function: Callable[..., Any],
        unpack: Callable[[bytes], tuple[Any, ...]] = pickle.loads,
        size: int | None = None,
        memory_mb: int = 2048,
    ) -> None:
        self._serve = function, unpack, memory_mb
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = 0
        """How often."""
        self._slots = Slots(size or cores())
        weakref.finalize(self, _kill, self._idle, self._busy)

    async def run(self, packed: bytes, seconds: float, what: str = "the call") -> Any:
        """The function's result for the packed arguments. The clock starts when a worker starts on it, not while it queues.

        Raises `DeadlineExceeded` (the worker is killed), what the function raised if it is one of ours, `CannotCarry`,
        `InfraFault` if there can be no process, and `VerifierFault` for anything else and for a worker that died.
        """
        async with self._slots.here():
            reply = await self._ask(packed, seconds, what)
        kind, value = pickle.loads(reply[1:])
        if kind == "result":
            return value
        raise CannotCarry(value) if kind == "unpack" else getattr(errors, kind)(value)

    async def _ask(self, packed: bytes, seconds: float, what: str) -> bytes:
        closed = self._closed
        for _ in range(_TRIES):
            worker = self._take()
            self._busy.add(worker)
            reply = ended = None
            try:
                begun = await worker.send(packed)
                if begun:
                    async with asyncio.timeout(seconds):
                        reply = await worker.answer()
                ended = None if reply else await worker.ending()
            except TimeoutError:
                raise DeadlineExceeded(f"{what} took longer than {seconds:g} s and was killed") from None
            finally:
                self._busy.discard(worker)
                if reply and not reply[0]:  # it does not say that it is spent
                    self._idle.append(worker)
                else:
                    worker.kill()
            if reply:
                return reply
            if closed != self._closed:
                raise InfraFault(f"{what} was stopped: its processes were closed")
            if begun:
                raise VerifierFault(f"the process of {what} ended before it answered ({ended})")
            # It died with nothing to do: nobody's fault.
        raise InfraFault(f"no process for {what} began with it; the last one: {ended}")

    def close(self) -> None:
        """Kill them all, at work or not; the next `run` makes new ones."""
        self._closed += 1
        _kill(self._idle, self._busy)

    def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_ours and worker.thread == threading.get_native_id():
                return worker
            # The process that made it may be talking to it, or the kernel about to end it with the thread that did.
            worker.kill()
        try:
            return _Worker(*self._serve)
        except OSError as error:
            raise InfraFault(f"cannot start a process: {error.strerror or error}") from error


_TRIES = 3
"""Idle workers may be gone: ended by the system, or with the thread that forked them."""

_START_SECONDS = 30.0


class _Worker:
    def __init__(self, function: Callable[..., Any], unpack: Callable[[bytes], tuple[Any, ...]], memory_mb: int) -> None:
        self._owner = os.getpid()
        self.thread = threading.get_native_id()
        self._number = 0
        self._status: int | None = None
        self._socket, theirs = socket.socketpair()
        try:
            with warnings.catch_warnings():
                # Forking beside threads is deprecated because a lock may be held for ever: the child runs the verifier only.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
        except OSError:
            self._socket.close()
            theirs.close()
            raise
        if self._pid == 0:
            serve(theirs, function, unpack, memory_mb)
        theirs.close()
        self._socket.setblocking(False)

    async def send(self, packed: bytes) -> bool:
        """Whether the worker began with it."""
        self._number += 1
        number = self._number.to_bytes(HEADER, "big")
        try:
            async with asyncio.timeout(_START_SECONDS):
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(self._socket, number + len(packed).to_bytes(HEADER, "big") + packed)
                return await self._read(len(BEGUN)) == BEGUN
        except OSError:  # it is gone, or (a TimeoutError) the fork caught a lock that nobody will open
            return False

    async def answer(self) -> bytes | None:
        """None if it died, or answers something else."""
        try:
            header = await self._read(2 * HEADER)
            if header is None or int.from_bytes(header[:HEADER], "big") != self._number:
                return None
            return await self._read(int.from_bytes(header[HEADER:], "big"))
        except OSError:
            return None

    async def _read(self, size: int) -> bytes | None:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < size:
            piece = await loop.sock_recv(self._socket, min(size - len(data), 1 << 20))
            if not piece:
                return None
            data += piece
        return bytes(data)

    async def ending(self) -> str:
        """How it ended, after its connection did."""
        for _ in range(20):
            status = self._reap(os.WNOHANG)
            if status is not None:
                return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            await asyncio.sleep(0.01)
        return "it runs, but its connection is closed or silent"

    @property
    def is_ours(self) -> bool:
        """Not in a fork of the process that made it."""
        return os.getpid() == self._owner

    def end(self) -> None:
        """Kill the worker and its descendants. Whoever waits for its answer reads that it is gone."""
        if self._status is None and self.is_ours:
            kill_tree(self._pid)

    def kill(self) -> None:
        """End it and clear it away. Nobody may be waiting for its answer."""
        self._socket.close()
        if self.is_ours:
            self.end()
            self._reap(0)

    def _reap(self, options: int) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self._pid, options)
                self._status = os.waitstatus_to_exitcode(status) if pid else None
            except ChildProcessError:  # somebody else waited for it
                self._status = 0
        return self._status


def _kill(idle: list[_Worker], busy: set[_Worker]) -> None:
    while idle:
        idle.pop().kill()
    for worker in busy:
        worker.end()
