"""Blocking functions off the event loop, in daemon threads that may be abandoned.

    loop:    run() --queue--> thread: function() --call_soon_threadsafe--> loop: future

A caller that stops waiting (deadline, cancellation) abandons its thread: the pool forgets it and asks Python to raise in
it. A thread that never comes back to Python cannot be ended; it is a daemon, so it does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections.abc import Callable
from typing import Any

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], dict[str, Any]]


class Abandoned(BaseException):
    """Raised inside a thread nobody waits for any more."""


class Threads:
    """At most `limit` running threads; idle ones are reused."""

    def __init__(self, limit: int = 256) -> None:
        self._idle: list[_Thread] = []
        self._slots = asyncio.Semaphore(limit)

    async def run(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        async with self._slots:
            thread = self._idle.pop() if self._idle else _Thread()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Any] = loop.create_future()
            thread.jobs.put((loop, future, function, arguments))
            try:
                result = await future
            except asyncio.CancelledError:
                thread.abandon()
                raise
            except BaseException:
                self._idle.append(thread)
                raise
            self._idle.append(thread)
            return result

    def close(self) -> None:
        for thread in self._idle:
            thread.jobs.put(None)
        self._idle.clear()


class _Thread:
    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rollforge-tool", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        self.jobs.put(None)
        ident = self._thread.ident
        if ident is not None and self._thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Abandoned))

    def _work(self) -> None:
        try:
            while (job := self.jobs.get()) is not None:
                loop, future, function, arguments = job
                try:
                    result, error = function(**arguments), None
                except Abandoned:
                    return
                except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the caller
                    result, error = None, raised
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_settle, future, result, error)
        except Abandoned:
            return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, (StopIteration, SystemExit, KeyboardInterrupt)):
        # A future refuses StopIteration, and the other two would end the loop: a tool may do neither.
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
    else:
        future.set_exception(error)
