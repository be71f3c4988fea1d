"""Estimates from numbers: a mean with its interval, quantiles, histogram bins. Knows nothing of rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = NDArray[np.int64]

LEVEL = 0.95
"""Of every interval."""
TENTHS: Numbers = np.arange(11, dtype=np.float64) / 10
"""Divided, not stepped: 3 / 10 is the number 0.3."""


@dataclass(frozen=True, slots=True)
class Mean:
    value: float | None
    low: float | None
    """With `high`: the 95 % interval; None where there is none, and `note` says why."""
    high: float | None
    stderr: float | None
    clusters: int
    note: str


def clustered_mean(values: Numbers, groups: Groups, *, cut: bool = True) -> Mean:
    """The mean, and an interval that holds when values of one group depend on each other.

    Standard error: cluster-robust, sqrt(G / (G - 1) * sum over groups of (sum of residuals)^2) / N; with one value per
    group that is s / sqrt(N). Interval: Student's t with G - 1 degrees of freedom, cut at 0 and 1 when all values lie
    there (not with `cut=False`: differences may fall below). Source: Liang and Zeger 1986; Miller 2024 (arXiv 2411.00640),
    section 2.2, for evaluations.
    """
    n, count = len(values), len(np.unique(groups))
    if not n:
        return Mean(None, None, None, None, 0, "no rewards")
    mean = float(values.mean())
    if count < 2:
        return Mean(mean, None, None, None, count, "no interval: all rollouts are of one task")
    if np.ptp(values) == 0:
        return Mean(mean, None, None, 0.0, count, "no interval: all values are equal")
    residuals = np.bincount(groups, weights=values - mean)
    stderr = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / n
    if not math.isfinite(stderr):
        return Mean(mean, None, None, None, count, "no interval: no number holds the squares of these")
    if stderr <= 1e-12 * float(np.abs(values).max()):
        return Mean(mean, None, None, 0.0, count, "no interval: all tasks have the same mean")
    half = t_quantile(0.5 + LEVEL / 2, count - 1) * stderr
    low, high = mean - half, mean + half
    if cut and values.min() >= 0 and values.max() <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return Mean(mean, low, high, stderr, count, f"95% interval over {count} tasks (cluster-robust)")


@dataclass(frozen=True, slots=True)
class Quantiles:
    n: int
    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float
    total: float


def quantiles(values: Numbers) -> Quantiles | None:
    """Of the numbers that are there (NaN is none), linear between ranks; None if there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, p50, p90, p99, high = (float(q) for q in np.percentile(known, (0, 50, 90, 99, 100)))
    return Quantiles(len(known), float(known.mean()), low, p50, p90, p99, high, float(known.sum()))


def std(values: Numbers) -> float | None:
    """The sample standard deviation (n - 1), None below two values."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class Bin:
    low: float
    high: float
    """Equal to `low`: the bin of one value. Else the bin holds low <= x < high, and the last one its high end too."""
    count: int


def histogram(values: Numbers, most: int = 12) -> list[Bin]:
    """At most about `most` bins: one per value when the values are few, tenths when all lie in [0, 1], else round steps
    over the middle 98 %, with the first and last bin reaching to the extremes."""
    if not len(values):
        return []
    values = _near(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= most:
        return [Bin(float(v), float(v), int(c)) for v, c in zip(distinct, counts, strict=True)]
    if values.min() >= 0 and values.max() <= 1:
        edges = TENTHS
    elif not math.isfinite(float(values.max()) - float(values.min())):
        return [Bin(float(values.min()), float(values.max()), len(values))]
    else:
        low, high = (float(q) for q in np.percentile(values, (1, 99)))
        step = _round_step((high - low) / (most - 2))
        first, last = math.floor(low / step), math.ceil(high / step)
        edges = _near(np.arange(first, max(last, first + 1) + 1, dtype=np.float64) * step)
        edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    counted, _ = np.histogram(values, edges)
    return [Bin(float(a), float(b), int(c)) for a, b, c in zip(edges[:-1], edges[1:], counted, strict=True)]


def _near(values: Numbers) -> Numbers:
    """Sums of 0.1 that differ in the last bit are one value, and stand on the edge 0.3 if they make it."""
    return np.round(values, 9) + 0.0 if np.abs(values).max() < 1e6 else values  # of -0, 0


def _round_step(width: float) -> float:
    """The least of 1, 2, 2.5 or 5 times a power of ten that is not below `width`."""
    if width <= 0:
        return 1.0
    power = float(10.0 ** math.floor(math.log10(width)))
    return float(next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= width * (1 - 1e-9)))


@lru_cache(maxsize=256)
def t_quantile(p: float, df: int) -> float:
    """The p-quantile (p > 0.5) of Student's t. Closed-form distribution (Abramowitz and Stegun 26.7.3, 26.7.4) inverted by
    bisection; above 200 degrees of freedom their expansion 26.7.5, exact to seven digits there."""
    if df > 200:
        x = NormalDist().inv_cdf(p)
        return x + (x**3 + x) / (4 * df) + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * df * df)
    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, df) < 2 * p - 1 else (low, middle)
    return (low + high) / 2


def _t_inside(t: float, df: int) -> float:
    """The probability that Student's t lies in [-t, t]."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for i in range(3 if odd else 2, df - 1, 2):
        term *= cosine**2 * (i - 1) / i
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def finite(value: Any) -> Any:
    """The same JSON value with null for every number that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return value
