"""Standard output: a command's result goes there, and nothing else. How far a long read has come: standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@contextmanager
def prints_aside() -> Iterator[None]:
    """What an environment prints meanwhile, and the programs that it starts, goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def any_encoding() -> None:
    """From now on, what the output's encoding lacks is shown as `?`, and no error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_json(value: Any, *, indent: int | None = 2, **options: Any) -> None:
    """A result for programs. ASCII only (so not orjson): nothing in a text of a model or a file steers the terminal."""
    from json import dumps

    print(dumps(value, indent=indent, **options))


def print_unused(lines: Sequence[object], count: int) -> None:
    """The lines of the input that were not used, as far as they are known, of so many."""
    from rollforge.stats.visible import one_line

    for line in lines:
        print(f"not used: {one_line(str(line), 300)}", file=sys.stderr)
    if count > len(lines):
        print(f"not used: {count - len(lines)} more lines", file=sys.stderr)


def exit_if_signalled(stopped: str | None) -> None:
    """`stopped`: why the work was not completed, if it was not."""
    if stopped and stopped.startswith("SIG"):
        sys.exit(130 if stopped == "SIGINT" else 143)


def console() -> Console:
    """For reports: nothing in them is markup."""
    from rich.console import Console

    any_encoding()
    return Console(highlight=False, markup=False, emoji=False)


def show(*parts: RenderableType) -> None:
    """Print; without trailing spaces where nobody looks at a terminal."""
    screen = console()
    if screen.is_terminal:
        screen.print(*parts)
        return
    with screen.capture() as captured:
        screen.print(*parts)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


@contextmanager
def reading() -> Iterator[Callable[[int, int], None] | None]:
    """On a terminal, a function (bytes read, bytes in all) that says how far a long read has come; else None."""
    if not sys.stderr.isatty():
        yield None
        return

    def tell(done: int, size: int) -> None:
        if size > _LONG:
            print(f"\r{done / 1e6:,.0f} of {size / 1e6:,.0f} MB read", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:  # what comes next, an error too, begins a line of its own
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def reading_all(size: int) -> Iterator[Callable[[int], None]]:
    """The same for parts: a function that is told the bytes of each of them."""
    read = 0
    with reading() as tell:

        def seen(count: int) -> None:
            nonlocal read
            read += count
            if tell is not None:
                tell(read, size)

        yield seen


_LONG = 50_000_000
