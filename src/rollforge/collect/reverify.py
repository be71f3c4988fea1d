"""Stored rollouts judged again: offline, in parallel, by the same verifier, another version of it, or a served one.

source rows ─► a session each ─► its tool calls again, in order ─► verify ─► the row with the new verdict
                                  └ another output than the stored one: state not reproduced, no verdict

A run directory like any other comes out: resumed by the line a row came from. Rows that have nothing to judge (no answer,
a fault before there was one) are taken over as they are.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from rollforge import __version__
from rollforge.collect.attend import attended
from rollforge.collect.closing import in_use
from rollforge.collect.config import Budget
from rollforge.collect.plan import MAX_REPEATS, Done, Planned
from rollforge.collect.replay import Opening, Replay, Stored, no_model, said, unshown
from rollforge.collect.rollout import OBSERVED, Runner
from rollforge.collect.run_dir import RunDir
from rollforge.collect.scheduler import Stop, schedule
from rollforge.collect.tally import Tally
from rollforge.collect.watchdog import Watchdog
from rollforge.config import Section, validate
from rollforge.envs.base import Limits
from rollforge.envs.load import as_env, load_env
from rollforge.envs.tasks import env_tasks
from rollforge.errors import UserError
from rollforge.records.items import Json, Params
from rollforge.records.lossless import loads
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine, read_rollouts
from rollforge.records.shown import shown, typed, without_secrets
from rollforge.records.task import Task
from rollforge.stats.compare import REVERIFIED, Comparing, Comparison
from rollforge.stats.source import FAILURES, ROLLOUTS, RUN, find_run

SHOWN_BAD_LINES = 20
OF_VERDICTS = ("reward_components",)
"""Fields that only a verdict has: those of the old one would contradict the new reward."""
GYM_FAILURE = ("_ng_failure_class", "_ng_failure_judge_error")
"""NeMo Gym's marks on a row that was not judged: they would say so of the new verdict too."""


class ReverifyConfig(Section):
    run: str
    env: str
    options: dict[str, Any] = Field(default_factory=dict)
    """The environment's own, as a collection hands them over with `env.NAME`: its judge, say."""
    tasks: Path | None = None
    """The tasks that the rollouts are of, joined by id, index or prompt: their fields are what the verifier gets then."""
    out: Path | None = None
    """`<run>-reverified` if not given."""
    concurrency: int = Field(64, ge=1, le=100_000)
    limit: int | None = Field(None, ge=1)
    """Rows, from the start."""
    replay: bool = True
    """Whether stored tool calls are made again before the verifier is asked. One that only reads replies needs none."""
    force: bool = False
    """Take the verdict also where the tools answered otherwise than they did."""
    max_attempts: int = Field(3, ge=1, le=1000)
    backoff: float = Field(1.0, ge=0)
    retry_failed: bool = False
    """When resuming, judge again what got no verdict."""
    tool_seconds: float = Field(60, gt=0)
    verify_seconds: float = Field(60, gt=0)


@dataclass(frozen=True, slots=True)
class Reverified:
    """How it ended; `compare(path)` says what changed."""

    path: Path
    verified: int
    """Rows that have a new verdict, earlier sessions included."""
    failed: int
    """Rows that could not be judged."""
    kept: int
    """Rows taken over as they were."""
    kept_reasons: list[tuple[str, int]]
    """Why, the most frequent first."""
    earlier: int
    """Of all these, those that earlier sessions dealt with: nothing was asked about them now."""
    began: str
    """When the first session did."""
    pinned: bool
    """Whether those were judged by the same code: of a service that cannot be known."""
    stopped: str | None
    bad_lines: list[BadLine]
    bad_count: int

    @property
    def now(self) -> int:
        """Rows that this session dealt with."""
        return self.verified + self.failed + self.kept - self.earlier


