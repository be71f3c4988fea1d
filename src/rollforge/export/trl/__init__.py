"""TRL: prompts for GRPO, conversations for SFT, pairs for DPO (and reward models), judged completions for KTO."""

from __future__ import annotations

from rollforge.export.rendered import asked, at_common, whole
from rollforge.export.target import Kind, Target
from rollforge.export.trained import after_common, everything, prompt, rendering
from rollforge.export.trl import check, rows
from rollforge.export.trl.config_check import against, check_config, reads, renders, sections, trains_on
from rollforge.export.trl.load import load
from rollforge.export.trl.settings import command, files

TARGET = Target(
    name="trl",
    kinds={
        "grpo": Kind(
            "prompt",
            rows.grpo,
            check.grpo,
            "GRPOTrainer, RLOOTrainer: prompt (messages); ground_truth, env, task, fields (JSON text) for reward functions",
            rendered=rendering(asked, prompt),
            alike=check.ONE_SHAPE,
            unanswered="rewards.py gives them no reward (None): write there what they are worth, or leave them out",
        ),
        "sft": Kind(
            "demonstration",
            rows.sft,
            check.sft,
            "SFTTrainer, loss on the whole conversation: messages, tools (JSON text)",
            rendered=rendering(whole, everything, messages=True, told="chat_template_kwargs"),
            alike=check.ONE_SHAPE,
            overlong=check.CUT,
        ),
        "sft-prompt-completion": Kind(
            "demonstration",
            rows.prompt_completion,
            check.prompt_completion,
            "SFTTrainer, loss on the completion: prompt, completion (messages), tools (JSON text)",
            rendered=rendering(at_common, after_common, told="chat_template_kwargs"),
            alike=check.ONE_SHAPE,
            overlong=check.CUT,
        ),
        "dpo": Kind(
            "pair",
            rows.dpo,
            check.dpo,
            "DPOTrainer, RewardTrainer: prompt, chosen, rejected (messages), tools, the rewards and their margin",
            rendered=rendering(at_common, after_common, told="chat_template_kwargs"),
            alike=check.ONE_SHAPE,
            overlong=check.CUT,
        ),
        "dpo-implicit": Kind(
            "pair",
            rows.dpo_implicit,
            check.dpo_implicit,
            "DPOTrainer, RewardTrainer: chosen, rejected (whole conversations), tools, the rewards and their margin",
            rendered=rendering(at_common, after_common, told="chat_template_kwargs"),
            alike=check.ONE_SHAPE,
            overlong=check.CUT,
        ),
        "kto": Kind(
            "judged",
            rows.kto,
            check.kto,
            "KTOTrainer: prompt, completion (messages), label (true: desirable), tools (JSON text)",
            rendered=rendering(at_common, after_common, told="chat_template_kwargs"),
            alike=check.ONE_SHAPE,
            overlong=check.CUT,
        ),
    },
    versions=("1.16",),
    at_once=True,
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
