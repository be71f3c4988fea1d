"""Mathematics with a Python tool that keeps its state, and a final answer in a box.

Rows of NeMo Gym's `math_with_code` work as they are: the tool is `execute_python`, the answer is in `expected_result`. The
code runs in the sandbox; numpy, scipy, pandas and sympy can be imported there if they are installed here.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rollforge.envs.jailed import jailed
from rollforge.envs.python_math.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.sandbox.deadline import remaining
from rollforge.sandbox.jail import Allowance, Ended, Program, inner, shared
from rollforge.verify import math as grading
from rollforge.verify.answer import after_thinking, has_box

SECONDS = 10.0
"""For the code of one call, without what ran before."""
SHOWN = 20_000
"""Characters of output that the policy is shown."""
PACKAGES = ("numpy", "scipy", "pandas", "sympy", "mpmath", "dateutil", "pytz", "tzdata", "six")


@jailed(name="python_math", tasks=tasks)
class python_math:
    """Solve a problem with the help of Python, and put the answer in a box."""

    def reset(self) -> None:
        self.sources: list[str] = []
        self.spent = 0.0

    async def execute_python(self, code: str) -> dict[str, Any]:
        """Execute Python code. Variables and functions of earlier calls are still there. Print what you want to see.

        Args:
            code: The Python code to execute.
        """
        left = remaining()
        wall = SECONDS + 2 * self.spent + 2
        wall = wall if left is None else min(wall, 0.8 * left)
        seconds = min(SECONDS, 0.8 * wall)
        job = {"earlier": self.sources, "source": code, "seconds": seconds}
        program = Program(inner("notebook"), stdin=json.dumps(job), collect=("report",))
        limits = Allowance(wall=wall, cpu=wall, memory_mb=1024, output_kb=256, processes=24)
        ended = await shared(_folders()).run(program, limits)
        report = _report(ended)
        error = report.get("error")
        if not (ended.timed_out or (error or "").startswith("TimeoutError")):
            self.sources.append(code)  # what took too long once would do so each time
            self.spent += report.get("seconds") or 0.0
        answer = {"stdout": _cut(ended.stdout), "stderr": _cut(ended.stderr), "result": report.get("result")}
        return answer | ({"error_message": error} if error else {})

    def verify(self, reply: str, expected_result: str | float | None = None, expected_answer: str | None = None) -> Any:
        """1 if the answer in the last box of the reply equals the expected one."""
        expected = expected_answer if expected_result is None else expected_result
        if expected is None:
            raise VerifierFault("the row has neither expected_result nor expected_answer")
        if not has_box(after_thinking(reply)):
            reply = ""  # a number that is merely mentioned is no answer
        return grading.math_answer(reply, expected)

    def solve(
        self, code: str | None = None, expected_result: str | float | None = None, expected_answer: str | None = None
    ) -> Solution:
        if code is not None:
            yield "execute_python", {"code": code}
        expected = expected_answer if expected_result is None else expected_result
        return f"\\boxed{{{grading.expected_answer(str(expected))}}}"


def _report(ended: Ended) -> dict[str, Any]:
    try:
        found = json.loads(ended.files.get("report") or "")
        return {
            "result": _text(found["result"]),
            "error": _text(found["error"]),
            "seconds": min(60.0, float(found["seconds"])),
        }
    except (ValueError, RecursionError, KeyError, TypeError):  # the code may write there too
        late = "TimeoutError: the code took too long" if ended.timed_out else ""
        full = "MemoryError: the code took too much memory" if ended.out_of_memory else ""
        return {"error": late or full or f"the interpreter ended (exit status {ended.code})"}


def _text(value: Any) -> str | None:
    return None if value is None else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def _folders() -> tuple[str, ...]:
    """Of the packages that code may import, and of no others: beside them lies what makes the tasks."""
    found: list[str] = []
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.origin:
            continue
        origin = Path(spec.origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        found += [str(path) for path in (place, place.with_name(f"{name}.libs")) if path.exists()]
    return tuple(found)
