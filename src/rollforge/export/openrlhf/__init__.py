"""OpenRLHF: prompts with labels for GRPO, conversations for SFT, preference pairs; with reward server and agent function."""

from __future__ import annotations

from rollforge.export.openrlhf.config import VERSIONS, command, files, sections
from rollforge.export.openrlhf.config_check import against, check_config, reads, renders, trains_on
from rollforge.export.openrlhf.loader import load
from rollforge.export.openrlhf.rows import (
    CUT,
    check_dpo,
    check_grpo,
    check_sft,
    check_sft_simple,
    dpo,
    grpo,
    sft,
    sft_simple,
)
from rollforge.export.rendered import asked, by_length
from rollforge.export.target import Kind, Target
from rollforge.export.trained import by_lengths, prompt, rendering

TARGET = Target(
    name="openrlhf",
    configs=(".yaml", ".yml", ".sh"),
    kinds={
        "grpo": Kind(
            *("prompt", grpo, check_grpo, "train_ppo_ray, PromptDataset: {prompt: messages, label, datasource}"),
            rendered=rendering(asked, prompt),
            unanswered="reward_func.py has the environment at $GYM_URL judge them, and the run stops where none is there",
        ),
        "sft": Kind(
            *("demonstration", sft, check_sft, "train_sft, SFTDataset: {messages}, the tools' schemas in the system turn"),
            rendered=rendering(by_length, by_lengths, messages=True),
            overlong=CUT,
        ),
        "sft-simple": Kind(
            *("demonstration", sft_simple, check_sft_simple, "train_sft, SFTDataset: {input, output} as text"),
            rendered=rendering(by_length, by_lengths),
            overlong=CUT,
        ),
        "dpo": Kind(
            *("pair", dpo, check_dpo, "train_dpo, RewardDataset: {prompt, chosen, rejected, margin}"),
            rendered=rendering(by_length, by_lengths),
            overlong=CUT,
        ),
    },
    versions=VERSIONS,
    files=files,
    command=command,
    check_config=check_config,
    load=load,
    reads=reads,
    against=against,
    trains_on=trains_on,
    renders=renders,
    sections=sections,
)
