"""What a curation did: a funnel whose numbers add up, what was written, and what somebody should know before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from textwrap import TextWrapper
from typing import Any

from rollforge.records.items import Json
from rollforge.records.rows import BadLine
from rollforge.stats.text import number, plural
from rollforge.stats.visible import one_line, visible

_LINES = 12
"""So many reasons and notes are shown to people; report.json has them all."""
_LONG = 80
"""Lists of more characters have a line for each element."""
_REASONS = 50
"""So many reasons of one step are counted apart; the rest are "other"."""


ENVIRONMENTS = 10_000
"""So many are counted apart."""


@dataclass(slots=True)
class Tally:
    """Rows and their rewards."""

    rows: int = 0
    total: float = 0.0
    low: float | None = None
    high: float | None = None

    def add(self, reward: float, rows: int = 1) -> None:
        self.rows += rows
        self.total += reward * rows
        if self.low is None or reward < self.low:
            self.low = reward
        if self.high is None or reward > self.high:
            self.high = reward

    def join(self, other: Tally) -> None:
        self.rows += other.rows
        self.total += other.total
        for bound in (other.low, other.high):
            if bound is not None:
                self.low = bound if self.low is None else min(self.low, bound)
                self.high = bound if self.high is None else max(self.high, bound)

    @classmethod
    def of(cls, parts: Iterable[Tally]) -> Tally:
        """Of all of them together."""
        whole = cls()
        for part in parts:
            whole.join(part)
        return whole

    def row(self) -> Json:
        mean = self.total / self.rows if self.rows and isfinite(self.total) else None
        return {"rows": self.rows, "reward": {"mean": mean, "min": self.low, "max": self.high}}


@dataclass(slots=True)
class Stage:
    """One line of the funnel."""

    name: str
    taken: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def drop(self, reason: str) -> None:
        if reason not in self.dropped and len(self.dropped) >= _REASONS:
            reason = "other"
        self.dropped[reason] += 1

    def check(self, before: int) -> None:
        """Raises `RuntimeError` if samples got lost or came from nowhere: then the step is wrong."""
        gone = self.dropped.total()
        if self.taken != before or self.taken != self.kept + gone:
            raise RuntimeError(
                f"the step {self.name!r} took {self.taken} of {before} samples, kept {self.kept} and dropped {gone}:"
                " every sample must come out once"
            )

    def row(self) -> Json:
        row: Json = {"step": self.name, "in": self.taken, "kept": self.kept, "dropped": dict(self.dropped.most_common())}
        return row | ({"notes": self.notes} if self.notes else {})


@dataclass(slots=True)
class Report:
    runs: list[str]
    stages: list[Stage] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    """The first lines that are no rows."""
    read: dict[str, Tally] = field(default_factory=dict)
    """Rows with a verdict, by environment."""
    written: dict[str, dict[str, Tally]] = field(default_factory=dict)
    """By file (train, validation, test; rollouts), then environment. Copies count."""
    files: list[Json] = field(default_factory=list)
    """Name, rows, bytes and sha256 of each data file."""
    alien: list[str] = field(default_factory=list)
    """Files without a row that are something else: what, and the command that makes rows of them."""
    notes: list[str] = field(default_factory=list)
    """The engine's own warnings."""

    @property
    def kept(self) -> int:
        """Rows that passed every step, copies not counted."""
        return self.stages[-1].kept if self.stages else 0

    @property
    def rows(self) -> int:
        """Rows written, copies included."""
        return sum(tally.rows for by_env in self.written.values() for tally in by_env.values())

    @property
    def warnings(self) -> list[str]:
        return [*self.notes, *self.alien, *(f"{stage.name}: {text}" for stage in self.stages for text in stage.warnings)]

    @property
    def took_all(self) -> Stage | None:
        """The step that left nothing."""
        return next((stage for stage in self.stages if not stage.kept), None)

    def row(self) -> Json:
        """report.json."""
        return {
            "runs": self.runs,
            "funnel": [stage.row() for stage in self.stages],
            "kept": self.kept,
            "copies": self.rows - self.kept if self.rows else 0,
            "written": {name: _by_env(tallies) for name, tallies in self.written.items()},
            "read": _by_env(self.read),
            "bad_lines": [asdict(bad) for bad in self.bad],
            "files": self.files,
            "warnings": self.warnings,
        }


