"""Charts as inline SVG, coloured by the page's style sheet. Everything shown is also in a table or a label."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rollforge.stats.tables import Bars
from rollforge.stats.text import percent, share

_WIDTH = 480


def columns(bars: Bars) -> str:
    """A histogram: one column per bin, its count above, its label below."""
    height, top, bottom = 190, 20, 34
    most = max(bars.sizes, default=0) or 1
    step = _WIDTH / max(len(bars.sizes), 1)
    parts = [f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{height - bottom}" y2="{height - bottom}"/>']
    for position, (label, size) in enumerate(zip(bars.labels, bars.sizes, strict=True)):
        tall = (height - top - bottom) * size / most
        x, y, middle = step * position + step * 0.1, height - bottom - tall, step * (position + 0.5)
        parts.append(f"<g><title>{escape(f'{label}: {share(size, bars.total)}')}</title>")
        parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}" rx="2"/>')
        if size:
            parts.append(f'<text class="value" x="{middle:.1f}" y="{y - 5:.1f}" text-anchor="middle">{size:,}</text>')
        # Bins that touch are labelled by their lower edge only: the full label would not fit.
        short = label.split(" to ")[0]
        parts.append(f'<text x="{middle:.1f}" y="{height - bottom + 16}" text-anchor="middle">{escape(short)}</text></g>')
    return _svg(height, "Histogram of rewards", parts)


def stacked(bars: Bars) -> str:
    """One bar cut into shares, and its legend."""
    parts, x = [], 0.0
    for position, (label, size) in enumerate(zip(bars.labels, bars.sizes, strict=True)):
        width = _WIDTH * size / (bars.total or 1)
        says = escape(f"{label}: {share(size, bars.total)}")
        parts.append(
            f'<rect class="b{position}" x="{x:.1f}" y="0" width="{width:.1f}" height="26"><title>{says}</title></rect>'
        )
        row = 52 + 20 * position
        parts.append(f'<rect class="b{position}" x="0" y="{row - 10}" width="11" height="11" rx="2"/>')
        parts.append(f'<text class="value" x="18" y="{row}">{says}</text>')
        x += width
    return _svg(44 + 20 * len(bars.sizes), "Tasks by difficulty", parts)


def lines(ks: Sequence[int], series: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Shares over k (equal steps for doublings), at most three series, each named at its last point."""
    height, left, right, top, bottom = 210, 40, 96, 12, 26
    wide, tall = _WIDTH - left - right, height - top - bottom

    def place(position: int, value: float) -> tuple[float, float]:
        return left + wide * position / max(len(ks) - 1, 1), top + tall * (1 - value)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + tall * (1 - tick)
        parts.append(f'<line class="axis" x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
    for position, k in enumerate(ks):
        parts.append(f'<text x="{place(position, 0)[0]:.1f}" y="{height - 8}" text-anchor="middle">{k}</text>')
    taken: list[float] = []
    for number, (name, values) in enumerate(series):
        known = [(position, value) for position, value in enumerate(values) if value is not None]
        points = [place(position, value) for position, value in known]
        if not points:
            continue
        parts.append(f'<polyline class="s{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        for (x, y), (position, value) in zip(points, known, strict=True):
            says = f"{name}, k = {ks[position]}: {percent(value)}"
            parts.append(f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(says)}</title></circle>')
        x, y = points[-1]
        while any(abs(y - other) < 14 for other in taken):
            y += 1
        taken.append(y)
        parts.append(f'<text class="value" x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')
    return _svg(height, "Success over attempts", parts)


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