async def reverify(run: str | Path, env: Any, **options: Any) -> Reverified:
    """Judge the rollouts of `run` (a run directory or a JSONL file) again; call again with the same arguments to resume.

    Args:
        env: an environment, or a reference to one (`other.py:name`, a URL).
        options: the keys of `ReverifyConfig`.

    Raises `UserError` when the request is wrong, `SetupError` when no rollout can be judged.
    """
    env = str(env) if isinstance(env, Path) else env
    name = env if env is None or isinstance(env, str) else getattr(env, "name", type(env).__name__)
    values = {"run": str(run), "env": name, **options}
    config = validate(ReverifyConfig, values, "the arguments of reverify()")
    return await Reverification(config, None if isinstance(env, str) else env).run()


def compare(path: str | Path, success: float = 1.0, examples: int = 10) -> Comparison:
    """The verdicts of a reverified run against those it had before. Raises `UserError` if it is none."""
    path = Path(path)
    told, comparing, seen = Places(), Comparing(success, examples), False
    for name in (ROLLOUTS, FAILURES):
        for rollout in read_rollouts(path / name) if (path / name).is_file() else ():
            place = None if isinstance(rollout, BadLine) else _place(rollout)
            if isinstance(rollout, BadLine) or place is None or place in told:
                continue  # a failure that was mended since, or came before, or a row from elsewhere
            seen = True
            told.add(place)
            comparing.add(rollout)
    if not seen:
        raise UserError(f"{path} holds no reverified rollout: rollforge reverify RUN --env ENV --out {typed(path)}")
    return comparing.result()


