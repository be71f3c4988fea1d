"""Evaluations played for real, from Python and from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.config import validate
from rollforge.errors import SetupError, UserError
from rollforge.evaluate.config import EvalConfig
from rollforge.evaluate.run import Evaluated, evaluate

ROLLFORGE = str(Path(sys.executable).parent / "rollforge")

PASSING = """
import rollforge as rf

def solve(task):
    yield from ()
    return "yes"

@rf.env(tasks=[{"prompt": f"q {n}", "level": "easy" if n % 2 else "hard"} for n in range(8)], solve=solve)
def passing(reply):
    return float(reply == "yes")

@rf.env(tasks=[{"prompt": "q", "answer": "yes"}])
def broken(reply):
    raise RuntimeError("no judge")
"""

TWICE = """
import rollforge as rf

def solve(task):
    yield from ()
    return task.fields["answer"]

rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}, {"prompt": "a", "answer": "1"}]

@rf.env(tasks=rows, solve=solve)
def own(reply, answer):
    return float(reply == answer)
"""


def config(folder: Path, **values: Any) -> EvalConfig:
    given = {"models": ["scripted:perfect", "scripted:wrong"], "env": "arithmetic", "limit": 8, "repeats": 2, "backoff": 0}
    return validate(EvalConfig, {**given, "out": folder / "out", **values}, "the test")


def cli(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [ROLLFORGE, "eval", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


async def test_models_side_by_side(tmp_path: Path) -> None:
    done = await evaluate(config(tmp_path, env=["arithmetic", {"use": "weather", "level": "easy"}]))
    assert done.success
    perfect, wrong = done.models
    assert perfect.overall.reward.value == 1.0
    assert wrong.environments["arithmetic"].reward.value == 0.0
    assert wrong.environments["weather"].reward.value == 0.5  # the right tool, and a wrong answer
    assert perfect.overall.planned == 32
    assert set(perfect.environments) == {"arithmetic", "weather"}
    assert {score.coverage for score in perfect.environments.values()} == {1.0}
    assert not perfect.failures
    assert sum(mode.count for mode in wrong.failures) == 32
    (comparison,) = done.comparisons
    assert (comparison.before, comparison.after) == ("scripted:perfect", "scripted:wrong")
    assert comparison.paired.difference.value == -0.75
    assert comparison.paired.losses == 16
    assert set(comparison.paired.by_env) == {"arithmetic", "weather"}
    assert done.regressions == []  # nobody asked for a gate
    assert (tmp_path / "out/scripted-perfect/arithmetic/run.json").is_file()
    stored = json.loads((tmp_path / "out/eval.json").read_text())
    assert {name: stored[name] for name in done.row()} == json.loads(json.dumps(done.row()))


async def test_the_same_tasks_and_draws_for_all(tmp_path: Path) -> None:
    done = await evaluate(config(tmp_path, models=["scripted:random", "tiny"], limit=3))
    first, second = (_rows(done, model) for model in range(2))
    assert first.keys() == second.keys()
    assert all(first[key]["responses_create_params"] == second[key]["responses_create_params"] for key in first)
    assert done.comparisons[0].paired.rollouts == 6
    assert not any("not played alike" in note for note in done.comparisons[0].paired.notes)


async def test_a_task_that_stands_in_the_data_twice_is_played_twice(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TWICE)
    done = await evaluate(config(tmp_path, env=f"{tmp_path}/own.py", models=["scripted:perfect", "scripted:random"]))
    assert done.success
    for model in done.models:
        assert (model.overall.judged, model.overall.planned, model.overall.tasks) == (6, 6, 2)
        assert [(task.index, task.rollouts) for task in model.tasks] == [(0, 4), (1, 2)]
    assert done.comparisons[0].paired.rollouts == 6
    again = config(
        tmp_path, env=f"{tmp_path}/own.py", models=["scripted:perfect"], baseline=tmp_path / "out/scripted-random"
    )
    assert (await evaluate(again)).comparisons[0].paired.rollouts == 6


async def test_an_environment_twice_with_other_options(tmp_path: Path) -> None:
    both = [{"use": "arithmetic", "split": "test"}, {"use": "arithmetic", "split": "test", "level": "easy"}]
    done = await evaluate(config(tmp_path, env=both, models=["scripted:perfect", "scripted:wrong"]))
    assert done.success
    assert {name: score.judged for name, score in done.models[0].environments.items()} == {
        "arithmetic": 16,
        "arithmetic-2": 16,
    }
    paired = done.comparisons[0].paired
    assert (paired.rollouts, set(paired.by_env)) == (32, {"arithmetic", "arithmetic-2"})
    assert not any("not played alike" in note for note in paired.notes)
    stored = await evaluate(
        config(tmp_path, env=both, models=["scripted:perfect"], out=tmp_path / "b", baseline=tmp_path / "out/scripted-wrong")
    )
    assert stored.comparisons[0].paired.rollouts == 32


async def test_environments_of_one_name_from_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, reward in (("a", 1.0), ("b", 0.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(TWICE.replace("float(reply == answer)", str(reward)))
    done = await evaluate(config(tmp_path, env=["a/x.py", "b/x.py"], models=["scripted:wrong"]))
    scores = done.models[0].environments
    assert {name: score.reward.value for name, score in scores.items()} == {"a-x.py": 1.0, "b-x.py": 0.0}
    assert done.models[0].overall.reward.value == 0.5
    assert done.success


async def test_what_was_played_is_not_played_again_and_models_can_be_added(tmp_path: Path) -> None:
    first = await evaluate(config(tmp_path, models=["scripted:perfect"]))
    before = (tmp_path / "out/scripted-perfect/arithmetic/rollouts.jsonl").stat()
    second = await evaluate(config(tmp_path, models=["scripted:perfect", "scripted:wrong"]))
    after = (tmp_path / "out/scripted-perfect/arithmetic/rollouts.jsonl").stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    assert first.models[0].overall == second.models[0].overall
    with pytest.raises(UserError, match="another configuration"):
        await evaluate(config(tmp_path, seed=5))


async def test_models_that_differ_by_their_server_alone_keep_their_rollouts(tmp_path: Path) -> None:
    models = [{"use": "scripted:perfect", "base_url": f"http://{host}/v1"} for host in "abc"]
    await evaluate(config(tmp_path, models=models[:2]))
    for given in (models[1::-1], models[1:2]):
        with pytest.raises(UserError, match="scripted-perfect-2 holds what scripted:perfect at http://b/v1 played"):
            await evaluate(config(tmp_path, models=given))
    again = await evaluate(config(tmp_path, models=models))
    assert [one.name for one in again.models] == ["scripted:perfect", "scripted:perfect (2)", "scripted:perfect (3)"]
    moved = await evaluate(config(tmp_path, models=[{"use": "scripted:perfect", "base_url": "http://moved/v1"}]))
    assert moved.success


async def test_a_baseline_is_a_gate(tmp_path: Path) -> None:
    await evaluate(config(tmp_path, models=["scripted:perfect"]))
    fallen = await evaluate(config(tmp_path, models=["scripted:wrong"], out=tmp_path / "b", baseline=tmp_path / "out"))
    assert not fallen.success
    assert "scripted:wrong, overall: mean reward fell by 1.000" in fallen.regressions[0]
    for same in (tmp_path / "out", tmp_path / "out/scripted-perfect", tmp_path / "out/scripted-perfect/arithmetic"):
        assert (await evaluate(config(tmp_path, models=["scripted:perfect"], baseline=same))).success


async def test_a_baseline_of_other_tasks_or_several_models_is_refused(tmp_path: Path) -> None:
    await evaluate(config(tmp_path))
    with pytest.raises(UserError, match="several models; name one"):
        await evaluate(config(tmp_path, baseline=tmp_path / "out"))
    other = {"models": ["scripted:perfect"], "env": "weather", "out": tmp_path / "b"}
    with pytest.raises(UserError, match="no task and repeat in common"):
        await evaluate(config(tmp_path, **other, baseline=tmp_path / "out/scripted-wrong"))


async def test_no_verdict_is_no_zero(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PASSING)
    done = await evaluate(config(tmp_path, env=f"{tmp_path}/own.py:broken"))
    assert done.models[0].overall.reward.value is None
    assert len(done.uncovered) == 2
    assert not done.success
    assert done.comparisons == []
    assert done.models[0].failures[0].name == "no reward: verifier_fault in verify"
    assert "no judge" in done.models[0].failures[0].examples[0].what


async def test_a_dead_endpoint_stops_and_keeps_what_was_played(tmp_path: Path) -> None:
    dead = {"use": "chat:x", "base_url": "http://127.0.0.1:1/v1", "retries": 0}
    with pytest.raises(SetupError, match="cannot connect"):
        await evaluate(config(tmp_path, models=["scripted:perfect", dead], limit=20))
    assert (tmp_path / "out/scripted-perfect/arithmetic/rollouts.jsonl").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tiny", "name an environment"),
        ("--env arithmetic", "give a model"),
        ("tinyy --env arithmetic", "did you mean tiny?"),
        ("tiny --env arithmetik", "did you mean arithmetic"),
        ("tiny tiny --env arithmetic", "given twice"),
        ("tiny --env arithmetic --baseline nowhere", "there is no nowhere"),
        ("tiny --env arithmetic --set sampling.temprature=1", "did you mean temperature"),
        ("tiny --env arithmetic --set repeat=1", "did you mean repeats"),
        ("tiny --env arithmetic --set agent=http://x", "a model of its own"),
        ("tiny --env arithmetic --repeats 0", "repeats"),
        ("tiny --env arithmetic --env arithmetic", "given twice"),
        ("tiny --env arithmetic --by level --set env.levl=easy", "did you mean level?"),
        ("tiny --env arithmetic --by levle", "unknown field of the tasks 'levle'; did you mean level?"),
        ("tiny --env arithmetic --by level --by nothing.like", "known: "),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, ["eval", *arguments.split()]).exception
    assert isinstance(error, UserError)
    assert message in str(error)
    assert not (tmp_path / "runs").exists()


async def test_evaluations_of_one_second_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [(await evaluate(config(tmp_path, out=None, limit=1, repeats=1))).path for _ in range(2)]
    assert len(set(paths)) == 2
    assert all(str(path).startswith("runs/eval-") for path in paths)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PASSING)
    both = cli(
        tmp_path, "scripted:perfect", "scripted:wrong", "-e", "own.py:passing", "-k", "2", "--out", "e", "--examples", "1"
    )
    for text in ("scripted:wrong against scripted:perfect", "significantly worse", "level: easy", "rollforge show e/"):
        assert text in both.stdout
    assert both.stdout.endswith("--baseline e/scripted-perfect\n")  # of several models a baseline is one
    fallen = cli(
        tmp_path,
        "scripted:wrong",
        "-e",
        "own.py:passing",
        "-k",
        "2",
        "--out",
        "f",
        "--baseline",
        "e/scripted-perfect",
        status=1,
    )
    assert "error: regression of scripted:wrong, overall" in fallen.stderr
    result = json.loads(cli(tmp_path, "scripted:perfect", "-e", "own.py:passing", "-k", "2", "--out", "e", "--json").stdout)
    assert result["success"]
    assert result["models"][0]["overall"]["reward"]["value"] == 1.0
    assert "coverage" in cli(tmp_path, "scripted:wrong", "-e", "own.py:broken", "--out", "g", status=1).stderr


def test_yaml_and_options(tmp_path: Path) -> None:
    (tmp_path / "eval.yaml").write_text(
        "models: [scripted:perfect]\nenv: {use: arithmetic, level: easy}\nlimit: 3\nrepeats: 2\n"
    )
    row = json.loads(cli(tmp_path, "-c", "eval.yaml", "--out", "o", "--set", "env.split=test", "-k", "1", "--json").stdout)
    assert row["models"][0]["overall"]["planned"] == 3
    stored = json.loads((tmp_path / "o/scripted-perfect/arithmetic/run.json").read_text())
    assert stored["identity"]["env"]["level"] == "easy"
    assert stored["identity"]["env"]["split"] == "test"


def test_killed_it_goes_on(tmp_path: Path) -> None:
    arguments = ["scripted:slow:0.05", "scripted:perfect", "-e", "arithmetic", "-n", "30", "-k", "2", "--out", "e"]
    process = subprocess.Popen(
        [ROLLFORGE, "eval", *arguments, "--concurrency", "2"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    file = tmp_path / "e/scripted-slow-0.05/arithmetic/rollouts.jsonl"
    end = time.monotonic() + 30
    while not (file.exists() and file.read_bytes().count(b"\n") >= 5):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    row = json.loads(cli(tmp_path, *arguments, "--json").stdout)
    assert file.read_bytes().startswith(b"".join(kept))
    assert [model["overall"]["judged"] for model in row["models"]] == [60, 60]
    assert [model["repeated"] for model in row["models"]] == [0, 0]


def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ["scripted:slow:0.05", "scripted:perfect", "-e", "arithmetic", "-n", "60", "-k", "2", "--out", "e"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([ROLLFORGE, "eval", *arguments, "--concurrency", "2"], cwd=tmp_path, text=True, **pipes)  # type: ignore[call-overload]
    file = tmp_path / "e/scripted-slow-0.05/arithmetic/rollouts.jsonl"
    end = time.monotonic() + 30
    while not (file.exists() and file.read_bytes().count(b"\n") >= 5):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopped: SIGINT; the same command with --out e goes on" in out
    assert not (tmp_path / "e/scripted-perfect").exists()


def test_secrets_are_not_stored(tmp_path: Path) -> None:
    model = {"use": "chat:x", "base_url": "http://me:hidden@host/v1?key=hidden", "headers": {"X-Key": "hidden"}}
    assert "hidden" not in json.dumps(config(tmp_path, models=[model]).row())


def _rows(done: Evaluated, model: int) -> dict[tuple[int, int], Any]:
    (path,) = done.models[model].runs["arithmetic"]
    rows = [json.loads(line) for line in (path / "rollouts.jsonl").read_text().splitlines()]
    return {(row["_ng_task_index"], row["_ng_rollout_index"]): row for row in rows}
