"""`@env`: an environment from a function or a plain class.

A function is a verifier. A class has tools (its public methods with a docstring), state (its attributes), optionally
`reset`, `close` and `solve`, and `verify` or, as in TRL, `get_reward`. Parameters are filled by name: from `reply`,
`response`, `prompt`, `task` and `seed`, else from the task row's fields. Sync and async functions both work.

Where the code runs: async functions on the event loop; sync tools in threads; sync verifiers in worker processes that are
killed when they overrun. `inline=True` runs it all on the event loop: for code that is known to be fast and trusted.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollforge.envs.base import Limits, Session
from rollforge.envs.bind import bind, parameters, restore
from rollforge.envs.session import PythonSession
from rollforge.envs.tools import FunctionTool, function_tool
from rollforge.errors import UserError, VerifierFault, stage, unknown
from rollforge.models.base import Solution
from rollforge.records.items import input_items, system
from rollforge.records.rows import BadLine, read_tasks
from rollforge.records.task import Task, task_from_row, task_id
from rollforge.sandbox.threads import Threads
from rollforge.sandbox.workers import Workers

Tasks = Iterable[Mapping[str, Any]] | str | Path | Callable[..., Iterable[Mapping[str, Any]]]

RESERVED = {"reset", "verify", "get_reward", "close", "solve", "seed_session", "aggregate_metrics"}
"""Names that cannot be tools: they mean something to an environment or to the wire."""


def env(
    target: Any = None,
    /,
    *,
    tasks: Tasks = (),
    name: str | None = None,
    inline: bool = False,
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
        system: a system message put before every task's prompt.
        prompt: a template for rows without a prompt, filled from the row: `"What is {a} + {b}?"`.
        solve: the reference policy (a class may have a method `solve` instead): a function of the row that returns the
            reply, or a generator that yields `(tool, arguments)`, is sent the tool's output, and returns the reply.
    """
    if target is None:
        return lambda given: env(given, tasks=tasks, name=name, inline=inline, system=system, prompt=prompt, solve=solve)
    return PythonEnv(target, tasks=tasks, name=name, inline=inline, system=system, prompt=prompt, solve=solve)


