"""Tasks of Sokoban: levels by their size, their boxes and how many moves they take."""

from __future__ import annotations

from functools import partial
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.envs.sokoban.board import LEGEND
from rollforge.envs.sokoban.levels import level as made_level
from rollforge.records.items import Json

PROMPT = (
    f"Solve this Sokoban level: push every box onto a target, one move at a time. You push a box by walking into it; there "
    f"must be room behind it, and you cannot pull. {LEGEND}. After each look at the board, answer with exactly one move: "
    "<action>Up</action>, <action>Down</action>, <action>Left</action> or <action>Right</action>."
)

SIZES = ((5, 6), (6, 8), (6, 8))
MOVES = ((3, 6), (6, 11), (9, 15))


@generated("sokoban", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, board, scoring, kind, level}`. Kinds: `one_box`, `two_boxes`. Level: the size of the room, and the
    moves that the shortest solution takes (3 to 6, 6 to 11, 9 to 15)."""
    return {"one_box": partial(_row, boxes=1), "two_boxes": partial(_row, boxes=2)}


def _row(rng: Random, level: int, boxes: int) -> tuple[str, Json]:
    rows, columns = rng.randint(*SIZES[level]), rng.randint(*SIZES[level])
    board = made_level(rng.randrange(2**32), rows, columns, boxes, *MOVES[level]).text()
    return board, {"prompt": PROMPT, "board": board.split("\n"), "scoring": "solved"}
