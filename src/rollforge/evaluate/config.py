"""What an evaluation can be told, by YAML and by options alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rollforge.collect.config import AgentConfig, CollectConfig, Deadlines, EnvConfig, ModelConfig, used
from rollforge.collect.plan import MAX_REPEATS
from rollforge.config import Section, validate
from rollforge.records.items import Json
from rollforge.records.shown import without_secrets


def all_used(value: Any) -> list[Any]:
    """`arithmetic` is short for `[{use: arithmetic}]`."""
    return [used(one) for one in (value if isinstance(value, list) else [value])]


def _once(given: list[Any]) -> list[Any]:
    for number, one in enumerate(given):
        if one in given[:number]:
            raise ValueError(f"{one.use} is given twice")
    return given


class EvalConfig(Section):
    models: Annotated[list[ModelConfig], BeforeValidator(all_used), AfterValidator(_once)] = Field(min_length=1)
    """The first is what the others are compared with, unless there is a baseline."""
    env: Annotated[list[EnvConfig], BeforeValidator(all_used), AfterValidator(_once)] = Field(min_length=1)
    """Every model plays every one."""
    tasks: Path | None = None
    repeats: int = Field(4, ge=1, le=MAX_REPEATS)
    limit: int | None = Field(None, ge=1)
    """Tasks of each environment, from the start."""
    seed: int = 0
    """The same draws for every model; sent to servers too."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    out: Path | None = None
    baseline: Path | None = None
    """A run directory, a file of rollouts, or an earlier evaluation (of one model: `OUT/MODEL`)."""
    by: list[str] = Field(default_factory=list)
    """Fields of the task that are categories; those that are known to be, if none is named."""
    success: float = 1.0
    min_coverage: float = Field(1.0, ge=0, le=1)
    """Share of the rollouts of each model that must have a reward."""
    examples: int = Field(2, ge=0)
    """Of each failure mode of each model."""
    agent: Annotated[AgentConfig, BeforeValidator(used)] = AgentConfig()
    deadlines: Deadlines = Deadlines()
    concurrency: int = Field(64, ge=1, le=100_000)
    max_attempts: int = Field(3, ge=1, le=1000)
    backoff: float = Field(1.0, ge=0)
    retry_failed: bool = False

    def collection(self, model: ModelConfig, env: EnvConfig, out: Path) -> CollectConfig:
        """Of one model in one environment. Raises `UserError` for sampling parameters that are none."""
        shared = {name: getattr(self, name) for name in EvalConfig.model_fields if name in _SHARED}
        values = {**shared, "model": model, "env": env, "out": out, "min_coverage": 0}
        return validate(CollectConfig, values, "the evaluation")

    @model_validator(mode="after")
    def _own_model(self) -> EvalConfig:
        if self.agent.remote:
            raise ValueError("an agent service has a model of its own: collect from each, and compare with --baseline")
        return self

    def row(self) -> Json:
        """To be stored: without secrets."""
        row = self.model_dump(mode="json")
        for model in row["models"]:
            model["headers"] = sorted(model["headers"])  # names only: values may be secrets
        return without_secrets(row)  # type: ignore[no-any-return]


_SHARED = CollectConfig.model_fields.keys() - {"model", "env", "out", "min_coverage"}
