"""Statistics of files, read in parts and in several processes, are those of the rollouts as objects."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollforge.bulk import blocks
from rollforge.bulk.record import Record
from rollforge.records.items import assistant
from rollforge.records.rows import BadLine, dump, read_rollouts
from rollforge.stats import profile
from rollforge.stats.columns import MOST_ENVS
from rollforge.stats.profiling import profile_files
from rollforge.stats.source import Source
from rollforge.stats.visible import OTHERS
from tests.stats.made import called, grid, made, write

SHAPES = Path(__file__).parents[1] / "records/rows/rollouts.jsonl"


def source(file: Path) -> Source:
    return Source(str(file), (file,), None, "")


def numbers(found: Any) -> dict[str, Any]:
    """All but the ids of tasks that name none: the two ways of reading name them differently."""
    row: dict[str, Any] = found.row(tasks=True)
    for task in row["tasks"]:
        if len(task["task"]) == 16:
            task["task"] = ""
    return row


ROWS = [
    *grid([[1, 0, 1], [0.5, 0.5], [0]]),
    *grid([[1, 1]], env="other", output=[*called("add", '{"error": "no"}'), assistant("7")]),
    made(
        1.0, 9, 0, response={"usage": {"input_tokens": 5, "output_tokens": 7}, "incomplete_details": {"reason": "max_turns"}}
    ),
    made(None, 8, 0),
    made(None, 8, 1),
    made(0.0, 8, 1, fields={"accuracy": 0.5, "extracted_answer": ["a"], "reward_components": {"x": 1}, "task_id": 7}),
    made(1.0, 8, 1, seconds={"total": 2.0}, reply="x" * 500),
]


@pytest.mark.parametrize("workers", [1, 2])
def test_files_and_objects_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    file = write(tmp_path / "rollouts.jsonl", ROWS)
    with file.open("ab") as handle:
        handle.write(b"not JSON\n\n[1]\n" + SHAPES.read_bytes() + b'{"torn": ')
    monkeypatch.setattr(blocks, "SIZE", 300)
    rollouts = list(read_rollouts(file))
    whole = profile(rollouts, success=0.5, keep_bad=9)
    read: list[int] = []
    found = profile_files(source(file), success=0.5, keep_bad=9, workers=workers, seen=read.append)
    assert numbers(found) == numbers(whole)
    assert found.bad == whole.bad
    assert sum(read) == file.stat().st_size
    assert profile_files(source(file), source(file), keep_bad=1).row() == profile(rollouts, rollouts, keep_bad=1).row()


def collected(day: int, attempts: int = 1, env: str = "math") -> list[dict[str, Any]]:
    """NeMo Gym's rows, in which the tasks of every collection are counted from 0; the first attempt of each failed."""
    rows = []
    for task in range(3):
        for attempt in range(attempts):
            rows.append(
                {
                    "responses_create_params": {"input": f"question {task} of day {day}"},
                    "response": {"output": [assistant(f"answer {attempt}")]},
                    "reward": float(attempt),
                    "_ng_task_index": task,
                    "_ng_rollout_index": attempt,
                    "agent_ref": {"name": env},
                }
            )
    return [{**row, "reward": 0.0, "_ng_failure_class": "judge_failed"} for row in rows[:1]] + rows


@pytest.mark.parametrize("days", [[0, 1, 2], [0, 0]])
def test_indices_of_tasks_begin_anew_in_every_collection(days: list[int], tmp_path: Path) -> None:
    different = len(set(days))
    rows = [row for day in days for row in collected(day, attempts=2)]
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"".join(map(dump, rows)))
    for found in (profile_files(source(file)), profile(read_rollouts(file))):
        stats = found.overall.stats
        assert (stats.tasks, stats.judged, stats.groups.mixed_prompts) == (3 * different, 6 * len(days), 0)
        assert found.repeated == 6 * (len(days) - different)
        assert sorted(task.rollouts for task in found.tasks()) == [6 * len(days) // (3 * different)] * 3 * different
        assert (found.failed_attempts, found.failures) == (len(days), [])
    # The names that rows get when they are written again do not make one task of several.
    again = write(tmp_path / "again.jsonl", [row for row in read_rollouts(file) if not isinstance(row, BadLine)])
    assert profile_files(source(again)).overall.stats.tasks == 3 * different
    assert profile(read_rollouts(again)).overall.stats.tasks == 3 * different


@pytest.mark.parametrize("index", [{}, {"_ng_task_index": 0}])
@pytest.mark.parametrize(
    "truth",
    [
        lambda answer: {"expected_answer": answer},
        lambda answer: {"verifier_metadata": {"expected_answer": answer}},
        lambda answer: {"reward_model": {"ground_truth": answer}},
        lambda answer: {"responses_create_params": {"input": "q", "metadata": {"ground_truth": answer}}},
        lambda answer: {"responses_create_params": {"input": "q", "tools": [{"type": "function", "name": answer}]}},
    ],
)
def test_the_same_question_with_another_answer_is_another_task(
    tmp_path: Path, truth: Callable[[str], dict[str, Any]], index: dict[str, int]
) -> None:
    rows = [
        {**collected(0)[1], "responses_create_params": {"input": "q"}, "reward": float(attempt), **truth(answer)}
        for answer in ("a", "b", "c")
        for attempt in range(2)
    ]
    rows = [{key: value for key, value in row.items() if key[:4] != "_ng_"} | index for row in rows]
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"".join(map(dump, rows)))
    again = write(tmp_path / "again.jsonl", [row for row in read_rollouts(file) if not isinstance(row, BadLine)])
    for found in (profile_files(source(file)), profile(read_rollouts(file)), profile_files(source(again))):
        stats = found.overall.stats
        assert (stats.tasks, stats.groups.count, stats.groups.mixed_prompts) == (3, 3, 0)
    with file.open("rb") as lines:
        assert len({Record(line).group for line in lines}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"expected_answer": "caf\\u00e9"', '"expected_answer":"café"'),
        ('"expected_answer": {"a": 1, "b": [2, 3]}', '"expected_answer":{"b":[2,3],"a":1}'),
        ('"reward_model": {"expected_answer": {"a": 1, "b": 2}}', '"reward_model":{"expected_answer":{"b":2,"a":1}}'),
        ('"responses_create_params": {"input": "q", "ground_truth": "\\u0041"}',
         '"responses_create_params": {"input": "q", "ground_truth": "A"}'),
        ('"responses_create_params": {"input": "q", "tools": [{"name": "f", "type": "function", "strict": null}]}',
         '"responses_create_params": {"input": "q", "tools": [{"type": "function", "name": "f"}]}'),
    ],
)  # fmt: skip
def test_what_a_task_expects_is_the_same_however_it_is_written(tmp_path: Path, one: str, other: str) -> None:
    files = []
    for number, said in enumerate((one, other)):
        about = {"_ng_task_index": 0, "_ng_rollout_index": number}
        row = {**collected(0)[1], **about, "responses_create_params": {"input": "q"}}
        row = {key: value for key, value in row.items() if key not in (said.split('"')[1], "rollforge")}
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_text(json.dumps(row)[:-1] + f", {said}}}\n", encoding="utf-8")
    rollouts = [row for file in files for row in read_rollouts(file)]
    assert not any(isinstance(row, BadLine) for row in rollouts)
    assert profile(rollouts).overall.stats.tasks == 1
    assert profile_files(Source("both", tuple(files), None, "")).overall.stats.tasks == 1
    assert len({Record(file.read_bytes().strip()).group for file in files}) == 1


