"""Whether the rewards of collected rollouts can be trusted: the audit's idea, on what policies really said.

Everything is measured within tasks (a value minus the mean of its task), so that hard tasks with long answers do not pass
for a reward that dislikes length. Intervals are 95 %, by resampling tasks (bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollforge.audit.columns import Columns
from rollforge.stats.estimate import Numbers
from rollforge.stats.text import plural

Ids: TypeAlias = NDArray[np.int64]
Names: TypeAlias = dict[tuple[object, ...], int]

DRAWS = 400
FEW_TASKS = 5
ENOUGH = 20
WEAK = 0.3
"""A correlation that is worth a look."""
DOMINATES = 0.9
SATURATED = 0.95
DUPLICATE = 0.2
EQUAL = 1e-9

Level = str


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing looked at."""

    check: str
    level: Level
    """error, warning, ok, or unsure: too little to say."""
    says: str
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    """The 95 % interval."""
    do: str = ""


# As in stats.measure: rewards of 1e300 are legal.
@np.errstate(over="ignore", invalid="ignore")
def validate(
    rows: Columns, *, success: float = 1.0, label: str | None = None, compare: tuple[str, str] | None = None
) -> list[Mark]:
    """`label`: a number in the rows that says which are good (of a person, or of another verifier). `compare`: two numbers
    that should agree, such as a judge's verdict and a rule's."""
    if not rows.size:
        return [Mark("sample", "error", "there is no rollout with a reward")]
    marks = [*_faults(rows), *_saturation(rows, success), *_same_reply(rows), *_duplicates(rows), *_empty(rows, success)]
    marks += [*_discrimination(rows, success, label), *_measures(rows), *_parts(rows), *_agreement(rows, success, compare)]
    marks += list(_injected(rows, success))
    order = ("error", "warning", "unsure", "ok")
    return sorted(marks, key=lambda mark: order.index(mark.level))


@np.errstate(over="ignore", invalid="ignore")
def drift(old: Columns, new: Columns) -> list[Mark]:
    """What changed between two runs of the same tasks; what changed in the verifier shows in replies that both have."""
    first, second = _names(old, new)
    marks = list(_regraded(old, new, first, second))
    shared = [name for name in first if name in second]
    if len(shared) < FEW_TASKS or not (old.size and new.size):
        return [*marks, Mark("drift", "unsure", f"the runs share {plural(len(shared), 'task')}: too few to compare means")]
    for name in ("reward", "length", "tool calls", "cut short"):
        before, after = _means(old, name), _means(new, name)
        differences = np.array([after[second[one]] - before[first[one]] for one in shared])
        differences = differences[~np.isnan(differences)]
        if not len(differences):
            continue
        value, low, high = _ratio(differences, np.ones_like(differences))
        moved = low > EQUAL or high < -EQUAL
        says = f"{name}: {value:+z.4g} from the one run to the other [{low:.4g}, {high:.4g}], "
        says += f"over {plural(len(differences), 'task')}"
        marks.append(Mark(f"drift of {name}", "warning" if moved else "ok", says, value, low, high))
    return marks


def _faults(rows: Columns) -> Iterator[Mark]:
    total = sum(rows.outcomes.values())
    for name in ("verifier_fault", "judge_fault"):
        count = rows.outcomes[name]
        if count:
            says = f"{count} of {plural(total, 'rollout')} got no verdict ({name})"
            yield Mark(
                "faults",
                "error" if name == "verifier_fault" else "warning",
                says,
                count / total,
                do="rollforge show RUN --failures",
            )


def _saturation(rows: Columns, success: float) -> Iterator[Mark]:
    rewards = rows.rewards
    if rows.size < ENOUGH:
        yield Mark(
            "sample",
            "unsure",
            f"{plural(rows.size, 'rollout')} with a reward: too few to judge most of this (at least {ENOUGH})",
        )
        return
    top, bottom = float((rewards >= success - EQUAL).mean()), float((rewards <= rewards.min() + EQUAL).mean())
    if np.ptp(rewards) <= EQUAL:
        says = f"all {rows.size} rewards are {rewards[0]:g}"
        yield Mark("saturation", "error", says, 1.0, do="attack the verifier: rollforge audit; or take other tasks")
    elif max(top, bottom) >= SATURATED:
        which = "full marks" if top >= bottom else "the least reward"
        says = f"{max(top, bottom):.0%} of the rewards are {which}: the reward tells next to nothing apart"
        yield Mark("saturation", "warning", says, max(top, bottom), do="harder tasks" if top >= bottom else "easier tasks")
    else:
        yield Mark("saturation", "ok", f"{top:.0%} of the rewards are full marks, {bottom:.0%} the least", max(top, bottom))


