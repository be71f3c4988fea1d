"""Which attempts make a pair, of chosen and rejected: pure functions over the attempts at one task.

    same_prompt   a better and a worse attempt at one task: best_worst (one pair a task), all_pairs, margin, length_matched
    stratified    an attempt from `high_threshold` on with one up to `low_threshold`, of one task; what is left over, across
                  the tasks of an environment, only where `across_prompts` asks for it

Every choice is the same on every run: ties go to the shorter attempt, then to the first. Pairs of one task never are as many
as the product of its attempts: `max_pairs` bounds them, and but for all_pairs and best_worst each attempt is used once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heappop, heappush
from math import ceil, floor
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from rollforge.config import Section
from rollforge.stats.text import plural
from rollforge.stats.thresholds import EQUAL

Strategy = Literal["same_prompt", "stratified"]
Pick = Literal["best_worst", "all_pairs", "margin", "length_matched"]


class Attempt(NamedTuple):
    reward: float
    length: int
    """Bytes of the response."""
    source: int
    at: int
    split: str = ""
    env: str = ""


EQUAL_TEXTS = "equal texts"
REFUSED = "refused"
"""The format could hold no pair of the task."""

Place: TypeAlias = tuple[int, int]
"""The number of a row's file, and the byte where it starts."""

Said: TypeAlias = Callable[[Attempt], Any]
"""Something that attempts which say the same have in common; None for what cannot be read. Reading them costs."""

Same: TypeAlias = Callable[[Attempt, Attempt], bool]
"""Whether two attempts say the same, cannot be compared, or have no place in the format: then they make no pair. Asked last,
since reading them costs: those of which it is not so are a pair."""


class Pairing(Section):
    model_config = ConfigDict(allow_inf_nan=False)

    strategy: Strategy = "same_prompt"
    pick: Pick = "best_worst"
    min_gap: float = Field(0.2, ge=0)
    """Reward of chosen minus rejected, at least; ties never make a pair."""
    high_threshold: float = 0.7
    low_threshold: float = 0.4
    max_pairs: int = Field(4, ge=1)
    """Of one task."""
    across_prompts: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Pairing:
        if self.low_threshold > self.high_threshold:
            raise ValueError(
                f"--low-threshold {self.low_threshold:g} is above --high-threshold {self.high_threshold:g}: "
                "attempts between them would be chosen and rejected"
            )
        return self


def without_effect(how: Pairing) -> dict[str, str]:
    """The options that were given and that pairs like these do not depend on; what they go with."""
    if how.strategy == "stratified":
        idle = {"pick": "--strategy same_prompt"}
    else:
        idle = dict.fromkeys(("high_threshold", "low_threshold"), "--strategy stratified")
        if how.across_prompts:
            idle["across_prompts"] = "--strategy stratified"
        if how.pick == "best_worst":
            idle["max_pairs"] = "another --pick than best_worst"
    return {name: goes for name, goes in idle.items() if name in how.model_fields_set}


def told_without_effect(idle: dict[str, str]) -> list[str]:
    """One line, or none."""
    names = ", ".join(f"--{name.replace('_', '-')} (only with {goes})" for name, goes in idle.items())
    return [f"without effect: {names}"] if idle else []


Pairs: TypeAlias = list[tuple[Attempt, Attempt]]


def pair_up(attempts: Iterable[Attempt], how: Pairing, same: Same, said: Said | None = None) -> tuple[Pairs, str]:
    """The (chosen, rejected) of one task, and what became of the task: "paired" or why there is no pair. With `said` no two
    pairs say the same, as those of copies do."""
    found = list(attempts)
    best = sorted(found, key=_best)
    worst = sorted(found, key=_worst)
    if len(found) < 2:
        return [], "one attempt"
    gap = best[0].reward - worst[0].reward
    if gap <= EQUAL:
        return [], "equal rewards"
    if how.strategy == "stratified":
        best = [one for one in best if at_least(one.reward, how.high_threshold)]
        worst = [one for one in worst if at_least(how.low_threshold, one.reward)]
        if not best:
            return [], "none high enough"
        if not worst:
            return [], "none low enough"
        gap = best[0].reward - worst[0].reward
    if not far_apart(best[0], worst[0], how):
        return [], "gap too small"
    candidates: Iterator[tuple[Attempt, Attempt]]
    once, most = True, how.max_pairs
    used: set[Place] = set()
    if how.strategy == "stratified":
        candidates = _by_gap(best, worst, how, used)
    elif how.pick == "best_worst":
        candidates, most = _by_gap(best, worst, how), 1
    elif how.pick == "all_pairs":
        candidates, once = _by_gap(best, worst, how), False
    elif how.pick == "margin":
        candidates = _closest(best, how, used)
    else:
        candidates = iter(sorted(_by_gap(best, worst, how, ends=_LIKELY), key=_unlike))
    pairs: Pairs = []
    made: set[Any] = set()
    asked = again = 0
    for chosen, rejected in candidates:
        places = (chosen[2:4], rejected[2:4])
        if once and not used.isdisjoint(places):
            continue
        told = (said(chosen), said(rejected)) if said is not None and most > 1 else None
        if told in made:
            again += 1
            if again >= _LIKELY:
                break
            continue
        asked += 1
        if not same(chosen, rejected):
            pairs.append((chosen, rejected))
            if told is not None:
                made.add(told)
            if once:
                used.update(places)
        if len(pairs) >= most or asked >= most + _TRIES:
            break
    return pairs, "paired" if pairs else EQUAL_TEXTS


