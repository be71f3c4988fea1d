"""The report on a terminal, or as plain text where there is none. Fits 80 columns; in fewer, `narrow` cuts no number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rollforge.stats import narrow, tables
from rollforge.stats.profiling import Profile, Section
from rollforge.stats.short import counts, outcomes
from rollforge.stats.tables import Bars, Grid, Verdict
from rollforge.stats.text import interval, plural, share
from rollforge.stats.visible import one_line, visible

MOST_ROWS = 15
"""Of tools, metrics and failures; the JSON and HTML reports have them all."""
FEW_TASKS = 10
"""So many tasks are listed without being asked for."""

_STYLES = {"ok": "green", "good": "green", "warn": "yellow", "possible": "yellow", "bad": "bold red", "poor": "red"}


def report(profile: Profile, section: Section, names: Sequence[str], most_tasks: int | None = None) -> Group:
    """The whole report about one section of the profile. `names`: of the sources; `most_tasks`: how many to list."""
    stats, parts = section.stats, list(_head(profile, section, names))
    several = section is profile.overall and len(profile.environments) > 1
    if several:
        parts += _titled("Environments", _grid(tables.environments(profile)))
    if stats.judged:
        parts += _titled("Rewards", Group(narrow.Pairs(tables.rewards(stats)), Text(""), _bars(tables.reward_bars(stats))))
        parts += _titled("k attempts at a task", _grid(tables.at_k(stats)))
        bands = _bars(tables.difficulty(stats), justify="left")
        parts += _titled("Tasks by solve rate", bands, Text(f"\n{tables.groups(stats)}"))
        rows = tables.hardest(profile, section)[: FEW_TASKS + 1 if most_tasks is None else most_tasks]
        if rows and (most_tasks is not None or len(rows) <= FEW_TASKS):
            parts += _titled("Tasks, hardest first", _grid(tables.tasks(rows)))
        parts += _titled("Per rollout", _grid(tables.effort(stats)))
        parts += _titled("Answers", narrow.Pairs(tables.answers(stats)))
    if stats.tools:
        parts += _titled("Tools", _grid(tables.tools(stats), MOST_ROWS))
    metrics = tables.metrics(profile.environments if several else [section])
    if metrics.rows or metrics.note:
        parts += _titled("Metrics of the verifier", _grid(metrics, MOST_ROWS * (1 + several)))
    failures = tables.failures(profile, section)
    if failures:
        more = _more(len(failures), MOST_ROWS)
        parts += _titled(
            "Rollouts without a reward, by their last failure", narrow.Pairs(failures[:MOST_ROWS], "right"), *more
        )
    if not any(profile.used):
        return Group(*parts)
    parts += _titled("Verdicts", _verdicts(tables.verdicts(profile, section)))
    parts += _titled("What the data suits", _verdicts(tables.fits(section)))
    return Group(*parts)


def _head(profile: Profile, section: Section, names: Sequence[str]) -> Iterator[RenderableType]:
    stats = section.stats
    shown = [one_line(name, 60) for name in names[:4]] + ["..."] * (len(names) > 4)
    yield Text(", ".join(shown), style="bold")
    if section is profile.overall:
        yield Text(f"{counts(profile)}: {outcomes(profile)}")
    else:
        yield Text(f"environment {visible(stats.name)}: {plural(stats.judged, 'rollout')} of {plural(stats.tasks, 'task')}")
    if stats.judged:
        yield Text(f"mean reward {interval(stats.reward.mean)}; solved means reward >= {profile.success:g}")
    if profile.bad_count:
        yield Text(f"{plural(profile.bad_count, 'line')} could not be used:", style="yellow")
        for line in profile.bad:
            yield Text(f"  {visible(str(line))}", overflow="fold")
        if profile.bad_count > len(profile.bad):
            yield Text(f"  and {profile.bad_count - len(profile.bad):,} more (--bad lists them all)")
    if profile.repeated:
        repeated = f"{plural(profile.repeated, 'row')} of a task and repeat that is there already"
        yield Text(f"{repeated}: are two collections in one file?", style="yellow")


def _titled(title: str, *body: RenderableType) -> list[RenderableType]:
    return [Text(""), Text(title, style="bold"), *(Padding(part, (0, 0, 0, 2), expand=False) for part in body)]


def _grid(grid: Grid, most: int | None = None) -> Group:
    note = [Text(grid.note, style="dim")] if grid.note else []
    table = [narrow.Columns(grid.columns, grid.rows[:most], grid.words)] if grid.rows else []
    return Group(*table, *_more(len(grid.rows), most), *note)


def _more(count: int, shown: int | None) -> list[Text]:
    return (
        [] if shown is None or count <= shown else [Text(f"and {count - shown:,} more (--json has them all)", style="dim")]
    )


def _bars(bars: Bars, justify: Literal["left", "right"] = "right") -> narrow.Bars:
    most = max(bars.sizes, default=0) or 1
    rows = [(label, size / most, share(size, bars.total)) for label, size in zip(bars.labels, bars.sizes, strict=True)]
    return narrow.Bars(rows, justify)


def _verdicts(verdicts: Iterable[Verdict]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    for verdict in verdicts:
        text = Text(verdict.says).append("".join(f"\n{line}" for line in verdict.more), style="dim")
        table.add_row(Text(verdict.level, style=_STYLES.get(verdict.level, "dim")), text)
    return table
