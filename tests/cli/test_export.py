from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError
from rollforge.export.nemo_rl.check_config import check_config
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


def test_jobs_of_several_nodes_are_looked_at_by_their_launch_script(rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "two nodes"
    version = "openrlhf=v0.11.2"
    code, shown = run(
        rollouts, "--to", "openrlhf:sft", "--nodes", "2", "--gpus", "1", "--target-version", version, "--out", out
    )
    assert code == 0, shown
    assert f"next: bash '{out}/openrlhf-sft/launch.sh' --check" in shown
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    job = subprocess.run(["bash", out / "openrlhf-sft/job.sh", "--check"], capture_output=True, text=True, env=outside)
    assert job.returncode == 2
    assert "bash launch.sh" in job.stderr
    with pytest.raises(UserError, match="--to openrlhf:sft: batches of at most"):
        run(rollouts, "--to", "openrlhf:sft", "--nodes", "100", "--out", tmp_path / "many")


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
        (["--to", "trl:sft", "--out", "x", "--reasoning", "maybe"], "--reasoning 'maybe'"),
        (["--to", "nemo-rl:sft", "--out", "x", "--set", "polcy.model_name=a"], "did you mean policy"),
        (["--to", "nemo-rl:sft", "--out", "x", "--set", "grpo.seed=1"], "unknown part of nemo-rl:sft's configuration"),
        (["--to", "trl:sft", "--out", "x", "--set", "foo.bar=1"], "--set foo.bar: .*aim it: --set trl:sft:foo.bar="),
        (["--to", "trl:sft", "--out", "x", "--set", "nemo-rl:policy.x=1"], "unknown target 'nemo-rl'; .*trl:sft"),
    ],
)
def test_wrong_requests(rollouts: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(rollouts, *arguments)


def test_settings_aimed_at_one_target(rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kinds = ("nemo-rl:grpo", "nemo-rl:sft", "trl:sft")
    sets = ["nemo-rl:grpo:grpo.seed=7", "nemo-rl:policy.precision=float32", "nemo-rl:sft:policy.precision=bfloat16"]
    sets.append("trl:seed=3")
    arguments = [word for kind in kinds for word in ("--to", kind)] + [word for one in sets for word in ("--set", one)]
    code, shown = run(rollouts, *arguments, "--out", out, "--set", "nemo-rl:sft:polcy.x=1")
    made = {name: yaml.safe_load((out / name / f"{name.rpartition('-')[2]}.yaml").read_text()) for name in names(kinds)}
    assert made["nemo-rl-grpo"]["grpo"]["seed"] == 7
    assert made["nemo-rl-grpo"]["policy"]["precision"] == "float32"
    assert made["nemo-rl-sft"]["policy"]["precision"] == "bfloat16"
    assert "grpo" not in made["nemo-rl-sft"]
    assert (made["trl-sft"]["seed"], made["nemo-rl-sft"]["polcy"]) == (3, {"x": 1})
    assert "warning: --set polcy.x: unknown part of nemo-rl:sft's configuration" in shown
    assert code == 0, shown


def names(kinds: tuple[str, ...]) -> list[str]:
    return [kind.replace(":", "-") for kind in kinds]


def test_settings_by_option(rollouts: Path, tmp_path: Path) -> None:
    arguments = ("--max-length", 512, "--epochs", 5, "--batch-size", 4, "--logger", "wandb", "--learning-rate", "0.001")
    code, shown = run(rollouts, "--to", "trl:sft", "--out", tmp_path / "out", *arguments)
    assert code == 0, shown
    made = yaml.safe_load((tmp_path / "out" / "trl-sft" / "sft.yaml").read_text())
    assert (made["max_length"], made["num_train_epochs"], made["report_to"]) == (512, 5, "wandb")
    assert made["per_device_train_batch_size"] * made["gradient_accumulation_steps"] == 4
    assert made["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("nemo-rl:sft", ["--logger", "wandb"]),
        ("nemo-rl:sft", ["--set", "logger.wandb_enabled=true"]),
        ("trl:sft", ["--set", "report_to=[wandb]"]),
        ("verl:grpo", ["--set", "trainer.logger=[console, wandb]"]),
        ("openrlhf:sft", ["--set", "logger.wandb.key=true"]),
    ],
)
def test_a_launch_that_logs_to_wandb_asks_for_its_key(rollouts: Path, tmp_path: Path, to: str, options: list[str]) -> None:
    for name, given in (("with", options), ("without", [])):
        run(rollouts, "--to", to, "--out", tmp_path / name, *given)
        script = (tmp_path / name / to.replace(":", "-") / "launch.sh").read_text()
        assert ("have_token WANDB_API_KEY" in script) == (name == "with")


def test_several_nodes_of_nemo_rl_want_an_image(rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = ("--to", "nemo-rl:sft", "--out", out, "--nodes", "2", "--home", tmp_path)
    run(rollouts, *wanted)
    launch = out / "nemo-rl-sft" / "launch.sh"
    done = subprocess.run(["bash", launch, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert "the environment variable CONTAINER is not set" in done.stderr
    run(rollouts, *wanted, "--container", "img", "--overwrite")
    assert "have_variable CONTAINER" not in launch.read_text()
    assert "CONTAINER=img" in launch.read_text()


def test_rows_that_trl_would_cut_are_warned_about(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"{n}?", "word " * 100) for n in range(3)])
    _, cut = run(file, "--to", "trl:sft", "--to", "trl:dpo", "--out", tmp_path / "cut", "--max-length", "20")
    assert "3 of 3 rows are longer than --max-length 20, the longest of about" in cut
    assert "TRL cuts them without a word" in cut
    _, whole = run(file, "--to", "trl:sft", "--out", tmp_path / "whole")
    assert "cuts them" not in whole


def test_an_older_version_is_checked_as_that_version(rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(rollouts, "--to", "nemo-rl:sft", "--out", out, "--target-version", "nemo-rl=0.5")
    found = json.loads((out / "nemo-rl-sft" / "check.json").read_text())["problems"]
    assert not any("are not read" in one["message"] for one in found)
    anybody = tmp_path / "sft.yaml"
    anybody.write_text((out / "nemo-rl-sft" / "sft.yaml").read_text().partition("\n")[2])
    assert any("they are not read" in one.message for one in check_config("sft", anybody))


def test_validation_batches_are_no_larger_than_the_data(rollouts: Path, tmp_path: Path) -> None:
    run(rollouts, "--to", "nemo-rl:sft", "--out", tmp_path / "out", "--validation", "0.5")
    folder = tmp_path / "out" / "nemo-rl-sft"
    made = yaml.safe_load((folder / "sft.yaml").read_text())
    assert made["sft"]["val_global_batch_size"] == len(lines(folder / "validation.jsonl")) < 8


def test_errors_are_shown_before_warnings(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"{n}?", expected_answer=f"Lake {'x' * n}y") for n in range(9)])
    option = ("--set", "data.default.env_name=unknown_math")
    code, shown = run(file, "--to", "nemo-rl:grpo", "--out", tmp_path / "out", "--validation", "0", *option)
    assert code == 1
    found = [line for line in shown.splitlines() if ": error: " in line or ": warning: 'output'" in line]
    assert [": error: " in line for line in found] == [True, False, False, False, False]
