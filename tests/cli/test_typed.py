"""Commands that outputs suggest work as they are printed, where names have spaces too."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError
from rollforge.records.shown import typed
from tests.stats.made import made, write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(done.exception, UserError):
        return str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.output


def suggested(output: str) -> list[list[str]]:
    return [shlex.split(command)[1:] for command in re.findall(r"rollforge [a-z].*?(?=   |$|\n)", output)]


@pytest.mark.parametrize(
    ("path", "word"),
    [("runs/a", "runs/a"), ("my runs/a", "'my runs/a'"), ("-a", "./-a"), ("it's", "'it'\"'\"'s'"), (Path("a b"), "'a b'")],
)
def test_a_path_as_a_word(path: object, word: str) -> None:
    assert typed(path) == word


def test_what_is_printed_can_be_typed() -> None:
    commands = suggested(run("env", "new", "my env.py"))
    assert [words[-1] if words[0] == "env" else words[1] for words in commands] == ["my env.py"] * 2
    assert "the reference policy" in run(*commands[0])
    ran = run(*commands[1], "--limit", 2, "--out", "my runs/a b")
    assert [words[1:] for words in suggested(ran)] == [["my runs/a b"]] * 2
    for words in suggested(ran):
        assert "mean" in run(*words) or "verdict" in run(*words)

    missing = run("show", "my runs/a b", "--task", "none")
    assert suggested(missing) == [["stats", "my runs/a b", "--tasks", "20"]]
    assert suggested(run("check", "my runs/a b")) == [["export", "my runs/a b", "--to", "..."]]
    assert suggested(run("check", "my runs/a b/rollouts.jsonl"))[0][1] == "my runs/a b/rollouts.jsonl"
    again = run("reverify", "my runs/a b", "--env", "my env.py")
    assert suggested(again)[-1] == ["stats", "my runs/a b-reverified"]
    played = run("eval", "scripted:perfect", "-e", "my env.py", "-n", 1, "-k", 1, "--out", "my eval")
    assert shlex.split(played.splitlines()[-1])[-1] == "my eval/scripted-perfect"


def test_an_example_off_policy_is_the_one_that_is_shown(here: Path) -> None:
    """Ids that begin alike, with spaces: the command finds the one meant."""
    rollouts = [replace(made(1.0, task), task=f"level one, task {task}") for task in range(3)]
    write(here / "a b.jsonl", rollouts)
    commands = suggested(run("check", "a b.jsonl", "--for", "on-policy"))
    assert [words[1:4] for words in commands] == [["a b.jsonl", "--task", f"level one, task {n}"] for n in range(3)]
    assert all(f"(level one, task {n})" in run(*commands[n]) for n in range(3))
