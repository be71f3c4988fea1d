"""Taking an environment through attempts without a model, and keeping what can be compared of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollforge.collect.rollout import Runner
from rollforge.envs.base import Env, Limits, Session, Step, Tool, ToolCall
from rollforge.errors import InfraFault, SetupError, VerifierFault
from rollforge.models.base import Model, Request, Solution
from rollforge.records.items import Item, Json, Response, assistant, function_call, function_call_output, model_calls, user
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task

CALLS = 10_000
"""Of one solution, at most: on the event loop no clock would end one that goes on for ever."""
ROLLOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Played:
    """One attempt, without what differs each time (ids, seconds)."""

    task: Task
    kind: str
    outcome: Outcome
    reward: float | None
    fields: Json
    """The verdict's, beside the task's own."""
    observation: str | None
    outputs: list[str]
    """Of the tools, in order."""
    tools: Sequence[Tool]
    opened: bool
    stepwise: bool
    problem: str
    """Why it was not judged; "" if it was."""
    closing: str
    """What went wrong on closing after a verdict."""
    verify_seconds: float

    @property
    def said(self) -> tuple[Any, ...]:
        """What must be the same for the same answer."""
        return self.outcome, self.reward, self.fields, self.observation, self.outputs


@dataclass(slots=True)
class Player:
    """An agent that plays a solution. `meet` is awaited once the session is open, and again before it is judged."""

    solution: Solution | Response
    meet: Callable[[], Awaitable[object]] | None = None
    tools: Sequence[Tool] = ()
    observation: str | None = None
    outputs: list[str] = field(default_factory=list)
    began: bool = False
    stepwise: bool = False

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        self.began, self.tools, self.observation = True, session.tools, session.observation
        if self.meet is not None:
            await self.meet()
        step: Callable[[Response], Awaitable[Step]] | None = getattr(session, "step", None)
        self.stepwise = step is not None
        if isinstance(self.solution, dict):
            response: Response = self.solution
            # A call of a model that says nothing is a step too.
            for call in (model_calls(response["output"]) or [[]]) if step is not None else ():
                await step({"output": call})  # type: ignore[misc] # there is one
        else:
            response = {"output": await (self._play(session) if step is None else self._steps(step))}
        if self.meet is not None:
            await self.meet()
        return response

    async def _play(self, session: Session) -> list[Item]:
        assert not isinstance(self.solution, dict)
        items: list[Item] = []
        sent: str | None = None
        for number in range(CALLS):
            try:
                made = self.solution.send(sent)  # type: ignore[arg-type] # None to begin with
            except StopIteration as ended:
                return [*items, assistant(str(ended.value))]
            if isinstance(made, str):
                raise VerifierFault(
                    f"solve yielded {made!r:.100}, but there is no step to say it to: it yields (tool, arguments)"
                )
            name, arguments = made
            call_id = f"call_{number}"
            sent = (await session.call(ToolCall(name, arguments, call_id))).text
            self.outputs.append(sent)
            items += [
                function_call(name, dumps(dict(arguments)).decode(), call_id),
                function_call_output(call_id, sent),
            ]
        raise InfraFault(f"the reference policy made more than {CALLS} tool calls")

    async def _steps(self, step: Callable[[Response], Awaitable[Step]]) -> list[Item]:
        assert not isinstance(self.solution, dict)
        items: list[Item] = []
        sent: str | None = None
        for number in range(CALLS):
            last = False
            try:
                said: Any = self.solution.send(sent)  # type: ignore[arg-type] # None to begin with
            except StopIteration as ended:
                said, last = str(ended.value or ""), True
                if not said:
                    return items
            call = isinstance(said, tuple)
            items.append(
                function_call(said[0], dumps(dict(said[1])).decode(), f"call_{number}") if call else assistant(said)
            )
            seen = await step({"output": items[-1:]})
            items += [function_call_output(call_id, text) for call_id, text in seen.outputs]
            items += [user(seen.observation)] if seen.observation else []
            sent = "\n".join([text for _, text in seen.outputs]) if call else seen.observation or ""
            self.outputs.append(sent)
            if last or seen.terminated or seen.truncated:
                return items
        raise InfraFault(f"the reference policy made more than {CALLS} steps")


class Ground:
    """Plays attempts in one environment, so many at a time."""

    def __init__(self, env: Env, name: str, limits: Limits, at_once: int = 16) -> None:
        self._env = env
        self._name = name
        self._limits = limits
        self._at_once = asyncio.Semaphore(at_once)

    async def play(self, kind: str, task: Task, solution: Solution | Response) -> Played:
        async with self._at_once:
            return await self._played(kind, task, Player(solution))

    async def meet(self, kind: str, task: Task, player: Player) -> Played:
        """An attempt by a player that looks around when the session is open and before it is judged."""
        async with self._at_once:
            return await self._played(kind, task, player)

    async def together(self, kind: str, games: Iterable[tuple[Task, Solution | Response]]) -> list[Played]:
        """Attempts whose sessions are all open before any of them acts, and until all have acted."""
        games = list(games)
        barrier = asyncio.Barrier(len(games))

        async def one(task: Task, solution: Solution | Response) -> Played:
            found = await self._played(kind, task, Player(solution, barrier.wait))
            if found.problem:
                await barrier.abort()  # the others wait for it
            return found

        async with self._at_once, asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*game)) for game in games]
        return [task.result() for task in tasks]

    async def _played(self, kind: str, task: Task, player: Player) -> Played:
        run = Runner(
            env=self._env,
            env_name=self._name,
            model=_no_model,
            model_name="",
            agent=player,
            limits=self._limits,
            rollout_seconds=ROLLOUT_SECONDS,
        )
        return _played(kind, task, player, await run(task, 0))


def say(reply: str, calls: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> Solution:
    """A solution that makes these calls, whatever they answer."""
    for call in calls:  # noqa: UP028 - the tool's output is sent in, which an iterator does not take
        yield call
    return reply


def _played(kind: str, task: Task, player: Player, rollout: Rollout) -> Played:
    failure, own = rollout.failure, rollout.extra.get("task_fields") or {}
    problem = "" if failure is None or rollout.outcome.judged else f"{rollout.outcome} in {failure.stage}: {failure.message}"
    fields = {key: value for key, value in rollout.fields.items() if key not in task.fields or key in own}
    return Played(
        task=task,
        kind=kind,
        outcome=rollout.outcome,
        reward=rollout.reward,
        fields=fields,
        observation=player.observation,
        outputs=player.outputs,
        tools=player.tools,
        opened=player.began,
        stepwise=player.stepwise,
        problem=problem,
        closing=str(rollout.extra.get("close_error") or ""),
        verify_seconds=rollout.seconds.get("verify", 0.0),
    )


async def _no_model(request: Request, /) -> Response:
    raise SetupError("the checks of an environment ask no model")
