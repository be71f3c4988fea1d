"""The benchmark of the verifier runs and grades rightly. How fast it is is not for a test to say."""

import subprocess
import sys
from pathlib import Path


def test_the_benchmark_grades_rightly_and_prints_a_rate() -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "verify.py"
    done = subprocess.run(
        [sys.executable, str(program), "--quick"], capture_output=True, text=True, timeout=300, check=False
    )
    assert "verifications per second" in done.stdout, done.stderr
    assert "graded wrongly: 0" in done.stdout
