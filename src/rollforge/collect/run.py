"""A collection from configuration to finished run: makes the objects, opens the run directory, runs the plan.

Nothing reads the configuration after this module.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.about import about, identity
from rollforge.collect.config import CollectConfig
from rollforge.collect.plan import count, plan
from rollforge.collect.rollout import Runner
from rollforge.collect.run_dir import RunDir
from rollforge.collect.scheduler import Stop, schedule
from rollforge.collect.signals import on_signals
from rollforge.collect.tally import Tally
from rollforge.collect.watchdog import Watchdog
from rollforge.config import validate
from rollforge.envs.base import Env, Limits
from rollforge.envs.load import as_env, load_env
from rollforge.errors import InfraFault, RolloutError, UserError, VerifierFault, stage
from rollforge.models.base import Model, ModelOptions
from rollforge.models.load import load_model
from rollforge.records.rows import BadLine, read_tasks
from rollforge.records.task import Task

CLOSE_SECONDS = 10.0
SHOWN_BAD_LINES = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """How a collection ended."""

    path: Path
    tally: Tally
    """Counts of the whole run, earlier sessions included: outcomes, coverage, mean reward, tokens."""
    stopped: str | None
    """Why the plan was not completed, if it was not."""
    success: bool
    """Whether at least `min_coverage` of the plan (by default: all of it) has a reward."""
    cost: float | None
    """Of this session, at the prices given; None without."""
    bad_lines: list[BadLine]
    """The first task lines that could not be used; `tally.bad_lines` counts them all."""


async def collect_rollouts(env: str | Env, model: str | Model, **options: Any) -> Summary:
    """Collect verified rollouts into a run directory; call again with the same arguments to resume.

    Args:
        env: an environment, or a reference to one (`arithmetic`, `my_env.py:name`).
        model: a model, or the name of one (`tiny`, `chat:Qwen/Qwen3-8B`).
        options: the keys of `CollectConfig`: tasks, repeats, limit, sampling, seed, out, concurrency, ...

    Raises `UserError` when the request is wrong, `SetupError` when no rollout can succeed.
    """
    env_name = env if isinstance(env, str) else getattr(env, "name", type(env).__name__)
    model_name = model if isinstance(model, str) else getattr(model, "name", type(model).__name__)
    config = validate(
        CollectConfig, {"env": env_name, "model": model_name, **options}, "the arguments of collect_rollouts()"
    )
    given = None if isinstance(env, str) else env, None if isinstance(model, str) else model
    return await Collection(config, *given).run()


class Collection:
    """A collection ready to run: what can be wrong with the request has been looked at."""

    def __init__(self, config: CollectConfig, env: Any = None, model: Model | None = None) -> None:
        self._config = config
        self._env = load_env(config.env.use) if env is None else as_env(env, config.env.use)
        self.env_name: str = getattr(self._env, "name", None) or config.env.use
        self.title = f"{self.env_name} with {config.model.use}"
        if hasattr(self._env, "limits"):
            self._env.limits = Limits(config.deadlines.tool, config.deadlines.verify)
        self._model = _model(config, self._env) if model is None else model
        self._to_close = [self._env, *([self._model] if model is None else [])]  # a model is closed by whoever built it
        self._tasks()  # a file that is not there or an option nobody knows is told before anything starts
        self._bad: list[BadLine] = []
        self.tally = Tally()
        self.stop = Stop()
        self.path = config.out or _new_path(f"{_slug(self.env_name)}-{_slug(config.model.use)}-{_now()}")
        self.warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
        """Where warnings go while the run is under way."""

    async def run(self) -> Summary:
        """Run what is left of the plan, to its end or to a stop.

        Raises `SetupError` when no rollout can succeed or be stored, `UserError` when the request is wrong or the tasks
        cannot be read on. What was collected is kept.
        """
        config, tally = self._config, self.tally
        try:
            tally.planned = count(self._tasks(), config.repeats, config.limit, config.count_seconds)
            if tally.planned == 0:
                first = next((str(line) for line in self._tasks() if isinstance(line, BadLine)), "there are none")
                raise UserError(f"no task to work on: {first}")
            seed = secrets.randbits(31) if config.seed is None else config.seed
            facts = {**about(config, self.env_name), "planned": tally.planned, "seed": seed}
            with RunDir(self.path, identity(config, self._env), facts) as run_dir:
                try:
                    ended = await self._collect(run_dir)
                    self._compare_plan(run_dir, ended)
                finally:
                    self._keep(run_dir.write_metrics, tally.row())
        finally:
            await self._close()
        complete = tally.planned is not None and tally.done >= tally.planned
        return Summary(
            path=self.path,
            tally=tally,
            stopped=None if complete else self.stop.reason,
            success=tally.coverage >= config.min_coverage,
            cost=self.cost,
            bad_lines=self._bad,
        )

    @property
    def cost(self) -> float | None:
        """Of this session so far; None without prices."""
        budget = self._config.budget
        return self.tally.cost(budget.price_in, budget.price_out) if budget.price_in or budget.price_out else None

    async def _collect(self, run_dir: RunDir) -> bool:
        """Whether the plan was read to its end."""
        config = self._config
        done = run_dir.done(config.max_attempts, config.retry_failed, self.tally)
        self.tally.began = time.monotonic()
        planned = plan(
            self._tasks(),
            config.repeats,
            config.limit,
            self._note_bad,
            done=done,
            max_attempts=config.max_attempts,
            afresh=config.retry_failed,
        )
        run_one = self._runner(run_dir.about["seed"])
        job = asyncio.create_task(
            schedule(
                planned,
                run_one,
                run_dir.append,
                tally=self.tally,
                stop=self.stop,
                window=config.concurrency,
                budget=config.budget,
                backoff=config.backoff,
            )
        )
        async with self._around(run_dir, job) as ended_at_once:
            try:
                ended = await job
            except asyncio.CancelledError:
                if not ended_at_once():
                    raise  # from outside
                ended = False
        if self.stop.error is not None:
            raise self.stop.error
        return ended

    def _runner(self, seed: int) -> Runner:
        config = self._config
        return Runner(
            env=self._env,
            env_name=self.env_name,
            model=self._model,
            model_name=config.model.use,
            agent=ToolLoop(**config.agent.model_dump()),
            sampling=config.sampling,
            seed=seed,
            send_seed=config.seed is not None,
            limits=Limits(config.deadlines.tool, config.deadlines.verify),
            call_seconds=config.deadlines.call,
            rollout_seconds=config.deadlines.rollout,
        )

    def _tasks(self) -> Iterator[Task | BadLine]:
        """The tasks from their beginning, again at every call. What the user's code raises becomes a `UserError`."""
        source, options = self._config.tasks, self._config.env.model_extra or {}
        if source is not None and source.exists() and not source.is_file() and not source.is_dir():
            raise UserError(f"{source} is not a file that can be read twice, as a plan is; save the tasks in one first")
        if hasattr(self._env, "tasks"):
            with self._reading_tasks():
                return self._read(self._env.tasks(source, **options))
        if source is None:
            raise UserError(f"{self.env_name} has no tasks of its own: give some with --tasks FILE.jsonl")
        return read_tasks(source)

    def _read(self, tasks: Iterator[Task | BadLine]) -> Iterator[Task | BadLine]:
        # What a consumer raises is not thrown into this generator: only the reading is inside.
        with self._reading_tasks():
            yield from tasks

    @contextmanager
    def _reading_tasks(self) -> Iterator[None]:
        try:
            with stage("open", VerifierFault):
                yield
        except RolloutError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise UserError(f"the tasks of {self.env_name} cannot be read: {error}") from error

    def _note_bad(self, line: BadLine) -> None:
        self.tally.bad_lines += 1
        if len(self._bad) < SHOWN_BAD_LINES:
            self._bad.append(line)

    def _compare_plan(self, run_dir: RunDir, ended: bool) -> None:
        """What was counted with what came. Raises `UserError` for tasks that can be read only once."""
        tally = self.tally
        came = tally.before + tally.started
        if ended and tally.planned is not None and came < tally.planned:
            raise UserError(
                f"{tally.planned} rollouts were planned, but there were tasks for {came} only: the tasks of {self.env_name} "
                "are not the same each time they are read; give a function or a list, not a generator"
            )
        if ended:
            tally.planned = came
        if tally.planned != run_dir.about["planned"]:
            self._keep(run_dir.settle_plan, tally.planned)

    def _keep(self, write: Callable[[Any], None], value: Any) -> None:
        """Write what can be had from the rollouts again: a full disk has been told already, or hurts nobody."""
        try:
            write(value)
        except UserError as error:
            self.warn(str(error))

    @asynccontextmanager
    async def _around(self, run_dir: RunDir, job: asyncio.Task[bool]) -> AsyncIterator[Callable[[], bool]]:
        """What runs beside the schedule: signals, the clock of the budget, the sync of the journals, the watchdog.

        Gives a function that says whether one of them has ended the schedule at once.
        """
        loop = asyncio.get_running_loop()
        minutes = self._config.budget.minutes
        signals, cut = 0, False

        def interrupt(name: str) -> None:
            nonlocal signals
            signals += 1
            if signals > 1:
                end_at_once()
            elif not job.done():
                self.stop(name)
                self.warn(f"{name}: finishing {self.tally.in_flight} rollouts in flight; again to stop at once")

        def end_at_once() -> None:
            nonlocal cut
            cut = True
            job.cancel()

        def synced(sync: asyncio.Task[None]) -> None:
            error = None if sync.cancelled() else sync.exception()
            if isinstance(error, Exception):
                self.stop("what was collected cannot be stored", error)
                end_at_once()

        async with Watchdog(self.warn, self.tally):
            syncs = [asyncio.create_task(journal.sync_forever()) for journal in run_dir.journals]
            for sync in syncs:
                sync.add_done_callback(synced)
            clock = minutes and loop.call_later(minutes * 60, self.stop, f"the budget of {minutes:g} minutes is used up")
            with on_signals(loop, interrupt):
                try:
                    yield lambda: cut
                finally:
                    if clock:
                        clock.cancel()
                    for sync in syncs:
                        sync.cancel()
                    await asyncio.gather(*syncs, return_exceptions=True)

    async def _close(self) -> None:
        for thing in self._to_close:
            close = getattr(thing, "aclose", None)
            if close is None:
                continue
            try:
                with stage("close", InfraFault):
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await close()
            except RolloutError as error:
                self.warn(f"closing {type(thing).__name__}: {error}")


def _model(config: CollectConfig, env: Env) -> Model:
    options = ModelOptions(
        base_urls=tuple(config.model.base_url),
        api_key_env=config.model.api_key_env,
        headers=config.model.headers,
        extra_body=config.model.extra_body,
        retries=config.model.retries,
        connect_seconds=config.deadlines.connect,
        call_seconds=config.deadlines.call,
        solve=getattr(env, "solve", None),
    )
    return load_model(config.model.use, options)


def _new_path(name: str) -> Path:
    """Not that of an earlier run, even one of the same second: that one would be resumed."""
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[-60:]


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")
