"""What a collection can be told, by YAML and by options alike."""

from __future__ import annotations

from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from rollforge.collect.plan import MAX_REPEATS
from rollforge.config import Section


def used(value: Any) -> Any:
    """`arithmetic` is short for `{use: arithmetic}`."""
    return {"use": value} if isinstance(value, str) else value


def listed(value: Any) -> Any:
    """`x` is short for `[x]`."""
    return [value] if isinstance(value, str) else value


SAMPLING = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_output_tokens",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "reasoning",
    "text",
    "tool_choice",
    "parallel_tool_calls",
    "instructions",
    "truncation",
    "metadata",
    "user",
    "include",
    "store",
    "service_tier",
]


def _sampling(sampling: dict[str, Any]) -> dict[str, Any]:
    """Servers have parameters that nobody can list; but one that is nearly a known one is a slip."""
    for name, value in sampling.items():
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"{name} is {value}")
        near = get_close_matches(name, SAMPLING, n=1, cutoff=0.85)
        if name not in SAMPLING and near:
            raise ValueError(f"unknown parameter {name!r}; did you mean {near[0]}? (put others in model.extra_body)")
    return sampling


class EnvConfig(Section):
    """Which environment; further keys go to its task generator."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str


class ModelConfig(Section):
    use: str
    """`backend[:name]`."""
    base_url: Annotated[list[str], BeforeValidator(listed)] = Field(default_factory=list)
    api_key_env: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    retries: int = Field(4, ge=0)


class AgentConfig(Section):
    """Which agent; further keys are options of one that is not the tool loop."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str = "tool_loop"
    """A name, `command:PROGRAM ...`, `package.module:attr`, or the URL of an agent service."""
    max_turns: int = Field(16, ge=1)
    max_total_tokens: int = Field(131_072, ge=1)
    max_tool_chars: int = Field(65_536, ge=100)

    @property
    def remote(self) -> bool:
        """It has an environment and a model of its own."""
        return self.use.startswith(("http://", "https://"))

    @property
    def options(self) -> dict[str, Any]:
        """What the agent is made with: the defaults here are those of the tool loop."""
        return self.model_dump(exclude={"use"}, exclude_unset=self.use != "tool_loop")


class Deadlines(Section):
    """Seconds."""

    connect: float = Field(10, gt=0)
    call: float = Field(600, gt=0)
    tool: float = Field(60, gt=0)
    verify: float = Field(60, gt=0)
    rollout: float = Field(3600, gt=0)


class Budget(Section):
    """What ends a session of a run early and cleanly: nothing new is started, what is in flight is finished."""

    rollouts: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    cost: float | None = Field(None, gt=0)
    """In the currency of the prices."""
    price_in: float = Field(0.0, ge=0)
    """Per million prompt tokens."""
    price_out: float = Field(0.0, ge=0)
    """Per million generated tokens."""

    @model_validator(mode="after")
    def _priced(self) -> Budget:
        if self.cost is not None and not (self.price_in or self.price_out):
            raise ValueError("a budget of cost needs prices: price_in, price_out (per million tokens)")
        return self


class CollectConfig(Section):
    env: Annotated[EnvConfig | None, BeforeValidator(used)] = None
    model: Annotated[ModelConfig | None, BeforeValidator(used)] = None
    """Both needed but with an agent service, which has its own: there `env` is where the tasks come from, if anywhere."""
    tasks: Path | None = None
    repeats: int = Field(1, ge=1, le=MAX_REPEATS)
    limit: int | None = Field(None, ge=1)
    """Tasks, from the start."""
    sampling: Annotated[dict[str, Any], AfterValidator(_sampling)] = Field(default_factory=dict)
    """Sent with every model call, over what a row asks for: temperature, top_p, max_output_tokens, top_k, stop, ..."""
    seed: int | None = None
    """Every draw of a local policy follows from it; sent (one number per call) to servers only when set. Random if not."""
    count_seconds: float = Field(2.0, ge=0)
    """Longest time that counting the tasks may take before the run begins; without a count there is no time left to show."""
    out: Path | None = None
    concurrency: int = Field(64, ge=1, le=100_000)
    max_attempts: int = Field(3, ge=1, le=1000)
    backoff: float = Field(1.0, ge=0)
    """Seconds before a second attempt, at most; it doubles with each further one."""
    retry_failed: bool = False
    """Attempt again what failed for good before the run was resumed."""
    min_coverage: float = Field(1.0, ge=0, le=1)
    """Share of the plan that must have a reward for the run to count as a success."""
    agent: Annotated[AgentConfig, BeforeValidator(used)] = AgentConfig()
    deadlines: Deadlines = Deadlines()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _complete(self) -> CollectConfig:
        if self.env is None and (self.tasks is None or not self.agent.remote):
            raise ValueError("name an environment: rollforge env list")
        if self.model is None and not self.agent.remote:
            raise ValueError("give a model: --model tiny")
        return self
