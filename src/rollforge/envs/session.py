"""A session of a `PythonEnv`: one instance of the user's class (or none, for a function), its tools and its verdict."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rollforge.envs.base import Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.bind import bind
from rollforge.envs.tools import BadArguments, error_text, result_text
from rollforge.errors import DeadlineExceeded, RolloutError, VerifierFault, stage
from rollforge.records.items import Response, final_text
from rollforge.records.task import Task

if TYPE_CHECKING:
    from rollforge.envs.decorate import PythonEnv


class PythonSession:
    def __init__(self, env: PythonEnv, task: Task) -> None:
        self._env = env
        self._task = task
        self._instance: Any = None
        self.observation: str | None = None

    @property
    def tools(self) -> Sequence[Tool]:
        return self._env.tools

    async def start(self) -> None:
        if not self._env.is_class:
            return
        with stage("open", VerifierFault):
            self._instance = await self._run(self._env.target, {}, "__init__", self._env.limits.tool)
            if hasattr(self._instance, "reset"):
                arguments = bind(self._env.target.reset, self._task, skip=1)
                seen = await self._run(self._instance.reset, arguments, "reset", self._env.limits.tool)
                self.observation = seen if isinstance(seen, str) and seen else None

    async def call(self, call: ToolCall, /) -> ToolOutput:
        function = self._env.functions.get(call.name)
        if function is None:
            known = ", ".join(self._env.functions) or "none"
            return ToolOutput(error_text(f"unknown tool {call.name!r}; the tools are: {known}"), error=True)
        try:
            arguments = function.arguments(call.arguments)
            bound = getattr(self._instance, call.name)
            return ToolOutput(result_text(await self._run(bound, arguments, call.name, self._env.limits.tool)))
        except BadArguments as error:
            return ToolOutput(error_text(f"invalid arguments for {call.name}: {error}"), error=True)
        except RolloutError:
            raise
        except Exception as error:  # noqa: BLE001 - a tool's exception is an error the policy can see
            return ToolOutput(error_text(f"{type(error).__name__}: {error}"), error=True)

    async def verify(self, response: Response, /) -> Verdict:
        env, verifier = self._env, self._env.verifier
        special = {"reply": final_text(response), "response": response}
        with stage("verify", VerifierFault):
            arguments = bind(verifier, self._task, skip=1 if env.is_class else 0, **special)
            bound = verifier.__get__(self._instance) if env.is_class else verifier
            payload = None if env.inline or inspect.iscoroutinefunction(verifier) else self._payload(arguments)
            if payload is None:
                return verdict(await self._run(bound, arguments, "verify", env.limits.verify))
            try:
                return verdict(await env.workers.run(payload, env.limits.verify))
            except TimeoutError:
                raise DeadlineExceeded(f"verify took longer than {env.limits.verify:g} s and was killed") from None

    async def close(self) -> None:
        close = getattr(self._instance, "close", None)
        if close is not None:
            with stage("close", VerifierFault):
                await self._run(close, {}, "close", self._env.limits.tool)

    def _payload(self, arguments: dict[str, Any]) -> bytes | None:
        """What a worker needs to judge; None if the state cannot leave this process (connections, locks, generators)."""
        state = self._instance.__getstate__() if self._instance is not None else None
        try:
            return pickle.dumps((state, arguments))
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError):
            return None

    async def _run(self, function: Callable[..., Any], arguments: dict[str, Any], name: str, seconds: float) -> Any:
        if self._env.inline and not inspect.iscoroutinefunction(function):
            result = function(**arguments)
            if not inspect.isawaitable(result):
                return result
        try:
            async with asyncio.timeout(seconds) as deadline:
                if self._env.inline or inspect.iscoroutinefunction(function):
                    result = function(**arguments)
                else:
                    result = await self._env.threads.run(function, arguments)
                return await result if inspect.isawaitable(result) else result
        except TimeoutError:
            if not deadline.expired():
                raise  # the function's own
            raise DeadlineExceeded(f"{name} took longer than {seconds:g} s") from None
