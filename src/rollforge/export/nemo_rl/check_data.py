"""The data files that a NeMo RL configuration names: where they are looked for, and whether they are what it says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rollforge.bulk.parquet import parquet_rows
from rollforge.errors import UserError
from rollforge.export.check_file import NO_PARQUET
from rollforge.export.lengths import longer_in
from rollforge.export.nemo_rl import check
from rollforge.export.nemo_rl.check import MASKED
from rollforge.export.nemo_rl.inherit import Found, Values
from rollforge.records.lossless import loads

_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".arrow", ".txt")
_BY_LINE = ("openai_format", "NemoGymDataset")
_SAMPLE = 200
"""Rows of each file that are looked at; the whole of it is for `rollforge check` on the data."""
_BYTES = 8 << 20
"""Of them: rows with thousands of tools are so many objects that a few stand for all."""


@dataclass(slots=True)
class DataFiles:
    algorithm: str
    flat: bool
    """Whether NeMo RL up to 0.5 reads them."""
    limit: int | None
    """Tokens of a row that are too many."""
    task: str | None = None
    """What `task_name` of each row must be."""
    rows: dict[str, int] = field(default_factory=dict)
    """Of each file that could be read."""
    tools: bool = False
    """Whether any row that was looked at has tools or calls of tools."""

    def check(self, key: str, name: str, entry: Values, dataset: str) -> Iterator[Found]:
        if name.startswith(("./", "../")) and not self.flat:
            yield (
                key,
                "error",
                f"{name!r}: IndexError (string index out of range), for want of a task name; write the absolute path",
            )
            return
        if "${" in name:
            return
        path = Path(name)
        if dataset not in _BY_LINE and path.suffix not in _SUFFIXES:
            yield (
                key,
                "error" if os.path.exists(path) else "warning",
                f"{name!r} ends in none of {', '.join(_SUFFIXES)}: it is taken for a data set of the Hugging Face hub",
            )
            return
        if not path.is_absolute():
            yield (
                key,
                "warning",
                f"{name!r} is looked for where NeMo RL is started, not beside this file; write the absolute path",
            )
            return
        if "*" in name and not os.path.exists(path):
            if not list(path.parent.glob(path.name)):
                yield key, "error", f"no file fits {name}"
            return
        if not os.path.isfile(path):
            yield key, "error", f"{name} is not there"
        elif dataset in _BY_LINE and path.suffix == ".parquet":
            yield key, "error", f"{dataset} reads JSON Lines: {NO_PARQUET}"
        elif path.suffix in (".jsonl", ".json", ".parquet"):
            yield from self._content(key, path, entry, dataset)

    def _content(self, key: str, path: Path, entry: Values, dataset: str) -> Iterator[Found]:
        for named, name in entry.items():
            if str(named).endswith("_key") and not isinstance(name, str | None):
                yield f"{key.rpartition('.')[0]}.{named}", "error", f"{name!r} is no name of a field"
                return
        try:
            rows, blank, sample, broken = (_read_parquet if path.suffix == ".parquet" else _read)(path)
        except UserError as error:
            yield key, "error", str(error)
            return
        self.rows[str(path)] = rows
        if not rows:
            yield key, "error", f"{path} is empty: StopIteration when loading"
            return
        if blank and dataset in _BY_LINE:
            yield key, "error", f"{path}:{blank}: a blank line: JSONDecodeError; delete it"
        if broken:
            yield key, "error", f"{path}:{broken[0]}: {broken[1]}"
        tools = any(row.get(str(entry.get("tool_key", "tools"))) or "'tool_calls':" in str(row) for _, row in sample)
        self.tools = self.tools or tools
        if tools and dataset == "openai_format" and not entry.get("use_preserving_dataset"):
            message = "false, with tools in the data: datasets before 5 fills arguments of calls with nulls; set it true"
            yield key.rpartition(".")[0] + ".use_preserving_dataset", "error", message
        said: set[str] = set()
        for number, row in sample:
            for message in self._of_row(row, entry, dataset):
                start = message[:40]
                if start not in said:
                    said.add(start)
                    warning = message.startswith(check.WARNING)
                    yield key, "warning" if warning else "error", f"{path}:{number}: {message.removeprefix(check.WARNING)}"
        longest = longer_in(path, self.limit - 1) if self.limit else 0
        if longest:
            yield (
                "data.max_input_seq_length",
                "warning",
                f"{self.limit}, and {path} has rows of about {longest} tokens: {MASKED}",
            )

    def _of_row(self, row: Values, entry: Values, dataset: str) -> Iterator[str]:
        def name(key: str, usual: str) -> str:
            return str(entry.get(key) or usual)

        if dataset == "ResponseDataset":
            if self.task and row.get("task_name") != self.task:
                yield f"no task_name {self.task!r}, by which run_grpo_math.py of NeMo RL 0.4 finds the processor (KeyError)"
            of = check.grpo if self.algorithm == "grpo" else check.sft_simple
            yield from of(row, name("input_key", "input"), name("output_key", "output"))
        elif dataset == "openai_format":
            yield from check.sft(row, name("chat_key", "messages"), entry.get("tool_key", "tools"))
        elif dataset == "BinaryPreferenceDataset":
            keys = (("prompt_key", "prompt"), ("chosen_key", "chosen"), ("rejected_key", "rejected"))
            yield from check.dpo(row, *(name(*key) for key in keys))
        else:
            yield from check.nemo_gym(row) if dataset == "NemoGymDataset" else check.dpo_messages(row)


_Read = tuple[int, int, list[tuple[int, Values]], tuple[int, str] | None]


def _read_parquet(path: Path) -> _Read:
    """As `_read`. Raises `UserError`."""
    rows = enumerate(parquet_rows(path), 1)
    sample = list(islice(rows, _SAMPLE))
    return len(sample) + sum(1 for _ in rows), 0, sample, None


def _read(path: Path) -> _Read:
    """(rows, the first blank line or 0, the first rows with their lines, the first line of those that is no object)."""
    rows = blank = 0
    sample: list[tuple[int, Values]] = []
    broken: tuple[int, str] | None = None
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                blank = blank or number
                continue
            rows += 1
            if len(sample) >= _SAMPLE or size >= _BYTES or broken:
                continue
            size += len(line)
            try:
                row = loads(line)
            except ValueError as error:
                broken = number, f"not JSON: {error}"
                continue
            if isinstance(row, dict):
                sample.append((number, row))
            else:
                broken = number, f"{type(row).__name__} instead of an object"
    return rows, blank, sample, broken
