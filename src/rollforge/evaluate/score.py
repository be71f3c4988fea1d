"""How well one model did, and how it failed: numbers and examples, from its attempts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rollforge.bulk.record import expected
from rollforge.evaluate.attempts import Attempts
from rollforge.evaluate.modes import CALLED, OTHER_CALLS, SAME_CALLS, tool_errors
from rollforge.records.items import final_text, prompt_text, tool_calls
from rollforge.records.rollout import Rollout
from rollforge.stats.estimate import Groups, Mean, Numbers, clustered_mean
from rollforge.stats.passk import pass_at_k
from rollforge.stats.source import Place, Source
from rollforge.stats.thresholds import EQUAL
from rollforge.stats.visible import one_line


@dataclass(frozen=True, slots=True)
class PassK:
    k: int
    tasks: int
    """With at least k judged attempts."""
    share: Mean


@dataclass(frozen=True, slots=True)
class Score:
    judged: int
    planned: int
    tasks: int
    coverage: float
    reward: Mean
    pass_at: list[PassK]
    """k = 1, 2, 4, ... and the most attempts that every task has."""


@dataclass(frozen=True, slots=True)
class Example:
    run: str
    task: str
    index: int | None
    prompt: str
    what: str
    """What went wrong, in a line: the message of a failure, the last tool error, or the calls and the reply."""
    command: str
    """Shows the whole of it."""


@dataclass(frozen=True, slots=True)
class Mode:
    name: str
    env: str
    count: int
    share: float
    """Of the model's attempts in the environment."""
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class TaskScore:
    env: str
    task: str
    index: int | None
    rollouts: int
    solved: int
    mean: float


# As in stats.measure: rewards of 1e300 are legal.
@np.errstate(over="ignore", invalid="ignore")
def score(attempts: Attempts, success: float, only: NDArray[np.bool_] | None = None, planned: int | None = None) -> Score:
    """Of all attempts, or of some. `planned`: how many were asked for, if more than there are."""
    chosen = np.ones(len(attempts.reward), np.bool_) if only is None else only
    expected = max(planned or 0, int(chosen.sum()))
    where = np.flatnonzero(chosen & attempts.judged)
    rewards, tasks = attempts.reward[where], _tasks(attempts, where)
    return Score(
        judged=len(where),
        planned=expected,
        tasks=len(np.unique(tasks)),
        coverage=len(where) / expected if expected else 0.0,
        reward=clustered_mean(rewards, tasks),
        pass_at=_pass_at(rewards >= success - EQUAL, tasks),
    )


def task_scores(attempts: Attempts, success: float) -> Iterator[TaskScore]:
    """In the order in which the tasks were first read."""
    where = np.flatnonzero(attempts.judged)
    rewards, tasks = attempts.reward[where], _tasks(attempts, where)
    if not len(where):
        return
    counts, sums = np.bincount(tasks), np.bincount(tasks, rewards)
    solved = np.bincount(tasks, rewards >= success - EQUAL)
    first = np.unique(tasks, return_index=True)[1]
    for n in np.argsort(first).tolist():
        env, task = int(attempts.env[where[first[n]]]), int(attempts.task[where[first[n]]])
        name, index = attempts.labels[env, task]
        mean = float(sums[n] / counts[n])
        yield TaskScore(attempts.envs[env], name, index, int(counts[n]), int(solved[n]), mean)


def solved_calls(several: Sequence[Attempts]) -> set[int]:
    """Marks of the tool calls with which tasks were solved, and of the tasks that were, by any model."""
    found: set[int] = set()
    for attempts in several:
        solved = np.flatnonzero((attempts.mode == 0) & (attempts.calls != 0))
        for env, task, calls in _keys(attempts, solved):
            found.add(hash((env, task)))
            found.add(hash((env, task, calls)))
    return found


