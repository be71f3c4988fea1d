"""The Python files that stand beside the data: a short training script, and GRPO's reward function."""

from __future__ import annotations

from pathlib import Path

from rollforge.export.pieces import assemble
from rollforge.export.target import Made


def train(made: Made, trainer: str) -> str:
    files = {data.split: _names(made, data.split) for data in made.data}
    grpo = trainer == "GRPO"
    return (
        _TRAIN.replace("@TRAINER", trainer)
        .replace("@KIND", made.kind)
        .replace("@FILES", repr(files).replace("'", '"'))
        .replace("@IMPORT", "import rewards\n\n" if grpo else "")
        .replace("@SCRIPT", "GRPOScriptArguments" if grpo else "ScriptArguments")
        .replace("@FROM", "from trl.scripts.grpo import GRPOScriptArguments\n" if grpo else "")
        .replace("@MORE", "" if grpo else ", ScriptArguments")
        .replace("@REWARD", "    reward_funcs=[rewards.correct],  # add your own here\n" if grpo else "")
    )


def rewards() -> str:
    return assemble(_REWARDS, "matcher", Path(__file__).parent / "rewards.py.txt")


def _names(made: Made, split: str) -> list[str]:
    return [data.path.name if data.path.parent == made.folder else str(data.path) for data in made.of(split)]


_TRAIN = '''"""Trains with TRL's @TRAINERTrainer from the files beside this one; the settings stand in @KIND.yaml.

    python train.py                      one GPU; several: accelerate launch --num_processes 8 train.py
    python train.py --max_steps 10       any setting of @KIND.yaml can be given
    python train.py --model DIR --cpu    another model, without a GPU
"""

import argparse
from pathlib import Path

@IMPORTfrom datasets import load_dataset
from trl import DatasetMixtureConfig, ModelConfig, @TRAINERConfig, @TRAINERTrainer@MORE, TrlParser, get_peft_config
@FROM
HERE = Path(__file__).resolve().parent
FILES = @FILES

options = argparse.ArgumentParser(add_help=False)
options.add_argument("--model")
options.add_argument("--cpu", action="store_true")
given, others = options.parse_known_args()
arguments = ["--config", str(HERE / "@KIND.yaml")]
if given.model:
    arguments += ["--model_name_or_path", given.model]
if given.cpu:
    arguments += ["--use_cpu", "true", "--bf16", "false"]

parser = TrlParser((@SCRIPT, @TRAINERConfig, ModelConfig, DatasetMixtureConfig))
_, settings, model, _ = parser.parse_args_and_config(arguments + others)
settings.model_init_kwargs = {"dtype": model.dtype, **(settings.model_init_kwargs or {})}

paths = {split: [str(HERE / name) for name in names] for split, names in FILES.items()}
# One by one: read together, both would have the types of the first.
data = {split: load_dataset("json", data_files=names, split="train") for split, names in paths.items()}
trainer = @TRAINERTrainer(
    model=model.model_name_or_path,
@REWARD    args=settings,
    train_dataset=data["train"],
    eval_dataset=data["validation"] if settings.eval_strategy != "no" else None,
    peft_config=get_peft_config(model),
)
trainer.train(resume_from_checkpoint=settings.resume_from_checkpoint)
trainer.save_model(settings.output_dir)
'''

_REWARDS = """What a completion is worth, for TRL's GRPO. Edit it: your task's own rules make the better reward.

TRL calls `correct` with keywords: prompts, completions and every other column of the data, one entry for each
completion. None means "not judged" and is left out; it is not 0."""
