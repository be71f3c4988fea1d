"""Balancing: exact counts, a choice that the seed alone decides, attempts that stay together."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.config import validate
from rollforge.curate.balance import BalanceArgs, MeasureDifficulty, share_out, steps
from rollforge.curate.recipe import make_recipe
from rollforge.curate.step import Drop, Sample, Workspace
from rollforge.errors import UserError
from tests.curate.made import record, worked


def samples(**envs: int) -> list[Sample]:
    """So many rows of each environment, four attempts a task."""
    made = []
    for number, (env, count) in enumerate(envs.items()):
        for at in range(count):
            made.append(Sample(number, at * 100, env, b"%s%d" % (env.encode(), at // 4), b"", float(at % 2)))
    return made


def balance(given: list[Sample], folder: Path, seed: int = 0, **args: Any) -> tuple[list[Sample], list[Drop], Workspace]:
    (step,) = steps(BalanceArgs(**args))
    work = Workspace(folder, seed)
    for first in getattr(step, "first", ()):
        given = [sample for sample in first(given, work) if isinstance(sample, Sample)]
    out = list(step(given, work))
    dropped = [item for item in out if isinstance(item, Drop)]
    return [item for item in out if isinstance(item, Sample)], dropped, work


def rows(kept: list[Sample]) -> Counter[str]:
    count: Counter[str] = Counter()
    for sample in kept:
        count[sample.env] += sample.copies
    return count


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, {"math": 10, "code": 10}),
        ({"upsample": True}, {"math": 50, "code": 50}),
        ({"cap": 20}, {"math": 20, "code": 10}),
        ({"cap": 20, "upsample": True}, {"math": 20, "code": 20}),
        ({"cap": 1000}, {"math": 50, "code": 10}),
        ({"counts": {"math": 7}}, {"math": 7, "code": 10}),
        ({"counts": {"code": 0}}, {"math": 50}),
        ({"counts": {"code": 25}, "upsample": True}, {"math": 50, "code": 25}),
        ({"shares": {"math": 0.75, "code": 0.25}}, {"math": 30, "code": 10}),
        ({"shares": {"math": 0.5, "code": 0.5}, "upsample": True}, {"math": 30, "code": 30}),
        ({"shares": {"math": 1}}, {"math": 50}),
    ],
)
def test_counts_are_exact(tmp_path: Path, args: dict[str, Any], expected: dict[str, int]) -> None:
    given = samples(math=50, code=10)
    kept, dropped, work = balance(given, tmp_path, **args)
    assert rows(kept) == expected
    assert len(kept) + len(dropped) == 60
    assert {name: of["out"] for name, of in work.notes["categories"].items()} == {"math": 0, "code": 0} | expected


@pytest.mark.parametrize("unit", ["row", "group"])
def test_copies_count_as_rows(tmp_path: Path, unit: str) -> None:
    def again(**args: Any) -> tuple[list[Sample], Workspace]:
        kept, _, _ = balance(samples(math=20, code=200), tmp_path, unit=unit, upsample=True)
        kept, _, work = balance(kept, tmp_path, unit=unit, **args)
        return kept, work

    assert rows(again(shares={"math": 0.5, "code": 0.5})[0]) == {"math": 200, "code": 200}
    kept, work = again(cap=48)
    assert rows(kept) == {"math": 48, "code": 48}
    assert work.notes["categories"]["math"] == {"in": 200, "out": 48}
    # Of what there is once before what is there again.
    assert Counter(sample.copies for sample in kept if sample.env == "math") == {2: 12, 3: 8}
    kept, work = again(counts={"math": 400}, upsample=True)
    assert rows(kept) == {"math": 400, "code": 200}
    assert "math: its rows are repeated up to 20 times; collect more of them" in work.warnings
    assert any(text.startswith("380 of the rows are copies") for text in work.warnings)
    with pytest.raises(UserError, match="math: 20,200 rows of the 20 there are would repeat each 1,010 times"):
        again(counts={"math": 20200}, upsample=True)


def test_the_choice_depends_on_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    given = samples(math=200)
    first = {sample.place for sample in balance(given, tmp_path, cap=20)[0]}
    mixed = samples(math=200)
    random.Random(1).shuffle(mixed)
    assert {sample.place for sample in balance(mixed, tmp_path, cap=20)[0]} == first
    assert {sample.place for sample in balance(samples(math=200), tmp_path, seed=1, cap=20)[0]} != first


def test_attempts_stay_together(tmp_path: Path) -> None:
    kept, _, work = balance(samples(math=40, code=40), tmp_path, cap=10, unit="group")
    assert rows(kept) == {"math": 8, "code": 8}
    assert set(Counter(sample.group for sample in kept).values()) == {4}
    assert "math: 8 rows instead of 10, no more whole groups fit (unit: row parts them)" in work.warnings


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 16), min_size=1, max_size=30), cap=st.integers(1, 60), seed=st.integers(0, 3))
def test_a_group_too_large_for_the_rest_leaves_room_for_others(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cap: int, seed: int
) -> None:
    given = [Sample(0, 100 * task + at, "math", b"%d" % task, b"", 0.0) for task, n in enumerate(sizes) for at in range(n)]
    kept, dropped, _ = balance(given, tmp_path_factory.getbasetemp(), seed, cap=cap, unit="group")
    assert all(count == sizes[int(group)] for group, count in Counter(sample.group for sample in kept).items())
    left = Counter(drop.sample.group for drop in dropped)
    assert len(kept) <= cap
    assert all(len(kept) + count > cap for count in left.values())


def test_reasons(tmp_path: Path) -> None:
    _, dropped, _ = balance(samples(math=50, code=10), tmp_path, shares={"code": 1})
    assert Counter(drop.reason for drop in dropped) == {"no share": 50}
    _, dropped, _ = balance(samples(math=50, code=10), tmp_path, cap=20)
    assert Counter(drop.reason for drop in dropped) == {"overflow": 30}
    assert dropped[0].evidence == {"category": "math"}


def test_difficulty_is_that_of_the_whole_group(tmp_path: Path) -> None:
    levels = {}
    for task, rewards in enumerate([(1, 1, 1, 1), (1, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0)]):
        levels[b"%d" % task] = [
            Sample(0, 10 * task + n, "math", b"%d" % task, b"", reward) for n, reward in enumerate(rewards)
        ]
    given = [sample for group in levels.values() for sample in group]
    random.Random(0).shuffle(given)
    out = [item for item in MeasureDifficulty()(given, Workspace(tmp_path)) if isinstance(item, Sample)]
    found = {sample.group: sample.facts["difficulty"] for sample in out}
    assert found == {b"0": "easy", b"1": "medium", b"2": "hard", b"3": "hard"}
    assert len(out) == 16
    kept, _, _ = balance(given, tmp_path, by=["env", "difficulty"], cap=4)
    assert Counter(found[sample.group] for sample in kept) == {"easy": 4, "medium": 4, "hard": 4}


def test_difficulty_is_of_the_rewards_that_a_recipe_begins_with(tmp_path: Path) -> None:
    scale = {"shape": {"method": "scale", "range": [0, 1], "per": "all"}}
    rows = [(0, n, "e", b"%d" % (n // 4), b"", 10.0 if n < 4 else 2.0) for n in range(8)]
    for steps_, levels in (([scale], {"easy": 4, "hard": 4}), ([{"filter": "reward > 0"}, scale], {"easy": 8})):
        recipe = make_recipe({"steps": [*steps_, {"balance": {"by": "difficulty", "cap": 9}}]})
        found = [Sample(*sample) for sample in rows]
        for step in recipe.chain:
            work = Workspace(tmp_path)
            found = [item for item in step(found, work) if isinstance(item, Sample)]
        assert {name: count["in"] for name, count in work.notes["categories"].items()} == levels


def test_by_any_field(tmp_path: Path) -> None:
    (step,) = steps(BalanceArgs(by="task.level"))
    assert list(step.facts) == ["task.level"]
    given = samples(math=6)
    for number, sample in enumerate(given):
        sample.facts["task.level"] = None if number == 0 else number % 2
    out = list(step(given, Workspace(tmp_path)))
    assert sum(isinstance(item, Sample) for item in out) == 3
    with pytest.raises(UserError, match=r"group\.solve_rate.* is not possible"):
        steps(BalanceArgs(by="group.solve_rate"))
    with pytest.raises(UserError, match=r"unknown fact 'levle'.*known: env, source, difficulty, tokens") as refused:
        steps(BalanceArgs(by="levle"))
    assert "group." not in str(refused.value)


@pytest.mark.parametrize(
    ("by", "name"), [('task["level"]', "task.level"), ("task.tags[1]", "task.tags[1]"), ("task['a b']", "task['a b']")]
)
def test_by_a_name_as_expressions_write_it(tmp_path: Path, by: str, name: str) -> None:
    (step,) = steps(BalanceArgs(by=by, cap=2))
    rows = [record(level="ab"[n % 2], tags=["x", "ab"[n % 2]], **{"a b": "ab"[n % 2]}) for n in range(10)]
    kept, dropped, work = worked(step, rows, tmp_path)
    assert list(step.facts) == [name]
    assert work.notes["categories"] == {"a": {"in": 5, "out": 2}, "b": {"in": 5, "out": 2}}
    assert (len(kept), dropped) == (4, ["overflow"] * 6)


def test_numbers_of_one_value_are_one_category(tmp_path: Path) -> None:
    (step,) = steps(BalanceArgs(by="task.level", counts={1: 2}))  # type: ignore[dict-item]
    rows = [record(level=level) for level in (1, 1.0, 1, 1.5, 2.0, "2", True)]
    work = worked(step, rows, tmp_path)[2]
    of = {name: count["in"] for name, count in work.notes["categories"].items()}
    assert of == {"1": 3, "1.5": 1, "2": 2, "true": 1}
    assert work.notes["categories"]["1"]["out"] == 2


def test_by_the_label_of_a_mix(tmp_path: Path) -> None:
    (step,) = steps(BalanceArgs(by='task["task_name"]'))
    given = samples(math=6)
    for number, sample in enumerate(given):
        sample.facts["task.task_name"] = "before"
        if number:
            sample.changes["task_name"] = "mixed"
    list(step(given, work := Workspace(tmp_path)))
    assert work.notes["categories"] == {"before": {"in": 1, "out": 1}, "mixed": {"in": 5, "out": 1}}


def test_what_no_row_has_and_what_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="balance by repeat: no row has its repeat"):
        worked(steps(BalanceArgs(by="repeat"))[0], [record()], tmp_path)
    with pytest.raises(UserError, match="by takes a name, and a filter an expression"):
        steps(BalanceArgs(by='task["a"] > 1'))


def test_each_step_measures_difficulty_by_its_own_success(tmp_path: Path) -> None:
    rewards = {"a": 1.0, "b": 0.5, "c": 0.0}
    recipe = make_recipe({"steps": [{"balance": {"by": "difficulty", "success": each}} for each in (0.5, 1.0)]})
    given = [Sample(0, n, "math", name.encode(), b"", reward) for n, (name, reward) in enumerate(rewards.items())]
    for step in recipe.chain[:2]:
        given = [item for item in step(given, Workspace(tmp_path)) if isinstance(item, Sample)]
    for step, easy in zip(recipe.chain[2:], (2, 1), strict=True):
        list(step(given, work := Workspace(tmp_path)))
        assert work.notes["categories"]["easy"]["in"] == easy


def test_warnings(tmp_path: Path) -> None:
    _, _, work = balance(samples(math=90, code=10), tmp_path, cap=1000)
    assert work.warnings == ["math is 90% of the rows; no category should be more than 50%"]
    _, _, work = balance(samples(math=50, code=10), tmp_path, counts={"code": 50, "cod": 3}, upsample=True)
    assert "unknown category 'cod'; did you mean code? (no rows are of it)" in work.warnings
    assert "code: its rows are repeated up to 5 times; collect more of them" in work.warnings


def test_numbers_in_a_recipe_are_names_of_categories() -> None:
    args = validate(BalanceArgs, {"by": "task.level", "counts": {2: 50, True: 2, None: 3, "hard": 4}}, "recipe")
    assert args.counts == {"2": 50, "true": 2, "null": 3, "hard": 4}


@pytest.mark.parametrize("success", [float("nan"), float("inf")])
def test_success_is_a_number_that_rewards_reach(success: float) -> None:
    with pytest.raises(UserError, match="success: Input should be a finite number"):
        validate(BalanceArgs, {"by": "difficulty", "success": success}, "recipe")


def test_a_field_of_the_row_is_named_by_its_root() -> None:
    with pytest.raises(UserError, match=r"unknown fact 'level'; a field of the row is task\.level"):
        steps(BalanceArgs(by="level"))


def test_groups_that_do_not_fit_are_not_told_to_repeat(tmp_path: Path) -> None:
    given = [Sample(0, at, "math", b"%d" % (at // 4), b"", 0.0, {}) for at in range(80)]
    _, _, work = balance(given, tmp_path, counts={"math": 150}, unit="group", upsample=True)
    assert "math: 148 rows instead of 150, no more whole groups fit (unit: row parts them)" in work.warnings
    _, _, work = balance(given, tmp_path, counts={"math": 150}, unit="group")
    assert "math: 80 rows instead of 150, there are no more; upsample: true repeats some" in work.warnings


def test_shares_that_nobody_can_have(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"^balance by env \(of the rows given\): no rows of 'games' for its share; rows there are: code 10, math 50",
    ):
        balance(samples(math=50, code=10), tmp_path, shares={"games": 0.5, "math": 0.5})


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    assert balance([], tmp_path)[:2] == ([], [])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 500), min_size=1),
    weights=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)
def test_shares_come_true_without_copies(sizes: dict[str, int], weights: list[float]) -> None:
    shares = dict(zip(sizes, weights, strict=False))
    targets = share_out(sizes, shares, upsample=False)
    assert all(targets[name] <= sizes[name] for name in sizes)
    whole, weight = sum(targets.values()), sum(shares.values())
    assert all(abs(targets[name] - whole * share / weight) <= len(sizes) for name, share in shares.items())
    left = {name: count for name, count in targets.items() if count}
    if len(left) == len(shares):  # what has these shares keeps all its rows
        assert share_out(left, shares, upsample=False) == left
