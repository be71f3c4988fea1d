"""Finding runs and files, and which environment their rows are of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollforge.errors import UserError
from rollforge.records.rollout import Rollout
from rollforge.stats.source import find_each, find_run, split_of_file
from tests.stats.made import made, write


def test_a_run_directory(tmp_path: Path) -> None:
    write(tmp_path / "run/rollouts.jsonl", [made(1.0, 0)])
    write(tmp_path / "run/failures.jsonl", [made(None, 1)])
    (tmp_path / "run/run.json").write_text(json.dumps({"planned": 7}))
    source = find_run(tmp_path / "run")
    assert (source.planned, len(list(source.rollouts())), len(list(source.rollouts()))) == (7, 2, 2)


def test_what_is_given_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "run/rollouts.jsonl", [made()])
    other = write(tmp_path / "other.jsonl", [made()])
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    assert [source.name for source in find_each([tmp_path / "run", other])] == [str(tmp_path / "run"), str(other)]
    for again in (tmp_path / "run", file, tmp_path / "latest"):
        with pytest.raises(UserError, match=r"rollouts\.jsonl is given twice \(by .*run and .*\)"):
            find_each([tmp_path / "run", other, again])


@pytest.mark.parametrize("about", ['{"planned": null}', "{}", "[]", None])
def test_a_plan_that_is_not_known(tmp_path: Path, about: str | None) -> None:
    write(tmp_path / "rollouts.jsonl", [made()])
    if about is not None:
        (tmp_path / "run.json").write_text(about)
    assert find_run(tmp_path).planned is None


def test_a_broken_run_json_is_told(tmp_path: Path) -> None:
    write(tmp_path / "rollouts.jsonl", [made()])
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        find_run(tmp_path)


def test_the_sidecar_of_nemo_gym_is_read_too(tmp_path: Path) -> None:
    write(tmp_path / "math.jsonl", [made(1.0, 0)])
    write(tmp_path / "math_failures.jsonl", [made(None, 1)])
    assert [file.name for file in find_run(tmp_path / "math.jsonl").files] == ["math.jsonl", "math_failures.jsonl"]


@pytest.mark.parametrize(
    ("file", "row_env", "env"),
    [
        ("math.jsonl", "given", "given"),
        ("math.jsonl", None, "math"),
        ("math.rollouts.jsonl", None, "math"),
        ("monday/rollouts.jsonl", None, "monday"),
    ],
)
def test_environments_of_rows_that_name_none(tmp_path: Path, file: str, row_env: str | None, env: str) -> None:
    path = write(tmp_path / file, [made(env=row_env)])
    assert [row.env for row in find_run(path).rollouts() if isinstance(row, Rollout)] == [env]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("math.josnl", r"no .*math\.josnl; runs and JSONL files near it: .*math\.jsonl"),
        ("nowhere/math.jsonl", "no directory .*nowhere either"),
        ("empty", r"holds no rollouts\.jsonl$"),
        (".", r"holds no rollouts\.jsonl; run directories in it: run; files in it: math\.jsonl"),
        ("eval", r"holds no rollouts\.jsonl; run directories in it: one/math, two/math$"),
    ],
)
def test_what_is_not_there_names_what_is_near(tmp_path: Path, asked: str, message: str) -> None:
    write(tmp_path / "math.jsonl", [made()])
    for folder in ("run", "eval/two/math", "eval/one/math"):
        write(tmp_path / folder / "rollouts.jsonl", [made()])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_run(tmp_path / asked)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train training train-00000-of-3 gsm8k_train my.train.rollouts trainset Train"),
        ("validation", "val valid validation_2 dev devset eval evaluation pretrain-val gsm8k_dev"),
        ("test", "test tests testset 24test math.testing"),
        ("", "latest contest interval device-notes value trainer pretrain a1"),
    ],
)
def test_the_split_of_a_file_is_a_word_of_its_name(split: str, names: str) -> None:
    assert {name: split_of_file(f"train/{name}.jsonl") for name in names.split()} == dict.fromkeys(names.split(), split)
