"""`rollforge reverify` as a person meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.collect.parts import rows
from tests.serve.started import started
from tests.stats.made import made, write

ROLLFORGE = str(Path(sys.executable).parent / "rollforge")

VERIFIERS = """
import pathlib, time
import rollforge as rf
from rollforge.envs.decorate import PythonEnv

@rf.env(inline=True)
def strict(reply: str) -> float:
    return float(reply == "4")

@rf.env(inline=True)
def lenient(reply: str) -> float:
    return float("4" in reply)

@rf.env
def slow(reply: str) -> float:
    pathlib.Path(f"begun-{reply}").touch()
    time.sleep(0.2)
    return 1.0

@rf.env(inline=True)
def broken(reply: str) -> float:
    raise ValueError("no \\x1b[31mbox")

def as_wanted(reply: str) -> float:
    return float(reply == choosy.wanted)

class Choosy(PythonEnv):
    wanted = "4"

    def tasks(self, source=None, *, wanted="4", **options):
        self.wanted = str(wanted)
        return super().tasks(source, **options)

choosy = Choosy(as_wanted, inline=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "verifiers.py").write_text(VERIFIERS)
    write(
        tmp_path / "run/rollouts.jsonl",
        [made(1.0, 0, reply="4"), made(0.0, 1, reply="it is 4\x1b[2J"), made(0.0, 2, reply="5")],
    )
    return tmp_path


