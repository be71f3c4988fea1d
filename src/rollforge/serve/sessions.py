"""Sessions of an environment that outlive a request: one opens them, others use them, the last, or time, ends them.

    open()  --task--> owner: async with env.open(task) as session     one asyncio task enters it and leaves it
    open()  --the same key--> waits for the first, and has the session of the first
    find()  <--cookie: worker.id.signature
    Seat.call(), .verify()   in the tasks of the requests, which the seat counts
    end()   --------> owner: leaves, as soon as nobody uses the session any more

An id is random and signed, so that a cookie can be neither guessed nor made; it says which worker process has the session.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import Any, cast

from fastapi import Request

from rollforge.envs.base import Env, Limits, Session, Step, Stepping, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.errors import InfraFault, VerifierFault, describe, stage
from rollforge.records.items import Item, Response, Usage
from rollforge.records.problem import Problem, bad_request
from rollforge.records.task import Task
from rollforge.sandbox.deadline import apart, within
from rollforge.serve.settings import Settings

log = logging.getLogger(__name__)

COOKIE = "rollforge_session"
MCP_TOKEN = "X-NeMo-Gym-Session-Token"
"""The header with its value that clients of MCP join a seeded session by, as NeMo Gym's do."""
MCP_SESSION = "Mcp-Session-Id"
"""The header with the value of a session that a client of MCP opened itself."""


class Seat:
    """One session. To an agent it is the session itself, with the deadlines that its environment may not keep."""

    def __init__(self, id: str, cookie: str, task: Task, limits: Limits | None, key: str | None = None) -> None:
        self.id = id
        self.key = key
        """What its opening is known by, to a client that does not know whether it was answered."""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = 0
        """How many wait for `opened`."""
        self.cookie = cookie
        """Its value: whoever has it has the session."""
        self.task = task
        self.tools: Sequence[Tool] = ()
        self.observation: str | None = None
        self.output: list[Item] = []
        """With `usage`: the episode so far, of a client that tells each answer as it comes (`/step`)."""
        self.usage: Usage | None = None
        self.told = 0.0
        """Reward, of the steps so far."""
        self.ended = False
        """No step is left to take; it may still be judged."""
        self.over = False
        self.leave = asyncio.Event()
        """Over, and nobody uses it: its owner leaves it."""
        self._limits = limits
        self._session: Session
        self._users = 0
        self._used = time.monotonic()

    def start(self, session: Session) -> None:
        self._session = session
        self.tools, self.observation = list(session.tools), session.observation

    async def call(self, call: ToolCall, /) -> ToolOutput:
        """Run a tool. Raises `Problem` 410 if the session is over, else what the session raises."""
        with self._in_use(), stage("tools", InfraFault):
            running = apart(self._session.call(call))
            return _checked(await (within(self._limits.tool, f"the tool {call.name}", running) if self._limits else running))

    @property
    def stepwise(self) -> bool:
        """Whether it is played by steps."""
        return hasattr(self._session, "step")

    async def take_step(self, response: Response, /) -> Step:
        """Of a session that is played by steps. Not called `step`: an agent looks for that, and other sessions have none."""
        with self._in_use(), stage("tools", InfraFault):
            step = apart(cast("Stepping", self._session).step(response))
            limits = self._limits
            return await (within(limits.tool + limits.verify, "the step", step) if limits else step)

    async def verify(self, response: Response, /, row: Task | None = None) -> Verdict:
        """Judge the attempt: once, since whatever comes of it, the session is over then. `row` is what the caller has to say
        of the task now; what it leaves out is as the session was opened."""
        with self._in_use(), stage("verify", VerifierFault):
            self.over = True
            judge_by = getattr(self._session, "judge_by", None)
            if row is not None and judge_by is not None:
                told = {name: value for name, value in row.fields.items() if value is not None}
                params = row.params if row.params.get("input") else self.task.params
                judge_by(replace(self.task, params=params, fields={**self.task.fields, **told}))
            judging = apart(self._session.verify(response))
            return verdict(await (within(self._limits.verify, "verify", judging) if self._limits else judging))

    def end(self) -> None:
        """No further use; closed as soon as what is under way has finished."""
        self.over = True
        self._settle()

    def idle(self, now: float) -> float:
        """Seconds since its last use; 0 while it is in use."""
        return 0.0 if self._users else now - self._used

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        if self.over:
            raise session_over()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._used = time.monotonic()
            self._settle()

    def _settle(self) -> None:
        if self.over and not self._users:
            self.leave.set()


