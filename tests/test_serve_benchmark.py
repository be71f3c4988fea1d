"""The benchmarks of the services run and print their figures. What the figures are is not for a test to say."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "serve.py"


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        (["cpu", "--rollouts", "40", "--rounds", "1", "--concurrency", "8"], ["CPU of the three processes", "bare client"]),
        (
            ["soak", "--seconds", "2", "--concurrency", "10"],
            ["ok   answers that are neither", "ok   sessions left", "growth"],
        ),
        (["start", "--rounds", "1"], ["agent (scripted)", "model (tiny)"]),
    ],
)
def test_it_prints_its_figures(options, figures):
    command = [sys.executable, str(BENCHMARK), "--quick", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    # 1 is a missed bar: with so few rollouts, on a busy machine, that says nothing.
    assert ended.returncode in (0, 1), ended.stderr
    assert [name for name in figures if name not in ended.stdout] == [], ended.stdout + ended.stderr
    assert "bar" in ended.stdout
