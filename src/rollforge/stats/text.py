"""Numbers as words: the formats that every report shares, and the short summary."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rollforge.stats.visible import one_line

if TYPE_CHECKING:
    from rollforge.stats.estimate import Bin, Mean
    from rollforge.stats.profiling import Profile

NONE = "-"


def summary(profile: Profile) -> str:
    """A few plain lines: what was judged, how well it went, what to look at."""
    stats = profile.overall.stats
    lines = [f"{counts(profile)}; {outcomes(profile)}"]
    if stats.judged:
        lines.append(f"mean reward {interval(stats.reward.mean)}, std {number(stats.reward.std)}; {solved(profile)}")
        at_k = [f"pass@{row.k} {percent(row.pass_at)}" for row in stats.at_k]
        groups = stats.groups
        if groups.count:
            at_k.append(f"{groups.count - groups.no_signal} of {groups.count} groups with signal")
        lines.append(", ".join(at_k))
    lines += [
        f"{finding.level}: {one_line(finding.says, 200)}"
        for finding in profile.overall.findings
        if finding.level in ("bad", "warn")
    ]
    return "\n".join(lines)


def counts(profile: Profile) -> str:
    stats, environments = profile.overall.stats, len(profile.environments)
    total = stats.judged + sum(failure.count for failure in profile.failures)
    text = f"{plural(total, 'rollout')} of {plural(stats.tasks, 'task')}"
    return text if environments < 2 else f"{text} in {environments} environments"


def outcomes(profile: Profile) -> str:
    """`scored 97, timeout 3, not run 0 (coverage 97.0%)`: the outcomes that occurred."""
    stats = profile.overall.stats
    parts = [f"{name.replace('_', ' ')} {count:,}" for name, count in stats.outcomes.items() if count]
    if profile.not_run:
        parts.append(f"not run {profile.not_run:,}")
    return f"{', '.join(parts) or 'nothing'} (coverage {percent(stats.coverage)})"


def solved(profile: Profile) -> str:
    return f"{percent(profile.overall.stats.reward.solved.value)} solved (reward >= {profile.success:g})"


def interval(mean: Mean) -> str:
    """`0.612 [0.571, 0.653]`, or the mean alone where there is no interval."""
    if mean.low is None or mean.high is None:
        return number(mean.value)
    return f"{number(mean.value)} [{number(mean.low)}, {number(mean.high)}]"


def number(value: float | None) -> str:
    """Three digits after the point below 1, thousands with commas, large ones with k, M, G."""
    if value is None or not math.isfinite(value):
        return NONE
    value = round(value, 12)
    size = abs(value)
    if size >= 1e15 or 0 < size < 5e-4:
        return f"{value:.2g}"
    if size >= 1e6:
        unit, letter = (1e12, "T") if size >= 1e12 else (1e9, "G") if size >= 1e9 else (1e6, "M")
        return f"{value / unit:.4g}{letter}"
    if float(value).is_integer():
        return f"{int(value):,}"
    return (
        f"{value:.3f}" if size < 1 else f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"
    )


def percent(share: float | None, digits: int = 1) -> str:
    return NONE if share is None or not math.isfinite(share) else f"{share:.{digits}%}"


def share(count: int, total: int) -> str:
    """`12 (4.0%)`"""
    return f"{count:,} ({count / total:.1%})" if total else f"{count:,}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bin_labels(bins: Iterable[Bin]) -> list[str]:
    return [_edge(each.low) if each.low == each.high else f"{_edge(each.low)} to {_edge(each.high)}" for each in bins]


def _edge(value: float) -> str:
    return f"{value:.4g}"
