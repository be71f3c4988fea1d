"""A collection from configuration to finished run: makes the objects, opens the run directory, runs the plan.

Nothing reads the configuration after this module.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rollforge.agents.base import Agent
from rollforge.agents.load import load_agent
from rollforge.agents.remote import RemoteRun
from rollforge.collect.about import about, identity
from rollforge.collect.attend import attended
from rollforge.collect.closing import close, in_use
from rollforge.collect.config import CollectConfig, ModelConfig
from rollforge.collect.plan import count, plan
from rollforge.collect.rollout import Runner
from rollforge.collect.run_dir import CONTENT, RunDir, new_path
from rollforge.collect.scheduler import RunOne, Stop, schedule
from rollforge.collect.tally import Tally
from rollforge.collect.watchdog import Watchdog
from rollforge.config import validate
from rollforge.envs.base import Env, Limits
from rollforge.envs.load import as_env, load_env
from rollforge.envs.tasks import env_tasks
from rollforge.errors import RolloutError, UserError, VerifierFault, stage, unknown
from rollforge.models.base import Model, ModelOptions
from rollforge.models.load import load_model
from rollforge.models.service import token_env
from rollforge.records.rollout import Rollout
from rollforge.records.rows import BadLine
from rollforge.records.shown import shown
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
    """Whether at least `min_coverage` of the plan (by default: all of it) has a reward."""
    cost: float | None
    """Of this session, at the prices given; None without."""
    bad_lines: list[BadLine]
    """The first task lines that could not be used; `tally.bad_lines` counts them all."""


async def collect_rollouts(
    env: str | Path | Mapping[str, Any] | Env | None = None,
    model: str | Mapping[str, Any] | Model | None = None,
    **options: Any,
) -> Summary:
    """Collect verified rollouts into a run directory; call again with the same arguments to resume.

    Args:
        env: an environment, or a reference to one (`arithmetic`, `my_env.py:name`, a URL), or its entry in a
            configuration (`{"use": "arithmetic", "level": "hard"}`).
        model: a model, or the name of one (`tiny`, `chat:Qwen/Qwen3-8B`), or its entry (`{"use": "chat:Qwen/Qwen3-8B",
            "base_url": ...}`). Neither is needed if `agent` is the URL of an agent service and `tasks` a file.
        options: the keys of `CollectConfig`: tasks, repeats, limit, sampling, seed, out, concurrency, ...

    Raises `UserError` when the request is wrong, `SetupError` when no rollout can succeed.
    """
    env = str(env) if isinstance(env, Path) else env
    if not (model is None or isinstance(model, (str, Mapping)) or callable(model)):
        raise UserError(f"model is {type(model).__name__}, not a model: give a name (tiny, chat:NAME) or an async function")
    named = {"env": _named(env), "model": _named(model), **options}
    config = validate(CollectConfig, named, "the arguments of collect_rollouts()")
    given = None if isinstance(env, (str, Mapping)) else env, None if isinstance(model, (str, Mapping)) else model
    return await Collection(config, *given).run()


class Collection:
    """A collection ready to run: what can be wrong with the request has been looked at."""

    def __init__(self, config: CollectConfig, env: Any = None, model: Model | None = None) -> None:
        self._config = config
        self._env: Env | None = None
        if config.env is not None:
            self._env = load_env(config.env.use) if env is None else as_env(env, config.env.use)
        agent_name = shown(config.agent.use) if config.agent.remote else config.agent.use
        self.env_name: str = getattr(self._env, "name", None) or (config.env.use if config.env else agent_name)
        model_name = shown(config.model.use) if config.model else agent_name
        self.title = self.env_name if self.env_name == model_name else f"{self.env_name} with {model_name}"
        limits = Limits(config.deadlines.tool, config.deadlines.verify)
        if self._env is not None and hasattr(self._env, "limits"):
            self._env.limits = limits
        self._run_one: Callable[[int], RunOne]
        """The engine, from the seed of the run."""
        self._to_close: list[Any] = []
        if config.agent.remote:
            remote = _remote(config, self.env_name)
            self._run_one = lambda _: remote
            self._to_close.append(remote)
        else:
            assert self._env is not None
            assert config.model is not None  # the configuration sees to both
            made = _model(config, config.model, self._env) if model is None else model
            agent = _agent(config)
            self._run_one = partial(_runner, config, self._env, self.env_name, made, agent)
            self._to_close += [agent, *([made] if model is None else [])]  # a model is closed by whoever built it
        self._tasks()  # a file that is not there or an option nobody knows is told before anything starts
        self._bad: list[BadLine] = []
        self.tally = Tally()
        self.stop = Stop()
        self.path = config.out or new_path(self.env_name, model_name)
        self.warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
        """Where warnings go while the run is under way."""

    async def run(self) -> Summary:
        """Run what is left of the plan, to its end or to a stop.

        Raises `SetupError` when no rollout can succeed or be stored, `UserError` when the request is wrong or the tasks
        cannot be read on. What was collected is kept.
        """
        try:
            async with in_use(self._env, self.warn):
                await self._run()
        finally:
            for thing in self._to_close:
                await close(thing, self.warn)
        tally = self.tally
        complete = tally.planned is not None and tally.done >= tally.planned
        return Summary(
            path=self.path,
            tally=tally,
            stopped=None if complete else self.stop.reason,
            success=tally.coverage >= self._config.min_coverage,
            cost=self.cost,
            bad_lines=self._bad,
        )

    async def _run(self) -> None:
        config, tally = self._config, self.tally
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
        run_one = _marked(self._run_one(run_dir.about["seed"]))
        work = schedule(
            planned,
            run_one,
            run_dir.append,
            tally=self.tally,
            stop=self.stop,
            window=config.concurrency,
            budget=config.budget,
            backoff=config.backoff,
        )
        async with Watchdog(self.warn, self.tally):
            with self._clock():
                ended = await attended(work, run_dir.journals, tally=self.tally, stop=self.stop, warn=self.warn)
        if self.stop.error is not None:
            raise self.stop.error
        return ended

    def _tasks(self) -> Iterator[Task | BadLine]:
        """The tasks from their beginning, again at every call. What the user's code raises becomes a `UserError`."""
        source, options = self._config.tasks, (self._config.env and self._config.env.model_extra) or {}
        if source is not None and source.exists() and not source.is_file() and not source.is_dir():
            raise UserError(f"{source} is not a file that can be read twice, as a plan is; save the tasks in one first")
        with reading_tasks(self.env_name):
            return self._read(env_tasks(self._env, source, options, name=self.env_name))

    def _read(self, tasks: Iterator[Task | BadLine]) -> Iterator[Task | BadLine]:
        # What a consumer raises is not thrown into this generator: only the reading is inside.
        with reading_tasks(self.env_name):
            yield from tasks

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

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """Of the budget."""
        minutes = self._config.budget.minutes
        if minutes is None:
            yield
            return
        reason = f"the budget of {minutes:g} minutes is used up"
        clock = asyncio.get_running_loop().call_later(minutes * 60, self.stop, reason)
        try:
            yield
        finally:
            clock.cancel()


