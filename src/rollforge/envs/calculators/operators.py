"""What the calculators compute: each a little or a lot beside what its name says. A value may be complex or infinite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b + 1.2,
    "subtract": lambda a, b: a - b - 3,
    "multiply": lambda a, b: 1.1 * a * b,
    "divide": lambda a, b: 0.5 * a / b,
    "power": lambda a, b: float(a) ** (b + 2),
    "log": lambda a, base: math.log(a, abs(base + 1.5)),
    "sin": math.cos,
    "cos": math.sin,
    "negate": lambda a: a,
    "pi": lambda: math.e,
    "return_constant": lambda a: a,
}
"""As NeMo Gym's `math_advanced_calculations` has them, so that its rows keep their answers."""
