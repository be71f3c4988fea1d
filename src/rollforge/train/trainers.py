"""TRL's trainers with our settings: the tables of defaults, and what each method needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollforge.errors import UserError, unknown
from rollforge.records.lossless import loads
from rollforge.train.config import Method, TrainConfig
from rollforge.train.live import LiveRollouts, reward
from rollforge.train.policy import Policy

MARK = re.compile(r"\{%-?\s*generation\b")
"""In a chat template that says what of a conversation the assistant says."""


@dataclass(frozen=True, slots=True)
class Defaults:
    learning_rate: float
    batch: int
    epochs: float
    steps: int | None
    """Where there is no data set to go through."""


SMALL: dict[Method, Defaults] = {
    "sft": Defaults(5e-4, 32, 3, None),
    "dpo": Defaults(3e-4, 32, 3, None),
    "grpo": Defaults(3e-4, 128, 1, 100),
}
"""For models of a few million parameters, which start from little."""

LARGE: dict[Method, Defaults] = {
    "sft": Defaults(2e-5, 32, 2, None),
    "dpo": Defaults(1e-6, 32, 1, None),
    "grpo": Defaults(1e-6, 128, 1, 200),
}
"""TRL's own rates; those of LoRA are ten times as high."""


def defaults(method: Method, policy: Policy, lora: bool) -> Defaults:
    chosen = (SMALL if policy.small else LARGE)[method]
    if lora and not policy.small:
        return replace(chosen, learning_rate=chosen.learning_rate * 10)
    return chosen


def make_trainer(
    config: TrainConfig,
    policy: Policy,
    out: Path,
    *,
    files: Sequence[Path] = (),
    live: LiveRollouts | None = None,
    callbacks: Sequence[Any] = (),
) -> Any:
    """A TRL trainer that has not begun. Raises `UserError` for settings that TRL refuses."""
    methods: dict[Method, Callable[..., Any]] = {"sft": _sft, "dpo": _dpo, "grpo": _grpo}
    made = methods[config.method]
    usual = defaults(config.method, policy, config.lora is not None)
    try:
        trainer = made(config, policy, _settings(config, policy, usual, out), files or live, list(callbacks))
    except (ValueError, TypeError) as error:
        raise UserError(f"TRL refuses these settings: {str(error).splitlines()[0]}") from error
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def _settings(config: TrainConfig, policy: Policy, usual: Defaults, out: Path) -> dict[str, Any]:
    batch = config.batch or usual.batch
    each = int(config.trainer.get("per_device_train_batch_size", batch))
    if batch % each:
        raise UserError(f"trainer.per_device_train_batch_size is {each}: it has to divide the batch of {batch}")
    values: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": each,
        "gradient_accumulation_steps": batch // each,
        "learning_rate": config.learning_rate or usual.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 5,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": config.save_every or 0.1,
        "save_total_limit": config.keep,
        "seed": config.seed,
        "report_to": list(config.track) or "none",
        "run_name": out.name,
        "disable_tqdm": True,
        "use_cpu": policy.device == "cpu",
        "bf16": policy.device == "cuda" and _bf16(),
    }
    values |= {"max_steps": config.steps} if config.steps else {"num_train_epochs": config.epochs or usual.epochs}
    if config.method == "grpo":
        values |= {"max_steps": config.steps or usual.steps} if config.epochs is None else {}
    if policy.small:  # memory is no matter; the name before and since transformers 5.23
        values |= {"activation_checkpointing": False} if _renamed() else {"gradient_checkpointing": False}
    return values


