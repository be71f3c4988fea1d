#!/usr/bin/env bash
# GRPO with verl 0.9; the environment plays and judges every rollout. Data first:
#   rollforge collect workplace --model scripted:perfect --out runs/a
#   rollforge export runs/a --to verl:grpo --out data
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${DATA:-data/verl-grpo}
python3 -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  data.train_files="$data/train.jsonl" \
  data.val_files="$data/validation.jsonl" \
  data.train_batch_size=64 \
  data.max_prompt_length=4096 \
  data.max_response_length=4096 \
  data.return_raw_chat=True \
  actor_rollout_ref.model.path="${MODEL:-Qwen/Qwen2.5-1.5B-Instruct}" \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.use_kl_loss=True \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.calculate_log_probs=True \
  actor_rollout_ref.rollout.agent.agent_loop_config_path="$here/agent_loops.yaml" \
  trainer.n_gpus_per_node="${GPUS:-1}" \
  trainer.nnodes=1 \
  trainer.logger=[console] \
  trainer.total_epochs=1 "$@"
