"""Rollouts that are played from outside: by a trainer that makes the model calls itself, perhaps in threads of its own.

    trainer    begin ───────> call, call ──────────> end
    Outside    Runner: open ─ session ─ its agent waits ─ verify, close

The engine's `Runner` keeps the life of the rollout as it keeps any other (deadlines, outcomes, closing).

`live` is one event loop in one daemon thread for the whole process: an environment's connections and locks belong to the
loop that they were made on, and trainers have none, or several.
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

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.replay import no_model
from rollforge.envs.base import Session
from rollforge.errors import InfraFault, RolloutError
from rollforge.models.base import Model
from rollforge.records.items import Item, Response, function_call, tool_name
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task
from rollforge.train.play import Player, unjudged

T = TypeVar("T")
CLOSE_SECONDS = 30.0
"""For all that is open when the program ends."""


class Live:
    """The loop, and what is open on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._open: set[Outside] = set()
        self._players: dict[int, Player] = {}
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

    def keep(self, player: Player) -> None:
        """Close its environment in the end."""
        self._players[id(player.env)] = player

    def begin(self, player: Player, task: Task) -> Outside:
        """From any other thread, waiting until the session is open, or will never be. Raises `SetupError`."""
        return self.run(self._begin(player, task))

    def close(self) -> None:
        """End every rollout and environment, and the thread."""
        atexit.unregister(self.close)
        if self.loop.is_closed():
            return
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _begin(self, player: Player, task: Task) -> Outside:
        one = Outside(player, task)
        self._open.add(one)
        one.rollout.add_done_callback(lambda _: self._open.discard(one))
        await one.opened()
        return one

    async def _end(self) -> None:
        for one in self._open:
            one.abandon()
        waiting = [one.rollout for one in self._open]
        if waiting:
            await asyncio.wait(waiting, timeout=CLOSE_SECONDS)
        for player in self._players.values():
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


class Outside:
    """A rollout whose policy is elsewhere. Everything but `fail` and `abandon` is for the event loop that it was made on."""

    def __init__(self, player: Player, task: Mapping[str, Any] | Task) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Session] = self._loop.create_future()
        self._answer: asyncio.Future[Response] = self._loop.create_future()
        self._declared: set[Any] = set()
        self._turn = asyncio.Lock()
        self.made: list[Item] = []
        """The tool calls so far, with their outputs."""
        # Its agent has the answer from outside; everything else is the player's.
        self.rollout = asyncio.create_task(replace(player, agent=self._agent).play(task, no_model))

    async def opened(self) -> None:
        """Wait for the session, or for the end if there will be none. Raises `SetupError` and `UserError`; what else failed
        is the outcome of the rollout."""
        begun: list[asyncio.Future[Any]] = [self.rollout, self._opened]
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        if self.rollout.done():
            await self.rollout

    @property
    def session(self) -> Session | None:
        """None when it is over, or never began."""
        return self._opened.result() if self._opened.done() and not self._answer.done() else None

    async def call(self, name: str, arguments: Any) -> str:
        """What the policy reads. Calls that come together are made in their order. Raises `RolloutError` if there is no
        session, or the tool breaks."""
        async with self._turn:
            await self.opened()
            session = self.session
            if session is None:
                raise InfraFault(f"the rollout is over{self._why()}")
            call = function_call(name, dumps(arguments).decode(), f"call_{len(self.made)}")
            output = await ToolLoop().run_call(call, self._declared, session)
            self.made += [call, output]
            return str(output["output"])

    async def end(self, output: list[Item]) -> Rollout:
        """Judge the whole conversation. Once: the rollout stays what it was."""
        if not self._answer.done():
            self._answer.set_result({"output": output})
        return await asyncio.shield(self.rollout)

    def fail(self, error: RolloutError) -> None:
        """End it without a verdict. From any thread, at any time, not waiting."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail, error)

    def abandon(self) -> None:
        self.fail(InfraFault("the rollout was abandoned"))

    async def _agent(self, task: Task, model: Model, session: Session, /) -> Response:
        self._declared = {tool_name(tool) for tool in task.params.get("tools") or []}
        self._opened.set_result(session)
        return await self._answer

    def _why(self) -> str:
        if not self._opened.done():
            return f": {unjudged(self.rollout.result())}"
        return ": it was open for too long" if self._answer.cancelled() else ""

    def _fail(self, error: RolloutError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # seen, should nobody wait for it
