"""Two verdicts on the same rollouts, compared: who flipped, how far the order agrees, what it means for means and pass@k.

Fed one rollout at a time; it keeps three numbers of each, and the texts of a few.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rollforge.records.items import Json, final_text
from rollforge.records.rollout import Rollout
from rollforge.records.rows import task_key
from rollforge.stats.estimate import Groups, Mean, Numbers, clustered_mean, finite
from rollforge.stats.passk import pass_at_k
from rollforge.stats.thresholds import EQUAL
from rollforge.stats.visible import one_line

REVERIFIED = "reverified"
"""The key of a row's `rollforge` block that holds the verdict it had before."""

MOST_REASONS = 100
REPLY_CHARS = 100


@dataclass(frozen=True, slots=True)
class Flip:
    """A rollout whose reward changed."""

    task: str
    task_index: int | None
    index: int | None
    before: float
    after: float
    reply: str
    """The beginning of what the policy said, safe to print."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of values, and what became of the preference between the two."""

    kept: int
    reversed: int
    lost: int
    """One was better; now they are equal."""
    gained: int
    """They were equal; now one is better."""
    tied: int
    """Equal before and after."""

    @property
    def total(self) -> int:
        return self.kept + self.reversed + self.lost + self.gained + self.tied

    @property
    def changed(self) -> int:
        return self.reversed + self.lost + self.gained

    @property
    def tau(self) -> float | None:
        """Kendall's tau-b (1945), ties taken into account; None if all values of one side are equal."""
        agreed = self.kept + self.reversed
        size = ((agreed + self.lost) * (agreed + self.gained)) ** 0.5
        return (self.kept - self.reversed) / size if size else None


@dataclass(frozen=True, slots=True)
class PassAt:
    k: int
    tasks: int
    """With at least k rollouts."""
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Comparison:
    rollouts: int
    """With a reward before and after; everything below but `newly_judged` and `unjudged` is about these."""
    tasks: int
    agree: int
    up: int
    down: int
    to_solved: int
    """Of `up`, those that reach `success` now."""
    from_solved: int
    raised: list[Flip]
    """The largest changes, largest first."""
    lowered: list[Flip]
    spearman: float | None
    """None if all rewards of one side are equal."""
    kendall: float | None
    pairs: Pairs
    """Of rollouts of the same task: what preference data is made of."""
    before: Mean
    after: Mean
    difference: Mean
    pass_at: list[PassAt]
    success: float
    newly_judged: int
    """Had no reward before."""
    unjudged: int
    """Have no reward now."""
    reasons: list[tuple[str, int]]
    """Why not, the most frequent first."""
    kept: int
    """Rows that were not verified again."""

    def row(self) -> Json:
        values: Json = finite(asdict(self))
        return {**values, "pairs": {**values["pairs"], "changed": self.pairs.changed, "total": self.pairs.total}}


class Comparing:
    """Takes rollouts that were verified again; those that were not (no old verdict beside the new) are only counted."""

    def __init__(self, success: float = 1.0, examples: int = 10) -> None:
        self._success = success
        self._examples = examples
        self._before, self._after, self._tasks = array("d"), array("d"), array("q")
        self._numbers: dict[int, int] = {}
        self._raised: list[tuple[float, int, Flip]] = []
        self._lowered: list[tuple[float, int, Flip]] = []
        self._reasons: Counter[str] = Counter()
        self._unjudged = self._newly = self._kept = 0

    def add(self, rollout: Rollout) -> None:
        about = rollout.extra.get(REVERIFIED)
        if not isinstance(about, dict) or "kept" in about:
            self._kept += 1
            return
        before: Any = about.get("reward")
        before = float(before) if isinstance(before, (int, float)) else None
        if rollout.reward is None:
            self._unjudged += 1
            self._count(rollout)
        elif before is None:
            self._newly += 1
        else:
            self._compare(rollout, before, float(rollout.reward))

    def result(self) -> Comparison:
        before, after = np.array(self._before), np.array(self._after)
        tasks = np.array(self._tasks, np.int64)
        change = after - before
        up, down = change > EQUAL, change < -EQUAL
        solved_before, solved_after = before >= self._success - EQUAL, after >= self._success - EQUAL
        everything = pairs(before, after, np.zeros(len(before), np.int64))
        return Comparison(
            rollouts=len(before),
            tasks=len(self._numbers),
            agree=int(len(before) - up.sum() - down.sum()),
            up=int(up.sum()),
            down=int(down.sum()),
            to_solved=int((~solved_before & solved_after).sum()),
            from_solved=int((solved_before & ~solved_after).sum()),
            raised=_largest(self._raised),
            lowered=_largest(self._lowered),
            spearman=spearman(before, after),
            kendall=everything.tau,
            pairs=pairs(before, after, tasks),
            before=clustered_mean(before, tasks),
            after=clustered_mean(after, tasks),
            difference=clustered_mean(change, tasks, cut=False),
            pass_at=pass_at(solved_before, solved_after, tasks),
            success=self._success,
            newly_judged=self._newly,
            unjudged=self._unjudged,
            reasons=self._reasons.most_common(),
            kept=self._kept,
        )

    def _compare(self, rollout: Rollout, before: float, after: float) -> None:
        # Eight bytes of a hash for each task, not its name.
        task = self._numbers.setdefault(hash((rollout.env, *task_key(rollout))), len(self._numbers))
        self._before.append(before)
        self._after.append(after)
        self._tasks.append(task)
        size = abs(after - before)
        if size <= EQUAL:
            return
        held = self._raised if after > before else self._lowered
        if len(held) < self._examples or (held and size > held[0][0]):
            reply = one_line(final_text(rollout.response), REPLY_CHARS)
            flip = Flip(rollout.task, rollout.task_index, rollout.index, before, after, reply)
            heapq.heappush(held, (size, -len(self._before), flip))
            if len(held) > self._examples:
                heapq.heappop(held)

    def _count(self, rollout: Rollout) -> None:
        failure = rollout.failure
        stage, message = (failure.stage, one_line(failure.message, 160)) if failure else ("?", "")
        reason = f"{rollout.outcome} in {stage}: {message}"
        if reason not in self._reasons and len(self._reasons) >= MOST_REASONS:
            reason = "others"
        self._reasons[reason] += 1


