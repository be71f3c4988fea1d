"""What commands say beside their result."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollforge.cli.output import reading, reading_all

LOUD = """
import os
import rollforge as rf

print("imported")

@rf.env(tasks=[{"prompt": f"q {n}", "answer": str(n)} for n in range(3)])
class Loud:
    def look(self) -> str:
        "Look."
        print("looked")
        return "seen"

    def verify(self, reply: str, answer: str) -> float:
        os.system("echo judged")
        return float(reply == answer)

    def solve(self, answer: str):
        yield "look", {}
        return answer
"""


@pytest.mark.parametrize(
    "command",
    [
        "collect loud.py --model scripted:perfect --out run --json",
        "eval scripted:perfect --env loud.py --out eval --json",
        "audit loud.py --json --fail-on never",
        "audit loud.py --sarif --fail-on never",
    ],
)
def test_what_an_environment_prints_is_no_part_of_the_result(tmp_path: Path, command: str) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    words = [str(Path(sys.executable).parent / "rollforge"), *command.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert {"imported", "looked", "judged"} <= set(done.stderr.splitlines())


FOREIGN = """
import rollforge as rf

def solve(task):
    yield from ()
    return "schön"

@rf.env(tasks=[{"prompt": "Wie? — sag es", "answer": "schön \u2192"}], solve=solve)
def foreign(reply, answer):
    "Schöne Wörter — in jeder Sprache \u2192."
    raise RuntimeError("nicht schön \u2192")
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_the_encoding_lacks_is_no_error(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "foreign.py").write_text(FOREIGN)
    for command, said in (
        ("env show foreign.py", b"Sch"),
        ("collect foreign.py --model scripted:perfect --out run", b"verifier_fault in verify: RuntimeError: nicht sch"),
        ("reverify run --env foreign.py", b"not verified: verifier_fault in verify: RuntimeError: nicht sch"),
    ):
        words = [str(Path(sys.executable).parent / "rollforge"), *command.split()]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, env=environment, timeout=60, check=False)
        assert done.returncode == 1  # the verifier fails
        assert b"Traceback" not in done.stderr
        assert said in done.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def read_and_fail() -> None:
    with reading() as tell:
        assert tell is not None
        tell(30_000_000, 60_000_000)
        raise OSError("full")


def test_an_error_does_not_stand_beside_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(OSError, match="full"):
        read_and_fail()
    assert terminal.getvalue() == "\r30 of 60 MB read\r\x1b[K"


def test_parts_add_up_and_a_short_read_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, said in ((1000, ""), (80_000_000, "\r0 of 80 MB read\r60 of 80 MB read")):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with reading_all(size) as seen:
            seen(size // 1000)
            seen(size * 3 // 4)
        assert terminal.getvalue() == f"{said}\r\x1b[K"


def test_nothing_is_said_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    with reading() as tell:
        assert tell is None
    with reading_all(10**9) as seen:
        seen(10**9)
    assert shown.getvalue() == ""
