"""The numbers of one set of judged rollouts, from the columns of its sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollforge.records.rollout import Outcome
from rollforge.stats.columns import Columns, Label, ToolUse
from rollforge.stats.estimate import TENTHS, Groups, Numbers, Quantiles, clustered_mean, histogram, quantiles, std
from rollforge.stats.passk import best_at_k, majority_at_k, pass_all_k, pass_at_k
from rollforge.stats.shapes import Answers, AtK, Difficulty, Grouped, Metric, Reward, Stats, TaskRow, Texts, Tool
from rollforge.stats.thresholds import EASY, EQUAL, GAP, HIGH, LOW, MEDIUM, RANGE, SFT, SFT_RELAXED

MOST_VOTES = 64
"""Majority votes of more attempts are not computed: the exact expectation costs k^2 n."""

Flags: TypeAlias = NDArray[np.bool_]


# Rewards of 1e300 are legal; their squares are infinite, and written as null.
@np.errstate(over="ignore", invalid="ignore")
def measure(
    name: str,
    sets: Sequence[Columns],
    failed: Counter[Outcome],
    planned: int | None,
    success: float,
    unrewarded: int = 0,
    repeated: int = 0,
) -> Stats:
    """`failed`: the rollouts without a reward, `unrewarded`: those that do not say why. `planned`: how many were asked for,
    if that is known. `repeated`: judged rows of rollouts that had a reward already."""
    rewards = column(sets, "reward")
    solved = rewards >= success - EQUAL
    groups = grouping(sets)
    judged = sum((columns.judged for columns in sets), Counter[Outcome]())
    done = len(rewards) - repeated
    ended = done + failed.total() + unrewarded
    expected = max(planned or 0, ended)
    answers = marks(sets, "answer")
    metrics, task_fields = _metrics(sets, rewards, groups)
    silent = int((answers == 0).sum())
    return Stats(
        name=name,
        outcomes={str(outcome): judged[outcome] + failed[outcome] for outcome in Outcome},
        unrewarded=unrewarded,
        judged=len(rewards),
        tasks=len(groups.counts),
        coverage=done / expected if expected else None,
        repeats=quantiles(groups.counts.astype(np.float64)),
        reward=_reward(rewards, solved, groups),
        at_k=_at_k(rewards, solved, answers, groups),
        answers=Answers(voting=len(answers) - silent, silent=silent),
        difficulty=_difficulty(groups.sums(solved) / groups.counts),
        groups=_grouped(rewards, solved, marks(sets, "prompt"), groups),
        metrics=metrics,
        task_fields=task_fields,
        tokens=_family(sets, "tokens."),
        turns=quantiles(column(sets, "turns")),
        calls=quantiles(column(sets, "calls")),
        call_errors=int(column(sets, "call_errors").sum()),
        tools=_tools(sets),
        seconds=_family(sets, "seconds."),
        attempts=quantiles(column(sets, "attempt")),
        texts=_texts(sets, groups),
    )


@np.errstate(over="ignore", invalid="ignore")
def task_rows(sets: Sequence[Columns], success: float) -> list[TaskRow]:
    """One row per task, in the order they were first read."""
    rewards, groups = column(sets, "reward"), grouping(sets)
    labels: list[tuple[str, Label]] = []
    for columns in sets:
        seen: set[int] = set()
        for label in columns.labels():
            if label.mark not in seen:
                seen.add(label.mark)
                labels.append((columns.name, label))
    if not labels:
        return []
    ordered, starts, counts = rewards[groups.order], groups.starts, groups.counts
    solved = groups.sums(rewards >= success - EQUAL).astype(np.int64)
    means = np.add.reduceat(ordered, starts) / counts
    squares = np.add.reduceat((ordered - np.repeat(means, counts)) ** 2, starts)
    stds = np.sqrt(squares / np.maximum(counts - 1, 1))
    lows, highs = np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)
    columns_ = (counts, solved, solved / counts, means, stds, lows, highs)
    return [
        TaskRow(env, label.id, label.index, label.prompt, n, won, rate, mean, std if n > 1 else None, low, high)
        for (env, label), n, won, rate, mean, std, low, high in zip(
            labels, *(values.tolist() for values in columns_), strict=True
        )
    ]


def column(sets: Sequence[Columns], name: str) -> Numbers:
    """One number per judged rollout, NaN where there is none."""
    values = np.full(sum(columns.size for columns in sets), math.nan)
    at = 0
    for columns in sets:
        if name in columns.numbers:
            given = columns.numbers[name].read()
            values[at : at + len(given)] = given
        at += columns.size
    return values + 0.0  # of -0, which a penalty of nothing is, 0


def marks(sets: Sequence[Columns], name: str) -> Groups:
    found = (columns.marks[name].read() for columns in sets if columns.size)
    return np.concatenate([np.zeros(0, np.int64), *found])


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which judged rollouts are of one task."""

    tasks: Groups
    """The task of each rollout, numbered through all sets in the order in which they were first read."""
    order: Groups
    """The rollouts sorted by task, within a task as they were read."""
    starts: Groups
    counts: Groups

    def sums(self, values: Numbers | Flags) -> Numbers:
        return np.bincount(self.tasks, weights=values, minlength=len(self.counts)).astype(np.float64)

    def spans(self, values: Numbers) -> Numbers:
        """Per task, the distance from the least to the greatest known value; NaN where none is known."""
        if not len(values):
            return np.zeros(0)
        ordered = values[self.order]
        spans: Numbers = np.fmax.reduceat(ordered, self.starts) - np.fmin.reduceat(ordered, self.starts)
        return spans

    def differ(self, values: Groups) -> Flags:
        """Per task, whether its rollouts have more than one of the values."""
        if not len(values):
            return np.zeros(0, np.bool_)
        ordered = values[self.order]
        found: Flags = np.maximum.reduceat(ordered, self.starts) != np.minimum.reduceat(ordered, self.starts)
        return found


