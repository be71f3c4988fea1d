"""The run directory: one writer, one configuration, nothing overwritten, and what is done read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollforge.collect.plan import Done
from rollforge.collect.run_dir import RunDir
from rollforge.collect.tally import Tally
from rollforge.errors import SetupError, UserError
from rollforge.records.rollout import Outcome
from rollforge.records.rows import read_rollouts
from tests.collect.parts import rollout, rows

IDENTITY = {"env": {"use": "a", "digest": "1"}, "repeats": 2, "sampling": {"stop": ["x"]}, "seed": None, "tasks": None}
ABOUT = {"seed": 5, "planned": 4}
FAULT = Outcome.INFRA_FAULT


def opened(path: Path, **identity: Any) -> RunDir:
    return RunDir(path, {**IDENTITY, **identity}, ABOUT)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_a_run_leaves(tmp_path: Path) -> None:
    with opened(tmp_path / "runs" / "a") as run:
        for outcome in Outcome:
            run.append(rollout(outcome))
        run.write_metrics({"planned": 4})
    folder = tmp_path / "runs" / "a"
    assert sorted(os.listdir(folder)) == [".lock", "failures.jsonl", "metrics.json", "rollouts.jsonl", "run.json"]
    assert json.loads((folder / "run.json").read_text()) == {**ABOUT, "identity": IDENTITY}
    assert [row["rollforge"]["outcome"] for row in rows(folder / "rollouts.jsonl")] == ["scored", "policy_fault"]
    assert len(rows(folder / "failures.jsonl")) == 5
    assert json.loads((folder / "metrics.json").read_text()) == {"planned": 4}


def test_taking_a_run_up_keeps_all_of_it(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.append(rollout())
        run.write_metrics({})
    before = contents(tmp_path)
    with RunDir(tmp_path, IDENTITY, {"seed": 999, "planned": 1}) as run:
        assert run.about["seed"] == 5
    assert contents(tmp_path) == before


def test_identity_is_compared_as_json_has_it(tmp_path: Path) -> None:
    with opened(tmp_path, sampling={"stop": ("x", Path("y"))}):
        pass
    with opened(tmp_path, sampling={"stop": ["x", "y"]}):
        pass


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"repeats": 3}, ["repeats: 2 there, 3 now"]),
        ({"seed": 7}, ["seed: not set there, 7 now"]),
        ({"sampling": {"stop": ["y"]}}, ['sampling.stop: ["x"] there, ["y"] now']),
        ({"sampling": {"stop": ["x"], "top_k": 1}}, ["sampling.top_k: not set there, 1 now"]),
        ({"sampling": {}}, ['sampling.stop: ["x"] there, not set now']),
        ({"env": {"use": "a", "digest": "2"}}, ['env.digest (the environment\'s code): "1" there, "2" now']),
        ({"env": {"use": "b", "digest": "1"}, "repeats": 1}, ['env.use: "a" there, "b" now', "repeats: 2 there, 1 now"]),
        ({"tasks": {"sha256": "f"}}, ['tasks: not set there, {"sha256": "f"} now']),
        ({"sampling": {"stop": ["z" * 500]}}, ["z" * 50]),
    ],
)
def test_another_configuration_is_refused_and_each_difference_named(
    tmp_path: Path, changed: dict[str, Any], named: list[str]
) -> None:
    with opened(tmp_path) as run:
        run.append(rollout())
    before = contents(tmp_path)
    with pytest.raises(UserError, match="was collected with another configuration") as caught:
        opened(tmp_path, **changed)
    lines = str(caught.value).splitlines()[1:-1]
    assert len(lines) == len(named)
    assert all(expected in line for expected, line in zip(named, lines, strict=True))
    assert max(map(len, lines)) < 250
    assert contents(tmp_path) == before


# One writer


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(UserError, match=rf"is being written by another collection \(process {os.getpid()}\)"),
    ):
        opened(tmp_path)
    with opened(tmp_path):
        pass


WRITER = """
import sys, time
from pathlib import Path
from rollforge.collect.run_dir import RunDir
with RunDir(Path(sys.argv[1]), {"a": 1}, {"seed": 1, "planned": 1}) as run:
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_while_the_first_lives_and_taken_when_it_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=rf"by another collection \(process {first.pid}\)"):
            RunDir(tmp_path, {"a": 1}, {"seed": 1, "planned": 1})
        first.send_signal(signal.SIGKILL)
        first.wait()
        with RunDir(tmp_path, {"a": 1}, {"seed": 1, "planned": 1}):
            pass


