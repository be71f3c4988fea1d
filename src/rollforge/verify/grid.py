"""Grids of whole numbers (ARC): the one that a reply gives, and whether it is the expected one."""

from __future__ import annotations

import re
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.records.lossless import loads
from rollforge.verify.answer import after_thinking, boxed, has_box

Grid = list[list[int]]

_RUN = re.compile(r"[0-9\s,\[\]-]+")
_OPEN = re.compile(r"\[\s*\[")
_CLOSED = re.compile(r"\]\s*,?\s*\]")
_MOST = 100_000
"""Characters of a grid; the largest of ARC has 2,000."""


def grid_match(reply: str, expected: Any) -> dict[str, Any]:
    """Reward 1 for exactly the expected grid, else 0; beside it `predicted_output` (or None) and `cell_accuracy`, the share
    of cells that are right in a grid of the right size.

    Raises `VerifierFault` if `expected` is no grid.
    """
    if not is_grid(expected):
        raise VerifierFault(f"the expected grid is {expected!r:.100}; it is a list of rows of whole numbers")
    found = grid_of(reply)
    same = found is not None and [len(row) for row in found] == [len(row) for row in expected]
    cells = (
        [a == b for ours, theirs in zip(found or (), expected, strict=True) for a, b in zip(ours, theirs, strict=True)]
        if same
        else []
    )
    accuracy = sum(cells) / len(cells) if cells else 0.0
    return {"reward": float(found == expected), "predicted_output": found, "cell_accuracy": round(accuracy, 6)}


def grid_of(reply: str) -> Grid | None:
    r"""The grid in the last `\boxed{}`; in a reply without any box, the last `[[...], ...]` that it holds.

    What stands in a `<think>` block does not count, nor does a box without a grid.
    """
    text = after_thinking(reply)
    if has_box(text):
        return _last_grid(boxed(text) or "")
    return _last_grid(text)


def is_grid(value: Any) -> bool:
    """Rows of the same length, of whole numbers, none empty."""
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        return False
    return len({len(row) for row in value}) == 1 and all(type(cell) is int for row in value for cell in row)


def _last_grid(text: str) -> Grid | None:
    for run in reversed(_RUN.findall(text)):
        starts = [found.start() for found in _OPEN.finditer(run)]
        if starts:
            end = _CLOSED.search(run, starts[-1])
            return _parsed(run[starts[-1] : end.end()]) if end else None
    return None


def _parsed(text: str) -> Grid | None:
    if len(text) > _MOST:
        return None
    try:
        found = loads(text)
    except ValueError:
        return None
    return found if is_grid(found) else None
