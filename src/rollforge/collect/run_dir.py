"""The run directory: run.json, rollouts.jsonl, failures.jsonl, metrics.json. One writer; resumed, never overwritten."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from rollforge.collect.journal import Journal
from rollforge.collect.plan import MAX_REPEATS, Done, Key
from rollforge.collect.tally import Tally
from rollforge.errors import UserError, reported
from rollforge.records.items import Json
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.rows import dump, row_of
from rollforge.records.shown import without_secrets
from rollforge.stats.source import FAILURES, ROLLOUTS, RUN

METRICS, LOCK = "metrics.json", ".lock"

CONTENT = "content"
"""The key of a row's `rollforge` block with the hash of its task's content, where the task named its id itself."""

MEANING = {
    "agent.digest": "the agent's code",
    "env.digest": "the environment's code",
    "model.digest": "the model's files",
    "tasks.sha256": "the content of the tasks file",
}
"""Of what is compared by its hash."""


class RunDir:
    """Open for writing while it is a context manager."""

    def __init__(self, path: Path, identity: Json, about: Json) -> None:
        """Create the directory, or take up the one that is there.

        `identity` is what must be the same for rollouts to belong together; it is compared with the stored one. `about`
        is kept for information. Raises `UserError`: another configuration (says what differs), another writer, not a run
        directory, not writable.
        """
        self.path = path
        with ExitStack() as opened:
            opened.enter_context(taken(path, RUN, "run directory", by="collection"))
            self.about = self._settle(identity, about)
            self._rollouts = Journal(path / ROLLOUTS)
            opened.callback(self._rollouts.close)
            self._failures = Journal(path / FAILURES)
            opened.callback(self._failures.close)
            _sync_directory(path)
            self._opened = opened.pop_all()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def journals(self) -> tuple[Journal, Journal]:
        return self._rollouts, self._failures

    def append(self, rollout: Rollout) -> Rollout:
        """Store an attempt: with a reward among the rollouts, without one among the failures. Gives back what was stored:
        one that has no form in JSON becomes a fault of its environment. Raises `SetupError` if nothing can be stored."""
        try:
            line = dump(row_of(rollout))
        except UserError as error:
            rollout = _unwritable(rollout, str(error))
            line = dump(row_of(rollout))
        (self._rollouts if rollout.outcome.judged else self._failures).append(line)
        return rollout

    def done(self, max_attempts: int, retry_failed: bool, tally: Tally) -> Done:
        """The keys that need no further attempt: those with a reward, and, unless `retry_failed`, those that failed for
        good. Counted in `tally`."""
        done = Done()
        for row in _rows(self.path / ROLLOUTS):
            done.saw(_key(row)[0], _task(row))
            if done.add(_key(row)):
                tally.count_before(_outcome(row), row.get("reward"), (row.get("response") or {}).get("usage"))
        # Of several attempts the last says whether there will be another.
        final: dict[Key, tuple[Outcome, Any, str | None]] = {}
        for row in _rows(self.path / FAILURES):
            key, block = _key(row), row.get("rollforge") or {}
            if key in done:
                continue
            done.saw(key[0], _task(row))
            attempt, failure = block.get("attempt", 1), block.get("failure") or {}
            done.failed(key, attempt)
            if attempt < max_attempts and failure.get("retryable"):
                final.pop(key, None)
            else:
                final[key] = _outcome(row), (row.get("response") or {}).get("usage"), failure.get("stage")
        for key, (outcome, usage, stage) in () if retry_failed else final.items():
            done.add(key)
            tally.count_before(outcome, None, usage, stage)
        return done

    def settle_plan(self, planned: int | None) -> None:
        """The length of the plan, if it was not known when the run began."""
        self.about = {**self.about, "planned": planned}
        write_json(self.path / RUN, self.about)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        write_json(self.path / METRICS, metrics)

    def _settle(self, identity: Json, about: Json) -> Json:
        file = self.path / RUN
        # As JSON has it: tuples and enums read back as lists and strings.
        now = without_secrets(json.loads(_text(identity)), marked=True)
        if not file.exists():
            stored = {**about, "identity": now}
            write_json(file, stored)
            return stored
        with intact(file, "collection"):
            stored = json.loads(file.read_bytes())
            before = stored["identity"]
            stored["seed"], stored["planned"]
        listed = "\n".join(f"  {line}" for line in differences(without_secrets(before, marked=True), now))
        if listed:
            raise UserError(
                f"{self.path} was collected with another configuration:\n{listed}\n"
                "Give the same one to go on, or another --out."
            )
        return stored  # type: ignore[no-any-return]


@contextmanager
def intact(file: Path, by: str) -> Iterator[None]:
    """Whatever goes wrong while it is read: a file that only this command writes was changed, which is a `UserError`."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not as a {by} left it ({error!r}): restore it, or choose another --out") from error


