"""From environments to training data: verified rollouts for post-training language models."""

__version__ = "0.1.0"
