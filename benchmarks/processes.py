"""Starting, measuring and ending the processes of a benchmark.

Standard library only: a child begins as a copy of its parent, and a small one keeps the child's peak memory honest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measured:
    """What a process used, its own ended children included."""

    seconds: float
    cpu: float
    """User and system, in seconds."""
    peak_mb: float
    output: str


def give_up(what: str) -> NoReturn:
    """End the benchmark with status 2: there is no figure (1 is a figure that misses its bar)."""
    print(what, file=sys.stderr)
    sys.exit(2)


class Running:
    """A command under way; `end` waits for it, `kill` is for when nobody will."""

    def __init__(self, *command: str) -> None:
        self._output = tempfile.TemporaryFile()
        self._started = time.perf_counter()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT)
        self._command = command

    def ended(self) -> bool:
        """Whether it is over; does not collect it, so that `end` can still read what it used."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self, seconds: float = 3600.0) -> Measured:
        """Wait, at most `seconds`. A non-zero exit status ends the benchmark with what the command said."""
        deadline = self._started + seconds
        while not self.ended():
            if time.perf_counter() > deadline:
                self.kill()
                give_up(f"{' '.join(self._command)} took longer than {seconds:g} s; it said:\n{self._said()}")
            time.sleep(0.005)
        took = time.perf_counter() - self._started
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            give_up(f"{' '.join(self._command)} ended with {self._process.returncode}; it said:\n{self._said()}")
        return Measured(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, self._said())

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    def _said(self) -> str:
        self._output.seek(0)
        return self._output.read().decode(errors="replace")[-3000:]


@contextmanager
def running(*command: str) -> Iterator[Running]:
    process = Running(*command)
    try:
        yield process
    finally:
        process.kill()


def measure(*command: str, seconds: float = 3600.0) -> Measured:
    with running(*command) as process:
        return process.end(seconds)


class Stub:
    """The stub server: `url` for clients, `stats()` for us."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._stats = f"http://127.0.0.1:{port}/stats"

    def stats(self) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._stats, timeout=30) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]


@contextmanager
def stub(*options: str) -> Iterator[Stub]:
    """A stub of its own; it also ends when this process is killed, since its standard input closes then."""
    command = [sys.executable, str(HERE / "stub_server.py"), "--until-eof", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Stub(int(process.stdout.readline()))
        finally:
            process.terminate()


def collect_command(url: str, out: Path, *, concurrency: int, rollouts: int, repeats: int = 1) -> list[str]:
    """`rollforge collect` of the lookup environment against a stub, as a user would type it."""
    options = [
        "--base-url",
        url,
        "--concurrency",
        concurrency,
        "--limit",
        rollouts // repeats,
        "--repeats",
        repeats,
        "--out",
        out,
    ]
    env = f"{HERE / 'lookup.py'}:Lookup"
    return [rollforge(), "collect", env, "--model", "chat:stub", *map(str, options)]


def rollforge() -> str:
    """The command that belongs to this interpreter."""
    return str(Path(sys.executable).with_name("rollforge"))


def scored(out: Path) -> int:
    """How many rollouts of a run have a reward; those that have none end the benchmark."""
    failures = (out / "failures.jsonl").read_bytes()
    if failures:
        first = failures[:1000].decode(errors="replace")
        give_up(f"{len(failures.splitlines())} attempts failed; the first:\n{first}")
    with open(out / "rollouts.jsonl", "rb") as rows:
        return sum(1 for row in rows if b'"reward":1.0' in row)