class Reverification:
    """Ready to run: the source and the environment are there."""

    def __init__(self, config: ReverifyConfig, env: Any = None) -> None:
        self._config = config
        self._source = find_run(config.run)
        self.path = config.out or _beside(Path(config.run))
        if self.path.resolve() in (Path(config.run).resolve(), *(file.resolve().parent for file in self._source.files)):
            raise UserError(f"{self.path} is where the rollouts are; give another --out")
        self._env = load_env(config.env) if env is None else as_env(env, config.env)
        self._shown = shown(config.env)
        if config.options:
            take = getattr(self._env, "tasks", None)
            if take is None:
                raise UserError(
                    f"{self._shown} takes no options (got {', '.join(config.options)}): set them where it is made"
                )
            take(None, **config.options)  # what it would generate is not read
        digest = getattr(self._env, "digest", None)
        self._digest: str | None = digest() if digest else None
        self._tasks = None if config.tasks is None else Tasks(config.tasks, self._env)
        limits = Limits(config.tool_seconds, config.verify_seconds)
        if hasattr(self._env, "limits"):
            self._env.limits = limits
        self._runner = Runner(
            env=Opening(self._env),
            env_name=self._shown,
            model=no_model,
            model_name="",
            agent=Replay(config.replay, config.force, "; --force, with another --out, takes the verdict all the same"),
            limits=limits,
        )
        self.title = f"{self._source.name} again by {self._shown}"
        self.tally = Tally()
        self.stop = Stop()
        self.cost = None
        self.warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
        self._bad: list[BadLine] = []
        self._verified = self._failed = self._earlier = 0
        self._kept: Counter[str] = Counter()

    async def run(self) -> Reverified:
        source, tally = self._source, self.tally
        known = _known_lines(self.path)
        files = {file.name: _read(file, known.get(file.name)) for file in source.files}
        lines = sum(count for count, _ in files.values())
        tally.planned = lines if self._config.limit is None else min(lines, self._config.limit)
        about = {**self._about(), "planned": source.planned or tally.planned, "seed": None}
        async with in_use(self._env, self.warn, self._shown):
            content = {name: about for name, (_, about) in files.items() if not known or name in known}
            with RunDir(self.path, self._identity() | {"source": content}, about) as run_dir:
                began = str(run_dir.about.get("created"))
                await self._judge(run_dir)
                if source.planned is None and tally.planned != run_dir.about["planned"]:
                    run_dir.settle_plan(tally.planned)  # without the lines that are no rollouts
                with suppress(UserError):  # it can be had from the rollouts again
                    run_dir.write_metrics({**tally.row(), "verified": self._verified, "failed": self._failed})
        if not tally.done and self.stop.reason is None:
            raise UserError(f"{source.name} has no usable rollout: {self._bad[0] if self._bad else 'it is empty'}")
        return Reverified(
            path=self.path,
            verified=self._verified,
            failed=self._failed,
            kept=self._kept.total(),
            kept_reasons=self._kept.most_common(),
            earlier=self._earlier,
            began=began,
            pinned=bool(self._digest),
            stopped=self.stop.reason,
            bad_lines=self._bad,
            bad_count=tally.bad_lines,
        )

    async def _judge(self, run_dir: RunDir) -> None:
        done = self._done(run_dir)
        self.tally.began = time.monotonic()
        work = schedule(
            self._plan(run_dir, done),
            self._run_one,
            lambda rollout: self._record(run_dir, rollout),
            tally=self.tally,
            stop=self.stop,
            window=self._config.concurrency,
            budget=Budget(),
            backoff=self._config.backoff,
        )
        async with Watchdog(self.warn, self.tally):
            await attended(
                work,
                run_dir.journals,
                tally=self.tally,
                stop=self.stop,
                warn=self.warn,
                units="verifications",
                unstored="what was judged cannot be stored",
            )
        if self.stop.error is not None:
            raise self.stop.error

    def _plan(self, run_dir: RunDir, done: Places) -> Iterator[Planned]:
        judged = Done()
        number = 0
        for (file, line), rollout in self._source.placed():
            if number == self._config.limit:
                return
            if isinstance(rollout, BadLine):
                self._note_bad(rollout)
                continue
            number += 1
            place = self._source.files[file].name, line + 1
            reason = _nothing_to_judge(rollout, judged)
            if place in done:
                continue
            stored = reason or _stored(rollout, place, self._tasks)
            if isinstance(stored, Stored):
                yield Planned(stored, rollout.index or 0, 1, self._config.max_attempts)
                continue
            about = {"file": place[0], "line": place[1], "kept": stored}
            rollout = replace(rollout, extra={**rollout.extra, REVERIFIED: about})
            run_dir.append(rollout)
            self._count_before(rollout)

    async def _run_one(self, task: Task, index: int, attempt: int) -> Rollout:
        assert isinstance(task, Stored)
        found = await self._runner(task, index, attempt)
        return _with_verdict(task, found, attempt)

    def _record(self, run_dir: RunDir, rollout: Rollout) -> Rollout:
        """Stores what is final: an attempt that will be made again is nobody's."""
        again = rollout.failure is not None and rollout.failure.retryable
        if again and rollout.extra[REVERIFIED]["attempts"] < self._config.max_attempts:
            return rollout
        rollout = run_dir.append(rollout)
        self._verified += rollout.outcome.judged
        self._failed += not rollout.outcome.judged
        return rollout

    def _done(self, run_dir: RunDir) -> Places:
        """The lines that earlier sessions of this reverification dealt with."""
        done = Places()
        for name in (ROLLOUTS, FAILURES):
            for rollout in read_rollouts(run_dir.path / name):
                place = None if isinstance(rollout, BadLine) else _place(rollout)
                if isinstance(rollout, BadLine) or place is None:
                    raise UserError(f"{run_dir.path / name} has rows that no reverification wrote; choose another --out")
                kept = "kept" in rollout.extra[REVERIFIED]
                if place not in done and (rollout.outcome.judged or kept or not self._config.retry_failed):
                    done.add(place)
                    self._count_before(rollout)
                    self._earlier += 1
        return done

    def _count_before(self, rollout: Rollout) -> None:
        """One that was judged by an earlier session, or is taken over."""
        self.tally.count_before(rollout.outcome, rollout.reward, (rollout.response or {}).get("usage"))
        reason = rollout.extra[REVERIFIED].get("kept")
        if reason is not None:
            self._kept[str(reason)] += 1
        else:
            self._verified += rollout.outcome.judged
            self._failed += not rollout.outcome.judged

    def _note_bad(self, line: BadLine) -> None:
        self.tally.bad_lines += 1
        if self.tally.planned and self._config.limit is None:
            self.tally.planned -= 1
        if len(self._bad) < SHOWN_BAD_LINES:
            self._bad.append(line)

    def _identity(self) -> Json:
        config = self._config
        own = {**config.options, **({} if self._digest is None else {"digest": self._digest})}
        use = re.sub(r".*/(?=[^/]*\.py\b)", "", self._shown)
        source = str(Path(config.run).resolve())
        tasks = {} if config.tasks is None else {"tasks": hashlib.sha256(config.tasks.read_bytes()).hexdigest()[:16]}
        return {"reverify": source, "env": {"use": use, **own}, "replay": config.replay, "force": config.force, **tasks}

    def _about(self) -> Json:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        config = without_secrets({**self._config.model_dump(mode="json"), "env": self._shown})
        return {"rollforge": __version__, "created": now, "config": config}


