"""The filter step: which rows it keeps, and what it says of the others."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.config import validate
from rollforge.curate import filter as module
from rollforge.curate.facts import Field
from rollforge.curate.filter import Absent, Filter, FilterArgs, steps
from rollforge.curate.grammar import ExpressionError
from rollforge.curate.run import curate_rollouts
from rollforge.curate.step import Drop, Sample, Workspace
from rollforge.errors import UserError
from tests.curate.made import called, record, said, sample, through, worked


def test_rows_are_dropped_by_the_part_that_failed(tmp_path: Path) -> None:
    rows = [
        record(reward=1.0),
        record(reward=0.5),
        record(reward=1.0, response={"status": "incomplete"}),
        record(reward=1.0, output=called()),
    ]
    kept, reasons = through(Filter('reward >= 0.8 and not truncated and (turns > 3 or text == "four")'), rows, tmp_path)
    assert kept == [0]
    assert reasons == ["not reward >= 0.8", "truncated", 'not (turns > 3 or text == "four")']


def test_missing_fields_and_other_types_are_reasons(tmp_path: Path) -> None:
    rows = [record(level=3), record(level=1), record(), record(level="hard"), record(level=None)]
    kept, reasons = through(Filter("task.level > 2"), rows, tmp_path)
    assert kept == [0]
    assert reasons == ["not task.level > 2", "no task.level", "task.level is text, compared with a number", "no task.level"]


def test_groups(tmp_path: Path) -> None:
    rewards = {"a": [1, 0, 0, 1], "b": [1, 1], "c": [0], "d": [0.9, 0.4, 0.6]}
    groups = [name for name, some in rewards.items() for _ in some]
    rows = [record(reward=reward) for some in rewards.values() for reward in some]

    def kept(text: str, **more: Any) -> list[int]:
        return through(Filter(text, **more), rows, tmp_path, groups)[0]

    assert kept("0.2 <= group.solve_rate <= 0.8") == [0, 1, 2, 3]
    assert kept("0.2 <= group.solve_rate <= 0.8", success=0.6) == [0, 1, 2, 3, 7, 8, 9]
    assert kept("group.size > 1 and group.std == 0") == [4, 5]
    assert kept("group.size == 1") == [6]
    assert kept("group.best") == [0, 4, 6, 7]
    assert kept("group.gap >= 0.5") == [0, 1, 2, 3, 7, 8, 9]
    assert kept("reward > group.mean") == [0, 3, 7]
    assert kept("reward == group.min and group.min < group.max") == [1, 2, 8]
    assert kept("abs(group.std - 0.2516611) < 1e-6") == [7, 8, 9]


def test_rewards_that_differ_in_the_last_bit_are_equal(tmp_path: Path) -> None:
    rows = [record(reward=0.1 + 0.2), record(reward=0.3), record(reward=0.7), record(reward=0.5)]
    groups = ["a", "a", "b", "b"]
    assert through(Filter("reward == 0.3"), rows, tmp_path, groups)[0] == [0, 1]
    assert through(Filter("group.gap >= 0.2"), rows, tmp_path, groups)[0] == [2, 3]
    assert through(Filter("group.gap > 0"), rows, tmp_path, groups)[0] == [2, 3]
    assert through(Filter("group.best"), rows, tmp_path, groups)[0] == [0, 2]


def test_a_reward_is_equal_to_the_same_number_elsewhere(tmp_path: Path) -> None:
    thirds = [record(reward=third, accuracy=third, floor=[third]) for third in (1 / 3, 2 / 3)]
    for text in (
        "reward == metrics.accuracy and reward in task.floor",
        "reward >= 1 / 3 and reward <= 2 / 3",
        "reward in [0.3333333333333333, 0.6666666666666666]",
        "group.max * 3 == 1 or group.min == 0.6666666666666666",
        "abs(reward - metrics.accuracy) < 1e-12",
    ):
        assert through(Filter(text), thirds, tmp_path, ["a", "b"])[0] == [0, 1], text
    assert through(Filter("reward < 2 / 3"), thirds, tmp_path)[0] == [0]


def test_a_large_group_is_not_held_in_memory(tmp_path: Path) -> None:
    count = module.MOST + 500
    row = record()
    step = Filter("group.best or group.mean < 0.4 and reward > 0")
    first = sample(row, step)
    samples = (Sample(0, at, "math", b"g", b"p", float(at % 3 == 1), dict(first.facts)) for at in range(count))
    done = list(step(samples, Workspace(tmp_path)))
    assert sum(isinstance(each, Sample) for each in done) == sum(at % 3 == 1 for at in range(count))
    assert len(done) == count


def test_what_earlier_steps_changed_counts(tmp_path: Path) -> None:
    step = Filter('reward > 5 and task.reward > 5 and task.task_name == "new" and source == "runs/a"')
    changed = sample(record(reward=1.0, task_name="old"), step)
    changed.reward, changed.changes = 10.0, {"reward": 10.0, "task_name": "new"}
    unchanged = sample(record(reward=10.0, task_name="new"), step)
    other = sample(record(reward=10.0), step)
    work = Workspace(tmp_path, runs=["runs/a"])
    done = list(step([changed, unchanged, other], work))
    assert done[:2] == [changed, unchanged]
    assert isinstance(done[2], Drop)
    assert done[2].reason == "no task.task_name"


def test_texts_do_not_travel(tmp_path: Path) -> None:
    """What a row alone decides is decided where the row is read."""
    long = "a" * 100_000 + "b"
    step = Filter('contains(text, "b") and (reward > 2 or matches(text, "b$") or len(prompt) > reward)')
    row = record([said(long)], reward=0.5)
    facts = pickle.loads(pickle.dumps(dict(step.facts)))
    assert len(pickle.dumps({name: fact(row) for name, fact in facts.items()})) < 1000
    assert through(step, [row, record()], tmp_path) == ([0], ['not contains(text, "b")'])


def test_estimated_token_counts_are_said(tmp_path: Path) -> None:
    rows = [record(), record(response={"usage": {"output_tokens": 1}})]
    kept, _, work = worked(Filter("tokens < 4000"), rows, tmp_path)
    assert kept == [0, 1]
    assert work.warnings == ["1 of 2 rows have no token counts; they are estimated at 4 bytes a token"]
    assert worked(Filter("reward > 0"), rows, tmp_path)[2].warnings == []
    # Of each count for itself.
    rows += [record(response={"usage": {"input_tokens": 5}}), record(response={"usage": {"total_tokens": 5}})]
    for name, guessed in (("tokens", 3), ("prompt_tokens", 3), ("total_tokens", 3)):
        assert worked(Filter(f"{name} < 4000"), rows, tmp_path)[2].warnings[0].startswith(f"{guessed} of 4 rows")
    known = [record(response={"usage": {"input_tokens": 5}})]
    assert worked(Filter("prompt_tokens < 4000"), known, tmp_path)[2].warnings == []


def test_arguments() -> None:
    assert [step.name for step in steps(FilterArgs.short("reward > 0"))] == ["filter reward > 0"]
    assert [step.name for step in steps(FilterArgs.short(["reward > 0", "not\n  empty"]))] == [
        "filter reward > 0",
        "filter not empty",
    ]
    assert validate(FilterArgs, {"keep": "reward > 0", "success": 0.5}, "recipe").success == 0.5
    for wrong in (3, [], [3], None):
        with pytest.raises(UserError, match="no expression"):
            FilterArgs.short(wrong)
    with pytest.raises(UserError, match="keep"):
        validate(FilterArgs, {"keep": []}, "recipe")
    with pytest.raises(UserError, match="success: Input should be a finite number"):
        validate(FilterArgs, {"keep": "reward > 0", "success": float("nan")}, "recipe")
    with pytest.raises(ExpressionError, match="did you mean tokens"):
        steps(FilterArgs.short(["reward > 0", "tokns > 3"]))


@pytest.mark.parametrize(
    ("groups", "rewards", "told"),
    [
        ("abc", (0.0, 1.0, 1.0), "Every task has one attempt here"),
        ("aabb", (0.0, 1.0, 1.0, 1.0), "Tasks have at most 2 attempts here"),
        ("aabb", (0.0, 0.0, 1.0, 1.0), "All attempts at a task (at most 2) have equal rewards here"),
    ],
)
def test_why_no_group_is_kept(groups: str, rewards: tuple[float, ...], told: str, tmp_path: Path) -> None:
    records = [record(reward=reward) for reward in rewards]
    kept, _, work = worked(Filter("group.size == 4"), records, tmp_path, groups)
    assert kept == []
    assert len(work.warnings) == 1
    assert work.warnings[0].startswith(f"it drops everything. {told}")


def test_facts_are_shared_by_name() -> None:
    one, other = Filter("reward > 0 or task.a > 1"), Filter("task.a > 1 and turns == 2")
    assert one.facts.keys() & other.facts.keys() == {"task.a > 1", "no task.a"}
    assert one.facts["task.a > 1"] == other.facts["task.a > 1"]
    assert one.facts["no task.a"] == other.facts["no task.a"]
    assert Filter("task.a > reward").facts == {"task.a": (a := Field("task", ("a",))), "no task.a": Absent(a)}


def test_a_field_that_no_row_has_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [record(level="hard"), record(metrics={"accuracy": 1}), record(level=None, seen=1)]
    file.write_bytes(b"\n".join(row.line for row in rows))
    expression = 'task.levl != "easy" and task.level != "easy" and metrics.accuracy < 2 and task.other == null'
    report = curate_rollouts(file, tmp_path / "out", recipe={"steps": [{"filter": f"{expression} or reward >= 0"}]}).report
    (warning,) = report.stages[1].warnings
    assert warning == "unknown field 'task.levl'; did you mean task.level? (no row here has it)"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0])), max_size=12))
def test_group_numbers_are_those_of_the_definition(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    records = [record(reward=reward) for _, reward in rows]
    names = [name for name, _ in rows]
    kept, _ = through(Filter("group.solve_rate > 0.4 and group.gap > 0"), records, folder, names)
    wanted = []
    for at, name in enumerate(names):
        own = [reward for other, reward in rows if other == name]
        if sum(reward == 1 for reward in own) / len(own) > 0.4 and max(own) > min(own):
            wanted.append(at)
    assert kept == wanted