def left_over(attempts: Iterable[Attempt], pairs: Pairs, how: Pairing) -> tuple[list[Attempt], list[Attempt]]:
    """(high, low) attempts of a task that are in none of its pairs, at most `max_pairs` of each."""
    used = {one[2:4] for pair in pairs for one in pair}
    free = [one for one in attempts if one[2:4] not in used]
    high = sorted((one for one in free if at_least(one.reward, how.high_threshold)), key=_best)
    low = sorted((one for one in free if at_least(how.low_threshold, one.reward)), key=_worst)
    return high[: how.max_pairs], low[: how.max_pairs]


def far_apart(chosen: Attempt, rejected: Attempt, how: Pairing) -> bool:
    """Whether they differ enough in reward to be a pair; 0.9 - 0.7 is a gap of 0.2."""
    gap = chosen.reward - rejected.reward
    return gap > EQUAL and at_least(gap, how.min_gap)


def at_least(one: float, other: float) -> bool:
    """0.7 + 0.1 is no less than 0.8, though a computer's sum of them is."""
    return one >= other - EQUAL


class Left(NamedTuple):
    """An attempt that is in no pair of its task."""

    high: bool
    attempt: Attempt
    job: int = 0
    """Each kind of data has its own pairs."""


def for_across(left: Left) -> Any:
    """The order in which `across` wants them."""
    one = left.attempt
    return (left.job, one.split, one.env, -one.reward if left.high else one.reward, *one[1:4])


def across(kept: Iterable[Left], how: Pairing) -> Iterator[tuple[int, Attempt, Attempt]]:
    """(job, chosen, rejected): for each, of each split and environment the best of the high ones with the worst of the low
    ones, and so on: each once. `kept` is read twice."""
    highs, lows = (one for one in kept if one.high), (one for one in kept if not one.high)
    high, low = next(highs, None), next(lows, None)
    while high is not None and low is not None:
        if _among(high) < _among(low):
            high = next(highs, None)
        elif _among(high) > _among(low):
            low = next(lows, None)
        else:
            if far_apart(high.attempt, low.attempt, how):
                yield high.job, high.attempt, low.attempt
            high, low = next(highs, None), next(lows, None)


def _among(left: Left) -> Any:
    return (left.job, left.attempt.split, left.attempt.env)


def _best(one: Attempt) -> Any:
    return (-one.reward, one.length, one.source, one.at)


def _worst(one: Attempt) -> Any:
    return (one.reward, one.length, one.source, one.at)


def _by_gap(
    best: list[Attempt], worst: list[Attempt], how: Pairing, used: Collection[Place] = (), ends: int | None = None
) -> Iterator[tuple[Attempt, Attempt]]:
    """The widest gap first, which is wide enough; none of those that are `used` meanwhile. Of a task with hundreds of
    attempts only the ends are looked at."""
    yield best[0], worst[0]
    ends = ends or how.max_pairs + _TRIES
    best, unused = best[:ends], _Unused(worst[:ends], used)
    # Gaps get no wider down the list of either: of each of the best only the next pair waits, and of those not reached none.
    waiting: list[tuple[float, int, int, int]] = []

    def wait(i: int, j: int) -> None:
        if (j := unused.first(j)) < len(unused.attempts):
            heappush(waiting, (unused.attempts[j].reward - best[i].reward, i + j, i, j))

    wait(0, 0)
    reached = 0
    while waiting:
        _, _, i, j = heappop(waiting)
        if i == reached and i + 1 < len(best):
            reached += 1
            wait(reached, 0)
        chosen, rejected = best[i], unused.attempts[j]
        if not far_apart(chosen, rejected, how):
            return  # nor are the others
        if (i or j) and rejected[2:4] not in used:
            yield chosen, rejected
        if chosen[2:4] not in used:
            wait(i, j + 1)


