"""The benchmark of the built-in environments runs and prints its table. What the figures are is not for a test to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "environments.py"


def test_each_environment_gets_a_line() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--at-once", "20", "--sessions", "60", "--only", "counter,blackjack"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = {line.split()[0]: line.split() for line in ended.stdout.splitlines()}
    for name in ("counter", "blackjack"):
        assert lines[name][3] == "60"
        assert lines[name][-1] == "ok"


def test_an_environment_that_cannot_be_played_is_no_figure() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--only", "no_such"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "no_such failed" in ended.stderr