@contextmanager
def taken(path: Path, about: str, what: str, *, by: str) -> Iterator[None]:
    """A directory that one process at a time works in, made where there is none; by the file `about` one is known that was
    begun before. Raises `UserError`: it holds something else, another writer, not writable."""
    with reported(f"cannot use {path} as a {what}"):
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path, about, what)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(lock, path, by)
        yield
    finally:
        os.close(lock)


def _refuse_foreign(path: Path, about: str, what: str) -> None:
    """Before anything is written."""
    names = {entry.name for entry in path.iterdir()}
    if about in names:
        return
    # What is left of one that was killed at its very beginning.
    others = sorted(names - {LOCK, _temporary(path / about).name})
    if others:
        listed = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise UserError(f"{path} is not empty and no {what}: it has no {about}, but {listed}; choose another --out")


def _lock(lock: int, path: Path, by: str) -> None:
    """The kernel lets go of it when the process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 100, 0).decode(errors="replace").strip()
        who = f" (process {holder})" if holder else ""
        raise UserError(f"{path} is being written by another {by}{who}") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Of two identities, a line for each key: `a.b: 1 there, 2 now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        meaning = f" ({MEANING[path]})" if path in MEANING else ""
        yield f"{path}{meaning}: {_short(before)} there, {_short(now)} now"


def _short(value: Any) -> str:
    text = "not set" if value is None else _text(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unwritable(rollout: Rollout, problem: str) -> Rollout:
    """What can be kept of a rollout that has no form in JSON: which one it was, and why."""
    nothing: Any = {"input": ""}
    failure = Failure("record", "VerifierFault", problem)
    kept = replace(rollout, params=nothing, response=None, fields={}, extra={}, reward=None, failure=failure)
    return replace(kept, outcome=Outcome.VERIFIER_FAULT)


def _rows(path: Path) -> Iterator[Json]:
    """Our own journal: every line is a row, since it was repaired when it was opened."""
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                row = orjson.loads(line)
                _key(row), _task(row), _outcome(row)
            except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
                what = f"{path}:{number}: not a row of this run ({error})"
                raise UserError(f"{what}; remove the line to go on without it: sed -i {number}d {path}") from error
            yield row


def _outcome(row: Json) -> Outcome:
    return Outcome((row.get("rollforge") or {}).get("outcome", Outcome.SCORED))


def _task(row: Json) -> str:
    block = row.get("rollforge") or {}
    return str(block.get(CONTENT) or block.get("task", ""))


def _key(row: Json) -> Key:
    task, repeat = row.get("_ng_task_index", 0), row.get("_ng_rollout_index", 0)
    if type(task) is not int or type(repeat) is not int or not 0 <= repeat < MAX_REPEATS:
        raise ValueError(f"its indices are {task!r} and {repeat!r}")
    return task, repeat


def new_path(*names: str) -> Path:
    """`runs/NAME-NAME-TIME`: not that of an earlier run, even one of the same second: that one would be resumed."""
    name, number = "-".join([*map(slug, names), time.strftime("%Y%m%d-%H%M%S")]), 1
    path = Path("runs") / name
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def slug(text: str) -> str:
    """As the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[-60:]


def write_json(path: Path, value: Any) -> None:
    """Atomically: a reader sees the old file or the new one."""
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as handle:
            handle.write(_text(value, indent=2).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _text(value: Any, indent: int | None = None) -> str:
    """Not orjson's: a setting may be a whole number of any size."""
    return json.dumps(value, indent=indent, default=str)


def _temporary(path: Path) -> Path:
    return path.with_suffix(".tmp")


def _sync_directory(path: Path) -> None:
    """The names of new files are on disk only when their directory is. (Some network file systems have no such call.)"""
    directory = os.open(path, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(directory)
    os.close(directory)
