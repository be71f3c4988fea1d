"""Situations, and what is said about them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rollforge.records.items import assistant
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine
from rollforge.stats import profile
from rollforge.stats.scale import different_ranges
from tests.stats.made import called, grid, made


def levels(rollouts: list[Rollout], **options: Any) -> dict[str, str]:
    return {finding.check: finding.level for finding in profile(rollouts, **options).overall.findings}


def fits(rollouts: list[Rollout]) -> dict[str, str]:
    return {fit.algorithm: fit.level for fit in profile(rollouts).overall.fits}


def distinct(rewards: list[list[float]]) -> list[Rollout]:
    """Each with a reply of its own."""
    return [made(r, t, i, reply=f"{t}.{i}") for t, row in enumerate(rewards) for i, r in enumerate(row)]


MEDIUM = [[1, 0, 1, 0]] * 10
NEVER = [[0, 0, 0, 0]] * 10
HARD = [[1, 0, 0, 0]] * 3 + [[0, 0, 0, 0]] * 17


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        (MEDIUM, {"coverage": "ok", "group_signal": "ok", "mean_reward": "ok", "spread": "ok", "contrast": "ok"}),
        (NEVER, {"coverage": "ok", "group_signal": "bad", "identical_rewards": "bad"}),
        (HARD, {"coverage": "ok", "group_signal": "bad", "mean_reward": "warn", "spread": "ok", "contrast": "warn"}),
        ([[0.5, 0.52, 0.5, 0.51]] * 6, {"mean_reward": "ok", "spread": "warn", "contrast": "warn", "group_signal": "ok"}),
        ([[1, 1, 1, 0.7]] * 6, {"mean_reward": "warn", "spread": "warn", "contrast": "warn", "group_signal": "ok"}),
        ([[5, -5, 0, 1]] * 6, {"reward_range": "warn", "scale": "unsure", "group_signal": "ok"}),
        ([[1, 0]] * 4, {"sample": "unsure", "group_signal": "unsure"}),
        ([[1], [0]] * 10, {"groups": "unsure", "mean_reward": "ok", "spread": "ok", "contrast": "ok"}),
        ([[1]], {"sample": "unsure", "groups": "unsure"}),
    ],
)
def test_rewards(rewards: list[list[float]], expected: dict[str, str]) -> None:
    assert levels(distinct(rewards)) == {"coverage": "ok", **expected}


def test_counts_have_thousands() -> None:
    found = profile(distinct([[1, 1, 1, 1]] * 300)).overall.fits
    assert [fit.says for fit in found if fit.algorithm == "SFT"] == ["1,200 demonstrations with reward at least 0.95"]


def test_the_worst_is_said_first_with_reason_and_remedy() -> None:
    found = profile(distinct(HARD)).overall.findings
    order = [finding.level for finding in found]
    assert order == sorted(order, key=("bad", "warn", "unsure", "ok").index)
    assert all(finding.why and finding.do for finding in found if finding.level in ("bad", "warn"))


@pytest.mark.parametrize(("failed", "level"), [(0, "ok"), (2, "ok"), (3, "warn"), (11, "bad")])
def test_coverage(failed: int, level: str) -> None:
    rows = distinct([[1, 0, 1, 0]] * 10) + [made(None, 99, index) for index in range(failed)]
    assert levels(rows)["coverage"] == level


@pytest.mark.parametrize(("reason", "level"), [("no reward", "bad"), ("reward is 'x', not a number", "bad"), ("x", "ok")])
def test_rows_without_a_usable_reward_are_rollouts_without_one(reason: str, level: str) -> None:
    found = profile([*distinct(MEDIUM), *(BadLine("f", n, reason, "{") for n in range(40))])
    said = {finding.check: finding for finding in found.overall.findings}["coverage"]
    assert said.level == level
    assert found.overall.stats.coverage == (0.5 if level == "bad" else 1.0)
    if level == "bad":
        assert "(under 95%); 40 rows without a usable one" in said.says
        assert "--bad` lists them" in said.do


@pytest.mark.parametrize("other", [None, Outcome.INFRA_FAULT])
def test_another_attempt_is_advised_where_it_can_help(other: Outcome | None) -> None:
    outcomes = [Outcome.VERIFIER_FAULT] * 3 + [other] * (other is not None)
    rows = distinct(MEDIUM) + [made(None, 99, index, outcome=outcome) for index, outcome in enumerate(outcomes)]
    said = {finding.check: finding for finding in profile(rows).overall.findings}["coverage"]
    assert said.do.startswith("Run the same collect command" if other else "Mend the environment, then rollforge reverify")


def test_coverage_of_the_plan() -> None:
    assert levels(distinct(MEDIUM), planned=100)["coverage"] == "bad"


def test_a_row_that_is_there_twice_covers_nothing_more() -> None:
    found = profile([*grid([[1, 0], [1]]), made(1.0, 0, 0)], planned=4)
    assert (found.repeated, found.not_run, found.overall.stats.coverage) == (1, 1, 0.75)


def cut(reward: float, task: int) -> Rollout:
    return made(reward, task, reply=str(task), response={"incomplete_details": {"reason": "max_output_tokens"}})


DRIFT = [
    {**assistant("a"), "prompt_token_ids": [1], "generation_token_ids": [2]},
    {"role": "user", "content": "more"},
    {**assistant("b"), "prompt_token_ids": [7, 7, 7], "generation_token_ids": [3]},
]


@pytest.mark.parametrize(
    ("rows", "check", "level"),
    [
        ([made(0.5, outcome=Outcome.SCORED), made(None, 1, outcome=Outcome.VERIFIER_FAULT)], "verifier_faults", "bad"),
        ([made(output=DRIFT)], "token_contiguity", "bad"),
        ([cut(1.0, 0), made(1.0, 1)], "truncated", "warn"),
        (grid([[1, 0, 1, 0]] * 6), "duplicates", "warn"),
        ([made(1.0, t, output=called("f", "Error")) for t in range(25)], "tool_errors", "warn"),
        ([made(1.0, 0, 0, prompt="a"), made(0.0, 0, 1, prompt="b")], "mixed_prompts", "warn"),
    ],
)
def test_conversations(rows: list[Rollout], check: str, level: str) -> None:
    assert levels(rows)[check] == level


def test_between_environments() -> None:
    a, b, c = (
        [made(r, t, env=env) for t, r in enumerate(rewards)] for env, rewards in (("a", [0, 10] * 9), ("b", [1]), ("c", [0]))
    )
    found = levels([*a, *b, *c])
    assert (found["reward_scales"], found["balance"]) == ("warn", "warn")
    assert not levels(b).keys() & {"reward_scales", "balance"}


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({"math": (0, 1), "code": (0, 0.1)}, "code 0 to 0.100, math 0 to 1"),
        ({"math": (0, 1), "code": (-1, 0)}, "code -1 to 0, math 0 to 1"),
        ({"math": (0, 1), "code": (-1, 1)}, "code -1 to 1, math 0 to 1"),
        ({"math": (0, 1), "code": (0, 2)}, "math 0 to 1, code 0 to 2"),
        ({"math": (0, 1), "code": (10, 10)}, "math 0 to 1, code 10 to 10"),
        ({"math": (0, 100), "code": (0, 1), "qa": (0, 5)}, "code 0 to 1, math 0 to 100"),
        ({"math": (0, 1), "rubric": (0.4, 0.9), "hard": (0, 0), "easy": (1, 1)}, ""),
        ({"math": (-0.1, 1), "code": (0, 1)}, ""),
        ({"math": (-1, 1), "hard": (-1, -1), "easy": (1, 1)}, ""),
        ({"math": (-0.5, 1.2), "code": (-0.5, 1.2)}, ""),
        ({"math": (0, 0), "code": (0, 0)}, ""),
        ({"math": (-1e308, 1e308), "code": (0, 1e308)}, "math -1e+308 to 1e+308, code 0 to 1e+308"),
        ({}, ""),
    ],
)
def test_environments_on_different_scales(ranges: dict[str, tuple[float, float]], said: str) -> None:
    assert different_ranges(ranges) == said


@pytest.mark.parametrize(
    "values", [[-0.0] * 4, [-1e-3, 1e-3, -2e-3, 0], [-1e300, 1e300, 0, 0], [1.7e308] * 4, [1.7e308, -1.7e308, 0, 1]]
)
def test_no_words_say_minus_zero_or_infinity(values: list[float]) -> None:
    section = profile(grid([values] * 6)).overall
    said = " ".join(one.says for one in (*section.findings, *section.fits))
    assert not re.search(r"-0(\.0+)?(?![.\d])|\b(inf|nan)\b|\d{20}", said)


def test_rewards_below_zero_are_judged_by_their_range() -> None:
    verdicts = {
        low: profile(distinct([[1, low, 1, low]] * 30 + [[low, 1, low, low]] * 30)).overall for low in (0.0, -0.1, -1.0)
    }
    for overall in verdicts.values():
        assert {finding.check: finding.level for finding in overall.findings}["mean_reward"] == "ok"
        assert {fit.algorithm: fit.level for fit in overall.fits}["GRPO"] == "good"
    (mean,) = (finding for finding in verdicts[-1.0].findings if finding.check == "mean_reward")
    assert mean.says == "the mean reward is -0.25, 38% of the way from -1 to 1 (between 0.3 and 0.9)"
    assert levels(distinct([[-1, -1, -1, 1]] * 20))["mean_reward"] == "warn"


def test_thresholds_for_rewards_up_to_1_say_nothing_of_larger_ones() -> None:
    overall = profile(distinct([[0, 20, 60, 100]] * 100)).overall
    assert {fit.algorithm: fit.level for fit in overall.fits} == dict.fromkeys(("GRPO", "DPO", "SFT"), "possible")
    assert all("Scale the rewards" in fit.do for fit in overall.fits)
    (outside,) = (finding for finding in overall.findings if finding.check == "reward_range")
    assert "before filters and pairs too" in outside.do
    # Of a penalty, thresholds for what is high are as true as without.
    assert fits(distinct([[-10, 0, 1, 1]] * 100)) == {"GRPO": "possible", "DPO": "good", "SFT": "good"}


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        (MEDIUM, {"GRPO": "good", "DPO": "possible", "SFT": "possible"}),
        ([[1, 0, 1, 0]] * 100, {"GRPO": "good", "DPO": "good", "SFT": "good"}),
        (NEVER, {"GRPO": "poor", "DPO": "poor", "SFT": "poor"}),
        ([[1]] * 100, {"GRPO": "poor", "DPO": "poor", "SFT": "good"}),
        ([[1], [0]] * 20, {"GRPO": "possible", "DPO": "poor", "SFT": "possible"}),
        ([[5, -5]] * 20, {"GRPO": "possible", "DPO": "possible", "SFT": "possible"}),
        ([[1, 0]] * 2, {"GRPO": "unsure", "DPO": "unsure", "SFT": "unsure"}),
    ],
)
def test_fits(rewards: list[list[float]], expected: dict[str, str]) -> None:
    assert fits(distinct(rewards)) == expected