def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    for _ in range(2):
        with pytest.raises(UserError, match="another configuration"):
            opened(tmp_path, repeats=3)
    (tmp_path / "failures.jsonl").unlink()
    (tmp_path / "failures.jsonl").mkdir()
    for _ in range(2):
        with pytest.raises(SetupError, match=r"cannot write .*failures.jsonl: Is a directory"):
            opened(tmp_path)
    (tmp_path / "failures.jsonl").rmdir()
    with opened(tmp_path):
        pass


# Places that are no run directory


@pytest.mark.parametrize("name", ["notes.txt", "rollouts.jsonl", "metrics.json", ".hidden", "runs/other/run.json"])
def test_a_foreign_directory_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(UserError, match=rf"is not empty and no run directory: it has no run.json, but {name.split('/')[0]}"):
        opened(tmp_path)
    assert contents(tmp_path) == {name: b"mine\n"}


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", "run.tmp"]])
def test_a_run_killed_at_its_beginning_begins_again(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text('{"half')
    with opened(tmp_path) as run:
        assert run.about["identity"] == IDENTITY


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"identity": {}}', '{"seed": 1, "planned": 1}', '{"identity": {}, "seed": 1}']
)
def test_a_broken_run_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run.json is not as a collection left it"):
        opened(tmp_path)
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize("path", ["file", "file/under", "link"])
def test_no_place_for_a_directory(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(UserError, match=f"cannot use {tmp_path / path} as a run directory: "):
        opened(tmp_path / path)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A directory that this process may read and not write; who is root is somebody else for a while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir()
        (folder / "run" / "run.json").write_text(json.dumps({**ABOUT, "identity": IDENTITY}))
        for path, mode in ((folder, 0o755), (folder / "run", 0o555), (folder / "run" / "run.json", 0o444)):
            path.chmod(mode)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65_534)
        yield folder
        if root:
            os.seteuid(0)
        (folder / "run").chmod(0o755)


def test_a_read_only_directory(read_only: Path) -> None:
    for path in ("run", "run/new"):
        with pytest.raises(UserError, match=rf"cannot use {read_only / path} as a run directory: Permission denied"):
            opened(read_only / path)


# What is stored, and what is done


def done(path: Path, max_attempts: int = 3, retry_failed: bool = False) -> tuple[Done, Tally]:
    tally = Tally(planned=10)
    with opened(path) as run:
        return run.done(max_attempts, retry_failed, tally), tally