def failure_modes(attempts: Attempts, known: set[int], examples: int) -> list[Mode]:
    """By environment, the most frequent first. `known`: what `solved_calls` found."""
    groups: dict[tuple[str, str], list[int]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    failed = np.flatnonzero(attempts.mode != 0)
    for at, (env, task, calls) in zip(failed.tolist(), _keys(attempts, failed), strict=True):
        name = attempts.modes[attempts.mode[at]]
        if name == CALLED and hash((env, task)) in known:
            name = SAME_CALLS if hash((env, task, calls)) in known else OTHER_CALLS
        counts[env, name] += 1
        chosen = groups.setdefault((env, name), [])
        if len(chosen) < examples and all(attempts.task[at] != attempts.task[other] for other in chosen):
            chosen.append(at)
    texts = _examples(attempts, [at for chosen in groups.values() for at in chosen])
    totals = Counter(attempts.envs[env] for env in attempts.env.tolist())
    return [
        Mode(name, env, count, count / totals[env], [texts[at] for at in groups[env, name] if at in texts])
        for (env, name), count in sorted(counts.items(), key=lambda pair: (pair[0][0], -pair[1], pair[0][1]))
    ]


def _keys(attempts: Attempts, where: Groups) -> Iterator[tuple[str, int, int]]:
    columns = (attempts.env[where].tolist(), attempts.task[where].tolist(), attempts.calls[where].tolist())
    return ((attempts.envs[env], task, calls) for env, task, calls in zip(*columns, strict=True))


def _tasks(attempts: Attempts, where: Groups) -> Groups:
    """The tasks of some attempts, numbered from 0."""
    pairs = np.stack([attempts.env[where], attempts.task[where]], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _pass_at(solved: NDArray[np.bool_], tasks: Groups) -> list[PassK]:
    counts = np.bincount(tasks)
    successes = np.bincount(tasks, solved).astype(np.int64)
    if not len(counts):
        return []
    ks = sorted({2**n for n in range(int(counts.max()).bit_length())} | {int(counts.min())})
    return [PassK(k, int((counts >= k).sum()), _share(counts, successes, k)) for k in ks]


def _share(counts: Groups, successes: Groups, k: int) -> Mean:
    enough = counts >= k
    pairs = zip(counts[enough].tolist(), successes[enough].tolist(), strict=True)
    values: Numbers = np.array([pass_at_k(n, c, k) for n, c in pairs])
    return clustered_mean(values, np.arange(len(values)))


def _examples(attempts: Attempts, positions: list[int]) -> dict[int, Example]:
    wanted: dict[int, dict[Place, int]] = {}
    for at in positions:
        source, *place = attempts.place[at].tolist()
        wanted.setdefault(source, {})[place[0], place[1]] = at
    found = {}
    for number, places in wanted.items():
        source, left = attempts.sources[number], len(places)
        for place, row in source.placed():
            if place in places and isinstance(row, Rollout):
                found[places[place]] = _example(source, row)
                left -= 1
                if not left:
                    break
    return found


def _example(source: Source, rollout: Rollout) -> Example:
    task = rollout.task if rollout.task_index is None else str(rollout.task_index)
    words = ["rollforge", "show", source.name, "--task", task]
    if rollout.index is not None:
        words += ["--index", str(rollout.index)]
    prompt = one_line(prompt_text(rollout.params), 100)
    return Example(source.name, rollout.task, rollout.index, prompt, _what(rollout), shlex.join(words))


def _what(rollout: Rollout) -> str:
    if rollout.failure is not None:
        return one_line(rollout.failure.message, 160)
    errors = tool_errors(rollout.output)
    if errors:
        return f"a tool said: {one_line(errors[-1], 140)}"
    calls = [f"{call.get('name')} {call.get('arguments')}" for call in tool_calls(rollout.response)[-2:]]
    reply = final_text(rollout.response)
    said = f"reply: {one_line(reply, 100)}" if reply.strip() else "no reply"
    shown = [f"calls: {one_line('; '.join(calls), 100)}"] * bool(calls) + [said]
    wanted = [f"expected: {one_line(str(value), 40)}" for _, value in islice(expected(rollout.fields.get), 1)]
    return "; ".join(shown + wanted)
