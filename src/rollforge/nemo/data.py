"""Data sets of a configuration, checked row by row, measured, and put together for training (`ng_prepare_data`).

For every data set in scope: the rows that are tasks, with the agent they are for, in `<data>_prepare.jsonl` beside it and
in one file per type in the output directory; what they are like in `<data>_metrics.json`. A row that is no task is named,
with its line, and left out.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rollforge.errors import UserError
from rollforge.nemo.config import AGENTS, GymConfig, find
from rollforge.nemo.prompt import Prompt, read_prompt
from rollforge.nemo.rows import Plan, materialise, same_file
from rollforge.records.items import Json, input_items
from rollforge.records.lossless import dumps
from rollforge.records.rows import BadLine

Mode = Literal["train_preparation", "example_validation"]
IN_SCOPE: dict[Mode, tuple[str, ...]] = {
    "train_preparation": ("train", "validation", "benchmark"),
    "example_validation": ("example",),
}


@dataclass(frozen=True, slots=True)
class Dataset:
    agent: str
    entry: Json
    """As it stands in the configuration."""
    path: Path
    type: str
    repeats: int
    prompt: Prompt | None


@dataclass(slots=True)
class Prepared:
    files: dict[str, Path] = field(default_factory=dict)
    """Type to the file with all rows of that type."""
    rows: dict[str, int] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)
    conflicts: list[Path] = field(default_factory=list)
    """Metrics files whose content is not what the data are like now."""


def prepare(config: GymConfig, output: Path, mode: Mode, *, overwrite: bool, say: Callable[[str], None]) -> Prepared:
    """Raises `UserError`: no data sets, or files that are not here (all of them, with where they come from)."""
    found = datasets(config, IN_SCOPE[mode])
    _check_apart(found, output)
    done = Prepared()
    output.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, Metrics] = defaultdict(Metrics)
    with ExitStack() as opened:
        outs: dict[str, Any] = {}
        for dataset in found:
            if dataset.type not in outs:
                done.files[dataset.type] = output / f"{dataset.type}.jsonl"
                outs[dataset.type] = opened.enter_context(open(done.files[dataset.type], "wb"))
            own = Metrics()
            before = len(done.bad)
            with open(_beside(dataset.path, "_prepare.jsonl"), "wb") as beside:
                for row in _rows(dataset, done.bad.append):
                    line = dumps(row) + b"\n"
                    for _ in range(dataset.repeats):
                        outs[dataset.type].write(line)
                        beside.write(line)
                    own.observe(row)
                    metrics[dataset.type].observe(row)
                    done.rows[dataset.type] = done.rows.get(dataset.type, 0) + dataset.repeats
            kept, left = own.count, len(done.bad) - before
            say(f"{dataset.path}: {kept} rows for {dataset.agent}" + (f", {left} left out" if left else ""))
            _write(_beside(dataset.path, "_metrics.json"), dataset, own, overwrite, done.conflicts)
    for type, all_of_type in metrics.items():
        first = next(dataset for dataset in found if dataset.type == type)
        _write(output / f"{type}_metrics.json", first, all_of_type, overwrite, done.conflicts)
    return done


def _check_apart(found: list[Dataset], output: Path) -> None:
    """No file that is written is a data set."""
    written = [output / f"{dataset.type}.jsonl" for dataset in found]
    written += [_beside(dataset.path, "_prepare.jsonl") for dataset in found]
    for path in dict.fromkeys(written):
        if any(same_file(path, dataset.path) for dataset in found):
            raise UserError(f"{path} is a data set, and is written here: rename it, or choose another +output_dirpath")


def datasets(config: GymConfig, types: tuple[str, ...]) -> list[Dataset]:
    """The data sets of all agents that are of these types and here. Raises `UserError`, naming all that are not here."""
    found: list[Dataset] = []
    missing: list[str] = []
    for server in config.of_type(AGENTS).values():
        entries = server.block.get("datasets") or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{server.name}: datasets is {entries!r:.100}, not a list of data sets")
        for entry in entries:
            if entry.get("type") not in types:
                continue
            path = find(str(entry.get("jsonl_fpath") or ""))
            if not path.is_file():
                missing.append(f"{server.name}: {entry.get('jsonl_fpath')}{_source(entry)}")
                continue
            prompt = read_prompt(entry["prompt_config"]) if entry.get("prompt_config") else None
            repeats = entry.get("num_repeats") or 1
            if type(repeats) is not int or repeats < 1:
                raise UserError(f"{server.name}: num_repeats of {path} is {repeats!r}, not a number from 1 on")
            found.append(Dataset(server.name, entry, path, entry["type"], repeats, prompt))
    if missing:
        raise UserError("data sets are not here:" + "".join(f"\n  {line}" for line in missing))
    if not found:
        raise UserError(f"no agent of the configuration has data sets of type {' or '.join(types)}")
    return found


def _source(entry: Json) -> str:
    """The command that fetches it."""
    source = entry.get("source") or {}
    hub = entry.get("huggingface_identifier") or (source if source.get("type") == "huggingface" else None)
    if hub:
        folder = Path(str(entry.get("jsonl_fpath"))).parent
        artifact = f" {hub['artifact_fpath']}" if hub.get("artifact_fpath") else ""
        return f" (hf download --repo-type dataset {hub.get('repo_id')}{artifact} --local-dir {folder}, then rename it)"
    return " (from a private GitLab)" if entry.get("gitlab_identifier") or source else ""


def _rows(dataset: Dataset, bad: Callable[[BadLine], None]) -> Iterator[Json]:
    plan = replace(Plan(agent=dataset.agent), prompt=dataset.prompt)
    for row in materialise(dataset.path, plan, bad):
        reference = {"type": AGENTS, "name": dataset.agent}
        yield {key: value for key, value in row.items() if not key.startswith("_ng_")} | {"agent_ref": reference}


class Metrics:
    """What rows are like: numbers with mean and spread, texts by how many differ."""

    def __init__(self) -> None:
        self.count = 0
        self._numbers: dict[str, _Spread] = {name: _Spread() for name in (TOOLS, WORDS, TURNS, TEMPERATURE)}
        self._texts: dict[str, tuple[set[int], list[int]]] = {}

    def observe(self, row: Json) -> None:
        params = row["responses_create_params"]
        self.count += 1
        if params.get("tools") is not None:
            self._numbers[TOOLS].observe(len(params["tools"]))
        self._numbers[WORDS].observe(len(json.dumps(params).split()))
        turns = sum(item.get("role") == "user" for item in input_items(params))
        if turns:
            self._numbers[TURNS].observe(turns)
        if isinstance(params.get("temperature"), (int, float)):
            self._numbers[TEMPERATURE].observe(params["temperature"])
        for key, value in row.items():
            if key not in ("responses_create_params", "agent_ref"):
                for one in value if isinstance(value, list) else [value]:
                    self._other(key, one)

    def row(self) -> Json:
        texts = {
            key: {"unique_count": len(seen), "total_count": total[0]}
            for key, (seen, total) in self._texts.items()
            if key not in self._numbers
        }
        return {COUNT: self.count, **{key: spread.row() for key, spread in self._numbers.items()}, **texts}

    def _other(self, key: str, value: Any) -> None:
        if isinstance(value, (int, float)):
            self._numbers.setdefault(key, _Spread()).observe(value)
        elif isinstance(value, str):
            seen, total = self._texts.setdefault(key, (set(), [0]))
            seen.add(hash(value))
            total[0] += 1


COUNT = "Number of examples"
TOOLS = "Number of tools"
WORDS = "Json-dumped number of words (proxy for token count)"
TURNS = "Number of turns"
TEMPERATURE = "Temperature"


class _Spread:
    """Mean and standard deviation as numbers come (Welford 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf

    def observe(self, value: float) -> None:
        value = float(value)
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)
        self.low, self.high = min(self.low, value), max(self.high, value)

    def row(self) -> Json:
        empty = not self.count
        return {
            "Total # non-null values": self.count,
            "Average": _rounded(self.mean),
            "Min": 0.0 if empty else _rounded(self.low),
            "Max": 0.0 if empty else _rounded(self.high),
            "Standard deviation": _rounded(math.sqrt(self.squares / (self.count - 1))) if self.count > 1 else 0.0,
        }


