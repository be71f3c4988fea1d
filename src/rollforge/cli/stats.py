"""`rollforge stats`: what was collected, how good it is, and what it is good for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import show
from rollforge.cli.sources import profiled

if TYPE_CHECKING:
    from rollforge.stats.profiling import Profile, Section


def stats(
    runs: list[str] = typer.Argument(
        ..., metavar="RUN", help="Run directories, or JSONL files of rollouts (NeMo Gym's too)."
    ),
    env: str | None = typer.Option(None, help="The full report of one environment, where there are several."),
    success: float = typer.Option(1.0, help="The reward from which a rollout counts as solved."),
    tasks: int | None = typer.Option(
        None, min=0, help="How many tasks to list, hardest first (default: all, if they are few)."
    ),
    bad: bool = typer.Option(False, "--bad", help="List every line that could not be used, not only the first."),
    workers: int | None = typer.Option(None, min=1, help="Processes (default: one, or all cores for large files)."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON, one entry per task included."),
    html: Path | None = typer.Option(None, metavar="FILE", help="Also write the report as one HTML file."),
) -> None:
    """Statistics of rollouts by environment and overall: rewards with intervals, pass@k, difficulty, cost, and verdicts."""
    sources, found = profiled(runs, success=success, workers=workers, keep_bad=sys.maxsize if bad else 5)
    names = [source.name for source in sources]
    section = found.overall if env is None else _section(found, env)
    if html is not None:
        from rollforge.stats.html import write_report

        write_report(html, found, names)
    if json:
        # Not orjson: ASCII only, so that nothing in a model's text reaches the terminal as it is. But it indents slowly.
        from json import dumps

        import msgspec

        row = found.row(tasks=True)
        if env is not None:
            row["environments"] = {env: row["environments"][env]}
            for key in ("failures", "tasks"):
                row[key] = [one for one in row[key] if one["env"] == env]
        text = dumps({"runs": names, **row}, allow_nan=False)
        print(msgspec.json.format(text, indent=2))
    else:
        from rollforge.stats.terminal import report

        show(report(found, section, names, tasks))
    empty = [name for name, used in zip(names, found.used, strict=True) if not used]
    if empty:
        print(f"error: no usable rollout in {', '.join(empty)}", file=sys.stderr)
        raise typer.Exit(1)


def _section(found: Profile, env: str) -> Section:
    from rollforge.errors import unknown

    sections = {one.stats.name: one for one in found.environments}
    if env not in sections:
        raise unknown("environment", env, sections)
    return sections[env]
