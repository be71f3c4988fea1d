"""The life of one rollout, and the one place where what went wrong becomes an outcome."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar, cast

from rollforge.agents.base import Agent
from rollforge.envs.base import Env, Limits, Session, Step, Stepping, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.errors import (
    DeadlineExceeded,
    InfraFault,
    JudgeFault,
    RolloutError,
    Stage,
    UserError,
    VerifierFault,
    stage,
)
from rollforge.models.base import Model, Request
from rollforge.models.stream import Delta, Events, stream
from rollforge.records.items import (
    Item,
    Json,
    Params,
    Response,
    Usage,
    add_usage,
    check_items,
    input_items,
    prompt_text,
    text_of,
    token_drift,
    user,
)
from rollforge.records.rollout import Failure, Outcome, Rollout, outcome_for
from rollforge.records.task import Task
from rollforge.sandbox.deadline import apart, within

T = TypeVar("T")

OBSERVED = "observed"
"""The key of a row's `rollforge` block that says how many characters at the end of the prompt the environment had added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Makes rollouts: the engine's `RunOne`."""

    env: Env
    env_name: str
    model: Model
    model_name: str
    agent: Agent
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Laid over what a task's own row asks for."""
    seed: int = 0
    send_seed: bool = False
    """Whether servers are sent the draw of each call too, as `seed`."""
    limits: Limits = field(default_factory=Limits)
    call_seconds: float = 600.0
    rollout_seconds: float = 3600.0

    async def __call__(self, task: Task, index: int, attempt: int = 1, /) -> Rollout:
        """One attempt. Raises nothing but `SetupError`, which concerns the whole run, and cancellation."""
        one = _Attempt(self, task, index, attempt)
        worker = asyncio.current_task()
        cancelling = worker.cancelling() if worker else 0
        started = time.perf_counter()
        error: RolloutError | None = None
        try:
            async with asyncio.timeout(self.rollout_seconds) as deadline:
                await apart(one.run())
        except RolloutError as raised:
            error = one.error or (self._late(one) if deadline.expired() else raised)
        except TimeoutError:
            error = one.error or self._late(one)
        except asyncio.CancelledError:
            error = one.error or (VerifierFault if one.judging else InfraFault)("it was cancelled by itself")
        if worker and worker.cancelling() > cancelling:
            # What runs there may have hidden it, as a session does that fails to close on the way out.
            raise asyncio.CancelledError
        seconds = {"total": time.perf_counter() - started, **one.seconds}
        return one.rollout(error, {name: round(value, 6) for name, value in seconds.items()})

    def _late(self, one: _Attempt) -> DeadlineExceeded:
        error = DeadlineExceeded(f"the rollout took longer than {self.rollout_seconds:g} s")
        error.stage = "verify" if one.judging else None
        return error


