"""The runs that a command reads: found, and refused where they hold something else than rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rollforge.cli.output import reading_all

if TYPE_CHECKING:
    from rollforge.stats.profiling import Profile
    from rollforge.stats.source import Source


def readable(run: str) -> Source:
    """Raises `UserError` if there is no such run, or a file of it is not JSON Lines."""
    from rollforge.stats.source import find_run

    source = find_run(run)
    _refuse_alien([source])
    return source


def profiled(runs: Iterable[str], *, success: float, workers: int | None, keep_bad: int = 5) -> tuple[list[Source], Profile]:
    """The runs, and their statistics. Raises what `readable` raises, and `UserError` for a file that is there twice."""
    from rollforge.bulk.workers import processes
    from rollforge.stats.profiling import profile_files
    from rollforge.stats.source import find_each

    sources = find_each(runs)
    _refuse_alien(sources)
    size = sum(file.stat().st_size for source in sources for file in source.files)
    with reading_all(size) as seen:
        found = profile_files(*sources, success=success, keep_bad=keep_bad, workers=workers or processes(size), seen=seen)
    return sources, found


def _refuse_alien(sources: Iterable[Source]) -> None:
    from rollforge.bulk.alien import refuse_alien

    for file in (file for source in sources for file in source.files):
        refuse_alien(file)
