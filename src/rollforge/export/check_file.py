"""One file for a trainer: what it is, its rows (`check_rows`), what only the whole shows, and the framework's loader."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from rollforge.bulk.alien import HEAD, alien
from rollforge.bulk.blocks import TooLong, blocks
from rollforge.bulk.parquet import parquet_rows
from rollforge.bulk.record import ANSWERS
from rollforge.bulk.workers import spread
from rollforge.errors import UserError, reported, short
from rollforge.export.check_rows import FILLED, LONGEST, MASK, NULL_ARGUMENT, Part, Work, decoded
from rollforge.export.mixed import FIRST, Schema
from rollforge.export.target import Kind, Level, Problem, Target
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.stats.source import split_of_file


class File:
    """One data file under check."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.part = Part()
        self.schema: Schema | None = None
        """Of JSON Lines that `datasets` reads."""
        self._more: list[Problem] = []

    @property
    def rows(self) -> int:
        return self.part.rows

    @property
    def split(self) -> str:
        return split_of_file(self.name)

    def say(self, level: Level, message: str, line: int = 0) -> None:
        self._more.append(Problem(self.name, line, level, message))

    def said(self) -> list[Problem]:
        """Problems by line."""
        found = list(self._more)
        for count, first in self.part.found.values():
            for number, (line, level, message) in enumerate(first, 1):
                found.append(Problem(self.name, line, level, message, count - number if number == len(first) else 0))
        return sorted(found, key=lambda problem: (problem.line == 0, problem.line))

    def about(self) -> Json:
        rows, longest = self.rows, self.part.longest
        hashes = self._hashes()
        return {
            "rows": rows,
            "distinct_rows": _distinct(hashes[:, 1]) if rows else 0,
            "distinct_prompts": _distinct(_asked(hashes)[:, 2]),
            "longest_row_bytes": longest[0],
            "longest_row_line": longest[1],
            **({"rewards": self.part.rewards.row()} if self.part.rewards else {}),
        }

    def opens(self) -> bool:
        """Whether it is what its name says; else that is the problem."""
        path = Path(self.name)
        with reported(f"cannot read {path}"), path.open("rb") as file:
            head = file.read(HEAD)
        message = _alien(head, path)
        if message:
            self.say("error", message)
        return not message

    def jsonl(self, work: Work, workers: int) -> None:
        try:
            work.schema, work.first_end = None, 0
            if not work.by_line:
                work.schema, work.first_end = self._learn(work.names.values())
                self.schema = work.schema
            for part in spread(work, blocks([self.name], longest=LONGEST), workers):
                self.part.add(part)
        except TooLong as error:
            self.say("error", str(error).removeprefix(f"{self.name}: "))

    def _learn(self, names: Iterable[str]) -> tuple[Schema, int]:
        schema, blank, at = Schema(), 0, 0
        with open(self.name, "rb") as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST), b""), 1):
                at += len(line)
                try:
                    row = loads(line.removeprefix(BOM_UTF8))
                    if isinstance(row, dict):
                        schema.add(row)
                except ValueError:
                    blank = blank or (0 if line.strip() else number)
                if at >= FIRST:
                    break
        schema.settle()
        mixed = sorted(schema.mixed())
        if mixed and blank:
            self.say(
                "error",
                f"line {blank} is blank: datasets then does not see that the objects in {mixed[0]} differ, and fills their "
                "keys with null",
            )
        for path in schema.dates():
            level: Level = "error" if re.split(r"[.\[]", path)[0] in _READ.union(names) else "warning"
            self.say(level, f"every {path} is a date: {_TIMESTAMP}")
        return schema, at

    def parquet(self, work: Work) -> None:
        columns = work.columns
        try:
            for row in parquet_rows(Path(self.name)):
                self.part.lines += 1
                text = dumps(row, default=str)
                self.part.longest = max(self.part.longest, (len(text), self.part.lines), key=itemgetter(0))
                # What the prompt is can be seen inside of JSON text only.
                open_row = {key: decoded(value) for key, value in row.items()}
                if columns:  # the reader decodes; these columns are checked as they stand
                    row = {key: value if key in columns else open_row[key] for key, value in row.items()}
                work.row(row, hash(text), self.part, prompt=open_row)
        except UserError as error:
            self.say("error", str(error).removeprefix(f"{self.name}: "))

    def whole(self, rules: Kind) -> None:
        """What only the whole file shows."""
        part = self.part
        if not part.rows:
            if not part.found and not self._more:
                self.say("error", "the file has no rows: loaders fail on it (StopIteration, SchemaInferenceError)")
            return
        if part.crlf:
            self.say(
                "warning", f"{part.crlf:,} lines end with CR LF: loaders accept it, but hashes and diffs change (dos2unix)"
            )
        if rules.alike and len(part.alike) > 1:
            (one, _), (other, line) = list(part.alike.items())[:2]
            more = f" and {len(part.alike) - 2} more" if len(part.alike) > 2 else ""
            self.say(rules.alike.level, f"some rows are of {one}, others of {other}{more}: {rules.alike.message}", line)
        hashes = self._hashes()
        rows = _distinct(hashes[:, 1])
        if rows < part.rows:
            first, again = _repeat(hashes, 1)
            share = (part.rows - rows) / part.rows
            what = f"{part.rows - rows:,} of {part.rows:,} rows ({share:.0%}) repeat another one to the letter"
            self.say("warning", f"{what}; this one repeats line {first}", again)
        asked = _asked(hashes)
        prompts = _distinct(asked[:, 2])
        if rules.family == "prompt" and prompts < _distinct(asked[:, 1]):
            first, again = _repeat(asked, 2)
            what = f"{len(asked):,} rows have only {prompts:,} prompts: trainers make their own attempts"
            what += ", one row will do where tools and expected answers are the same"
            self.say("warning", f"{what}; this one repeats line {first}", again)
        if len(asked) >= 10 and prompts == 1:
            self.say("warning", f"all {len(asked):,} rows have the same prompt")
        if part.answered >= 10 and len(part.answers) == 1:
            self.say("warning", f"all {part.answered:,} answers are the same: a policy learns to say it without reading")
        if part.rewards and part.rewards.low == part.rewards.high and part.rows >= 2:
            self.say("warning", f"every reward is {part.rewards.low:g}: there is nothing to tell good from bad by")
        if rules.family == "judged" and len(part.labels) == 1 and part.rows >= 2 and self.split in ("train", ""):
            label = "true" if True in part.labels else "false"
            self.say("warning", f"every label is {label}: there is nothing to tell good from bad by")
        self._filled()

    def _filled(self) -> None:
        """Arguments that are null in every call of one tool and belong to another one: filled in by Arrow. Sure is it only
        where the other tool's calls have been given arguments of the first one: else null may be what the model said."""
        differing = self.part.differing()
        for column in differing:
            self.part.found.pop(NULL_ARGUMENT + column, None)
        counted = {name: counts for name, counts in self.part.nulls.items() if name[0] not in differing}
        owners: dict[tuple[str, str], set[str]] = {}
        empty: dict[tuple[str, str], set[str]] = {}
        for (column, tool, key), (_, values, _line) in counted.items():
            if values:
                owners.setdefault((column, key), set()).add(tool)
            else:
                empty.setdefault((column, tool), set()).add(key)
        for (column, tool, key), (nulls, values, line) in counted.items():
            others = owners.get((column, key), set()) - {tool}
            if nulls and not values and others:
                sure = any(
                    tool in owners.get((column, given), ()) for other in others for given in empty.get((column, other), ())
                )
                what = f"the argument {key!r} of {tool} is null in all its {nulls:,} calls and belongs to {min(others)}"
                self.say(
                    "error" if sure else "warning",
                    FILLED.format(what) if sure else f"{what}: filled in by Arrow, or said by the model?",
                    line,
                )
            elif nulls >= 5 and not values:
                self.say(
                    "warning",
                    f"the argument {key!r} of {tool} is null in all its {nulls:,} calls: filled in by Arrow?",
                    line,
                )

    def load(self, target: Target, kind: str) -> str | None:
        said = StringIO()
        try:
            with redirect_stdout(said):
                return target.load(kind, Path(self.name))
        except Exception as error:  # noqa: BLE001 - whatever a framework's loader raises is the finding
            self.say("error", f"{target.name}'s own loader fails: {short(error)}")
            return f"{target.name}'s own loader was run"

    def _hashes(self) -> Any:
        """One row of (line, row, prompt) per data row."""
        import numpy as np

        return np.frombuffer(self.part.hashes, dtype=np.uint64).reshape(-1, 3)


