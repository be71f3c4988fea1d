"""What a loop is told: one YAML, with a section for each step whose keys are that step's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from rollforge.collect.config import ModelConfig, listed, used
from rollforge.config import Section, merge, read_yaml, validate
from rollforge.records.items import Json
from rollforge.records.shown import with_secrets, without_secrets
from rollforge.train.config import OPERATIONAL as TRAINING


class Target(Section):
    """Which tasks the next iteration tries more often: those that fail."""

    below: float = Field(0.5, gt=0, le=1)
    """A task whose solve rate is below this fails."""
    times: int = Field(2, ge=2, le=1000)
    """It gets so many times the repeats."""
    drop: float | None = Field(None, gt=0, le=1)
    """Tasks that are solved at this rate or above are left out."""
    by: Annotated[list[str], BeforeValidator(listed)] = Field(default_factory=list)
    """Fields of the tasks (level, kind, ...): a task fails if its category fails in the evaluation. Without: each task for
    itself, by its latest rollouts."""
    success: float = 1.0
    """The reward from which a rollout has solved its task."""


class LoopConfig(Section):
    model: Annotated[ModelConfig, BeforeValidator(used)] = ModelConfig(use="tiny")
    """The policy of the start."""
    trained: Annotated[ModelConfig | None, BeforeValidator(used)] = None
    """How a trained one is played, `{model}` standing for its directory; if not said, `tiny:{model}` if the start is tiny,
    else `transformers:{model}`."""
    iterations: int = Field(2, ge=1)
    seed: int = 0
    """Of every step that names none; that of a collection and of a training moves on with the iterations."""
    out: Path | None = None
    window: int | None = Field(1, ge=1)
    """Learn from the rollouts of so many iterations, the last ones; null: of all."""
    restart: bool = False
    """Train from the policy of the start each time, not from the last one."""
    regression: Literal["stop", "back", "ignore"] = "stop"
    """When a trained policy is significantly worse than the one it was made of: end the loop, or go on with the old one, or
    with the new one all the same."""
    collect: Json | None = None
    """Keys of `CollectConfig`."""
    curate: Json | None = None
    """A curation recipe: `steps`, `seed`."""
    export: Json | None = None
    """`to`, and the options of an export: for trainers elsewhere."""
    train: Json | None = None
    """Keys of `TrainConfig`."""
    eval: Json | None = None
    """Keys of `EvalConfig`."""
    target: Target | None = None

    @model_validator(mode="after")
    def _complete(self) -> LoopConfig:
        if self.collect is None and self.train is None:
            raise ValueError("a loop collects, or trains, or both: give it a section `collect` or `train`")
        for step in ("curate", "export", "target"):
            if getattr(self, step) is not None and self.collect is None:
                raise ValueError(f"`{step}` works on what was collected: add a section `collect`")
        for step, keys in FILLED.items():
            given = next((key for key in keys if key in (getattr(self, step) or {})), None)
            if given is not None:
                raise ValueError(f"{step}.{given} is filled by the loop: {keys[given]}")
        if self.train is None and self.trained is not None:
            raise ValueError("`trained` says how a trained policy is played, but there is no section `train`")
        return self


FILLED: Mapping[str, Mapping[str, str]] = {
    "collect": {"model": "give `model` at the top", "out": "every step has its folder below `out`"},
    "train": {"out": "every step has its folder below `out`"},
    "eval": {
        "models": "give `model` at the top",
        "out": "every step has its folder below `out`",
        "baseline": "each policy is compared with the one before it",
    },
    "export": {"out": "every step has its folder below `out`", "overwrite": "a step that is done is not done again"},
}
"""Keys of the steps that a recipe does not give, and what it gives instead."""

DEFAULTS: Mapping[str, Json] = {
    "collect": {"limit": 100, "repeats": 4, "min_coverage": 0.8},
    "eval": {"limit": 50, "repeats": 4, "min_coverage": 0.8},
}
"""Small; and an unattended loop goes on where a few rollouts have no verdict, as exports do."""

OPERATIONAL: Mapping[str, tuple[str, ...]] = {
    "": ("iterations", "out", "regression"),
    "model": ("base_url", "api_key_env", "headers", "retries"),
    "trained": ("base_url", "api_key_env", "headers", "retries"),
    "collect": (
        "concurrency",
        "max_attempts",
        "backoff",
        "retry_failed",
        "min_coverage",
        "count_seconds",
        "deadlines",
        "budget",
    ),
    "export": ("workers",),
    "train": TRAINING,
    "eval": ("concurrency", "max_attempts", "backoff", "retry_failed", "min_coverage", "deadlines", "examples"),
}
"""What may change between two sessions of one loop: how it runs, not what it makes. Not stored: keys may be among them."""


def read_config(path: str | Path) -> LoopConfig:
    """Raises `UserError` naming the key that is wrong."""
    return validate(LoopConfig, read_yaml(path), str(path))


def identity(config: LoopConfig) -> Json:
    """What makes it the same loop, for others to see."""
    values = config.model_dump(mode="json")
    for inside, key in _operational(values):
        del inside[key]
    found: Json = without_secrets(values, marked=True)
    return found


def with_operational(stored: Json, given: LoopConfig) -> LoopConfig:
    """The loop that was stored, run as it is said now. Raises `UserError` if what was hidden there is not given."""
    values = given.model_dump(mode="json")
    running: Json = {}
    for section in OPERATIONAL:
        inside = values if not section else values.get(section) or {}
        found = {key: inside[key] for key in OPERATIONAL[section] if key in inside}
        if not section:
            running |= found
        elif stored.get(section):
            running[section] = found
    return validate(LoopConfig, merge(with_secrets(stored, values), running), "the stored recipe")


def _operational(values: Json) -> list[tuple[Json, str]]:
    sections = ((values if not section else values.get(section) or {}, keys) for section, keys in OPERATIONAL.items())
    return [(inside, key) for inside, keys in sections for key in keys if key in inside]
