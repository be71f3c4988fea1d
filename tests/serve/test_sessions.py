from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import Request

from rollforge.envs.base import Limits, Session, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.errors import DeadlineExceeded, InfraFault, VerifierFault
from rollforge.records.items import Response, assistant
from rollforge.records.problem import Problem
from rollforge.records.task import Task, task_from_row
from rollforge.serve.sessions import COOKIE, Seat, Sessions, worker_of
from rollforge.serve.settings import Settings

TASK = task_from_row({"prompt": "?", "goal": 1})
REPLY: Response = {"output": [assistant("done")]}


@dataclass
class Env:
    """Records what happens to its sessions; `fails` names the step that raises, `waits` the one that waits for `go`."""

    fails: str = ""
    waits: str = ""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)
    tasks: list[Any] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def do(self, what: str) -> None:
        self.log.append(what)
        if self.waits == what:
            await self.go.wait()
        if self.fails == what:
            raise ValueError(f"{what} is broken")

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        self.tasks.append(asyncio.current_task())
        await self.do("open")
        try:
            yield Live(self)
        finally:
            self.tasks.append(asyncio.current_task())
            self.closed.set()
            await self.do("close")


@dataclass
class Live:
    env: Env
    tools: tuple[Tool, ...] = (Tool("look"),)
    observation: str | None = "a door"

    async def call(self, call: ToolCall, /) -> ToolOutput:
        await self.env.do("call")
        return ToolOutput("seen")

    async def verify(self, response: Response, /) -> Verdict:
        await self.env.do("verify")
        return verdict({"reward": 0.5, "steps": 2})


class OwnDeadlines(Env):
    limits = Limits()


def asking(cookie: str | None) -> Request:
    headers = [] if cookie is None else [(b"cookie", f"other=1; {COOKIE}={cookie}".encode("latin-1"))]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


def sessions(env: Env, worker: int = 0, secret: bytes = b"s", **settings: Any) -> Sessions:
    return Sessions(env, Settings(**settings), secret=secret, worker=worker)


async def judged(seat: Seat) -> Verdict:
    return await seat.verify(REPLY)


@pytest.mark.parametrize("kind", [Env, OwnDeadlines])
async def test_a_session_lives_in_one_task_until_it_is_judged(kind: type[Env]) -> None:
    env = kind()
    open_ = sessions(env)
    seat = await open_.open(TASK)
    assert ([tool.name for tool in seat.tools], seat.observation, len(open_)) == (["look"], "a door", 1)
    assert open_.find(asking(seat.cookie)) is seat
    assert (await seat.call(ToolCall("look", {}))).text == "seen"
    assert await judged(seat) == Verdict(0.5, {"steps": 2})
    await open_.close(seat)
    assert (env.log, len(open_)) == (["open", "call", "verify", "close"], 0)
    assert env.tasks[0] is env.tasks[1] is not asyncio.current_task()
    for again in (judged(seat), seat.call(ToolCall("look", {}))):
        with pytest.raises(Problem) as error:
            await again
        assert error.value.status == 410
    with pytest.raises(Problem) as error:
        open_.find(asking(seat.cookie))
    assert error.value.status == 410


async def test_an_opening_that_is_asked_for_again_is_the_same_session() -> None:
    env = Env(waits="open")
    open_ = sessions(env, max_sessions=1)
    first, second = (asyncio.create_task(open_.open(TASK, "k1")) for _ in range(2))
    await asyncio.sleep(0)
    env.go.set()
    seat = await first
    assert await second is seat
    assert await open_.open(TASK, "k1") is seat
    with pytest.raises(Problem, match="another row") as error:
        await open_.open(task_from_row({"prompt": "!", "goal": 1}), "k1")
    assert error.value.status == 422
    assert (len(open_), env.log) == (1, ["open"])
    await judged(seat)
    other = await open_.open(TASK, "k1")
    assert (other is seat, await open_.open(TASK, "k1") is other) == (False, True)
    await open_.aclose()
    assert env.log == ["open", "verify", "close", "open", "close"]


