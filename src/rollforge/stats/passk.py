"""What k attempts at one task are worth, from the n attempts that were made: exact expectations over all k-subsets.

With n attempts and k <= n, every estimator below is the mean over the C(n, k) ways to choose k of them: unbiased, and
without the variance of "the first k". Sources: pass@k, Chen et al. 2021 (HumanEval, arXiv 2107.03374), section 2.1;
pass^k, Yao et al. 2024 (tau-bench, arXiv 2406.12045); majority voting, Wang et al. 2022 (self-consistency, 2203.11171).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    return values @ _highest(values.shape[-1], k)


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
    # Whoever cannot reach `votes` is drawn freely.
    free = silent + sum(count for count, _ in answers if count < votes)
    most = k // votes
    ways = [[comb(free, j) for j in range(k + 1)]]
    worth = [[0] * (k + 1)]
    rivals: dict[int, list[int]] = {}
    for count, value in answers:
        if count >= votes:
            rivals.setdefault(count, []).append(value)
    for count, values in rivals.items():
        for factor, worths in _factors(count, values, votes, k):
            size = min(most, len(ways) - 1 + len(worths)) + 1
            new_ways, new_worth = ([[0] * (k + 1) for _ in range(size)] for _ in range(2))
            for t, (old_ways, old_worth) in enumerate(zip(ways, worth, strict=True)):
                for more, drawn, some in factor:
                    if t + more > most:
                        break
                    elected = some * more // len(worths) * sum(worths)
                    to_ways, to_worth = new_ways[t + more], new_worth[t + more]
                    for j in range(votes * t, k + 1 - drawn):
                        to_ways[j + drawn] += some * old_ways[j]
                        to_worth[j + drawn] += some * old_worth[j] + elected * old_ways[j]
            ways, worth = new_ways, new_worth
    return sum(row[k] / (t * scale) for t, row in enumerate(worth) if t)


def _factors(count: int, values: list[int], votes: int, k: int) -> Iterator[tuple[list[tuple[int, int, int]], list[int]]]:
    """Answers that `count` attempts gave each, all together or one by one, whichever is less work, with their values.

    Of each: (t, j, ways), the ways in which t of them have exactly `votes`, the others fewer, in j draws. Of many answers
    all that differ are the values, and each is as often elected as another.
    """
    many = len(values)
    most = min(many, k // votes)
    below = [comb(count, i) for i in range(min(votes, k + 1))]
    terms: list[tuple[int, int, int]] = []
    others = _power(below, many - most, k)  # draws of those that are not elected
    for t in range(most, -1, -1):
        chosen = comb(many, t) * comb(count, votes) ** t
        terms += [(t, j + votes * t, chosen * ways) for j, ways in enumerate(others[: k + 1 - votes * t])]
        others = _product(others, below, k)
    if many > 1 and len(terms) > many * (votes + 1):
        for value in values:
            yield from _factors(count, [value], votes, k)
    else:
        yield sorted(terms), values


def _power(factor: list[int], times: int, k: int) -> list[int]:
    """Coefficients of a polynomial's power, up to that of x^k."""
    found = [1]
    for bit in f"{times:b}":
        found = _product(found, found, k)
        if bit == "1":
            found = _product(found, factor, k)
    return found


def _product(a: list[int], b: list[int], k: int) -> list[int]:
    found = [0] * min(len(a) + len(b) - 1, k + 1)
    for i, one in enumerate(a[: k + 1]):
        for j, other in enumerate(b[: k + 1 - i]):
            found[i + j] += one * other
    return found


def _highest(n: int, k: int) -> NDArray[np.float64]:
    """For each of n attempts in ascending order, the chance that it is the highest of k of them."""
    found = np.zeros(n)
    found[-1] = k / n
    # C(i, k - 1) / C(n, k) of attempt i, from the one above: in floats, for C(n, k) has as many bits as there are attempts.
    above = np.arange(n - 1, k - 1, -1)
    found[k - 1 : -1] = (found[-1] * np.cumprod((above - k + 1) / above))[::-1]
    return found


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} with {n} attempts; k is 1 to n")
