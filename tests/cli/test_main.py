"""What the command line says when the system refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize(
    "verb",
    [
        ["stats", "PIPE"],
        ["show", "PIPE"],
        ["advise", "PIPE"],
        ["curate", "PIPE", "--out", "OUT"],
        ["export", "PIPE", "--to", "trl:sft", "--out", "OUT"],
        ["diff", "PIPE", "RUN"],
        ["diff", "RUN", "PIPE"],
        ["check", "PIPE"],
        ["check", "PIPE", "--for", "trl:sft"],
    ],
)
def test_a_pipe_is_refused_by_every_verb_in_the_same_words(verb: list[str], run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    arguments = [{"RUN": run, "OUT": tmp_path / "out", "PIPE": pipe}.get(word, word) for word in verb]
    status, said = rollforge(*arguments)
    assert (status, said) == (
        2,
        f"error: {pipe} is not a file; files are read more than once, so a pipe will not do: save it first\n",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize(
    "verb", [["curate", "RUN", "--out", "OUT"], ["export", "RUN", "--to", "trl:sft", "--out", "OUT"], ["diff", "RUN", "RUN"]]
)
def test_sigterm_leaves_nothing_behind(verb: list[str], whole_group: bool, tmp_path: Path) -> None:
    run, temporary = tmp_path / "a.jsonl", tmp_path / "temporary"
    run.write_bytes(write(tmp_path / "few.jsonl", grid([[1.0, 0.0]] * 500)).read_bytes() * 200)
    temporary.mkdir()
    arguments = [{"RUN": run, "OUT": tmp_path / "out"}.get(word, word) for word in verb]
    command = [sys.executable, "-m", "rollforge", *map(str, arguments), "--workers", "2"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    before = {run, tmp_path / "few.jsonl", temporary}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(children.read_text().split()) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # what is raised amid a fork is lost, as with Ctrl-C
    if verb[0] != "diff":  # whose files have no names
        assert set(tmp_path.rglob("*")) > before
    for _ in range(2):  # as `timeout` does
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    _, said = process.communicate()
    assert (process.returncode, said) == (143, "")
    assert set(tmp_path.rglob("*")) == before


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