def grouping(sets: Sequence[Columns]) -> Grouping:
    parts, before = [np.zeros(0, np.int64)], 0
    for columns in sets:
        if columns.size:
            _, first, number = np.unique(columns.marks["task"].read(), return_index=True, return_inverse=True)
            rank = np.empty(len(first), np.int64)
            rank[np.argsort(first)] = np.arange(len(first))
            parts.append(rank[number] + before)
            before += len(first)
    tasks = np.concatenate(parts)
    counts = np.bincount(tasks, minlength=before)
    return Grouping(tasks, np.argsort(tasks, kind="stable"), np.cumsum(counts) - counts, counts)


def _reward(rewards: Numbers, solved: Flags, groups: Grouping) -> Reward:
    some = len(rewards) > 0
    quarters = [float(q) for q in np.percentile(rewards, (0, 25, 50, 75, 100))] if some else [None] * 5
    return Reward(
        mean=clustered_mean(rewards, groups.tasks),
        mean_of_tasks=float((groups.sums(rewards) / groups.counts).mean()) if some else None,
        std=std(rewards),
        min=quarters[0],
        p25=quarters[1],
        p50=quarters[2],
        p75=quarters[3],
        max=quarters[4],
        histogram=histogram(rewards),
        solved=clustered_mean(solved.astype(np.float64), groups.tasks),
        high=float((rewards > HIGH + EQUAL).mean()) if some else None,
        low=float((rewards < LOW - EQUAL).mean()) if some else None,
        sft=int((rewards >= SFT - EQUAL).sum()),
        sft_relaxed=int((rewards >= SFT_RELAXED - EQUAL).sum()),
        outside=int(((rewards < RANGE[0] - EQUAL) | (rewards > RANGE[1] + EQUAL)).sum()),
    )


def _at_k(rewards: Numbers, solved: Flags, answers: Groups, groups: Grouping) -> list[AtK]:
    # Tasks with the same number of attempts, successes and votes are worth the same: few kinds stand for all tasks.
    successes = groups.sums(solved).astype(np.int64)
    outcomes = Counter(zip(groups.counts.tolist(), successes.tolist(), strict=True))
    elections = _elections(answers, solved, groups) if answers.any() else None
    ordered = rewards[groups.order]
    means = groups.sums(rewards) / np.maximum(groups.counts, 1)
    estimates = []
    k = 1
    while (enough := groups.counts >= k).any():
        tasks = int(enough.sum())
        some = [(n, c, count) for (n, c), count in outcomes.items() if n >= k]
        votes = [(pattern, count) for pattern, count in elections.items() if pattern[0] >= k] if elections else []
        estimates.append(
            AtK(
                k=k,
                tasks=tasks,
                pass_at=sum(pass_at_k(n, c, k) * count for n, c, count in some) / tasks,
                pass_all=sum(pass_all_k(n, c, k) * count for n, c, count in some) / tasks,
                best=_best(ordered, groups, k) / tasks,
                avg=float(means[enough].sum()) / tasks,
                majority=sum(_majority(given, silent, k) * count for (_, given, silent), count in votes) / tasks
                if elections and k <= MOST_VOTES
                else None,
            )
        )
        k *= 2
    return estimates


