"""The report as one HTML file: no script, nothing loaded from anywhere, light and dark. What came from data is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice
from pathlib import Path

from rollforge.errors import UserError, reported
from rollforge.stats import charts, tables
from rollforge.stats.profiling import Profile, Section
from rollforge.stats.short import counts, outcomes
from rollforge.stats.tables import Grid, Verdict
from rollforge.stats.text import number, percent, plural, share
from rollforge.stats.visible import one_line, visible

MOST_TASKS = 500
MARK = b"<!doctype html>\n<!-- rollforge statistics -->\n"


def write_report(file: Path, profile: Profile, names: Sequence[str]) -> None:
    """Write the report, over an older report if there is one. Raises `UserError` rather than overwrite anything else."""
    with reported(f"cannot write {file}"):
        if file.exists():
            with open(file, "rb") as handle:
                if handle.read(len(MARK)) != MARK:
                    raise UserError(f"{file} exists and is no report of this command: name another file")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(page(profile, names)), encoding="utf-8")


def page(profile: Profile, names: Sequence[str]) -> Iterator[str]:
    """The page, in pieces. `names`: of the sources."""
    shown = ", ".join(one_line(name, 80) for name in names[:4]) + (", ..." if len(names) > 4 else "")
    yield MARK.decode() + '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{escape(shown)} - rollout statistics</title>"
    yield f"<style>{Path(__file__).with_name('report.css').read_text('utf-8')}</style></head><body><main>"
    yield f'<h1>{escape(shown)}</h1><p class="soft">{escape(f"{counts(profile)}: {outcomes(profile)}")}</p>'
    yield _facts(profile)
    yield f"<h2>Verdicts</h2>{_card(_verdicts(tables.verdicts(profile, profile.overall)))}"
    yield f"<h2>What the data suits</h2>{_card(_verdicts(tables.fits(profile.overall)))}"
    if len(profile.environments) > 1:
        yield f"<h2>Environments</h2>{_card(_table(tables.environments(profile)))}<h2>All environments</h2>"
    else:
        yield "<h2>Numbers</h2>"
    yield from _section(profile, profile.overall)
    if len(profile.environments) > 1:
        yield "<h2>Each environment</h2>"
        for section in profile.environments:
            yield f"<details><summary>{escape(visible(section.stats.name))}</summary>"
            yield _card(_verdicts([*tables.verdicts(profile, section), *tables.fits(section)]))
            yield from _section(profile, section)
            yield "</details>"
    yield from _unused(profile)
    yield "</main></body></html>\n"


def _facts(profile: Profile) -> str:
    s = profile.overall.stats
    mean = s.reward.mean
    bounds = "no interval" if mean.low is None else f"95% interval {number(mean.low)} to {number(mean.high)}"
    signal = share(s.groups.count - s.groups.no_signal, s.groups.count)
    facts = [
        (number(mean.value), f"mean reward, {bounds}"),
        (percent(s.reward.solved.value), f"solved: reward at least {profile.success:g}"),
        (percent(s.coverage), "coverage: rollouts with a reward"),
        (f"{s.judged:,}", f"rollouts with a reward, of {plural(s.tasks, 'task')}"),
        (signal if s.groups.count else "-", f"of {s.groups.count:,} groups have signal"),
    ]
    shown = (f'<div class="fact"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in facts)
    return f'<div class="facts">{"".join(shown)}</div>'


def _section(profile: Profile, section: Section) -> Iterator[str]:
    s = section.stats
    yield '<div class="cards">'
    if s.judged:
        yield _card(charts.columns(tables.reward_bars(s)) + _pairs(tables.rewards(s)), "Rewards")
        series = [(row.pass_at, row.majority, row.pass_all) for row in s.at_k]
        named = list(zip(("pass@k", "majority@k", "pass^k"), zip(*series, strict=True), strict=True))
        chart = charts.lines([row.k for row in s.at_k], named) if len(s.at_k) > 1 else ""
        yield _card(chart + _table(tables.at_k(s)), "k attempts at a task")
        text = f"<p>{escape(tables.groups(s))}</p>"
        yield _card(charts.stacked(tables.difficulty(s)) + text, "Tasks by solve rate")
        yield _card(_pairs(tables.answers(s)), "Answers")
        yield _card(_table(tables.effort(s)), "Per rollout", wide=True)
    if s.tools:
        yield _card(_table(tables.tools(s)), "Tools")
    metrics = tables.metrics(profile.environments if section is profile.overall else [section])
    if metrics.rows or metrics.note:
        yield _card(_table(metrics), "Metrics of the verifier", wide=len(metrics.columns) > 6)
    failures = tables.failures(profile, section)
    if failures:
        yield _card(_pairs(failures), "Rollouts without a reward, by their last failure", wide=True)
    yield "</div>"
    if s.judged:
        rows = tables.hardest(profile, section)
        more = f" (the hardest {MOST_TASKS} of {len(rows):,})" if len(rows) > MOST_TASKS else ""
        table = _table(tables.tasks(islice(rows, MOST_TASKS)))
        yield f"<details><summary>{plural(len(rows), 'task')}, hardest first{more}</summary>{_card(table)}</details>"


def _card(body: str, title: str = "", wide: bool = False) -> str:
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card{" wide" if wide else ""}">{head}{body}</div>'


def _table(grid: Grid) -> str:
    kinds = [' class="words"' if position < grid.words else "" for position in range(len(grid.columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, grid.columns, strict=True))
    body = ""
    for row in grid.rows:
        cells = (f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    note = f'<p class="soft">{escape(grid.note)}</p>' if grid.note else ""
    return (f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if grid.rows else "") + note


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="pairs"><tbody>{cells}</tbody></table>'


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    parts = []
    for verdict in verdicts:
        more = "".join(f'<p class="soft">{escape(text)}</p>' for text in verdict.more)
        level = f'<div class="level {verdict.level}">{verdict.level}</div>'
        parts.append(f'<div class="verdict">{level}<div><p>{escape(verdict.says)}</p>{more}</div></div>')
    return "".join(parts)


def _unused(profile: Profile) -> Iterator[str]:
    if profile.bad_count:
        more = f", the first {len(profile.bad)} of them" if profile.bad_count > len(profile.bad) else ""
        lines = "".join(f"<p><code>{escape(visible(str(line)))}</code></p>" for line in profile.bad)
        yield f"<h2>{plural(profile.bad_count, 'line')} could not be used{more}</h2>{_card(lines)}"
    if profile.repeated:
        text = (
            f"{plural(profile.repeated, 'row')} of a task and repeat that is there already: are two collections in one file?"
        )
        yield f'<p class="warn">{escape(text)}</p>'
