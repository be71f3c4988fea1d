"""Mixing: proportions of runs and environments, and the label on each row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rollforge.config import validate
from rollforge.curate.mix import MixArgs, short, steps
from rollforge.curate.step import Drop, Sample, Workspace
from rollforge.errors import UserError
from tests.curate.test_balance import samples

RUNS = ("runs/math.jsonl", "runs/code")


def mix(folder: Path, runs: tuple[str, ...] = RUNS, **args: Any) -> tuple[Counter[str], Counter[str], list[str]]:
    """Rows by task name, drops by reason, warnings. 200 rows of math, 100 of code."""
    (step,) = steps(MixArgs(**args))
    work = Workspace(folder, runs=runs)
    names: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for item in step(samples(math=200, code=100), work):
        if isinstance(item, Drop):
            reasons[item.reason] += 1
        else:
            names[item.changes["task_name"]] += item.copies
    return names, reasons, work.warnings


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"weights": {"math": 1, "code": 1}}, {"math": 100, "code": 100}),
        ({"weights": {"math": 0.2, "code": 0.8}}, {"math": 25, "code": 100}),
        ({"weights": {"math": 3, "code": 1}, "total": 40}, {"math": 30, "code": 10}),
        ({"weights": {"math": 1, "code": 2}, "upsample": True}, {"math": 100, "code": 200}),
        ({"weights": {"code": 5}}, {"code": 100}),
        ({"weights": {"runs/code": 5}}, {"code": 100}),
        ({"weights": {"math": 1, "code": 1}, "total": 300}, {"math": 150, "code": 100}),
    ],
)
def test_weights_come_true(tmp_path: Path, args: dict[str, Any], expected: dict[str, int]) -> None:
    names, reasons, _ = mix(tmp_path, **args)
    assert names == expected
    if "upsample" not in args:
        assert names.total() + reasons.total() == 300


@pytest.mark.parametrize("total", [1, 7, 12, 20, 100])
def test_the_total_is_the_total(tmp_path: Path, total: int) -> None:
    sizes = dict.fromkeys("abcdefgh", 50)
    given = samples(**sizes)
    (step,) = steps(MixArgs(weights=dict.fromkeys(sizes, 1), total=total))
    work = Workspace(tmp_path)
    kept = [item for item in step(given, work) if isinstance(item, Sample)]
    counts = Counter(sample.env for sample in kept)
    assert counts.total() == total
    assert max(counts.values()) - min(counts[name] for name in sizes) <= 1
    assert any("0 rows; a task needs 100" in told for told in work.warnings) is (total < 8)


def test_attempts_stay_together_where_asked(tmp_path: Path) -> None:
    for unit, torn in (("group", 0), ("row", 1)):
        (step,) = steps(MixArgs(weights={"math": 1, "code": 3}, unit=unit))  # type: ignore[arg-type]
        kept = Counter(
            item.group for item in step(samples(math=200, code=100), Workspace(tmp_path)) if isinstance(item, Sample)
        )
        assert any(count < 4 for count in kept.values()) is bool(torn)


def test_a_number_in_a_recipe_is_the_name_of_a_run(tmp_path: Path) -> None:
    args = validate(MixArgs, {"weights": {2024: 1, "code": 1}}, "recipe")
    assert args.weights == {"2024": 1, "code": 1}
    assert mix(tmp_path, ("runs/2024", "runs/code"), weights=args.weights)[0] == {"2024": 100, "code": 100}


def test_runs_of_one_environment(tmp_path: Path) -> None:
    (step,) = steps(MixArgs(weights={"monday": 1, "b": 3}))
    given = [Sample(source, at, "math", b"", b"", 1.0) for source in (0, 1) for at in range(30)]
    kept = [item for item in step(given, Workspace(tmp_path, runs=("monday", "x/b.jsonl"))) if isinstance(item, Sample)]
    assert Counter(sample.changes["task_name"] for sample in kept) == {"monday": 10, "b": 30}


def test_warnings(tmp_path: Path) -> None:
    _, reasons, warnings = mix(tmp_path, weights={"math": 1, "code": 9})
    assert reasons == {"overflow": 189}
    assert "math: 11 rows; a task needs 100 or more" in warnings
    assert "code is 90% of the rows; no category should be more than 50%" in warnings
    _, _, warnings = mix(tmp_path, weights={"math": 1, "code": 1}, total=300)
    assert "code: 100 rows instead of 150, there are no more; upsample: true repeats some" in warnings
    _, _, warnings = mix(tmp_path, weights={"math": 1, "code": 1}, total=300, min_per_task=120)
    assert "code: 100 rows; a task needs 120 or more" in warnings


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown run or environment 'maths'; did you mean math"):
        mix(tmp_path, weights={"maths": 1, "code": 1})


def given(*envs: str) -> list[Sample]:
    return [Sample(source, at, env, b"", b"", 1.0) for source, env in enumerate(envs) for at in range(30)]


def test_runs_of_the_same_last_part_keep_their_whole_names(tmp_path: Path) -> None:
    runs = ("runs/a", "other/a", "b")
    (step,) = steps(MixArgs(weights={"runs/a": 1, "./other/a/": 2, "b": 1}))
    kept = [item for item in step(given(*"xyz"), Workspace(tmp_path, runs=runs)) if isinstance(item, Sample)]
    assert Counter(sample.changes["task_name"] for sample in kept) == {"runs/a": 15, "other/a": 30, "b": 15}
    (step,) = steps(MixArgs(weights={"a": 1, "b": 1}))
    with pytest.raises(UserError, match="mix: 'a' is both runs/a and other/a; give each its weight by its whole name"):
        list(step(given(*"xyz"), Workspace(tmp_path, runs=runs)))


def test_a_slash_at_the_end_is_no_other_run(tmp_path: Path) -> None:
    (step,) = steps(MixArgs(weights={"runs/a": 1}))
    kept = list(step(given("x"), Workspace(tmp_path, runs=("runs/a/",))))
    assert {item.changes["task_name"] for item in kept if isinstance(item, Sample)} == {"a"}


def test_an_environment_all_of_whose_rows_have_a_weight_by_their_run(tmp_path: Path) -> None:
    (step,) = steps(MixArgs(weights={"runs/a": 1, "new": 1}))
    with pytest.raises(UserError, match="all rows of the environment 'new' are of runs with weights of their own"):
        list(step(given("new"), Workspace(tmp_path, runs=("runs/a",))))


def test_a_run_of_which_nothing_is_left(tmp_path: Path) -> None:
    (step,) = steps(MixArgs(weights={"a": 1, "b": 1}))
    with pytest.raises(UserError, match="no rows of 'b' for its share"):
        list(step(given("x"), Workspace(tmp_path, runs=("a", "b"))))


def test_more_repeats_than_anybody_means(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="code: 50,000,000,000,000 rows of the 100 there are would repeat each"):
        mix(tmp_path, weights={"math": 1, "code": 1}, total=10**14, upsample=True)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("runs/math", "math"),
        ("math.rollouts.jsonl", "math"),
        ("math/train.jsonl", "math"),
        (".", "."),
        ("a/rollouts.jsonl", "a"),
    ],
)
def test_names_of_runs(run: str, name: str) -> None:
    assert short(run) == name
