"""What math-verify says of two answers, asked in a process of its own that is killed when it takes too long.

Its own time limits are signals, which only a main thread receives, and SymPy may eat all memory. The process is a fresh
interpreter, so any thread and any fork may ask; each process keeps one for all its questions.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from functools import cache
from importlib.util import find_spec

SECONDS = 5.0
"""For an answer."""
START_SECONDS = 60.0
"""For importing SymPy, on a busy machine."""
MAX_CHARACTERS = 200


def second_opinion(given: str, expected: str, seconds: float = SECONDS) -> bool | None:
    """Whether math-verify calls them equal; None if it is not installed, took too long or failed."""
    if not _installed() or len(given) > MAX_CHARACTERS or len(expected) > MAX_CHARACTERS:
        return None
    return _here().ask(given, expected, seconds)


class _Asked:
    """One process, one question at a time. Started when first asked, and again after it was killed."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, given: str, expected: str, seconds: float) -> bool | None:
        with self._lock:
            answer = None
            try:
                if self._process is None:
                    self._process = _start()
                    if _line(self._process, START_SECONDS) is None:
                        return None
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps([given, expected]).encode() + b"\n")
                self._process.stdin.flush()
                answer = _line(self._process, seconds)
            except OSError:  # it ended, or there can be no process
                pass
            finally:
                if answer is None:
                    self._end()
            return json.loads(answer) if answer else None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:  # of what was not read any more
                        continue

    def close(self) -> None:
        if self.owner == os.getpid():
            with self._lock:
                self._end()


_asked: _Asked | None = None
_making = threading.Lock()


def _here() -> _Asked:
    """The one of this process: a fork must not talk into its parent's."""
    global _asked
    with _making:
        if _asked is None or _asked.owner != os.getpid():
            _asked = _Asked()
            atexit.register(_asked.close)
        return _asked


def _renew_lock() -> None:
    """Another thread may have held it when this process was forked."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@cache
def _installed() -> bool:
    return find_spec("math_verify") is not None


def _start() -> subprocess.Popen[bytes]:
    """It ends by itself when its input does."""
    command = [sys.executable, "-c", _PROGRAM]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """An answer is a line that is written at once; None if there is none in time."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN | select.POLLHUP)
    return process.stdout.readline() or None if poll.poll(seconds * 1000) else None


_PROGRAM = """
import json, logging, os, resource, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
logging.disable(logging.CRITICAL)
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from math_verify import parse, verify
print("ready", file=answers)
for line in sys.stdin:
    given, expected = json.loads(line)
    try:
        gold, answer = (parse("\\\\boxed{" + text + "}", parsing_timeout=None) for text in (expected, given))
        opinion = bool(gold and answer and verify(gold, answer, timeout_seconds=None))
    except (Exception, MemoryError, RecursionError):
        opinion = None
    print(json.dumps(opinion), file=answers)
"""
