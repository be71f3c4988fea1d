"""TRL's GRPO on any environment, by the two interfaces that its trainer has for others: reward functions and environments.

    reward_function       the trainer has sampled; the environment judges. Tool calls are made again before it does
    environment_factory   the trainer samples and calls the environment's tools as it goes; each completion has a session

Used together, the reward function judges the session that the tools ran in, which the environment alone could not: TRL never
shows it the final message. TRL (1.16) opens sessions and runs tools one completion after another; `rollforge.train.live`
is the third way, a rollout function, without these limits.
"""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

from rollforge.envs.base import Env, Tool
from rollforge.envs.tasks import env_tasks
from rollforge.errors import RolloutError, UserError, short
from rollforge.records.items import Json, tool_name
from rollforge.records.lossless import dumps
from rollforge.records.messages import items_from_messages
from rollforge.records.rollout import Rollout
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from rollforge.train.adapters.live import Outside, close, live
from rollforge.train.adapters.trl_rows import TRLS, numbered, row_of, rows_of, task_of
from rollforge.train.adapters.trl_tools import method
from rollforge.train.play import Player, player, unjudged

__all__ = ["LiveEnvironment", "close", "environment_factory", "reward_function", "task_rows"]

log = logging.getLogger(__name__)

EnvOrMany = str | Env | Mapping[str, str | Env]
"""One environment, or several by the name that a row's `environment` (or `env`) says."""
RewardFunction = Callable[..., Awaitable[list[float | None]]]


def reward_function(env: EnvOrMany, name: str | None = None, *, concurrency: int = 64, **options: Any) -> RewardFunction:
    """A reward function for `GRPOTrainer` and `RLOOTrainer`: the environment's verdict on each completion, None (which TRL
    leaves out) where there is none. Parts and metrics of the verdicts are logged, and what became of each completion.

    The rows are those of `rollforge export --to trl:grpo` or `task_rows`, or any with a `prompt` and the verifier's fields.

    Args:
        name: what TRL calls the reward; that of the environment by default.
        concurrency: completions that are judged at the same time.
        options: as of `player`.
    """
    players = _players(env, options)

    async def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = rows_of(prompts, columns)
        tasks, said = [task_of(row) for row in rows], [numbered(one) for one in completions]
        environments = columns.get("environments") or [None] * len(rows)

        async def judged(number: int, gate: asyncio.Semaphore) -> Rollout:
            async with gate:
                environment = environments[number]
                if isinstance(environment, LiveEnvironment):
                    return await environment._judged(said[number])
                return await _chosen(players, rows[number]).judge(tasks[number], said[number])

        async def all_of_them() -> list[Rollout]:
            gate = asyncio.Semaphore(concurrency)
            return await asyncio.gather(*(judged(number, gate) for number in range(len(rows))))

        rollouts = await live().join(all_of_them())
        _tell(reward.__name__, tasks, rollouts, columns)
        return [rollout.reward for rollout in rollouts]

    reward.__name__ = reward.__qualname__ = name or next(iter(players.values())).env_name
    return reward


