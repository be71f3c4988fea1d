"""What the command line says when the system refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stats.made import grid, write


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "a.jsonl", grid([[1.0, 0.0]] * 30))


def rollforge(*arguments: object, out: str | None = None) -> tuple[int, str]:
    command = [sys.executable, "-m", "rollforge", *map(str, arguments)]
    with open(out or "/dev/null", "w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("verb", [["--help"], ["diff", "RUN", "RUN"], ["advise", "RUN"], ["curate", "RUN", "--out", "OUT"]])
def test_a_full_disk_is_an_error_and_not_a_difference(verb: list[str], run: Path, tmp_path: Path) -> None:
    arguments = [{"RUN": run, "OUT": tmp_path / "out"}.get(word, word) for word in verb]
    status, said = rollforge(*arguments, out="/dev/full")
    assert status == 2
    assert said.splitlines()[-1].startswith("error: No space left on device; no room for the output, or for temporary files")
    assert "Traceback" not in said


def test_names_that_the_system_refuses(run: Path, tmp_path: Path) -> None:
    for arguments in (
        ["export", run, "--to", "trl:sft", "--out", tmp_path / ("x" * 300)],
        ["diff", run, run, "--temp", tmp_path / "none"],
    ):
        status, said = rollforge(*arguments)
        assert status == 2
        assert said.splitlines()[-1].startswith("error: ")
        assert str(tmp_path) in said
        assert "Traceback" not in said
