"""A trainer plays an environment: rollouts by its own sampler, or verdicts on what it has sampled itself.

Whatever samples (`models.tokens.Generate`) becomes a `Model`; the engine's own `Runner` and agent do the rest, so that an
environment behaves in a trainer as it does in a collection. `adapters` turn this into the interfaces of TRL, verl, OpenRLHF.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollforge.agents.base import Agent
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.closing import aclose
from rollforge.collect.replay import Replay, Stored, no_model
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Env, Limits
from rollforge.envs.load import load_env
from rollforge.models.base import Model
from rollforge.records.items import Item, Json, Response, assistant
from rollforge.records.messages import items_from_messages
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task, task_from_row
from rollforge.records.trajectory import Flaw, Trajectory, trajectory

ATTEMPTS = 3
"""At a rollout that failed for outside reasons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """An environment with an agent, ready to be played by whatever samples."""

    env: Env
    env_name: str
    agent: Agent
    limits: Limits = field(default_factory=Limits)
    rollout_seconds: float = 3600.0

    async def play(
        self, row: Mapping[str, Any] | Task, model: Model, *, index: int = 0, seed: int = 0, **sampling: Any
    ) -> Rollout:
        """One rollout of `model`. Raises nothing but `SetupError` and `UserError` (a row that is no task): what goes wrong
        is an outcome, and only a judged one has a reward."""
        runner = Runner(
            env=self.env,
            env_name=self.env_name,
            model=model,
            model_name=str(getattr(model, "name", "policy")),
            agent=self.agent,
            sampling=sampling,
            seed=seed,
            limits=self.limits,
            rollout_seconds=self.rollout_seconds,
        )
        return await runner(_task(row), index)

    async def judge(self, row: Mapping[str, Any] | Task, said: str | Sequence[Json]) -> Rollout:
        """The verdict on a completion: a text, or messages (assistant and tool turns) as Chat Completions write them. Tool
        calls are made again, so that the state is what it was; outputs that differ are a `verifier_fault`, never a 0."""
        items: list[Item] = [assistant(said)] if isinstance(said, str) else items_from_messages(said)
        task = _task(row)
        response: Response = {"output": items}
        stored = Rollout(
            task=task.id, params=task.params, response=response, reward=None, outcome=Outcome.CANCELLED, fields=task.fields
        )
        given = Stored(task.params, task.fields, task.id, task.index, rollout=stored)
        runner = Runner(
            env=self.env,
            env_name=self.env_name,
            model=no_model,
            model_name="given",
            agent=Replay(replay=True, force=False),
            limits=self.limits,
            rollout_seconds=self.rollout_seconds,
        )
        return await runner(given, 0)

    async def aclose(self) -> None:
        await aclose(self.env)


def player(env: str | Path | Env, *, max_turns: int = 16, **options: Any) -> Player:
    """A `Player` of an environment or of what `load_env` reads, with the tool loop. `options`: the fields of `Player`."""
    made = load_env(env) if isinstance(env, (str, Path)) else env
    name = getattr(made, "name", None) or (env if isinstance(env, (str, Path)) else type(env).__name__)
    return Player(env=made, env_name=str(name), **{"agent": ToolLoop(max_turns=max_turns), **options})


async def tried(play: Callable[[], Awaitable[Rollout]], attempts: int = ATTEMPTS) -> Rollout:
    """Played again while it fails for outside reasons: the last rollout."""
    for _ in range(attempts):
        rollout = await play()
        if rollout.failure is None or not rollout.failure.retryable:
            break
    return rollout


def learnable(rollout: Rollout) -> Trajectory | str:
    """The tokens of a rollout that has a reward, or why a trainer cannot learn from it."""
    if rollout.reward is None:
        return unjudged(rollout)
    found = trajectory(rollout.output)
    return found.text if isinstance(found, Flaw) else found


def unjudged(rollout: Rollout) -> str:
    """Why there is no reward."""
    failure = rollout.failure
    return f"{rollout.outcome} ({failure.stage}): {failure.message}" if failure else str(rollout.outcome)


def _task(row: Mapping[str, Any] | Task) -> Task:
    return row if isinstance(row, Task) else task_from_row(row)