def _rounded(value: float) -> float:
    return round(value, 2 if abs(value) >= 1 else 3)


_ENTRY: Json = {
    "name": None,
    "type": None,
    "jsonl_fpath": None,
    "num_repeats": 1,
    "source": None,
    "gitlab_identifier": None,
    "huggingface_identifier": None,
    "license": None,
}
"""What NeMo Gym writes of a data set before its metrics, given or not."""


def _write(path: Path, dataset: Dataset, found: Metrics, overwrite: bool, conflicts: list[Path]) -> None:
    """Unless it is there: left alone if it says the same of the data, else what was found goes beside it."""
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError:
        before = None
    metrics = found.row()
    if isinstance(before, dict):
        if not any(_differs(before[key], metrics[key]) for key in before.keys() & metrics.keys()):
            return
        if not overwrite:
            conflicts.append(path)
            path = path.with_name(f"{path.stem}_conflict.json")
    path.write_text(json.dumps({**_ENTRY, **dataset.entry, **metrics}, indent=4, default=str) + "\n", encoding="utf-8")


def _differs(before: Any, now: Any) -> bool:
    """By more than another rounding."""
    if isinstance(before, dict) and isinstance(now, dict):
        return any(key not in now or _differs(before[key], now[key]) for key in before)
    if isinstance(before, (int, float)) and isinstance(now, (int, float)):
        return abs(before - now) > (5e-3 if max(abs(before), abs(now)) >= 1 else 5e-4)
    return bool(before != now)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.stem + end)
