"""Which rollouts are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rollforge.records.items import assistant
from rollforge.records.rollout import Rollout
from rollforge.stats.pick import Choice, Filter, extremes, failed, first
from rollforge.stats.source import Source, find_run
from tests.stats.made import called, made, write

USED = [*called("add", "3"), assistant("4")]


def run(path: Path, rollouts: list[Rollout], failures: list[Rollout] | None = None) -> Source:
    write(path / "failures.jsonl", failures or [])
    write(path / "rollouts.jsonl", rollouts)
    with open(path / "rollouts.jsonl", "a") as file:
        file.write("\nnot json\n")
    return find_run(path)


def told(choices: list[Choice]) -> list[tuple[str, int | None, int | None]]:
    return [(choice.title, choice.rollout.task_index, choice.rollout.index) for choice in choices]


def test_best_and_worst_are_of_one_task(tmp_path: Path) -> None:
    rollouts = [
        made(1.0, 0, 0),  # the first best, but its task has no failure
        made(0.0, 1, 0),  # the first worst, but its task has no success
        made(0.0, 2, 0, output=[]),  # silent: nothing to learn
        made(0.0, 2, 1, output=USED),
        made(1.0, 2, 2, output=USED),
        made(0.5, 2, 3),
    ]
    assert told(extremes(run(tmp_path, rollouts), Filter(), best=1, worst=1)) == [("best", 2, 2), ("worst", 2, 1)]


def test_equal_names_in_two_environments_are_two_tasks(tmp_path: Path) -> None:
    rollouts = [
        made(1.0, 0, 0, env="a"),
        made(0.0, 0, 0, env="b"),
        made(1.0, 1, 0, env="b", output=[]),
        made(0.0, 1, 1, env="b"),
    ]
    assert told(extremes(run(tmp_path, rollouts), Filter(), best=1, worst=1)) == [("best", 1, 0), ("worst", 1, 1)]


def test_an_answer_that_was_cut_is_no_example(tmp_path: Path) -> None:
    rollouts = [made(1.0, 0, 0, response={"status": "incomplete"}), made(1.0, 1, 0)]
    assert told(extremes(run(tmp_path, rollouts), Filter(), best=1, worst=0)) == [("best", 1, 0)]


def test_no_task_with_both(tmp_path: Path) -> None:
    source = run(tmp_path, [made(0.3, 0), made(1.0, 1), made(0.2, 2, output=[]), made(0.2, 3)])
    assert told(extremes(source, Filter(), best=1, worst=1)) == [("best", 1, 0), ("worst", 3, 0)]
    assert told(extremes(source, Filter(), best=0, worst=3)) == [("worst", 3, 0), ("worst", 2, 0), ("worst", 0, 0)]


def test_equal_rewards_and_only_one(tmp_path: Path) -> None:
    source = run(tmp_path, [made(1.0, 0), made(1.0, 1)])
    titles = [title for title, *_ in told(extremes(source, Filter(), best=1, worst=1))]
    assert titles == ["best (rewards are equal)", "worst (rewards are equal)"]
    only = extremes(source, Filter(task="1"), best=1, worst=1)
    assert told(only) == [("best and worst, being the only one", 1, 0)]


def test_failures_are_the_last_of_each_that_has_no_reward(tmp_path: Path) -> None:
    failures = [made(None, 0, 0), made(None, 1, 0, attempt=1), made(None, 1, 0, attempt=2), made(None, 2, 0)]
    source = run(tmp_path, [made(1.0, 0, 0)], failures)
    found = failed(source, Filter(), 5)
    assert told(found) == [("failure 1 of 2", 1, 0), ("failure 2 of 2", 2, 0)]
    assert found[0].rollout.attempt == 2
    assert told(failed(source, Filter(task="2"), 1)) == [("failure 1 of 1", 2, 0)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), [(0, 0), (0, 1), (1, 0)]),
        (Filter(task="0"), [(0, 0), (0, 1)]),
        (Filter(task="task0001"), [(1, 0)]),
        (Filter(task="task"), [(0, 0), (0, 1), (1, 0)]),
        (Filter(task="tas"), []),
        (Filter(task="7"), []),
        (Filter(index=1), [(0, 1)]),
        (Filter(task="1", index=1), []),
    ],
)
def test_filter(tmp_path: Path, wanted: Filter, expected: list[tuple[int, int]]) -> None:
    source = run(tmp_path, [made(1.0, 0, 0), made(1.0, 0, 1), made(1.0, 1, 0)])
    assert [(task, index) for _, task, index in told(list(first(source, wanted, 9)))] == expected
    assert len(list(first(source, wanted, 1))) == min(1, len(expected))


def test_tasks_of_several_collections_are_not_one(tmp_path: Path) -> None:
    def numbered(reward: float | None, prompt: str) -> Rollout:
        """As of NeMo Gym, which counts the tasks of every collection from 0."""
        return replace(made(reward, prompt=prompt, env=None), task="0")

    rollouts = [numbered(1.0, "a"), numbered(0.0, "b"), numbered(0.0, "a")]
    source = run(tmp_path, rollouts, [numbered(None, "b"), numbered(None, "c")])
    found = extremes(source, Filter(), best=1, worst=1)
    assert [(one.title, one.rollout.params["input"]) for one in found] == [("best", "a"), ("worst", "a")]
    assert [one.rollout.params["input"] for one in failed(source, Filter(), 5)] == ["c"]
