"""Rules that make one grid of another. A kind of rule is drawn (which colours, how far), then the grids it is shown on.

Colours are 0 to 9, 0 is the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from random import Random

Grid = list[list[int]]


@dataclass(frozen=True, slots=True)
class Rule:
    draw: Callable[[Random], Grid]
    """A grid that shows it."""
    apply: Callable[[Grid], Grid]


def _size(rng: Random, level: int) -> tuple[int, int]:
    least, most = ((2, 4), (4, 7), (5, 9))[level]
    return rng.randint(least, most), rng.randint(least, most)


def _strewn(rng: Random, level: int, colours: Iterable[int] = range(1, 10), share: float = 0.45) -> Grid:
    """Some cells coloured, at least two."""
    rows, columns = _size(rng, level)
    palette = list(colours)
    grid = [[rng.choice(palette) if rng.random() < share else 0 for _ in range(columns)] for _ in range(rows)]
    for r, c in rng.sample(list(product(range(rows), range(columns))), 2):
        grid[r][c] = rng.choice(palette)
    return grid


def _whole(change: Callable[[Grid], Grid]) -> Callable[[Random, int], Rule]:
    """A rule of any grid that has nothing to draw."""
    return lambda rng, level: Rule(lambda rng: _strewn(rng, level), change)


def _mirror(grid: Grid) -> Grid:
    return [row[::-1] for row in grid]


def _transpose(grid: Grid) -> Grid:
    return [list(row) for row in zip(*grid, strict=True)]


def _flip(rng: Random, level: int) -> Rule:
    return Rule(lambda rng: _strewn(rng, level), rng.choice((_mirror, lambda grid: grid[::-1])))


def _turn(rng: Random, level: int) -> Rule:
    times = rng.randint(1, 3)

    def apply(grid: Grid) -> Grid:
        for _ in range(times):
            grid = _transpose(grid[::-1])
        return grid

    return Rule(lambda rng: _strewn(rng, level), apply)


def _recolour(rng: Random, level: int) -> Rule:
    colours = rng.sample(range(1, 10), 2 + level)
    to = dict(zip(colours, rng.sample(range(1, 10), len(colours)), strict=True))

    def draw(rng: Random) -> Grid:
        while True:  # every grid has every colour, so that the examples tell all of the rule
            grid = _strewn(rng, max(level, 1), colours, 0.8)
            if {cell for row in grid for cell in row} >= set(colours):
                return grid

    return Rule(draw, lambda grid: [[to.get(cell, cell) for cell in row] for row in grid])


def _tile(rng: Random, level: int) -> Rule:
    down, right = rng.choice([(1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (3, 3)])
    return Rule(lambda rng: _strewn(rng, 0), lambda grid: [row * right for row in grid] * down)


def _reflect(rng: Random, level: int) -> Rule:
    """The grid with its mirror image beside or below it."""
    below = rng.random() < 0.5
    return Rule(
        lambda rng: _strewn(rng, min(level, 1)),
        (lambda grid: grid + grid[::-1]) if below else (lambda grid: [row + row[::-1] for row in grid]),
    )


def _enlarge(rng: Random, level: int) -> Rule:
    by = rng.randint(2, 3)
    return Rule(
        lambda rng: _strewn(rng, 0),
        lambda grid: [[cell for cell in row for _ in range(by)] for row in grid for _ in range(by)],
    )


def _crop(rng: Random, level: int) -> Rule:
    def draw(rng: Random) -> Grid:
        rows, columns = (n + 3 for n in _size(rng, level))
        grid = [[0] * columns for _ in range(rows)]
        top, left = rng.randrange(rows - 2), rng.randrange(columns - 2)
        bottom, right = rng.randint(top + 1, rows - 1), rng.randint(left + 1, columns - 1)
        colour = rng.randint(1, 9)
        for r in range(top, bottom + 1):
            for c in range(left, right + 1):
                edge = r in (top, bottom) or c in (left, right)
                grid[r][c] = colour if edge or rng.random() < 0.5 else 0
        return grid

    return Rule(draw, _cropped)


def _cropped(grid: Grid) -> Grid:
    rows = [r for r, row in enumerate(grid) if any(row)]
    columns = [c for c, column in enumerate(_transpose(grid)) if any(column)]
    return [row[columns[0] : columns[-1] + 1] for row in grid[rows[0] : rows[-1] + 1]]


def _fall(rng: Random, level: int) -> Rule:
    """Coloured cells drop to one side."""
    sideways, forward = rng.random() < 0.5, rng.random() < 0.5

    def drop(line: list[int]) -> list[int]:
        cells = [cell for cell in line if cell]
        ground = [0] * (len(line) - len(cells))
        return ground + cells if forward else cells + ground

    def apply(grid: Grid) -> Grid:
        return [drop(row) for row in grid] if sideways else _transpose([drop(row) for row in _transpose(grid)])

    return Rule(lambda rng: _strewn(rng, level), apply)


def _frame(rng: Random, level: int) -> Rule:
    colour = rng.randint(1, 9)

    def apply(grid: Grid) -> Grid:
        edge = [colour] * (len(grid[0]) + 2)
        return [edge, *([colour, *row, colour] for row in grid), edge[:]]

    return Rule(lambda rng: _strewn(rng, level), apply)


def _shift(rng: Random, level: int) -> Rule:
    """Everything moves; what leaves on one side comes in on the other."""
    down, right = rng.choice([(0, 1), (1, 0), (0, -1), (-1, 0)] + ([(1, 1), (-1, 1)] if level else []))

    def apply(grid: Grid) -> Grid:
        rows = [grid[(r - down) % len(grid)] for r in range(len(grid))]
        return [[row[(c - right) % len(row)] for c in range(len(row))] for row in rows]

    return Rule(lambda rng: _strewn(rng, level), apply)


def _fill(rng: Random, level: int) -> Rule:
    """Rings are filled."""
    ring, inside = rng.sample(range(1, 10), 2)

    def draw(rng: Random) -> Grid:
        rows, columns = (n + 2 for n in _size(rng, level))
        grid = [[0] * columns for _ in range(rows)]
        top, left = rng.randrange(rows - 2), rng.randrange(columns - 2)
        bottom, right = rng.randint(top + 2, rows - 1), rng.randint(left + 2, columns - 1)
        for r, c in product(range(top, bottom + 1), range(left, right + 1)):
            if r in (top, bottom) or c in (left, right):
                grid[r][c] = ring
        return grid

    def apply(grid: Grid) -> Grid:
        outside = _outside(grid)
        return [[cell if cell or (r, c) in outside else inside for c, cell in enumerate(row)] for r, row in enumerate(grid)]

    return Rule(draw, apply)


def _outside(grid: Grid) -> set[tuple[int, int]]:
    """Ground that is reached from the edge."""
    rows, columns = len(grid), len(grid[0])
    edge = [(r, c) for r, c in product(range(rows), range(columns)) if r in (0, rows - 1) or c in (0, columns - 1)]
    seen = {place for place in edge if not grid[place[0]][place[1]]}
    waiting = list(seen)
    while waiting:
        r, c = waiting.pop()
        for place in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if 0 <= place[0] < rows and 0 <= place[1] < columns and place not in seen and not grid[place[0]][place[1]]:
                seen.add(place)
                waiting.append(place)
    return seen


def _most(rng: Random, level: int) -> Rule:
    """What has the commonest colour stays."""

    def draw(rng: Random) -> Grid:
        while True:
            grid = _strewn(rng, max(level, 1), rng.sample(range(1, 10), 3))
            counts = sorted(_counts(grid).values())
            if len(counts) > 1 and counts[-1] > counts[-2]:
                return grid

    def apply(grid: Grid) -> Grid:
        counts = _counts(grid)
        top = max(counts, key=lambda colour: counts[colour])
        return [[cell if cell == top else 0 for cell in row] for row in grid]

    return Rule(draw, apply)


def _counts(grid: Grid) -> dict[int, int]:
    cells = [cell for row in grid for cell in row if cell]
    return {colour: cells.count(colour) for colour in sorted(set(cells))}


def _halves(rng: Random, level: int) -> Rule:
    """Two grids side by side, with a line between them: where both have colour, or one, or just one of them."""
    (one, other, result), line = rng.sample(range(1, 9), 3), 9
    how: Callable[[bool, bool], bool] = rng.choice((lambda a, b: a and b, lambda a, b: a or b, lambda a, b: a != b))

    def draw(rng: Random) -> Grid:
        rows, columns = _size(rng, max(level, 1))
        drawn = ([[c * (rng.random() < 0.5) for _ in range(columns)] for _ in range(rows)] for c in (one, other))
        left, right = drawn
        return [[*a, line, *b] for a, b in zip(left, right, strict=True)]

    def apply(grid: Grid) -> Grid:
        half = len(grid[0]) // 2
        pairs = [zip(row[:half], row[half + 1 :], strict=True) for row in grid]
        return [[result * how(bool(a), bool(b)) for a, b in row] for row in pairs]

    return Rule(draw, apply)


def _sort(rng: Random, level: int) -> Rule:
    """Bars in the order of their length."""
    rising = rng.random() < 0.5

    def draw(rng: Random) -> Grid:
        rows, columns = (n + 1 for n in _size(rng, level))
        columns = max(rows, columns)
        lengths = rng.sample(range(1, columns + 1), rows)
        return [[rng.randint(1, 9)] * length + [0] * (columns - length) for length in lengths]

    def length(row: list[int]) -> int:
        return sum(map(bool, row))

    return Rule(draw, lambda grid: sorted(grid, key=length, reverse=not rising))


def _rays(rng: Random, level: int) -> Rule:
    """Single cells become lines from edge to edge."""
    across = rng.random() < 0.5

    def draw(rng: Random) -> Grid:
        rows, columns = (n + 1 for n in _size(rng, level))
        grid = [[0] * columns for _ in range(rows)]
        count = rng.randint(1, min(rows, columns, 1 + level))
        for r, c in zip(rng.sample(range(rows), count), rng.sample(range(columns), count), strict=True):
            grid[r][c] = rng.randint(1, 9)
        return grid

    def apply(grid: Grid) -> Grid:
        lines = grid if across else _transpose(grid)
        drawn = [[max(line)] * len(line) for line in lines]
        return drawn if across else _transpose(drawn)

    return Rule(draw, apply)


RULES: dict[str, Callable[[Random, int], Rule]] = {
    "flip": _flip,
    "turn": _turn,
    "transpose": _whole(_transpose),
    "recolour": _recolour,
    "tile": _tile,
    "reflect": _reflect,
    "enlarge": _enlarge,
    "crop": _crop,
    "fall": _fall,
    "frame": _frame,
    "shift": _shift,
    "fill": _fill,
    "most": _most,
    "halves": _halves,
    "sort": _sort,
    "rays": _rays,
}
