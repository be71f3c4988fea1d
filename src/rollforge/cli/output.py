"""Standard output: a command's result goes there, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper
from typing import TYPE_CHECKING

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
