"""One streaming pass over rollouts for evaluation: a few numbers of each are kept, and its place, to fetch it again."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from rollforge.errors import UserError
from rollforge.evaluate.modes import calls_mark, failure_mode
from rollforge.records.items import Json, input_items, inside, mapping
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Rollout
from rollforge.stats.estimate import Groups, Numbers
from rollforge.stats.source import ROLLOUTS, RUN, Place, Source, find_run
from rollforge.stats.visible import capped

RESULT = "eval.json"
FIELDS = (
    *("level", "difficulty", "kind", "category", "task_name", "task_type", "operation", "subject"),
    *("domain", "topic", "language", "source_dataset", "data_source"),
)
"""Of a task: looked at as categories where nobody says which."""
MOST_VALUES = 20
"""A field with more values is no category, unless it was asked for."""
MOST_CODES = 500
MOST_MODES = 200
UNNAMED = "(unnamed)"


@dataclass(frozen=True, slots=True)
class Attempts:
    """Rollouts in columns, one entry for each task and repeat: its verdict, or its last failure if it has none.

    Rows with one id are one task; where it stands in the data several times, each place has repeats of its own.
    """

    sources: tuple[Source, ...]
    names: tuple[str, ...]
    """Of the environment of each source; "" where its rows say it."""
    envs: list[str]
    env: Groups
    task: Groups
    """64-bit hashes of task ids."""
    prompt: Groups
    """The same of the prompts, for rows whose tasks were named in another way."""
    repeat: Groups
    reward: Numbers
    """NaN: none."""
    mode: Groups
    """Index into `modes`; 0 is success."""
    modes: list[str]
    calls: Groups
    """Marks of the tool calls; 0 is none."""
    place: Groups
    """Three columns: source, file, line."""
    categories: dict[str, tuple[Groups, list[str]]]
    """Of each field a code per rollout and the names of the codes; -1 is none."""
    labels: dict[tuple[int, int], tuple[str, int | None]]
    """(env, task) -> id, index."""
    repeated: int
    """Rows of a task and repeat that had a verdict already: left out."""
    bad: int
    """Lines that could not be used."""

    @property
    def judged(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.reward)

    @property
    def planned(self) -> int:
        """Rollouts asked for, or, where no run says, all that ended."""
        ended = np.bincount(self.place[:, 0], minlength=len(self.sources)).tolist()
        return sum(max(source.planned or 0, count) for source, count in zip(self.sources, ended, strict=True))

    def where(self, position: int) -> tuple[Source, Place]:
        source, file, line = self.place[position].tolist()
        return self.sources[source], (file, line)


def find_runs(place: str | Path) -> tuple[Source, ...]:
    """A run directory, a file of rollouts, or a directory of run directories: those of one model of an evaluation.

    Raises `UserError` if nothing is there, and for an evaluation of several models, naming them.
    """
    path = Path(place)
    runs = sorted(file.parent for file in path.glob(f"*/{ROLLOUTS}")) if path.is_dir() else []
    if runs and not (path / ROLLOUTS).is_file():
        return tuple(map(find_run, runs))
    models = sorted({file.parent.parent for file in path.glob(f"*/*/{ROLLOUTS}")}) if (path / RESULT).is_file() else []
    if len(models) > 1:
        raise UserError(f"{place} is an evaluation of several models; name one: {', '.join(map(str, models))}")
    return find_runs(models[0]) if models else (find_run(path),)


def read_attempts(
    sources: Sequence[Source], success: float, by: Iterable[str] = (), names: Sequence[str] | None = None
) -> Attempts:
    """`by`: the fields of a task that are categories (`a.b` for a field inside another). `names`: of the environment of each
    source, so that two of one name stay apart; by what their runs say of it, if not given.

    Raises `UserError` if a file cannot be read, or no rollout is there.
    """
    asked = tuple(by)
    names = tuple(_names(sources) if names is None else names)
    reading = _Reading(success, asked or FIELDS)
    for number, (source, name) in enumerate(zip(sources, names, strict=True)):
        for (file, line), row in source.placed():
            if isinstance(row, Rollout):
                reading.add(replace(row, env=name) if name else row, (number, file, line))
            else:
                reading.bad += 1
    if not reading.size:
        raise UserError(f"no usable rollout in {', '.join(source.name for source in sources)}")
    return reading.done(tuple(sources), names, MOST_VALUES if not asked else None)


def field_of(fields: Json, name: str) -> Any:
    """`a.b` is the key of that name, or the b of a."""
    value = fields.get(name)
    return inside(fields, *name.split(".")) if value is None else value


def told(source: Source) -> Json:
    """What a run says of itself; {} for a file of rollouts, which says nothing of how it came to be."""
    return run_about(source.files[0].parent)


def run_about(run: Path) -> Json:
    try:
        about = orjson.loads((run / RUN).read_bytes())
    except (OSError, ValueError):
        return {}
    return mapping(about)


def _names(sources: Sequence[Source]) -> Iterator[str]:
    """The folders of runs whose environments share a name and are not the same (another file, other options); "" else."""
    played = []
    for source in sources:
        about = told(source)
        played.append((str(about.get("env")), dumps(inside(about, "identity", "env"), sort_keys=True)))
    of_name = Counter(name for name, _ in set(played))
    return (
        source.files[0].parent.resolve().name if of_name[name] > 1 else ""
        for source, (name, _) in zip(sources, played, strict=True)
    )


def _mark(name: str) -> int:
    """The same in every process: tasks are numbered by it, and sums in another order end in other digits."""
    return int.from_bytes(blake2b(dumps(name), digest_size=8).digest(), "big", signed=True)


_COLUMNS = ("env", "task", "prompt", "index", "repeat", "mode", "calls", "source", "file", "line")


def _column(field: str) -> str:
    """Of a task's field, which may be called as one of the others is."""
    return f"field {field}"


