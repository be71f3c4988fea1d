"""A titled table as all commands print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], words: int = 1) -> Iterator[RenderableType]:
    """Nothing without rows. The first `words` columns are text, the others numbers."""
    if not rows:
        return
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for place, name in enumerate(columns):
        made.add_column(name, justify="left" if place < words else "right", no_wrap=place >= words, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    yield Text(f"\n{title}", style="bold")
    yield Padding(made, (0, 0, 0, 2), expand=False)
