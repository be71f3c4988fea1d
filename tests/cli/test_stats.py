"""`rollforge stats` as a user types it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rollforge.cli.main import app
from rollforge.errors import UserError
from rollforge.records.rollout import Rollout
from tests.stats.made import grid, made, write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["stats", *map(str, arguments)])


@pytest.fixture
def math(tmp_path: Path) -> Path:
    """A run directory: 6 tasks, 4 repeats, one mended failure, one for good, 2 not run."""
    write(tmp_path / "math/rollouts.jsonl", grid([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]] * 2))
    write(tmp_path / "math/failures.jsonl", [made(None, 0, 0), made(None, 6, 0)])
    (tmp_path / "math/run.json").write_text(json.dumps({"planned": 27}))
    return tmp_path / "math"


def test_the_report(math: Path) -> None:
    result = run(math)
    assert result.exit_code == 0
    assert "25 rollouts (24 with a reward, of 6 tasks): scored 24, infra fault 1, not run 2 (coverage 88.9%)" in " ".join(
        result.stdout.split()
    )
    assert "\x1b" not in result.stdout
    assert not any(line != line.rstrip() for line in result.stdout.splitlines())


def test_a_run_given_twice(math: Path) -> None:
    result = run(math, math / "rollouts.jsonl")
    assert result.exit_code == 1
    assert "is given twice" in str(result.exception)


def test_json(math: Path) -> None:
    result = run(math, "--json")
    row = json.loads(result.stdout)
    assert (row["runs"], row["planned"], row["not_run"], len(row["tasks"])) == ([str(math)], 27, 2, 6)
    assert row["environments"]["math"]["outcomes"]["infra_fault"] == 1
    assert row["overall"]["reward"]["mean"]["value"] == 0.5


def test_json_is_ascii(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", [made(prompt="\x9b31m naïve\u202e")])
    assert run(file, "--json").stdout.isascii()
    assert json.loads(run(file, "--json").stdout)["tasks"][0]["prompt"] == "\x9b31m naïve\u202e"


def test_html(math: Path, tmp_path: Path) -> None:
    result = run(math, "--html", tmp_path / "report.html")
    assert result.exit_code == 0
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_several_runs_and_one_environment(math: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "games.jsonl", [made(2.0, t, env=None) for t in range(3)])
    result = run(math, other)
    assert "in 2 environments" in result.stdout
    assert "environment games: 3 rollouts" in run(math, other, "--env", "games").stdout
    asked = run(math, other, "--env", "gmaes")
    assert isinstance(asked.exception, UserError)
    assert "did you mean games" in str(asked.exception)


def test_one_environment_as_json(math: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "games.jsonl", [made(2.0, t, env=None) for t in range(3)])
    row = json.loads(run(math, other, "--env", "games", "--json").stdout)
    assert [*row["environments"]] == ["games"]
    assert [one["env"] for one in row["tasks"]] == ["games"] * 3
    assert row["failures"] == []
    assert row["overall"]["judged"] == 27
    asked = run(math, other, "--env", "gmaes", "--json", "--html", tmp_path / "report.html")
    assert "did you mean games" in str(asked.exception)
    assert not (tmp_path / "report.html").exists()


def test_tasks_and_threshold(math: Path) -> None:
    assert "Tasks, hardest first" in run(math).stdout
    assert "Tasks, hardest first" not in run(math, "--tasks", 0).stdout
    assert run(math, "--tasks", -1).exit_code == 2
    assert "0.0% of rollouts" in run(math, "--success", 2).stdout


def test_bad_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "some.jsonl", [made()])
    with open(file, "a") as lines:
        lines.write("<PLACEHOLDER ROW>\n" * 8)
    assert "8 lines could not be used" in run(file).stdout
    assert "and 3 more" in run(file).stdout
    assert run(file, "--bad").stdout.count("PLACEHOLDER") == 8


def test_rows_without_a_usable_reward(tmp_path: Path) -> None:
    file = write(tmp_path / "some.jsonl", [made(), made(0.0, 0, 1)])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[1]["rollforge"]["outcome"]
    with open(file, "w") as lines:
        for reward in (None, "good", 10**400):
            lines.write(json.dumps({**rows[1], "reward": reward}) + "\n")
        lines.write(json.dumps(rows[0]) + "\n")
    assert "4 rollouts (1 with a reward, of 1 task): scored 1, no usable reward 3 (coverage 25.0%)" in " ".join(
        run(file).stdout.split()
    )
    row = json.loads(run(file, "--json").stdout)
    assert (row["overall"]["unrewarded"], row["overall"]["coverage"], row["bad_count"]) == (3, 0.25, 3)


@pytest.mark.parametrize("text", ["", "\n", "<PLACEHOLDER ROW>\n", '{"prompt": "a task"}\n'])
def test_a_file_without_rollouts_fails(tmp_path: Path, math: Path, text: str) -> None:
    file = tmp_path / "none.jsonl"
    file.write_text(text, encoding="latin-1")
    for runs in ([file], [math, file]):
        result = run(*runs)
        assert result.exit_code == 1
        assert result.stderr == f"error: no usable rollout in {file}\n"


@pytest.mark.parametrize("verb", ["stats", "show", "advise"])
def test_what_is_not_json_lines_is_named(tmp_path: Path, verb: str) -> None:
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(b"{}\n" * 100))
    result = CliRunner().invoke(app, [verb, str(packed)])
    assert isinstance(result.exception, UserError)
    assert "compressed (gzip): gunzip <" in str(result.exception)
    assert result.stdout == ""


def test_nothing_there(tmp_path: Path) -> None:
    result = run(tmp_path / "run")
    assert isinstance(result.exception, UserError)


ODD: list[Any] = [
    {"responses_create_params": {"input": "a"}, "output": [], "reward": 0.5},
    {
        "responses_create_params": {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "output": [],
        "reward": -3,
    },
    {
        "responses_create_params": {"input": "b"},
        "response": {"output": [{"type": "reasoning"}], "usage": None},
        "reward": True,
    },
    {"responses_create_params": {"input": "b"}, "response": {"output": [[]]}, "reward": 1.0},
    {"responses_create_params": {"input": "b"}, "response": {"output": []}, "reward": None},
    {"responses_create_params": {"input": "b"}, "response": {"output": []}, "reward": 1.0, "rollforge": {"seconds": [1]}},
]


def test_odd_rows(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ODD))
    row = json.loads(run(file, "--json").stdout)
    assert (row["overall"]["judged"], row["bad_count"]) == (3, 3)
    assert run(file).exit_code == 0


def test_many_files(tmp_path: Path) -> None:
    rollouts: list[Rollout] = [made(1.0, env=None)]
    files = [write(tmp_path / f"environment_number_{number}.jsonl", rollouts) for number in range(20)]
    result = run(*files)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
