"""NeMo RL: rows for its data sets, configuration in the shape of the named version, launch script, checks of anybody's.

`rows` makes rows, `check` and `check_config` find what its loaders would fail on or, worse, not say; `config` writes.
"""

from __future__ import annotations

from rollforge.export.nemo_rl import check, rows
from rollforge.export.nemo_rl.check_config import check_config, reads, renders, trains_on
from rollforge.export.nemo_rl.config import VERSIONS, apart, command, files, sections
from rollforge.export.nemo_rl.loader import load
from rollforge.export.rendered import asked, grown
from rollforge.export.target import Kind, Target
from rollforge.export.trained import by_message, prompt, rendering

TARGET = Target(
    name="nemo-rl",
    configs=(".yaml", ".yml", ".sh"),
    module="nemo_rl",
    kinds={
        "grpo": Kind(
            "prompt",
            rows.grpo,
            check.grpo,
            "ResponseDataset for GRPO: input, output (the expected answer), ground_truth (the same)",
            rendered=rendering(asked, prompt, texts=True),
            per_env=apart,
            alike=check.ONE_TASK,
            needs_answer=True,
        ),
        "nemo-gym": Kind(
            "prompt",
            rows.nemo_gym,
            check.nemo_gym,
            "NemoGymDataset for live training: responses_create_params, agent_ref, the verifier's fields",
            per_env=apart,
            as_stored=True,
            reader="lines",
        ),
        "sft": Kind(
            "demonstration",
            rows.sft,
            check.sft,
            "openai_format: messages, tools",
            rendered=rendering(grown, by_message, messages=True),
            reader="lines",
            overlong=check.MASKED,
        ),
        "sft-simple": Kind(
            "demonstration",
            rows.sft_simple,
            check.sft_simple,
            "ResponseDataset for SFT: input, output; one turn of text",
            rendered=rendering(grown, by_message, texts=True),
            alike=check.ONE_TASK,
            overlong=check.MASKED,
        ),
        "dpo": Kind(
            "pair",
            rows.dpo,
            check.dpo,
            "BinaryPreferenceDataset: prompt (messages), chosen, rejected, reward_gap; text only",
            rendered=rendering(grown, by_message, texts=True),
            overlong=check.MASKED,
        ),
        "dpo-messages": Kind(
            "pair",
            rows.dpo_messages,
            check.dpo_messages,
            "PreferenceDataset: context, completions with rank; tool turns as text",
            rendered=rendering(grown, by_message),
            overlong=check.MASKED,
        ),
    },
    versions=VERSIONS,
    files=files,
    command=command,
    check_config=check_config,
    load=load,
    reads=reads,
    trains_on=trains_on,
    renders=renders,
    sections=sections,
)