def _best(ordered: Numbers, groups: Grouping, k: int) -> float:
    """The sum over tasks of the expected best reward of k attempts; tasks of one size are computed together."""
    total = 0.0
    for n in np.unique(groups.counts[groups.counts >= k]).tolist():
        starts = groups.starts[groups.counts == n]
        for some in np.array_split(starts, max(1, len(starts) * n // 200_000)):
            total += float(best_at_k(ordered[some[:, None] + np.arange(n)], k).sum())
    return total


Election: TypeAlias = tuple[int, tuple[tuple[int, float], ...], int]
"""Attempts; for each distinct answer how many gave it and the share of successes among them; how many gave none."""


def _elections(answers: Groups, solved: Flags, groups: Grouping) -> Counter[Election]:
    silent = np.bincount(groups.tasks[answers == 0], minlength=len(groups.counts))
    voting = np.flatnonzero(answers)
    voting = voting[np.lexsort((answers[voting], groups.tasks[voting]))]
    tasks, given = groups.tasks[voting], answers[voting]
    first = np.flatnonzero(np.r_[True, (tasks[1:] != tasks[:-1]) | (given[1:] != given[:-1])])
    counts = np.diff(np.r_[first, len(voting)])
    shares = np.add.reduceat(solved[voting].astype(np.float64), first) / counts
    order = np.lexsort((shares, counts, tasks[first]))
    votes = list(zip(counts[order].tolist(), shares[order].tolist(), strict=True))
    ends = np.cumsum(np.bincount(tasks[first], minlength=len(groups.counts))).tolist()
    found: Counter[Election] = Counter()
    start = 0
    for attempts, end, none in zip(groups.counts.tolist(), ends, silent.tolist(), strict=True):
        found[attempts, tuple(votes[start:end]), none] += 1
        start = end
    return found


_majority = lru_cache(maxsize=4096)(majority_at_k)
"""Tasks with a few attempts fall into few patterns."""


def _difficulty(rates: Numbers) -> Difficulty:
    easy, medium, hard = rates >= EASY - EQUAL, rates >= MEDIUM - EQUAL, rates > 0
    return Difficulty(
        easy=int(easy.sum()),
        medium=int((medium & ~easy).sum()),
        hard=int((hard & ~medium).sum()),
        unsolved=int((~hard).sum()),
        always=int((rates == 1).sum()),
        rates=[int(count) for count in np.histogram(rates, TENTHS)[0]],
    )


def _grouped(rewards: Numbers, solved: Flags, prompts: Groups, groups: Grouping) -> Grouped:
    several = groups.counts > 1
    count, spans = int(several.sum()), groups.spans(rewards)
    silent = several & (spans <= EQUAL)
    means = groups.sums(rewards) / groups.counts
    squares = float(((rewards - means[groups.tasks]) ** 2).sum())
    freedom = len(rewards) - len(groups.counts)
    return Grouped(
        count=count,
        no_signal=int(silent.sum()),
        no_signal_high=int((silent & (groups.sums(solved) > 0)).sum()),
        no_signal_share=float(silent.sum() / count) if count else None,
        pairs=int((spans >= GAP - EQUAL).sum()),
        std_within=math.sqrt(squares / freedom) if freedom else None,
        mixed_prompts=int(groups.differ(prompts).sum()),
    )


def _metrics(sets: Sequence[Columns], rewards: Numbers, groups: Grouping) -> tuple[dict[str, Metric], list[str]]:
    """The verdict's numbers, and the names of the task's: those which differ between tasks but never within one, while
    rewards do differ within some. Without such evidence a number counts as the verdict's."""
    several = groups.counts > 1
    evidence = bool((groups.spans(rewards)[several] > EQUAL).any())
    metrics, task_fields = {}, []
    for name in sorted({name for columns in sets for name in columns.numbers if name.startswith("metric.")}):
        values = column(sets, name)
        known = values[~np.isnan(values)]
        short = name.removeprefix("metric.")
        constant = not (groups.spans(values)[several] > EQUAL).any() and float(np.ptp(known)) > EQUAL
        if evidence and constant and not short.startswith("reward_components."):
            task_fields.append(short)
            continue
        metrics[short] = Metric(len(known), float(known.mean()), std(known), float(known.min()), float(known.max()))
    return metrics, task_fields


def _family(sets: Sequence[Columns], prefix: str) -> dict[str, Quantiles]:
    names = dict.fromkeys(name for columns in sets for name in columns.numbers if name.startswith(prefix))
    found = {name.removeprefix(prefix): quantiles(column(sets, name)) for name in names}
    return {name: values for name, values in found.items() if values is not None}


def _tools(sets: Sequence[Columns]) -> list[Tool]:
    total: dict[str, ToolUse] = {}
    for columns in sets:
        for name, use in columns.tools.items():
            sofar = total.setdefault(name, ToolUse())
            sofar.calls += use.calls
            sofar.errors += use.errors
            sofar.rollouts += use.rollouts
    ranked = sorted(total.items(), key=lambda pair: (-pair[1].calls, pair[0]))
    return [Tool(name, use.calls, use.errors, use.rollouts) for name, use in ranked]


def _texts(sets: Sequence[Columns], groups: Grouping) -> Texts:
    contiguous = column(sets, "contiguous")
    cuts = sum((columns.cuts for columns in sets), Counter[str]())
    return Texts(
        no_reply=int((column(sets, "reply") == 0).sum()),
        reasoning=int(column(sets, "thought").sum()),
        truncated=cuts.total(),
        truncated_by=dict(cuts.most_common()),
        same_reply=_repeats(groups.tasks, marks(sets, "reply")),
        same_conversation=_repeats(groups.tasks, marks(sets, "conversation")),
        token_ids=int((~np.isnan(contiguous)).sum()),
        contiguous=int(np.nansum(contiguous)),
    )


def _repeats(tasks: Groups, said: Groups) -> int:
    """How many rollouts say what an earlier one of the same task said; saying nothing (0) does not count."""
    spoke = said != 0
    tasks, said = tasks[spoke], said[spoke]
    order = np.lexsort((said, tasks))
    tasks, said = tasks[order], said[order]
    return int(((tasks[1:] == tasks[:-1]) & (said[1:] == said[:-1])).sum())
