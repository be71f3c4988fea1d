"""Scores, failure modes and their examples."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollforge.evaluate.attempts import Attempts, read_attempts
from rollforge.evaluate.modes import CALLED, OTHER_CALLS, SAME_CALLS, failure_mode
from rollforge.evaluate.score import failure_modes, score, solved_calls, task_scores
from rollforge.records.items import assistant
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.stats.source import find_run
from tests.stats.made import called, grid, made, write

TOOLS: dict[str, Any] = {"params": {"input": "q", "tools": [{"type": "function", "name": "add"}]}}


@pytest.mark.parametrize(
    ("rollout", "mode"),
    [
        (made(1), ""),
        (made(None), "no reward: infra_fault in model"),
        (made(0, outcome=Outcome.POLICY_FAULT, failure=Failure("tools", "PolicyFault", "")), "policy fault: PolicyFault"),
        (made(0, response={"incomplete_details": {"reason": "max_output_tokens"}}), "cut off: max_output_tokens"),
        (made(0, response={"incomplete_details": "odd"}), "cut off: odd"),
        (made(0, response={"incomplete_details": {"reason": None}}), "cut off: unknown"),
        (made(0, response={"status": "incomplete"}), "cut off: unknown"),
        (made(0, reply=" "), "no reply"),
        (made(0, output=[]), "no reply"),
        (made(0, fields={"extracted_answer": None}), "no answer in the reply"),
        (made(0, output=[*called("add", "Error: no"), assistant("4")], **TOOLS), "a tool call failed"),
        (made(0, output=[*called("add", "5"), assistant("4")], **TOOLS), CALLED),
        (made(0, **TOOLS), "no tool called"),
        (made(0.5), "partly right"),
        (made(0), "wrong answer"),
        (made(-1.0), "wrong answer"),
        (made(0, response={"incomplete_details": {"reason": "\x1b[31m"}}), "cut off: \\x1b[31m"),
    ],
)
def test_modes(rollout: Rollout, mode: str) -> None:
    assert failure_mode(rollout, 1.0) == mode


def test_success_is_what_the_caller_says() -> None:
    assert failure_mode(made(0.5), 0.5) == ""
    assert failure_mode(made(1), 2.0) == "partly right"


def read(folder: Path, rollouts: list[Rollout], **options: Any) -> Attempts:
    return read_attempts([find_run(write(folder / "a" / "rollouts.jsonl", rollouts))], 1.0, **options)


def test_a_score_has_pass_at_k_with_intervals(tmp_path: Path) -> None:
    found = score(read(tmp_path, [*grid([[1, 0, 0], [1, 1, 1], [0, 0, 0]]), made(None, 3, 0)]), 1.0, planned=12)
    assert (found.judged, found.planned, found.tasks, found.coverage) == (9, 12, 3, 0.75)
    assert found.reward.value == pytest.approx(4 / 9)
    assert [(row.k, row.tasks) for row in found.pass_at] == [(1, 3), (2, 3), (3, 3)]
    assert [row.share.value for row in found.pass_at] == pytest.approx([4 / 9, (2 / 3 + 1) / 3, 2 / 3])
    assert all(row.share.low is not None for row in found.pass_at)


def test_nothing_judged_is_no_score_and_no_crash(tmp_path: Path) -> None:
    attempts = read(tmp_path, [made(None, 0, 0)])
    assert score(attempts, 1.0).reward.value is None
    assert score(attempts, 1.0).coverage == 0
    assert list(task_scores(attempts, 1.0)) == []
    assert [mode.name for mode in failure_modes(attempts, set(), 1)] == ["no reward: infra_fault in model"]


def test_tasks_in_the_order_they_came(tmp_path: Path) -> None:
    rows = list(task_scores(read(tmp_path, grid([[1, 0], [0, 0], [1, 1]])), 1.0))
    assert [(row.index, row.solved, row.rollouts, row.mean) for row in rows] == [
        (0, 1, 2, 0.5),
        (1, 0, 2, 0.0),
        (2, 2, 2, 1.0),
    ]


def test_wrong_answers_after_the_calls_that_solve_are_told_from_others(tmp_path: Path) -> None:
    def rollout(reward: float, index: int, arguments: str, task: int = 0) -> Rollout:
        return made(reward, task, index, output=[*called("add", "5", arguments=arguments), assistant("x")])

    right = '{"a": 2, "b": 3}'
    attempts = read(
        tmp_path,
        [
            rollout(1, 0, right),
            rollout(0, 1, '{"b":3,"a":2}'),
            rollout(0, 2, "{}"),
            rollout(0, 3, "no {"),
            rollout(0, 0, right, 1),
        ],
    )
    modes = failure_modes(attempts, solved_calls([attempts]), 2)
    assert {mode.name: mode.count for mode in modes} == {SAME_CALLS: 1, OTHER_CALLS: 2, CALLED: 1}
    assert sum(mode.share for mode in modes) == pytest.approx(4 / 5)


def test_examples_are_of_different_tasks_and_their_command_shows_them(tmp_path: Path) -> None:
    rollouts = [
        made(0, task, index, reply=f"it is \x1b[31m{task}", fields={"answer": 4}) for task in range(3) for index in range(2)
    ]
    attempts = read(tmp_path, rollouts)
    (mode,) = failure_modes(attempts, set(), 2)
    assert (mode.count, len(mode.examples)) == (6, 2)
    assert len({example.task for example in mode.examples}) == 2
    example = mode.examples[1]
    assert example.what == "reply: it is \\x1b[31m1; expected: 4"
    command = [str(Path(sys.executable).parent / "rollforge"), *shlex.split(example.command)[1:]]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "question 1" in shown.stdout


def test_many_values_are_no_category_unless_asked_for(tmp_path: Path) -> None:
    rows = [made(1, n, 0, fields={"kind": f"k{n}", "meta": {"level": n % 2}}) for n in range(30)]
    assert read(tmp_path, rows).categories == {}
    asked = read(tmp_path, rows, by=["kind", "meta.level"]).categories
    assert len(asked["kind"][1]) == 30
    assert asked["meta.level"][1] == ["0", "1"]


def test_a_category_may_have_any_name_and_a_repeat_any_number(tmp_path: Path) -> None:
    rows = [made(1, n, 2**63 + n, fields={"source": f"s{n % 2}", "task": "t"}) for n in range(4)]
    attempts = read(tmp_path, rows, by=["source", "task"])
    assert [codes for _, codes in attempts.categories.values()] == [["s0", "s1"], ["t"]]
    assert attempts.place[:, 0].tolist() == [0] * 4
    assert len(set(attempts.task.tolist())) == 4
