"""Statistics of files, read in parts and in several processes, are those of the rollouts as objects."""

from pathlib import Path
from typing import Any

import pytest

from rollforge.bulk import blocks
from rollforge.records.items import assistant
from rollforge.records.rows import read_rollouts
from rollforge.stats import profile
from rollforge.stats.profiling import profile_files
from rollforge.stats.source import Source
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
