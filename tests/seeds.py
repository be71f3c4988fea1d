"""What Python's seed of hashes must not change."""

import os
import subprocess
import sys


def printed(code: str, given: bytes = b"") -> set[bytes]:
    """What the code prints in processes of different seeds; `given`: their standard input."""
    return {
        subprocess.run(
            [sys.executable, "-c", code],
            input=given,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