class Sessions:
    """The open sessions of one environment: at most `max_sessions`, each closed after `session_seconds` without use."""

    def __init__(self, env: Env, settings: Settings, *, secret: bytes | None = None, worker: int = 0) -> None:
        self._env = env
        self._limits = None if getattr(env, "limits", None) is not None else Limits()
        self._settings = settings
        self._secret = secret or secrets.token_bytes(32)
        self._worker = worker
        self._seats: dict[str, Seat] = {}
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._keyed: dict[str, Seat] = {}
        self.expired = 0
        """How many ended because nobody used them."""

    def __len__(self) -> int:
        """Those being opened and being closed included."""
        return len(self._seats)

    async def open(self, task: Task, key: str | None = None) -> Seat:
        """A session for the task; asked for again with its `key`, the same session.

        Raises what opening raises, and `Problem`: 503 when there are too many, 422 for the key of another task.
        """
        seat = self._under(key, task)
        while seat is None and len(self._seats) >= self._settings.max_sessions:
            self.expire()
            leaving = [self._owners[id] for id, seat in self._seats.items() if seat.leave.is_set()]
            if not leaving:
                what = f"{self._settings.max_sessions} sessions are open (max_sessions); close one or come back later"
                raise Problem(503, "too_many_sessions", what, headers={"Retry-After": "1"})
            await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)
            seat = self._under(key, task)
        seat = seat or self._begin(task, key)
        seat.asked += 1
        try:
            await asyncio.shield(seat.opened)
        except asyncio.CancelledError:
            if seat.asked == 1:  # nobody else waits for it
                seat.over = True
                seat.opened.cancel()
                if (owner := self._owners.get(seat.id)) is not None:
                    owner.cancel()
            raise
        finally:
            seat.asked -= 1
        return seat

    def find(self, request: Request) -> Seat | None:
        """The session that the request's cookie names; None without a cookie.

        Raises `Problem`: 401 for a cookie that is not from here, 410 for one whose session is over.
        """
        # Not `request.cookies`, which parses and unquotes all there are.
        sent = (value for name, value in request.scope["headers"] if name == b"cookie")
        found = [cookie for value in sent for cookie in _SENT.findall(value.decode("latin-1"))]
        return self.named(found[-1].strip()) if found else None

    def named(self, cookie: str) -> Seat:
        """The session of that cookie. Raises as `find` does."""
        found = _COOKIE.fullmatch(cookie)
        seat = self._seats.get(found[2]) if found else None
        genuine = seat.cookie if seat else found and self._cookie(found[2])
        if not genuine or not hmac.compare_digest(genuine.encode(), cookie.encode()):
            raise Problem(401, "authentication_error", f"the cookie {COOKIE} is not from this service: seed a session here")
        seat = self._alive(seat)
        if seat is None:
            raise session_over()
        return seat

    async def close(self, seat: Seat) -> None:
        """End a session and wait until it is closed. What goes wrong in closing is logged, not raised."""
        seat.end()
        owner = self._owners.get(seat.id)
        if owner is not None:
            await asyncio.wait({owner})

    def expire(self) -> None:
        """End the sessions that nobody used for too long."""
        now = time.monotonic()
        for seat in self._seats.values():
            if not seat.over and seat.idle(now) > self._settings.session_seconds:
                self.expired += 1
                seat.end()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While inside, sessions expire by themselves; all are closed on the way out."""
        sweeper = asyncio.create_task(self._sweep(), name="expire sessions")
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.wait({sweeper})
            await self.aclose()

    async def aclose(self) -> None:
        """Close them all; those that need longer than `drain_seconds` are cancelled."""
        for seat in self._seats.values():
            seat.end()
        owners = set(self._owners.values())
        if owners:
            _, late = await asyncio.wait(owners, timeout=max(1.0, self._settings.drain_seconds))
            for owner in late:
                owner.cancel()
            if late:
                await asyncio.wait(late, timeout=_LAST_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._settings.session_seconds / 2, _SWEEP_SECONDS))
            self.expire()

    def _under(self, key: str | None, task: Task) -> Seat | None:
        """The session that was opened with the key."""
        seat = self._alive(self._keyed.get(key)) if key else None
        if seat is not None and seat.task != task:
            what = "the Idempotency-Key is that of another row's opening: send a new random one with each"
            raise bad_request(what, param="Idempotency-Key", status=422)
        return seat

    def _alive(self, seat: Seat | None) -> Seat | None:
        """None for one that is over, or that nobody used for too long."""
        if seat is not None and seat.idle(time.monotonic()) > self._settings.session_seconds:
            self.expire()
        return None if seat is None or seat.over else seat

    def _begin(self, task: Task, key: str | None) -> Seat:
        id = secrets.token_hex(16)
        seat = self._seats[id] = Seat(id, self._cookie(id), task, self._limits, key)
        if key:
            self._keyed[key] = seat
        self._owners[id] = asyncio.create_task(self._own(seat), name=f"session {id[:8]}")
        return seat

    async def _own(self, seat: Seat) -> None:
        """The life of a session. Whoever waits for `opened` is told why there is none; what comes later is logged."""
        try:
            with stage("open", VerifierFault):
                async with self._opened(seat.task) as session:
                    seat.start(session)
                    if not seat.opened.done():
                        seat.opened.set_result(None)
                        await seat.leave.wait()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, somebody is told
            seat.over = True
            if not seat.opened.done():
                cancelled = isinstance(error, asyncio.CancelledError)
                seat.opened.set_exception(VerifierFault("opening the session was cancelled") if cancelled else error)
            elif isinstance(error, Exception):
                log.warning("a session ended badly: %s", describe(error))
        finally:
            del self._seats[seat.id], self._owners[seat.id]
            if seat.key and self._keyed.get(seat.key) is seat:
                del self._keyed[seat.key]

    @asynccontextmanager
    async def _opened(self, task: Task) -> AsyncIterator[Session]:
        """The environment's own; closing has a deadline if the environment keeps none."""
        if self._limits is None:
            async with self._env.open(task) as session:
                yield session
            return
        closing = AsyncExitStack()
        session = await closing.enter_async_context(self._env.open(task))
        try:
            yield session
        finally:
            await within(self._limits.tool, "closing the session", closing.__aexit__(*sys.exc_info()))

    def _cookie(self, id: str) -> str:
        signed = f"{self._worker}.{id}"
        return f"{signed}.{blake2b(signed.encode(), key=self._secret, digest_size=32).hexdigest()}"


def worker_of(cookie: str) -> int | None:
    """The worker that a session's cookie names; None if it is none. Says nothing of whether the cookie is genuine."""
    found = _COOKIE.fullmatch(cookie)
    return int(found[1]) if found else None


def session_over() -> Problem:
    return Problem(410, "session_over", "the session is over: judged, closed, or not used for too long; seed another")


def _checked(output: Any) -> ToolOutput:
    """Environments can return anything, and what follows relies on the text."""
    if not isinstance(getattr(output, "text", None), str):
        raise VerifierFault(f"the tool gave {type(output).__name__}, not a ToolOutput with a text")
    return output  # type: ignore[no-any-return]


_SENT = re.compile(rf"(?:^|;)\s*{COOKIE}\s*=([^;]*)")
_COOKIE = re.compile(r"([0-9]{1,6})\.([0-9a-f]{32})\.([0-9a-f]{64})")
_SWEEP_SECONDS = 30.0
_LAST_SECONDS = 5.0
