"""Rewards brought into the range that an algorithm wants: scaled, standardised or clipped.

When to, by NeMo RL's pages on reward shaping: rewards outside [-1, 1], clustered at the extremes, or of different ranges in
one data set. When not to: they are in [-1, 1] already, or for SFT, which looks at high rewards only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from typing import Any, Literal, Self

from pydantic import model_validator

from rollforge.config import Section
from rollforge.curate.report import ENVIRONMENTS
from rollforge.curate.spread import Spread
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError
from rollforge.stats.scale import different_ranges
from rollforge.stats.text import number
from rollforge.stats.thresholds import EQUAL, RANGE
from rollforge.stats.visible import capped

_LARGEST = 1e100
"""The squares of larger numbers are none that a float can hold."""


class ShapeArgs(Section):
    method: Literal["scale", "standardize", "clip"]
    """scale: lowest to highest reward onto the range. standardize: (reward - mean) / standard deviation (n - 1). clip: what
    is outside the range goes to its bound."""
    per: Literal["all", "env", "group"] | None = None
    """What lowest, highest, mean and deviation are taken of. None: env. group: the attempts at one task, as GRPO does."""
    range: tuple[float, float] | None = None
    """For scale (default 0 to 1) and clip (default -1 to 1)."""

    @classmethod
    def short(cls, value: Any) -> dict[str, Any]:
        return {"method": value}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range goes from {self.range[0]:g} to {self.range[1]:g}; the first must be lower")
        if self.range is not None and not max(map(abs, self.range)) <= _LARGEST:
            raise ValueError(f"range goes from {self.range[0]:g} to {self.range[1]:g}; its bounds are {_LARGEST:g} at most")
        if self.range is not None and self.method == "standardize":
            raise ValueError("standardize has no range; clip afterwards in a step of its own")
        if self.per is not None and self.method == "clip":
            raise ValueError("clip does the same to every row: it has no per")
        return self


def steps(args: ShapeArgs) -> list[Step]:
    return [Shape(args)]


class Shape:
    """Reads its samples twice; by group, it sorts them first."""

    facts: Mapping[str, Fact] = {}
    shapes = True

    def __init__(self, args: ShapeArgs) -> None:
        self._method = args.method
        self._per = "all" if args.method == "clip" else args.per or "env"
        low, high = args.range or ((0.0, 1.0) if args.method == "scale" else RANGE)
        self._low, self._high = low, high
        onto = "" if args.method == "standardize" else f" to {low:g}..{high:g}"
        per = "" if args.method == "clip" else f" per {self._per}" if self._per != "all" else " over all"
        self.name = f"{args.method} rewards{onto}{per}"

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        before: dict[str, Spread] = {}
        after: dict[str, Spread] = {}
        changed = level = 0  # rows; those of them whose group has equal rewards
        for sample, spread in self._with_spreads(samples, work, before):
            reward = self._shaped(sample.reward, spread)
            if reward != sample.reward:
                sample.reward = sample.changes["reward"] = reward
                changed += 1
                level += spread.high - spread.low <= EQUAL
            after.setdefault(capped(sample.env, before, ENVIRONMENTS), Spread()).add(reward)
            yield sample
        work.notes["before"] = {env: before[env].text() for env in sorted(before)}
        work.notes["after"] = {env: after[env].text() for env in sorted(after)}
        work.warnings.extend(self._advice(before, after, changed))
        if changed and self._method == "scale" and self._per == "group":
            work.warnings.extend(self._of_groups(level))

    def _with_spreads(
        self, samples: Iterable[Sample], work: Workspace, before: dict[str, Spread]
    ) -> Iterator[tuple[Sample, Spread]]:
        """Each sample with the spread of what it belongs to."""

        def seen(samples: Iterable[Sample]) -> Iterator[Sample]:
            for sample in samples:
                if not abs(sample.reward) <= _LARGEST and self._method != "clip":
                    raise UserError(
                        f"{work.line(*sample.place)}: a reward of {sample.reward:g} cannot be {_DONE[self._method]}: clip "
                        f"it first, or leave such rows out (filter: reward < {_LARGEST:g} and reward > {-_LARGEST:g})"
                    )
                env = capped(sample.env, before, ENVIRONMENTS)
                if env != sample.env and self._per == "env":
                    raise UserError(
                        f"{self.name}: there are more than {ENVIRONMENTS:,} environments ({sample.env!r} is one); take per: "
                        f"group, or per: all"
                    )
                before.setdefault(env, Spread()).add(sample.reward)
                yield sample

        if self._method == "clip":
            for sample in seen(samples):
                yield sample, _NONE
            return
        if self._per != "group":
            with_all = work.keep(seen(samples))
            whole = Spread.of(before.values())
            for sample in with_all:
                yield sample, whole if self._per == "all" else before[sample.env]
            with_all.close()
            return
        ordered = work.keep(work.sort(seen(samples), lambda sample: (sample.group, sample.place)))
        behind = iter(ordered)
        for _, group in groupby(ordered, lambda sample: sample.group):
            spread = Spread()
            for sample in group:
                spread.add(sample.reward)
            for sample in islice(behind, spread.count):
                yield sample, spread
        ordered.close()

    def _shaped(self, reward: float, spread: Spread) -> float:
        if self._method == "clip":
            return min(max(reward, self._low), self._high)
        if spread.high - spread.low <= EQUAL:
            # No range to scale, no deviation: GRPO's advantage of such a group is 0.
            return 0.0 if self._method == "standardize" else min(max(reward, self._low), self._high)
        if self._method == "standardize":
            return (reward - spread.mean) / spread.deviation
        share = (reward - spread.low) / (spread.high - spread.low)
        return self._low + share * (self._high - self._low)

    def _advice(self, before: Mapping[str, Spread], after: Mapping[str, Spread], changed: int) -> Iterator[str]:
        if not before:
            return
        whole = Spread.of(before.values())
        outside = whole.low < RANGE[0] or whole.high > RANGE[1]
        different = different_ranges({env: (spread.low, spread.high) for env, spread in before.items()})
        flat = sorted(env for env, spread in before.items() if spread.high - spread.low <= EQUAL)
        equal = whole.high - whole.low <= EQUAL
        extreme = 0.0 if equal else (whole.lows + whole.highs) / whole.count
        if not (outside or different or equal or extreme > 0.5):
            yield "rewards were in [-1, 1], spread out and of one range: they needed no shaping"
        if self._method == "scale":
            if different and self._per == "all":
                yield f"the environments' rewards have different ranges ({different}): per: env scales each by its own"
            if flat and (self._per == "env" or equal):
                yield f"{', '.join(flat[:5])}: all rewards are equal; they were only clipped to the range"
            if extreme > 0.5 and not outside and not different:
                share = f"{extreme:.0%} of the rewards are the lowest or the highest, and scaling leaves them there"
                yield f"{share}: standardize per group, or collect tasks that are solved now and then"
            if changed and not outside:
                moved = {
                    env: abs(now.low - before[env].low) + abs(now.high - before[env].high) for env, now in after.items()
                }
                env = max(moved, key=lambda env: moved[env])
                was, now = (f"{number(each[env].low)} to {number(each[env].high)}" for each in (before, after))
                yield f"thresholds on rewards (SFT, preference pairs) read other numbers now: {env}'s {was} became {now}"
        if self._method == "clip" and changed > 0.2 * whole.count:
            yield f"clipping changed {changed / whole.count:.0%} of the rewards; scale keeps their order"
        if self._method == "standardize":
            yield "thresholds on rewards (SFT, preference pairs) do not fit them any more; standardize for GRPO and PPO only"
        elif any(spread.low < RANGE[0] or spread.high > RANGE[1] for spread in after.values()):
            yield "rewards reach outside [-1, 1] still"

    def _of_groups(self, level: int) -> Iterator[str]:
        yield (
            f"the best attempt at a task has {self._high:g} now, however good it was: thresholds on rewards (SFT, solve "
            f"rates) compare attempts at one task only; per: env leaves tasks comparable"
        )
        if level:
            yield (
                f"{level:,} rows are of tasks whose attempts have equal rewards outside the range: they were only clipped "
                f"to it"
            )


_DONE = {"scale": "scaled", "standardize": "standardized"}


_NONE = Spread()
