"""`rollforge test` as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollforge.audit.suite import run_suite
from rollforge.cli.main import app
from rollforge.envs.load import load_env

ROLLFORGE = str(Path(sys.executable).parent / "rollforge")

GOOD = """
import rollforge as rf

ROWS = [{"prompt": "2+2?", "answer": "4"}, {"prompt": "2+3?", "answer": "5"}]

@rf.env(tasks=ROWS, solve=lambda answer: answer, inline=True)
def good(reply: str, answer: str) -> float:
    return float(reply == answer)

@rf.env(tasks=[{"prompt": "2+2?", "answer": "4"}], solve=lambda answer: answer, inline=True)
def bad(reply: str, answer: str) -> float:
    return float(reply[0] == "\\x1b[31m")
"""


DICE = """
import random
import rollforge as rf

@rf.env(tasks=[{"prompt": "2+2?", "answer": "4"}], inline=True)
class Dice:
    def roll(self) -> float:
        \"\"\"Roll.\"\"\"
        return random.random()

    def verify(self, reply: str, answer: str) -> float:
        return float(reply == answer)

    def solve(self, answer: str) -> str:
        return answer
"""


def check(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([ROLLFORGE, "test", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(GOOD)
    return tmp_path


def test_an_environment_that_keeps_its_contract(folder: Path) -> None:
    said = check(folder, "mine.py:good").stdout
    assert "ok    reference" in said
    assert "skip  tests" in said
    assert said.splitlines()[-1] == "mine.py:good: 9 passed, 0 failed, 1 skipped"


def test_one_that_does_not(folder: Path) -> None:
    done = check(folder, "mine.py:bad", status=1)
    assert "FAIL  replies" in done.stdout
    assert "IndexError" in done.stdout
    assert "-> a verifier has a verdict on whatever a policy says" in done.stdout
    found = json.loads(check(folder, "mine.py:bad", "--json", status=1).stdout)
    assert found["passed"] is False
    by_name = {one["name"]: one for one in found["checks"]}
    assert by_name["replies"]["status"] == "fail"
    assert by_name["tools"] == {"name": "tools", "status": "pass", "says": "none", "remedy": ""}


def test_its_own_suite_is_run_and_nobody_elses(folder: Path) -> None:
    (folder / "test_other.py").write_text("def test_not_run(): assert False\n")
    (folder / "tests").mkdir()
    (folder / "tests/test_mine.py").write_text("def test_it(): assert True\n")
    assert "ok    tests        test_mine.py: 1 passed" in check(folder, "mine.py:good").stdout
    (folder / "test_mine_more.py").write_text("def test_it(): assert 1 + 1 == 3, '\\x1b[2J'\n")
    said = check(folder, "mine.py:good", status=1).stdout
    assert "FAIL  tests" in said
    assert "1 + 1" in said
    assert "\x1b" not in said
    assert check(folder, "mine.py:good", "--no-suite").returncode == 0


def test_a_suite_in_its_folder_imports_the_environment(folder: Path) -> None:
    (folder / "tests").mkdir()
    (folder / "tests/test_mine.py").write_text("from mine import good\ndef test_it(): assert next(good.tasks()).fields\n")
    check(folder.parent, f"{folder.name}/mine.py:good")
    package = folder / "inner" / "pack"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(GOOD)
    (package / "tests/test_it.py").write_text("from pack import good\ndef test_it(): assert next(good.tasks()).fields\n")
    assert "ok    tests        tests: 1 passed" in check(folder / "inner", "pack:good").stdout


def test_what_an_environment_prints_is_no_part_of_the_result(folder: Path) -> None:
    loud = GOOD.replace("-> float:", "-> float:\n    os.system('echo run')\n    print(reply)", 1)
    (folder / "loud.py").write_text(f"import os\nprint('imported')\n{loud}")
    done = check(folder, "loud.py:good", "--json")
    assert json.loads(done.stdout)["passed"]
    assert {"imported", "run", "harbour seven -1 copper maybe"} <= set(done.stderr.splitlines())


def test_a_warning_is_no_failure(folder: Path) -> None:
    (folder / "dice.py").write_text(DICE)
    done = check(folder, "dice.py")
    assert "warn  determinism" in done.stdout
    assert done.stdout.splitlines()[-1] == "dice.py: 8 passed, 0 failed, 1 skipped, 1 warned of"


def test_a_suite_that_cannot_be_run_is_no_success(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "test_mine.py").write_text("def test_it(): assert True\n")
    monkeypatch.setitem(sys.modules, "pytest", None)
    found = run_suite(load_env(f"{folder}/mine.py:good"))
    assert (found.status, found.says) == ("fail", "test_mine.py was not run: pytest is not installed")
    assert found.remedy == "pip install 'rollforge[test]', or --no-suite"


def test_the_suite_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text(GOOD)
    (package / "test_anything.py").write_text("def test_it(): assert True\n")
    assert "test_anything.py: 1 passed" in check(tmp_path, "pack:good").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "there is no file"),
        (["mine.py:goood"], "did you mean good"),
        (["mine.py:good", "--set", "x"], "key=value"),
    ],
)
def test_wrong_requests(folder: Path, arguments: list[str], message: str) -> None:
    assert message in check(folder, *arguments, status=2).stderr


def test_options_and_tasks_from_a_file(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "1+1?", "answer": "2"}\n')
    assert "tasks        1, all different" in check(folder, "mine.py:good", "--tasks", "rows.jsonl").stdout
    assert "tasks        50, all different" in check(folder, "arithmetic", "--set", "n=50", "-n", "2").stdout
    assert "FAIL  tasks" in check(folder, "arithmetic", "--set", "level=impossible", status=1).stdout


def test_where_programs_run_is_an_option(folder: Path) -> None:
    done = check(folder, "coding", "--sandbox", "dokcer", status=2)
    assert "unknown place 'dokcer'; did you mean docker? (--sandbox)" in done.stderr


@pytest.mark.parametrize("command", ["test", "audit"])
def test_a_file_that_is_not_there_is_no_fault_of_the_environment(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, "arithmetic", "--tasks", str(tmp_path / "missing.jsonl")])
    assert result.exit_code == 2
    assert "does not exist" in result.output
