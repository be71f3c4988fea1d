"""The run directory: run.json, rollouts.jsonl, failures.jsonl, metrics.json. One writer; resumed, never overwritten."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from rollforge.collect.journal import Journal
from rollforge.collect.plan import Done
from rollforge.collect.tally import Tally
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import dump, row_of

RUN, ROLLOUTS, FAILURES, METRICS = "run.json", "rollouts.jsonl", "failures.jsonl", "metrics.json"


class RunDir:
    """Open for writing while it is a context manager."""

    def __init__(self, path: Path, identity: Json, about: Json) -> None:
        """Create the directory, or take up the one that is there.

        `identity` is what must be the same for rollouts to belong together; it is compared with the stored one. `about`
        is kept for information. Raises `UserError`: another configuration (says what differs), another writer, not a run
        directory, not writable.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot use {path} as a run directory: {error.strerror or error}") from error
        try:
            self._take_lock()
            self.about = self._settle(identity, about)
            self._rollouts = Journal(path / ROLLOUTS)
            self._failures = Journal(path / FAILURES)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self._rollouts.close()
        self._failures.close()
        os.close(self._lock)

    @property
    def journals(self) -> tuple[Journal, Journal]:
        return self._rollouts, self._failures

    def append(self, rollout: Rollout) -> None:
        """Store an attempt: with a reward among the rollouts, without one among the failures."""
        line = dump(row_of(rollout))
        (self._rollouts if rollout.outcome.judged else self._failures).append(line)

    def done(self, max_attempts: int, retry_failed: bool, tally: Tally) -> Done:
        """The keys that need no further attempt: those with a reward, and those that failed for good. Counted in `tally`."""
        done = Done()
        for row in _rows(self.path / ROLLOUTS):
            if done.add(_key(row)):
                tally.count_before(_outcome(row), row.get("reward"), (row.get("response") or {}).get("usage"))
        for row in () if retry_failed else _rows(self.path / FAILURES):
            block = row.get("rollforge") or {}
            attempt = block.get("attempt", 1)
            if attempt < max_attempts and (block.get("failure") or {}).get("retryable"):
                done.failed(_key(row), attempt)
            elif done.add(_key(row)):
                tally.count_before(_outcome(row), None, None)
        return done

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        _write_json(self.path / METRICS, metrics)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 100, 0).decode(errors="replace").strip()
            who = f" (process {holder})" if holder else ""
            raise UserError(f"{self.path} is being written by another collection{who}") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _settle(self, identity: Json, about: Json) -> Json:
        file = self.path / RUN
        if not file.exists():
            if (self.path / ROLLOUTS).exists():
                raise UserError(f"{self.path} holds a {ROLLOUTS} but no {RUN}: it is not a run of this tool; choose another")
            stored = {**about, "identity": identity}
            _write_json(file, stored)
            return stored
        try:
            stored = orjson.loads(file.read_bytes())
            before = stored["identity"]
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {file}: {error}") from error
        # As JSON has it: tuples and enums read back as lists and strings.
        now = orjson.loads(orjson.dumps(identity, default=str))
        differences = list(_differences(before, now))
        if differences:
            listed = "\n".join(f"  {line}" for line in differences)
            raise UserError(
                f"{self.path} was collected with another configuration:\n{listed}\n"
                "Give the same one to go on, or another --out."
            )
        return stored  # type: ignore[no-any-return]


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path}: {_short(before)} there, {_short(now)} now"


def _short(value: Any) -> str:
    text = "not set" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _rows(path: Path) -> Iterator[Json]:
    """Our own journal: every line is a row, since it was repaired when it was opened."""
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); remove the line to go on without it") from error


def _outcome(row: Json) -> Outcome:
    return Outcome((row.get("rollforge") or {}).get("outcome", Outcome.SCORED))


def _key(row: Json) -> tuple[int, int]:
    return row.get("_ng_task_index", 0), row.get("_ng_rollout_index", 0)


def _write_json(path: Path, value: Any) -> None:
    """Atomically: a reader sees the old file or the new one."""
    try:
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as handle:
            handle.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE, default=str))
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
