"""Every estimator against the mean over all k-subsets."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.stats.passk import best_at_k, majority_at_k, pass_all_k, pass_at_k


def over_subsets(attempts: Sequence[Any], k: int, worth: Callable[[Sequence[Any]], float]) -> float:
    return fmean(worth(chosen) for chosen in combinations(attempts, k))


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in range(1, 8) for c in range(n + 1)])
def test_success_is_the_mean_over_all_subsets(n: int, c: int) -> None:
    attempts = [1] * c + [0] * (n - c)
    for k in range(1, n + 1):
        assert pass_at_k(n, c, k) == pytest.approx(over_subsets(attempts, k, max))
        assert pass_all_k(n, c, k) == pytest.approx(over_subsets(attempts, k, min))


def test_the_example_of_the_paper() -> None:
    # 1 - (197/200)(196/199)...: Chen et al. compute it as a running product.
    product = 1.0
    for i in range(200 - 3 + 1, 201):
        product *= 1 - 10 / i
    assert pass_at_k(200, 3, 10) == pytest.approx(1 - product)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.data())
def test_best_is_the_mean_highest_reward(rewards: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(rewards)))
    assert best_at_k(rewards, k) == pytest.approx(over_subsets(rewards, k, max), abs=1e-9)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=8), st.data())
def test_majority_is_the_mean_worth_of_the_elected(given_answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(given_answers)))
    worth = {answer: data.draw(st.floats(0, 1)) for answer in "abc"}

    def elected(chosen: Sequence[str | None]) -> float:
        votes = Counter(answer for answer in chosen if answer is not None)
        most = max(votes.values(), default=0)
        return fmean(worth[answer] for answer in votes if votes[answer] == most) if votes else 0.0

    counts = Counter(given_answers)
    silent = counts.pop(None, 0)
    answers = [(count, worth[answer]) for answer, count in counts.items() if answer is not None]
    assert majority_at_k(answers, silent, k) == pytest.approx(over_subsets(given_answers, k, elected), abs=1e-12)


def test_many_attempts_stay_in_range() -> None:
    assert pass_at_k(5000, 1, 2500) == pytest.approx(0.5)
    assert pass_all_k(5000, 4999, 2500) == pytest.approx(0.5)
    assert best_at_k([0.0] * 4999 + [1.0], 2500) == pytest.approx(0.5)
    assert majority_at_k([(3000, 1.0), (2000, 0.0)], 0, 8) == pytest.approx(0.71, abs=0.02)


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=30), st.data())
def test_answers_that_equally_many_gave_are_counted_together(answers: list[tuple[int, float]], data: st.DataObject) -> None:
    """Whatever one is worth, the expectation is the mean of what each of them alone is worth."""
    k = data.draw(st.integers(1, min(8, sum(count for count, _ in answers))))
    alone = [
        [(count, worth if number == at else 0.0) for number, (count, worth) in enumerate(answers)]
        for at in range(len(answers))
    ]
    assert majority_at_k(answers, 0, k) == pytest.approx(sum(majority_at_k(one, 0, k) for one in alone), abs=1e-12)


def test_thousands_of_different_answers_take_no_minutes() -> None:
    began = time.process_time()
    assert majority_at_k([(1, 1.0), (1, 0.0)] * 10_000, 0, 64) == pytest.approx(0.5)
    assert majority_at_k([(2, 1.0), (2, 0.0), (1, 0.5)] * 3000, 7, 16) == pytest.approx(0.5, abs=0.01)
    assert time.process_time() - began < 20  # a minute and a half if each were a step of its own


def test_the_best_of_tens_of_thousands_takes_no_minutes() -> None:
    began = time.process_time()
    assert best_at_k([0.0] * 29_999 + [1.0], 8192) == pytest.approx(8192 / 30_000)
    assert time.process_time() - began < 15


def test_of_a_large_group_nothing_is_kept() -> None:
    attempts = [0.0] * 99_999 + [1.0]
    tracemalloc.start()
    for k in (1, 2, 3, 50_000, 99_999, 100_000):
        assert best_at_k(attempts, k) == pytest.approx(k / 100_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 20  # three megabytes a k, when each chance was kept


def test_the_chances_of_the_best_add_up() -> None:
    for n, k in ((1, 1), (7, 7), (2000, 1000), (300_000, 64)):
        assert best_at_k([1.0] * n, k) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("k", [0, 4])
def test_k_is_at_most_the_attempts(k: int) -> None:
    with pytest.raises(ValueError, match="3 attempts"):
        pass_at_k(3, 1, k)
