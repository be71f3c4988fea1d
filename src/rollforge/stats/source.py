"""Where rollouts are: a run directory, a curated directory, or a JSONL file, ours or NeMo Gym's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

import orjson

from rollforge.bulk.original import regular
from rollforge.errors import UserError
from rollforge.records.rollout import Rollout
from rollforge.records.rows import BadLine, read_rollouts

RUN, ROLLOUTS, FAILURES = "run.json", "rollouts.jsonl", "failures.jsonl"
SPLITS = ("train", "validation", "test")
"""What a curated directory may be split into; its files are named so."""

Place: TypeAlias = tuple[int, int]
"""Number of the file, number of the line."""


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    """As the user gave it."""
    files: tuple[Path, ...]
    """Rollouts first, then failures; the ones that are there."""
    planned: int | None
    """How many rollouts the run was asked for, if it says so."""
    env: str
    """For rows that do not name their environment: the name of the file, or of the directory."""
    splits: tuple[str, ...] = ()
    """Which split each file is, in a curated directory; () elsewhere."""

    def rollouts(self) -> Iterator[Rollout | BadLine]:
        """All rows, streamed; a further call reads again."""
        for _, rollout in self.placed():
            yield rollout

    def placed(self) -> Iterator[tuple[Place, Rollout | BadLine]]:
        """The same with their places, which stay true while the files grow."""
        for number, file in enumerate(self.files):
            for line, rollout in enumerate(read_rollouts(file)):
                if isinstance(rollout, Rollout) and rollout.env is None:
                    rollout = replace(rollout, env=self.env)
                yield (number, line), rollout


def find_run(run: str | Path) -> Source:
    """Raises `UserError` when nothing is there, naming what is near."""
    path = Path(run)
    if path.is_dir():
        files = tuple(path / name for name in (ROLLOUTS, FAILURES) if (path / name).is_file())
        splits = () if files else tuple(name for name in SPLITS if (path / f"{name}.jsonl").is_file())
        if splits:
            return Source(str(run), tuple(path / f"{name}.jsonl" for name in splits), None, path.resolve().name, splits)
        if not files:
            others = sorted(file.name for file in path.glob("*.jsonl"))
            below = [*path.glob(f"*/{ROLLOUTS}")] or path.glob(f"*/*/{ROLLOUTS}")  # of an evaluation
            runs = sorted(str(file.parent.relative_to(path)) for file in below)
            raise UserError(
                f"{run} holds no {ROLLOUTS}{_there(runs, 'run directories in it')}{_there(others, 'files in it')}"
            )
        return Source(str(run), files, _planned(path / RUN), path.resolve().name)
    if not path.exists():
        raise UserError(f"there is no {run}{_near(path)}")
    regular(path)
    sidecar = path.with_name(f"{path.name.removesuffix('.jsonl')}_{FAILURES}")
    stem = path.name.removesuffix(".jsonl").removesuffix(".rollouts")
    env = path.resolve().parent.name if stem in ("rollouts", "failures") else stem
    return Source(str(run), (path, sidecar) if sidecar.is_file() else (path,), None, env)


def find_each(runs: Iterable[str | Path]) -> list[Source]:
    """`find_run` of several. Raises `UserError` for a file that is there twice: its rows would count twice."""
    sources = [find_run(run) for run in runs]
    seen: dict[Path, str] = {}
    for source in sources:
        for path in source.files:
            real = path.resolve()
            if real in seen:
                raise UserError(f"{path} is given twice (by {seen[real]} and {source.name}); its rows would count twice")
            seen[real] = source.name
    return sources


def split_of_file(file: str | Path) -> str:
    """The split that a data file is, by the first word of its name that says one (`gsm8k_train-00000`); "" if none does."""
    found = _SPLIT.search(Path(file).stem.lower())
    return {"train": "train", "test": "test"}.get(found[1], "validation") if found else ""


_SPLIT = re.compile(r"(?<![a-z])(train|val|dev|eval|test)(ing|id|idation|elopment|uation|s|set)?(?![a-z])")


def _planned(file: Path) -> int | None:
    try:
        about = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    planned = about.get("planned") if isinstance(about, dict) else None
    return planned if isinstance(planned, int) else None


def _near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no directory {folder} either"
    names = sorted(file.name for file in folder.iterdir() if file.suffix == ".jsonl" or (file / ROLLOUTS).is_file())
    near = get_close_matches(path.name, names, n=3, cutoff=0.4) or names
    return _there([str(folder / name) for name in near], "runs and JSONL files near it") or f"; {folder} holds no rollouts"


def _there(names: list[str], what: str, most: int = 5) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return f"; {what}: {', '.join(names[:most])}{more}" if names else ""
