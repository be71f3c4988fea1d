"""Situations, and what is said about them."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.records.items import assistant
from rollforge.records.rollout import Outcome, Rollout
from rollforge.stats import profile
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


def test_the_worst_is_said_first_with_reason_and_remedy() -> None:
    found = profile(distinct(HARD)).overall.findings
    order = [finding.level for finding in found]
    assert order == sorted(order, key=("bad", "warn", "unsure", "ok").index)
    assert all(finding.why and finding.do for finding in found if finding.level in ("bad", "warn"))


@pytest.mark.parametrize(("failed", "level"), [(0, "ok"), (2, "ok"), (3, "warn"), (11, "bad")])
def test_coverage(failed: int, level: str) -> None:
    rows = distinct([[1, 0, 1, 0]] * 10) + [made(None, 99, index) for index in range(failed)]
    assert levels(rows)["coverage"] == level


def test_coverage_of_the_plan() -> None:
    assert levels(distinct(MEDIUM), planned=100)["coverage"] == "bad"


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
