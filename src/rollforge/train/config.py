"""What a training can be told, by YAML and by options alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from rollforge.collect.config import EnvConfig, used
from rollforge.config import Section

Method = Literal["sft", "dpo", "grpo"]


OPERATIONAL = ("device", "threads", "keep", "track")
"""What may change between two sessions of one training: how it runs, not what it makes."""


class Evaluation(Section):
    """How the policy is measured on tasks that it does not learn from: before, during and after."""

    env: Annotated[EnvConfig | None, BeforeValidator(used)] = None
    """That of the training, in its test split where it has one, if not said otherwise."""
    tasks: Path | None = None
    limit: int = Field(100, ge=1)
    repeats: int = Field(4, ge=1)
    every: int | None = Field(None, ge=1)
    """Steps between two evaluations; a tenth of all steps if not said, only before and after if 0 steps lie between."""
    temperature: float = Field(1.0, ge=0)
    max_output_tokens: int | None = Field(None, ge=1)
    seed: int = 0


class Lora(Section):
    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | str = "all-linear"


class TrainConfig(Section):
    method: Method
    model: str = "tiny"
    """`tiny`, `tiny:DIR`, or a Hugging Face name or directory: the policy to begin with."""
    data: list[Path] = Field(default_factory=list)
    """Run directories, files of rollouts, or exported TRL data sets (`trl:sft`, `trl:dpo`, `trl:grpo`)."""
    env: Annotated[EnvConfig | None, BeforeValidator(used)] = None
    """GRPO: the environment that the policy acts in while it learns. Others: only evaluated in."""
    tasks: Path | None = None
    """GRPO: the tasks to learn from, if not the environment's own (in its training split where it has one)."""
    limit: int | None = Field(None, ge=1)
    """GRPO: so many tasks, from the start."""
    out: Path | None = None
    steps: int | None = Field(None, ge=1)
    """Updates of the weights; else `epochs`."""
    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0)
    batch: int | None = Field(None, ge=1)
    """SFT and DPO: rows per update. GRPO: rollouts per update, a multiple of `group`."""
    group: int = Field(16, ge=2)
    """GRPO: rollouts per task."""
    reuse: int = Field(1, ge=1)
    """GRPO: updates made with the same rollouts (TRL's num_iterations)."""
    max_turns: int = Field(16, ge=1)
    max_length: int | None = Field(None, ge=1)
    """Tokens of a conversation, prompt included."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """GRPO: beside temperature 1, which the gradient assumes."""
    min_reward: float = 1.0
    """SFT: rollouts from this reward on are the good ones."""
    lora: Lora | None = None
    save_every: int | None = Field(None, ge=1)
    """Steps between two checkpoints; a tenth of all steps if not said."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1)
    seed: int = 0
    track: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Any other setting of TRL's SFTConfig, DPOConfig or GRPOConfig, by its name there."""
    eval: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _complete(self) -> TrainConfig:
        if self.method != "grpo" and not self.data:
            raise ValueError(f"{self.method} learns from data: name a run directory or an exported data set")
        if self.method == "grpo" and not (self.env or self.data):
            raise ValueError("grpo acts in an environment: name one with --env")
        return self
