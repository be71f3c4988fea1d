"""What scale rewards are on: where a mean lies on it, and whether several environments share one."""

from __future__ import annotations

from collections.abc import Mapping

from rollforge.stats.text import number
from rollforge.stats.thresholds import EQUAL


def standing(mean: float, low: float) -> float:
    """The mean of rewards up to 1 as the thresholds for it want it, which are for rewards from 0: of those that begin
    lower, how far it is from the lowest to 1."""
    return mean if low >= -EQUAL else (mean - low) / (1 - low)


def way(mean: float, low: float) -> str:
    """The same as an addition to the number of the mean; "" where that is the standing itself."""
    return "" if low >= -EQUAL else f", {standing(mean, low):.0%} of the way from {number(low)} to 1"


def different_ranges(ranges: Mapping[str, tuple[float, float]]) -> str:
    """`a 0 to 1, b 0 to 10`, two of the environments that reward on different scales; "" if none do.

    Told by the lowest and the highest rewards seen, of which 0 always could have been one: those of different scales are
    at least half of the largest apart. Rewards that are all equal say nothing of the other end.
    """
    lows = [min(low, 0.0) for low, high in ranges.values() if high - low > EQUAL or low < -EQUAL]
    highs = [max(high, 0.0) for low, high in ranges.values() if high - low > EQUAL or high > EQUAL]
    size = max(map(abs, (*lows, *highs)), default=0.0)
    if not any(bounds and max(bounds) - min(bounds) >= max(size / 2, EQUAL) for bounds in (lows, highs)):
        return ""
    ordered = sorted(ranges, key=lambda env: (ranges[env][0] / 2 + ranges[env][1] / 2, env))
    return ", ".join(f"{env} {number(ranges[env][0])} to {number(ranges[env][1])}" for env in (ordered[0], ordered[-1]))
