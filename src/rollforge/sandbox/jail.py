"""Programs that nobody trusts, model-written ones say, run in cells: processes that have locked themselves in.

    loop: run(program) --job--> cell (a clean interpreter, walled in when it started; `inside/cell.py` draws what is in it)
          run(program) <-how it ended, its output--  the clock started when the program did, not while it queued

A cell runs one program at a time, each in a fork with limits of its own, an empty /tmp and no way back; a pool of them is
kept warm, so that a small program takes milliseconds. What was expected of a program is compared out here: it never sees it.

What this does not protect from: faults of the kernel (the programs share it), a program that burns its share of the
processor for as long as its limits allow, and what can be learned from timing. See docs/reference/sandbox.md.
"""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import sys
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from rollforge.errors import InfraFault, SetupError
from rollforge.sandbox.cells import INSIDE, Place, Process, Room
from rollforge.sandbox.deadline import queued
from rollforge.sandbox.docker import IMAGE, PYTHON, SANDBOX, Container, Engine, chosen
from rollforge.sandbox.slots import Slots, cores

Level = Literal["namespaces", "container", "landlock", "none"]

ALLOW = "ROLLFORGE_ALLOW_UNSANDBOXED"
"""Set to 1 (`--allow-unsandboxed`) to run all the same where isolation is weaker."""
GRACE = 60.0
"""Seconds that a cell has to start, and then as many to start a program and to report on it, beside the program's own: on a
busy machine that takes long, and is not the program's fault."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: Python source in a warm interpreter, or a command."""

    code: str = ""
    argv: tuple[str, ...] = ()
    stdin: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """Put into its folder first, by name."""
    collect: tuple[str, ...] = ()
    """Files to bring back from its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one program may use."""

    wall: float = 10.0
    """Seconds."""
    cpu: float = 10.0
    """Seconds, per process."""
    memory_mb: int = 512
    """Of each process; twice as much for all of them together."""
    file_mb: int = 16
    disk_mb: int = 64
    processes: int = 16
    """Threads count too."""
    output_kb: int = 1024
    """Of stdout, of stderr, and of each file brought back; the rest is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended."""

    code: int
    """Exit status, negative for a signal."""
    stdout: str
    stderr: str
    timed_out: bool = False
    out_of_memory: bool = False
    """All its processes together took too much, and were killed."""
    cut: bool = False
    """Whether stdout was longer."""
    cpu: float = 0.0
    seconds: float = 0.0
    memory_mb: float = 0.0
    """At most, of one process."""
    files: dict[str, str | None] = field(default_factory=dict)


class Jail:
    """At most `size` cells; one is made when needed, and replaced when it had to be killed.

    `level` asks for one kind of isolation; without it, the best this machine has, which must be namespaces unless
    ROLLFORGE_ALLOW_UNSANDBOXED is 1. With an `engine`, or ROLLFORGE_SANDBOX and no `level`, the cells are containers.
    `folders` can be read inside beside the system and Python's own: for packages.
    """

    def __init__(
        self,
        size: int | None = None,
        level: Level | None = None,
        folders: tuple[str, ...] = (),
        grace: float = GRACE,
        engine: Engine | None = None,
    ) -> None:
        self._asked = level
        self._folders = folders
        self._grace = grace
        self._engine = engine or (Engine() if level == "container" else None)
        self._begun = False
        self._room = Room()
        self.level: Level | None = level
        """What isolates; known once a cell was made."""
        self._idle: list[_Cell] = []
        self._all: set[_Cell] = set()
        self._ending: set[_Cell] = set()
        size = size or cores()
        self._numbers = set(range(size))
        self._slots = Slots(size)
        weakref.finalize(self, _end, self._all, self._ending, os.getpid())

    async def run(self, program: Program, allowance: Allowance | None = None) -> Ended:
        """Run it to its end, or to that of its time. However it ends, that is a result.

        Raises `SetupError` if this machine isolates less than promised and that was not allowed, `InfraFault` if there can
        be no cell.
        """
        allowance = allowance or Allowance()
        slot = self._slots.here()
        async with queued():
            await slot.acquire()
        try:
            async with queued():
                cell = await self._take(allowance)
            finished = False
            try:
                ended = await cell.run(program, allowance)
                finished = not (ended.out_of_memory or cell.spent)
                return ended
            finally:
                if finished:
                    self._idle.append(cell)
                else:
                    self._drop(cell)
        finally:
            slot.release()

    def release(self) -> None:
        """End the cells in which nothing runs; the others stay, for whoever shares this pool."""
        while self._idle:
            self._drop(self._idle.pop())

    def close(self) -> None:
        """End all cells with what runs in them; the next `run` makes new ones."""
        self._idle.clear()
        for cell in list(self._all):
            self._drop(cell)
        for cell in self._ending:
            cell.gone(wait=True)
        self._ending.clear()

    async def _take(self, allowance: Allowance) -> _Cell:
        needed = Room(2 * allowance.memory_mb, allowance.disk_mb, allowance.processes)
        while self._idle:
            cell = self._idle.pop()
            if cell.alive and cell.holds(needed):
                return cell
            self._drop(cell)
        self._ending -= {cell for cell in self._ending if cell.gone()}
        self._room = self._room.grown(needed)
        engine = self._engine or (None if self._asked else chosen())
        place = Container(engine, self._room, self._folders) if engine else Process()
        weaker = os.environ.get(ALLOW) == "1"
        cell = _Cell(self._numbers.pop(), self._grace, place, self._begun)
        self._all.add(cell)
        try:
            self.level = await cell.start(
                {
                    "level": "container" if engine else self._asked or ("best" if weaker else "namespaces"),
                    "weaker": weaker,
                    "number": cell.number,
                    "folders": _needed(self._folders),
                }
            )
        except BaseException:
            self._drop(cell)
            raise
        self._begun = True
        return cell

    def _drop(self, cell: _Cell) -> None:
        self._all.discard(cell)
        self._numbers.add(cell.number)
        cell.end()
        if not cell.gone():
            self._ending.add(cell)