class _Attempt:
    """One attempt under way. To the agent it is the model (`ask`) and the session: timed, with deadlines, attributed."""

    def __init__(self, runner: Runner, task: Task, index: int, attempt: int) -> None:
        self.runner = runner
        self.task = task
        self.index = index
        self.attempt = attempt
        self.seconds = {"model": 0.0, "tools": 0.0, "verify": 0.0}
        self.tools: Sequence[Tool] = ()
        self.observation: str | None = None
        self.appended = True
        """Whether the observation was added to the prompt here; a stored row's has it already."""
        self.response: Response | None = None
        self.verdict: Verdict | None = None
        self.error: RolloutError | None = None
        """What went wrong while the session was open: closing may fail after it, and says less."""
        self.judging = False
        self.extra: Json = {}
        """What an agent has to say of the attempt, for the row's `rollforge` block."""
        self._session: Session
        self._calls = 0
        self._usages: list[Usage | None] = []
        self._items: list[Item] = []
        """The conversation, prompt included, as of the last model call."""
        self._captured: Response | None = None
        self._drift: int | None = None
        self._own_deadline = getattr(runner.model, "keeps_deadline", False)
        self._own_limits = getattr(runner.env, "limits", None) is not None

    # Properties: a method kept in an attribute would be a circle, and wait for the garbage collector with the whole rollout.

    @property
    def stream(self) -> Any:
        """The model as it answers, for an agent whose program wants to watch; None where it only has whole answers."""
        return self._stream if self._own_deadline and hasattr(self.runner.model, "stream") else None

    @property
    def backend(self) -> Model:
        """The model itself, for what is no call of it: counting tokens."""
        return self.runner.model

    @property
    def step(self) -> Any:
        """Only there, for an agent that looks, if the session is played by steps."""
        if not hasattr(self._session, "step"):
            raise AttributeError("this session is not played by steps")
        return self._step

    async def run(self) -> None:
        # The outer stage is for opening and for closing: all between has an inner one, which speaks first.
        with stage("open", VerifierFault):
            async with self.runner.env.open(self.task) if self._own_limits else self._open() as session:
                self._session = session
                self.tools, self.observation = session.tools, session.observation
                self.task = replace(self.task, params=self._params())
                try:
                    with stage("agent", InfraFault):
                        response = await self.runner.agent(self.task, self.ask, self)
                        self.response = _checked(response, "the agent")
                        self._drift = token_drift(self.response["output"])
                    self.verdict = await self.verify(self.response)
                except RolloutError as error:
                    self.error = error
                    raise
        if self.verdict is None:
            # The environment's context manager swallowed it.
            raise self.error or VerifierFault("the environment ended the attempt without a word")

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Session]:
        """The environment's session. Closing has a deadline of its own, since it also happens when another ran out."""
        closing = AsyncExitStack()
        session = await closing.enter_async_context(self.runner.env.open(self.task))
        try:
            yield session
        finally:
            with stage("close", VerifierFault):
                await within(self.runner.limits.tool, "closing the session", closing.__aexit__(*sys.exc_info()))

    def captured(self, params: Params, response: Response | None, extra: Json) -> None:
        """From an agent whose program talks to the model itself, and may be stopped at any time: what its calls show was
        asked, and what was answered so far."""
        self.task = replace(self.task, params=params)
        self.extra = extra
        self._captured = response

    async def ask(self, request: Request, /) -> Response:
        """The model, for the agent: each call gets its own draw."""
        request = self._drawn(request)
        with _Timed("model", InfraFault, self.seconds):
            call = self.runner.model(request)
            response = await _within(self._own_deadline, self.runner.call_seconds, "the model call", call)
            return self._noted(request, response)

    async def _stream(self, request: Request, /) -> Events:
        request = self._drawn(request)
        with _Timed("model", InfraFault, self.seconds):
            async with aclosing(stream(self.runner.model, request)) as events:
                async for event in events:
                    yield event if isinstance(event, Delta) else self._noted(request, event)

    def _drawn(self, request: Request) -> Request:
        number, self._calls = self._calls, self._calls + 1
        draw = _draw(self.runner.seed, self.task.id, self.task.index, self.index, self.attempt, number)
        return Request(
            params={**request.params, "seed": draw} if self.runner.send_seed else request.params,  # type: ignore[typeddict-unknown-key]
            task=self.task,
            rollout=f"{self.task.index}-{self.index}-{self.attempt}",
            index=self.index,
            seed=draw,
        )

    def _noted(self, request: Request, response: Any) -> Response:
        found = _checked(response, "the model")
        self._usages.append(found.get("usage"))
        self._items = [*input_items(request.params), *found["output"]]
        return found

    async def call(self, call: ToolCall, /) -> ToolOutput:
        with _Timed("tools", InfraFault, self.seconds):
            output = self._session.call(call)
            return await _within(self._own_limits, self.runner.limits.tool, f"the tool {call.name}", output)

    async def _step(self, response: Response, /) -> Step:
        with _Timed("tools", InfraFault, self.seconds):
            step = cast("Stepping", self._session).step(response)
            limits = self.runner.limits
            # It runs tools and judges.
            return await _within(self._own_limits, limits.tool + limits.verify, "the step", step)

    async def verify(self, response: Response, /) -> Verdict:
        self.judging = True
        with _Timed("verify", VerifierFault, self.seconds):
            judging = self._session.verify(response)
            return verdict(await _within(self._own_limits, self.runner.limits.verify, "verify", judging))

    def rollout(self, error: RolloutError | None, seconds: dict[str, float]) -> Rollout:
        """What became of it. An error after the verdict is one of closing: noted, and the verdict stands."""
        outcome, reward, failure = Outcome.SCORED, None, None
        fields = self.task.fields
        extra = dict(self.extra)
        if self.observation and prompt_text(self.task.params).endswith(self.observation):
            # Who judges the row again has to tell the task's own prompt from what was shown.
            extra[OBSERVED] = len(self.observation) if self.appended else 0
        response = self.response
        if self.verdict is not None:
            reward = self.verdict.reward
            if self.verdict.fields:
                # A verdict may say `answer` where the task did: who judges again needs the task's.
                replaced = {k: v for k, v in fields.items() if k in self.verdict.fields and self.verdict.fields[k] != v}
                if replaced:
                    extra["task_fields"] = replaced
                fields = {**fields, **self.verdict.fields}
            if error is not None:
                extra["close_error"] = str(error)
        elif error is not None:
            outcome = outcome_for(error)
            reward = 0.0 if outcome is Outcome.POLICY_FAULT else None
            response = response or error.partial or self._captured or self._so_far()
            failure = Failure(error.stage or "rollout", type(error).__name__, str(error), _retryable(error))
        return Rollout(
            params=self.task.params,
            response=response,
            reward=reward,
            outcome=outcome,
            fields=fields,
            task=self.task.id,
            task_index=self.task.index,
            index=self.index,
            attempt=self.attempt,
            model=self.runner.model_name,
            env=self.runner.env_name,
            seconds=seconds,
            failure=failure,
            token_drift=self._drift,
            extra=extra,
        )

    def _so_far(self) -> Response | None:
        """What an agent that was stopped did not hand over: worth looking at, and its tokens count."""
        if not self._items:
            return None
        output = self._items[len(input_items(self.task.params)) :]
        usage = reduce(add_usage, self._usages, None)
        return {"output": output, "usage": usage, "status": "incomplete", "incomplete_details": {"reason": "fault"}}

    def _params(self) -> Any:
        """What the policy is asked: the run's sampling over the row's params, the environment's tools unless the row
        declares its own, and what the environment shows on opening appended to the last user message (as TRL does; one
        that is played by steps shows it as a message, as NeMo Gym does)."""
        params: Json = {**self.task.params, **self.runner.sampling}
        if not params.get("tools") and self.tools:
            params["tools"] = [tool.row() for tool in self.tools]
        if self.observation:
            items = input_items(params)
            last = items[-1] if items else {}
            content = last.get("content") if last.get("role") == "user" else None
            if text_of(content).endswith(self.observation):
                self.appended = False  # the row is that of a stored rollout, played again: it has been shown
            elif isinstance(content, str) and not hasattr(self, "step"):
                items[-1] = {**last, "content": content + self.observation}
            elif isinstance(content, list) and not hasattr(self, "step"):
                items[-1] = {**last, "content": [*content, {"type": "input_text", "text": self.observation}]}
            else:
                items.append(user(self.observation))
            params["input"] = items
        return params


