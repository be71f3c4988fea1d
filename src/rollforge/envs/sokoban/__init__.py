"""Sokoban, played by steps: one move a reply, until every box is on a target.

Rows of NeMo Gym's `grl_sokoban` work as they are, with its signs and rewards (-0.1 a move, 1 for a box that comes to a
target, -1 for one that leaves it, 10 for the last), on levels of our own: a row is the same level for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollforge.envs.actions import chosen_action
from rollforge.envs.decorate import env
from rollforge.envs.sokoban.board import LEGEND, MOVES, Board, board_in, read_board, shortest
from rollforge.envs.sokoban.levels import level as made_level
from rollforge.envs.sokoban.tasks import tasks
from rollforge.errors import VerifierFault

NAMES = (*MOVES, "1", "2", "3", "4")
"""NeMo Gym's rows let the moves be numbered, in this order."""


@env(name="sokoban", tasks=tasks, inline=True)
class sokoban:
    """Push every box onto a target."""

    def reset(self, prompt: str, max_steps: int = 100, scoring: str = "gym", **row: Any) -> str | None:
        if scoring not in ("gym", "solved"):
            raise VerifierFault(f"scoring is {scoring!r}; it is gym or solved")
        self.board = _board(prompt, row)
        self.left = max_steps
        self.by_moves = scoring == "gym"
        self.reward = 0.0
        self.moves = self.invalid = 0
        # A stored rollout's prompt shows the board already.
        return None if board_in(prompt) else self._seen()

    def step(self, action: str) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        name = chosen_action(action, NAMES)
        before, reward, said = self.board, 0.0, ""
        self.left -= 1
        if name is None:
            self.invalid += 1
            said = "That is no move. "
        else:
            self.moves += 1
            self.board = before.moved(list(MOVES)[int(name) - 1] if name.isdigit() else name)
        solved = self.board.solved
        if self.by_moves:
            reward = self.board.home - before.home + (10.0 if solved else 0.0) - 0.1
        elif solved:
            reward = 1.0
        self.reward += reward
        over = solved or self.left <= 0
        return None if over else said + self._seen(), reward, solved, over and not solved, {}

    def verify(self) -> dict[str, Any]:
        told = {"solved": float(self.board.solved), "moves": self.moves, "invalid_actions": self.invalid}
        return {"reward": round(self.reward, 6), **told, "boxes_on_targets": self.board.home}

    def solve(self, prompt: str, **row: Any) -> Sequence[str] | None:
        """The fewest moves; None where the search takes too long."""
        moves = shortest(_board(prompt, row))
        return None if moves is None else [f"<action>{move}</action>" for move in moves]

    def _seen(self) -> str:
        actions = ", ".join(f"<action>{move}</action>" for move in MOVES)
        return f"Board:\n{self.board.text()}\n\n{LEGEND}.\nAnswer with one of {actions}."


def _board(prompt: str, row: dict[str, Any]) -> Board:
    """What the prompt shows, else the row's own, else the level that its numbers make."""
    given = board_in(prompt) or row.get("board")
    if given:
        return read_board(given)
    size, boxes, seed = row.get("dim_room") or (6, 6), row.get("num_boxes", 1), row.get("seed", row.get("level_id", 0))
    whole = isinstance(size, (list, tuple)) and len(size) == 2 and all(type(n) is int for n in (*size, boxes, seed))
    if not whole:
        what = f"dim_room {size!r:.60}, num_boxes {boxes!r:.60}, seed {seed!r:.60}"
        raise VerifierFault(f"the row has {what}: dim_room is two whole numbers, the others are one")
    return made_level(seed, *size, boxes)
