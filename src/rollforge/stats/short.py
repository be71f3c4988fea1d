"""A profile in a few lines: how many rollouts, what became of them, what to look at."""

from __future__ import annotations

from rollforge.stats.profiling import Profile
from rollforge.stats.text import interval, number, percent, plural
from rollforge.stats.visible import one_line


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
    total = stats.judged + stats.unrewarded + sum(failure.count for failure in profile.failures)
    text, tasks = plural(total, "rollout"), plural(stats.tasks, "task")
    if stats.judged == total:
        text = f"{text} of {tasks}"
    elif stats.judged:  # of the others nobody counts the tasks
        text = f"{text} ({stats.judged:,} with a reward, of {tasks})"
    return text if environments < 2 else f"{text} in {environments} environments"


def outcomes(profile: Profile) -> str:
    """`scored 97, timeout 3, not run 0 (coverage 97.0%)`: the outcomes that occurred."""
    stats = profile.overall.stats
    parts = [f"{name.replace('_', ' ')} {count:,}" for name, count in stats.outcomes.items() if count]
    if stats.unrewarded:
        parts.append(f"no usable reward {stats.unrewarded:,}")
    if profile.not_run:
        parts.append(f"not run {profile.not_run:,}")
    return f"{', '.join(parts) or 'nothing'} (coverage {percent(stats.coverage)})"


def solved(profile: Profile) -> str:
    return f"{percent(profile.overall.stats.reward.solved.value)} solved (reward >= {profile.success:g})"
