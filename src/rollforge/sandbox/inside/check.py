"""A test that is a function, `check(candidate)`, or an expression, run on a program that never meets it.

Sent into a cell as the program to run; the job comes by standard input, the report goes to standard output. Standard library
only.

    check, in this process --arguments--> the candidate: a fresh interpreter, in which nothing of the test ever was
    check                  <--results---  plain data, whatever the program does with its own interpreter
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import sys
from collections.abc import Callable
from typing import Any

PLAYER = """import json, sys
job = json.loads(sys.stdin.buffer.readline())
sys.path[:] = job["path"]
space = {"__name__": "trials"}
exec(job["trials"], space)
space["answer"](job)"""


class Stop(BaseException):
    """The check cannot go on; nothing that it catches."""


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: its memory and files are not the program's
    # The program can write to the working folder: nothing is imported from there.
    job["path"], sys.path[:] = list(sys.path), [path for path in sys.path if path not in ("", os.getcwd())]
    report = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.write(report, json.dumps(_judged(job)).encode())


def _judged(job: dict[str, Any]) -> dict[str, Any]:
    trials: dict[str, Any] = {"__name__": "trials"}
    exec(job["trials"], trials)
    try:
        check = _expression(job, trials) if job["expression"] else _check(job)
    except BaseException as error:  # noqa: BLE001 - the test's, whatever it is
        return {"status": "fault", "error": _said(error)}
    try:
        candidate = Candidate(job, trials)
        found = check(candidate)
        output = json.dumps(trials["plain"](found)) if job["expression"] else ""
    except Stop as stop:
        return {"status": stop.args[0], "error": stop.args[1]}
    except BaseException as error:  # noqa: BLE001 - it ends as the check does
        # What a program raises comes from there; a name that is missing here is missing in the test.
        fault = isinstance(error, NameError) and not hasattr(error, "of_program")
        return {"status": "fault" if fault else "error", "error": _said(error)}
    if candidate.stopped is not None:
        return {"status": candidate.stopped.args[0], "error": candidate.stopped.args[1]}
    if not candidate.calls:
        return {"status": "fault", "error": "it never calls the candidate"}
    return {"status": "ok", "output": output}


def _check(job: dict[str, Any]) -> Callable[[Candidate], Any]:
    space: dict[str, Any] = {"__name__": "check"}
    for part in (job["setup"], job["test"]):
        exec(compile(part, "check.py", "exec", dont_inherit=True), space)
    check: Callable[[Candidate], Any] = space["check"]
    return check


def _expression(job: dict[str, Any], trials: dict[str, Any]) -> Callable[[Candidate], Any]:
    codes = [
        compile(job[part], "check.py", mode, dont_inherit=True) for part, mode in (("setup", "exec"), ("expression", "eval"))
    ]
    space: dict[str, Any] = {"__name__": "check"}
    for code in codes:
        space |= trials["_given"](code)
    asked: list[Candidate] = []
    for name in job["names"]:  # what the setup calls of the program
        space[name] = lambda *arguments, _name=name, **named: asked[0].call(_name, arguments, named)
    exec(codes[0], space)

    def check(candidate: Candidate) -> Any:
        asked.append(candidate)
        space["__program__"] = candidate.compute
        return eval(codes[1], space)

    return check


class Candidate:
    """The program's function, in another process. Raises what it raises, where that is a built-in exception."""

    def __init__(self, job: dict[str, Any], trials: dict[str, Any]) -> None:
        self.__name__ = job["name"]
        self.calls = 0
        self.stopped: Stop | None = None
        self._most = job["most"]
        self._trials = trials
        (theirs, to_it), (from_it, back) = os.pipe(), os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, theirs, 0), (os.POSIX_SPAWN_DUP2, back, 1)]
        executable = getattr(sys, "_base_executable", None) or sys.executable
        os.posix_spawn(executable, [executable, "-I", "-c", PLAYER], os.environ, file_actions=actions)
        for number in (theirs, back):
            os.close(number)
        self._to_it, self._from_it = open(to_it, "wb"), open(from_it, "rb")
        known = ("trials", "path", "before", "code", "name", "most")
        self._result(self._ask({key: job[key] for key in known}))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._send(list(arguments), named)

    def compute(self, source: str, variables: dict[str, Any]) -> Any:
        """What the program makes of an expression; a function of its own, where that is a name."""
        return self._send(source, variables, asked=source)

    def call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self.compute(f"{name}(*arguments_, **named_)", {"arguments_": list(arguments), "named_": named})

    def _send(self, *message: Any, asked: str = "") -> Any:
        self.calls += 1
        try:
            sent = [self._trials["plain"](part) for part in message]
        except (TypeError, RecursionError) as error:
            raise self._stop("fault", f"an argument is no plain data: {error}") from None
        return self._result(self._ask(sent), asked)

    def _ask(self, message: Any) -> Any:
        if self.stopped is not None:
            raise self.stopped
        try:
            self._to_it.write(json.dumps(message).encode() + b"\n")
            self._to_it.flush()
            line = self._from_it.readline(self._most)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._stop("error", "too much output" if line else "the program ended itself")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise self._stop("error", "the program answered for itself") from None

    def _result(self, answer: Any, asked: str = "") -> Any:
        try:
            if "result" in answer:
                return self._trials["data"](answer["result"])
            if "function" in answer and asked.isidentifier():
                return lambda *arguments, **named: self.call(asked, arguments, named)
            name, message = str(answer["raised"]), str(answer["message"])
        except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
            raise self._stop("error", "the program answered for itself") from None
        kind = getattr(builtins, name, None)
        # StopIteration would end an iteration of the test well, all(map(candidate, ...)) for one.
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(
            kind, (StopIteration, StopAsyncIteration)
        ):
            kind, message = RuntimeError, f"{name}: {message}"
        try:
            error = kind(message)
        except TypeError:
            error = RuntimeError(f"{name}: {message}")
        error.of_program = True  # type: ignore[attr-defined] # an exception takes any attribute
        raise error

    def _stop(self, status: str, error: str) -> Stop:
        self.stopped = Stop(status, error)
        return self.stopped


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500].removesuffix(": ")


if __name__ == "__main__":
    main()
