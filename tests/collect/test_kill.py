"""Killed at random moments and resumed, a run holds what an undisturbed one holds. (200 kills: benchmarks/kill.py.)"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill.py"


def test_kills() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "10"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["ok"]
    assert figures["kills"] == 10
    assert figures["rollouts"] > 0