def environment_factory(
    env: EnvOrMany, *, get_reward: bool = False, row: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """A class for `GRPOTrainer(environment_factory=...)`, or a dict of them for a mapping: `reset(**row)` opens a session of
    the environment, its tools are public methods, a session is closed when it is judged or reset.

    Args:
        get_reward: TRL asks the environment for the reward, instead of a `reward_function`. For verifiers that look at the
            state and the tool calls only: they see no message.
        row: a task to find the tools with, where only its sessions know them and the environment has no tasks of its own.
        options: as of `player`.

    Raises `UserError`: an environment that is played by steps, a tool that TRL cannot be told of.
    """
    made = {name: _class(one, get_reward, row) for name, one in _players(env, options).items()}
    return made if isinstance(env, Mapping) else made[""]


def task_rows(env: EnvOrMany, limit: int | None = None, **options: Any) -> list[Json]:
    """An environment's own tasks as rows for `datasets.Dataset.from_list`, with the columns of the export. `options` go to
    its tasks (`split="train"`). Of a mapping, the tasks of each in turn, with the column `environment`.

    Raises `UserError` where there are no tasks.
    """
    players = _players(env, {})
    streams = {name: islice(_tasks(one, **options), limit) for name, one in players.items()}
    rows = [
        row_of(task, players[name].env_name) | ({"environment": name} if name else {}) for name, task in _in_turn(streams)
    ]
    if not rows:
        raise UserError(f"{', '.join(one.env_name for one in players.values())}: there are no tasks")
    return rows


class LiveEnvironment:
    """What TRL makes of the classes of `environment_factory`: one for each completion, used again in the next step. Public
    methods are tools, so that everything else has an underscore."""

    _player: Player
    _tools: frozenset[str]

    def __init__(self) -> None:
        self._attempt: Outside | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def reset(self, **row: Any) -> str | None:
        """Open a session for the task of a row. What it shows is told to the policy, unless the prompt has it already; one
        that cannot be opened leaves a completion without reward."""
        self._leave()
        task = task_of({name: value for name, value in row.items() if name not in TRLS})
        declared = {tool_name(tool) for tool in task.params.get("tools") or ()}
        if declared and declared != self._tools:
            what = ", ".join(map(str, sorted(declared ^ self._tools, key=str)))
            raise UserError(f"{_ROW_TOOLS.format(self._player.env_name)} (they differ in: {what})")
        attempt = self._attempt = live().begin(self._player, task)
        self._end = weakref.finalize(self, attempt.abandon)
        self._end.atexit = False  # the loop sees to it
        session = attempt.session
        if session is None:
            return None
        if hasattr(session, "step"):
            self._leave()
            raise UserError(_STEPS.format(self._player.env_name))
        seen, prompt = session.observation, row.get("prompt")
        last = prompt[-1].get("content") if isinstance(prompt, list) and prompt else prompt
        return None if seen and isinstance(last, str) and last.endswith(seen) else seen

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        if self._attempt is None:
            raise UserError(f"{name} was called before reset()")
        try:
            return live().run(self._attempt.call(name, arguments))
        except RolloutError as error:
            self._attempt.fail(error)
            return dumps({"error": short(error)}).decode()  # there will be no reward for it

    async def _judged(self, said: str | Sequence[Json]) -> Rollout:
        """The verdict on the whole conversation, on the loop of `live`."""
        if self._attempt is None:
            raise UserError("a completion is to be judged whose environment was never reset")
        if hasattr(self, "get_reward"):
            raise UserError(
                f"{type(self).__name__} gives the reward itself: leave out get_reward=True or the reward function"
            )
        messages = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
        return await self._attempt.end(items_from_messages(messages))

    def _leave(self) -> None:
        if self._end is not None:
            self._end()


_STEPS = (
    "{} is played by steps, and TRL's environments have tools only: rollforge train grpo plays it (rollforge.train.live)"
)

_ROW_TOOLS = (
    "a row of {} has other tools than its class, and TRL tells them once for all rows: "
    "rollforge train grpo plays it (rollforge.train.live)"
)


def _players(env: EnvOrMany, options: Mapping[str, Any]) -> dict[str, Player]:
    """By name; a single one is named "". The same object is the same player: its sessions share what it holds."""
    many = env if isinstance(env, Mapping) else {"": env}
    if not many:
        raise UserError("no environment is named")
    made = {name: player(one, **options) for name, one in many.items()}
    for one in made.values():
        live().keep(one)
    return made


def _chosen(players: Mapping[str, Player], row: Mapping[str, Any]) -> Player:
    if "" in players:
        return players[""]
    named = str(row.get("environment") or row.get("env"))
    if named not in players:
        raise UserError(f"a row is of the environment {named!r}; there are: {', '.join(players)}")
    return players[named]


def _tell(name: str, tasks: Sequence[Task], rollouts: Sequence[Rollout], columns: Mapping[str, Any]) -> None:
    """The trainer's log: what became of each completion, the share that was judged, the means of the verdicts' numbers."""
    lost = [rollout for rollout in rollouts if rollout.reward is None]
    if lost:
        why = unjudged(lost[0])
        log.warning("%s: %d of %d completions have no verdict; the first: %s", name, len(lost), len(rollouts), why)
    if "log_extra" in columns:
        columns["log_extra"](f"{name}/outcome", [str(rollout.outcome) for rollout in rollouts])
    if "log_metric" in columns and rollouts:
        columns["log_metric"](f"{name}/coverage", 1 - len(lost) / len(rollouts))
        parts: dict[str, list[float]] = defaultdict(list)
        for task, rollout in zip(tasks, rollouts, strict=True):
            for part, value in _numbers(task, rollout):
                parts[part].append(value)
        for part, values in parts.items():
            columns["log_metric"](f"{name}/{part}", fmean(values))


def _numbers(task: Task, rollout: Rollout) -> Iterator[tuple[str, float]]:
    """Of the verdict: what the task's row does not say itself."""
    found = {name: value for name, value in rollout.fields.items() if name not in task.fields or value != task.fields[name]}
    components = found.get("reward_components")
    for name, value in [*found.items(), *(components.items() if isinstance(components, dict) else ())]:
        if isinstance(value, (int, float)):
            yield name, float(value)


def _class(of: Player, get_reward: bool, row: Mapping[str, Any] | None) -> type[LiveEnvironment]:
    name = re.sub(r"\W", "_", of.env_name)
    tools = _tools(of, row)
    own = frozenset(tool.name for tool in tools)
    namespace: dict[str, Any] = {"_player": of, "_tools": own, "__doc__": f"Sessions of {of.env_name}."}
    for tool in tools:
        namespace[tool.name] = method(tool)
    if get_reward:
        namespace["get_reward"] = _get_reward
    return type(name, (LiveEnvironment,), namespace)


def _get_reward(self: LiveEnvironment) -> float | None:
    attempt = self._attempt
    if attempt is None:
        raise UserError("get_reward() was called before reset()")
    return live().run(attempt.end(list(attempt.made))).reward


def _tools(of: Player, row: Mapping[str, Any] | None) -> Sequence[Tool]:
    """Of a session, which also shows that one can be opened."""
    env: Any = of.env
    if getattr(env, "stepwise", False):
        raise UserError(_STEPS.format(of.env_name))
    told: Sequence[Tool] = getattr(env, "tools", None) or ()
    task = task_of(row) if row is not None else next(_tasks(of), None) if hasattr(env, "tasks") else None
    if task is None and not told:
        raise UserError(f"{of.env_name} has no task to open a session with, to learn its tools: give one, row={{...}}")
    return live().run(_told_by_session(of, task)) if task else told


async def _told_by_session(of: Player, task: Task) -> Sequence[Tool]:
    attempt = Outside(of, task)
    await attempt.opened()
    session = attempt.session
    if session is None:
        raise UserError(f"{of.env_name} cannot be opened: {unjudged(await attempt.rollout)}")
    tools, steps = list(session.tools), hasattr(session, "step")
    attempt.abandon()
    await attempt.rollout
    if steps:
        raise UserError(_STEPS.format(of.env_name))
    return tools


def _tasks(of: Player, **options: Any) -> Iterator[Task]:
    remedy = "export rollouts of it with `rollforge export --to trl:grpo`"
    found = env_tasks(of.env, None, options, name=of.env_name, remedy=remedy)
    return (task for task in found if not isinstance(task, BadLine))


def _in_turn(streams: Mapping[str, Iterator[Task]]) -> Iterator[tuple[str, Task]]:
    waiting = dict(streams)
    while waiting:
        for name, stream in list(waiting.items()):
            task = next(stream, None)
            if task is None:
                del waiting[name]
            else:
                yield name, task