@cache
def inner(name: str) -> str:
    """A script of `sandbox/inside`, ready to be run in a cell: compiled, since its interpreter is this one."""
    source = (INSIDE / f"{name}.py").read_text(encoding="utf-8")
    packed = marshal.dumps(compile(source, f"{name}.py", "exec", dont_inherit=True)).hex()
    return f"import marshal\nexec(marshal.loads(bytes.fromhex({packed!r})))"


def shared(folders: tuple[str, ...] = ()) -> Jail:
    """The pool of this process, one per set of `folders`, sized to the cores: environments beside each other do not
    multiply what runs at once. `release_shared` gives back what idles."""
    key = os.getpid(), folders  # a fork needs cells of its own
    if key not in _SHARED:
        _SHARED[key] = Jail(folders=folders)
    return _SHARED[key]


def allow_weaker() -> None:
    """From now on, for this process and those it starts: run programs with what isolation there is."""
    os.environ[ALLOW] = "1"


def release_shared() -> None:
    """Give back what idles in all pools of this process."""
    for (owner, _), jail in _SHARED.items():
        if owner == os.getpid():
            jail.release()


_SHARED: dict[tuple[int, tuple[str, ...]], Jail] = {}


class _Cell:
    def __init__(self, number: int, grace: float, place: Place, begun: bool) -> None:
        self.number = number
        self._grace = grace
        self._place = place
        self._begun = begun
        """Whether one like it has ever begun to work."""
        self.spent = False
        """Whether nothing more can be run in it."""
        self._socket = place.connection
        self._socket.setblocking(False)
        self.holds, self.end, self.gone = place.holds, place.end, place.gone

    @property
    def alive(self) -> bool:
        return self._place.alive

    async def start(self, options: Mapping[str, Any]) -> Level:
        try:
            async with asyncio.timeout(self._grace):
                found = await self._ask(options, self._place.opening())
        except TimeoutError:
            raise InfraFault(f"a sandbox did not start within {self._grace:g} s: {_busy()}") from None
        if "error" in found:
            elsewhere = "" if options["level"] == "container" else f"to run it in containers: {SANDBOX}=docker (or podman); "
            raise SetupError(
                f"this machine cannot isolate untrusted code as promised ({found['error']}); {elsewhere}"
                f"to run it with what there is: --allow-unsandboxed, or {ALLOW}=1"
            )
        if (python := ".".join(map(str, found["python"]))) != PYTHON:
            raise SetupError(f"the containers' image has Python {python}, and this is {PYTHON}: name one with it in {IMAGE}")
        self._begun = True
        return found["level"]  # type: ignore[no-any-return]

    async def run(self, program: Program, allowance: Allowance) -> Ended:
        watch = asyncio.create_task(self._watch(allowance.memory_mb * 2 << 20))
        try:
            async with asyncio.timeout(allowance.wall + 2 * self._grace):
                found = await self._ask({**asdict(program), "limits": asdict(allowance), "grace": self._grace})
        except TimeoutError:
            raise InfraFault(f"a sandbox gave no answer {2 * self._grace:g} s after the program's time: {_busy()}") from None
        except InfraFault:
            if watch.done():
                return Ended(code=-9, stdout="", stderr="", out_of_memory=True)
            raise
        finally:
            watch.cancel()
        self.spent = found.pop("spent", False)
        if "error" in found:
            raise InfraFault(f"a sandbox could not run the program: {found['error']}")
        return Ended(timed_out=found.pop("timeout"), **found)

    async def _watch(self, most: int) -> None:
        """Until all processes of the program together take too much memory: then they are killed, with their cell."""
        while self._place.memory() <= most:  # noqa: ASYNC110
            await asyncio.sleep(_WATCH_SECONDS)  # the kernel tells nobody
        self._place.kill()

    async def _ask(self, job: Mapping[str, Any], before: bytes = b"") -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        data = json.dumps(job).encode()
        try:
            await loop.sock_sendall(self._socket, before + len(data).to_bytes(8, "big") + data)
            size = int.from_bytes(await self._exactly(8), "big")
            found: dict[str, Any] = json.loads(await self._exactly(size))
            return found
        except (OSError, ValueError) as error:
            raise await asyncio.to_thread(self._place.fault, error, self._begun) from error

    async def _exactly(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < size:
            piece = await loop.sock_recv(self._socket, min(size - len(data), 1 << 20))
            if not piece:
                raise ConnectionResetError("its connection is closed")
            data += piece
        return bytes(data)


_WATCH_SECONDS = 0.1


def _busy() -> str:
    """How much so the machine is, and what to do about it."""
    load = f"the load is {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors" if hasattr(os, "getloadavg") else ""
    return f"{load or 'the machine is busy'}; run fewer at once"


def _needed(folders: tuple[str, ...]) -> list[str]:
    """What a cell sees beside the system."""
    python = {os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)}
    return [path for path in sorted(python | set(folders)) if not path.startswith(("/usr/", "/lib"))]


def _end(cells: set[_Cell], ending: set[_Cell], owner: int) -> None:
    if os.getpid() == owner:  # a fork that exits has no business with the cells of its parent
        for cell in cells:
            cell.end()
        for cell in cells | ending:
            cell.gone(wait=True)