async def test_a_key_ends_with_its_session() -> None:
    env = Env()
    open_ = sessions(env, session_seconds=0.02)
    seat = await open_.open(TASK, "k1")
    await asyncio.sleep(0.05)
    other = await open_.open(TASK, "k1")
    assert (other is seat, open_.expired) == (False, 1)
    await open_.aclose()

    failing = sessions(Env(fails="open"))
    for _ in range(2):  # nothing is there to be given again
        with pytest.raises(VerifierFault, match="open is broken"):
            await failing.open(TASK, "k1")


@pytest.mark.parametrize("leaving", [(0,), (1,), (0, 1)])
async def test_an_opening_goes_on_for_as_long_as_anybody_waits(leaving: tuple[int, ...]) -> None:
    env = Env(waits="open")
    open_ = sessions(env)
    asked = [asyncio.create_task(open_.open(TASK, "k1")) for _ in range(2)]
    await asyncio.sleep(0)
    for number in leaving:
        asked[number].cancel()
    await asyncio.wait([asked[number] for number in leaving])
    again = asyncio.create_task(open_.open(TASK, "k1"))
    await asyncio.sleep(0)
    env.go.set()
    seat = await again
    staying = [task for number, task in enumerate(asked) if number not in leaving]
    assert all([await task is seat for task in staying])
    assert env.log == ["open"] * (1 if staying else 2)
    assert len(open_) == 1
    await open_.aclose()


async def test_cookies_are_random_and_signed() -> None:
    env = Env()
    open_, other = sessions(env, worker=3), sessions(env, worker=4)
    first, second = await open_.open(TASK), await open_.open(TASK)
    worker, id, signature = first.cookie.split(".")
    assert (worker, worker_of(first.cookie)) == ("3", 3)
    assert first.cookie != second.cookie
    assert open_.find(asking(None)) is None
    mixed = f"3.{id}.{second.cookie.split('.')[2]}"
    for forged in (
        *("", ".", "..", "3", f"3.{id}", f"3.{id}.", f"3.{id}.{'0' * 64}", mixed, f"4.{id}.{signature}"),
        *(
            f"3.{id}.{signature}x",
            f"x{first.cookie}",
            f"²{first.cookie[1:]}",
            "é" * 10,
            "3." * 99,
            f"{10**400}.{id}.{signature}",
        ),
    ):
        with pytest.raises(Problem) as error:
            open_.find(asking(forged))
        assert (error.value.status, error.value.type) == (401, "authentication_error"), forged
        assert id not in error.value.message
    with pytest.raises(Problem) as error:
        other.find(asking(first.cookie))
    assert error.value.status == 401
    with pytest.raises(Problem) as error:
        sessions(env, worker=3).find(asking(first.cookie))  # as after a restart
    assert error.value.status == 410
    assert {worker_of(text) for text in ("", "x", "3", mixed[1:], f"{10**400}.{id}.{signature}")} == {None}
    await open_.aclose()


async def test_sessions_are_bounded_and_those_that_leave_make_room() -> None:
    env = Env()
    open_ = sessions(env, max_sessions=2)
    first, _ = await open_.open(TASK), await open_.open(TASK)
    with pytest.raises(Problem, match="max_sessions") as error:
        await open_.open(TASK)
    assert (error.value.status, error.value.headers) == (503, {"Retry-After": "1"})
    env.waits = "close"
    await judged(first)
    third = asyncio.create_task(open_.open(TASK))
    await asyncio.sleep(0.01)
    assert not third.done()  # the first is still closing
    env.go.set()
    assert open_.find(asking((await third).cookie)) is await third
    assert len(open_) == 2
    await open_.aclose()
    assert len(open_) == 0


async def test_an_expired_session_makes_room() -> None:
    env = Env()
    open_ = sessions(env, max_sessions=1, session_seconds=0.01)
    first = await open_.open(TASK)
    await asyncio.sleep(0.03)
    second = await open_.open(TASK)
    assert open_.expired == 1
    with pytest.raises(Problem) as error:
        open_.find(asking(first.cookie))
    assert error.value.status == 410
    assert env.log == ["open", "close", "open"]
    await open_.close(second)