def test_a_task_with_a_name_may_have_several_prompts(tmp_path: Path) -> None:
    rows = [made(1.0, 0, 0, prompt="a"), made(0.0, 0, 1, prompt="b")]
    file = write(tmp_path / "rollouts.jsonl", rows)
    for found in (profile_files(source(file)), profile(rows)):
        assert (found.overall.stats.tasks, found.overall.stats.groups.mixed_prompts) == (1, 1)


def test_more_environments_than_anybody_reads(tmp_path: Path) -> None:
    rows = [made(float(number % 2), 0, 0, env=f"env{number}") for number in range(MOST_ENVS + 3)]
    rows += [made(0.5, 0, 1, env="env0"), made(None, 1, 0, env="env0"), made(None, 1, 0, env="another")]
    file = write(tmp_path / "rollouts.jsonl", rows)
    for found in (profile(rows), profile_files(source(file))):
        by_name = {one.stats.name: one.stats for one in found.environments}
        assert len(by_name) == MOST_ENVS + 1
        assert (by_name["env0"].judged, by_name["env0"].tasks) == (2, 1)
        assert (by_name[OTHERS].judged, by_name[OTHERS].tasks) == (3, 3)  # of the same name, in several environments
        assert {(one.env, one.count) for one in found.failures} == {("env0", 1), (OTHERS, 1)}
        assert found.overall.stats.tasks == MOST_ENVS + 3
        assert found.repeated == 0


def test_more_rows_than_memory_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rollforge.stats.columns import Column, Store

    rows = [row for env in ("a", "b") for row in grid([[1, 0, 0.5, 1]] * 30, env=env)]
    rows[100:100] = [made(1.0, 200, 0, fields={"rare": 3.0})]
    expected = profile(rows).row(tasks=True)
    monkeypatch.setattr(Column, "AT_ONCE", 7)
    monkeypatch.setattr(Store, "IN_MEMORY", 10)
    monkeypatch.setattr(blocks, "SIZE", 2000)
    assert profile(rows).row(tasks=True) == expected
    assert profile_files(source(write(tmp_path / "rollouts.jsonl", rows))).row(tasks=True) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_chat_messages_in_a_response_are_the_items_they_stand_for(tmp_path: Path, workers: int) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    output: list[Any] = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Error: no"},
        {"role": "assistant", "content": "4", "tool_calls": []},
    ]
    rollouts = [made(output=output), made(task=1, output=[{**output[0], "tool_calls": [{"name": "add"}]}])]
    found = profile_files(source(write(tmp_path / "rollouts.jsonl", rollouts)), workers=workers)
    assert numbers(found) == numbers(profile(rollouts))
    stats = found.overall.stats
    assert [(tool.name, tool.calls, tool.errors) for tool in stats.tools] == [("add", 1, 1)]
    assert (stats.judged, stats.call_errors, stats.texts.no_reply) == (2, 1, 1)


def test_the_usage_of_chat_completions(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 2}}
    rollouts = [made(response={"usage": usage})]
    found = profile_files(source(write(tmp_path / "rollouts.jsonl", rollouts)))
    assert numbers(found) == numbers(profile(rollouts))
    assert {name: tokens.total for name, tokens in found.overall.stats.tokens.items()} == {
        "input": 5,
        "output": 7,
        "reasoning": 2,
    }
