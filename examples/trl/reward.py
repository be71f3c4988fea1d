"""GRPO with TRL: the trainer samples, an environment judges. For environments without tools.

python reward.py                                              the embedded policy, on a CPU
python reward.py --env math_answer --model Qwen/Qwen2.5-0.5B-Instruct --gpu
"""

import argparse

from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rollforge.models.tiny import SHIPPED
from rollforge.train.adapters.trl import reward_function, task_rows

options = argparse.ArgumentParser()
options.add_argument("--env", default="string_match")
options.add_argument("--model", default=str(SHIPPED))
options.add_argument("--steps", type=int, default=10)
options.add_argument("--gpu", action="store_true")
given = options.parse_args()

trainer = GRPOTrainer(
    model=given.model,
    processing_class=AutoTokenizer.from_pretrained(given.model),
    args=GRPOConfig(
        output_dir="results/reward",
        max_steps=given.steps,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=256,
        logging_steps=1,
        use_cpu=not given.gpu,
        bf16=given.gpu,
        report_to="none",
        save_strategy="no",
    ),
    train_dataset=Dataset.from_list(task_rows(given.env, 200)),
    reward_funcs=reward_function(given.env),
)
trainer.train()
trainer.save_model()
