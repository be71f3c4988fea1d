"""Tasks of the arithmetic environment: generated problems of one or two steps, and the reference solution.

A problem is `steps`: `[operation, left, right]`, where None stands for the result of the step before. The same problem is
always in the same split, however it is phrased and whatever the seed, so train and test never share one.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from rollforge.envs.generate import chosen
from rollforge.errors import UserError, unknown
from rollforge.models.base import Solution
from rollforge.records.items import Json

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a // b,
}
"""What the tools of these names compute. Generated divisions leave no remainder."""

LEVELS = {"easy": 2, "medium": 2, "hard": 1}
"""Easy: numbers of one or two digits (what is divided: three). Medium: of three or four (what is divided: five). Hard: two
steps. The weights of the default mix."""

SPLITS = ("train", "test")

Step = tuple[str, int | None, int | None]


def tasks(
    n: int | None = 100,
    seed: int = 0,
    split: str = "train",
    level: str | Sequence[str] | None = None,
    operations: str | Sequence[str] | None = None,
) -> Iterator[Json]:
    """Rows `{prompt, answer, level, operation, steps}`, a different problem each; an unlimited stream if `n` is None.

    `level` and `operations` choose one or several (a list, or a text with commas); all by default. The stream begins to
    repeat problems (mostly in other words) when it runs out of them.
    """
    levels = chosen("level", level, LEVELS)
    used = chosen("operation", operations, OPERATIONS)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    # A string seeds by its hash in a way that does not change between Python versions or processes.
    rng = random.Random(f"arithmetic {seed}")
    return islice(_distinct(rng, split, levels, used, endless=n is None), n)


def solve(steps: Sequence[Step]) -> Solution:
    """The reference policy: the right tool for each step, then the result."""
    result = ""
    for operation, left, right in steps:
        a = int(result) if left is None else left
        b = int(result) if right is None else right
        result = yield operation, {"a": a, "b": b}
    return f"The answer is {result}."


def value(steps: Sequence[Step]) -> int:
    """The answer of a problem."""
    result = 0
    for operation, left, right in steps:
        result = OPERATIONS[operation](result if left is None else left, result if right is None else right)
    return result


def _distinct(rng: random.Random, split: str, levels: list[str], operations: list[str], *, endless: bool) -> Iterator[Json]:
    weights = [LEVELS[level] for level in levels]
    seen: set[str] = set()
    misses = 0
    while True:
        level = rng.choices(levels, weights)[0]
        steps = _problem(rng, level, operations)
        key = _key(steps)
        if _split(key) != split or _ambiguous(steps):
            continue
        if key in seen:
            misses += 1
            if misses < 1000:
                continue
            if not endless:
                where = f"{', '.join(operations)} at level {', '.join(levels)}"
                raise UserError(
                    f"there are only about {len(seen)} different {split} problems of {where}; ask for fewer (n=)"
                )
            seen.clear()
        misses = 0
        seen.add(key)
        operation = "+".join(step[0] for step in steps)
        row = {"prompt": _phrase(rng, steps), "answer": value(steps), "level": level, "operation": operation}
        yield {**row, "steps": [list(step) for step in steps]}


def _problem(rng: random.Random, level: str, operations: list[str]) -> list[Step]:
    first = rng.choice(operations)
    if level != "hard":
        return [(first, *_operands(rng, first, level))]
    second = rng.choice(operations)
    if second == "divide":
        divisor = rng.randint(2, 12)
        return [(first, *_pair_making(rng, first, divisor * rng.randint(2, 12))), (second, None, divisor)]
    step: Step = (second, None, rng.randint(2, 99 if second != "multiply" else 12))
    if second == "multiply" and rng.random() < 0.5:
        step = (second, step[2], None)
    return [(first, *_operands(rng, first, "easy")), step]


def _operands(rng: random.Random, operation: str, level: str) -> tuple[int, int]:
    low, high = (2, 99) if level == "easy" else (100, 9999)
    if operation == "divide":
        divisor = rng.randint(2, 12 if level == "easy" else 99)
        return divisor * rng.randint(2, 80 if level == "easy" else 999), divisor
    if operation == "multiply":
        return rng.randint(low, min(high, 999)), rng.randint(2, 99)
    return rng.randint(low, high), rng.randint(low, high)


def _pair_making(rng: random.Random, operation: str, result: int) -> tuple[int, int]:
    """Operands with which the operation gives `result`: what a division without remainder starts from."""
    if operation == "add":
        part = rng.randint(1, result - 1)
        return part, result - part
    if operation == "subtract":
        part = rng.randint(2, 99)
        return result + part, part
    if operation == "multiply":
        factor = rng.choice([n for n in range(1, result + 1) if result % n == 0])
        return factor, result // factor
    divisor = rng.randint(2, 9)
    return result * divisor, divisor


def _ambiguous(steps: Sequence[Step]) -> bool:
    """Whether another operation gives the same (2 + 2, 2 × 2): nothing could be learned from it."""
    operation, a, b = steps[0]
    if len(steps) > 1 or a is None or b is None:
        return False
    return any(name != operation and OPERATIONS[name](a, b) == OPERATIONS[operation](a, b) for name in OPERATIONS)


def _key(steps: Sequence[Step]) -> str:
    """The problem itself: the same for 3 × 4 and 4 × 3."""
    parts = []
    for operation, left, right in steps:
        pair = [str(left), str(right)]
        parts.append(f"{operation} {' '.join(sorted(pair) if operation in ('add', 'multiply') else pair)}")
    return ", ".join(parts)


def _split(key: str) -> str:
    return "test" if zlib.crc32(key.encode()) % 8 == 0 else "train"


SIGNS = {"add": ("+",), "subtract": ("-",), "multiply": ("×", "x", "*"), "divide": ("÷", "/")}
WORDS = {"add": "plus", "subtract": "minus", "multiply": "times", "divide": "divided by"}
ORDERS = {
    "add": "Add {a} and {b}",
    "subtract": "Subtract {b} from {a}",
    "multiply": "Multiply {a} by {b}",
    "divide": "Divide {a} by {b}",
}
THEN = {"add": "add {c}", "subtract": "subtract {c}", "multiply": "multiply by {c}", "divide": "divide by {c}"}
QUESTIONS = ("What is {}?", "What is {}?", "Compute {}.", "How much is {}?", "{} = ?")


def _phrase(rng: random.Random, steps: Sequence[Step]) -> str:
    operation, a, b = steps[0]
    ordered = ORDERS[operation].format(a=a, b=b)
    if len(steps) == 1:
        return f"{ordered}." if rng.random() < 0.25 else rng.choice(QUESTIONS).format(_infix(rng, operation, a, b))
    second, left, right = steps[1]
    if right is not None and rng.random() < 0.25:
        return f"{ordered}, then {THEN[second].format(c=right)}."
    inner = f"({_infix(rng, operation, a, b)})"
    return rng.choice(QUESTIONS).format(_infix(rng, second, left or inner, right or inner))


def _infix(rng: random.Random, operation: str, left: Any, right: Any) -> str:
    between = rng.choice(SIGNS[operation]) if rng.random() < 0.7 else WORDS[operation]
    return f"{left} {between} {right}"
