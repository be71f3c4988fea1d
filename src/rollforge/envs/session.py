"""A session of an environment made by `@env`: one instance of the user's class (or none, for a function)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rollforge.envs.base import Limits, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.bind import bind, copied
from rollforge.envs.code import Code
from rollforge.envs.tools import BadArguments, error_text, result_text
from rollforge.errors import RolloutError, SetupError, VerifierFault, short, stage
from rollforge.records.items import Response, final_text, text_of
from rollforge.records.task import Task
from rollforge.sandbox.deadline import cancelled, within
from rollforge.sandbox.threads import Lane
from rollforge.sandbox.workers import CannotCarry, Workers


class PythonSession:
    """Async functions run on the event loop; sync tools in the session's own thread; sync verifiers in `workers`.

    Without a `lane` (`inline`) everything runs on the event loop; without `workers` verifiers run where tools do.
    """

    def __init__(self, code: Code, task: Task, limits: Limits, lane: Lane | None, workers: Workers | None) -> None:
        self._code = code
        self._task = task
        self._limits = limits
        self._lane = lane
        self._workers = workers
        self._instance: Any = None
        self._turn = asyncio.Lock()
        self.observation: str | None = None

    @property
    def tools(self) -> Sequence[Tool]:
        return [function.tool for function in self._code.functions.values()]

    async def start(self) -> None:
        if not self._code.is_class:
            return
        with stage("open", VerifierFault):
            self._instance = await self._run(self._code.target, {}, "__init__", self._limits.tool)
            if self._code.has("reset"):
                reset = self._instance.reset
                self.observation = self._shown(await self._run(reset, bind(reset, self._task), "reset", self._limits.tool))

    async def call(self, call: ToolCall, /) -> ToolOutput:
        function = self._code.functions.get(call.name)
        if function is None:
            known = ", ".join(self._code.functions) or "none"
            return ToolOutput(error_text(f"unknown tool {call.name!r}; the tools are: {known}"), error=True)
        try:
            arguments = function.arguments(call.arguments)
            bound = getattr(self._instance, call.name)
            return ToolOutput(result_text(await self._run(bound, arguments, call.name, self._limits.tool)))
        except BadArguments as error:
            return ToolOutput(error_text(f"invalid arguments for {call.name}: {error}"), error=True)
        except (RolloutError, SetupError):
            raise
        except Exception as error:  # noqa: BLE001 - a tool's exception is an error the policy can see
            return ToolOutput(error_text(short(error)), error=True)

    def judge_by(self, task: Task) -> None:
        """From whoever asks for the verdict and knows the row by then: what it says wins over what the session was opened
        with, whose state stays."""
        self._task = task

    async def verify(self, response: Response, /) -> Verdict:
        with stage("verify", VerifierFault):
            verifier = self._code.verifier(self._instance)
            arguments = bind(verifier, self._task, reply=final_text(response), response=response)
            workers, packed = self._workers, None
            if workers is not None and not inspect.iscoroutinefunction(verifier):
                packed = self._code.pack(self._instance, arguments)
            if workers is not None and packed is not None:
                try:
                    found: Verdict = await workers.run(packed, self._limits.verify, "verify")
                    return found
                except CannotCarry:
                    packed = None
            if "response" in arguments:
                arguments["response"] = copied(response)  # a verifier may take it apart; it is the record
            return verdict(await self._run(verifier, arguments, "verify", self._limits.verify))

    async def close(self) -> None:
        try:
            if self._instance is not None and self._code.has("close"):
                with stage("close", VerifierFault):
                    await self._run(self._instance.close, {}, "close", self._limits.tool)
        finally:
            if self._lane is not None:
                self._lane.release()

    def _shown(self, seen: Any) -> str | None:
        """Of what reset() returned, what the policy is shown."""
        if isinstance(seen, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in seen):
            seen = text_of(seen)  # content parts, as TRL's environments may return
        if not isinstance(seen, (str, type(None))):
            raise VerifierFault(f"reset() returned {type(seen).__name__}; it returns what the policy is shown, or None")
        return seen or None

    async def _run(self, function: Callable[..., Any], arguments: dict[str, Any], what: str, seconds: float) -> Any:
        # One call at a time: parallel ones, sync and async, would meet in the state of one instance.
        async with self._turn:
            if self._lane is None or inspect.iscoroutinefunction(function):
                result = _here(function, arguments)
            else:
                result = await self._lane.run(function, arguments, seconds, what)
            return await _within(seconds, what, result) if inspect.isawaitable(result) else result


def _here(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return function(**arguments)
    except (SystemExit, asyncio.CancelledError) as error:
        raise RuntimeError(short(error)) from error  # a function may end neither the program nor the rollout


async def _within(seconds: float, what: str, awaitable: Awaitable[Any]) -> Any:
    try:
        return await within(seconds, what, awaitable)
    except SystemExit as error:
        raise RuntimeError(short(error)) from error
    except asyncio.CancelledError as error:
        if cancelled():
            raise
        raise RuntimeError("it was cancelled by itself") from error  # nobody cancelled the rollout
