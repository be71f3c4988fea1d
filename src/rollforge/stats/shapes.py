"""The records that statistics are: `Stats` of one set of rollouts, and its parts. Definitions and sources of every number:
docs/reference/statistics.md. Counts and shares are of the judged rollouts unless their note says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from rollforge.stats.estimate import Bin, Mean, Quantiles
from rollforge.stats.thresholds import EQUAL


@dataclass(frozen=True, slots=True)
class TaskRow:
    env: str
    task: str
    index: int | None
    prompt: str
    rollouts: int
    solved: int
    solve_rate: float
    mean: float
    std: float | None
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class AtK:
    k: int
    tasks: int
    """How many tasks have at least k judged rollouts: the estimates are means over these."""
    pass_at: float
    pass_all: float
    best: float
    avg: float
    majority: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    voting: int
    silent: int
    """Rollouts without an answer."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How many tasks by solve rate: easy >= 0.8 > medium >= 0.4 > hard > 0 = unsolved."""

    easy: int
    medium: int
    hard: int
    unsolved: int
    always: int
    """Tasks solved by every rollout; they are among the easy ones."""
    rates: list[int]
    """Tasks per tenth of the solve rate, from 0."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """Tasks with at least two judged rollouts."""

    count: int
    no_signal: int
    """All rewards of the group are equal: no advantage, nothing to learn for GRPO."""
    no_signal_high: int
    """Of these, the ones that are all successes."""
    no_signal_share: float | None
    pairs: int
    """Groups with a best and a worst reward at least 0.2 apart: each gives a preference pair."""
    std_within: float | None
    """Pooled standard deviation of rewards around their group's mean."""
    mixed_prompts: int
    """Groups whose rollouts did not all start from the same prompt."""


@dataclass(frozen=True, slots=True)
class Reward:
    mean: Mean
    mean_of_tasks: float | None
    """The mean of the tasks' means: every task counts the same, whatever its number of rollouts."""
    std: float | None
    min: float | None
    p25: float | None
    p50: float | None
    p75: float | None
    max: float | None
    histogram: list[Bin]
    solved: Mean
    """The share of rollouts whose reward reaches the success threshold."""
    high: float | None
    """Share above 0.7."""
    low: float | None
    """Share below 0.5."""
    sft: int
    """Rollouts with at least 0.95."""
    sft_relaxed: int
    """Rollouts with at least 0.8."""
    outside: int
    """Rollouts outside [-1, 1]."""

    @property
    def beyond(self) -> bool:
        """Whether thresholds for rewards up to 1 do not fit these."""
        return (self.max or 0.0) > 1 + EQUAL


@dataclass(frozen=True, slots=True)
class Metric:
    n: int
    mean: float
    std: float | None
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    calls: int
    errors: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class Texts:
    """Counts of judged rollouts."""

    no_reply: int
    reasoning: int
    truncated: int
    truncated_by: dict[str, int]
    same_reply: int
    """Reply and tool calls equal those of an earlier rollout of the task."""
    same_conversation: int
    """Everything the model wrote, reasoning included, does."""
    token_ids: int
    contiguous: int
    """Of those with token ids, how many have every prompt starting with all tokens before it."""


@dataclass(frozen=True, slots=True)
class Stats:
    """One environment, or all."""

    name: str
    outcomes: dict[str, int]
    unrewarded: int
    """Rows that have no usable reward, and no outcome that says why. Of several environments, it is not known whose."""
    judged: int
    tasks: int
    coverage: float | None
    """Judged rollouts over planned ones, or, where the plan is not known, over all that ended."""
    repeats: Quantiles | None
    """Judged rollouts per task."""
    reward: Reward
    at_k: list[AtK]
    answers: Answers
    difficulty: Difficulty
    groups: Grouped
    metrics: dict[str, Metric]
    task_fields: list[str]
    """Numbers left out of `metrics`: constant in every group though rewards vary there, so the task's, not the verdict's."""
    tokens: dict[str, Quantiles]
    turns: Quantiles | None
    calls: Quantiles | None
    """Tool calls per rollout."""
    call_errors: int
    tools: list[Tool]
    seconds: dict[str, Quantiles]
    attempts: Quantiles | None
    texts: Texts
