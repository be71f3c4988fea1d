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
    from rich.padding import Padding
    from rich.text import Text

    from rollforge.stats.narrow import Columns

    yield Text(f"\n{title}", style="bold")
    yield Padding(Columns(columns, rows, words), (0, 0, 0, 2), expand=False)