_TIMESTAMP = (
    "datasets makes a timestamp of it, not a text. Write Parquet, which keeps texts (verl:grpo-parquet), or put a row first "
    "in which it is another text"
)
_READ = {
    *(*ANSWERS, "reward_model", "text", "messages", "conversations", "prompt", "input", "context"),
    *("completion", "completions", "chosen", "rejected", "output"),
}
"""Columns that trainers read; what else a row has may be for people."""


NO_PARQUET = "it fails on Parquet (UnicodeDecodeError, DatasetGenerationError); write JSON Lines"


def _alien(head: bytes, path: Path) -> str | None:
    parquet = path.suffix == ".parquet"
    if not head:
        return "the file is empty"
    if head.startswith(b"PAR1"):
        return None if parquet else f"this is a Parquet file: name it {path.stem}.parquet"
    if parquet:
        return "this is no Parquet file (it does not begin with PAR1)"
    return alien(head, path)


def _asked(hashes: Any) -> Any:
    """Of the rows that have a prompt."""
    has = hashes[:, 2] != hash(b"") & MASK
    return hashes if has.all() else hashes[has]


def _distinct(column: Any) -> int:
    import numpy as np

    ordered = np.sort(column)
    return len(ordered) and int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1


def _repeat(hashes: Any, column: int) -> tuple[int, int]:
    """(line, line of the first row that repeats it)."""
    import numpy as np

    values = hashes[:, column]
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order][1:] == values[order][:-1])
    at = int(again[np.argmin(order[again + 1])])
    return int(hashes[order[at], 0]), int(hashes[order[at + 1], 0])


