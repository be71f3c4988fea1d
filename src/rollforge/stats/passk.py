"""What k attempts at one task are worth, from the n attempts that were made: exact expectations over all k-subsets.

With n attempts and k <= n, every estimator below is the mean over the C(n, k) ways to choose k of them: unbiased, and
without the variance of "the first k". Sources: pass@k, Chen et al. 2021 (HumanEval, arXiv 2107.03374), section 2.1;
pass^k, Yao et al. 2024 (tau-bench, arXiv 2406.12045); majority voting, Wang et al. 2022 (self-consistency, 2203.11171).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_SCALE = 1 << 53


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k attempts succeeds, when c of n did."""
    _check(n, k)
    return 1.0 - comb(n - c, k) / comb(n, k)


def pass_all_k(n: int, c: int, k: int) -> float:
    """pass^k: the chance that all of k attempts succeed, when c of n did."""
    _check(n, k)
    return comb(c, k) / comb(n, k)


def best_at_k(rewards: ArrayLike, k: int) -> Any:
    """The expected highest reward of k attempts; pass@k when rewards are 0 and 1. `rewards`: attempts on the last axis; one
    number for each task on the others."""
    values = np.sort(np.asarray(rewards, np.float64), axis=-1)
    _check(values.shape[-1], k)
    return values @ np.array(_highest(values.shape[-1], k))


def majority_at_k(answers: Sequence[tuple[int, float]], silent: int, k: int) -> float:
    """The expected value of the answer that most of k attempts give.

    `answers`: for each distinct answer how many attempts gave it, and what it is worth (0 to 1). `silent` attempts gave
    none: they are drawn but do not vote. Tied answers count equally; a draw in which nobody votes is worth 0.
    """
    n = silent + sum(count for count, _ in answers)
    _check(n, k)
    if len(answers) == 1:
        return answers[0][1] * pass_at_k(n, answers[0][0], k)
    # Integers throughout: C(n, k) leaves the range of floats at n = 1030.
    worths = [(count, round(value * _SCALE)) for count, value in answers]
    scale = comb(n, k) * _SCALE
    top = min(k, max((count for count, _ in answers), default=0))
    return sum(_elected_with(worths, silent, k, votes, scale) for votes in range(1, top + 1))


def _elected_with(answers: Sequence[tuple[int, int]], silent: int, k: int, votes: int, scale: int) -> float:
    """The part of the expectation in which the elected answers have exactly `votes` votes each.

    `ways[t][j]` counts the ways to draw j attempts such that t answers have exactly `votes` and none has more;
    `worth[t][j]` sums the values of those t answers over the same ways.
    """
    rivals = [(count, value) for count, value in answers if count >= votes]
    # Whoever cannot reach `votes` is drawn freely.
    free = silent + sum(count for count, _ in answers if count < votes)
    size = k + 1
    ways = [[comb(free, j) for j in range(size)]]
    worth = [[0] * size]
    for count, value in rivals:
        if len(ways) <= k // votes:
            ways.append([0] * size)
            worth.append([0] * size)
        draws = [comb(count, i) for i in range(votes + 1)]
        for t in range(len(ways) - 1, -1, -1):
            old_ways, old_worth = ways[t], worth[t]
            new_ways, new_worth = [0] * size, [0] * size
            for j in range(size):
                for i in range(min(votes, j + 1)):
                    new_ways[j] += draws[i] * old_ways[j - i]
                    new_worth[j] += draws[i] * old_worth[j - i]
                if t and j >= votes:
                    tied = ways[t - 1][j - votes]
                    new_ways[j] += draws[votes] * tied
                    new_worth[j] += draws[votes] * (worth[t - 1][j - votes] + value * tied)
            ways[t], worth[t] = new_ways, new_worth
    return sum(row[k] / (t * scale) for t, row in enumerate(worth) if t)


@lru_cache(maxsize=1024)
def _highest(n: int, k: int) -> tuple[float, ...]:
    """For each of n attempts in ascending order, the chance that it is the highest of k of them."""
    total = comb(n, k)
    return tuple(comb(below, k - 1) / total for below in range(n))


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} with {n} attempts; k is 1 to n")
