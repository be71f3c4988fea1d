from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError
from tests.export.toy import lines, row, write


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    rows = [
        row(f"{n} + 1?", f"{n + repeat}", float(repeat), expected_answer=str(n + 1)) for n in range(9) for repeat in (0, 1)
    ]
    return write(tmp_path / "a.jsonl", rows)


def test_several_targets(rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, shown = run(rollouts, "--to", "trl:sft", "--to", "trl:dpo", "--to", "nemo-rl:grpo", "--out", out, "--seed", "1")
    assert code == 0, shown
    assert "trl:sft" in shown
    assert "left out: reward < 0.95 (--min-reward)" in shown
    assert f"next: bash {out}/nemo-rl-grpo/launch.sh --check" in shown
    found = [one for file in (out / "nemo-rl-grpo").glob("*.jsonl") for one in lines(file)]
    assert sorted(one["output"] for one in found) == [str(n) for n in range(1, 10)]


def test_as_json(rollouts: Path, tmp_path: Path) -> None:
    code, shown = run(rollouts, "--to", "trl:sft", "--out", tmp_path / "out", "--validation", "0", "--json")
    assert code == 0
    (target,) = json.loads(shown)["targets"]
    assert (target["target"], target["rows"]) == ("trl:sft", 9)
    assert target["left_out"] == {"reward < 0.95 (--min-reward)": 9}


def test_a_file_of_options(rollouts: Path, tmp_path: Path) -> None:
    config = tmp_path / "export.yaml"
    config.write_text(f"runs: [{rollouts}]\nto: [trl:sft]\nmin_reward: 0\nvalidation: 0\nset: {{seed: 3}}\n")
    code, _ = run("--config", config, "--out", tmp_path / "out", "--min-reward", "0.5", "--set", "warmup_steps=5")
    assert code == 0
    assert len(lines(tmp_path / "out" / "trl-sft" / "train.jsonl")) == 9
    settings = json.loads((tmp_path / "out" / "trl-sft" / "manifest.json").read_text())["settings"]
    assert settings["set"] == {"seed": 3, "warmup_steps": 5}


def test_no_pairs_is_a_failure_that_says_why(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row("1?"), row("2?")])
    code, shown = run(file, "--to", "trl:dpo", "--out", tmp_path / "out")
    assert code == 1
    assert "collect with --repeats 4 or more" in shown
    assert "nothing was written" in shown
    assert not (tmp_path / "out").exists()


def test_unusable_lines_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(), "{", row(), "{"])
    _, shown = run(file, "--to", "trl:sft", "--out", tmp_path / "out", "--min-coverage", "0")
    [line] = [line for line in shown.splitlines() if line.startswith("unusable: ")]
    assert f"{file}:2" in line
    assert "and 1 more" in line


def test_what_models_wrote_does_not_steer_the_terminal(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(), "\x1b[2J{"])
    _, shown = run(file, "--to", "trl:sft", "--out", tmp_path / "out", "--min-coverage", "0")
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "trl:sft"], "--out DIR"),
        (["--out", "x"], "--to nemo-rl:grpo"),
        (["--to", "trll:sft", "--out", "x"], "did you mean trl"),
        (["--to", "trl", "--out", "x"], "trl:sft"),
        (["--to", "trl:sft", "--out", "x", "--target-version", "trl"], "not of the form"),
        (["--to", "trl:sft", "--out", "x", "--reasoning", "maybe"], "reasoning"),
    ],
)
def test_wrong_requests(rollouts: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(rollouts, *arguments)
