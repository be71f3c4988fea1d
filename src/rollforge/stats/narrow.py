"""Tables that never cut a number: where they do not fit the terminal they fold words, then stand as one block per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

USUAL = 80
"""Reports are laid out for so many columns: from there on words are folded as far as it takes."""
SHORT = 12
"""In a narrower terminal a column of words is folded down to so many characters, not further."""
LONGEST = 24
"""Of what is kept in one piece: an interval, say."""
BAR = 32


class Columns:
    """A table whose first `words` columns are words, the others numbers."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> None:
        self.columns = columns
        self.rows = rows
        self.words = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self._fits(options):
            yield self._table()
            return
        head = max(self.words, 1)
        for row in self.rows:
            yield Text(", ".join(filter(None, self._named(row[:head]))), no_wrap=True, overflow="ellipsis")
            yield Padding(Pairs(list(zip(self.columns[head:], row[head:], strict=True))), (0, 0, 0, 2), expand=False)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._table()) if self._fits(options) else Measurement(1, options.max_width)

    def _fits(self, options: ConsoleOptions) -> bool:
        short = SHORT if options.size.width < USUAL else 1
        widths = [max(_width(row[place]) for row in (self.columns, *self.rows)) for place in range(len(self.columns))]
        least = [min(width, short) if place < self.words else width for place, width in enumerate(widths)]
        return sum(least) + 2 * (len(least) - 1) <= options.max_width

    def _named(self, cells: Sequence[str]) -> Sequence[str]:
        return cells if self.words else [f"{name} {cell}" for name, cell in zip(self.columns, cells, strict=False)]

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for place, name in enumerate(self.columns):
            words = place < self.words
            table.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


class _Fitted(ABC):
    """A table that is laid out for the width there is."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield self._table(options.max_width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._table(options.max_width))

    @abstractmethod
    def _table(self, width: int) -> RenderableType: ...


class Pairs(_Fitted):
    """Names, and what belongs to each beside it."""

    def __init__(
        self,
        rows: Sequence[tuple[str, str]],
        justify: Literal["left", "right"] = "left",
        styles: tuple[str, str] = ("dim", ""),
    ) -> None:
        self.rows = rows
        self.justify = justify
        self.styles = styles

    def _table(self, width: int) -> Table:
        names = max((_width(name) for name, _ in self.rows), default=0)
        pieces = [piece for _, value in self.rows for piece in ([value] if _width(value) <= LONGEST else value.split())]
        left = width - 2 - max((_width(piece) for piece in pieces if _width(piece) <= LONGEST), default=1)
        table = Table.grid(padding=(0, 2, 0, 0))
        if names <= max(left, SHORT):
            table.add_column(justify=self.justify, no_wrap=True)
        else:
            table.add_column(justify=self.justify, width=max(left, SHORT))
        table.add_column(overflow="fold")
        for name, value in self.rows:
            table.add_row(Text(name, style=self.styles[0]), Text(value, style=self.styles[1]))
        return table


class Bars(_Fitted):
    """Labels, bars of at most `BAR` columns, and what each stands for."""

    def __init__(self, rows: Sequence[tuple[str, float, str]], justify: Literal["left", "right"] = "right") -> None:
        self.rows = rows
        """The label, the bar's part of the longest one, and the words beside it."""
        self.justify = justify

    def _table(self, width: int) -> Table | Pairs:
        labels = max((_width(label) for label, _, _ in self.rows), default=0)
        says = max((_width(text) for _, _, text in self.rows), default=0)
        left = width - labels - says - 4
        if left < 1:
            return Pairs([(label, text) for label, _, text in self.rows], self.justify, ("", ""))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(justify=self.justify, no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for label, part, text in self.rows:
            table.add_row(Text(label), _Bar(part, min(BAR, left)), Text(text))
        return table


class _Bar:
    """ASCII where the output cannot carry blocks."""

    def __init__(self, part: float, width: int) -> None:
        self.part = part
        self.width = width

    def __rich_console__(self, console: Console, _: ConsoleOptions) -> Iterator[Text]:
        eighths = max(round(self.part * self.width * 8), 1 if self.part > 0 else 0)
        full, rest = divmod(eighths, 8)
        ascii_only = console.options.ascii_only
        yield Text("#" * (full + (rest > 0)) if ascii_only else "█" * full + _EIGHTHS[rest], style="cyan")

    def __rich_measure__(self, _: Console, __: ConsoleOptions) -> Measurement:
        return Measurement(self.width, self.width)


_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def _width(text: str) -> int:
    return Text(text).cell_len
