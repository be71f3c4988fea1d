"""The pytest suite that belongs to an environment: what is found beside its file, run in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rollforge.audit.contract import Check
from rollforge.records.shown import typed
from rollforge.sandbox.processes import kill_tree

SHOWN_LINES = 12
_PYTEST = "pip install 'rollforge[test]'"


def suite_of(env: Any) -> list[Path]:
    """Of a package (`my_env/__init__.py`) all tests in it; of a file those named after it, beside it or in `tests/`."""
    file: Path | None = getattr(env, "file", None)
    if file is None or not file.is_file():
        return []
    folder, tests = file.parent, file.parent / "tests"
    if file.name == "__init__.py":
        found = [*folder.glob("test_*.py"), *folder.glob("*_test.py")]
        return sorted(found) + ([tests] if tests.is_dir() else [])
    names = (f"test_{file.stem}.py", f"test_{file.stem}_*.py", f"{file.stem}_test.py")
    found = [path for beside in (folder, tests) for name in names for path in beside.glob(name)]
    return sorted(path for path in found if path != file)


def run_suite(env: Any, seconds: float = 600.0) -> Check:
    """Its result; skipped where there is none."""
    found = suite_of(env)
    if not found:
        return Check("tests", "skip", "no pytest suite beside it (test_<its name>.py, or tests/)")
    if find_spec("pytest") is None:
        return Check("tests", "fail", f"{_names(found)} was not run: pytest is not installed", f"{_PYTEST}, or --no-suite")
    names, folder = _names(found), _folder(env)
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *map(str, found)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            return Check("tests", "fail", f"{names} took longer than {seconds:g} s", "look for a test that waits")
        except BaseException:
            kill_tree(process.pid)
            raise
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    if process.returncode == 0:
        return Check("tests", "pass", f"{names}: {last}")
    if process.returncode == 5:
        return Check("tests", "skip", f"{names}: no test in there")
    tail = "\n".join(lines[-SHOWN_LINES:])
    return Check("tests", "fail", f"{names}: {tail}", f"run it in {folder}: python -m pytest {' '.join(map(typed, found))}")


def _folder(env: Any) -> Path:
    """Where `python -m pytest` finds what the tests import: the folder of its file, or the one that its package is in."""
    folder: Path = env.file.parent
    while (env.file.name == "__init__.py" or "." in env.target.__module__) and (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _names(files: list[Path]) -> str:
    return ", ".join(path.name for path in files)