class PythonEnv:
    """An environment made by `@env`. Calling it calls the function or class beneath."""

    def __init__(
        self,
        target: Any,
        *,
        tasks: Tasks = (),
        name: str | None = None,
        inline: bool = False,
        system: str | None = None,
        prompt: str | None = None,
        solve: Callable[..., Any] | None = None,
    ) -> None:
        if not callable(target):
            raise UserError(f"@env is for a function or a class, not {type(target).__name__}")
        self.target = target
        self.name = name or target.__name__
        self.description = (inspect.getdoc(target) or "").strip()
        self.inline = inline
        self.is_class = inspect.isclass(target)
        self.verifier = _verifier(target) if self.is_class else target
        self.functions: dict[str, FunctionTool] = _tools(target) if self.is_class else {}
        self.tools = [function.tool for function in self.functions.values()]
        self.limits = Limits()
        """Deadlines that its sessions keep; a run sets its own."""
        self._tasks = tasks
        self._system = system
        self._prompt = prompt
        self._solve = solve or (getattr(target, "solve", None) if self.is_class else None)
        self._threads: Threads | None = None
        self._workers: Workers | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.target(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<env {self.name} from {self.file or self.target.__module__}>"

    @property
    def file(self) -> Path | None:
        module = sys.modules.get(self.target.__module__)
        path = getattr(module, "__file__", None)
        return Path(path) if path else None

    @property
    def threads(self) -> Threads:
        self._threads = self._threads or Threads()
        return self._threads

    @property
    def workers(self) -> Workers:
        self._workers = self._workers or Workers(self.judge)
        return self._workers

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        session = PythonSession(self, task)
        await session.start()
        try:
            yield session
        finally:
            await session.close()

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.close()
        if self._workers is not None:
            self._workers.close()
        self._threads = self._workers = None

    def tasks(self, source: str | Path | None = None, **options: Any) -> Iterator[Task | BadLine]:
        """The environment's own tasks, or those of the JSONL file `source`, in order, streamed, prompts completed.

        `options` go to the tasks function; an option it has no parameter for is a `UserError`.
        """
        given = source if source is not None else self._tasks
        if callable(given):
            rows: Iterable[Any] = _call_tasks(given, options)
        elif options:
            raise unknown("task option", next(iter(options)), (), "(the tasks of this environment are not generated)")
        elif isinstance(given, (str, Path)):
            return self._read_tasks(self._tasks_file(given) if source is None else Path(given))
        else:
            rows = given
        return self._complete_rows(rows)

    def solve(self, task: Task) -> Solution | None:
        """The reference policy at work on `task`; None if the environment has none."""
        solve: Any = self._solve
        if solve is None:
            return None
        own = self.is_class and solve is getattr(self.target, "solve", None)
        result: Any = solve(*([self.target()] if own else []), **bind(solve, task, skip=int(own)))
        return result if inspect.isgenerator(result) else _just(str(result))

    def judge(self, state: Any, arguments: dict[str, Any]) -> Any:
        """Call the verifier; runs inside a worker. `state` is that of a class's instance."""
        if not self.is_class:
            return self.verifier(**arguments)
        instance = self.target.__new__(self.target)
        restore(instance, state)
        return self.verifier(instance, **arguments)

    def digest(self) -> str:
        """Of the source files next to the environment: another one means that rewards may differ."""
        file = self.file
        if file is None or not file.exists():
            return ""
        files = sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]

    def _tasks_file(self, given: str | Path) -> Path:
        beside = self.file.parent / given if self.file else Path(given)
        return beside if beside.exists() else Path(given)

    def _read_tasks(self, path: Path) -> Iterator[Task | BadLine]:
        for task in read_tasks(path, self._with_prompt):
            yield task if isinstance(task, BadLine) else self._complete(task)

    def _complete_rows(self, rows: Iterable[Any]) -> Iterator[Task | BadLine]:
        where = f"tasks of {self.name}"
        iterator = iter(rows)
        number = count = 0
        while True:
            number += 1
            try:
                row = next(iterator)
            except StopIteration:
                return
            try:
                if not isinstance(row, Mapping):
                    raise UserError(f"the row is {type(row).__name__}, not a mapping")
                yield self._complete(task_from_row(self._with_prompt(row), count))
                count += 1
            except UserError as error:
                yield BadLine(where, number, str(error), repr(row)[:60])

    def _with_prompt(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._prompt is None or "responses_create_params" in row or "prompt" in row:
            return row
        try:
            return {**row, "prompt": self._prompt.format_map(row)}
        except KeyError as error:
            raise UserError(f"the row lacks {error}, which the prompt template needs") from error

    def _complete(self, task: Task) -> Task:
        if self._system is None:
            return task
        params: Any = {**task.params, "input": [system(self._system), *input_items(task.params)]}
        named = "task_id" in task.fields
        return replace(task, params=params, id=task.id if named else task_id(params, task.fields))


def _verifier(target: type) -> Callable[..., Any]:
    for name in ("verify", "get_reward"):
        method = getattr(target, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    raise UserError(f"the environment class {target.__name__} has neither verify(self, ...) nor get_reward(self)")


def _tools(target: type) -> dict[str, FunctionTool]:
    found = {}
    for name, method in inspect.getmembers(target, inspect.isfunction):
        if name.startswith("_") or name in RESERVED or not inspect.getdoc(method):
            continue
        found[name] = function_tool(method, name)
    # In the order they are written, base classes first: getmembers sorts by name.
    order = [name for base in reversed(target.__mro__) for name in vars(base)]
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[0])))


def _call_tasks(function: Callable[..., Iterable[Any]], options: Mapping[str, Any]) -> Iterable[Any]:
    names, _, everything = parameters(function)
    for name in options:
        if name not in names and not everything:
            raise unknown("task option", name, names)
    with stage("open", VerifierFault):
        return function(**options)


def _just(reply: str) -> Solution:
    yield from ()
    return reply