def _same_reply(rows: Columns) -> Iterator[Mark]:
    """Equal replies to one task with other rewards: chance, order or time is in the verdict."""
    seen: dict[tuple[int, int], float] = {}
    unlike = pairs = 0
    worst = 0.0
    for task, answer, reward in zip(rows.task, rows.answered, rows.reward, strict=True):
        if not answer:
            continue
        if (task, answer) not in seen:
            seen[task, answer] = reward
            continue
        pairs += 1
        apart = abs(seen[task, answer] - reward)
        unlike += apart > EQUAL
        worst = max(worst, apart)
    repeated = plural(pairs, "repeated reply", "repeated replies")
    if unlike:
        says = f"{unlike} of {repeated} (same words and calls) got another reward, up to {worst:.2g} apart"
        yield Mark("determinism", "error", says, unlike / pairs, do="rollforge audit finds what it depends on")
    elif pairs:
        yield Mark("determinism", "ok", f"{repeated} got the same reward as before", 0.0)


def _duplicates(rows: Columns) -> Iterator[Mark]:
    answers = [(task, answer) for task, answer in zip(rows.task, rows.answered, strict=True) if answer]
    if len(answers) < ENOUGH or len(set(rows.task)) == rows.size:
        return
    share = 1 - len(set(answers)) / len(answers)
    level = "warning" if share > DUPLICATE else "ok"
    says = f"{share:.0%} of the replies repeat another one of their task"
    yield Mark("duplicates", level, says, share, do="a higher temperature" if level != "ok" else "")


def _empty(rows: Columns, success: float) -> Iterator[Mark]:
    rewards = rows.rewards
    empty = np.array(rows.answered, dtype=np.int64) == 0
    cut = rows.column("cut short") > 0
    for name, which in (("nothing was said", empty), ("the answer was cut short", cut)):
        if which.any():
            paid = float((rewards[which] >= success - EQUAL).mean())
            level = "error" if paid > 0 and which is empty else "warning" if paid > SATURATED else "ok"
            yield Mark(
                "no answer", level, f"{plural(int(which.sum()), 'rollout')} where {name}: {paid:.0%} with full marks", paid
            )


def _injected(rows: Columns, success: float) -> Iterator[Mark]:
    if rows.speaking:
        replies = plural(rows.speaking, "reply", "replies")
        says = f"full marks for {replies} to a grader, or to end a test: {'; '.join(rows.speaks)}"
        yield Mark("override", "warning", says, rows.speaking / rows.size, do="look at them: rollforge show RUN --best")


def _discrimination(rows: Columns, success: float, label: str | None) -> Iterator[Mark]:
    """The chance that a good rollout has more reward than a bad one of the same task (area under the ROC curve)."""
    if label is not None:
        name = f"field: {label}"
        if name not in rows.numbers:
            known = ", ".join(sorted(key.removeprefix("field: ") for key in rows.numbers if key.startswith("field: ")))
            yield Mark("discrimination", "error", f"no row has a number {label!r}; there are: {known or 'none'}")
            return
        values, by = rows.column(name), f"by {label}"
        usable = ~np.isnan(values)
        good = values >= (np.nanmin(values) + np.nanmax(values)) / 2
    else:
        (good, usable), by = _majority(rows), "by the answer that most attempts at a task agree on (a proxy)"
    found = _auc(rows.rewards, good, usable, rows.groups)
    if found is None:
        yield Mark("discrimination", "unsure", f"no task has good and bad rollouts {by}: nothing can be told apart")
        return
    value, low, high, tasks = found
    says = f"good ones get more than bad ones with probability {value:.2f} [{low:.2f}, {high:.2f}], {by}, "
    says += f"over {plural(tasks, 'task')}"
    do = ""
    if tasks < FEW_TASKS:
        level = "unsure"
    elif high < 0.5 and label is None:
        level, do = "warning", "a weak policy agrees on wrong answers; if this one is not weak, read the verifier"
    elif high < 0.5:
        level, do = "error", "the reward does not follow the label"
    elif low <= 0.5:
        level = "warning" if label is not None else "unsure"
    else:
        level = "ok"
    yield Mark("discrimination", level, says, value, low, high, do)


def _majority(rows: Columns) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    groups, said = rows.groups, np.array(rows.said, dtype=np.int64)
    good = np.zeros(rows.size, dtype=np.bool_)
    usable = np.zeros(rows.size, dtype=np.bool_)
    for places in _by_group(groups):
        answers, counts = np.unique(said[places], return_counts=True)
        best = int(counts.argmax())
        # Half of at least four, and ahead of the next: else there is no majority.
        if len(places) >= 4 and 2 * counts[best] >= len(places) and answers[best] and (counts == counts[best]).sum() == 1:
            good[places] = said[places] == answers[best]
            usable[places] = True
    return good, usable


