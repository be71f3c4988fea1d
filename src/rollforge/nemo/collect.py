"""Rollouts of a JSONL file of tasks, each by the agent its row names, in the files that NeMo Gym writes:

    OUT.jsonl                      rows with a reward, as they come
    OUT_materialized_inputs.jsonl  what was planned: a row per task and repeat, the identity of a resumed run
    OUT_failures.jsonl             attempts without a reward, with the reason; never among the rewards
    OUT_aggregate_metrics.json     per agent, at the end

A failing `/run` is a failed attempt, made again up to `max_attempts` times, and never ends the others. What is in OUT.jsonl
is done: a run that was killed goes on from there.
"""

from __future__ import annotations

import fcntl
import filecmp
import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from rollforge.collect.attend import attended
from rollforge.collect.config import Budget
from rollforge.collect.journal import Journal
from rollforge.collect.plan import Done, Planned
from rollforge.collect.scheduler import RunOne, Stop, schedule
from rollforge.collect.tally import Tally
from rollforge.errors import RolloutError, SetupError, UserError, reported, unknown
from rollforge.nemo.profile import metrics_by_agent
from rollforge.nemo.rows import Plan, materialise, same_file, task_of
from rollforge.records.items import Json, inside
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine, dump, objects, row_of
from rollforge.records.whole import whole

WINDOW = 256
MAX_ATTEMPTS = 3
STREAK = 50
"""So many failures in a row, and three for each place in the window, end a collection: it can be resumed."""
SHOWN = 20
"""Unusable lines that are kept for showing."""


@dataclass(frozen=True, slots=True)
class Agent:
    """What a row's `agent_ref` leads to."""

    run: RunOne
    metrics: Callable[[list[Json]], Awaitable[Json]] | None = None
    """Whoever computes its metrics, where that is its own code; it is given whole rows."""


