"""Arithmetic with a calculator: choose the right tool, pass it the numbers, state the result.

The tools do the sums; what a policy can get wrong is which tool to use, which numbers, in which order, how many steps.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from rollforge.envs.arithmetic.tasks import solve, tasks
from rollforge.envs.decorate import env
from rollforge.verify.answer import after_thinking, last_number


@env(name="arithmetic", tasks=tasks, solve=solve, inline=True)
class arithmetic:
    """Problems of one or two steps for a calculator with four tools."""

    def add(self, a: int, b: int) -> int:
        """Add a and b."""
        return a + b

    def subtract(self, a: int, b: int) -> int:
        """Subtract b from a."""
        return a - b

    def multiply(self, a: int, b: int) -> int:
        """Multiply a by b."""
        return a * b

    def divide(self, a: int, b: int) -> int:
        """Divide a by b and leave out the remainder."""
        return a // b

    def verify(self, reply: str, answer: int) -> dict[str, object]:
        """The last number of the reply counts, with or without separators of thousands."""
        said = last_number(after_thinking(reply))
        return {"reward": float(_value(said) == answer), "extracted_answer": said}


def _value(number: str | None) -> Decimal | None:
    if number is None:
        return None
    try:
        return Decimal(number.replace(",", "").replace("−", "-"))
    except InvalidOperation:  # a fraction or a percentage
        return None