def test_done_is_what_has_a_reward_or_failed_for_good(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.append(rollout(index=0, repeat=0))
        run.append(rollout(Outcome.POLICY_FAULT, index=0, repeat=1))
        run.append(rollout(FAULT, index=1, repeat=0, retryable=True))  # interrupted before its second attempt
        run.append(rollout(Outcome.VERIFIER_FAULT, index=1, repeat=1))
        for attempt in (1, 2, 3):  # used up
            run.append(rollout(FAULT, index=2, repeat=0, attempt=attempt, retryable=True))
        run.append(rollout(FAULT, index=2, repeat=1, attempt=1, retryable=True))  # mended by its second attempt
        run.append(rollout(index=2, repeat=1, attempt=2))
    found, tally = done(tmp_path)
    assert [key for key in [(i, r) for i in range(4) for r in range(2)] if key in found] == [
        (0, 0),
        (0, 1),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert found.attempts((1, 0)) == 1
    assert (tally.before, tally.done, tally.judged, tally.reward_sum) == (5, 5, 3, 2.0)
    assert tally.row()["outcomes"] == {
        **dict.fromkeys(Outcome, 0),
        "scored": 2,
        "policy_fault": 1,
        "infra_fault": 1,
        "verifier_fault": 1,
        "cancelled": 5,
    }
    assert (tally.tokens_in, tally.session_in) == (35, 0)


def test_more_attempts_allowed_than_before(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        for attempt in (1, 2, 3):
            run.append(rollout(FAULT, attempt=attempt, retryable=True))
    found, tally = done(tmp_path, max_attempts=5)
    assert ((0, 0) in found, found.attempts((0, 0)), tally.before) == (False, 3, 0)
    found, tally = done(tmp_path, max_attempts=2)
    assert ((0, 0) in found, tally.outcomes[FAULT]) == (True, 1)


def test_retry_failed_counts_nothing_twice(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        for attempt in (1, 2, 3):
            run.append(rollout(FAULT, index=0, attempt=attempt, retryable=True))
        run.append(rollout(Outcome.VERIFIER_FAULT, index=1))
        run.append(rollout(index=2))
    found, tally = done(tmp_path, retry_failed=True)
    assert [(index, 0) in found for index in range(3)] == [False, False, True]
    assert [found.attempts((index, 0)) for index in range(3)] == [3, 1, 0]
    assert (tally.before, tally.done) == (1, 1)
    with opened(tmp_path) as run:  # the retried ones end: one with a reward, one in another way
        run.append(rollout(index=0, attempt=4))
        run.append(rollout(Outcome.TIMEOUT, index=1, attempt=2))
    for retry_failed, outcomes in ((False, {Outcome.SCORED: 2, Outcome.TIMEOUT: 1}), (True, {Outcome.SCORED: 2})):
        _, tally = done(tmp_path, retry_failed=retry_failed)
        assert +tally.outcomes == outcomes


def test_a_key_stored_twice_counts_once(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.append(rollout())
        run.append(rollout())
    assert done(tmp_path)[1].done == 1


def test_a_torn_tail_is_repaired_before_it_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.append(rollout(index=0))
        run.append(rollout(index=1))
    file = tmp_path / "rollouts.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    found, _ = done(tmp_path)
    assert [(index, 0) in found for index in range(2)] == [True, False]
    assert file.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"5",
        b"\x00\x00",
        b'{"rollforge": 5}',
        b'{"rollforge": {"outcome": "wonderful"}}',
        b'{"_ng_task_index": "a"}',
        b'{"_ng_rollout_index": -1}',
    ],
)
@pytest.mark.parametrize("name", ["rollouts.jsonl", "failures.jsonl"])
def test_a_line_that_is_no_row_is_named_and_left(tmp_path: Path, name: str, line: bytes) -> None:
    with opened(tmp_path) as run:
        run.append(rollout())
        run.append(rollout(FAULT, index=1))
    file = tmp_path / name
    file.write_bytes(file.read_bytes() + line + b"\n")
    before = file.read_bytes()
    with pytest.raises(UserError, match=rf"{name}:2: not a row of this run .*; remove the line .*: sed -i 2d "):
        done(tmp_path)
    assert file.read_bytes() == before


class Strange:
    def __repr__(self) -> str:
        return "<strange>"


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize("value", [Strange(), {"deep": [Strange()]}, CIRCLE], ids=["object", "nested", "circle"])
@pytest.mark.parametrize("place", ["fields", "response"])
def test_a_rollout_that_json_cannot_hold_is_a_fault_of_its_environment(tmp_path: Path, place: str, value: Any) -> None:
    given = rollout(index=3, repeat=1)
    given = replace(given, fields={"x": value}) if place == "fields" else replace(given, response={"output": value})
    with opened(tmp_path) as run:
        stored = run.append(given)
    assert (stored.outcome, stored.reward, stored.task_index, stored.index) == (Outcome.VERIFIER_FAULT, None, 3, 1)
    assert stored.failure is not None
    assert "cannot be written as JSON" in stored.failure.message
    (read,) = read_rollouts(tmp_path / "failures.jsonl")
    assert read == stored
    assert (tmp_path / "rollouts.jsonl").read_bytes() == b""


def test_the_length_of_the_plan_is_settled_when_it_is_known(tmp_path: Path) -> None:
    with RunDir(tmp_path, IDENTITY, {"seed": 5, "planned": None}) as run:
        run.settle_plan(12)
    assert json.loads((tmp_path / "run.json").read_text()) == {"seed": 5, "planned": 12, "identity": IDENTITY}
