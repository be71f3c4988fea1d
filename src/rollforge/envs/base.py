"""The protocols beneath `@env`: an environment opens one session per rollout; a session has tools and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rollforge.errors import VerifierFault
from rollforge.records.items import Json, Response
from rollforge.records.lossless import dumps, loads
from rollforge.records.task import Task


@dataclass(frozen=True, slots=True)
class Tool:
    """What the policy is told of a tool."""

    name: str
    description: str = ""
    parameters: Json = field(default_factory=lambda: {"type": "object", "properties": {}})
    """A JSON Schema of type object."""

    def row(self) -> Json:
        """The flat function tool of the Responses API."""
        return {"type": "function", "name": self.name, "description": self.description, "parameters": self.parameters}


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolOutput:
    text: str
    """What the policy reads."""
    error: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged attempt. Make one with `verdict()`, which checks it."""

    reward: float
    fields: dict[str, Any] = field(default_factory=dict)
    """JSON, stored beside the reward; every number among them is a metric and is aggregated."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that one call may take. An environment with an attribute `limits` keeps them itself: it can stop the clock
    while a call queues for a thread or a process. For any other, the rollout does."""

    tool: float = 60.0
    verify: float = 60.0


class Session(Protocol):
    """One attempt at one task: opened fresh, never reset, always closed."""

    @property
    def tools(self) -> Sequence[Tool]: ...

    @property
    def observation(self) -> str | None:
        """What the environment adds to the prompt now that it is open (a first state to look at); usually None."""
        ...

    async def call(self, call: ToolCall, /) -> ToolOutput:
        """Run a tool. Wrong arguments and a tool's own exception are outputs with `error`, for the policy to read."""
        ...

    async def verify(self, response: Response, /) -> Verdict:
        """Judge the finished attempt. Raises `VerifierFault` or `JudgeFault` if it cannot be judged: never a 0 for that."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What an environment that runs the tools itself makes of one model call (Gymnasium's step)."""

    observation: str | None = None
    """Told to the policy as a user message, after the outputs."""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    outputs: tuple[tuple[str, str], ...] = ()
    """(call id, output) of the function calls that were run."""
    info: Json = field(default_factory=dict)


class Stepping(Protocol):
    """A session that is played by steps: `step` takes each model call, and `verify` tells the sum of the rewards."""

    async def step(self, response: Response, /) -> Step: ...


class Env(Protocol):
    def open(self, task: Task, /) -> AbstractAsyncContextManager[Session]: ...


def verdict(value: Any) -> Verdict:
    """A `Verdict` from what a verifier returned: a number; a mapping with `reward`, whose other keys are metrics; a mapping
    of named parts, whose sum is the reward; or a `Verdict`.

    Raises `VerifierFault` for anything else, for a reward that is not finite, for fields that JSON cannot hold, and for
    `reward_components` whose sum is not the reward (trainers that weigh the parts rely on it). Rewards are not bounded.
    """
    fields: Any = {}
    if isinstance(value, Verdict):
        reward, fields = value.reward, value.fields
    elif isinstance(value, Mapping):
        if not value:
            raise VerifierFault("the verifier returned an empty mapping")
        if "reward" in value:
            reward, fields = value["reward"], {key: item for key, item in value.items() if key != "reward"}
        else:
            parts = {str(name): _finite(part, str(name)) for name, part in value.items()}
            reward, fields = math.fsum(parts.values()), {"reward_components": parts}
    else:
        reward = value
    number = _finite(reward, "reward")
    if not isinstance(fields, Mapping):
        raise VerifierFault(f"the verdict's fields are {type(fields).__name__}, not a mapping")
    components = fields.get("reward_components")
    if components is not None:
        if not isinstance(components, Mapping):
            raise VerifierFault(f"reward_components is {type(components).__name__}, not a mapping of name to number")
        total = math.fsum(_finite(part, f"reward_components[{name!r}]") for name, part in components.items())
        if not math.isclose(total, number, rel_tol=1e-6, abs_tol=1e-6):
            raise VerifierFault(f"reward_components sum to {total:g}, but reward is {number:g}")
    try:
        return Verdict(number, loads(dumps(dict(fields))) if fields else {})
    except ValueError as error:
        raise VerifierFault(f"the verdict's fields cannot be stored: {error}") from error


def _finite(value: Any, name: str) -> float:
    # bool is a number here on purpose (verifiers return `answer in reply`); numpy scalars pass by __float__.
    if type(value) is float and math.isfinite(value):
        return value
    what = f"the verifier gave {name} = {value!r:.200} ({type(value).__name__})"
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise VerifierFault(f"{what}, not a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise VerifierFault(f"{what}, not a number: {error}") from error
    if not math.isfinite(number):
        raise VerifierFault(f"{what}, which is not finite")
    return number
