"""`rollforge stats`: what was collected, how good it is, and what it is good for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import show

if TYPE_CHECKING:
    from rollforge.stats.profiling import Profile


def stats(
    runs: list[str] = typer.Argument(
        ..., metavar="RUN", help="Run directories, or JSONL files of rollouts (NeMo Gym's too)."
    ),
    env: str | None = typer.Option(None, help="The full report of one environment, where there are several."),
    success: float = typer.Option(1.0, help="The reward from which a rollout counts as solved."),
    tasks: int | None = typer.Option(None, help="How many tasks to list, hardest first (default: all, if they are few)."),
    bad: bool = typer.Option(False, "--bad", help="List every line that could not be used, not only the first."),
    workers: int | None = typer.Option(None, min=1, help="Processes (default: one, or all cores for large files)."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON, one entry per task included."),
    html: Path | None = typer.Option(None, metavar="FILE", help="Also write the report as one HTML file."),
) -> None:
    """Statistics of rollouts by environment and overall: rewards with intervals, pass@k, difficulty, cost, and verdicts."""
    from rollforge.bulk.blocks import processes
    from rollforge.stats.profiling import profile_files
    from rollforge.stats.source import find_run

    sources = [find_run(run) for run in runs]
    size = sum(file.stat().st_size for source in sources for file in source.files)
    with progress(size) as seen:
        found = profile_files(
            *sources, success=success, keep_bad=sys.maxsize if bad else 5, workers=workers or processes(size), seen=seen
        )
    names = [source.name for source in sources]
    if html is not None:
        from rollforge.stats.html import write_report

        write_report(html, found, names)
    if json:
        # Not orjson: ASCII only, so that nothing in a model's text reaches the terminal as it is. But it indents slowly.
        from json import dumps

        import msgspec

        text = dumps({"runs": names, **found.row(tasks=True)}, allow_nan=False)
        print(msgspec.json.format(text, indent=2))
    else:
        _print_report(found, names, env, tasks)
    empty = [name for name, used in zip(names, found.used, strict=True) if not used]
    if empty:
        print(f"error: no usable rollout in {', '.join(empty)}", file=sys.stderr)
        raise typer.Exit(1)


@contextmanager
def progress(size: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, says how far a long read has come."""
    read = 0
    shown = sys.stderr.isatty() and size > 50_000_000

    def seen(count: int) -> None:
        nonlocal read
        read += count
        if shown:
            print(f"\r{read / 1e6:,.0f} of {size / 1e6:,.0f} MB read", end="", file=sys.stderr, flush=True)

    try:
        yield seen
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print_report(found: Profile, names: list[str], env: str | None, tasks: int | None) -> None:
    from rollforge.errors import unknown
    from rollforge.stats.terminal import report

    section = found.overall
    if env is not None:
        sections = {one.stats.name: one for one in found.environments}
        if env not in sections:
            raise unknown("environment", env, sections)
        section = sections[env]
    show(report(found, section, names, tasks))
