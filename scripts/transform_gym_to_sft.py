"""`python transform_gym_to_sft.py --input rollouts.jsonl --output train.jsonl`, as NeMo Gym's pages have it."""

from rollforge.cli.transform import sft

if __name__ == "__main__":
    sft()