def _by_env(tallies: Mapping[str, Tally]) -> Json:
    return Tally.of(tallies.values()).row() | {"environments": {env: tallies[env].row() for env in sorted(tallies)}}


def text(report: Report, out: str | None, width: int = 100) -> Iterator[str]:
    """The report for people, line by line; safe to print. `out`: where it was written, None if it was not."""
    wrapper = TextWrapper(width, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False)
    for line in _text(report, out):
        yield from wrapper.wrap(line) or ("",)


def _text(report: Report, out: str | None) -> Iterator[str]:
    yield from funnel(report.stages)
    for bad in report.bad:
        yield f"  {one_line(str(bad), 160)}"
    for stage in report.stages:
        if stage.notes:
            yield ""
            yield visible(stage.name)
            yield from _notes(stage.notes)
    if report.written:
        yield ""
        yield from _written(report)
    if report.warnings:
        yield ""
        for warning in report.warnings:
            yield f"warning: {visible(warning)}"
    if out is not None:
        yield ""
        copies = report.rows - report.kept
        more = f" ({copies:,} of them copies)" if copies else ""
        yield f"wrote {plural(report.rows, 'row')}{more} to {visible(out)}"


def funnel(stages: list[Stage]) -> Iterator[str]:
    """Step, in, dropped, kept; below each step its reasons."""
    width = max(5, *(min(len(_name(stage.name)), 44) for stage in stages))
    reasons = [min(len(_name(reason)) + 2, 44) for stage in stages for reason in stage.dropped]
    width = max([width, *reasons])
    yield f"{'step':{width}}  {'in':>11}  {'dropped':>9}  {'kept':>11}"
    for stage in stages:
        gone = stage.dropped.total()
        yield f"{_name(stage.name):{width}}  {stage.taken:>11,}  {gone or '':>9{',' if gone else ''}}  {stage.kept:>11,}"
        listed = stage.dropped.most_common(_LINES)
        for reason, count in listed:
            yield f"{'  ' + _name(reason):{width}}  {'':>11}  {count:>9,}"
        if len(listed) < len(stage.dropped):
            rest = gone - sum(count for _, count in listed)
            yield f"{f'  {len(stage.dropped) - len(listed)} more reasons':{width}}  {'':>11}  {rest:>9,}"


def _name(text: str) -> str:
    return one_line(text, 42)


def _written(report: Report) -> Iterator[str]:
    envs = sorted({env for by_env in report.written.values() for env in by_env})
    for name, by_env in report.written.items():
        whole = Tally.of(by_env.values())
        reward = f"reward {number(whole.low)} to {number(whole.high)}, mean {number(whole.total / whole.rows)}"
        parts = [f"{one_line(env, 30)} {by_env[env].rows:,}" for env in envs if env in by_env]
        more = f", and {len(parts) - 6} more" if len(parts) > 6 else ""
        yield f"{name + '.jsonl':16} {plural(whole.rows, 'row')}, {reward}"
        if len(envs) > 1:
            yield f"{'':16} {', '.join(parts[:6])}{more}"


def _notes(notes: dict[str, Any], indent: str = "  ") -> Iterator[str]:
    for position, (key, value) in enumerate(notes.items()):
        if position == _LINES:
            yield f"{indent}and {len(notes) - _LINES:,} more (report.json has them all)"
            return
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            yield f"{indent}{one_line(str(key), _LONG)}:"
            yield from _notes(value, indent + "  ")
        elif isinstance(value, list) and len(_value(value)) > _LONG:
            yield f"{indent}{one_line(str(key), _LONG)}:"
            yield from (f"{indent}  {_value(one)}" for one in value[:_LINES])
            if len(value) > _LINES:
                yield f"{indent}  and {len(value) - _LINES:,} more"
        else:
            yield f"{indent}{one_line(str(key), _LONG)}: {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, dict):
        parts = [f"{one_line(str(key), _LONG)} {_value(inner)}" for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [_value(inner) for inner in value]
    else:
        return one_line(str(value), 100)
    more = f", and {len(parts) - _LINES:,} more" if len(parts) > _LINES else ""
    return ", ".join(parts[:_LINES]) + more or "-"
