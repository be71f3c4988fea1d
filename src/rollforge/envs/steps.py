"""A session that is played by steps, as Gymnasium's environments are: of a class with `step(self, action)`.

    reset(...) ─► observation, or (observation, info)
    step(action, ...) ─► observation, (observation, reward, done), or (observation, reward, terminated, truncated, info)

`action` is the text of one model call; further parameters are filled from the row. The rewards are summed, unless the class
has `verify`. A response that was not played here (stored before, or a single reply) is played when it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforge.envs.base import Step, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.bind import bind
from rollforge.envs.session import PythonSession
from rollforge.envs.tools import error_text, result_text
from rollforge.errors import VerifierFault, short, stage
from rollforge.records.items import Response, final_text, model_calls
from rollforge.records.lossless import loads

NOTHING = "Continue."
"""Told where an observation is empty: without a message between them, two answers could not be told apart."""


def as_step(value: Any) -> Step:
    """Of what a user's `step` returned. Raises `VerifierFault` for what cannot be one."""
    if isinstance(value, Step):
        return value
    parts = value if isinstance(value, tuple) else (value, 0.0, False)
    if len(parts) not in (3, 5):
        what = f"step() returned a tuple of {len(parts)}"
        raise VerifierFault(
            f"{what}; it returns (observation, reward, done) or (observation, reward, terminated, truncated, info)"
        )
    observation, reward, terminated, *rest = parts
    truncated, info = rest if rest else (False, {})
    if not isinstance(info, Mapping):
        raise VerifierFault(f"the info of step() is {type(info).__name__}, not a mapping")
    over = bool(terminated) or bool(truncated)
    return Step(
        observation=_text(observation) or (None if over else NOTHING),
        reward=verdict(reward).reward,
        terminated=bool(terminated),
        truncated=bool(truncated),
        info=loads(result_text(dict(info))),
    )


def refused_calls(response: Response) -> Step | None:
    """What is told of tool calls where what the policy says is its action; None if it made none."""
    calls = [item for item in response.get("output") or [] if item.get("type") == "function_call"]
    return Step(outputs=tuple((str(call.get("call_id") or ""), NO_TOOLS.text) for call in calls)) if calls else None


class SteppingSession(PythonSession):
    """It has no tools: what the policy says is its action."""

    _steps = 0
    _reward = 0.0
    _last = Step()

    async def step(self, response: Response, /) -> Step:
        """What the environment makes of one model call. Once the episode is over, nothing changes any more.

        A ValueError of the user's `step` is told to the policy (it said no action); whatever else it raises is a
        `VerifierFault`.
        """
        if self._over:
            return Step(terminated=self._last.terminated, truncated=self._last.truncated, info=self._last.info)
        with stage("tools", VerifierFault):
            self._last = refused_calls(response) or await self._taken(final_text(response))
        self._steps += 1
        self._reward += self._last.reward
        return self._last

    async def call(self, call: ToolCall, /) -> ToolOutput:
        return NO_TOOLS

    async def verify(self, response: Response, /) -> Verdict:
        if not self._steps:
            for items in model_calls(response.get("output") or []):
                await self.step({"output": items})
        last = self._last
        told = {"steps": self._steps, "terminated": last.terminated, "truncated": last.truncated or not self._over}
        if not self._code.judges:
            return verdict({"reward": self._reward, **told, "info": last.info})
        found = await super().verify(response)
        return Verdict(found.reward, {**told, **found.fields})

    @property
    def _over(self) -> bool:
        return self._last.terminated or self._last.truncated

    def _shown(self, seen: Any) -> str | None:
        if isinstance(seen, tuple) and len(seen) == 2 and isinstance(seen[1], Mapping):
            seen = seen[0]
        return _text(seen)

    async def _taken(self, action: str) -> Step:
        step = self._instance.step
        arguments = bind(step, self._task, **{self._code.action: action})
        try:
            found = await self._run(step, arguments, "step", self._limits.tool)
        except ValueError as error:
            return Step(error_text(short(error)))
        return as_step(found)


def _text(seen: Any) -> str | None:
    return None if seen is None else result_text(seen) or None


NO_TOOLS = ToolOutput(error_text("there are no tools here: reply with your action"), error=True)
