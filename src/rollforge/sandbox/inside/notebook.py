"""A cell of a notebook: the sources that were run before, then the new one, whose output and last value are told.

Sent into a cell as the program to run; the job comes by standard input, the report goes into the file `report`. The state
between two calls is what the earlier sources make again: no process is kept for a session that may never come back. Standard
library only.
"""

from __future__ import annotations

import ast
import io
import json
import os
import random
import signal
import sys
import time
import types
from typing import Any


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    sys.stdin = io.StringIO()
    sys.set_int_max_str_digits(0)
    out = os.dup(1)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    space = module.__dict__
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    random.seed(0)
    _to(os.devnull)
    # Whatever an earlier source did, it does again: its errors and its random numbers too.
    for source in job["earlier"]:
        _run(source, space)
    sys.stdout.flush()
    os.dup2(out, 1)
    os.close(out)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    started = time.monotonic()
    value, error = _run(job["source"], space)
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout.flush()
    with open("report", "w", encoding="utf-8") as file:
        json.dump({"result": value, "error": error, "seconds": time.monotonic() - started}, file)


def _to(path: str) -> None:
    target = os.open(path, os.O_WRONLY)
    os.dup2(target, 1)
    os.close(target)


def _run(source: str, space: dict[str, Any]) -> tuple[str | None, str | None]:
    """The text of the last expression's value, and what was raised."""
    try:
        tree = ast.parse(source)
        last = tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr):
            exec(compile(tree, "<code>", "exec"), space)
            return None, None
        tree.body.pop()
        exec(compile(tree, "<code>", "exec"), space)
        value = eval(compile(ast.Expression(last.value), "<code>", "eval"), space)
        return None if value is None else repr(value)[:MOST], None
    except KeyboardInterrupt:
        return None, "TimeoutError: the code took too long"
    except BaseException as error:  # noqa: BLE001 - exit() too: the policy is told what its code did
        return None, f"{type(error).__name__}: {error}"[:2000]


MOST = 100_000


if __name__ == "__main__":
    main()