async def test_who_is_not_used_expires_and_who_is_used_never_does() -> None:
    idle, busy = Env(), Env(waits="call")
    async with sessions(idle, session_seconds=0.02).running():
        pass
    open_ = sessions(idle, session_seconds=0.02)
    using = sessions(busy, session_seconds=0.02)
    async with open_.running(), using.running():
        await open_.open(TASK)
        seat = await using.open(TASK)
        call = asyncio.create_task(seat.call(ToolCall("look", {})))
        await idle.closed.wait()
        await asyncio.sleep(0.06)
        assert using.find(asking(seat.cookie)) is seat
        busy.go.set()
        assert (await call).text == "seen"
        await busy.closed.wait()
        assert (open_.expired, using.expired) == (1, 1)


async def test_leaving_closes_all_sessions() -> None:
    env = Env()
    open_ = sessions(env)
    async with open_.running():
        for _ in range(20):
            await open_.open(TASK)
        assert len(open_) == 20
    assert (len(open_), env.log.count("close")) == (0, 20)


async def test_a_session_that_does_not_close_is_cancelled_at_the_end() -> None:
    env = Env(waits="close")
    open_ = sessions(env, drain_seconds=0)
    async with open_.running():
        await open_.open(TASK)
    assert len(open_) == 0


@pytest.mark.parametrize("kind", [Env, OwnDeadlines])
async def test_what_opening_raises_is_raised_and_leaves_nothing(kind: type[Env]) -> None:
    env = kind(fails="open")
    open_ = sessions(env)
    with pytest.raises(VerifierFault, match="open is broken"):
        await open_.open(TASK)
    await asyncio.sleep(0)
    assert len(open_) == 0


async def test_who_stops_waiting_for_a_session_gets_none() -> None:
    env = Env(waits="open")
    open_ = sessions(env)
    opening = asyncio.create_task(open_.open(TASK))
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await open_.aclose()
    assert (len(open_), env.log) == (0, ["open"])


async def test_a_failure_to_close_is_logged_and_the_verdict_stands(caplog: pytest.LogCaptureFixture) -> None:
    env = Env(fails="close")
    open_ = sessions(env)
    seat = await open_.open(TASK)
    with caplog.at_level(logging.WARNING):
        assert (await judged(seat)).reward == 0.5
        await open_.close(seat)
    assert "close is broken" in caplog.text
    assert seat.id not in caplog.text
    assert len(open_) == 0


async def test_closing_waits_for_a_call_under_way_and_the_call_ends_well() -> None:
    env = Env(waits="call")
    open_ = sessions(env)
    seat = await open_.open(TASK)
    call = asyncio.create_task(seat.call(ToolCall("look", {})))
    await asyncio.sleep(0)
    closing = asyncio.create_task(open_.close(seat))
    await asyncio.sleep(0.01)
    assert (env.log, closing.done()) == (["open", "call"], False)
    env.go.set()
    assert (await call).text == "seen"
    await closing
    assert env.log == ["open", "call", "close"]


async def test_a_session_is_judged_once_whoever_asks() -> None:
    env = Env(waits="verify")
    open_ = sessions(env)
    seat = await open_.open(TASK)
    asked = [asyncio.create_task(judged(seat)) for _ in range(3)]
    await asyncio.sleep(0.01)
    env.go.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[0] == Verdict(0.5, {"steps": 2})
    assert [one.status for one in found[1:] if isinstance(one, Problem)] == [410, 410]
    await open_.aclose()
    assert env.log == ["open", "verify", "close"]


@pytest.mark.parametrize(("step", "kind"), [("call", InfraFault), ("verify", VerifierFault)])
async def test_foreign_exceptions_become_faults(step: str, kind: type[Exception]) -> None:
    env = Env(fails=step)
    open_ = sessions(env)
    seat = await open_.open(TASK)
    with pytest.raises(kind, match=re.escape(f"{step} is broken")):
        await (seat.call(ToolCall("look", {})) if step == "call" else judged(seat))
    await open_.aclose()
    assert env.log[-1] == "close"


async def test_own_deadlines_are_left_to_the_environment() -> None:
    class Late(OwnDeadlines):
        async def do(self, what: str) -> None:
            if what == "call":
                raise DeadlineExceeded("the tool look took longer than 1 s")

    open_ = sessions(Late())
    seat = await open_.open(TASK)
    with pytest.raises(DeadlineExceeded, match="look"):
        await seat.call(ToolCall("look", {}))
    await open_.aclose()