def leaks(files: Sequence[File]) -> Iterator[Problem]:
    """Prompts of the training file that stand in validation or test as well."""
    import numpy as np

    others = [one for one in files if one.rows and one.split not in ("", "train")]
    if not others:
        return
    held = [_asked(one._hashes()) for one in others]
    prompts = np.concatenate([asked[:, 2] for asked in held])
    order = np.argsort(prompts, kind="stable")
    prompts, owners = prompts[order], np.repeat(np.arange(len(held)), list(map(len, held)))[order]
    for train in (one for one in files if one.rows and one.split == "train"):
        mine = np.unique(_asked(train._hashes())[:, 2])
        # Of hundreds of files (one for each environment) only those are compared that have a prompt of this one.
        starts, ends = (np.searchsorted(prompts, mine, side) for side in ("left", "right"))
        shared = [owners[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
        for number in np.unique(np.concatenate(shared)).tolist() if shared else ():
            other, theirs = others[number], held[number]
            both = np.isin(theirs[:, 2], mine)
            line = int(theirs[np.flatnonzero(both)[0], 0])
            count = _distinct(theirs[both][:, 2])
            where = f"{count:,} of its prompts are in {train.name} as well"
            says = f"{where}: {other.split} says nothing then; split by prompt (rollforge curate --split)"
            yield Problem(other.name, line, "error", says)


def unlike(files: Sequence[File]) -> Iterator[Problem]:
    """What held-out files have that the types of the training file have no place for, where both are read at once."""
    train, schema = next(
        ((one.name, one.schema) for one in files if one.split == "train" and one.rows and one.schema), ("", None)
    )
    for other in files:
        if other.split in ("", "train") or not (schema and other.schema):
            continue
        with open(other.name, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and (misfits := schema.misfits(row)):
                    yield Problem(other.name, number, "error", _UNLIKE[misfits[0].effect].format(misfits[0], train))
                    break


_ONCE = (
    "beside {1}, {0.path} {0.what}: the trl command reads both files with the types of that one, and {does}. Run train.py, "
    "which reads each by itself, or hold out other rows (--seed), or none (--validation 0)"
)
_UNLIKE = {
    effect: _ONCE.replace("{does}", does)
    for effect, does in (("fails", "fails here"), ("null", "fills it with null"), ("changed", "makes text of it"))
}