def _auc(
    rewards: Numbers, good: NDArray[np.bool_], usable: NDArray[np.bool_], groups: Ids
) -> tuple[float, float, float, int] | None:
    wins: list[float] = []
    pairs: list[float] = []
    for places in _by_group(groups):
        places = places[usable[places]]
        high, low = rewards[places[good[places]]], np.sort(rewards[places[~good[places]]])
        if len(high) and len(low):
            below = np.searchsorted(low, high - EQUAL, "left")
            equal = np.searchsorted(low, high + EQUAL, "right") - below
            wins.append(float(below.sum() + 0.5 * equal.sum()))
            pairs.append(float(len(high) * len(low)))
    if not pairs:
        return None
    won, all_pairs = np.array(wins), np.array(pairs)
    value, low_end, high_end = _ratio(won, all_pairs)
    return value, low_end, high_end, len(pairs)


def _measures(rows: Columns) -> Iterator[Mark]:
    """Reward against length, form and tool calls."""
    residual = _within(rows.rewards, rows.groups)
    for name in rows.numbers:
        if name.startswith(("field: ", "part: ")):
            continue
        found = _correlation(residual, _within(rows.column(name), rows.groups), rows.groups)
        if found is None:
            continue
        value, low, high, tasks = found
        sure = (low > 0 or high < 0) and tasks >= FEW_TASKS
        # A form or a tool that the task needs goes along with reward by right; length alone never does so closely.
        grave = abs(value) >= DOMINATES and name == "length"
        level = "ok" if not sure or abs(value) < WEAK else "error" if grave else "warning"
        what = name.removeprefix("form: ")
        says = f"reward and {what}: correlation {value:+z.2f} [{low:+z.2f}, {high:+z.2f}] within {plural(tasks, 'task')}"
        do = f"a policy will learn {what} before it learns the task: look at both ends" if level != "ok" else ""
        yield Mark(f"reward and {what}", level, says, value, low, high, do)


def _parts(rows: Columns) -> Iterator[Mark]:
    parts = {name.removeprefix("part: "): rows.column(name) for name in rows.numbers if name.startswith("part: ")}
    if len(parts) < 2 or rows.size < ENOUGH:
        return
    spans = {name: float(np.nanmax(values) - np.nanmin(values)) for name, values in parts.items()}
    constant = [name for name, span in spans.items() if span <= EQUAL]
    widest = max(spans.values())
    if not EQUAL < widest < np.inf:
        return
    # Of the widest span, so that no square is too large.
    spread = {name: float(np.nanvar((values - np.nanmin(values)) / widest)) for name, values in parts.items()}
    largest = max(spread, key=lambda name: spread[name])
    share = spread[largest] / sum(spread.values())
    still = f"; always the same: {', '.join(constant)}" if constant else ""
    level = "warning" if share >= DOMINATES or constant else "ok"
    says = f"{largest} makes {share:.0%} of the differences between rewards, of {len(parts)} parts{still}"
    yield Mark(
        "parts", level, says, share, do="weigh the parts anew, or drop those that never differ" if level != "ok" else ""
    )


def _agreement(rows: Columns, success: float, compare: tuple[str, str] | None) -> Iterator[Mark]:
    """A judge against a rule: Cohen's kappa of the two as yes and no."""
    fields = {name.removeprefix("field: "): name for name in rows.numbers if name.startswith("field: ")}
    if compare is None:
        judged = next((name for name in fields if "judge" in name.lower()), None)
        ruled = next(
            (n for n in fields if any(w in n.lower() for w in ("library", "rule", "exact", "symbolic", "match"))), None
        )
        if judged is None or ruled is None:
            return
        compare = judged, ruled
    missing = [name for name in compare if name not in fields]
    if missing:
        yield Mark("agreement", "error", f"no row has a number {missing[0]!r}; there are: {', '.join(fields) or 'none'}")
        return
    a, b = (rows.column(fields[name]) for name in compare)
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < ENOUGH:
        yield Mark(
            "agreement", "unsure", f"{plural(int(both.sum()), 'rollout')} with both {compare[0]} and {compare[1]}: too few"
        )
        return
    x, y = a[both] >= success / 2, b[both] >= success / 2
    same = float((x == y).mean())
    chance = float(x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean()))
    kappa = (same - chance) / (1 - chance) if chance < 1 else 1.0
    value, low, high = _ratio(*_sums((x == y).astype(np.float64), rows.groups[both]))
    says = (
        f"{compare[0]} and {compare[1]} agree on {value:.0%} [{low:.0%}, {high:.0%}] of {int(both.sum())}, kappa {kappa:.2f}"
    )
    says += f"; only {compare[0]} says yes: {int((x & ~y).sum())}, only {compare[1]}: {int((~x & y).sum())}"
    level = "ok" if kappa >= 0.8 else "warning" if kappa >= 0.4 else "error"
    yield Mark("agreement", level, says, value, low, high, "look at those that differ" if level != "ok" else "")


