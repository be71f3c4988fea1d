"""Intervals against known values; quantiles; histogram bins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollforge.stats.estimate import Bin, clustered_mean, finite, histogram, quantiles, t_quantile


@pytest.mark.parametrize(
    ("df", "value"),
    # Tables of the 97.5 % point of Student's t.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (29, 2.0452), (200, 1.9719), (1000, 1.9623)],
)
def test_t_quantile(df: int, value: float) -> None:
    assert t_quantile(0.975, df) == pytest.approx(value, abs=1e-4)


def test_one_rollout_per_task_has_the_usual_interval() -> None:
    mean = clustered_mean(np.array([1.0, 2, 3, 4, 5]), np.arange(5))
    assert (mean.value, mean.clusters) == (3.0, 5)
    assert mean.stderr == pytest.approx(math.sqrt(2.5 / 5))
    assert (mean.low, mean.high) == (pytest.approx(1.0368, abs=1e-4), pytest.approx(4.9632, abs=1e-4))


def test_copies_within_a_task_are_no_news() -> None:
    values, groups = np.array([0.1, 0.5, 0.7, 0.3]), np.arange(4)
    once, often = clustered_mean(values, groups), clustered_mean(np.repeat(values, 8), np.repeat(groups, 8))
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_the_interval_covers_the_truth_for_grouped_rollouts() -> None:
    random = np.random.default_rng(0)
    groups, hits = np.repeat(np.arange(30), 8), 0
    for _ in range(500):
        difficulty = np.repeat(random.beta(0.5, 0.5, 30), 8)
        mean = clustered_mean((random.random(240) < difficulty).astype(float), groups)
        assert mean.low is not None
        assert mean.high is not None
        hits += mean.low <= 0.5 <= mean.high
    # The naive interval over 240 rollouts covers in about 60 %.
    assert 0.92 <= hits / 500 <= 0.98


@pytest.mark.parametrize(
    ("values", "groups", "note"),
    [
        ([], [], "no rewards"),
        ([1.0, 0.0], [0, 0], "one task"),
        ([0.5], [0], "one task"),
        ([1.0, 1.0], [0, 1], "all values are equal"),
        ([1.0, 0.0, 0.0, 1.0], [0, 0, 1, 1], "same mean"),
    ],
)
def test_no_interval_says_why(values: list[float], groups: list[int], note: str) -> None:
    mean = clustered_mean(np.array(values), np.array(groups, np.int64))
    assert (mean.low, mean.high) == (None, None)
    assert note in mean.note


def test_rewards_of_any_size_have_no_endless_interval() -> None:
    with np.errstate(over="ignore"):
        found = clustered_mean(np.array([1e300, -1e300, 0]), np.arange(3))
    assert (found.value, found.low, found.high, found.stderr) == (0, None, None, None)


def test_an_interval_of_shares_stays_between_0_and_1() -> None:
    mean = clustered_mean(np.array([1.0, 1, 1, 0]), np.arange(4))
    assert mean.high == 1.0
    assert mean.low == pytest.approx(max(0.0, 0.75 - 3.1824 * 0.25), abs=1e-4)


def test_quantiles_leave_out_what_is_unknown() -> None:
    found = quantiles(np.array([math.nan, 0.0, 10, math.nan]))
    assert found is not None
    assert (found.n, found.p50, found.p90, found.total) == (2, 5.0, 9.0, 10.0)
    assert quantiles(np.array([math.nan])) is None


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        ([], []),
        ([0.0, 1, 1], [Bin(0, 0, 1), Bin(1, 1, 2)]),
        ([0.1 + 0.2, 0.3], [Bin(0.3, 0.3, 2)]),
        ([-2.0000000000000004, -2, 10], [Bin(-2, -2, 2), Bin(10, 10, 1)]),
        ([1e308, -1e308, *range(20)], [Bin(-1e308, 1e308, 22)]),
    ],
)
def test_histogram_of_few_values(values: list[float], bins: list[Bin]) -> None:
    assert histogram(np.array(values, np.float64)) == bins


def test_histogram_of_fractions_has_tenths() -> None:
    bins = histogram(np.arange(101) / 100)
    assert [each.count for each in bins] == [10] * 9 + [11]
    assert (bins[3].low, bins[-1].high) == (0.3, 1.0)


def test_a_value_on_an_edge_is_in_the_bin_that_begins_there() -> None:
    sums = np.array([sum([0.1] * n) for n in range(11)])
    assert [each.count for each in histogram(np.array([*sums, *np.arange(0.05, 1, 0.1)]))] == [2] * 9 + [3]
    bins = histogram(np.array([*sums, 1.1, 1.2, 1.3, 1.4]))
    assert [(each.low, each.count) for each in bins][3:6] == [(0.6, 2), (0.8, 2), (1.0, 2)]


def test_histogram_of_a_wide_range_reaches_the_extremes() -> None:
    values = np.array([*np.linspace(-3, 40, 990), -500, 90000, *[1.5] * 8])
    bins = histogram(values)
    assert sum(each.count for each in bins) == len(values)
    assert (bins[0].low, bins[-1].high) == (-500, 90000)
    assert 5 <= len(bins) <= 14
    assert bins[1].low == 0.0


def test_finite() -> None:
    assert finite({"a": [math.nan, 1.0, (math.inf,)], "b": "x"}) == {"a": [None, 1.0, [None]], "b": "x"}
