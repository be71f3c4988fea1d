"""Calls that wait for the one worker thread of an engine."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from rollforge.errors import DeadlineExceeded, SetupError
from rollforge.models.tokens import Completion


class Waiting(Protocol):
    @property
    def future(self) -> Future[Completion]: ...


W = TypeVar("W", bound=Waiting)


class Inbox(Generic[W]):
    """Takes calls from event loops and starts the worker at the first. The worker holds `wake` only to look at `waiting`
    and `closed`, and gives each call its outcome by `settle`."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.waiting: deque[W] = deque()
        self.wake = threading.Condition()
        self.closed = False
        self._name = name
        self._work = work
        self._thread: threading.Thread | None = None

    async def put(self, call: W, seconds: float) -> Completion:
        """Raises `DeadlineExceeded` after `seconds`, `SetupError` if the engine is closed, and what the worker settles on.
        Cancelled or late, the call's future is cancelled: the worker drops it."""
        with self.wake:
            if self.closed:
                raise SetupError(CLOSED)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"rollforge-{self._name}", daemon=True)
                self._thread.start()
            self.waiting.append(call)
            self.wake.notify()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(call.future)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._name} gave no answer within {seconds:g} s (call_seconds)") from None

    def close(self) -> None:
        """End the thread; the worker gives a `SetupError` to calls that still wait."""
        with self.wake:
            self.closed = True
            self.wake.notify()
        if self._thread is not None:
            self._thread.join()


CLOSED = "the model was closed"


def settle(future: Future[Any], outcome: Any) -> None:
    """Deliver a value or an exception, once, unless the caller went away in the meantime."""
    if future.done() or not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