@dataclass(frozen=True, slots=True)
class Files:
    rollouts: Path

    @property
    def materialized(self) -> Path:
        return self._beside("_materialized_inputs.jsonl")

    @property
    def failures(self) -> Path:
        return self._beside("_failures.jsonl")

    @property
    def metrics(self) -> Path:
        return self._beside("_aggregate_metrics.json")

    def __iter__(self) -> Iterator[Path]:
        yield from (self.rollouts, self.materialized, self.failures, self.metrics)

    def _beside(self, end: str) -> Path:
        return self.rollouts.with_name(self.rollouts.stem + end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One collection."""

    input: Path
    output: Path
    plan: Plan
    window: int = WINDOW
    """Rollouts at a time."""
    resume: bool = False
    adopt: str | None = None
    """The agent that takes the rows of agents that are not there; without one they are an error."""
    max_attempts: int = MAX_ATTEMPTS
    """Of one rollout; resuming is asking for as many again."""


@dataclass(slots=True)
class Collection:
    """A collection under way: `tally` and `stop` are for displays and signals."""

    job: Job
    agents: Mapping[str, Agent]
    warn: Callable[[str], None] = print
    """Where remarks go; a display replaces it."""
    cost: None = None
    tally: Tally = field(default_factory=Tally)
    stop: Stop = field(default_factory=Stop)
    bad: list[BadLine] = field(default_factory=list)
    streak: int = 0
    """Attempts in a row that failed for outside reasons: servers that are gone."""

    @property
    def files(self) -> Files:
        return Files(self.job.output)

    @property
    def title(self) -> str:
        return f"rollouts of {self.job.input}"

    @property
    def path(self) -> Path:
        return self.job.output

    async def run(self) -> None:
        """To the end of the plan, or to a stop. Raises `UserError` for inputs that cannot be planned, before anything runs,
        and `SetupError` when no rollout can succeed or be stored. What was collected stays."""
        files = self.files
        self._check_input()
        files.rollouts.parent.mkdir(parents=True, exist_ok=True)
        with _locked(files.rollouts), ExitStack() as opened:
            self._settle_inputs()
            rollouts, failures = Journal(files.rollouts), Journal(files.failures)
            opened.callback(rollouts.close)
            opened.callback(failures.close)
            done = self._done()

            def record(rollout: Rollout) -> Rollout:
                (rollouts if rollout.outcome.judged else failures).append(dump(_stored(rollout)))
                again = rollout.failure is not None and rollout.failure.retryable
                self.streak = self.streak + 1 if again else 0
                if self.streak >= max(STREAK, 3 * self.job.window):
                    self.stop(f"the last {self.streak} attempts all failed")
                return rollout

            work = schedule(
                self._planned(done),
                self._run_one,
                record,
                tally=self.tally,
                stop=self.stop,
                window=self.job.window,
                budget=Budget(),
            )
            await attended(work, [rollouts, failures], tally=self.tally, stop=self.stop, warn=self.warn)
        if self.stop.error is not None:
            raise self.stop.error

    def _check_input(self) -> None:
        for path in self.files:
            if same_file(path, self.job.input):
                raise UserError(
                    f"{self.job.input} holds the tasks, and {path} is written here: choose another +output_jsonl_fpath"
                )

    def _settle_inputs(self) -> None:
        """The materialised inputs on disk: made now, or, of a resumed run, the same as then."""
        files, part = self.files, self.files.materialized.with_suffix(".part")
        strangers: Counter[str] = Counter()
        count = 0
        try:
            with open(part, "wb") as file:
                for row in materialise(self.job.input, self.job.plan, self._note_bad):
                    name = row["agent_ref"]["name"]
                    if name not in self.agents:
                        strangers[name] += 1
                        row["agent_ref"] = {**row["agent_ref"], "name": self.job.adopt}
                    file.write(dumps(row) + b"\n")
                    count += 1
            for name, number in sorted(strangers.items()):
                if self.job.adopt is None:
                    raise unknown("agent", name, self.agents, f"(named by rows of {self.job.input}, or by +agent_name)")
                self.warn(f"{number} rollouts are for {name}, which is not here: {self.job.adopt} makes them")
            if not count:
                raise UserError(f"no task to work on: {self.bad[0] if self.bad else f'{self.job.input} is empty'}")
            self.tally.planned = count
            if self.job.resume and files.materialized.exists():
                if not filecmp.cmp(part, files.materialized, shallow=False):
                    raise UserError(
                        f"{files.materialized} holds other inputs than these arguments give now: resume with the "
                        "arguments and the file the run was begun with, or choose another +output_jsonl_fpath"
                    )
            elif self.job.resume and files.rollouts.stat().st_size:
                raise UserError(
                    f"+resume_from_cache=true: {files.materialized} is not there, which says what the rollouts in "
                    f"{files.rollouts} are of: put it back, or leave the argument out and begin anew (they are kept)"
                )
            else:
                self._put_aside()
            part.replace(files.materialized)
        except OSError as error:
            raise UserError(f"cannot write {part}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)

    def _put_aside(self) -> None:
        """A run that is not resumed begins with empty files; what was in them is kept."""
        files = self.files
        filled = [path for path in files if path.exists() and path.stat().st_size]
        number = next(n for n in itertools.count(1) if not any(_kept(path, n).exists() for path in files))
        for path in filled:
            if path == files.rollouts:
                copyfile(path, _kept(path, number))  # not moved: the lock is on the file that is there
                os.truncate(path, 0)
            else:
                path.rename(_kept(path, number))
        if files.rollouts in filled:
            kept = _kept(files.rollouts, number)
            self.warn(f"the earlier {files.rollouts} is kept as {kept}; +resume_from_cache=true would have gone on with it")

    def _note_bad(self, line: BadLine) -> None:
        self.tally.bad_lines += 1
        if len(self.bad) < SHOWN:
            self.bad.append(line)

    def _done(self) -> Done:
        done = Done()
        for row in objects(self.files.rollouts):
            if (key := _key(row)) is not None and done.add(key):
                usage = (row.get("response") or {}).get("usage")
                self.tally.count_before(_outcome(row, Outcome.SCORED), row.get("reward"), usage)
        failed: dict[tuple[int, int], Json] = {}
        for row in objects(self.files.failures):
            key = _key(row)
            if key is not None and key not in done:
                before = row.get("_ng_attempt_index")
                done.failed(key, 1 + max(done.attempts(key), before if type(before) is int else 0))
                failed[key] = row
        given_up = 0
        for key, row in failed.items():
            if row.get("_ng_failure_terminal"):
                given_up += done.add(key)
                self.tally.count_before(_outcome(row, Outcome.INFRA_FAULT), None, None)
        if given_up:
            self.warn(f"{given_up} rollouts failed for good before and are left out; why: {self.files.failures}")
        return done

    def _planned(self, done: Done) -> Iterator[Planned]:
        for row in objects(self.files.materialized):
            key = row["_ng_task_index"], row["_ng_rollout_index"]
            if key not in done:
                made = done.attempts(key)
                yield Planned(task_of(row, self.job.plan), key[1], made + 1, made + self.job.max_attempts)

    async def _run_one(self, task: Any, index: int, attempt: int) -> Rollout:
        rollout = await self.agents[task.fields["agent_ref"]["name"]].run(task, index, attempt)
        # A server of NeMo Gym gives back the fields its schemas declare; the answer key is often not among them.
        fields = {**task.fields, **rollout.fields, "agent_ref": task.fields["agent_ref"]}
        return replace(rollout, fields=fields, task_index=task.index, index=index, attempt=attempt)


async def write_metrics(files: Files, agents: Mapping[str, Agent], say: Callable[[str], None]) -> list[Json]:
    """Metrics of the rollouts, per agent, written and given back."""
    found = metrics_by_agent([files.rollouts], lambda line: say(f"not used: {line}"), say)
    for place, entry in enumerate(found):
        name = entry["agent_ref"]["name"]
        agent = agents.get(name)
        if agent is None or agent.metrics is None:
            continue
        try:
            rows = [row for row in objects(files.rollouts) if inside(row, "agent_ref", "name") == name]
            theirs = await agent.metrics(rows)
            found[place] = {"agent_ref": entry["agent_ref"], **theirs}
        except (RolloutError, SetupError) as error:
            say(f"{name} did not compute its metrics ({error}): the usual ones are written")
    files.metrics.write_bytes(dumps(found) + b"\n")
    return found


def _stored(rollout: Rollout) -> Json:
    if rollout.response is not None:
        rollout = replace(rollout, response=whole(rollout.response, rollout.params))
    row = row_of(rollout)
    if rollout.attempt > 1 or not rollout.outcome.judged:
        row["_ng_attempt_index"] = rollout.attempt - 1
    if not rollout.outcome.judged:
        failure = rollout.failure
        row["_ng_failure_class"] = "judge_failed" if rollout.outcome is Outcome.JUDGE_FAULT else str(rollout.outcome)
        row["_ng_failure_message"] = failure.message if failure else ""
        row["_ng_failure_terminal"] = not (failure and failure.retryable)
    return row


def _kept(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _key(row: Json) -> tuple[int, int] | None:
    task, rollout = row.get("_ng_task_index"), row.get("_ng_rollout_index")
    return (task, rollout) if type(task) is int and type(rollout) is int and task >= 0 <= rollout else None


def _outcome(row: Json, otherwise: Outcome) -> Outcome:
    with suppress(ValueError):
        return Outcome(str(inside(row, "rollforge", "outcome")))
    return otherwise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer. A file that nothing was written to does not stay."""
    with reported(f"cannot write {path}"):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise UserError(f"another process is writing {path}") from None
    try:
        yield
    finally:
        if os.fstat(file).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(file)
