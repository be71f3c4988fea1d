"""Shaping rewards: what comes out, and the advice on when to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.curate.shape import ShapeArgs, steps
from rollforge.curate.step import Sample, Workspace
from rollforge.errors import UserError


def shape(folder: Path, rewards: dict[str, list[float]], **args: Any) -> tuple[dict[str, list[float]], Workspace]:
    """Rewards by environment, two attempts a task; what came out, in the order in which it went in."""
    samples = [
        Sample(number, at, env, b"%s%d" % (env.encode(), at // 2), b"", reward)
        for number, (env, values) in enumerate(rewards.items())
        for at, reward in enumerate(values)
    ]
    (step,) = steps(ShapeArgs(**args))
    work = Workspace(folder)
    out: dict[str, list[float]] = {}
    for sample in sorted((item for item in step(samples, work) if isinstance(item, Sample)), key=lambda item: item.place):
        assert sample.changes.get("reward", sample.reward) == sample.reward
        out.setdefault(sample.env, []).append(sample.reward)
    return out, work


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"method": "scale"}, {"math": [0, 0.5, 1, 1], "games": [0, 1, 0.5, 0.5]}),
        ({"method": "scale", "range": (-1, 1)}, {"math": [-1, 0, 1, 1], "games": [-1, 1, 0, 0]}),
        ({"method": "scale", "per": "all"}, {"math": [0.5, 0.525, 0.55, 0.55], "games": [0, 1, 0.5, 0.5]}),
        ({"method": "scale", "per": "group"}, {"math": [0, 1, 1, 1], "games": [0, 1, 0, 0]}),
        ({"method": "clip"}, {"math": [0, 0.5, 1, 1], "games": [-1, 1, 0, 0]}),
        ({"method": "clip", "range": (0.25, 0.75)}, {"math": [0.25, 0.5, 0.75, 0.75], "games": [0.25, 0.75, 0.25, 0.25]}),
    ],
)
def test_scaling_and_clipping(tmp_path: Path, args: dict[str, Any], expected: dict[str, list[float]]) -> None:
    out, work = shape(tmp_path, {"math": [0, 0.5, 1, 1], "games": [-10, 10, 0, 0]}, **args)
    assert out == {env: pytest.approx(values) for env, values in expected.items()}
    assert work.notes["before"]["games"].startswith("-10 to 10, mean 0")


def test_standardising(tmp_path: Path) -> None:
    values = [0.0, 0.5, 1.0, 3.0]
    out, work = shape(tmp_path, {"math": values, "flat": [7.0, 7.0]}, method="standardize")
    assert out["math"] == pytest.approx([(value - mean(values)) / stdev(values) for value in values])
    assert out["flat"] == [0, 0]
    assert any("standardize for GRPO and PPO only" in warning for warning in work.warnings)
    out, _ = shape(tmp_path, {"math": [0.0, 1.0, 5.0, 5.0, 9.0]}, method="standardize", per="group")
    assert out["math"] == pytest.approx([-(0.5**0.5), 0.5**0.5, 0, 0, 0])


@pytest.mark.parametrize("args", [{"method": "scale"}, {"method": "standardize"}, {"method": "scale", "per": "group"}])
def test_rewards_too_large_to_reckon_with(tmp_path: Path, args: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"0:1: a reward of -1e\+308 cannot be (scaled|standardized): clip it first"):
        shape(tmp_path, {"a": [0.5, -1e308, 1e308]}, **args)
    assert shape(tmp_path, {"a": [0.5, -1e308, 1e308]}, method="clip")[0] == {"a": [0.5, -1, 1]}


def test_equal_rewards_only_move_into_the_range(tmp_path: Path) -> None:
    out, work = shape(tmp_path, {"math": [5.0, 5.0]}, method="scale")
    assert out == {"math": [1.0, 1.0]}
    assert "math: all rewards are equal; they were only clipped to the range" in work.warnings


def test_what_is_scaled_by_group_is_good_among_attempts_at_one_task_only(tmp_path: Path) -> None:
    out, work = shape(tmp_path, {"math": [2.0, 2.0, 0.0, 10.0, 0.5, 0.5]}, method="scale", per="group")
    assert out == {"math": [1, 1, 0, 1, 0.5, 0.5]}
    best, level = work.warnings
    assert best.startswith("the best attempt at a task has 1 now, however good it was")
    assert level.startswith("2 rows are of tasks whose attempts have equal rewards outside the range")
    assert not any("best attempt" in each for each in shape(tmp_path, {"math": [2.0, 0, 10]}, method="scale")[1].warnings)


@pytest.mark.parametrize(
    ("rewards", "args", "advice"),
    [
        ({"a": [0.1, 0.3, 0.5, 0.6, 0.9]}, {"method": "scale"}, "they needed no shaping"),
        ({"a": [0, 0, 1, 1, 1]}, {"method": "scale"}, "scaling leaves them there: standardize per group"),
        ({"a": [0, 1, 0.5], "b": [0, 10, 5]}, {"method": "scale", "per": "all"}, r"different ranges (a 0 to 1, b 0 to 10)"),
        ({"a": [0, 10, 5]}, {"method": "clip"}, "clipping changed 67% of the rewards"),
        ({"a": [0, 10, 5]}, {"method": "clip", "range": (0, 9)}, "rewards reach outside [-1, 1] still"),
    ],
)
def test_advice(tmp_path: Path, rewards: dict[str, list[float]], args: dict[str, Any], advice: str) -> None:
    _, work = shape(tmp_path, rewards, **args)
    assert any(advice in warning for warning in work.warnings), work.warnings


@pytest.mark.parametrize("method", ["scale", "clip"])
@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_equal_rewards_have_no_ends(tmp_path: Path, method: str, value: float) -> None:
    _, work = shape(tmp_path, {"a": [value] * 4}, method=method, **({"per": "all"} if method == "scale" else {}))
    flat = ["a: all rewards are equal; they were only clipped to the range"]
    assert work.warnings == (flat if method == "scale" else [])


def test_thresholds_that_read_other_numbers(tmp_path: Path) -> None:
    _, work = shape(tmp_path, {"a": [0.2, 0.4, 0.65, 0.3], "b": [0, 1, 0.5, 0.6]}, method="scale")
    said = "thresholds on rewards (SFT, preference pairs) read other numbers now: a's 0.200 to 0.650 became 0 to 1"
    assert said in work.warnings
    _, work = shape(tmp_path, {"a": [0.0, 0.4, 1.0, 0.3]}, method="scale")
    assert not any("thresholds" in warning for warning in work.warnings)


def test_ranges_that_differ_below_zero(tmp_path: Path) -> None:
    _, work = shape(tmp_path, {"math": [0, 0.3, 0.5, 1], "code": [-1, -0.2, -0.5, 0]}, method="scale", per="all")
    assert any("different ranges (code -1 to 0, math 0 to 1)" in warning for warning in work.warnings)
    assert not any("needed no shaping" in warning for warning in work.warnings)


def test_no_advice_where_it_was_right(tmp_path: Path) -> None:
    assert shape(tmp_path, {"a": [0, 10, 5, 7, 3]}, method="scale")[1].warnings == []


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    assert shape(tmp_path, {}, method="scale")[0] == {}


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), per=st.sampled_from(["all", "env", "group"]))
def test_the_order_of_rewards_stays(tmp_path_factory: pytest.TempPathFactory, values: list[float], per: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    out, _ = shape(folder, {"a": values}, method="scale", per=per)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in out["a"])
    if per != "group":
        pairs = zip(values, out["a"], strict=True)
        ordered = [shaped for _, shaped in sorted(pairs)]
        assert all(a <= b + 1e-9 for a, b in pairwise(ordered))
