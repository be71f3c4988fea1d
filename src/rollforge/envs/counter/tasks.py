"""Tasks of the counter environment. The policy is never told where the counter starts."""

from __future__ import annotations

from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json


@generated("counter", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, initial_count, expected_count, kind, level}`. Kinds: add (one to four numbers), reach (a value),
    multiply (what the counter holds). Level: how many numbers, how large, whether some are taken away."""
    return {"add": _add, "reach": _reach, "multiply": _multiply}


def _add(rng: Random, level: int) -> tuple[str, Json]:
    steps = []
    for _ in range(rng.randint(1, 2) + level):
        size = rng.randint(1, (9, 40, 200)[level])
        steps.append(-size if level and rng.random() < 0.35 else size)
    if not sum(steps):
        steps.append(1)
    orders = [f"add {step}" if step > 0 else f"take away {-step}" for step in steps]
    text = ", then ".join(orders)
    end = rng.choice(("tell me the count", "get the count", "say what the counter shows"))
    return _row(rng, f"{text[0].upper()}{text[1:]}, then {end}.", sum(steps))


def _reach(rng: Random, level: int) -> tuple[str, Json]:
    start = rng.randint(0, (9, 99, 999)[level])
    change = rng.randint(1, (9, 99, 999)[level]) * (rng.choice((1, -1)) if level else 1)
    goal = start + change
    order = rng.choice(("Bring the counter to exactly {}.", "The counter must show {}. See to it.", "Make the count {}."))
    return _row(rng, order.format(goal), change, start)


def _multiply(rng: Random, level: int) -> tuple[str, Json]:
    start = rng.randint(1, (9, 50, 300)[level])
    factor = 2 if level == 0 else rng.randint(2, 3 + 2 * level)
    word = {2: "Double", 3: "Triple"}.get(factor)
    order = f"{word} the counter." if word else f"Make the counter {factor} times what it is now."
    return _row(rng, order, start * (factor - 1), start)


def _row(rng: Random, prompt: str, change: int, start: int | None = None) -> tuple[str, Json]:
    initial = rng.randint(0, 20) if start is None else start
    row = {"prompt": prompt, "initial_count": initial, "expected_count": initial + change}
    return f"{prompt} {initial}", row
