"""`rollforge train`: SFT and DPO on what was collected, GRPO in an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX, settings
from rollforge.cli.output import print_json, prints_aside


def train(
    method: str = typer.Argument(..., metavar="sft|dpo|grpo", help="sft and dpo learn from data, grpo in an environment."),
    data: list[Path] = typer.Argument(None, help="Run directories, files of rollouts, or exported TRL data sets."),
    env: str | None = typer.Option(None, "--env", "-e", help="The environment: grpo acts in it, all are measured in it."),
    model: str | None = typer.Option(
        None, "--model", "-m", help="The policy to begin with: tiny, tiny:DIR, a Hugging Face name or directory."
    ),
    config: Path | None = typer.Option(None, "--config", "-c", help="YAML with any of the settings; options win over it."),
    tasks: Path | None = typer.Option(None, help="grpo: JSONL file of tasks to learn from."),
    limit: int | None = typer.Option(None, "--limit", "-n", help="grpo: so many tasks."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Directory of the training; one that exists is gone on with."),
    steps: int | None = typer.Option(None, help="Updates of the weights."),
    epochs: float | None = typer.Option(None, help="Passes over the data, instead of --steps."),
    learning_rate: float | None = typer.Option(None, "--learning-rate", "--lr", help="Default by method and size of model."),
    batch: int | None = typer.Option(None, help="Rows per update; grpo: rollouts per update."),
    group: int | None = typer.Option(None, help="grpo: rollouts per task (default 16)."),
    reuse: int | None = typer.Option(None, help="grpo: updates made with the same rollouts (default 1)."),
    max_turns: int | None = typer.Option(None, help="Model calls per rollout (default 16)."),
    max_length: int | None = typer.Option(None, help="Tokens of a conversation."),
    min_reward: float | None = typer.Option(None, help="sft: rollouts of a run from this reward on (default 1)."),
    lora: int | None = typer.Option(None, metavar="RANK", help="Train adapters of this rank; they are merged at the end."),
    eval_tasks: Path | None = typer.Option(None, help="JSONL file of held-out tasks, instead of the environment's own."),
    eval_limit: int | None = typer.Option(None, help="Held-out tasks (default 100)."),
    eval_repeats: int | None = typer.Option(None, help="Rollouts of each (default 4)."),
    eval_every: int | None = typer.Option(None, help="Steps between evaluations (default a tenth of all)."),
    save_every: int | None = typer.Option(None, help="Steps between checkpoints (default a tenth of all)."),
    device: str | None = typer.Option(None, help="auto, cpu or cuda."),
    threads: int | None = typer.Option(None, help="Of torch (default: 2 for models as small as tiny)."),
    seed: int | None = typer.Option(None, help="Of the training (default 0)."),
    track: list[str] = typer.Option([], help="tensorboard, wandb; may be repeated."),
    set_: list[str] = typer.Option(
        [], "--set", help="Any other setting, as in --set sampling.top_k=20 --set trainer.beta=0.04 (TRL's own)."
    ),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print the report as JSON; progress goes to stderr."),
) -> None:
    """Train a model, measured on held-out tasks before, during and after. Killed, the same command goes on."""
    from rollforge.config import validate
    from rollforge.train.config import TrainConfig

    options: dict[str, Any] = {
        "method": method,
        "data": data or None,
        "env": {"use": env},
        "model": model,
        "tasks": tasks,
        "limit": limit,
        "out": out,
        "steps": steps,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch": batch,
        "group": group,
        "reuse": reuse,
        "max_turns": max_turns,
        "max_length": max_length,
        "min_reward": min_reward,
        "lora": {"rank": lora},
        "eval": {"tasks": eval_tasks, "limit": eval_limit, "repeats": eval_repeats, "every": eval_every},
        "save_every": save_every,
        "device": device,
        "threads": threads,
        "seed": seed,
        "track": track or None,
    }
    values = settings(config, options, set_, uses=("env",))
    asked = validate(TrainConfig, values, str(config or "the options"))
    from rollforge.train.policy import need_for
    from rollforge.train.run import train as work

    need_for(asked)
    _quiet()
    with prints_aside():
        done = work(asked)
    if json:
        print_json(done.report)
        return
    from rollforge.train.report import shown

    print(shown(done.report))
    print(f"\nmodel: {done.model}   report: {done.path}/report.md   curve: {done.path}/curve.png")


def _quiet() -> None:
    """What the libraries say of their own next versions, and of every file they write."""
    import warnings

    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
