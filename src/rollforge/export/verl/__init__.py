"""verl: prompts for GRPO, conversations for SFT, preference pairs; with reward function, tools and launch script."""

from __future__ import annotations

from rollforge.export.rendered import alone, asked
from rollforge.export.target import Kind, Target
from rollforge.export.trained import one_by_one, prompt, rendering
from rollforge.export.verl.config import VERSIONS, command, files, sections
from rollforge.export.verl.config_check import against, check_config, reads, renders, trains_on
from rollforge.export.verl.loader import load
from rollforge.export.verl.rows import (
    RL_COLUMNS,
    RM_COLUMNS,
    SFT_COLUMNS,
    STOPS,
    check_grpo,
    check_grpo_parquet,
    check_rm,
    check_sft,
    grpo,
    rm,
    sft,
)

_ROW = "{data_source, prompt, ability, reward_model, extra_info, agent_name}"
_LIVE = "reward.py has the environment at $GYM_URL judge them, and the run stops where none is there"
_RM = Kind(
    *("pair", rm, check_rm, "RMDataset: {prompt, chosen, rejected} as text"),
    format="parquet",
    reader="pandas",
    columns=RM_COLUMNS,
)

TARGET = Target(
    name="verl",
    configs=(".yaml", ".yml", ".sh"),
    kinds={
        "grpo": Kind(
            "prompt", grpo, check_grpo, f"main_ppo, RLHFDataset: {_ROW}", rendered=rendering(asked, prompt), unanswered=_LIVE
        ),
        "grpo-parquet": Kind(
            *("prompt", grpo, check_grpo_parquet),
            f"main_ppo, RLHFDataset by gym_rl_dataset.py: {_ROW}, nested ones as JSON text",
            rendered=rendering(asked, prompt),
            format="parquet",
            columns=RL_COLUMNS,
            unanswered=_LIVE,
        ),
        "sft": Kind(
            *("demonstration", sft, check_sft, "sft_trainer, MultiTurnSFTDataset by gym_sft_dataset.py: {messages, tools}"),
            rendered=rendering(alone, one_by_one, messages=True, told="enable_thinking"),
            format="parquet",
            reader="pandas",
            columns=SFT_COLUMNS,
            overlong=f"verl {STOPS}; raise it, or leave such rows out",
        ),
        "rm": _RM,
        "dpo": _RM,
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
