"""Levels of Sokoban, made from their solved state by playing backwards: each can be solved, and how far it is is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random

from rollforge.envs.sokoban.board import MOVES, Board, Place, after
from rollforge.errors import VerifierFault

SHARE_OF_WALLS = 0.15
STATES = 30_000
"""That are looked at when playing backwards."""
TRIES = 200


@lru_cache(1024)
def level(seed: int, rows: int, columns: int, boxes: int, least: int = 4, most: int = 15) -> Board:
    """A room of that size, walls around it included, that is solved in `least` to `most` moves; the same for the same
    arguments. Raises `VerifierFault` where no such room is found."""
    if not (3 <= rows <= 30 and 3 <= columns <= 30 and 1 <= boxes <= 8):
        raise VerifierFault(f"no level of {rows} x {columns} with {boxes} boxes: 3 to 30 rows and columns, 1 to 8 boxes")
    rng = Random(f"sokoban {seed} {rows} {columns} {boxes}")
    for number in range(TRIES):
        # Small rooms with few moves at last, rather than none.
        found = _made(rng, rows, columns, boxes, least if number < TRIES // 2 else 1, most)
        if found is not None:
            return found
    raise VerifierFault(f"no level of {rows} x {columns} with {boxes} boxes could be made (seed {seed})")


def _made(rng: Random, rows: int, columns: int, boxes: int, least: int, most: int) -> Board | None:
    floor = _room(rng, rows, columns)
    if len(floor) < 2 * boxes + 1:
        return None
    targets = frozenset(rng.sample(floor, boxes))
    walls = frozenset((r, c) for r in range(-1, rows + 1) for c in range(-1, columns + 1)) - frozenset(floor)
    solved = Board(rows, columns, walls, targets, targets, (0, 0))
    wanted = [board for moves, board in _backwards(rng, solved, floor, most) if moves >= least and not board.home]
    return rng.choice(wanted) if wanted else None


def _room(rng: Random, rows: int, columns: int) -> list[Place]:
    """The largest connected part of a floor with walls strewn over it."""
    inside = [(r, c) for r in range(1, rows - 1) for c in range(1, columns - 1)]
    left = {place for place in inside if rng.random() >= SHARE_OF_WALLS}
    largest: list[Place] = []
    while left:
        part = [min(left)]
        left.remove(part[0])
        for place in part:
            near = {after(place, move) for move in MOVES} & left
            left -= near
            part += sorted(near)
        largest = max(largest, part, key=len)
    return sorted(largest)


def _backwards(rng: Random, solved: Board, floor: Sequence[Place], most: int) -> list[tuple[int, Board]]:
    """States with the number of moves that solve them, nearest first: a move back is a step, which may pull a box along."""
    seen: set[tuple[Place, frozenset[Place]]] = {(place, solved.boxes) for place in floor if place not in solved.boxes}
    ring = sorted(seen, key=lambda state: state[0])
    found: list[tuple[int, Board]] = []
    for moves in range(1, most + 1):
        further: list[tuple[Place, frozenset[Place]]] = []
        for player, boxes in ring:
            for move in MOVES:
                # The player came from there, by `move`; the box, if one was pushed, is in front of him.
                there = after(player, _OPPOSITE[move])
                if there in solved.walls or there in boxes:
                    continue
                front = after(player, move)
                for before in [boxes] + ([boxes - {front} | {player}] if front in boxes else []):
                    if (there, before) not in seen:
                        seen.add((there, before))
                        further.append((there, before))
        found += [(moves, Board(solved.rows, solved.columns, solved.walls, solved.targets, b, p)) for p, b in further]
        ring = further
        if len(seen) > STATES or not ring:
            break
    return found


_OPPOSITE = {"Up": "Down", "Down": "Up", "Left": "Right", "Right": "Left"}
