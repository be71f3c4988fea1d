"""GRPO with TRL in an environment with tools: the trainer samples and calls the tools, each completion in a session of its
own; the reward function judges that session together with the final message.

    python environment.py                                         the embedded policy, on a CPU
    python environment.py --env workplace --model Qwen/Qwen2.5-7B-Instruct --gpu
"""

import argparse

from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rollforge.models.tiny import SHIPPED
from rollforge.train.adapters.trl import environment_factory, reward_function, task_rows

options = argparse.ArgumentParser()
options.add_argument("--env", default="arithmetic")
options.add_argument("--model", default=str(SHIPPED))
options.add_argument("--steps", type=int, default=10)
options.add_argument("--gpu", action="store_true")
given = options.parse_args()

trainer = GRPOTrainer(
    model=given.model,
    processing_class=AutoTokenizer.from_pretrained(given.model),
    args=GRPOConfig(
        output_dir="results/environment",
        max_steps=given.steps,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=512,  # of all turns together, tool results included
        max_tool_calling_iterations=8,
        logging_steps=1,
        use_cpu=not given.gpu,
        bf16=given.gpu,
        report_to="none",
        save_strategy="no",
    ),
    train_dataset=Dataset.from_list(task_rows(given.env, 200)),
    environment_factory=environment_factory(given.env),
    reward_funcs=reward_function(given.env),
)
trainer.train()
trainer.save_model()
