"""A collection from configuration to finished run: makes the objects, opens the run directory, runs the plan.

Nothing reads the configuration after this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rollforge import __version__
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.config import CollectConfig
from rollforge.collect.plan import count, plan
from rollforge.collect.rollout import Runner
from rollforge.collect.run_dir import RunDir
from rollforge.collect.scheduler import Stop, schedule
from rollforge.collect.tally import Tally
from rollforge.collect.watchdog import Watchdog
from rollforge.config import validate
from rollforge.envs.base import Env, Limits
from rollforge.envs.load import as_env, load_env
from rollforge.errors import UserError
from rollforge.models.base import Model, ModelOptions
from rollforge.models.load import load_model
from rollforge.records.items import Json
from rollforge.records.rows import BadLine, read_tasks
from rollforge.records.task import Task

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
    """Whether the plan was completed with a coverage of at least `min_coverage` (by default: all)."""
    bad_lines: list[BadLine]
    """The first task lines that could not be used; `tally.bad_lines` counts them all."""


async def collect(env: str | Env, model: str | Model, **options: Any) -> Summary:
    """Collect verified rollouts into a run directory; call again with the same arguments to resume.

    Args:
        env: an environment, or a reference to one (`arithmetic`, `my_env.py:name`).
        model: a model, or the name of one (`tiny`, `chat:Qwen/Qwen3-8B`).
        options: the keys of `CollectConfig`: tasks, repeats, limit, sampling, seed, out, concurrency, ...

    Raises `UserError` when the request is wrong, `SetupError` when no rollout can succeed.
    """
    env_name = env if isinstance(env, str) else getattr(env, "name", type(env).__name__)
    model_name = model if isinstance(model, str) else getattr(model, "name", type(model).__name__)
    config = validate(CollectConfig, {"env": env_name, "model": model_name, **options}, "the arguments of collect()")
    given = None if isinstance(env, str) else env, None if isinstance(model, str) else model
    return await Collection(config, *given).run()


class Collection:
    """A collection ready to run: what can be wrong with the request has been looked at."""

    def __init__(self, config: CollectConfig, env: Any = None, model: Model | None = None) -> None:
        self._config = config
        self._env = load_env(config.env.use) if env is None else as_env(env, config.env.use)
        self.env_name: str = getattr(self._env, "name", None) or config.env.use
        if hasattr(self._env, "limits"):
            self._env.limits = Limits(config.deadlines.tool, config.deadlines.verify)
        self._model = _model(config, self._env) if model is None else model
        self._tasks()  # a file that is not there or an option nobody knows is told before anything starts
        self._bad: list[BadLine] = []
        self.tally = Tally()
        self.path = config.out or Path("runs") / f"{_slug(self.env_name)}-{_slug(config.model.use)}-{_now()}"
        self.warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
        """Where warnings go while the run is under way."""

    async def run(self) -> Summary:
        """Run what is left of the plan, to its end or to a stop."""
        config, tally = self._config, self.tally
        total = count(self._tasks(), config.limit)
        if total == 0:
            first = next((str(line) for line in self._tasks() if isinstance(line, BadLine)), "there are none")
            raise UserError(f"no task to work on: {first}")
        seed = secrets.randbits(31) if config.seed is None else config.seed
        about = {**self._about(), "planned": total and total * config.repeats, "seed": seed}
        with RunDir(self.path, self._identity(), about) as run_dir:
            tally.planned = about["planned"]
            done = run_dir.done(config.max_attempts, config.retry_failed, tally)
            stop = Stop()
            try:
                async with self._around(run_dir, stop):
                    await schedule(
                        plan(self._tasks(), config.repeats, config.limit, done, self._note_bad),
                        self._runner(run_dir.about["seed"]),
                        run_dir.append,
                        tally=tally,
                        stop=stop,
                        window=config.concurrency,
                        max_attempts=config.max_attempts,
                        budget=config.budget,
                    )
            except asyncio.CancelledError:
                if stop.reason is None:
                    raise  # from outside, not from a second signal
            finally:
                await self._close()
                run_dir.write_metrics(tally.row())
            complete = stop.reason is None or tally.coverage >= 1
            success = complete and tally.coverage >= config.min_coverage
            return Summary(self.path, tally, stop.reason, success, self._bad)

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
        """The tasks from their beginning, again at every call."""
        source, options = self._config.tasks, self._config.env.model_extra or {}
        if hasattr(self._env, "tasks"):
            return self._env.tasks(source, **options)  # type: ignore[no-any-return]
        if source is None:
            raise UserError(f"{self.env_name} has no tasks of its own: give some with --tasks FILE.jsonl")
        return read_tasks(source)

    def _note_bad(self, line: BadLine) -> None:
        self.tally.bad_lines += 1
        if len(self._bad) < SHOWN_BAD_LINES:
            self._bad.append(line)

    @asynccontextmanager
    async def _around(self, run_dir: RunDir, stop: Stop) -> AsyncIterator[None]:
        """What runs beside the schedule: signals, the clock of the budget, the sync of the journals, the watchdog."""
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        minutes = self._config.budget.minutes

        def interrupt(name: str) -> None:
            if stop.reason is None or not stop.reason.startswith("SIG"):
                stop(name)
                self.warn(f"{name}: finishing {self.tally.in_flight} rollouts in flight; again to stop at once")
            elif main is not None:
                main.cancel()

        async with Watchdog(self.warn):
            syncs = [asyncio.create_task(journal.sync_forever()) for journal in run_dir.journals]
            clock = minutes and loop.call_later(minutes * 60, stop, f"the budget of {minutes:g} minutes is used up")
            handled = _handle_signals(loop, interrupt)
            try:
                yield
            finally:
                for number in handled:
                    loop.remove_signal_handler(number)
                if clock:
                    clock.cancel()
                for sync in syncs:
                    sync.cancel()
                await asyncio.gather(*syncs, return_exceptions=True)

    async def _close(self) -> None:
        for thing in (self._model, self._env):
            close = getattr(thing, "aclose", None)
            if close is not None:
                await close()

    def _identity(self) -> Json:
        """What must be the same for rollouts to belong to one run."""
        config = self._config
        digest = getattr(self._env, "digest", None)
        own = {"digest": digest()} if digest else {}
        options = config.env.model_extra or {}
        return {
            "env": {"use": config.env.use, **options, **own},
            "tasks": _file_identity(config.tasks) if config.tasks else None,
            "model": {"use": config.model.use, "extra_body": config.model.extra_body},
            "repeats": config.repeats,
            "limit": config.limit,
            "sampling": config.sampling,
            "seed": config.seed,
            "agent": config.agent.model_dump(),
        }

    def _about(self) -> Json:
        config = self._config.model_dump(mode="json")
        config["model"]["base_url"] = [_without_password(url) for url in config["model"]["base_url"]]
        config["model"]["headers"] = sorted(config["model"]["headers"])  # names only: values may be secrets
        return {
            "rollforge": __version__,
            "python": sys.version.split()[0],
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "git_commit": _git_commit(),
            "env": self.env_name,
            "config": config,
        }


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


def _handle_signals(loop: asyncio.AbstractEventLoop, interrupt: Callable[[str], None]) -> list[int]:
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers = [signal.SIGINT, signal.SIGTERM]
    for number in numbers:
        loop.add_signal_handler(number, interrupt, number.name)
    return list(numbers)


def _file_identity(path: Path) -> Json:
    with open(path, "rb") as handle:
        return {"file": path.name, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()[:16]}


def _git_commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[-60:]


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")
