"""Functions in worker processes that can be killed: for verifiers that are slow, hang, fork, or eat memory.

    loop:    run() --pickled arguments--> worker (a fork of this process): function(*arguments)
             run() <--pickled result----- or a description of what was raised

One call at a time per worker, so that killing one ends exactly one call. Workers are forks: they know every object this
process knew, notebooks included, and need no import. Each is the leader of its own process group, which is killed with it.
This contains mistakes and runaway code; it is no security boundary.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pickle
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from typing import Any

from rollforge import errors
from rollforge.errors import RolloutError, VerifierFault, describe

_HEADER = 8


class Workers:
    """At most `size` forks that run `function`; a fork is made when needed and replaced when killed."""

    def __init__(self, function: Callable[..., Any], size: int | None = None, memory_mb: int = 2048) -> None:
        self._function = function
        self._memory = memory_mb << 20
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._slots = asyncio.Semaphore(size or os.cpu_count() or 1)

    async def run(self, payload: bytes, seconds: float) -> Any:
        """The function's result for the pickled argument tuple `payload`.

        The clock starts when a worker starts on it, not while it queues. Raises `TimeoutError` (the worker is killed), what
        the function raised if it is one of ours, and `VerifierFault` for anything else or a worker that died.
        """
        async with self._slots:
            worker = self._idle.pop() if self._idle else _Worker(self._function, self._memory)
            self._busy.add(worker)
            try:
                async with asyncio.timeout(seconds):
                    reply = await worker.ask(payload)
            except BaseException:
                worker.kill()
                raise
            finally:
                self._busy.discard(worker)
            if reply is None:
                raise VerifierFault(f"the verifier's process {worker.kill()}")
            self._idle.append(worker)
        kind, value = pickle.loads(reply)
        if kind == "result":
            return value
        raise getattr(errors, kind)(value)

    def close(self) -> None:
        for worker in [*self._idle, *self._busy]:
            worker.kill()
        self._idle.clear()


class _Worker:
    def __init__(self, function: Callable[..., Any], memory: int) -> None:
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Forking beside threads is deprecated because a lock may be held for ever: the child runs the verifier only.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _serve(theirs, function, memory)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours

    async def ask(self, payload: bytes) -> bytes | None:
        """The worker's reply, None if it died."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, len(payload).to_bytes(_HEADER, "big") + payload)
            header = await self._read(loop, _HEADER)
            return await self._read(loop, int.from_bytes(header, "big")) if header else None
        except (ConnectionError, BrokenPipeError):
            return None

    async def _read(self, loop: asyncio.AbstractEventLoop, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            piece = await loop.sock_recv(self._socket, min(size - len(data), 1 << 20))
            if not piece:
                return None
            data += piece
        return bytes(data)

    def kill(self) -> str:
        """End the worker and everything in its process group; says how it had ended, if it had."""
        if self._pid == 0:
            return "was ended"
        self._socket.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:
            status = 0
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def _serve(connection: socket.socket, function: Callable[..., Any], memory: int) -> None:
    """The child: answer until the parent is gone. Never returns."""
    code = 1
    try:
        _become_worker(connection, memory)
        stream = connection.makefile("rwb")
        while header := stream.read(_HEADER):
            payload = stream.read(int.from_bytes(header, "big"))
            reply = _answer(function, payload)
            stream.write(len(reply).to_bytes(_HEADER, "big") + reply)
            stream.flush()
        code = 0
    except (OSError, EOFError, MemoryError):
        code = 1
    finally:
        os._exit(code)


def _answer(function: Callable[..., Any], payload: bytes) -> bytes:
    try:
        return pickle.dumps(("result", function(*pickle.loads(payload))))
    except RolloutError as error:
        return pickle.dumps((type(error).__name__, str(error)))
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like too: the verifier is at fault, not the worker
        return pickle.dumps(("VerifierFault", describe(error)))


def _become_worker(connection: socket.socket, memory: int) -> None:
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive a killed parent
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio._set_running_loop(None)
    keep = connection.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if memory:
        with contextlib.suppress(OSError, ValueError):
            pages = int(open("/proc/self/statm", "rb").read().split()[0]) if sys.platform == "linux" else 0
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, resource.RLIM_INFINITY))
