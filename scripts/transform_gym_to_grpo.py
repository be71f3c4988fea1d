"""`python transform_gym_to_grpo.py --input rollouts.jsonl --output train.jsonl`, as NeMo Gym's pages have it."""

from rollforge.cli.transform import grpo

if __name__ == "__main__":
    grpo()
