"""Blocking functions off the event loop, in daemon threads that may be abandoned.

    loop:    Lane.run() --queue--> thread: function() --call_soon_threadsafe--> loop: future

A lane is one thread for as long as its session lives, so that what is bound to its thread (an SQLite connection, say) works
in every call; its calls queue. A caller that stops waiting (deadline, cancellation) abandons the thread: the lane goes on
with another, and Python is asked to raise in the old one. A thread that never comes back to Python cannot be ended; it is
a daemon, so it does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import queue
import threading
from collections.abc import Callable
from typing import Any

from rollforge.errors import InfraFault
from rollforge.sandbox.deadline import within
from rollforge.sandbox.slots import Slots

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], dict[str, Any]]


class Threads:
    """Threads for any number of lanes, at most `limit` of them at work at a time; idle ones are reused."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._idle: list[_Thread] = []
        self.slots = Slots(limit)

    def lane(self) -> Lane:
        return Lane(self)

    def close(self) -> None:
        """End the idle threads."""
        while self._idle:
            self._idle.pop().jobs.put(None)

    def take(self) -> _Thread:
        while self._idle:
            thread = self._idle.pop()
            if thread.is_alive:  # threads do not survive a fork
                return thread
        try:
            return _Thread()
        except RuntimeError as error:
            raise InfraFault(f"cannot start a thread: {error}") from error

    def give(self, thread: _Thread) -> None:
        if len(self._idle) < self._limit:
            self._idle.append(thread)
        else:
            thread.jobs.put(None)


class Lane:
    """Calls of one session, one at a time, all in the same thread."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._thread: _Thread | None = None
        self._turn = asyncio.Lock()

    async def run(self, function: Callable[..., Any], arguments: dict[str, Any], seconds: float, what: str) -> Any:
        """The function's result, or what it raised. The clock starts with the call, not while it queues.

        Raises `DeadlineExceeded`, naming `what`, when the time is over.
        """
        async with self._turn, self._threads.slots.here():
            thread = self._thread = self._thread or self._threads.take()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Any] = loop.create_future()
            thread.jobs.put((loop, future, function, arguments))
            try:
                return await within(seconds, what, future)
            finally:
                if future.cancelled():
                    thread.abandon()
                    self._thread = None

    def release(self) -> None:
        """Give the thread back. The lane can be used again; it will get another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._threads.give(thread)


class _Thread:
    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rollforge-tool", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def abandon(self) -> None:
        self.jobs.put(None)
        ident = self._thread.ident
        if ident is not None and self._thread.is_alive():
            # SystemExit: what ends a thread without a report.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))

    def _work(self) -> None:
        with contextlib.suppress(SystemExit):
            while (job := self.jobs.get()) is not None:
                _do(*job)
                del job  # nothing of it is kept alive by an idle thread


def _do(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    try:
        result, error = function(**arguments), None
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the caller
        result, error = None, raised
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration) or not isinstance(error, Exception):
        # A future refuses StopIteration; SystemExit, CancelledError and the like would end the loop or the rollout.
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
    else:
        future.set_exception(error)
