"""Every threshold that a number is held against. Where none is named as a source, it is this project's choice."""

from __future__ import annotations

SUCCESS = 1.0
"""The least reward of a success, unless the caller says otherwise."""
EQUAL = 1e-9
"""Rewards nearer than this are equal; a success may miss its threshold by as much."""

# NeMo Gym's pages on data set balancing: difficulty bands; no type above 40-50 %.
EASY, MEDIUM = 0.8, 0.4
"""Solve rates from which a task is easy, is medium."""
LARGEST_ENV = 0.5
"""The largest share of one environment among three or more."""

# NeMo Gym's pages on quality metrics and on preparing data for training.
LOW_MEAN, HIGH_MEAN = 0.3, 0.9
"""Red flag below; PPO wants rewards between."""
SOLVED = (0.3, 0.7)
"""PPO wants a share of successes between these."""
LOW_STD = 0.15
"""PPO and GRPO want more spread than this."""
HIGH, LOW, SHARE = 0.7, 0.5, 0.2
"""DPO wants at least this share of rewards above the first and of rewards below the second."""
GAP = 0.2
"""The least difference of rewards in a preference pair."""
SFT, SFT_RELAXED = 0.95, 0.8
"""The least reward of a demonstration, strict and relaxed."""
FEW = 100
"""Fewer demonstrations or pairs than this are few."""

# NeMo RL integration pages: scale rewards outside this range.
RANGE = (-1.0, 1.0)

# NeMo Gym's page on validating a verifier looks at 20 to 50 rollouts.
ENOUGH = 20
"""With fewer judged rollouts, nothing is said about their distribution."""
ENOUGH_GROUPS = 5
"""With fewer groups, nothing is said about their signal."""

COVERAGE, POOR_COVERAGE = 0.95, 0.8
NO_SIGNAL, HARDLY_SIGNAL = 0.5, 0.8
"""Shares of groups without signal: much of the compute is wasted, nearly all is."""
TRUNCATED = 0.1
DUPLICATE = 0.3
TOOL_ERRORS = 0.3
