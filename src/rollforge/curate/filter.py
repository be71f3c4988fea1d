"""The filter step: rows for which an expression does not hold are dropped, by the part of it that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from typing import Annotated, Any

from pydantic import Field

from rollforge.bulk.record import Record
from rollforge.bulk.spill import Kept
from rollforge.config import Section
from rollforge.curate.expression import Doubt, Run, compile, function
from rollforge.curate.facts import GUESSED, LATER, neighbours
from rollforge.curate.facts import Field as InRow
from rollforge.curate.grammar import Node
from rollforge.curate.spread import Spread
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError, unknown
from rollforge.stats.thresholds import EQUAL, SUCCESS


class FilterArgs(Section):
    keep: str | Annotated[list[str], Field(min_length=1)]
    """Expressions; a row is kept if all hold. Groups are the attempts that the steps before left: the last expression counts
    only those that the ones before it kept."""
    success: float = Field(SUCCESS, allow_inf_nan=False)
    """The reward from which an attempt counts for `group.solve_rate`."""

    @classmethod
    def short(cls, value: Any) -> FilterArgs:
        if isinstance(value, str) or (isinstance(value, list) and value and all(isinstance(each, str) for each in value)):
            return cls(keep=value)
        raise UserError(f"filter: {value!r} is no expression (write: filter: reward >= 0.8), nor a list of them")


def steps(args: FilterArgs) -> list[Step]:
    """One step per expression. Raises `ExpressionError`."""
    return [Filter(text, args.success) for text in ([args.keep] if isinstance(args.keep, str) else args.keep)]


class Filter:
    """Streams; with names of the group it sorts by group first, and looks at each group twice."""

    name: str
    facts: Mapping[str, Fact]

    def __init__(self, text: str, success: float = SUCCESS) -> None:
        whole = compile(text)
        self.name = f"filter {whole.text}"
        needed: dict[str, Fact] = {}
        self._grouped = whole.needs_group
        self._success = success
        self._parts: list[tuple[Run, str]] = []
        names: set[str] = set()
        for part in whole.conjuncts():
            node, facts = hoisted(part.node)
            needed |= facts
            names |= {name.name for name in node.names()}
            self._parts.append((function(node), part.denial))
        self._later = [(name, get) for name, get in _LATER.items() if name in names]
        guessed = {f"estimated {name}": fact for name, fact in GUESSED.items() if name in whole.names}
        self._guessed = tuple(guessed)
        self._fields = dict(_fields(whole.node))
        absent = {f"no {name}": Absent(field) for name, field in self._fields.items()}
        self.facts = needed | guessed | absent

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        rows = guessed = kept = most = 0
        differ = False
        first: Sample | None = None
        unseen = dict(self._fields)
        for sample, group in self._with_groups(samples, work):
            rows += 1
            first = first or sample
            for name in [name for name in unseen if not sample.facts[f"no {name}"]]:
                del unseen[name]
            if group is not None:
                most = max(most, group.rewards.count)
                differ = differ or not group.equal
            guessed += any(sample.facts[name] for name in self._guessed)
            judged = self._judge(sample, group, work)
            kept += isinstance(judged, Sample)
            yield judged
        if self._grouped and rows and not kept:
            work.warnings.append(f"it drops everything. {_why_none(most, differ)}")
        if first is not None:
            for name, place in unseen.items():
                work.warnings.append(str(unknown("field", name, neighbours(place, first, work), "(no row here has it)")))
        if guessed:
            work.warnings.append(f"{guessed:,} of {rows:,} rows have no token counts; they are estimated at 4 bytes a token")

    def _judge(self, sample: Sample, group: Group | None, work: Workspace) -> Sample | Drop:
        values: Mapping[str, Any] = sample.facts
        if self._later or group is not None:
            known = dict(values)
            for name, get in self._later:
                known[name] = get(sample, work)
            if group is not None:
                known |= group.values
                known["group.best"] = group.best == sample.place
            values = known
        for run, denial in self._parts:
            notes: list[str] = []
            if not run(values, notes):
                return Drop(sample, notes[0] if notes else denial)
        return sample

    def _with_groups(self, samples: Iterable[Sample], work: Workspace) -> Iterator[tuple[Sample, Group | None]]:
        if not self._grouped:
            for sample in samples:
                yield sample, None
            return
        ordered = work.sort(samples, lambda sample: (sample.group, sample.place))
        for _, members in groupby(ordered, lambda sample: sample.group):
            first, rest = _kept(members, work)
            group = Group()
            for sample in chain(first, rest or ()):
                group.add(sample, self._success)
            group.finish()
            for sample in chain(first, rest or ()):
                yield sample, group
            if rest is not None:
                rest.close()


def _fields(node: Node) -> Iterator[tuple[str, InRow]]:
    """The fields of rows that it asks for; not those that are compared with null, which may well be nowhere."""
    if isinstance(node.value, InRow) and node.name not in LATER:
        yield node.name, node.value
    if node.kind != "compare" or not any(part.kind == "value" and part.value is None for part in node.parts):
        for part in node.parts:
            yield from _fields(part)


@dataclass(frozen=True, slots=True)
class Absent:
    """A fact: whether a row lacks the field."""

    field: InRow

    def __call__(self, record: Record) -> bool:
        return self.field(record) is None


def _why_none(most: int, differ: bool) -> str:
    """What is known of groups none of which a filter keeps."""
    counted = "group.* counts only the attempts that the steps before left"
    if most == 1:
        return (
            f"Every task has one attempt here, and {counted}: put this filter first; where it is, collect several attempts "
            "at each task (rollforge collect --repeats 4)"
        )
    if differ:
        return f"Tasks have at most {most:,} attempts here, and {counted}"
    return (
        f"All attempts at a task (at most {most:,}) have equal rewards here, and {counted}: after a filter on rewards all "
        "are solved or all failed. Put this filter first, or join both with `and` in one"
    )


MOST = 4096
"""Attempts of one group that are held in memory."""


def _kept(members: Iterator[Sample], work: Workspace) -> tuple[list[Sample], Kept[Sample] | None]:
    """The many groups of a few attempts stay in memory; of one of a million the rest goes to the disk."""
    first = list(islice(members, MOST))
    return first, work.keep(members) if len(first) == MOST else None


class Group:
    """What is known of all attempts at a task."""

    def __init__(self) -> None:
        self.rewards = Spread()
        self.solved = 0
        self.best = (-1, -1)
        """The place of the best attempt, the first of equal ones."""
        self.values: dict[str, Any] = {}

    def add(self, sample: Sample, success: float) -> None:
        if not self.rewards.count or sample.reward > self.rewards.high + EQUAL:
            self.best = sample.place
        self.rewards.add(sample.reward)
        self.solved += sample.reward >= success - EQUAL

    @property
    def equal(self) -> bool:
        return self.rewards.high - self.rewards.low <= EQUAL

    def finish(self) -> None:
        rewards = self.rewards
        self.values = {
            "group.size": rewards.count,
            "group.solve_rate": self.solved / rewards.count,
            "group.mean": rewards.high if self.equal else rewards.mean,
            "group.std": 0.0 if self.equal else rewards.deviation,
            "group.min": rewards.low,
            "group.max": rewards.high,
            "group.gap": 0.0 if self.equal else rewards.high - rewards.low,
        }


def hoisted(node: Node) -> tuple[Node, dict[str, Fact]]:
    """The same expression, with every part that a row alone decides made into a fact: the workers find it out, where the row
    is at hand, and texts never travel."""
    names = list(node.names())
    if not names:
        return node, {}
    if node.kind == "name":
        return node, {} if node.value is None else {node.name: node.value}
    if not any(name.name in LATER for name in names):
        return Node("name", node.text, node.at, name=node.text), {node.text: Computed(node)}
    parts = [hoisted(part) for part in node.parts]
    facts = {name: fact for _, found in parts for name, fact in found.items()}
    return replace(node, parts=tuple(part for part, _ in parts)), facts


@dataclass(slots=True)
class Computed:
    """The value of a part of an expression, as a fact. Pickled as its nodes."""

    node: Node
    _run: Run | None = field(default=None, compare=False, repr=False)
    _facts: dict[str, Fact] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, record: Record) -> Any:
        if self._run is None:
            self._facts = {name.name: name.value for name in self.node.names()}
            self._run = function(self.node)
        notes: list[str] = []
        value = self._run(_Asked(record, self._facts), notes)
        return Doubt(value, notes[0]) if notes and not value else value

    def __reduce__(self) -> tuple[type[Computed], tuple[Node]]:
        return Computed, (self.node,)


class _Asked(dict[str, Any]):
    """A row's facts, each when it is asked for."""

    __slots__ = ("_facts", "_record")

    def __init__(self, record: Record, facts: Mapping[str, Fact]) -> None:
        self._record = record
        self._facts = facts

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._facts[name](self._record)
        return value


def _run_of(sample: Sample, work: Workspace) -> str:
    return work.runs[sample.source] if sample.source < len(work.runs) else str(sample.source)


def _reward(sample: Sample, work: Workspace) -> float:
    return sample.reward


_LATER: dict[str, Callable[[Sample, Workspace], Any]] = {
    "reward": _reward,
    "task.reward": _reward,
    "metrics.reward": _reward,
    "task.task_name": lambda sample, work: sample.changes.get("task_name", sample.facts["task.task_name"]),
    "source": _run_of,
}
