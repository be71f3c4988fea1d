"""Tasks of the calculators environment: expressions of some depth, one to four of them."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

from rollforge.envs.calculators.operators import OPERATORS
from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

LARGEST = 1e7
SMALLEST = 1e-4


@generated("calculators", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, ground_truth, steps, depth, breadth, kind, level}`. Kinds: one expression, several. Level: how deep
    they are, and how many."""
    return {"one": lambda rng, level: _row(rng, level, 1), "several": lambda rng, level: _row(rng, level, 2 + (level > 0))}


def _row(rng: Random, level: int, breadth: int) -> tuple[str, Json]:
    depth = 1 + level + (rng.random() < 0.3)
    steps: list[Any] = []
    texts: list[str] = []
    values: list[float] = []
    while len(texts) < breadth:
        drawn = _draw(rng, depth, len(steps))
        if drawn is None:
            continue
        text, value, more = drawn
        if text in texts or any(math.isclose(value, other, rel_tol=1e-3) for other in values):
            continue
        more[-1][2] = True
        texts.append(text)
        values.append(value)
        steps += more
    listed = texts[0] if breadth == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    form = "value" if breadth == 1 else "values, in this order and separated by commas,"
    prompt = (
        f"What {'is' if breadth == 1 else 'are'} {listed}? Use the given tools only, also where they give other results "
        f"than you expect: in their universe these are right. Put the {form} with at least six digits in \\boxed{{}}."
    )
    row = {"prompt": prompt, "ground_truth": json.dumps(values), "steps": steps, "depth": depth, "breadth": breadth}
    return listed, row


def _draw(rng: Random, depth: int, done: int) -> tuple[str, float, list[list[Any]]] | None:
    """An expression, its value there, and the steps to it; None if it has no value, or none of a usual size."""
    steps: list[list[Any]] = []
    try:
        text, value, _ = _expression(rng, depth, done, steps)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None
    return (text, value, steps) if isinstance(value, float) and SMALLEST < abs(value) < LARGEST else None


def _expression(rng: Random, depth: int, done: int, steps: list[list[Any]]) -> tuple[str, float, Any]:
    """Its text, its value, and what stands for it in a later step. Complex values make comparisons fail, which is caught."""
    if depth == 0:
        number = float(rng.randint(1, 10))
        return f"{number:g}", number, number
    name = rng.choices(tuple(_SHAPES), weights=(6, 6, 6, 6, 3, 3, 2, 2, 1))[0]
    shape, names = _SHAPES[name]
    deep = rng.randrange(len(names))
    parts = [_expression(rng, depth - 1 if place == deep else 0, done, steps) for place in range(len(names))]
    if name == "power" and (abs(parts[0][1]) > 20 or abs(parts[1][1]) > 6):
        raise OverflowError
    value = float(OPERATORS[name](*(part[1] for part in parts)))
    if not abs(value) < LARGEST:
        raise OverflowError
    steps.append([name, dict(zip(names, (part[2] for part in parts), strict=True)), False])
    return shape.format(*(part[0] for part in parts)), value, {"step": done + len(steps) - 1}


_SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "add": ("({} + {})", ("a", "b")),
    "subtract": ("({} - {})", ("a", "b")),
    "multiply": ("({} * {})", ("a", "b")),
    "divide": ("({} / {})", ("a", "b")),
    "power": ("({} ** {})", ("a", "b")),
    "log": ("log({}, {})", ("a", "base")),
    "sin": ("sin({})", ("radians",)),
    "cos": ("cos({})", ("radians",)),
    "negate": ("(-{})", ("a",)),
}