def _closest(best: list[Attempt], how: Pairing, used: Collection[Place]) -> Iterator[tuple[Attempt, Attempt]]:
    """Each attempt, the best first, with the next ones below it by at least the gap; none of those that are `used`
    meanwhile."""
    unused = _Unused(best, used)
    start = 0
    for chosen in best:
        while start < len(best) and not far_apart(chosen, best[start], how):
            start += 1
        at = unused.first(start)
        while at < len(best) and chosen[2:4] not in used:
            yield chosen, best[at]
            at = unused.first(at + 1)


class _Unused:
    """Attempts in a list, without those that were `used` meanwhile."""

    def __init__(self, attempts: list[Attempt], used: Collection[Place]) -> None:
        self.attempts, self._used = attempts, used
        self._next = list(range(1, len(attempts) + 1))

    def first(self, at: int) -> int:
        """The first from `at` on, or the end of the list."""
        passed = []
        while at < len(self.attempts) and self.attempts[at][2:4] in self._used:
            passed.append(at)
            at = self._next[at]
        for one in passed:
            self._next[one] = at
        return at


def _unlike(pair: tuple[Attempt, Attempt]) -> float:
    """How different two lengths are: 0 equal, 1 nothing in common."""
    longer = max(pair[0].length, pair[1].length, 1)
    return abs(pair[0].length - pair[1].length) / longer


_FAR = 1e9
"""Rewards beyond it are counted as it."""
_LIKELY = 400
"""Attempts of each end among which those of like lengths are looked for; pairs of a task that repeat another before no more
are looked for."""
_TRIES = 16
"""Pairs of a task that may turn out equal before it is given up."""


# Numbers: why there are no more pairs, and what would give more


