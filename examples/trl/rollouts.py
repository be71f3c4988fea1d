"""GRPO with TRL's own trainer and rollforge's rollouts: all rollouts of a step are played at the same time, by the agent
that collects, with the tokens and log probabilities of the sampler. `rollforge train grpo` does the same, with
evaluation, checkpoints, resuming and a report.

    python rollouts.py                                            the embedded policy, on a CPU
    python rollouts.py --env blackjack
"""

import argparse
import asyncio
from itertools import islice

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rollforge.train.config import TrainConfig
from rollforge.train.live import LiveRollouts, reward
from rollforge.train.play import player
from rollforge.train.policy import load_policy, sampler

options = argparse.ArgumentParser()
options.add_argument("--env", default="arithmetic")
options.add_argument("--model", default="tiny")
options.add_argument("--steps", type=int, default=10)
given = options.parse_args()

policy = load_policy(TrainConfig(method="grpo", env=given.env, model=given.model))
playing = player(given.env, max_turns=8)
tasks = list(islice(playing.env.tasks(), 200))
with asyncio.Runner() as loop:
    rollouts = LiveRollouts(playing, tasks, sampler(policy), loop)
    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        args=GRPOConfig(
            output_dir="results/rollouts",
            max_steps=given.steps,
            per_device_train_batch_size=16,
            num_generations=8,
            max_completion_length=1024,
            temperature=1.0,
            logging_steps=1,
            use_cpu=policy.device == "cpu",
            bf16=policy.device == "cuda",
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(rollouts.prompts()),
        rollout_func=rollouts,
        reward_funcs=reward,
    )
    trainer.train()
    loop.run(playing.aclose())
policy.save(f"{trainer.args.output_dir}/model")
print(rollouts.counts.row())
