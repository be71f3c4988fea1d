"""Two sides compared pair by pair: checked against counting by hand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.errors import UserError
from rollforge.evaluate.paired import Paired, compare_runs, sign_flip
from rollforge.records.rollout import Rollout
from tests.seeds import printed
from tests.stats.made import grid, made, write


def by_hand(sums: list[float]) -> float:
    observed = abs(sum(sums)) - 1e-9
    flips = list(itertools.product((1, -1), repeat=len(sums)))
    return sum(abs(sum(s * x for s, x in zip(signs, sums, strict=True))) >= observed for signs in flips) / len(flips)


@given(st.lists(st.integers(-4, 4).map(float), max_size=9))
def test_the_p_value_of_whole_numbers_is_that_of_every_flip(sums: list[float]) -> None:
    assert sign_flip(np.array(sums, float)) == pytest.approx(by_hand(sums))


@given(st.lists(st.floats(-2, 2).map(lambda x: round(x, 3)), max_size=9))
def test_the_p_value_of_any_numbers_is_that_of_every_flip(sums: list[float]) -> None:
    assert sign_flip(np.array(sums, float)) == pytest.approx(by_hand(sums), abs=1e-12)


def test_sums_that_cancel_but_for_the_last_bit_are_no_difference() -> None:
    assert sign_flip(np.array([0.1 + 0.2, -0.3])) == 1
    assert sign_flip(np.array([0.1 + 0.2, -0.2, -0.1, 0.7, -0.7])) == 1


def test_many_numbers_are_drawn_the_same_way_in_any_order() -> None:
    sums = np.random.default_rng(3).normal(0.15, 1.0, 60)
    p = sign_flip(sums)
    assert p == sign_flip(sums[::-1])
    z = abs(sums.sum()) / np.sqrt((sums**2).sum())  # a normal approximation of the same test
    assert p == pytest.approx(2 * (1 - _normal(z)), abs=0.01)


def test_under_the_null_few_are_significant() -> None:
    rng = np.random.default_rng(0)
    ps = [sign_flip(rng.integers(-4, 5, 25).astype(float)) for _ in range(400)]
    assert np.mean(np.array(ps) < 0.05) < 0.08
    assert 0.4 < np.mean(ps) < 0.7


def test_only_the_same_task_and_repeat_are_compared(tmp_path: Path) -> None:
    before = [*grid([[0, 0], [1, 0], [1, 1]]), made(None, 3, 0), made(1, 9, 0)]
    after = [*grid([[1, 0], [1, 1], [0, 1]]), made(1, 3, 0), made(0, 0, 2)]
    found = compare(tmp_path, before, after)
    assert (found.rollouts, found.tasks) == (6, 3)
    assert found.unpaired == (1, 2)
    assert (found.before.value, found.after.value) == (0.5, pytest.approx(4 / 6))
    assert found.difference.value == pytest.approx(1 / 6)
    assert (found.wins, found.ties, found.losses) == (2, 0, 1)
    assert found.p_value == pytest.approx(by_hand([1, 1, -1]))
    assert [(row.k, row.before, row.after) for row in found.pass_at] == [(1, 0.5, pytest.approx(4 / 6)), (2, 2 / 3, 1.0)]
    assert [change.index for change in found.changed] == [0, 1, 2]
    assert any("1 rollout before and 0 after without a reward" in note for note in found.notes)
    assert json.dumps(found.row(), allow_nan=False)


def test_an_attempt_that_failed_first_counts_by_its_verdict(tmp_path: Path) -> None:
    failed = made(None, 0, 0)
    found = compare(tmp_path, [failed, made(1, 0, 0), made(0, 0, 0)], [made(0, 0, 0), failed])
    assert (found.before.value, found.after.value) == (1.0, 0.0)


def test_rows_of_an_environment_served_elsewhere_are_paired(tmp_path: Path) -> None:
    after = [replace(one, env="http://localhost:8000") for one in grid([[1], [1]])]
    assert compare(tmp_path, grid([[0], [1]]), after).difference.value == 0.5


def test_tasks_named_in_another_way_are_joined_by_prompt(tmp_path: Path) -> None:
    after = [replace(one, task=f"agent:{one.task_index}") for one in grid([[1], [1]])]
    found = compare(tmp_path, grid([[0], [1]]), after)
    assert found.rollouts == 2
    assert any("joined by prompt" in note for note in found.notes)


def test_rows_without_a_repeat_are_numbered_as_they_come(tmp_path: Path) -> None:
    before, after = ([made(reward, 0, None) for reward in rewards] for rewards in ([0, 0, 1], [1, 1]))
    assert compare(tmp_path, before, after).rollouts == 2


def test_nothing_in_common_is_an_error_that_says_so(tmp_path: Path) -> None:
    other = [replace(one, task=f"x{one.task}", params={"input": "something else"}) for one in grid([[1]])]
    with pytest.raises(UserError, match=r"no task and repeat in common.*task0000"):
        compare(tmp_path, grid([[1], [0]]), other)
    with pytest.raises(UserError, match="has no rollout with a reward"):
        compare(tmp_path, [made(None)], grid([[1]]))
    with pytest.raises(UserError, match="no usable rollout"):
        compare(tmp_path, [], grid([[1]]))
    with pytest.raises(UserError, match="there is no"):
        compare_runs(tmp_path / "nothing", tmp_path / "nothing")


def test_by_category_and_by_environment(tmp_path: Path) -> None:
    def side(*rewards: float) -> list[Rollout]:
        rows = [made(r, n, 0, fields={"level": "easy" if n % 2 else "hard", "n": n}) for n, r in enumerate(rewards)]
        return [*rows, *(replace(row, env="other", reward=0.5) for row in rows)]

    found = compare(tmp_path, side(0, 1, 0, 1), side(1, 1, 1, 0))
    assert set(found.by_category) == {"level"}
    levels = found.by_category["level"]
    assert {name: one.rollouts for name, one in levels.items()} == {"easy": 4, "hard": 4}
    assert levels["hard"].difference.value == 0.5
    assert {name: one.difference.value for name, one in found.by_env.items()} == {"math": 0.25, "other": 0.0}
    asked = compare_runs(tmp_path / "before.jsonl", tmp_path / "after.jsonl", by=["n"])
    assert set(asked.by_category["n"]) == {"0", "1", "2", "3"}


def test_a_field_of_the_task_that_the_verdict_replaced_is_the_tasks(tmp_path: Path) -> None:
    rows = [made(1, n, 0, fields={"level": "said"}, extra={"task_fields": {"level": f"l{n}"}}) for n in range(2)]
    assert set(compare(tmp_path, rows, rows).by_category["level"]) == {"l0", "l1"}


def test_a_significant_fall_is_a_regression_and_a_small_one_is_none(tmp_path: Path) -> None:
    ones, zeros = grid([[1]] * 8), grid([[0]] * 8)
    fallen = compare(tmp_path, ones, zeros)
    assert fallen.significant
    assert "overall: mean reward fell by 1.000" in fallen.regressions[0]
    assert compare(tmp_path, zeros, ones).regressions == []
    few = compare(tmp_path, ones[:5], zeros[:5])
    assert few.regressions == []
    assert any("fewer than 6" in note for note in few.notes)


def test_a_fall_in_one_environment_is_not_hidden_by_a_rise_in_another(tmp_path: Path) -> None:
    def side(math: float, other: float) -> list[Rollout]:
        rows = grid([[math]] * 8)
        return [*rows, *(replace(row, env="other", reward=other) for row in rows)]

    found = compare(tmp_path, side(1, 0), side(0, 1))
    assert not found.significant
    assert [text.split(":")[0] for text in found.regressions] == ["math"]


def test_an_interval_of_the_difference_reaches_below_zero(tmp_path: Path) -> None:
    found = compare(tmp_path, grid([[0], [0], [0]]), grid([[1], [0], [0]]))
    assert found.difference.low is not None
    assert -1 <= found.difference.low < 0


def test_what_was_not_played_alike_is_said(tmp_path: Path) -> None:
    for name, seed, temperature in (("before", 1, 0.5), ("after", 2, 1.0)):
        write(tmp_path / name / "rollouts.jsonl", grid([[1], [0]]))
        identity = {"env": {"use": "math"}, "model": {"use": name}, "sampling": {"temperature": temperature}}
        about = {"identity": identity, "env": "math", "seed": seed, "planned": 2}
        (tmp_path / name / "run.json").write_text(json.dumps(about))
    notes = compare_runs(tmp_path / "before", tmp_path / "after").notes
    assert "not played alike: seed: 1 there, 2 now" in notes
    assert "not played alike: sampling.temperature: 0.5 there, 1.0 now" in notes
    assert not any("model" in note for note in notes)


def test_rewards_of_any_size_and_sign(tmp_path: Path) -> None:
    found = compare(tmp_path, grid([[1e300], [-5], [0.1]]), grid([[-1e300], [7.5], [0.1]]))
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)
    assert json.dumps(found.row(), allow_nan=False)


def test_every_process_finds_the_same_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        write(tmp_path / name / "rollouts.jsonl", grid(rng.random((40, 3)).tolist()))
    code = f"from rollforge.evaluate.paired import compare_runs; print(compare_runs('{tmp_path}/a', '{tmp_path}/b').row())"
    assert len(printed(code)) == 1


def compare(folder: Path, before: list[Rollout], after: list[Rollout]) -> Paired:
    return compare_runs(write(folder / "before.jsonl", before), write(folder / "after.jsonl", after))


def _normal(z: float) -> float:
    return NormalDist().cdf(z)