class Funnel:
    """Counts over tasks; `add` what another process counted."""

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()
        """What became of them: "paired", "one attempt", ..."""
        self.pairs = 0
        self.across = 0
        """Pairs of different tasks."""
        self.gaps: Counter[float] = Counter()
        """Tasks by the widest gap between two of their attempts, to two places, rounded down."""
        self.wide = 0
        """Tasks with two attempts that are far enough apart."""
        self.ends: Counter[tuple[float, float]] = Counter()
        """Tasks by their best reward, rounded down to two places, and their worst, rounded up."""
        self.free: Counter[tuple[str, bool]] = Counter()
        """Attempts that stratified pairs of a task leave over, by split and environment, and whether they are high."""
        self.cut = 0
        """All pairs: those that --max-pairs leaves out."""

    def count(self, attempts: list[Attempt], outcome: str, pairs: int, how: Pairing) -> None:
        self.tasks[outcome] += 1
        self.pairs += pairs
        rewards = [one.reward for one in attempts]
        best, worst = (min(max(one, -_FAR), _FAR) for one in (max(rewards), min(rewards)))
        gap = best - worst
        if outcome not in (EQUAL_TEXTS, REFUSED):  # no option makes pairs of those
            self._leave(attempts, pairs, how)
            if gap > EQUAL:
                self.gaps[floor((gap + EQUAL) * 100) / 100] += 1
                self.ends[floor(best * 100 + EQUAL) / 100, ceil(worst * 100 - EQUAL) / 100] += 1
                self.wide += at_least(gap, how.min_gap)
        if how.strategy == "same_prompt" and how.pick == "all_pairs" and pairs >= how.max_pairs:
            self.cut += _far_apart(rewards, how) - pairs

    def _leave(self, attempts: list[Attempt], pairs: int, how: Pairing) -> None:
        high = sum(at_least(one.reward, how.high_threshold) for one in attempts)
        low = sum(at_least(how.low_threshold, one.reward) for one in attempts)
        used = pairs if how.strategy == "stratified" else min(high, low, how.max_pairs)
        where = f"{attempts[0].split} {attempts[0].env}"
        self.free[where, True] += min(high - used, how.max_pairs)
        self.free[where, False] += min(low - used, how.max_pairs)

    def add(self, other: Funnel) -> None:
        self.pairs += other.pairs
        self.across += other.across
        self.wide += other.wide
        self.cut += other.cut
        # Not `+=`, which looks through all that is there, each time.
        self.tasks.update(other.tasks)
        self.gaps.update(other.gaps)
        self.ends.update(other.ends)
        self.free.update(other.free)

    def row(self) -> dict[str, Any]:
        return {
            "tasks": sum(self.tasks.values()),
            **{outcome: self.tasks[outcome] for outcome in OUTCOMES if self.tasks[outcome]},
            "pairs": self.pairs,
            **({"pairs_across_prompts": self.across} if self.across else {}),
            **({"pairs_beyond_max_pairs": self.cut} if self.cut else {}),
        }

    def few(self, how: Pairing) -> str | None:
        """What to say where less than every tenth task made a pair: why, and which option would give how many."""
        if not self._short:
            return None
        tasks = sum(self.tasks.values())
        why = ", ".join(f"{count:,} {outcome}" for outcome, count in self.tasks.most_common() if outcome != "paired")
        advice = self.advice(how)
        made = f"{plural(self.pairs + self.across, 'pair')} of {plural(tasks, 'task')} ({why})"
        return "; ".join([made, *advice])

    @property
    def _short(self) -> bool:
        return (self.tasks["paired"] + self.across) * 10 < sum(self.tasks.values())

    def advice(self, how: Pairing) -> list[str]:
        """Which option, or which collection, would give how many more."""
        tasks, paired = sum(self.tasks.values()), self.tasks["paired"]
        found: list[str] = []
        for gap in (1, 0.5, 0.2, 0.1, 0.05, 0.01):
            wider = sum(count for size, count in self.gaps.items() if size >= gap - EQUAL)
            if how.min_gap > gap and how.strategy == "same_prompt" and wider > paired:
                found.append(f"--min-gap {gap} would give pairs for up to {plural(wider, 'task')}")
                break
        if how.strategy == "stratified" and self.wide > paired:
            found.append(f"--strategy same_prompt would give pairs for up to {plural(self.wide, 'task')}")
        if how.strategy == "stratified":
            found += self._lower(how)
        if self.tasks["one attempt"] > tasks / 2:
            share = self.tasks["one attempt"] / tasks
            found.append(f"collect with --repeats 4 or more: {share:.0%} of the tasks have one attempt")
        elif self.tasks["equal rewards"] > tasks / 2:
            share = self.tasks["equal rewards"] / tasks
            found.append(
                f"{share:.0%} of the tasks have attempts of one reward only: collect with a higher --temperature or more "
                "--repeats, or on tasks that the model solves now and then"
            )
        across = sum(min(high, self.free[where, False]) for (where, is_high), high in self.free.items() if is_high)
        more = f"--across-prompts would give up to {plural(across, 'pair')} of different tasks"
        if how.strategy == "stratified" and not how.across_prompts and across:
            found.append(more)
        if how.strategy == "same_prompt" and self._short and across > self.pairs:
            found.append(f"--strategy stratified {more}")
        return found

    def _lower(self, how: Pairing) -> list[str]:
        """The first thresholds below today's that would do."""
        for high, low, gap in ((0.6, 0.5, how.min_gap), (0.6, 0.5, 0.1), (0.5, 0.5, 0.1), (0.5, 0.5, 0.01)):
            if high > how.high_threshold or low < how.low_threshold or gap > how.min_gap:
                continue
            fitting = sum(
                count
                for (best, worst), count in self.ends.items()
                if best >= high and worst <= low and best - worst >= gap - EQUAL
            )
            if fitting > self.tasks["paired"]:
                less = f" --min-gap {gap:g}" if gap < how.min_gap else ""
                options = f"--high-threshold {high:g} --low-threshold {low:g}{less}"
                return [f"{options} would give pairs for up to {plural(fitting, 'task')}"]
        return []


def _far_apart(rewards: list[float], how: Pairing) -> int:
    """Pairs of rewards that differ enough."""
    found = sorted(rewards)
    least = how.min_gap - EQUAL
    return sum(min(bisect_left(found, reward - EQUAL), bisect_right(found, reward - least)) for reward in found)


OUTCOMES = (
    *("one attempt", "equal rewards", "none high enough", "none low enough", "gap too small"),
    *(EQUAL_TEXTS, REFUSED, "paired"),
)
