"""`rollforge curate` as a user types it."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rollforge.cli.main import app
from rollforge.errors import UserError
from tests.stats.made import grid, made, write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["curate", *map(str, arguments)])


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture
def math(tmp_path: Path) -> Path:
    """40 tasks, two attempts each, one of them right; a failure."""
    write(tmp_path / "math/rollouts.jsonl", grid([[1, 0]] * 40))
    write(tmp_path / "math/failures.jsonl", [made(None, 0, 0)])
    return tmp_path / "math"


def test_options_make_a_recipe_in_their_order(math: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(math, "--out", out, "--split", "80/20", "--dedup", "prompt", "--filter", "reward >= 0.5", "--keep-dropped")
    assert result.exit_code == 0, result.output
    shown = [line.split()[0] for line in result.stdout.splitlines() if line and not line.startswith(" ")]
    assert shown[:5] == ["step", "read", "filter", "dedup", "split"]
    assert f"wrote 40 rows to {out}" in " ".join(result.stdout.split())
    assert "\x1b" not in result.stdout
    train, validation = rows(out / "train.jsonl"), rows(out / "validation.jsonl")
    assert (len(train) + len(validation), len(rows(out / "dropped.jsonl"))) == (40, 41)
    prompts = [{row["responses_create_params"]["input"] for row in split} for split in (train, validation)]
    assert not prompts[0] & prompts[1]


def test_the_written_recipe_does_the_same_again(math: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    options = ("--preset", "grpo", "--balance", "env", "--cap", 20, "--shape", "clip", "--seed", 5)
    assert run(math, "--out", first, *options).exit_code == 0
    assert run(math, "--out", second, "--recipe", first / "recipe.yaml").exit_code == 0
    for name in ("rollouts.jsonl", "recipe.yaml", "report.json", "dropped.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert len(rows(second / "rollouts.jsonl")) == 20


def test_what_stays_beside_a_new_result_is_said(math: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "kept, since" not in run(math, "--out", out).stdout
    (out / "notes.txt").touch()
    result = run(math, "--out", out, "--overwrite")
    assert "  kept, since no curation wrote it: notes.txt" in result.stdout.splitlines()
    assert (out / "notes.txt").exists()


def test_an_earlier_split_goes_on_by_its_shares(math: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    assert run(math, "--out", first, "--split", "60/20/20").exit_code == 0
    result = run(math, "--out", second, "--split-from", first)
    assert "split 60/20/20" in result.stdout
    for side in ("train", "validation", "test"):
        assert (first / f"{side}.jsonl").read_bytes() == (second / f"{side}.jsonl").read_bytes()


def test_a_split_made_anew_over_another_says_how_to_keep_the_sides(math: Path, tmp_path: Path) -> None:
    more, out = tmp_path / "more.jsonl", tmp_path / "out"
    write(more, grid([[1, 0]]))

    def says(*options: Any) -> bool:
        result = run(*options, "--out", out, "--overwrite")
        assert result.exit_code == 0, result.output
        return "held a split of other rows" in " ".join(result.stdout.split())

    assert not says(math, "--split", "80/20")
    assert not says(math, "--split", "80/20")
    assert says(math, "--split", "70/30")
    assert says(math, more, "--split", "70/30")
    assert not says(math, "--split-from", out)
    assert not says(math, "--dedup", "both")
    assert not says(math, "--split", "80/20")


def test_two_splits_are_one_too_many(math: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("steps: [split: 90/10]")
    result = run(math, "--out", tmp_path / "out", "--recipe", tmp_path / "r.yaml", "--split", "80/20")
    assert "steps 1 and 2 are splits, and a prompt has one side" in str(result.exception)
    old = tmp_path / "old"
    run(math, "--out", old, "--split", "80/20")
    result = run(math, "--out", tmp_path / "out", "--recipe", tmp_path / "r.yaml", "--split-from", old)
    assert f"r.yaml splits already: write previous: {old} there" in str(result.exception)


def test_options_come_after_the_recipe(math: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("seed: 4\nsteps:\n  - filter: reward < 0.5\n")
    result = run(math, "--out", tmp_path / "out", "--recipe", recipe, "--dedup", "prompt", "--json")
    report = json.loads(result.stdout)
    assert [stage["step"].split()[0] for stage in report["funnel"]] == ["read", "filter", "dedup"]
    assert json.loads((tmp_path / "out/manifest.json").read_text())["seed"] == 4
    assert report["written"]["rollouts"]["reward"]["max"] == 0


def test_a_mix_of_runs(math: Path, tmp_path: Path) -> None:
    write(tmp_path / "code.jsonl", [made(1.0, task, env="code") for task in range(10)])
    options = ("--mix", "math=1", "--mix", "code=1", "--upsample")
    result = run(math, tmp_path / "code.jsonl", "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert Counter(row["task_name"] for row in rows(tmp_path / "out/rollouts.jsonl")) == {"math": 45, "code": 45}
    assert "warning: mix math 1, code 1: code: its rows are repeated up to 5 times" in " ".join(result.stdout.split())


def test_a_later_split_keeps_the_sides(math: Path, tmp_path: Path) -> None:
    assert run(math, "--out", tmp_path / "1", "--split", "80/20").exit_code == 0
    write(tmp_path / "more/rollouts.jsonl", grid([[1, 0]] * 60))
    assert run(tmp_path / "more", "--out", tmp_path / "2", "--split", "80/20", "--split-from", tmp_path / "1").exit_code == 0
    for name in ("train", "validation"):
        old, new = (
            {row["responses_create_params"]["input"] for row in rows(tmp_path / number / f"{name}.jsonl")} for number in "12"
        )
        assert old < new


def test_nothing_left_is_an_error(math: Path, tmp_path: Path) -> None:
    result = run(math, "--out", tmp_path / "out", "--filter", "reward > 7")
    assert result.exit_code == 1
    assert "not reward > 7" in result.stdout
    assert "error: no row is left: the step 'filter reward > 7' left nothing; nothing was written" in result.stderr
    assert os.listdir(tmp_path) == ["math"]


def test_what_is_no_rollouts_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\x1f\x8b\x08" + bytes(range(256)) * 9)
    result = run(tmp_path / "x.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"error: no row is left: {tmp_path}/x.jsonl: the file is compressed (gzip): gunzip" in result.stderr
    assert len(result.stdout) < 2000


def test_fields_that_no_row_has(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", [made(1.0, task, fields={"level": "easy", "meta": {"kind": "a"}}) for task in range(6)])
    for by, message in (
        ("task.levle", "unknown field 'task.levle'; did you mean task.level"),
        ("task.meta.kindd", "unknown field 'task.meta.kindd'; did you mean task.meta.kind"),
        ("usage.nothing", "unknown field 'usage.nothing'"),
    ):
        result = run(tmp_path / "x.jsonl", "--out", tmp_path / "out", "--balance", by, "--cap", 3)
        assert isinstance(result.exception, UserError)
        assert message in str(result.exception)
        assert f"(no row has it, in balance by {by})" in str(result.exception)
    write(tmp_path / "x.jsonl", [made(1.0, 0, fields={"level": "easy"}), *(made(1.0, task) for task in (1, 2))])
    result = run(tmp_path / "x.jsonl", "--out", tmp_path / "out", "--balance", "task.level", "--upsample")
    said = " ".join(result.stdout.split())
    assert "2 of 3 rows have no task.level; they are a category of their own, null" in said
    assert "1 of the rows are copies. SFT trains on each of them; prompts (GRPO) and pairs (DPO) are made once" in said


def test_a_group_expression_after_a_filter_on_rewards_says_why_nothing_is_left(math: Path, tmp_path: Path) -> None:
    one, two = "reward >= 0.8", "0.2 <= group.solve_rate <= 0.8"
    result = run(math, "--out", tmp_path / "out", "--filter", one, "--filter", two)
    assert result.exit_code == 1
    assert "group.* counts only the attempts that the steps before left" in " ".join(result.stdout.split())
    assert run(math, "--out", tmp_path / "out", "--filter", two, "--filter", one).exit_code == 0
    assert run(math, "--out", tmp_path / "more", "--filter", f"{one} and {two}").exit_code == 0


def test_a_pattern_without_an_end_ends(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", [made(1.0, 0, reply="a" * 41 + "!"), made(1.0, 1, reply="aaa")])
    result = run(tmp_path / "x.jsonl", "--out", tmp_path / "out", "--filter", 'matches(text, "(a+)+$")', "--keep-dropped")
    assert result.exit_code == 0, result.output
    (dropped,) = rows(tmp_path / "out/dropped.jsonl")
    assert dropped["rollforge"]["dropped"]["reason"] == "the pattern '(a+)+$' takes more than 1 s on the text"
    assert len(rows(tmp_path / "out/rollouts.jsonl")) == 1


def test_json_is_ascii(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", [made(env="naïve\x9b31m")])
    result = run(tmp_path / "x.jsonl", "--out", tmp_path / "out", "--json")
    assert result.stdout.isascii()
    assert list(json.loads(result.stdout)["read"]["environments"]) == ["naïve\x9b31m"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cap", "5"], "--cap is a part of --balance"),
        (["--upsample"], "--upsample is a part of --balance and --mix"),
        (["--mix", "math"], "write NAME=WEIGHT, such as math=0.7"),
        (["--mix", "math=1", "--mix", "math=2"], "--mix math=2: math has a weight already"),
        (["--mix", "math=much"], "write NAME=WEIGHT, such as math=0.7"),
        (["--split", "most"], "such as 90/10"),
        (["--split", "100"], "such as 90/10"),
        (["--preset", "sfd"], "sft"),
        (["--filter", "rewrd > 1"], "reward"),
        (["--shape", "norm"], "options, step 1 (shape): method"),
        (["--recipe", "nowhere.yaml"], "cannot read nowhere.yaml"),
    ],
)
def test_what_cannot_be_meant(math: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = run(math, "--out", tmp_path / "out", *options)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert os.listdir(tmp_path) == ["math"]
