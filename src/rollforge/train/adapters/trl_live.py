"""Rollouts that are played from outside: by a trainer that makes the model calls itself, in threads of its own.

    trainer's thread    begin ───────> call, call ──────────> end
    this thread         Runner: open ─ session ─ Outside waits ─ verify, close

The engine's `Runner` keeps the life of the rollout as it keeps any other (deadlines, outcomes, closing). One event loop in
one daemon thread for the whole process: an environment's connections and locks belong to the loop that they were made
on, and trainers have none, or several.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from rollforge.agents.tool_loop import ToolLoop, tool_name
from rollforge.collect.replay import no_model
from rollforge.envs.base import Session
from rollforge.errors import InfraFault, RolloutError
from rollforge.models.base import Model
from rollforge.records.items import Item, Response, function_call
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task
from rollforge.train.play import Player

T = TypeVar("T")
CLOSE_SECONDS = 30.0
"""For all that is open when the program ends."""


class Live:
    """The loop, and what is open on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.open: set[Attempt] = set()
        self.players: dict[int, Player] = {}
        """By the identity of their environments."""
        self._thread = threading.Thread(target=self.loop.run_forever, name="rollforge-live", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """From any other thread, waiting."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def join(self, work: Coroutine[Any, Any, T]) -> T:
        """From any other event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def forget(self, attempt: Attempt) -> None:
        """End an attempt that nobody will. From any thread, not waiting."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(attempt.abandon)

    def close(self) -> None:
        """End every attempt and environment, and the thread."""
        atexit.unregister(self.close)
        if self.loop.is_closed():
            return
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _end(self) -> None:
        for attempt in self.open:
            attempt.abandon()
        waiting = [attempt.rollout for attempt in self.open]
        if waiting:
            await asyncio.wait(waiting, timeout=CLOSE_SECONDS)
        for player in self.players.values():
            await player.aclose()


def live() -> Live:
    """That of this process."""
    return _live(os.getpid())  # threads do not survive a fork


def close() -> None:
    """End the sessions and environments of this process's adapters. Also done when the program ends."""
    live().close()
    _live.cache_clear()


@cache
def _live(process: int) -> Live:
    return Live()


class Attempt:
    """One rollout under way; everything but `begin` on its loop."""

    def __init__(self, player: Player, task: Task) -> None:
        self._outside = Outside()
        # Its agent has the answer from outside; everything else is the player's.
        self.rollout = asyncio.create_task(replace(player, agent=self._outside).play(task, no_model))

    @classmethod
    async def begin(cls, player: Player, task: Task) -> Attempt:
        """Open a session. Raises `SetupError`; other failures are the outcome of the rollout."""
        attempt = cls(player, task)
        attempts = live().open
        attempts.add(attempt)
        attempt.rollout.add_done_callback(lambda _: attempts.discard(attempt))
        begun: list[asyncio.Future[Any]] = [attempt.rollout, attempt._outside.opened]
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        if attempt.rollout.done():
            await attempt.rollout
        return attempt

    @property
    def session(self) -> Session | None:
        """None when it is over, or never began."""
        opened = self._outside.opened
        return opened.result() if opened.done() and not self._outside.answer.done() else None

    @property
    def made(self) -> list[Item]:
        """The tool calls so far, with their outputs."""
        return list(self._outside.made)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What the policy reads. Raises `RolloutError` if it is over, or ends by this call."""
        if self.session is None:
            raise InfraFault("the rollout is over")
        return await self._outside.call(name, arguments, self.session)

    async def end(self, output: list[Item]) -> Rollout:
        """Judge the whole conversation. Once: the rollout stays what it was."""
        if not self._outside.answer.done():
            self._outside.answer.set_result({"output": output})
        return await asyncio.shield(self.rollout)

    def abandon(self) -> None:
        self._outside.fail(InfraFault("the rollout was abandoned"))


class Outside:
    """The agent whose policy is elsewhere."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Session] = loop.create_future()
        self.answer: asyncio.Future[Response] = loop.create_future()
        self.made: list[Item] = []
        self._declared: set[Any] = set()

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        self._declared = {tool_name(tool) for tool in task.params.get("tools") or []}
        self.opened.set_result(session)
        return await self.answer

    async def call(self, name: str, arguments: Mapping[str, Any], session: Session) -> str:
        call = function_call(name, dumps(dict(arguments)).decode(), f"call_{len(self.made)}")
        try:
            output = await ToolLoop().run_call(call, self._declared, session)
        except RolloutError as error:
            self.fail(error)
            raise
        self.made += [call, output]
        return str(output["output"])

    def fail(self, error: RolloutError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # seen, should nobody wait for it