def pairs(before: Numbers, after: Numbers, groups: Groups) -> Pairs:
    """All pairs within groups, counted in O(n log n) as Knight 1966 does for Kendall's tau.

    Ranks are made to rise with the group, so that no pair across groups is out of order: one pass counts for all groups.
    """
    first, second = _ranks(before), _ranks(after)
    order = np.lexsort((second, first, groups))
    groups, first, second = groups[order], first[order], second[order]
    both = _tied(groups, first, second)
    tied_before, tied_after, total = _tied(groups, first), _tied(groups, second), _tied(groups)
    reversed_ = _inversions(_ranks(groups * (int(second.max(initial=0)) + 1) + second))
    kept = total - tied_before - tied_after + both - reversed_
    return Pairs(kept, reversed_, tied_after - both, tied_before - both, both)


def spearman(before: Numbers, after: Numbers) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None if all values of one side are equal."""
    if len(before) < 2:
        return None
    x, y = (_mean_ranks(values) for values in (before, after))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else None


def _ranks(values: Any) -> Groups:
    """0 for the least; equal values, give or take the last bits, share one."""
    if values.dtype.kind == "f":
        values = np.round(values, 9)
    return np.unique(values, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _mean_ranks(values: Numbers) -> Numbers:
    ranks = _ranks(values)
    counts = np.bincount(ranks)
    ends: Numbers = np.cumsum(counts) - (counts - 1) / 2
    return ends[ranks]


def _tied(*keys: Groups) -> int:
    """Pairs that are equal in all keys."""
    if not len(keys[0]):
        return 0
    # Column by column, each step renumbered: the products would leave 64 bits.
    joint = _ranks(keys[0])
    for key in keys[1:]:
        joint = _ranks(joint * (int(key.max()) + 1) + key)
    counts = np.bincount(joint)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Groups) -> int:
    """Pairs in which the earlier value is larger: a merge sort, every level of which is one pass over the whole array."""
    place = np.arange(len(values))
    size = int(values.max(initial=0)) + 1
    total, width = 0, 1
    while width < len(values):
        pair, right = place // (2 * width), (place // width) % 2 == 1
        keys = pair * size + values
        rights, lefts = keys[right], keys[~right]
        below = np.searchsorted(rights, lefts) - np.searchsorted(rights, pair[~right] * size)
        total += int(below.sum())
        values = np.sort(keys, kind="stable") - pair * size
        width *= 2
    return total


def pass_at(before: Any, after: Any, tasks: Groups) -> list[PassAt]:
    """For k = 1, 2, 4, ...: of which attempts at which task (numbered from 0) succeeded, before and after."""
    counts = np.bincount(tasks)
    sides = [np.bincount(tasks, solved).astype(int) for solved in (before, after)]
    found, k = [], 1
    while (enough := counts >= k).any():
        number = int(enough.sum())
        # Tasks with as many attempts and successes are worth the same.
        values = [
            sum(pass_at_k(n, c, k) * count for (n, c), count in _kinds(counts[enough], side[enough])) / number
            for side in sides
        ]
        found.append(PassAt(k, number, *values))
        k *= 2
    return found


def _kinds(counts: Any, solved: Any) -> Sequence[tuple[tuple[int, int], int]]:
    return list(Counter(zip(counts.tolist(), solved.tolist(), strict=True)).items())


def _largest(held: list[tuple[float, int, Flip]]) -> list[Flip]:
    return [flip for *_, flip in sorted(held, key=lambda entry: entry[:2], reverse=True)]
