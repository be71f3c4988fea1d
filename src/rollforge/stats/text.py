"""Numbers as words: the formats that every report shares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollforge.stats.estimate import Bin, Mean

NONE = "-"


def interval(mean: Mean) -> str:
    """`0.612 [0.571, 0.653]`, or the mean alone where there is no interval."""
    if mean.low is None or mean.high is None:
        return number(mean.value)
    return f"{number(mean.value)} [{number(mean.low)}, {number(mean.high)}]"


def number(value: float | None) -> str:
    """Three digits after the point below 1, thousands with commas, large ones with k, M, G."""
    if value is None or not math.isfinite(value):
        return NONE
    value = round(value, 12)
    size = abs(value)
    if size >= 1e15 or 0 < size < 5e-4:
        return f"{value:.2g}"
    if size >= 1e6:
        unit, letter = (1e12, "T") if size >= 1e12 else (1e9, "G") if size >= 1e9 else (1e6, "M")
        return f"{value / unit:.4g}{letter}"
    if float(value).is_integer():
        return f"{int(value):,}"
    return (
        f"{value:.3f}" if size < 1 else f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"
    )


def percent(share: float | None, digits: int = 1) -> str:
    return NONE if share is None or not math.isfinite(share) else f"{share:.{digits}%}"


def share(count: int, total: int) -> str:
    """`12 (4.0%)`"""
    return f"{count:,} ({count / total:.1%})" if total else f"{count:,}"


def plural(count: int, noun: str, many: str = "") -> str:
    """`many`: where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def bin_labels(bins: Iterable[Bin]) -> list[str]:
    return [_edge(each.low) if each.low == each.high else f"{_edge(each.low)} to {_edge(each.high)}" for each in bins]


def _edge(value: float) -> str:
    return f"{value:.4g}"