class _Reading:
    def __init__(self, success: float, fields: Sequence[str]) -> None:
        self.size = self.bad = self.repeated = 0
        self._success = success
        self._rewards = array("d")
        self._columns = {name: array("q") for name in (*_COLUMNS, *map(_column, fields))}
        self._fields = fields
        self._codes: dict[str, dict[str, int]] = {name: {} for name in fields}
        self._envs: dict[str, int] = {}
        self._modes = {"": 0}
        self._places: dict[int, int] = {}
        """The position of each task, index of it and repeat."""
        self._labels: dict[tuple[int, int], tuple[str, int | None]] = {}
        self._indices: dict[tuple[int, int], set[int]] = {}
        """Of the tasks that have several."""
        self._unnumbered: dict[tuple[int, int], int] = {}

    def add(self, rollout: Rollout, place: tuple[int, int, int]) -> None:
        env = self._envs.setdefault(rollout.env or UNNAMED, len(self._envs))
        task = _mark(rollout.task)
        if rollout.index is None:  # every row is a rollout of its own
            index, repeat = -1, self._unnumbered.get((env, task), -1) + 1
            self._unnumbered[env, task] = repeat
        else:  # themselves, up to 61 bits
            index, repeat = hash(-1 if rollout.task_index is None else rollout.task_index), hash(rollout.index)
        at = self._places.setdefault(hash((env, task, index, repeat)), self.size)
        if at < self.size and self._rewards[at] == self._rewards[at]:
            self.repeated += rollout.reward is not None
            return
        first = self._labels.setdefault((env, task), (rollout.task, rollout.task_index))[1]
        if rollout.index is not None and first != rollout.task_index:
            self._indices.setdefault((env, task), {-1 if first is None else hash(first)}).add(index)
        mode = failure_mode(rollout, self._success)
        fields = rollout.task_fields
        params = [input_items(rollout.params), rollout.params.get("instructions")]
        values = {
            "env": env,
            "task": task,
            "prompt": hash(dumps(params, sort_keys=True)),
            "index": index,
            "repeat": repeat,
            "mode": self._modes.setdefault(capped(mode, self._modes, MOST_MODES), len(self._modes)),
            "calls": calls_mark(rollout),
            **dict(zip(("source", "file", "line"), place, strict=True)),
            **{_column(name): self._code(name, fields) for name in self._fields},
        }
        reward = nan if rollout.reward is None else rollout.reward
        if at == self.size:
            self.size += 1
            self._rewards.append(reward)
            for name, value in values.items():
                self._columns[name].append(value)
        else:
            self._rewards[at] = reward
            for name, value in values.items():
                self._columns[name][at] = value

    def done(self, sources: tuple[Source, ...], names: tuple[str, ...], most: int | None) -> Attempts:
        self._tell_apart()
        columns = {name: np.array(column, np.int64) for name, column in self._columns.items()}
        categories = {
            name: (columns[_column(name)], list(codes))
            for name, codes in self._codes.items()
            if codes and (most is None or 1 < len(codes) <= most * len(self._envs))
        }
        return Attempts(
            sources=sources,
            names=names,
            envs=list(self._envs),
            reward=np.array(self._rewards),
            modes=list(self._modes),
            place=np.stack([columns[name] for name in ("source", "file", "line")], axis=1),
            categories=categories,
            labels=self._labels,
            repeated=self.repeated,
            bad=self.bad,
            **{name: columns[name] for name in ("env", "task", "prompt", "repeat", "mode", "calls")},
        )

    def _tell_apart(self) -> None:
        """Repeats of a task that has several indices: the first index keeps their numbers. By order and not by the indices
        themselves, so that they meet those of a run whose tasks come in another order."""
        order = {(*key, index): n for key, found in self._indices.items() for n, index in enumerate(sorted(found))}
        keys = zip(*(self._columns[name] for name in ("env", "task", "index")), strict=True)
        for at, key in enumerate(keys if order else ()):
            number = order.get(key)
            if number:
                self._columns["repeat"][at] = hash((number, self._columns["repeat"][at]))

    def _code(self, name: str, fields: Json) -> int:
        value = field_of(fields, name)
        if not isinstance(value, (str, int, float)) or value == "":
            return -1
        codes = self._codes[name]
        return codes.setdefault(capped(str(value), codes, MOST_CODES), len(codes))
