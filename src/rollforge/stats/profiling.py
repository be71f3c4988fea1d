"""The one call: rollouts in, every number and verdict out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from rollforge.records.items import Json
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine
from rollforge.stats.columns import Columns
from rollforge.stats.estimate import finite
from rollforge.stats.findings import Finding, Fit, between, findings, fits
from rollforge.stats.measure import measure, task_rows
from rollforge.stats.reading import Pass, read_files, read_rows
from rollforge.stats.shapes import Stats, TaskRow
from rollforge.stats.source import Source
from rollforge.stats.thresholds import SUCCESS


@dataclass(frozen=True, slots=True)
class FailureCount:
    env: str
    outcome: str
    stage: str
    type: str
    count: int
    """Rollouts whose last attempt ended like this."""
    message: str
    """The first one's."""


@dataclass(frozen=True, slots=True)
class Section:
    """One environment, or all: its numbers and what they mean."""

    stats: Stats
    findings: list[Finding]
    fits: list[Fit]


@dataclass(frozen=True, slots=True)
class Profile:
    overall: Section
    environments: list[Section]
    """By name; one of them is the same as `overall`."""
    success: float
    """The reward from which a rollout counts as solved."""
    planned: int | None
    not_run: int | None
    """Planned, and no row of it is there: not started yet, or cancelled."""
    failures: list[FailureCount]
    failed_attempts: int
    """Rows without a reward, the ones of rollouts that succeeded later included."""
    repeated: int
    """Judged rows whose task and repeat another row of the same source had already."""
    bad_count: int
    bad: list[BadLine]
    """The first lines that could not be used."""
    used: list[int]
    """Usable rows per source."""
    sets: tuple[Columns, ...] = field(repr=False)
    """What the numbers were computed from."""

    def tasks(self) -> list[TaskRow]:
        return task_rows(self.sets, self.success)

    def row(self, tasks: bool = False) -> Json:
        """The JSON form (docs/reference/statistics.md); `tasks` adds one entry per task. Never holds NaN or infinity."""
        names = ("success", "planned", "not_run", "failed_attempts", "repeated", "bad_count", "used")
        row: dict[str, Any] = {"version": 1, **{name: getattr(self, name) for name in names}}
        row["bad"] = [asdict(line) for line in self.bad]
        row["failures"] = [asdict(failure) for failure in self.failures]
        row["overall"] = _section(self.overall)
        row["environments"] = {section.stats.name: _section(section) for section in self.environments}
        row = finite(row)
        if tasks:  # there are many, and msgspec writes null for every number that JSON lacks
            row["tasks"] = msgspec.json.decode(msgspec.json.encode(self.tasks()))
        return row


def profile(
    *sources: Iterable[Rollout | BadLine], success: float = SUCCESS, planned: int | None = None, keep_bad: int = 5
) -> Profile:
    """Profile rollouts. Each source is read once, in order, and may be a generator; memory does not grow with their number.

    A rollout (task and repeat, within one source) with a reward is done, whatever attempts of it failed; one that only
    failed counts once, with its last failure. Rollouts of one task id in one environment form a group, across sources.
    """
    return _profile(read_rows(sources, keep_bad), success, planned)


def profile_files(
    *sources: Source,
    success: float = SUCCESS,
    keep_bad: int = 5,
    workers: int = 1,
    seen: Callable[[int], None] | None = None,
) -> Profile:
    """The same of what `find_run` found, several times faster; `workers` processes share the files, `seen` is told the bytes
    read. Raises `UserError` if a file cannot be read."""
    planned = [source.planned for source in sources]
    files = [[(str(file), source.env) for file in source.files] for source in sources]
    found = read_files(files, keep_bad, workers, seen)
    return _profile(found, success, sum(n for n in planned if n is not None) if None not in planned else None)


def _profile(found: Pass, success: float, planned: int | None) -> Profile:
    failed: dict[str, Counter[Outcome]] = {}
    for kind, count in found.failed.items():
        failed.setdefault(kind.env, Counter())[kind.outcome] += count
    names = sorted(found.sets.keys() | failed.keys())
    sets = tuple(found.sets.get(name) or Columns(name) for name in names)
    everything = sum(failed.values(), Counter[Outcome]())
    name = "overall" if len(names) != 1 else names[0]
    stats = measure(name, sets, everything, planned, success, found.unrewarded, found.repeated)
    if len(names) == 1:
        each = [stats]
    else:
        each = [measure(columns.name, [columns], failed.get(columns.name, Counter()), None, success) for columns in sets]
    ended = stats.judged - found.repeated + everything.total() + found.unrewarded
    return Profile(
        overall=Section(stats, [*between(each), *findings(stats)], fits(stats)),
        environments=[Section(one, findings(one), fits(one)) for one in each],
        success=success,
        planned=planned,
        not_run=None if planned is None else max(0, planned - ended),
        failures=_failures(found),
        failed_attempts=found.failed_attempts,
        repeated=found.repeated,
        bad_count=found.bad_count,
        bad=found.bad,
        used=found.used,
        sets=sets,
    )


def _section(section: Section) -> Json:
    return {
        **asdict(section.stats),
        "findings": [asdict(finding) for finding in section.findings],
        "fits": [asdict(fit) for fit in section.fits],
    }


def _failures(found: Pass) -> list[FailureCount]:
    return [
        FailureCount(kind.env, str(kind.outcome), kind.stage, kind.type, count, found.messages[kind])
        for kind, count in found.failed.most_common()
    ]
