"""Environments of the package `verifiers` (its interface up to 0.3): `verifiers_env("gsm8k")`, or one that is made already.

    their rollout ──asks its client──> messages ──> the session: observation, tools ──> our policy
          ^                                                                                 │
          └───────────────────────────── its answer, as theirs ◄── step(response) ──────────┘

Their own loop runs, whatever it is: it is only given a client that waits for our policy, so tools, stop conditions and
state are theirs. The reward is that of their rubric; a reward function that raises is no verdict, where theirs says 0.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from rollforge.envs.base import Limits, Session, Step, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.steps import NOTHING
from rollforge.envs.tasks import TaskSource
from rollforge.envs.tools import error_text, result_text
from rollforge.errors import InfraFault, UserError, VerifierFault, describe, short
from rollforge.records.items import Item, Json, Response, final_text, model_calls, text_of, tool_calls
from rollforge.records.messages import Dialect, items_from_messages, messages
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from rollforge.sandbox.deadline import within


def verifiers_env(source: Any, **arguments: Any) -> VerifiersEnv:
    """The environment `source`: the name of one that is installed, made with `arguments`, or a `verifiers.Environment`.

    Raises `UserError` without the package, for a name it does not know, and for rewards that compare a group's rollouts.
    """
    package = _package()
    if isinstance(source, str):
        try:
            with _own_signals():
                found = package.load_environment(source, **arguments)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"verifiers cannot load {source!r}: {short(error)}") from error
    else:
        found = source
    if not callable(getattr(found, "rollout", None)) or not hasattr(found, "rubric"):
        raise UserError(f"{type(found).__name__} is no environment of verifiers: it has no rollout, or no rubric")
    if getattr(found, "requires_group_rollouts", False):
        raise UserError(
            f"{type(found).__name__}: its rewards compare the rollouts of a group, and here each is judged alone"
        )
    return VerifiersEnv(found, source if isinstance(source, str) else type(found).__name__)


class VerifiersEnv:
    """An environment made by `verifiers_env`. Keeps the deadlines of its calls itself."""

    stepwise = True

    def __init__(self, env: Any, name: str) -> None:
        self.env = env
        self.name = name
        self.limits = Limits()

    def tasks(self, source: str | Path | None = None, **options: Any) -> Iterator[Task | BadLine]:
        """Its data set: `split`, train (else eval) by default, and at most `n`."""
        return TaskSource(self.name, self._rows).read(source, **options)

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        session = VerifiersSession(self.env, task, self.limits)
        try:
            await session.start()
            yield session
        finally:
            await session.close()

    async def aclose(self) -> None:
        teardown = getattr(self.env, "_teardown", None)
        if teardown is not None:
            await teardown()

    def _rows(self, split: str = "", n: int | None = None) -> Iterator[Json]:
        readers = {"train": "get_dataset", "eval": "get_eval_dataset"}
        if split not in ("", *readers):
            raise UserError(f"split={split!r}: it is train or eval")
        try:
            rows = getattr(self.env, readers[split or "train"])()
        except (ValueError, AssertionError):
            if split:
                raise
            rows = self.env.get_eval_dataset()
        for row in islice(rows, n):
            kept = {key: value for key, value in row.items() if key != "prompt" and value is not None}
            prompt = row["prompt"]
            given = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            chat = [{key: value for key, value in message.items() if value is not None} for message in given]
            yield {"responses_create_params": {"input": items_from_messages(chat)}, **kept}


class VerifiersSession:
    """Their rollout under way, in a task of its own, and the call of the model that it waits for."""

    def __init__(self, env: Any, task: Task, limits: Limits) -> None:
        self._env = env
        self._task = task
        self._limits = limits
        self._running: asyncio.Task[Any]
        self._asked: asyncio.Queue[tuple[list[Any], Any, asyncio.Future[Any]]] = asyncio.Queue()
        self._waiting: asyncio.Future[Any] | None = None
        self._prompt: list[Json] = []
        """What their model would have been told last, and its answer, as far as it is told again."""
        self._state: Any = None
        self._steps = 0
        self.tools: Sequence[Tool] = ()
        self.observation: str | None = None

    async def start(self) -> None:
        chat = messages(self._task.params)
        given: Json = {"example_id": self._task.index or 0, **self._task.fields}
        client = _client(self._ask)
        self._running = asyncio.create_task(self._env.rollout({**given, "prompt": chat}, client, "policy", {}))
        new = await within(self._limits.tool, "opening", self._next())
        if new is None:
            raise VerifierFault(f"it was over before the policy was asked{self._reason()}")
        if list(map(_essence, self._prompt[: len(chat)])) != list(map(_essence, chat)):
            raise VerifierFault("it changes the prompt of the row when it begins, which the policy would not see")
        self.observation = _observed(self._prompt[len(chat) :])

    async def call(self, call: ToolCall, /) -> ToolOutput:
        return ToolOutput(error_text("this environment runs the tools itself, in its steps"), error=True)

    async def step(self, response: Response, /) -> Step:
        """What their loop makes of one answer. Raises `InfraFault` for their errors, `VerifierFault` where the conversation
        is not one that goes on."""
        if self._waiting is None:
            return Step(terminated=True)
        answer = _answer(response)
        self._waiting.set_result(answer)
        self._waiting = None
        self._steps += 1
        told = [*self._prompt, _dumped(answer.message)]
        new = await within(self._limits.tool, "the step", self._next())
        over = new is None
        if over:
            if self._state is not None and self._state.get("error") is not None:
                raise InfraFault(f"verifiers: {short(self._state['error'])}")
            new = [_dumped(message) for message in (self._state or {}).get("final_env_response") or []]
        else:
            if list(map(_essence, self._prompt[: len(told)])) != list(map(_essence, told)):
                raise VerifierFault("it rewrites the conversation between its turns, which steps cannot follow")
            new = self._prompt[len(told) :]
        outputs = tuple((str(one["tool_call_id"]), _content(one)) for one in new if one.get("role") == "tool")
        observation = _observed([one for one in new if one.get("role") != "tool"])
        timed_out = bool(self._state is not None and self._state.get("timed_out"))
        return Step(
            observation=observation or (None if over or outputs else NOTHING),
            outputs=outputs,
            terminated=over and not timed_out,
            truncated=timed_out,
        )

    async def verify(self, response: Response, /) -> Verdict:
        if not self._steps:
            for items in model_calls(response.get("output") or []):
                await self.step({**response, "output": items})
        stopped = not self._running.done()
        await self._stop()
        if self._state is None:
            raise VerifierFault("its rollout ended without a state")
        with _errors(self._env.rubric) as errors:
            await within(self._limits.verify, "verify", self._env.rubric.score_rollout(self._state))
        if errors:
            raise VerifierFault(f"verifiers: {errors[0]}")
        metrics = {name: value for name, value in (self._state.get("metrics") or {}).items() if name != "reward"}
        told = {"stop_condition": self._state.get("stop_condition"), "stopped": stopped}
        return verdict({"reward": self._state["reward"], **told, **metrics})

    async def close(self) -> None:
        if not hasattr(self, "_running"):
            return
        await self._stop()
        if self._state is not None:
            await self._env.rubric.cleanup(self._state)

    async def _ask(self, prompt: Any, tools: Any, state: Any) -> Any:
        """Of their loop: the model's answer."""
        self._state = state if state is not None else self._state
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._asked.put((list(prompt), tools, answer))
        return await answer

    async def _next(self) -> list[Json] | None:
        """The messages of the next call of the model; None when the rollout is over."""
        asking = asyncio.ensure_future(self._asked.get())
        try:
            await asyncio.wait({asking, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not asking.done():
                asking.cancel()
        if asking.done() and not asking.cancelled():
            prompt, tools, self._waiting = asking.result()
            self._prompt = [_dumped(message) for message in prompt]
            self.tools = [_tool(tool) for tool in tools or []]
            return self._prompt
        error = self._running.exception()
        if error is not None:
            raise VerifierFault(f"verifiers: {describe(error)}") from error
        self._state = self._running.result()
        return None

    async def _stop(self) -> None:
        """Their rollout finishes its state on the way out."""
        if not self._running.done():
            self._running.cancel()
            await asyncio.wait({self._running})
        if not self._running.cancelled():
            self._running.exception()  # told already, or about to be replaced by the verdict

    def _reason(self) -> str:
        error = (self._state or {}).get("error")
        return f": {short(error)}" if error is not None else ""


def _package() -> Any:
    try:
        package = import_module("verifiers")
        import_module("verifiers.envs.multiturn_env")
    except ModuleNotFoundError as error:
        raise UserError(
            "environments of verifiers need the package, in a version below 0.4 (which runs programs instead of being "
            "played): pip install 'rollforge[verifiers]'"
        ) from error
    return package


def _client(ask: Any) -> Any:
    client: Any = import_module("verifiers.clients").Client

    class Policy(client):  # type: ignore[misc]
        """The client that asks our policy."""

        def __init__(self) -> None:
            self.logger = logging.getLogger(__name__)
            self._config = None

        async def get_response(self, prompt: Any, model: Any, sampling_args: Any, tools: Any = None, **kwargs: Any) -> Any:
            return await ask(prompt, tools, kwargs.get("state"))

    Policy.__abstractmethods__ = frozenset()
    return Policy()


def _answer(response: Response) -> Any:
    """Of one call of the model, as verifiers has it."""
    types = import_module("verifiers.types")
    output: list[Item] = response.get("output") or []
    chat = messages({"input": []}, output, Dialect(reasoning="reasoning_content", flat=True))
    said = chat[-1] if chat else {}
    calls = [types.ToolCall(id=c["call_id"], name=c["name"], arguments=c["arguments"]) for c in tool_calls(response)]
    cut = response.get("status") == "incomplete"
    message = types.ResponseMessage(
        role="assistant",
        content=final_text(response),
        reasoning_content=said.get("reasoning_content"),
        tool_calls=calls or None,
        finish_reason="length" if cut else "tool_calls" if calls else "stop",
        is_truncated=cut,
    )
    usage = response.get("usage") or {}
    counts = {
        "prompt_tokens": usage.get("input_tokens") or 0,
        "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
        "completion_tokens": usage.get("output_tokens") or 0,
        "total_tokens": usage.get("total_tokens") or 0,
    }
    id, model = str(response.get("id") or "resp_0"), str(response.get("model") or "policy")
    return types.Response(id=id, created=int(time.time()), model=model, usage=types.Usage(**counts), message=message)


def _dumped(message: Any) -> Json:
    return dict(message) if isinstance(message, Mapping) else message.model_dump(exclude_none=True)


def _essence(message: Json) -> tuple[Any, ...]:
    calls = [(call.get("id"), call.get("name")) for call in message.get("tool_calls") or []]
    return message.get("role"), _content(message), calls


def _content(message: Json) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else text_of(content) if content else ""


def _observed(new: Sequence[Json]) -> str | None:
    return "\n\n".join(text for text in map(_content, new) if text) or None


def _tool(tool: Any) -> Tool:
    row = _dumped(tool)
    return Tool(
        str(row["name"]), str(row.get("description") or ""), row.get("parameters") or {"type": "object", "properties": {}}
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Their environments take SIGINT and SIGTERM when they are made; a run has handlers of its own, and closes them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)


@contextmanager
def _errors(rubric: Any) -> Iterator[list[str]]:
    """What the rubrics log as an error meanwhile, of this task: they make a 0 of whatever a reward function raises."""
    found: list[str] = []
    token = _heard.set(found)
    loggers = {id(one.logger): one.logger for one in (rubric, *getattr(rubric, "rubrics", ())) if hasattr(one, "logger")}
    for logger in loggers.values():
        logger.addHandler(_EAR)
    try:
        yield found
    finally:
        _heard.reset(token)


class _Ear(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        found = _heard.get()
        if found is not None and record.levelno >= logging.ERROR:
            found.append(result_text(record.getMessage()))


_EAR = _Ear()
_heard: ContextVar[list[str] | None] = ContextVar("errors of rubrics", default=None)
