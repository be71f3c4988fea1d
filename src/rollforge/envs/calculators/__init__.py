"""Calculators of another universe, where + adds too much and pi is e: compute with them, not from memory.

Rows of NeMo Gym's `math_advanced_calculations` work as they are (the same tools): there the reward is 1 if every value of
`ground_truth` came out of a tool. Rows with a `steps` field, as its own tasks, also ask for the values in a box.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rollforge.envs.calculators.operators import OPERATORS
from rollforge.envs.calculators.tasks import tasks
from rollforge.envs.decorate import env
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.verify.answer import after_thinking, boxed

CLOSE = 1e-9
"""Relative: of values that a tool computed."""
STATED = 1e-4
"""Relative: of values that the reply states, rounded."""


@env(name="calculators", tasks=tasks, inline=True)
class calculators:
    """Evaluate expressions with calculators that do not compute what their names say."""

    def reset(self) -> None:
        self.results: list[float] = []
        self.echoed: list[float] = []

    def add(self, a: float, b: float) -> dict[str, float]:
        """Add two numbers; a + b."""
        return self._solution("add", a, b)

    def subtract(self, a: float, b: float) -> dict[str, float]:
        """Subtract two numbers; a - b."""
        return self._solution("subtract", a, b)

    def multiply(self, a: float, b: float) -> dict[str, float]:
        """Multiply two numbers; a * b."""
        return self._solution("multiply", a, b)

    def divide(self, a: float, b: float) -> dict[str, float]:
        """Divide two numbers; a / b. Division is neither commutative nor associative."""
        return self._solution("divide", a, b)

    def power(self, a: float, b: float) -> dict[str, float]:
        """Raise a number to a power; a ** b."""
        return self._solution("power", a, b)

    def log(self, a: float, base: float) -> dict[str, float]:
        """Take the log of a number; log(a, base). The base is always positive in this alternate universe."""
        return self._solution("log", a, base)

    def sin(self, radians: float) -> dict[str, float]:
        """The sine of an angle in radians."""
        return self._solution("sin", radians)

    def cos(self, radians: float) -> dict[str, float]:
        """The cosine of an angle in radians."""
        return self._solution("cos", radians)

    def negate(self, a: float) -> dict[str, float]:
        """Negate a number; -a."""
        return self._solution("negate", a)

    def pi(self) -> dict[str, float]:
        """Returns a precise value of PI for this alternate universe."""
        return self._solution("pi")

    def return_constant(self, a: float) -> dict[str, float]:
        """Return a constant number: a with no modifications."""
        self.echoed.append(a)
        return {"solution": a}

    def _solution(self, name: str, *arguments: float) -> dict[str, float]:
        value = OPERATORS[name](*arguments)
        if isinstance(value, complex) or not math.isfinite(value):
            raise ValueError(f"{name} has no such value")
        self.results.append(value)
        return {"solution": value}

    def verify(
        self, reply: str, ground_truth: str | Sequence[float] | None = None, steps: Sequence[Any] | None = None
    ) -> dict[str, Any]:
        """Half for having computed every value with the tools, half for stating them all in the box, in their order; a value
        that was not computed makes what is stated a guess. Rows without `steps`: 1 for having computed them."""
        wanted = _values(ground_truth)
        given = self.results if steps is not None else [*self.results, *self.echoed]
        computed = all(any(math.isclose(value, one, rel_tol=CLOSE) for one in given) for value in wanted)
        if steps is None:
            return {"reward": float(computed)}
        stated = computed and _stated(reply, wanted)
        return {"computed": 0.5 * computed, "stated": 0.5 * stated}

    def solve(self, ground_truth: Any = None, steps: Sequence[Sequence[Any]] | None = None) -> Solution | None:
        return None if steps is None else _solve(steps)


def _solve(steps: Sequence[Sequence[Any]]) -> Solution:
    """Each step is a tool and its arguments: numbers, or `{"step": i}` for what step i gave; the last item marks the values
    that were asked for."""
    results: list[float] = []
    asked: list[float] = []
    for name, arguments, final in steps:
        given = {key: results[value["step"]] if isinstance(value, dict) else value for key, value in arguments.items()}
        results.append(json.loads((yield name, given))["solution"])
        if final:
            asked.append(results[-1])
    return f"\\boxed{{{', '.join(f'{value:.10g}' for value in asked)}}}"


def _values(ground_truth: str | Sequence[float] | None) -> list[float]:
    try:
        found = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
        values = [float(value) for value in found or ()]
    except (ValueError, TypeError, OverflowError):
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise VerifierFault(f"ground_truth is {ground_truth!r:.100}, not a list of numbers")
    return values


def _stated(reply: str, wanted: Sequence[float]) -> bool:
    parts = (boxed(after_thinking(reply)) or "").strip("[] ").split(",")
    if len(parts) != len(wanted):
        return False
    try:
        stated = [float(part.strip().replace("\\,", "")) for part in parts]
    except ValueError:
        return False
    return all(math.isclose(*pair, rel_tol=STATED, abs_tol=1e-12) for pair in zip(stated, wanted, strict=True))