@contextmanager
def reading_tasks(env: str) -> Iterator[None]:
    """What the user's code raises becomes a `UserError`."""
    try:
        with stage("open", VerifierFault):
            yield
    except RolloutError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"the tasks of {env} cannot be read: {error}") from error


def _marked(run_one: RunOne) -> RunOne:
    """With the content of tasks that name their id: that may change while the id stays."""

    async def run(task: Task, index: int, attempt: int) -> Rollout:
        content = task.content
        rollout = await run_one(task, index, attempt)
        return replace(rollout, extra={**rollout.extra, CONTENT: content}) if content else rollout

    return run


def _named(given: Any) -> Any:
    if given is None or isinstance(given, (str, Mapping)):
        return given
    return str(getattr(given, "name", None) or getattr(given, "__name__", type(given).__name__))


def _runner(config: CollectConfig, env: Env, env_name: str, model: Model, agent: Agent, seed: int) -> Runner:
    return Runner(
        env=env,
        env_name=env_name,
        model=model,
        model_name=shown(config.model.use) if config.model else "",
        agent=agent,
        sampling=config.sampling,
        seed=seed,
        send_seed=config.seed is not None,
        limits=Limits(config.deadlines.tool, config.deadlines.verify),
        call_seconds=config.deadlines.call,
        rollout_seconds=config.deadlines.rollout,
    )


def _agent(config: CollectConfig) -> Agent:
    options = config.agent.options
    key = config.model.api_key_env if config.model else None
    if key and config.agent.use.startswith("command:"):
        # The program has a key of its own; the model's stays here, whatever its variable is called.
        options["hide_env"] = [*options.get("hide_env", []), key]
    return load_agent(config.agent.use, options)


def _remote(config: CollectConfig, env_name: str) -> RemoteRun:
    options = config.agent.options
    token = options.pop("token_env", None) or token_env()
    if options:
        raise unknown("option of an agent service", next(iter(options)), ["token_env"], "(it has its own settings)")
    seconds = config.deadlines.rollout
    return RemoteRun(config.agent.use, env_name=env_name, token_env=token, seconds=seconds, sampling=config.sampling)


def _model(config: CollectConfig, model: ModelConfig, env: Env) -> Model:
    options = ModelOptions(
        base_urls=tuple(model.base_url),
        api_key_env=model.api_key_env,
        headers=model.headers,
        extra_body=model.extra_body,
        retries=model.retries,
        connect_seconds=config.deadlines.connect,
        call_seconds=config.deadlines.call,
        solve=getattr(env, "solve", None),
    )
    return load_model(model.use, options)
