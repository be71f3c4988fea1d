"""`python transform_gym_to_dpo.py --input rollouts.jsonl --output train.jsonl`, as NeMo Gym's pages have it."""

from rollforge.cli.transform import dpo

if __name__ == "__main__":
    dpo()
