"""`rollforge audit` and `rollforge validate` as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROLLFORGE = str(Path(sys.executable).parent / "rollforge")

MINE = """
import rollforge as rf

ROWS = [{"prompt": f"What is {a} + {a}?", "answer": str(2 * a)} for a in (21, 34)]

@rf.env(tasks=ROWS, solve=lambda answer: answer, inline=True)
def good(reply: str, answer: str) -> float:
    return float(reply.strip() == answer)

@rf.env(tasks=ROWS, solve=lambda answer: answer, inline=True)
def bad(reply: str, answer: str) -> float:
    return float(answer in reply)
"""


def run(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([ROLLFORGE, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_sound_environment(folder: Path) -> None:
    said = run(folder, "audit", "mine.py:good").stdout
    assert said.splitlines()[-1].startswith("good: 0 errors, 0 warnings, ")
    assert "attacks on 2 tasks" in said


def test_one_that_is_not(folder: Path) -> None:
    said = run(folder, "audit", "mine.py:bad", "--html", "bad.html", status=1).stdout
    assert "error    buried       not so: the right answer among wrong ones" in said
    assert "-> extract the one final answer" in said
    assert "\x1b" not in said
    assert (folder / "bad.html").read_text().startswith("<!doctype html>")
    found = json.loads(run(folder, "audit", "mine.py:bad", "--json", status=1).stdout)
    assert found["errors"] == sum(one["severity"] == "error" for one in found["findings"]) > 2
    assert found["findings"][0]["shown"][0]["reward"] == 1.0
    sarif = json.loads(run(folder, "audit", "mine.py:bad", "--sarif", status=1).stdout)
    assert sarif["version"] == "2.1.0"
    assert sarif["runs"][0]["results"]


def test_what_fails_is_chosen(folder: Path) -> None:
    run(folder, "audit", "mine.py:bad", "-n", "1", "--fail-on", "never")
    found = json.loads(run(folder, "audit", "mine.py:bad", "-n", "1", "--json", "--fail-on", "never").stdout)
    known = {one["rule"] for one in found["findings"] if one["severity"] == "error"}
    accepted = [word for rule in sorted(known) for word in ("--accept", rule)]
    assert "(accepted)" in run(folder, "audit", "mine.py:bad", "-n", "1", *accepted).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "nowhere.py"], "there is no file"),
        (["audit", "mine.py:good", "--accept", "burried"], "did you mean buried"),
        (["audit", "mine.py:good", "--fail-on", "errors"], "did you mean error"),
        (["audit", "mine.py:good", "--json", "--sarif"], "give one of them"),
        (["validate", "nowhere"], "there is no nowhere"),
        (["validate", "rows.jsonl", "--compare", "a"], "names two fields"),
    ],
)
def test_wrong_requests(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "rows.jsonl").write_text("")
    assert message in run(folder, *arguments, status=2).stderr


def rows(file: Path, reward: float) -> None:
    texts = [(task, index) for task in range(8) for index in range(4)]
    lines = [
        {
            "responses_create_params": {"input": f"task {task}"},
            "response": {"output": [{"role": "assistant", "type": "message", "content": f"reply {index}"}]},
            "reward": reward if index % 2 else 0.0,
            "human": index % 2,
            "_ng_task_index": task,
            "_ng_rollout_index": index,
        }
        for task, index in texts
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_validate(tmp_path: Path) -> None:
    rows(tmp_path / "old.jsonl", 1.0)
    rows(tmp_path / "new.jsonl", 0.5)
    said = run(tmp_path, "validate", "old.jsonl", "--label", "human").stdout
    assert "ok       good ones get more than bad ones with probability 1.00 [1.00, 1.00], by human, over 8 tasks" in said
    assert said.splitlines()[-1] == "old.jsonl: 32 rewards of 8 tasks; 0 to mend"
    found = json.loads(run(tmp_path, "validate", "new.jsonl", "--against", "old.jsonl", "--json", status=1).stdout)
    assert {one["check"] for one in found["checks"] if one["level"] == "error"} == {"regraded"}
    assert found["judged"] == 32


def test_validate_says_what_it_could_not_use(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    rows(file, 1.0)
    file.write_text(file.read_text() + "{broken\n")
    assert run(tmp_path, "validate", "some.jsonl").stdout.splitlines()[-1] == (
        "1 line could not be used; rollforge stats --bad lists them"
    )
    file.write_text(json.dumps(json.loads(file.read_text().splitlines()[0]), indent=2))
    for options in (["some.jsonl"], ["some.jsonl", "--against", "some.jsonl"]):
        assert "one JSON object over many lines" in run(tmp_path, "validate", *options, status=2).stderr


def test_validate_a_run(tmp_path: Path) -> None:
    run(tmp_path, "collect", "arithmetic", "--model", "scripted:perfect", "--limit", "25", "--out", "runs/a")
    done = run(tmp_path, "validate", "runs/a", status=1)
    assert "all 25 rewards are 1" in done.stdout
