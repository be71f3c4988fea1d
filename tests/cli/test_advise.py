"""`rollforge advise` as a user types it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rollforge.cli.main import app
from rollforge.errors import UserError
from tests.stats.made import grid, made, write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["advise", *map(str, arguments)])


@pytest.fixture
def math(tmp_path: Path) -> Path:
    write(tmp_path / "math/rollouts.jsonl", grid([[1, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 1]] * 50))
    return tmp_path / "math"


def test_the_report(math: Path) -> None:
    result = run(math, "--model", "Qwen2.5-7B")
    assert result.exit_code == 0
    assert "Recommended: GRPO" in result.stdout
    for title in ("Measured", "The others, in order", "What not to do", "Rewards", "What to collect next", "GPUs for"):
        assert title in result.stdout
    assert "\x1b" not in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_commands_can_be_copied(tmp_path: Path) -> None:
    files = [write(tmp_path / f"a rather long name of a file {n}.jsonl", grid([[1.0, 0.0]] * 100)) for n in range(3)]
    shown = run(*files).stdout.replace(" \\\n   ", "")
    line = next(line for line in shown.splitlines() if "rollforge curate" in line)
    names = " ".join(f"'{file}'" for file in files)
    assert line.strip() == f"$ rollforge curate {names} --preset grpo --split 95/5 --out curated-grpo"


def test_quotes_in_names(tmp_path: Path) -> None:
    file = write(tmp_path / 'it\'s a "run".jsonl', grid([[1.0, 0.0]] * 100))
    shown = run(file).stdout.replace(" \\\n   ", "")
    line = next(line for line in shown.splitlines() if "rollforge curate" in line)
    words = ["rollforge", "curate", str(file), "--preset", "grpo", "--split", "95/5", "--out", "curated-grpo"]
    assert shlex.split(line.strip().removeprefix("$ ")) == words


def test_expected_answers_are_looked_for(math: Path, tmp_path: Path) -> None:
    assert "0% of those looked at" in run(math).stdout
    assert "nemo-rl:nemo-gym" in run(math).stdout
    rows = grid([[1.0, 0.0]] * 100, fields={"expected_answer": "4"})
    shown = run(write(tmp_path / "answered.jsonl", rows)).stdout
    assert "100% of those looked at" in shown
    assert "nemo-rl:grpo" in shown


def test_expected_answers_are_looked_for_in_all_of_a_file(tmp_path: Path) -> None:
    """Environments of a mix stand one after another."""
    answered, others = grid([[1.0, 0.0]] * 100, fields={"expected_answer": "4"}), grid([[1.0, 0.0]] * 900, env="others")
    shown = run(write(tmp_path / "mix.jsonl", [*answered, *others])).stdout
    share = int(re.search(r"(\d+)% of those looked at", shown)[1])  # type: ignore[index]
    assert 8 <= share <= 13
    assert "nemo-rl:nemo-gym" in shown


def test_tools_are_looked_for(tmp_path: Path) -> None:
    params = {"input": "2+2?", "tools": [{"type": "function", "name": "add", "parameters": {}}]}
    rows = grid([[1.0, 0.0]] * 100, fields={"expected_answer": "4"}, params=params)
    shown = run(write(tmp_path / "tools.jsonl", rows)).stdout
    assert "train live" in shown
    assert "--to nemo-rl:nemo-gym" in shown


def test_a_row_in_another_encoding(tmp_path: Path) -> None:
    rows = grid([[1.0, 0.0]] * 100, fields={"expected_answer": "caf\u00e9"})
    file = write(tmp_path / "mixed.jsonl", rows)
    first, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first.decode().encode("latin-1") + b"".join(rest))
    result = run(file)
    assert result.exit_code == 0, result.output
    assert "100% of those looked at" in result.stdout


def test_json(math: Path) -> None:
    row = json.loads(run(math, "--json").stdout)
    assert (row["recommended"], row["runs"], row["bad_count"]) == ("GRPO", [str(math)], 0)
    assert run(math, "--json").stdout.isascii()


def test_several_environments(math: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "games.jsonl", [made(2.0, t, env=None) for t in range(3)])
    assert "1 other " in run(math, other).stdout
    assert "different ranges" in " ".join(run(math, other).stdout.split())


def test_names_are_safe_to_print(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.jsonl", [made(1.0, t, env=f"\x1b[31m{n}") for t in range(30)]) for n in range(2)]
    assert "\x1b" not in run(*files).stdout
    assert "\\x1b[31m1" in run(*files).stdout


def test_a_split_directory(tmp_path: Path) -> None:
    for name, repeats in (("train", 100), ("validation", 20)):
        write(tmp_path / f"{name}.jsonl", grid([[1.0, 0.0]] * repeats))
    assert "--split" in run(tmp_path / "train.jsonl").stdout
    assert "--split" not in run(tmp_path).stdout


def test_a_run_given_twice(math: Path) -> None:
    twice = run(math, f"{math}/../math")
    assert isinstance(twice.exception, UserError)
    assert "given twice" in str(twice.exception)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\x1f\x8bx", "gzip"), (b"\x00\x01", "binary"), (b'[{"reward": 1}]', "one JSON array")],
)
def test_what_is_not_json_lines(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    result = run(tmp_path / "x.jsonl")
    assert result.stdout == ""
    assert told in str(result.exception)


@pytest.mark.parametrize(("content", "told"), [("", "(empty)"), ('{"messages": []}\n', "a trainer's examples")])
def test_without_a_rollout_there_is_no_advice(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    result = run(tmp_path / "x.jsonl")
    assert result.exit_code == 1
    assert told in result.stderr
    assert "Recommended" not in result.stdout


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reward": "0.5"}, "in its first row: reward is '0.5', not a number"),
        ({"reward": None}, "in its first row: no reward"),
        ({"response": {"output": 3}}, "in its first row: output is int, not a list of items"),
        ({"response": None}, "in its first row: no response.output and no output"),
        ({"responses_create_params": {"input": [{"type": "item_reference"}]}}, "has an item of type 'item_reference'"),
    ],
)
def test_rows_with_all_keys_that_cannot_be_used(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    row = {"responses_create_params": {"input": "q"}, "response": {"output": []}, "reward": 1, **changes}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    result = run(tmp_path / "x.jsonl")
    assert result.exit_code == 1
    assert told in result.stderr


def test_nothing_to_use(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text("no\n" * 3)
    result = run(file)
    assert result.exit_code == 1
    assert "3 lines could not be used" in result.stdout
    file.write_text("no\n")
    assert "\n1 line could not be used" in run(file).stdout
    assert "no usable rollout" in result.output
    missing = run(tmp_path / "missing.jsonl")
    assert isinstance(missing.exception, UserError)
