"""The learning curve: a picture, and the same in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HEIGHT, WIDTH = 10, 64
"""Of the plot in a terminal, in characters."""


@dataclass(frozen=True, slots=True)
class Point:
    step: int
    mean: float
    low: float | None = None
    high: float | None = None
    """With `low` the 95 % interval."""


def draw(path: Path, held_out: Sequence[Point], training: Sequence[tuple[int, float]], title: str) -> None:
    """A PNG: the reward on held-out tasks with its interval and, of live training, that of each step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), color="#b9c4d0", linewidth=1, label="training, each step")
        axes.plot(*zip(*smooth(training), strict=True), color="#7a8ca0", linewidth=1.5, label="training, smoothed")
    if held_out:
        steps, means = [point.step for point in held_out], [point.mean for point in held_out]
        low = [point.mean - (point.mean if point.low is None else point.low) for point in held_out]
        high = [(point.mean if point.high is None else point.high) - point.mean for point in held_out]
        axes.errorbar(steps, means, (low, high), color="#0b6e4f", marker="o", capsize=3, label="held-out tasks, 95 %")
    axes.set(xlabel="step", ylabel="mean reward", title=title)
    axes.grid(alpha=0.25)
    if not held_out or all(0 <= point.mean <= 1 for point in held_out):
        axes.set_ylim(-0.02, 1.02)
    if training or held_out:
        axes.legend(frameon=False, loc="best")
    figure.savefig(path)


def plot(held_out: Sequence[Point], height: int = HEIGHT, width: int = WIDTH) -> str:
    """The held-out rewards over the steps, for a terminal; one line of text if there is only one."""
    if len(held_out) < 2:
        return "".join(f"reward {point.mean:.3f} at step {point.step}" for point in held_out)
    means = [point.mean for point in held_out]
    low, high = min(0.0, *means), max(1.0, *means)
    last = held_out[-1].step or 1
    cells = [[" "] * width for _ in range(height)]

    def place(step: float, mean: float) -> tuple[int, int]:
        return round((height - 1) * (1 - (mean - low) / (high - low))), round((width - 1) * step / last)

    for before, after in pairwise(held_out):
        from_column, to_column = place(before.step, 0)[1], place(after.step, 0)[1]
        for column in range(from_column, to_column + 1):
            part = (column - from_column) / max(to_column - from_column, 1)
            cells[place(0, before.mean + (after.mean - before.mean) * part)[0]][column] = "·"
    for point in held_out:
        row, column = place(point.step, point.mean)
        cells[row][column] = "●"
    lines = []
    for number, row_cells in enumerate(cells):
        value = high - (high - low) * number / (height - 1)
        label = f"{value:5.2f}" if number % 3 == 0 or number == height - 1 else " " * 5
        lines.append(f"{label} ┤{''.join(row_cells).rstrip()}")
    axis = f"{0:<{width // 2}}{last:>{width - width // 2}}"
    return "\n".join([*lines, " " * 6 + "└" + "─" * width, " " * 7 + axis])


def smooth(points: Sequence[tuple[int, float]], span: int = 9) -> list[tuple[int, float]]:
    """The mean of each point and its neighbours."""
    values = [value for _, value in points]
    half = span // 2
    found = []
    for number, (step, _) in enumerate(points):
        near = values[max(0, number - half) : number + half + 1]
        found.append((step, sum(near) / len(near)))
    return found
