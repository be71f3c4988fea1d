"""What each training algorithm wants of its data, as filters. Thresholds: NeMo Gym's pages on filtering, on quality metrics
and on preparing data for training, and the NeMo RL integration pages.

A preset is filters (`expressions` lists them) and, last, a look at what they left: warnings, no drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from rollforge.config import Section
from rollforge.curate.filter import Filter
from rollforge.curate.spread import Spread
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError, unknown
from rollforge.stats.scale import standing, way
from rollforge.stats.thresholds import (
    EQUAL,
    FEW,
    GAP,
    HIGH,
    HIGH_MEAN,
    LOW,
    LOW_MEAN,
    LOW_STD,
    SFT_RELAXED,
    SHARE,
    SOLVED,
    SUCCESS,
)

Name = Literal["sft", "dpo", "grpo", "ppo"]
NAMES: tuple[Name, ...] = get_args(Name)

_DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {"min_reward": SFT_RELAXED, "drop_truncated": True},
    "dpo": {"min_gap": GAP},
}


class PresetArgs(Section):
    name: Name
    min_reward: float | None = Field(None, allow_inf_nan=False)
    """Rows below are dropped. sft: 0.8 (strict: 0.95); others: none, since they learn from failures too. The pages keep
    RL data from 0.3, and mixes of several tasks from 0.5."""
    min_gap: float | None = Field(None, ge=0, allow_inf_nan=False)
    """dpo: the least distance between the best and the worst attempt at a task (0.2)."""
    low: float | None = Field(None, ge=0, le=1)
    """grpo: only tasks with a solve rate above, ..."""
    high: float | None = Field(None, ge=0, le=1)
    """... and below. Without them, tasks with several attempts of equal rewards are dropped."""
    success: float = Field(SUCCESS, allow_inf_nan=False)
    """The reward from which an attempt counts as solved."""
    min_turns: int | None = Field(None, ge=0)
    max_turns: int | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=0)
    """Output tokens."""
    require_tool_calls: bool = False
    require_reasoning: bool = False
    drop_empty: bool = True
    """Answers with neither text nor calls."""
    drop_errors: bool = False
    """Rows in which a tool call failed. Off: an answer that recovers from an error is worth learning."""
    drop_failed: bool = True
    """Rows whose model call broke off: with an `error`, or a status of failed or cancelled."""
    drop_truncated: bool = False
    """On for sft: a cut answer teaches to stop anywhere."""

    @classmethod
    def short(cls, value: Any) -> PresetArgs:
        if not isinstance(value, str):
            raise UserError(f"preset: {value!r} is no name; known: {', '.join(NAMES)}")
        if value not in NAMES:
            raise unknown("preset", value, NAMES)
        return cls(name=value)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """What differs between the presets; written out, so that a saved recipe says all."""
        return {**_DEFAULTS.get(str(values.get("name")), {}), **values} if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _fitting(self) -> PresetArgs:
        if self.min_gap is not None and self.name != "dpo":
            raise ValueError(f"min_gap is for dpo, not for {self.name}")
        if (self.low, self.high) != (None, None) and self.name != "grpo":
            raise ValueError(f"low and high are for grpo, not for {self.name}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) is not below high ({self.high:g}): no task could be kept")
        if self.min_turns is not None and self.max_turns is not None and self.min_turns > self.max_turns:
            raise ValueError(f"min_turns ({self.min_turns}) is above max_turns ({self.max_turns}): no row could be kept")
        return self


def steps(args: PresetArgs) -> list[Step]:
    return [*(Filter(text, args.success) for text in expressions(args)), Look(args.name, args.success)]


def expressions(args: PresetArgs) -> list[str]:
    """The filters, in order. grpo looks at tasks before it drops single attempts: an empty answer is an attempt that failed,
    and counts for the solve rate. dpo looks afterwards: both sides of a pair have to be usable."""
    rows = [text for wanted, text in _rows(args) if wanted]
    groups = _groups(args)
    return [*groups, *rows] if args.name == "grpo" else [*rows, *groups]


def _rows(args: PresetArgs) -> Iterator[tuple[bool, str]]:
    yield args.min_reward is not None, f"reward >= {args.min_reward}"
    yield args.drop_empty, "not empty"
    yield args.drop_failed, "not failed"
    yield args.drop_truncated, "not truncated"
    yield args.drop_errors, "tool_errors == 0"
    yield args.min_turns is not None, f"turns >= {args.min_turns}"
    yield args.max_turns is not None, f"turns <= {args.max_turns}"
    yield args.max_tokens is not None, f"tokens <= {args.max_tokens}"
    yield args.require_tool_calls, "tool_calls > 0"
    yield args.require_reasoning, "reasoning"


def _groups(args: PresetArgs) -> list[str]:
    if args.name == "dpo":
        # Without a gap there is nothing to prefer: ties are no pairs.
        return [f"group.size >= 2 and group.gap {'>=' if args.min_gap else '>'} {args.min_gap or 0}"]
    if args.name != "grpo":
        return []
    if args.low is None and args.high is None:
        # A single attempt does not tell whether there is signal; the trainer makes new ones.
        return ["group.gap > 0 or group.size == 1"]
    return [
        *([f"group.solve_rate > {args.low}"] if args.low is not None else []),
        *([f"group.solve_rate < {args.high}"] if args.high is not None else []),
    ]


class Look:
    """Keeps all; warns where the numbers are not what the algorithm wants."""

    facts: Mapping[str, Fact]
    name: str

    def __init__(self, algorithm: Name, success: float = SUCCESS) -> None:
        self.name = f"check for {algorithm}"
        self.facts = {}
        self._algorithm = algorithm
        self._success = success

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        seen = Seen(self._success)
        for sample in samples:
            seen.add(sample)
            yield sample
        work.notes |= seen.row()
        if seen.rows:
            work.warnings += _WARNINGS[self._algorithm](seen)


class Seen:
    """A few sums."""

    def __init__(self, success: float) -> None:
        self.rewards = Spread()
        self.solved = self.high = self.low = 0
        self._success = success
        self._prompts: set[bytes] = set()

    def add(self, sample: Sample) -> None:
        reward = sample.reward
        self.rewards.add(reward)
        self.solved += reward >= self._success - EQUAL
        self.high += reward > HIGH
        self.low += reward < LOW
        if len(self._prompts) < FEW:
            self._prompts.add(sample.prompt)

    @property
    def rows(self) -> int:
        return self.rewards.count

    @property
    def prompts(self) -> int:
        """Distinct prompts, counted up to `FEW`."""
        return len(self._prompts)

    def row(self) -> dict[str, Any]:
        # Rewards of 1e300 are legal; their sums and squares are no numbers of JSON.
        mean, std = (value if isfinite(value) else None for value in (self.rewards.mean, self.rewards.deviation))
        return {"rows": self.rows, "mean": mean, "std": std, "solved": self.solved / max(self.rows, 1)}


def _few(seen: Seen, what: str) -> Iterator[str]:
    if seen.prompts < FEW:
        yield f"{seen.prompts} distinct prompts are left, few for {what} (at least {FEW}; 100 to 500 for each task of a mix)"


def _sft(seen: Seen) -> Iterator[str]:
    if seen.rows < FEW:
        yield f"{seen.rows} demonstrations are left, few for SFT (at least {FEW}): collect more, or lower min_reward"


def _dpo(seen: Seen) -> Iterator[str]:
    yield from _few(seen, "DPO")
    for count, which in ((seen.high, f"above {HIGH:g}"), (seen.low, f"below {LOW:g}")):
        if count < SHARE * seen.rows:
            yield f"{count / seen.rows:.0%} of the rewards are {which}; DPO wants at least {SHARE:.0%}"


def _grpo(seen: Seen) -> Iterator[str]:
    yield from _few(seen, "GRPO, which wants diverse ones")


def _ppo(seen: Seen) -> Iterator[str]:
    mean, std, low = seen.rewards.mean, seen.rewards.deviation, seen.rewards.low
    if not LOW_MEAN <= standing(mean, low) <= HIGH_MEAN:
        yield f"the mean reward is {mean:.3g}{way(mean, low)}; PPO wants {LOW_MEAN:g} to {HIGH_MEAN:g}"
    if not SOLVED[0] <= seen.solved / seen.rows <= SOLVED[1]:
        yield f"{seen.solved / seen.rows:.0%} are successes; PPO wants {SOLVED[0]:.0%} to {SOLVED[1]:.0%}"
    if std <= LOW_STD:
        yield f"the standard deviation of the rewards is {std:.3g}; PPO wants more than {LOW_STD:g}"


_WARNINGS: dict[Name, Callable[[Seen], Iterator[str]]] = {"sft": _sft, "dpo": _dpo, "grpo": _grpo, "ppo": _ppo}
