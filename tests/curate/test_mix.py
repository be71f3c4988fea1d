"""Mixing: proportions of runs and environments, and the label on each row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

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


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown run or environment 'maths'; did you mean math"):
        mix(tmp_path, weights={"maths": 1, "code": 1})


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