class Places:
    """Lines of files, a bit each."""

    def __init__(self) -> None:
        self._bits: dict[str, bytearray] = {}

    def __contains__(self, place: tuple[str, int]) -> bool:
        bits = self._bits.get(place[0], b"")
        return place[1] >> 3 < len(bits) and bool(bits[place[1] >> 3] >> (place[1] & 7) & 1)

    def add(self, place: tuple[str, int]) -> None:
        bits = self._bits.setdefault(place[0], bytearray())
        bits.extend(bytes(max(0, (place[1] >> 3) + 1 - len(bits))))
        bits[place[1] >> 3] |= 1 << (place[1] & 7)


def _nothing_to_judge(rollout: Rollout, judged: Done) -> str | None:
    """Why a row is taken over as it is; None if it is to be judged. Of several attempts the first answer counts: a later one
    was made because of what the verifier could not read."""
    task, repeat = rollout.task_index, rollout.index
    key = (task, repeat) if task is not None and repeat is not None and 0 <= repeat < MAX_REPEATS else None
    failure = rollout.failure
    if rollout.outcome is not Outcome.SCORED and (failure is None or failure.stage != "verify"):
        reason = f"{rollout.outcome} before it came to the verifier"
    elif rollout.response is None or rollout.response.get("output") is None:
        reason = "there is no answer to judge"
    elif key and not rollout.outcome.judged and key in judged:
        reason = "another attempt at it is judged"
    else:
        reason = None
    if key and (rollout.outcome.judged or reason is None):
        judged.add(key)
    return reason


class Tasks:
    """The tasks of a file, found again for a rollout: by its id; by its index, where the prompt is that task's; by its
    prompt; by its index, where the prompt begins as that task's does."""

    def __init__(self, path: Path, env: Any) -> None:
        """`env` completes the rows. Raises `UserError` if none is a task."""
        self._file = path.name
        self._by_id: dict[str, Task] = {}
        self._by_index: dict[int | None, Task] = {}
        self._by_prompt: dict[bytes, list[Task]] = {}
        bad: BadLine | None = None
        for task in env_tasks(env, path):
            if isinstance(task, BadLine):
                bad = bad or task
                continue
            self._by_id.setdefault(task.id, task)
            self._by_index.setdefault(task.index, task)
            self._by_prompt.setdefault(_key(_asked(task.params)), []).append(task)
        if not self._by_id:
            raise UserError(f"{path} has no task" + (f": {bad}" if bad else ""))

    def find(self, rollout: Rollout) -> Task | str:
        """The task, or why there is none."""
        asked = _asked(_own_params(rollout))
        named, placed = self._by_id.get(rollout.task), self._by_index.get(rollout.task_index)
        if named and _begins(asked, _asked(named.params)):
            return named
        if placed and asked == _asked(placed.params):
            return placed
        found = self._by_prompt.get(_key(asked), [])
        found = [task for task in found if said(task.params) == said(_own_params(rollout))] or found
        if found and all(task.fields == found[0].fields for task in found):
            return found[0]
        if placed and _begins(asked, _asked(placed.params)):
            return placed
        return f"several tasks in {self._file} have its prompt" if found else f"it is of no task in {self._file}"


Said = list[tuple[str, str]]


def _asked(params: Mapping[str, Any]) -> Said:
    """Without what the system says: an environment may add that to its tasks."""
    return [one for one in said(params) if one[0] not in ("system", "developer")]