def reverify(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([ROLLFORGE, "reverify", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def test_the_same_verifier_changes_nothing(folder: Path) -> None:
    said = reverify(folder, "run", "--env", "verifiers.py:strict", "--fail-on-change").stdout
    assert "3 rollouts verified again, 0 could not be" in said
    assert "3 agree, 0 rose" in said
    assert "run-reverified" in said
    assert len(rows(folder / "run-reverified/rollouts.jsonl")) == 3


def test_an_option_of_the_environment_reaches_its_verifier(folder: Path) -> None:
    def judged(out: str, *options: str) -> list[float]:
        reverify(folder, "run", "--env", "verifiers.py:choosy", "--out", out, *options)
        return [
            row["reward"] for row in sorted(rows(folder / out / "rollouts.jsonl"), key=lambda row: row["_ng_task_index"])
        ]

    assert judged("a") == [1.0, 0.0, 0.0]
    assert judged("b", "--set", "wanted=5") == judged("c", "--set", "env.wanted=5") == [0.0, 0.0, 1.0]
    arguments = ["run", "--env", "verifiers.py:choosy", "--set"]
    assert "wanted" in reverify(folder, *arguments, "wanted=4", "--out", "b", status=2).stderr  # another verifier's run
    assert "unknown task option 'wnted'" in reverify(folder, *arguments, "wnted=5", status=2).stderr
    said = reverify(folder, "run", "--env", "http://127.0.0.1:1", "--set", "wanted=5", status=2).stderr
    assert "http://127.0.0.1:1 takes no options (got wanted)" in said


def test_another_one_says_who_flipped(folder: Path) -> None:
    arguments = ["run", "--env", "verifiers.py:lenient", "--out", "new", "--diff", "--fail-on-change"]
    said = reverify(folder, *arguments, status=1).stdout
    for part in ("1 rose (1 to solved)", "Spearman", "Kendall", "pass@k", "Rose: 1", "it is 4\\x1b[2J", "Preference pairs"):
        assert part in said
    assert "\x1b" not in said
    # Finished: asked again it only prints, and says so.
    again = reverify(folder, *arguments[:-1]).stdout.splitlines(keepends=True)
    assert again.pop(1).startswith("0 of these now, 3 earlier (begun 20")
    assert "".join(again) == said


def test_a_verifier_that_changed_beneath_is_another_one(folder: Path) -> None:
    (folder / "rule.py").write_text("RIGHT = '4'\n")
    (folder / "ruled.py").write_text(
        "import rollforge as rf\nfrom rule import RIGHT\n"
        "@rf.env(inline=True)\ndef ruled(reply: str) -> float: return float(reply == RIGHT)\n"
    )
    arguments = ["run", "--env", "ruled.py", "--fail-on-change"]
    assert "0 earlier" not in reverify(folder, *arguments).stdout
    assert "0 of these now, 3 earlier" in reverify(folder, *arguments).stdout
    (folder / "rule.py").write_text("RIGHT = '5'\n")
    assert "the environment's code" in reverify(folder, *arguments, status=2).stderr


def test_a_service_that_judged_before_may_be_another_one_now(folder: Path) -> None:
    with started(folder, "verifiers.py:strict", "--port", "0") as service:
        url = service.urls["strict"]
        reverify(folder, "run", "--env", url, "--fail-on-change")
        done = reverify(folder, "run", "--env", url, "--fail-on-change", status=1)
    assert "0 of these now, 3 earlier" in done.stdout
    assert "may have changed since" in done.stderr
    found = json.loads(reverify(folder, "run", "--env", url, "--json").stdout)
    assert (found["verified"], found["now"], found["earlier"]) == (3, 0, 3)


def test_where_nothing_was_verified_it_fails_and_says_why(folder: Path) -> None:
    (folder / "tasks.jsonl").write_text('{"prompt": "another question"}\n')
    arguments = ["run", "--env", "verifiers.py:strict", "--tasks", "tasks.jsonl"]
    said = reverify(folder, *arguments, "--fail-on-change", status=1).stdout
    assert "0 rollouts verified again, 0 could not be, 3 taken over" in said
    assert "3 taken over: it is of no task in tasks.jsonl" in said
    found = json.loads(reverify(folder, *arguments, "--json", status=1).stdout)
    assert found["kept_reasons"] == [["it is of no task in tasks.jsonl", 3]]


def test_what_the_environment_prints_is_no_part_of_the_result(folder: Path) -> None:
    (folder / "noisy.py").write_text(
        "import os\nimport rollforge as rf\nprint('loaded')\n"
        "@rf.env\ndef noisy(reply: str) -> float:\n    print('judged')\n    os.system('echo ran')\n    return 1.0\n"
    )
    done = reverify(folder, "run", "--env", "noisy.py", "--json")
    assert json.loads(done.stdout)["verified"] == 3
    assert {"loaded", "judged", "ran"} <= set(done.stderr.split())


def test_as_json(folder: Path) -> None:
    found: Any = json.loads(reverify(folder, "run", "--env", "verifiers.py:lenient", "--json").stdout)
    assert (found["verified"], found["failed"], found["up"], found["stopped"]) == (3, 0, 1, None)
    assert found["pairs"]["total"] == 0
    assert found["raised"][0]["before"] == 0.0


def test_what_cannot_be_verified_fails_the_command(folder: Path) -> None:
    done = reverify(folder, "run", "--env", "verifiers.py:broken", status=1)
    assert "3 could not be" in done.stdout
    assert "3 not verified: verifier_fault in verify: ValueError: no" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--env", "verifiers.py:strict"], "there is no nothing"),
        (["run", "--env", "verifiers.py:strikt"], "did you mean strict"),
        (["run", "--env", "verifiers.py:strict", "--out", "run"], "where the rollouts are"),
        (["run", "--env", "verifiers.py:strict", "--concurrency", "0"], "concurrency"),
        (["run"], "--env"),
    ],
)
def test_wrong_requests(folder: Path, arguments: list[str], message: str) -> None:
    done = reverify(folder, *arguments, status=2)
    assert message in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_in_the_middle_it_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "verifiers.py").write_text(VERIFIERS)
    write(tmp_path / "run/rollouts.jsonl", [made(0.0, task, reply=str(task)) for task in range(12)])
    command = [ROLLFORGE, "reverify", "run", "--env", "verifiers.py:slow", "--out", "new", "--concurrency", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not (tmp_path / "begun-3").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (130 if number is signal.SIGINT else -9)
    before = (tmp_path / "new/rollouts.jsonl").read_bytes()
    assert 2 <= before.count(b"\n") < 12
    found = json.loads(reverify(tmp_path, *command[2:], "--json").stdout)
    assert (found["verified"], found["up"]) == (12, 12)
    after = rows(tmp_path / "new/rollouts.jsonl")
    assert sorted(row["_ng_task_index"] for row in after) == list(range(12))
