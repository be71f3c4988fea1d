"""The presets: which filters they are, and what they warn about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollforge.bulk.record import Record
from rollforge.config import validate
from rollforge.curate.presets import NAMES, PresetArgs, expressions, steps
from rollforge.curate.step import Drop, Sample, Workspace
from rollforge.errors import UserError
from tests.curate.made import called, record, said, sample

THOUGHT = {"type": "reasoning", "summary": []}
CUT = {"status": "incomplete"}


def preset(**values: Any) -> PresetArgs:
    return validate(PresetArgs, values, "recipe")


def run(args: PresetArgs, rows: Sequence[Record], groups: str, folder: Path) -> tuple[list[int], list[str]]:
    """(numbers of the rows that all steps keep, warnings)."""
    left = list(range(len(rows)))
    warnings: list[str] = []
    for step in steps(args):
        work = Workspace(folder)
        done = list(step([sample(rows[at], step, at, groups[at]) for at in left], work))
        assert all(isinstance(each, (Sample, Drop)) for each in done)
        left = sorted(each.at for each in done if isinstance(each, Sample))
        warnings += work.warnings
    return left, warnings


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"name": "sft"}, ["reward >= 0.8", "not empty", "not failed", "not truncated"]),
        ({"name": "sft", "min_reward": 0.95, "drop_truncated": False}, ["reward >= 0.95", "not empty", "not failed"]),
        ({"name": "dpo"}, ["not empty", "not failed", "group.size >= 2 and group.gap >= 0.2"]),
        ({"name": "dpo", "min_gap": 0}, ["not empty", "not failed", "group.size >= 2 and group.gap > 0"]),
        ({"name": "grpo"}, ["group.gap > 0 or group.size == 1", "not empty", "not failed"]),
        (
            {"name": "grpo", "low": 0.2, "high": 0.8, "drop_empty": False},
            ["group.solve_rate > 0.2", "group.solve_rate < 0.8", "not failed"],
        ),
        ({"name": "ppo", "min_reward": 0.3}, ["reward >= 0.3", "not empty", "not failed"]),
        (
            {
                "name": "ppo",
                "min_turns": 2,
                "max_turns": 8,
                "max_tokens": 4000,
                "require_tool_calls": True,
                "require_reasoning": True,
                "drop_errors": True,
                "drop_empty": False,
            },
            ["not failed", "tool_errors == 0", "turns >= 2", "turns <= 8", "tokens <= 4000", "tool_calls > 0", "reasoning"],
        ),
    ],
)
def test_filters(values: dict[str, Any], wanted: list[str]) -> None:
    args = preset(**values)
    assert expressions(args) == wanted
    assert [step.name for step in steps(args)] == [*(f"filter {text}" for text in wanted), f"check for {args.name}"]


def test_a_saved_recipe_says_all() -> None:
    assert PresetArgs.short("sft").model_dump(exclude_none=True)["min_reward"] == 0.8
    assert PresetArgs.short("dpo").min_gap == 0.2
    assert preset(**PresetArgs.short("sft").model_dump()) == PresetArgs.short("sft")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "sft", "min_gap": 0.1}, "min_gap is for dpo"),
        ({"name": "sft", "low": 0.1}, "low and high are for grpo"),
        ({"name": "grpo", "low": 0.8, "high": 0.2}, "no task could be kept"),
        ({"name": "sft", "min_turns": 3, "max_turns": 2}, "no row could be kept"),
        ({"name": "sft", "min_rewrd": 0.1}, "did you mean min_reward"),
        ({"name": "grop"}, "'grpo'"),
        ({"name": "sft", "min_reward": float("nan")}, "min_reward"),
        ({"name": "grpo", "high": 80}, "high"),
    ],
)
def test_wrong_arguments(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        preset(**values)


def test_names() -> None:
    assert [PresetArgs.short(name).name for name in NAMES] == list(NAMES)
    with pytest.raises(UserError, match="did you mean grpo"):
        PresetArgs.short("grop")
    with pytest.raises(UserError, match="no name"):
        PresetArgs.short(3)


def test_sft(tmp_path: Path) -> None:
    rows = [
        record(reward=0.8),
        record(reward=0.79),
        record([], reward=1.0),
        record(reward=1.0, response=CUT),
        record(called(), reward=1.0),
        record([THOUGHT, said("x")], reward=2.0),
    ]
    kept, warnings = run(preset(name="sft"), rows, "abcdef", tmp_path)
    assert kept == [0, 4, 5]
    assert warnings == ["3 demonstrations are left, few for SFT (at least 100): collect more, or lower min_reward"]


def test_answers_that_broke_off_teach_nothing(tmp_path: Path) -> None:
    broken = [{"error": {"code": "server_error"}}, {"status": "failed"}, {"status": "cancelled"}]
    rows = [record(response=each) for each in [*broken, {"error": None, "status": "completed"}]]
    rows += [record(reward=0.0, response=each) for each in [*broken, {"status": "completed"}]]
    for name in NAMES:
        kept, _ = run(preset(name=name), rows, "g" * 8, tmp_path)
        assert kept == ([3] if name == "sft" else [3, 7])
    assert len(run(preset(name="ppo", drop_failed=False), rows, "g" * 8, tmp_path)[0]) == 8


def test_dpo_needs_usable_sides(tmp_path: Path) -> None:
    rows = [
        record(reward=1),
        record(reward=0.9),
        record([], reward=0),
        record(reward=1),
        record(reward=0.8),
        record(reward=0),
    ]
    kept, warnings = run(preset(name="dpo"), rows, "aaabbc", tmp_path)
    assert kept == [3, 4]
    assert any("0% of the rewards are below 0.5" in warning for warning in warnings)


def test_grpo_counts_failures_before_it_drops_them(tmp_path: Path) -> None:
    rows = [record(reward=1), record([], reward=0), record(reward=1), record(reward=1), record(reward=0)]
    kept, warnings = run(preset(name="grpo"), rows, "aabbc", tmp_path)
    assert kept == [0, 4]
    assert "distinct prompts are left" in warnings[0]
    assert run(preset(name="grpo", low=0, high=1), rows, "aabbc", tmp_path)[0] == [0]


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        ([0.0, 0.0, 1.0], []),
        ([1.0, 1.0], ["the mean reward is 1", "100% are successes", "the standard deviation of the rewards is 0"]),
        ([0.0, 0.0, 0.0, 0.1], ["the mean reward is 0.025", "0% are successes", "the standard deviation"]),
    ],
)
def test_ppo_warns(rewards: list[float], says: list[str], tmp_path: Path) -> None:
    kept, warnings = run(preset(name="ppo"), [record(reward=each) for each in rewards], "abcdef", tmp_path)
    assert kept == list(range(len(rewards)))
    assert len(warnings) == len(says)
    assert all(warning.startswith(start) for warning, start in zip(warnings, says, strict=True))


def test_extreme_rewards_are_no_crash(tmp_path: Path) -> None:
    rows = [record(reward=1e300), record(reward=-1e308), record(reward=1e308)]
    for name in NAMES:
        for step in steps(preset(name=name)):
            work = Workspace(tmp_path)
            list(step([sample(row, step, at, "g") for at, row in enumerate(rows)], work))
            json.dumps([work.notes, work.warnings], allow_nan=False)


def test_nothing_left_is_no_crash(tmp_path: Path) -> None:
    for name in NAMES:
        assert run(preset(name=name), [], "", tmp_path) == ([], [])
