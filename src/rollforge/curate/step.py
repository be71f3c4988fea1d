"""The protocol of a curation step: samples go in, samples and drops come out, and the numbers add up.

A sample stands for a row: where the row is, and the few facts that the recipe's steps asked for. The rows themselves stay in
their files until the end; then each kept one is written once, with the changes that the steps made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from rollforge.bulk.blocks import line_number
from rollforge.bulk.record import Record
from rollforge.bulk.spill import Kept, sort
from rollforge.records.items import Json

T = TypeVar("T")

Fact: TypeAlias = Callable[[Record], Any]
"""Computed for every row where it is read, in the workers: a module-level function, or another picklable callable. What it
returns is small and picklable; it may raise `UserError`: the row is dropped, with the message as the reason.

With a method `complete(values) -> values` a fact is made in two steps: of each row what it takes, then the facts of a whole
block of rows together."""


class Sample(msgspec.Struct):
    source: int
    """Number of the input file."""
    at: int
    """Where its line starts. (source, at) is the order of the input."""
    env: str
    group: bytes
    """Attempts at one task share it (`Record.group`)."""
    prompt: bytes
    """Rows with the same prompt share it (`Record.prompt`)."""
    reward: float
    """After the steps so far: reward shaping changes it."""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    """By the names under which steps asked for them. A step may add its own."""
    changes: Json = msgspec.field(default_factory=dict)
    """Top-level fields that the written row gets: `reward`, `task_name`."""
    split: str | None = None
    """train, validation or test, once split."""
    copies: int = 1
    """How often the row is written (upsampling)."""

    @property
    def place(self) -> tuple[int, int]:
        return (self.source, self.at)


def complete(name: str, fact: Fact, samples: Sequence[Sample]) -> None:
    """The second step of a fact that has one."""
    rest: Callable[[Sequence[Any]], Sequence[Any]] | None = getattr(fact, "complete", None)
    if rest is not None and samples:
        for sample, value in zip(samples, rest([sample.facts[name] for sample in samples]), strict=True):
            sample.facts[name] = value


class Drop(msgspec.Struct, frozen=True):
    sample: Sample
    reason: str
    """One of few, for counting: "reward < 0.8", "duplicate prompt". What is particular to the row is evidence."""
    evidence: Json | None = None
    """Kept with the dropped row: what it duplicates, the n-gram that was found, ..."""


@dataclass(slots=True)
class Workspace:
    """What a step may use beside the samples."""

    folder: Path
    """For temporary files."""
    seed: int = 0
    runs: Sequence[str] = ()
    """For `Sample.source`: the run that each input file belongs to, as the user named it."""
    files: Sequence[Path] = ()
    """For `Sample.source`: the input file."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the step wants in the report, JSON: counts per category, ranges before and after, proofs."""
    warnings: list[str] = field(default_factory=list)

    def place(self, source: int, at: int) -> Json:
        """Where a row is, for evidence: file and byte."""
        return {"file": str(self.files[source]) if self.files else str(source), "byte": at}

    def line(self, source: int, at: int) -> str:
        """The same for people, as `file:line`. Reads the file up to there: for a few rows only."""
        if not self.files:
            return f"{source}:{at}"
        return f"{self.files[source]}:{line_number(self.files[source], at)}"

    def sort(self, samples: Iterable[T], key: Callable[[T], Any]) -> Iterator[T]:
        """Sorted on disk: memory stays constant. Steps may change the order freely; it is restored at the end."""
        return sort(samples, key, self.folder)

    def keep(self, samples: Iterable[T]) -> Kept[T]:
        """On disk, to be iterated as often as needed; `close()` it."""
        return Kept(self.folder, samples)


class Step(Protocol):
    """A configured step. Every sample that goes in comes out exactly once, kept or in a `Drop`.

    Nothing may be held in memory for every sample but a few bytes; what is more goes through the workspace.
    """

    name: str
    """As the report shows it: "filter reward >= 0.8"."""
    facts: Mapping[str, Fact]
    """What it needs to know of each row."""

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]: ...
