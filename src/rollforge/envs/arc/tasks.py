"""Tasks of ARC: a rule, three or four examples of it, and a grid to apply it to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from rollforge.envs.arc.rules import RULES, Grid, Rule
from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

PROMPT = (
    "Each example shows an input grid and its output grid; one rule makes all the outputs. Find it and apply it to the last "
    "input.\n\n{examples}Test input:\n{test}\n\nGive the output as a list of rows in a box, as in \\boxed{{[[1,2],[3,4]]}}."
)
TRIES = 100


@generated("arc")
def tasks() -> Kinds:
    """Rows `{prompt, train, test_input, expected_output, kind, level}`. Kinds: the rules (`rules.RULES`). Level: the size of
    the grids; at `hard` the output is turned or mirrored too."""
    return {name: partial(_task, name, make) for name, make in RULES.items()}


def boxed_text(grid: Grid) -> str:
    rows = ",".join(f"[{','.join(map(str, row))}]" for row in grid)
    return f"\\boxed{{[{rows}]}}"


def _task(name: str, make: Callable[[Random, int], Rule], rng: Random, level: int) -> tuple[str, Json]:
    while True:
        rule = make(rng, level)
        after = rng.choice(TURNS) if level == 2 else None
        pairs: list[tuple[Grid, Grid]] = []
        for _ in range(TRIES):
            grid = rule.draw(rng)
            out = rule.apply(grid)
            out = after(out) if after else out
            if out != grid and all(grid != seen for seen, _ in pairs):  # an example that changes nothing says nothing
                pairs.append((grid, out))
            if len(pairs) == 4:
                break
        else:
            continue
        examples, (test, expected) = pairs[:3], pairs[3]
        shown = "".join(f"Example {i}\nInput:\n{_text(a)}\nOutput:\n{_text(b)}\n\n" for i, (a, b) in enumerate(examples, 1))
        row = {
            "prompt": PROMPT.format(examples=shown, test=_text(test)),
            "train": [{"input": a, "output": b} for a, b in examples],
            "test_input": test,
            "expected_output": expected,
        }
        return f"{name} {test} {expected}", row


def _text(grid: Grid) -> str:
    return "\n".join(" ".join(map(str, row)) for row in grid)


def _turned(grid: Grid) -> Grid:
    return [list(row) for row in zip(*grid[::-1], strict=True)]


TURNS: tuple[Callable[[Grid], Grid], ...] = (_turned, lambda grid: grid[::-1], lambda grid: [row[::-1] for row in grid])
