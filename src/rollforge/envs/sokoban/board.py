"""A board of Sokoban: what its signs mean, what a move does, and the shortest way to its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rollforge.errors import VerifierFault

Place = tuple[int, int]
"""Row, column."""

MOVES: dict[str, Place] = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}
SIGNS = "#_OX√PS"
"""Wall, floor, target, box, box on a target, player, player on a target."""
LEGEND = "# wall, _ floor, O target, X box, √ box on a target, P you, S you on a target"
MOST_STATES = 400_000
"""That a search looks at before it gives up."""


@dataclass(frozen=True, slots=True)
class Board:
    rows: int
    columns: int
    walls: frozenset[Place]
    targets: frozenset[Place]
    boxes: frozenset[Place]
    player: Place

    def moved(self, move: str) -> Board:
        """After a move; the same board if a wall, or a box that cannot be pushed, is in the way."""
        there = after(self.player, move)
        if there in self.walls:
            return self
        if there not in self.boxes:
            return replace(self, player=there)
        beyond = after(there, move)
        if beyond in self.walls or beyond in self.boxes:
            return self
        return replace(self, player=there, boxes=self.boxes - {there} | {beyond})

    @property
    def home(self) -> int:
        """How many boxes are on targets."""
        return len(self.boxes & self.targets)

    @property
    def solved(self) -> bool:
        return self.boxes <= self.targets

    def text(self) -> str:
        return "\n".join("".join(self._sign((r, c)) for c in range(self.columns)) for r in range(self.rows))

    def _sign(self, place: Place) -> str:
        if place in self.walls:
            return "#"
        on = place in self.targets
        if place == self.player:
            return "S" if on else "P"
        if place in self.boxes:
            return "√" if on else "X"
        return "O" if on else "_"


def after(place: Place, move: str) -> Place:
    down, right = MOVES[move]
    return place[0] + down, place[1] + right


def read_board(given: str | Sequence[str]) -> Board:
    """Of its lines. Raises `VerifierFault` for what is no board: other signs, not one player, boxes without targets."""
    lines = given.strip("\n").split("\n") if isinstance(given, str) else list(given)
    found: dict[str, set[Place]] = {sign: set() for sign in SIGNS}
    for r, line in enumerate(lines):
        for c, sign in enumerate(line):
            if sign not in found:
                raise VerifierFault(f"the board has {sign!r} in line {r + 1}; its signs are {' '.join(SIGNS)}")
            found[sign].add((r, c))
    players, boxes, targets = found["P"] | found["S"], found["X"] | found["√"], found["O"] | found["√"] | found["S"]
    if len(players) != 1 or not boxes or len(targets) < len(boxes):
        what = f"{len(players)} players, {len(boxes)} boxes and {len(targets)} targets"
        raise VerifierFault(f"the board has {what}: it cannot be played")
    columns = max(map(len, lines))
    outside = {(r, c) for r in (-1, len(lines)) for c in range(-1, columns + 1)}
    outside |= {(r, c) for r in range(len(lines)) for c in (-1, *range(len(lines[r]), columns + 1))}
    walls = frozenset(found["#"] | outside)
    return Board(len(lines), columns, walls, frozenset(targets), frozenset(boxes), players.pop())


def board_in(text: str) -> str | None:
    """The last board that a text shows; None if it shows none."""
    found: list[str] = []
    run: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line and "#" in line and not line.strip(SIGNS):
            run.append(line)
        elif run:
            found, run = run, []
    return "\n".join(found) if len(found) > 2 else None


@lru_cache(1024)
def shortest(board: Board) -> tuple[str, ...] | None:
    """The fewest moves that solve it; None if there are none, or it takes too long to find them."""
    alive = _alive(board)
    came: dict[tuple[Place, frozenset[Place]], tuple[Board, str] | None] = {(board.player, board.boxes): None}
    waiting = deque([board])
    while waiting and len(came) < MOST_STATES:
        now = waiting.popleft()
        if now.solved:
            return tuple(reversed(list(_back(came, now))))
        for move in MOVES:
            then = now.moved(move)
            if (then.player, then.boxes) in came or not then.boxes - now.boxes <= alive:
                continue
            came[then.player, then.boxes] = (now, move)
            waiting.append(then)
    return None


def _back(came: dict[tuple[Place, frozenset[Place]], tuple[Board, str] | None], board: Board) -> Iterable[str]:
    while (step := came[board.player, board.boxes]) is not None:
        board, move = step
        yield move


def _alive(board: Board) -> set[Place]:
    """Where a box can still come to a target: the places a box can be pulled to from there."""
    alive, waiting = set(board.targets), list(board.targets)
    while waiting:
        place = waiting.pop()
        for move in MOVES:
            there = after(place, move)
            if there not in alive and there not in board.walls and after(there, move) not in board.walls:
                alive.add(there)
                waiting.append(there)
    return alive
