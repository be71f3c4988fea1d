"""Two sides that played the same tasks, compared pair by pair: the same task, the same repeat.

The test is a permutation test by sign flips over tasks (Fisher 1935; for language models Dror et al. 2018, ACL): if the two
sides were alike, the sum of differences of each task could as well have had the other sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rollforge.collect.run_dir import differences
from rollforge.errors import UserError
from rollforge.evaluate.attempts import Attempts, find_runs, read_attempts, told
from rollforge.records.items import Json
from rollforge.records.shown import without_secrets
from rollforge.stats.compare import PassAt, pass_at
from rollforge.stats.estimate import LEVEL, Groups, Mean, Numbers, clustered_mean, finite
from rollforge.stats.text import plural
from rollforge.stats.thresholds import EQUAL

ALPHA = 1 - LEVEL
EXACT_TASKS = 16
"""With no more tasks than this every flip is looked at."""
EXACT_STEPS = 1_000_000_000
DRAWS = 20_000
AT_ONCE = 4_000_000
MOST_CHANGED = 10


@dataclass(frozen=True, slots=True)
class Contrast:
    """Of the rollouts with a reward on both sides."""

    before: Mean
    after: Mean
    difference: Mean
    """After minus before, task and repeat being the same."""
    p_value: float
    """Two-sided."""
    tasks: int
    rollouts: int
    wins: int
    """Tasks whose mean rose."""
    ties: int
    losses: int

    @property
    def significant(self) -> bool:
        return self.p_value < ALPHA


@dataclass(frozen=True, slots=True)
class Changed:
    """A task whose mean changed."""

    env: str
    task: str
    index: int | None
    rollouts: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Paired(Contrast):
    pass_at: list[PassAt]
    by_env: dict[str, Contrast]
    """Empty where there is one environment."""
    by_category: dict[str, dict[str, Contrast]]
    """Field of the task -> its value -> what became of those tasks."""
    changed: list[Changed]
    """The tasks that changed most, largest first."""
    unpaired: tuple[int, int]
    """Rollouts with a reward that have none on the other side: before, after."""
    notes: list[str]
    """What is not alike, or limits what can be concluded."""

    def row(self) -> Json:
        return finite(asdict(self))  # type: ignore[no-any-return]

    @property
    def regressions(self) -> list[str]:
        """Where the mean fell significantly: overall, or in an environment (p values times their number, Bonferroni)."""
        found = [_fell("overall", self)] if self.significant and (self.difference.value or 0) < 0 else []
        for name, one in self.by_env.items():
            if one.p_value * len(self.by_env) < ALPHA and (one.difference.value or 0) < 0:
                found.append(_fell(name, one))
        return found


def compare_runs(before: str | Path, after: str | Path, *, success: float = 1.0, by: Iterable[str] = ()) -> Paired:
    """Each side: a run directory, a file of rollouts, or a directory of run directories of one model.

    Raises `UserError` if one cannot be read, or the two have no task and repeat in common.
    """
    asked = tuple(by)
    old, new = (read_attempts(find_runs(side), success, asked) for side in (before, after))
    return compare_attempts(old, new, success)


# Rewards of 1e300 are legal; their squares are infinite, and written as null.
@np.errstate(over="ignore", invalid="ignore")
def compare_attempts(before: Attempts, after: Attempts, success: float = 1.0) -> Paired:
    """The same of what `read_attempts` read; categories are those of `after`."""
    notes: list[str] = []
    left, right, envs = _joined(before, after, notes)
    x, y, tasks = before.reward[left], after.reward[right], _numbered(envs, after.task[right])
    names = after.envs
    by_env = {names[n]: _contrast(x, y, tasks, envs == n) for n in np.unique(envs).tolist()}
    overall = _contrast(x, y, tasks)
    notes += [*_mismatches(before, after), *_limits(overall)]
    everything = _unjudged(before), _unjudged(after)
    if any(everything):
        notes.append(f"{plural(everything[0], 'rollout')} before and {everything[1]} after without a reward are left out")
    return Paired(
        **{name: getattr(overall, name) for name in Contrast.__slots__},
        pass_at=pass_at(x >= success - EQUAL, y >= success - EQUAL, tasks),
        by_env=by_env if len(by_env) > 1 else {},
        by_category={
            name: {
                values[code]: _contrast(x, y, tasks, codes[right] == code)
                for code in sorted(np.unique(codes[right]).tolist(), key=lambda code: values[code])
                if code >= 0
            }
            for name, (codes, values) in after.categories.items()
        },
        changed=_changed(after, right, x, y, tasks),
        unpaired=(int(before.judged.sum()) - len(x), int(after.judged.sum()) - len(y)),
        notes=notes,
    )


def sign_flip(sums: Numbers) -> float:
    """The two-sided p value of the sum, every number having the one or the other sign with equal chance.

    Exact for few numbers, and for whole multiples of the least (rewards 0 and 1); else from so many draws, seeded.
    """
    sizes = np.sort(np.abs(sums[np.abs(sums) > EQUAL]))  # the draws are by place, and tasks come in any order
    if not len(sizes):
        return 1.0
    observed = abs(float(sums.sum())) - EQUAL * float(sizes[-1])  # sums of 0.1 that cancel leave a last bit
    units = sizes / sizes.min()
    whole = np.round(units).astype(np.int64) if units.sum() * len(units) <= EXACT_STEPS else None
    if whole is not None and np.abs(units - whole).max() < 1e-6:
        return _exact(whole, observed / float(sizes.min()))
    if len(sizes) <= EXACT_TASKS:
        signs = (np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes)) & 1) * 2 - 1
        return float((np.abs(signs @ sizes) >= observed).mean())
    rng, reached, left = np.random.default_rng(0), 0, DRAWS
    while left > 0:
        some = min(left, max(1, AT_ONCE // len(sizes)))
        # The signed sum is twice the sum of those drawn less the sum of all.
        drawn = rng.integers(0, 2, (some, len(sizes)), dtype=np.int8) @ sizes
        reached += int((np.abs(2 * drawn - sizes.sum()) >= observed).sum())
        left -= some
    return (reached + 1) / (DRAWS + 1)


def _exact(sizes: Groups, observed: float) -> float:
    """The distribution of the sum of those with a plus, number by number."""
    total = int(sizes.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for size in sizes.tolist():
        chances /= 2
        chances[size:] = chances[size:] + chances[:-size]
    return min(1.0, float(chances[np.abs(2 * np.arange(total + 1) - total) >= observed].sum()))


def _joined(before: Attempts, after: Attempts, notes: list[str]) -> tuple[Groups, Groups, Groups]:
    """The positions of the pairs on either side, and the environment of each, numbered as in `after`."""
    for by_prompt in (False, True):
        left, right = _pairs(before, after, by_prompt)
        if len(left):
            if by_prompt:
                notes.append("the two name their tasks differently: joined by prompt")
            return left, right, after.env[right]
    if not (before.judged.any() and after.judged.any()):
        raise UserError(f"{_names(before if not before.judged.any() else after)} has no rollout with a reward to compare")
    raise UserError(
        f"{_names(before)} and {_names(after)} have no task and repeat in common, so there is nothing to compare: "
        f"the one has {_some(before)}; the other {_some(after)}. "
        "Play the same environment with the same options and seed of its tasks."
    )


def _pairs(before: Attempts, after: Attempts, by_prompt: bool) -> tuple[Groups, Groups]:
    shared = {name: number for number, name in enumerate(dict.fromkeys([*before.envs, *after.envs]))}
    # One environment on either side is the same one, however it is named: by its URL, or in another file.
    one = len(before.envs) == len(after.envs) == 1
    keys: list[Groups] = []
    places: list[Groups] = []
    for side in (before, after):
        where = np.flatnonzero(side.judged)
        envs = np.array([0 if one else shared[name] for name in side.envs])[side.env[where]]
        tasks = side.prompt if by_prompt else side.task
        keys.append(_mixed(_mixed(tasks[where], envs), side.repeat[where]))
        places.append(where)
    _, left, right = np.intersect1d(keys[0], keys[1], return_indices=True)
    order = np.argsort(places[1][right])
    return places[0][left][order], places[1][right][order]


def _mixed(marks: Groups, number: Groups) -> Groups:
    """Hashes of hash and number, by a step of splitmix64."""
    x = marks.astype(np.uint64) + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed: Groups = (x ^ (x >> np.uint64(27))).astype(np.int64)
    return mixed


def _numbered(envs: Groups, tasks: Groups) -> Groups:
    """From 0, in any order."""
    return np.unique(_mixed(tasks, envs), return_inverse=True)[1].astype(np.int64).reshape(-1)


def _contrast(x: Numbers, y: Numbers, tasks: Groups, only: NDArray[np.bool_] | None = None) -> Contrast:
    if only is not None:
        x, y, tasks = x[only], y[only], _numbered(tasks[only], tasks[only])
    change = y - x
    sums = np.bincount(tasks, change).astype(np.float64)
    difference = clustered_mean(change, tasks, cut=False)
    within = len(x) and all(side.min() >= 0 and side.max() <= 1 for side in (x, y))
    if within and difference.low is not None and difference.high is not None:
        difference = replace(difference, low=max(difference.low, -1.0), high=min(difference.high, 1.0))
    return Contrast(
        before=clustered_mean(x, tasks),
        after=clustered_mean(y, tasks),
        difference=difference,
        p_value=sign_flip(sums),
        tasks=len(sums),
        rollouts=len(x),
        wins=int((sums > EQUAL).sum()),
        ties=int((np.abs(sums) <= EQUAL).sum()),
        losses=int((sums < -EQUAL).sum()),
    )


def _changed(after: Attempts, right: Groups, x: Numbers, y: Numbers, tasks: Groups) -> list[Changed]:
    counts = np.bincount(tasks)
    before, now = np.bincount(tasks, x) / counts, np.bincount(tasks, y) / counts
    first = np.unique(tasks, return_index=True)[1]
    sizes = np.abs(now - before)
    if len(sizes) > MOST_CHANGED:
        sizes = np.where(sizes >= np.partition(sizes, -MOST_CHANGED)[-MOST_CHANGED], sizes, 0.0)
    found = []
    for n in np.flatnonzero(sizes > EQUAL).tolist():
        env, task = int(after.env[right[first[n]]]), int(after.task[right[first[n]]])
        name, index = after.labels[env, task]
        found.append(Changed(after.envs[env], name, index, int(counts[n]), float(before[n]), float(now[n])))
    found.sort(key=lambda one: (-round(abs(one.after - one.before), 9), one.env, one.index or 0, one.task))
    return found[:MOST_CHANGED]


def _limits(overall: Contrast) -> Iterator[str]:
    changed = overall.wins + overall.losses
    if changed and 2.0 ** (1 - changed) >= ALPHA:
        few = "1 task differs" if changed == 1 else f"{changed} tasks differ"
        yield f"only {few}: the test can find nothing significant with fewer than 6 such tasks"


def _mismatches(before: Attempts, after: Attempts) -> Iterator[str]:
    """What two runs of an environment were not told alike, the model apart."""
    old, new = _identities(before), _identities(after)
    if len(old) == len(new) == 1:
        pairs = [("", one, other) for one in old.values() for other in new.values()]
    else:
        pairs = [(f"{name}: ", old[name], new[name]) for name in old if name in new]
    for name, one, other in pairs:
        yield from (f"not played alike: {name}{line}" for line in differences(one, other))


def _identities(side: Attempts) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for source, name in zip(side.sources, side.names, strict=True):
        about = told(source)
        identity = about.get("identity")
        if isinstance(identity, dict) and "seed" in about and "env" in about:
            own = {key: value for key, value in identity.items() if key != "model"}
            found[name or str(about["env"])] = {**without_secrets(own, marked=True), "seed": about["seed"]}
    return found


def _unjudged(side: Attempts) -> int:
    return int((~side.judged).sum())


def _names(side: Attempts) -> str:
    return ", ".join(source.name for source in side.sources)


def _some(side: Attempts) -> str:
    ids = ", ".join(task for task, _ in list(side.labels.values())[:3])
    return f"{plural(len(side.labels), 'task')} of {', '.join(side.envs)} ({ids}{', ...' if len(side.labels) > 3 else ''})"


def _fell(name: str, one: Contrast) -> str:
    fall = one.difference
    interval = "" if fall.low is None or fall.high is None else f", 95 % interval {fall.low:.3f} to {fall.high:.3f}"
    return f"{name}: mean reward fell by {-(fall.value or 0):.3f}{interval}, p = {one.p_value:.2g}, {one.tasks} tasks"