def _begins(asked: Said, own: Said) -> bool:
    """Whether a stored prompt is the task's, with something shown behind it or in a message of its own."""
    same = len(asked) == len(own) > 0 and asked[:-1] == own[:-1] and asked[-1][0] == own[-1][0]
    return asked[:-1] == own or (same and asked[-1][1].startswith(own[-1][1]))


def _key(said: Said) -> bytes:
    return hashlib.blake2b(repr(said).encode(errors="surrogatepass"), digest_size=16).digest()


def _own_params(rollout: Rollout) -> Params:
    """Without what the environment had shown, as far as the row says it."""
    observed = rollout.extra.get(OBSERVED)
    return unshown(rollout.params, observed) if type(observed) is int and observed > 0 else rollout.params


def _stored(rollout: Rollout, place: tuple[str, int], tasks: Tasks | None) -> Stored | str:
    """The task as it was: its own fields, if they are known; else what a verdict had replaced is put back. Or why it cannot
    be had."""
    if tasks is None:
        fields = {key: value for key, value in rollout.task_fields.items() if key not in OF_VERDICTS}
        if not rollout.outcome.judged:
            fields = {key: value for key, value in fields.items() if key not in (*GYM_FAILURE, "reward")}
    else:
        task = tasks.find(rollout)
        if isinstance(task, str):
            return task
        fields = task.fields
    known = OBSERVED in rollout.extra
    return Stored(_own_params(rollout), fields, rollout.task, rollout.task_index, rollout=rollout, place=place, own=known)


def _with_verdict(task: Stored, found: Rollout, attempt: int) -> Rollout:
    old = task.rollout
    assert old is not None
    file, line = task.place
    about: Json = {"file": file, "line": line, "reward": old.reward, "attempts": attempt}
    if old.outcome is not Outcome.SCORED:
        about["outcome"] = str(old.outcome)
    replaced = {
        key: value
        for key, value in old.fields.items()
        if (key in found.fields or key in OF_VERDICTS) and found.fields.get(key) != value
    }
    if replaced and found.outcome.judged:
        about["fields"] = replaced
    if task.differs:
        about["forced"] = task.differs[0]
    dropped = ("task_fields", "close_error", REVERIFIED)
    kept = {key: value for key, value in old.extra.items() if key not in dropped}
    new = {key: value for key, value in found.extra.items() if key != OBSERVED}  # the prompt stays the old one
    extra = kept | new | {REVERIFIED: about}
    return replace(old, reward=found.reward, outcome=found.outcome, failure=found.failure, fields=found.fields, extra=extra)


def _place(rollout: Rollout) -> tuple[str, int] | None:
    about = rollout.extra.get(REVERIFIED)
    place = (about.get("file"), about.get("line")) if isinstance(about, dict) else (None, None)
    return place if isinstance(place[0], str) and type(place[1]) is int else None  # type: ignore[return-value]


def _beside(run: Path) -> Path:
    name = run.name if run.is_dir() else run.name.removesuffix(".jsonl")
    return run.with_name(f"{name or run.resolve().name}-reverified")


def _known_lines(path: Path) -> dict[str, int]:
    """Of each source file, how many lines an earlier session had before it."""
    try:
        source = loads((path / RUN).read_bytes())["identity"]["source"]
        return {name: int(about["lines"]) for name, about in source.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # a new directory, or what `RunDir` will refuse


def _read(file: Path, most: int | None) -> tuple[int, Json]:
    """How many lines a file has, and the hash of the first `most`: files may grow, but not change. A last line that is torn
    does not count."""
    number = hashed = 0
    digest = hashlib.sha256()
    with open(file, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if (line.endswith(b"\n") or _is_json(line)) if most is None else number <= most:
                digest.update(line.strip() + b"\n")
                hashed = number
    return number, {"lines": hashed, "sha256": digest.hexdigest()[:16]}


def _is_json(line: bytes) -> bool:
    try:
        loads(line)
    except (ValueError, RecursionError):
        return False
    return True
