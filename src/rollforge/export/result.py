"""What an export was made of and what it made: for the terminal, the card and the manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rollforge.bulk.blocks import line_number
from rollforge.export.options import Input, Options
from rollforge.export.pairs import Funnel
from rollforge.export.passes import Reason
from rollforge.export.target import Made, Problem, Target
from rollforge.export.writer import Written
from rollforge.records.items import Json


@dataclass(slots=True)
class Done:
    """One target's export."""

    target: Target
    kind: str
    folder: Path
    made: Made
    files: list[Written]
    left_out: Counter[str]
    """Rows (tasks, for prompts) that the kind does not want, by reason."""
    refused: dict[str, Reason]
    """Rows that the kind cannot hold, by reason."""
    pairs: Funnel | None
    tasks: int | None = None
    """With a judged attempt; where the kind is made of tasks."""
    problems: list[Problem] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    """Configuration, launch script, lineage: file -> SHA-256."""
    loader: str = ""
    """What the framework's own loader said."""
    warnings: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What stood in the folder and no export had written (checkpoints): it stands there still."""

    @property
    def name(self) -> str:
        return f"{self.target.name}:{self.kind}"

    @property
    def rows(self) -> int:
        return sum(file.tally.rows for file in self.files)

    @property
    def over(self) -> int:
        """Rows longer than `Settings.max_length`."""
        return sum(file.tally.over for file in self.files)

    def counts(self, inputs: list[Input]) -> Json:
        """What became of the judged rollouts that are in no row."""
        return {
            **({"tasks": self.tasks} if self.tasks is not None else {}),
            "left_out": dict(self.left_out),
            "refused": reasons(self.refused, inputs),
            **({"pairing": self.pairs.row()} if self.pairs is not None else {}),
        }

    def first_refused(self, inputs: list[Input]) -> list[tuple[str, str]]:
        """(reason, file and line of the first row) of the most frequent reasons."""
        return first(self.refused, inputs)


@dataclass(slots=True)
class Exported:
    out: Path
    inputs: list[Input]
    options: Options
    read: Counter[str]
    """Usable rows by outcome."""
    unusable: dict[str, Reason]
    planned: int | None
    targets: list[Done]
    notes: list[str] = field(default_factory=list)
    """What is to be said once, whatever the target."""

    @property
    def judged(self) -> int:
        return self.read["scored"] + self.read["policy_fault"]

    def row(self) -> Json:
        """As JSON."""
        return {
            "out": str(self.out),
            "read": dict(self.read),
            "planned": self.planned,
            "unusable": reasons(self.unusable, self.inputs),
            "notes": self.notes,
            "targets": [
                {
                    "target": one.name,
                    "folder": str(one.folder),
                    "rows": one.rows,
                    "files": [
                        {
                            "file": str(one.folder / file.name),
                            "split": file.split,
                            "rows": file.tally.rows,
                            "bytes": file.size,
                            "sha256": file.sha256,
                        }
                        for file in one.files
                    ],
                    **one.counts(self.inputs),
                    "warnings": one.warnings,
                    **({"kept": one.kept} if one.kept else {}),
                    "loader": one.loader,
                    "problems": [str(problem) for problem in one.problems],
                }
                for one in self.targets
            ],
        }

    @property
    def failed(self) -> bool:
        """Whether a check found errors, or a target got no row."""
        return any(one.rows == 0 or any(found.level == "error" for found in one.problems) for one in self.targets)


def reasons(found: dict[str, Reason], inputs: list[Input]) -> Json:
    """Per reason: how many, and where the first is."""
    return {text: {"count": one.count, "first": place(one, inputs)} for text, one in found.items()}


def first(found: dict[str, Reason], inputs: list[Input]) -> list[tuple[str, str]]:
    """(reason, file and line of the first row) of the three most frequent ones."""
    most = sorted(found.items(), key=lambda one: -one[1].count)[:3]
    return [(text, place(reason, inputs)) for text, reason in most]


def place(reason: Reason, inputs: list[Input]) -> str:
    file = inputs[reason.source].file
    return f"{file}:{line_number(file, reason.at)}"
