"""Comparing two verdicts: checked against counting by hand, one pair at a time."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.records.items import assistant
from rollforge.records.rollout import Failure, Outcome
from rollforge.stats.compare import REVERIFIED, Comparing, Comparison, Pairs, pairs, spearman
from tests.stats.made import made


def again(before: float | None, after: float | None, task: int = 0, index: int = 0, **more: Any) -> Any:
    outcome = Outcome.SCORED if after is not None else Outcome.VERIFIER_FAULT
    failure = None if after is not None else Failure("verify", "VerifierFault", "no \x1b[31mbox")
    one = made(1.0, task, index, **more)
    return replace(one, reward=after, outcome=outcome, failure=failure, extra={REVERIFIED: {"reward": before}})


def compared(*rollouts: Any, **options: Any) -> Comparison:
    comparing = Comparing(**options)
    for rollout in rollouts:
        comparing.add(rollout)
    return comparing.result()


def by_hand(before: list[float], after: list[float], groups: list[int]) -> Pairs:
    counts = {"kept": 0, "reversed": 0, "lost": 0, "gained": 0, "tied": 0}
    for i, j in itertools.combinations(range(len(before)), 2):
        if groups[i] != groups[j]:
            continue
        x, y = before[i] - before[j], after[i] - after[j]
        if x and y:
            counts["kept" if x * y > 0 else "reversed"] += 1
        else:
            counts["lost" if x else "gained" if y else "tied"] += 1
    return Pairs(**counts)


ROW = st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]), st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]), st.integers(0, 4))


@given(st.lists(ROW, max_size=40))
def test_pairs_are_those_counted_one_by_one(rows: list[tuple[float, float, int]]) -> None:
    before, after, groups = ([row[n] for row in rows] for n in range(3))
    found = pairs(np.array(before, float), np.array(after, float), np.array(groups, np.int64))
    assert found == by_hand(before, after, groups)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=60))
def test_correlations_are_those_of_their_definitions(rows: list[tuple[float, float]]) -> None:
    before, after = (np.round(np.array([row[n] for row in rows]), 9) for n in range(2))
    zeros = np.zeros(len(rows), np.int64)

    def rank(values: Any) -> list[float]:
        return [sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]

    found = spearman(before, after)
    if len(set(before)) == 1 or len(set(after)) == 1:
        assert found is None
        assert pairs(before, after, zeros).tau is None
        return
    assert found == pytest.approx(np.corrcoef(rank(before), rank(after))[0, 1], abs=1e-9)
    signs = [
        (np.sign(a - c), np.sign(b - d)) for (a, b), (c, d) in itertools.combinations(zip(before, after, strict=True), 2)
    ]
    size = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    assert pairs(before, after, zeros).tau == pytest.approx(sum(x * y for x, y in signs) / size, abs=1e-9)


def test_a_known_tau() -> None:
    # Three pairs agree, one is reversed, one is tied on each side: (3 - 1) / sqrt(5 * 5).
    found = pairs(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 2]), np.zeros(4, np.int64))
    assert (found.kept, found.reversed, found.lost, found.gained) == (3, 1, 1, 1)
    assert found.tau == pytest.approx(2 / 5)


def test_a_comparison_says_who_flipped_and_what_it_means() -> None:
    found = compared(
        again(0.0, 1.0, 0, 0, reply="four\x1b[2J"),
        again(1.0, 1.0, 0, 1),
        again(1.0, 0.5, 1, 0, reply="five"),
        again(0.0, 0.0, 1, 1),
    )
    assert (found.rollouts, found.tasks, found.agree, found.up, found.down) == (4, 2, 2, 1, 1)
    assert (found.to_solved, found.from_solved) == (1, 1)
    (rose,), (fell,) = found.raised, found.lowered
    assert (rose.task_index, rose.index, rose.before, rose.after) == (0, 0, 0.0, 1.0)
    assert rose.reply == "four\\x1b[2J"
    assert (fell.reply, fell.after) == ("five", 0.5)
    assert (found.before.value, found.after.value, found.difference.value) == (0.5, 0.625, 0.125)
    assert [(row.k, row.tasks, row.before, row.after) for row in found.pass_at] == [(1, 2, 0.5, 0.5), (2, 2, 1.0, 0.5)]
    assert found.pairs == Pairs(kept=1, reversed=0, lost=1, gained=0, tied=0)
    row = found.row()
    assert row["pairs"]["changed"] == 1
    assert row["raised"][0]["task_index"] == 0


def test_what_has_no_two_verdicts_is_counted_apart() -> None:
    kept = replace(made(None), extra={REVERIFIED: {"kept": "no answer"}})
    found = compared(again(None, 1.0), again(1.0, None), again(1.0, None, 1), kept, made(1.0))
    assert (found.rollouts, found.newly_judged, found.unjudged, found.kept) == (0, 1, 2, 2)
    assert found.reasons == [("verifier_fault in verify: no \\x1b[31mbox", 2)]
    assert (found.spearman, found.kendall, found.before.value, found.pass_at) == (None, None, None, [])
    assert found.row()["before"]["value"] is None


def test_only_the_largest_changes_are_listed() -> None:
    found = compared(*(again(0.0, index / 100, 0, index) for index in range(1, 51)), examples=3)
    assert [flip.after for flip in found.raised] == [0.5, 0.49, 0.48]
    assert compared(again(0.0, 1.0), examples=0).raised == []


def test_reasons_without_number_stay_bounded() -> None:
    failed = (replace(again(1.0, None), failure=Failure("verify", "VerifierFault", f"no {number}")) for number in range(500))
    found = compared(*failed)
    assert len(found.reasons) <= 101
    assert found.reasons[0] == ("others", 400)


def test_equal_up_to_the_last_bits_is_equal() -> None:
    found = compared(again(0.3, 0.1 + 0.2), again(0.3, 0.3, 0, 1, output=[assistant("x")]))
    assert (found.agree, found.pairs.changed) == (2, 0)


def test_the_interval_of_a_difference_that_only_rose_may_reach_below_zero() -> None:
    risen = compared(*(again(0.0, float(task == 0), task) for task in range(10))).difference
    fallen = compared(*(again(1.0, float(task != 0), task) for task in range(10))).difference
    assert risen.low is not None
    assert risen.high is not None
    assert (fallen.low, fallen.high) == pytest.approx((-risen.high, -risen.low))
    assert risen.low < 0 < risen.high