def _sft(config: TrainConfig, policy: Policy, values: dict[str, Any], files: Sequence[Path], callbacks: list[Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    rows = _load(files)
    conversations = "messages" in rows.column_names
    # Only what the assistant says, where the template (or TRL's copy of it) marks that; else all of the conversation.
    marked = conversations and _marked_template(policy.tokenizer) is not None
    own = {"assistant_only_loss": marked, "max_length": config.max_length or _context(policy), "dataset_num_proc": None}
    arguments = _arguments(SFTConfig, values | own, config)
    return SFTTrainer(
        model=policy.model, args=arguments, train_dataset=rows, processing_class=policy.tokenizer, callbacks=callbacks
    )


def _dpo(config: TrainConfig, policy: Policy, values: dict[str, Any], files: Sequence[Path], callbacks: list[Any]) -> Any:
    from trl import DPOConfig, DPOTrainer

    own: dict[str, Any] = {"max_length": config.max_length or _context(policy)}
    if policy.small:  # pushing the rejected answers down alone makes a small model forget how to copy
        own["loss_type"] = ["sigmoid", "sft"]
    arguments = _arguments(DPOConfig, values | own, config)
    rows = _load(files)
    trainer = DPOTrainer(
        model=policy.model,
        args=arguments,
        train_dataset=rows,
        processing_class=policy.tokenizer,
        callbacks=callbacks,
    )
    template = _marked_template(policy.tokenizer)
    if template is not None and "prompt" in rows.column_names:
        trainer.data_collator = _only_said(trainer.data_collator, rows, policy.tokenizer, template)
    return trainer


def _only_said(collate: Callable[[Any], Any], rows: Any, tokenizer: Any, template: str) -> Callable[[Any], Any]:
    """TRL's collator, with the loss on what the assistant says: for TRL tool results are the policy's words too, and there
    are more of them than of its own."""
    import torch

    said: dict[int, bytes] = {}
    for row in rows:
        tools = loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools")
        for side in ("chosen", "rejected"):
            found = tokenizer.apply_chat_template(
                row["prompt"] + row[side],
                tools=tools,
                chat_template=template,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            said[hash(tuple(found["input_ids"]))] = bytes(found["assistant_masks"])

    def collated(examples: Any) -> Any:
        batch = collate(examples)
        for ids, there, mask in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True):
            own = said.get(hash(tuple(ids[there.bool()].tolist())))
            if own is not None:  # a conversation that was cut keeps TRL's mask
                mask[: len(own)] *= torch.tensor(list(own))
        return batch

    return collated


def _grpo(config: TrainConfig, policy: Policy, values: dict[str, Any], live: LiveRollouts, callbacks: list[Any]) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    batch = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    if batch % config.group:
        raise UserError(f"a batch of {batch} rollouts is not a multiple of the group of {config.group}")
    own = {
        "num_generations": config.group,
        "num_iterations": config.reuse,
        "temperature": 1.0,
        "beta": 0.0,
        "max_completion_length": config.max_length or _context(policy),
        "disable_dropout": True,
    }
    arguments = _arguments(GRPOConfig, values | own, config)
    return GRPOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(live.prompts()),
        processing_class=policy.tokenizer,
        rollout_func=live,
        callbacks=callbacks,
    )


def _arguments(kind: Any, values: dict[str, Any], config: TrainConfig) -> Any:
    """TRL's configuration object; the user's own settings win."""
    known = kind.__dataclass_fields__
    for name in config.trainer:
        if name not in known:
            raise unknown(f"setting of {kind.__name__}", name, known, "(under trainer:)")
    return kind(**{name: value for name, value in values.items() if name in known} | config.trainer)


def _load(files: Sequence[Path]) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset("json", data_files=[str(file) for file in files], split="train")
    except Exception as error:  # datasets has its own errors for files it cannot read
        raise UserError(f"datasets cannot load {', '.join(map(str, files))}: {str(error).splitlines()[0]}") from error


def _context(policy: Policy) -> int:
    """Tokens: no more than the model was made for, no more than is usual."""
    return min(int(getattr(policy.as_trained.config, "max_position_embeddings", 4096)), 4096)


def _marked_template(tokenizer: Any) -> str | None:
    """The chat template that marks what the assistant says: its own, or TRL's copy of it; None if neither does."""
    from trl.chat_template_utils import get_training_chat_template

    if MARK.search(tokenizer.chat_template):
        return str(tokenizer.chat_template)
    try:
        return get_training_chat_template(tokenizer)  # type: ignore[no-any-return, unused-ignore]
    except ValueError:
        return None


def _renamed() -> bool:
    from transformers import TrainingArguments

    return "activation_checkpointing" in TrainingArguments.__dataclass_fields__


def _bf16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported())