class _Timed(stage):
    """A stage whose seconds are counted."""

    __slots__ = ("_seconds", "_started")

    def __init__(self, name: Stage, fault: type[RolloutError], seconds: dict[str, float]) -> None:
        super().__init__(name, fault)
        self._seconds = seconds

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *raised: Any) -> None:
        self._seconds[self._name] += time.perf_counter() - self._started
        super().__exit__(*raised)


def _within(own: bool, seconds: float, what: str, call: Awaitable[T]) -> Awaitable[T]:
    """`own`: what is called keeps the deadline itself."""
    return call if own else within(seconds, what, call)


def _checked(response: Any, whose: str) -> Response:
    """Models and agents in this process can return anything, and what follows relies on the shape."""
    if not isinstance(response, dict):
        raise InfraFault(f"{whose} returned {type(response).__name__}, not a response")
    problem = check_items(response.get("output"), "output")
    if problem:
        raise InfraFault(f"{whose} returned no usable response: {problem}")
    return response  # type: ignore[return-value]


def _retryable(error: RolloutError) -> bool:
    """Another attempt is a new sample: it may mend what broke around the policy, never a verdict that could not be had
    for this answer (a verifier that fails on some answers would otherwise select the others)."""
    if isinstance(error.__cause__, UserError):
        return False
    return isinstance(error, (InfraFault, JudgeFault)) or (isinstance(error, DeadlineExceeded) and error.stage != "verify")


def _draw(*parts: object) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
