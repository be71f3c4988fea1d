"""`rollforge loop` as a user types it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from rollforge.cli.main import app
from rollforge.errors import UserError
from rollforge.loop.config import read_config
from rollforge.loop.plan import check, plan
from tests.loop.parts import StandIn, recipe

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "loop").glob("*.yaml"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["loop", *map(str, arguments)])


@pytest.fixture
def collecting(tmp_path: Path) -> Path:
    """A recipe that trains nothing."""
    values = recipe(tmp_path, train=None, trained=None).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    file = tmp_path / "sums.yaml"
    file.write_text(yaml.safe_dump({**values, "out": str(tmp_path / "loop"), "target": {"times": 2}}))
    return file


def test_a_plan_then_the_loop_then_a_look_at_it(collecting: Path, tmp_path: Path) -> None:
    planned = run(collecting, "--dry-run")
    assert planned.exit_code == 0, planned.output
    steps = [line.split()[0] for line in planned.stdout.splitlines()]
    assert steps[:4] == ["tasks", "iteration-0/eval", "iteration-1/collect", "iteration-1/data"]
    assert "iteration-2/target" in steps
    assert not (tmp_path / "loop").exists()
    done = run(collecting, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["iterations"]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert rows[2]["collect"]["rollouts"] > rows[1]["collect"]["rollouts"]
    again = json.loads(run(collecting, "--dry-run", "--json").stdout)["plan"]
    assert all(line["done"] for line in again)
    looked = run(tmp_path / "loop")
    assert f"{rows[0]['eval']['reward']['value']:.3f}" in looked.stdout
    more = json.loads(run(collecting, "--iterations", 3, "--json").stdout)
    assert len(more["iterations"]) == 4


def test_lineage_of_all_and_of_one(collecting: Path, tmp_path: Path) -> None:
    run(collecting)
    known = json.loads(run(tmp_path / "loop", "--lineage", "--json").stdout)
    assert known["models"]["start"]["made_runs"] == [run for run in known["runs"]]  # noqa: C416
    assert "made rollouts iteration-0/eval" in run(collecting, "--lineage").stdout
    one = run(tmp_path / "loop", tmp_path / "loop/iteration-1/collect", "--lineage")
    assert one.stdout.splitlines()[:2] == ["iteration-1/collect was made of", "  model start"]
    missing = run(tmp_path / "loop", "nothing", "--lineage")
    assert isinstance(missing.exception, UserError)


def test_a_stop_is_a_failure(collecting: Path) -> None:
    text = collecting.read_text().replace("reward >= 1", "reward >= 2")
    collecting.write_text(text)
    stopped = run(collecting)
    assert stopped.exit_code == 1
    assert "no rollout is left to learn from" in stopped.stderr


@pytest.mark.skipif(find_spec("trl") is not None, reason="all is there")
def test_what_training_needs_is_told_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "loop.yaml"
    file.write_text("collect: {env: counter}\ntrain: {method: sft}\nout: " + str(tmp_path / "out"))
    result = run(file)
    assert isinstance(result.exception, UserError)
    assert "pip install 'rollforge[train]'" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_what_is_no_recipe(tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path / "nothing.yaml",), "cannot read"),
        ((tmp_path,), "is no loop: it has no loop.json"),
        ((tmp_path, "start"), "one argument too many"),
    ):
        assert message in str(run(*arguments).exception)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_recipes(file: Path, tmp_path: Path) -> None:
    config = read_config(file)
    check(config, tmp_path, StandIn())
    assert len(list(plan(config))) > config.iterations


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.trainers
def test_two_iterations_of_two_steps_each(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from rollforge.loop.run import run_loop
    from rollforge.loop.steps import RealSteps

    file = tmp_path / "loop.yaml"
    file.write_text(
        "collect: {env: arithmetic, limit: 8, repeats: 2, sampling: {max_output_tokens: 40}}\n"
        "curate: {steps: [{filter: 'not empty'}]}\n"
        "train: {method: sft, steps: 2, batch: 2, min_reward: 0}\n"
        "eval: {limit: 4, repeats: 1, sampling: {max_output_tokens: 40}}\n"
    )
    looped = run_loop(read_config(file), tmp_path / "out", RealSteps())
    assert looped.stopped is None
    assert [row["iteration"] for row in looped.rows] == [0, 1, 2]
    digests = [json.loads((tmp_path / f"out/iteration-{n}/training/model/rollforge.json").read_text()) for n in (1, 2)]
    assert digests[0]["digest"] != digests[1]["digest"]
    assert looped.model == f"tiny:{tmp_path}/out/iteration-2/training/model"
    collected = (tmp_path / "out/iteration-2/collect/rollouts.jsonl").read_text().splitlines()
    assert json.loads(collected[0])["rollforge"]["model"] == f"tiny:{tmp_path}/out/iteration-1/training/model"