def _names(old: Columns, new: Columns) -> tuple[Names, Names]:
    """The tasks of each. One environment on either side is the same one, however it is named: by its URL, or by its file."""
    one = len({env for env, *_ in old.names}) == len({env for env, *_ in new.names}) == 1
    first: Names = {name[one:]: number for name, number in old.names.items()}
    second: Names = {name[one:]: number for name, number in new.names.items()}
    return first, second


def _regraded(old: Columns, new: Columns, first: Names, second: Names) -> Iterator[Mark]:
    names = {number: name for name, number in first.items()}
    before = {
        (names[task], answer): reward
        for task, answer, reward in zip(old.task, old.answered, old.reward, strict=True)
        if answer
    }
    names = {number: name for name, number in second.items()}
    shared = unlike = 0
    for task, answer, reward in zip(new.task, new.answered, new.reward, strict=True):
        had = before.get((names[task], answer))
        if answer and had is not None:
            shared += 1
            unlike += abs(had - reward) > EQUAL
    if unlike:
        says = (
            f"{unlike} of {plural(shared, 'reply', 'replies')} in both runs with another reward: another verifier, or an "
            "unsteady one"
        )
        yield Mark("regraded", "error", says, unlike / shared, do="judge the older run again: rollforge reverify")
    elif shared:
        yield Mark("regraded", "ok", f"{plural(shared, 'reply', 'replies')} in both runs with the same reward", 0.0)
    else:
        yield Mark("regraded", "unsure", "no reply stands in both runs")


def _means(rows: Columns, name: str) -> Numbers:
    values = rows.rewards if name == "reward" else rows.column(name)
    counts = np.bincount(rows.groups, minlength=len(rows.names))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(rows.groups, weights=values, minlength=len(rows.names)) / counts, dtype=np.float64)


def _within(values: Numbers, groups: Ids) -> Numbers:
    """Each value minus the mean of its task."""
    known = ~np.isnan(values)
    kept = np.where(known, values, 0.0)
    size = int(groups.max()) + 1
    counts = np.bincount(groups, weights=known, minlength=size)
    means = np.bincount(groups, weights=kept, minlength=size) / np.maximum(counts, 1)
    return np.asarray(values - means[groups], dtype=np.float64)


def _correlation(x: Numbers, y: Numbers, groups: Ids) -> tuple[float, float, float, int] | None:
    """Pearson's, of deviations within tasks; with an interval by resampling tasks. None where one never differs."""
    known = ~np.isnan(x) & ~np.isnan(y)
    x, y, groups = x[known], y[known], groups[known]
    if len(x) < ENOUGH or not all(EQUAL < np.abs(side).max() < np.inf for side in (x, y)):
        return None
    x, y = (
        x / np.abs(x).max(),
        y / np.abs(y).max(),
    )  # no square is too large then, and what hardly moves is known by its size
    xy, _ = _sums(x * y, groups)
    xx, _ = _sums(x * x, groups)
    yy, _ = _sums(y * y, groups)
    moving = (xx > EQUAL) | (yy > EQUAL)
    xy, xx, yy = xy[moving], xx[moving], yy[moving]

    def value(pick: Ids) -> Numbers:
        below = np.sqrt(xx[pick].sum(axis=-1) * yy[pick].sum(axis=-1))
        return np.asarray(xy[pick].sum(axis=-1) / np.maximum(below, 1e-30), dtype=np.float64)

    return (*_interval(value, len(xy)), len(xy))


def _ratio(above: Numbers, below: Numbers) -> tuple[float, float, float]:
    return _interval(
        lambda pick: np.asarray(above[pick].sum(axis=-1) / below[pick].sum(axis=-1), dtype=np.float64), len(above)
    )


def _interval(value: Callable[[Ids], Numbers], size: int) -> tuple[float, float, float]:
    """The value over all tasks and its 2.5 and 97.5 % quantiles over resampled tasks; the draws are always the same ones."""
    everything = float(value(np.arange(size)[None, :])[0])
    rng = np.random.default_rng(0)
    step = max(1, 4_000_000 // max(size, 1))
    drawn: list[Numbers] = []
    for start in range(0, DRAWS, step):
        drawn.append(value(rng.integers(0, size, (min(step, DRAWS - start), size))))
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975))
    return everything, float(low), float(high)


def _sums(values: Numbers, groups: Ids) -> tuple[Numbers, Numbers]:
    """Per task: the sum, and how many."""
    _, numbered = np.unique(groups, return_inverse=True)
    return np.bincount(numbered, weights=values).astype(np.float64), np.bincount(numbered).astype(np.float64)


def _by_group(groups: Ids) -> Sequence[Ids]:
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return [np.asarray(part, dtype=np.int64) for part in np.split(order, starts)]
