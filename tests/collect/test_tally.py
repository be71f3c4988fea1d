"""Counts: outcomes sum to the plan, coverage says how much of it has a reward, tokens are what a server can be believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rollforge.collect.tally import HOPELESS_ATTEMPTS, HOPELESS_TASKS, Tally
from rollforge.records.rollout import Outcome
from tests.collect.parts import rollout

NOT_JUDGED = [outcome for outcome in Outcome if not outcome.judged]


def test_outcomes_sum_to_the_plan() -> None:
    tally = Tally(planned=20)
    for outcome in Outcome:
        tally.count(rollout(outcome), final=True)
    tally.count(rollout(Outcome.INFRA_FAULT, retryable=True), final=False)
    tally.count_before(Outcome.SCORED, 0.5, None)
    row = tally.row()
    assert sum(row["outcomes"].values()) == row["planned"] == 20
    assert row["outcomes"] == {
        "scored": 2,
        "policy_fault": 1,
        "infra_fault": 1,
        "judge_fault": 1,
        "verifier_fault": 1,
        "timeout": 1,
        "cancelled": 13,
    }
    assert row["coverage"] == 3 / 20
    assert row["mean_reward"] == 1.5 / 3


def test_nothing_yet() -> None:
    assert Tally(planned=4).row() == {
        "planned": 4,
        "outcomes": {**dict.fromkeys(Outcome, 0), "cancelled": 4},
        "coverage": 0.0,
        "mean_reward": None,
        "tokens": {"input": 0, "output": 0},
    }


def test_without_a_count_coverage_is_of_what_was_begun() -> None:
    tally = Tally(before=2, started=3)
    tally.count(rollout(), final=True)
    assert (tally.total, tally.coverage, tally.row()["planned"]) == (5, 0.2, None)
    assert tally.row()["outcomes"]["cancelled"] == 4


def test_more_came_than_was_planned() -> None:
    tally = Tally(planned=1)
    for _ in range(3):
        tally.count(rollout(), final=True)
    assert tally.row()["outcomes"]["cancelled"] == 0


@pytest.mark.parametrize("outcome", NOT_JUDGED)
def test_a_fault_is_no_zero(outcome: Outcome) -> None:
    tally = Tally(planned=2)
    tally.count(rollout(), final=True)
    tally.count(rollout(outcome), final=True)
    assert (tally.mean, tally.coverage) == (1.0, 0.5)


def test_faults_are_counted_per_attempt_by_outcome_and_stage() -> None:
    tally = Tally()
    for final in (False, False, True):
        tally.count(rollout(Outcome.TIMEOUT, retryable=True), final=final)
    assert tally.faults == {"timeout in model": 3}
    tally.count(rollout(Outcome.POLICY_FAULT), final=True)  # which has a reward
    assert tally.faults == {"timeout in model": 3}
    assert (tally.done, tally.attempts, tally.last_failure) == (2, 4, "timeout in model: it failed")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 3}, (7, 3)),
        ({"input_tokens": 7}, (7, 0)),
        (None, (0, 0)),
        ({}, (0, 0)),
        ({"input_tokens": "7", "output_tokens": 3.0}, (7, 3)),
        ({"input_tokens": None, "output_tokens": "three"}, (0, 0)),
        ({"input_tokens": -7, "output_tokens": 3.5}, (0, 0)),
        ({"input_tokens": float("nan"), "output_tokens": float("inf")}, (0, 0)),
        ({"input_tokens": True, "output_tokens": 1}, (0, 1)),
        ([1, 2], (0, 0)),
        ("many", (0, 0)),
    ],
)
def test_usage_is_what_a_server_says(usage: Any, expected: tuple[int, int]) -> None:
    tally = Tally()
    tally.count(replace(rollout(), response={"output": [], "usage": usage}), final=True)
    assert (tally.session_in, tally.session_out) == (tally.tokens_in, tally.tokens_out) == expected


def test_an_answer_whose_tokens_nobody_counted_is_noted() -> None:
    tally = Tally()
    tally.count(rollout(), final=True)
    tally.count(replace(rollout(), response={"output": [], "usage": None}), final=True)  # nothing was said
    tally.count(replace(rollout(Outcome.INFRA_FAULT), response={"output": [{}], "usage": None}), final=True)  # broken off
    assert tally.uncounted == 0
    for usage in (None, {"input_tokens": 0}):
        tally.count(replace(rollout(), response={"output": [{}], "usage": usage}), final=True)
    assert tally.uncounted == 2


def test_all_attempts_cost_but_only_this_session() -> None:
    tally = Tally()
    tally.count_before(Outcome.SCORED, 1.0, {"input_tokens": 1_000_000, "output_tokens": 1_000_000})
    tally.count(rollout(Outcome.INFRA_FAULT, retryable=True), final=False)
    tally.count(rollout(), final=True)
    assert tally.session_tokens == 20
    assert tally.cost(price_in=1e6, price_out=2e6) == 14 + 12
    assert tally.row()["tokens"] == {"input": 1_000_007, "output": 1_000_003}


@pytest.mark.parametrize(
    ("tasks", "attempts", "good", "expected"),
    [
        (HOPELESS_TASKS, HOPELESS_ATTEMPTS, None, True),
        (HOPELESS_ATTEMPTS, HOPELESS_ATTEMPTS, None, True),
        (HOPELESS_TASKS, HOPELESS_ATTEMPTS - 1, None, False),
        (HOPELESS_TASKS - 1, 1000, None, False),  # a group or two that the server refuses
        (HOPELESS_TASKS, 1000, Outcome.SCORED, False),
        (HOPELESS_TASKS, 1000, Outcome.VERIFIER_FAULT, False),
    ],
)
def test_hopeless(tasks: int, attempts: int, good: Outcome | None, expected: bool) -> None:
    tally = Tally()
    if good:
        tally.count(rollout(good), final=True)
    for number in range(attempts):
        tally.count(rollout(Outcome.INFRA_FAULT, index=number % tasks, retryable=True), final=False)
    assert tally.hopeless is expected
