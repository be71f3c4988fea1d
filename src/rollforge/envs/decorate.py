"""`@env`: an environment from a function or a plain class.

A function is a verifier. A class has tools (its public methods with a docstring), state (its attributes), optionally
`reset`, `close` and `solve`, and `verify` or, as in TRL, `get_reward`. Parameters are filled by name: `reply` and
`response` are what the policy said; others come from the fields of the task's row; `prompt`, `task` and `seed` from the
task unless its row has fields of that name. Sync and async functions both work. A class with `step(self, action)` is
played by steps, as Gymnasium's are (`steps`).

Where the code runs: async functions on the event loop; sync tools in a thread of their session; sync verifiers in worker
processes that are killed when they overrun. `inline=True` runs it all on the event loop: for fast and trusted code.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rollforge.envs.base import Limits, Session
from rollforge.envs.bind import bind
from rollforge.envs.code import Code
from rollforge.envs.session import PythonSession
from rollforge.envs.sources import imported, unfiled
from rollforge.envs.steps import SteppingSession
from rollforge.envs.tasks import Tasks, TaskSource
from rollforge.errors import UserError, describe
from rollforge.models.base import Solution
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from rollforge.sandbox.threads import Threads
from rollforge.sandbox.workers import Workers


def env(
    target: Any = None,
    /,
    *,
    tasks: Tasks = (),
    name: str | None = None,
    inline: bool = False,
    memory_mb: int = 2048,
    system: str | None = None,
    prompt: str | None = None,
    solve: Callable[..., Any] | None = None,
) -> Any:
    """Make an environment of a function or class; used bare, or with arguments as a decorator.

    Args:
        target: the verifier function, or the class.
        tasks: rows, a JSONL file (relative to the file of the environment), or a function that yields rows; its
            parameters can be set from outside (`--set level=hard`).
        name: what it is called; the function's or class's own name by default.
        inline: run tools and verifier on the event loop: no isolation, no overhead.
        memory_mb: what the process of a verifier may use beside what it is born with (on Linux).
        system: a system message for tasks that bring none.
        prompt: a template for rows without a prompt, filled from the row: `"What is {a} + {b}?"`.
        solve: the reference policy (a class may have a method `solve` instead): a function of the row that returns the
            reply, or a generator that yields `(tool, arguments)`, is sent the tool's output, and returns the reply; where
            steps are taken, it yields what the policy says and is sent the observation.
    """

    def made(of: Any) -> PythonEnv:
        options: dict[str, Any] = {"tasks": tasks, "name": name, "inline": inline, "memory_mb": memory_mb}
        return PythonEnv(of, **options, system=system, prompt=prompt, solve=solve)

    return made if target is None else made(target)


class PythonEnv:
    """An environment made by `@env`. Calling it calls the function or class beneath, and a class may inherit from it."""

    def __init__(
        self,
        target: Any,
        *,
        tasks: Tasks = (),
        name: str | None = None,
        inline: bool = False,
        memory_mb: int = 2048,
        system: str | None = None,
        prompt: str | None = None,
        solve: Callable[..., Any] | None = None,
    ) -> None:
        self.code = Code(target)
        self.target = target
        self.name = name or target.__name__
        self.description = (inspect.getdoc(target) or "").strip()
        self.inline = inline
        self.tools = [function.tool for function in self.code.functions.values()]
        self.limits = Limits()
        """Deadlines that its sessions keep; a run sets its own."""
        self.apart = not inline
        """Whether sync verifiers run in worker processes; the thread of their session sees what its tools changed."""
        self._source = TaskSource(self.name, tasks, self.file.parent if self.file else None, system, prompt)
        self._solve = solve
        reference = solve or getattr(target, "solve", None)
        if inspect.iscoroutinefunction(reference) or inspect.isasyncgenfunction(reference):
            raise UserError(f"{self.name}: solve is called without an event loop; make it a plain function or generator")
        self._threads = Threads()
        self._workers = Workers(self.code.judge, self.code.unpack, memory_mb=memory_mb)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.target(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # In the user's file the class's name means the environment: `Bank.FEE` has to work there.
        if name.startswith("__") or "target" not in vars(self):
            raise AttributeError(name)
        return getattr(self.target, name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.target,)

    def __repr__(self) -> str:
        return f"<env {self.name} from {self.file or self.target.__module__}>"

    @property
    def stepwise(self) -> bool:
        """Whether it is played by steps: its sessions have `step`."""
        return bool(self.code.action)

    @property
    def file(self) -> Path | None:
        module = sys.modules.get(self.target.__module__)
        path = getattr(module, "__file__", None)
        return Path(path) if path else None

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        lane = None if self.inline else self._threads.lane()
        made = SteppingSession if self.stepwise else PythonSession
        session = made(self.code, task, self.limits, lane, self._workers if self.apart else None)
        try:
            await session.start()
            yield session
        except BaseException as error:
            try:
                await session.close()
            except Exception as closing:  # noqa: BLE001 - what came first is what ended the attempt
                error.add_note(f"closing failed too: {describe(closing)}")
            raise
        await session.close()

    async def aclose(self) -> None:
        """End its threads and processes; it can be used again."""
        self._threads.close()
        self._workers.close()

    def tasks(self, source: str | Path | None = None, **options: Any) -> Iterator[Task | BadLine]:
        """The environment's own tasks, or those of the JSONL file `source`, in order, streamed, prompts completed.

        `options` go to the tasks function; an option it has no parameter for is a `UserError`.
        """
        return self._source.read(source, **options)

    def read_row(self, row: Mapping[str, Any]) -> Task:
        """The task of a row that somebody brings, prompt completed. Raises `UserError` for what is none."""
        return self._source.read_row(row)

    def solve(self, task: Task) -> Solution | None:
        """The reference policy at work on `task`; None if the environment has none, or it knows no solution."""
        solve: Any = self._solve
        if solve is None:
            if not self.code.has("solve"):
                return None
            solve = self.target().solve
        result: Any = solve(**bind(solve, task))
        if isinstance(result, (list, tuple)):
            return _in_turn(result)
        is_reply = result is not None and not inspect.isgenerator(result)
        return _just(str(result)) if is_reply else result

    def digest(self) -> str:
        """Of the environment's source files, with what they import from beside them, or of its code where that is in no
        file; and of the verifiers it may call: another one means that rewards may differ."""
        file, files, text = self.file, [], ""
        if file is None or not file.exists():
            text = unfiled(self.target)
        else:
            files = sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]
            files += [beside for beside in imported(files) if beside not in files]
        files += sorted((Path(__file__).parents[1] / "verify").glob("*.py"))
        return hashlib.sha256(text.encode() + b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _in_turn(actions: Sequence[Any]) -> Solution:
    for action in actions:
        yield str(action)
    return ""


def _just(reply: str) -> Solution:
    yield from ()
    return reply
