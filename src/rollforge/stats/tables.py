"""The tables of the report, as words: what the terminal and the HTML page both show. Cells are safe to print (`visible`),
not yet escaped for HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollforge.stats.estimate import Quantiles
from rollforge.stats.findings import LEVELS, Finding
from rollforge.stats.profiling import Profile, Section
from rollforge.stats.shapes import Stats, TaskRow
from rollforge.stats.text import bin_labels, interval, number, percent, share
from rollforge.stats.thresholds import EQUAL, GAP
from rollforge.stats.visible import one_line, visible


@dataclass(frozen=True, slots=True)
class Grid:
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int = 1
    """So many columns on the left are words, the others numbers."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    labels: list[str]
    sizes: list[int]
    total: int


def environments(profile: Profile) -> Grid:
    rows = []
    for section in profile.environments:
        s = section.stats
        cells = (number(s.judged), number(s.tasks), percent(s.coverage, digits=0), interval(s.reward.mean))
        rows.append((visible(s.name), *cells, number(s.reward.std), percent(s.reward.solved.value)))
    return Grid(("environment", "rollouts", "tasks", "cover", "mean, 95%", "std", "solved"), rows)


def rewards(s: Stats) -> list[tuple[str, str]]:
    r = s.reward
    return [
        ("mean", f"{interval(r.mean)}; {r.mean.note}"),
        ("mean of task means", number(r.mean_of_tasks)),
        ("std (within tasks)", f"{number(r.std)} ({number(s.groups.std_within)})"),
        ("min, quartiles, max", ", ".join(number(q) for q in (r.min, r.p25, r.p50, r.p75, r.max))),
        ("solved", f"{percent(r.solved.value)} of rollouts"),
    ]


def reward_bars(s: Stats) -> Bars:
    bins = s.reward.histogram
    return Bars(bin_labels(bins), [each.count for each in bins], s.judged)


def at_k(s: Stats) -> Grid:
    # best@k is pass@k when rewards are 0 and 1.
    partial = any(abs(row.best - row.pass_at) > EQUAL for row in s.at_k)
    rows = []
    for row in s.at_k:
        cells = [number(row.k), number(row.tasks), percent(row.pass_at), percent(row.pass_all), percent(row.majority)]
        rows.append((*cells, number(row.avg), *([number(row.best)] if partial else [])))
    note = "pass@k: one of k succeeds; pass^k: all do; majority@k: the commonest answer is right; "
    note += "avg@k, best@k: mean and highest reward." if partial else "avg@k: mean reward."
    columns = ("k", "tasks", "pass@k", "pass^k", "majority@k", "avg@k", *(["best@k"] if partial else []))
    return Grid(columns, rows, words=0, note=note)


def difficulty(s: Stats) -> Bars:
    d = s.difficulty
    labels = ["easy, 0.8 or more", "medium, 0.4 or more", "hard, over 0", "unsolved"]
    return Bars(labels, [d.easy, d.medium, d.hard, d.unsolved], s.tasks)


def groups(s: Stats) -> str:
    g = s.groups
    if not g.count:
        return "Every task has one rollout."
    silent = f"Groups without signal (all rewards equal): {share(g.no_signal, g.count)} of {g.count:,}"
    pairs = f"Groups with rewards at least {GAP:g} apart, a preference pair each: {g.pairs:,}."
    return f"{silent}, {g.no_signal_high:,} of them solved. {pairs}"


def hardest(profile: Profile, section: Section) -> list[TaskRow]:
    rows = (row for row in profile.tasks() if section is profile.overall or row.env == section.stats.name)
    return sorted(rows, key=lambda row: (row.solve_rate, row.mean))


def tasks(rows: Iterable[TaskRow]) -> Grid:
    cells = []
    for row in rows:
        name = one_line(row.task if row.index is None else str(row.index), 16)
        numbers = (f"{row.solved}/{row.rollouts}", number(row.mean), number(row.std))
        cells.append((name, one_line(row.prompt, 40), *numbers))
    return Grid(("task", "prompt", "solved", "mean", "std"), cells, words=2)


def effort(s: Stats) -> Grid:
    named: list[tuple[str, Quantiles | None]] = [
        *((f"{name} tokens", values) for name, values in s.tokens.items()),
        ("turns", s.turns),
        ("tool calls", s.calls if s.tools else None),
        *((f"seconds, {name}", values) for name, values in s.seconds.items()),
        ("attempts", s.attempts if s.attempts and s.attempts.max > 1 else None),
    ]
    rows = [
        (one_line(name, 24), *(number(value) for value in (q.mean, q.p50, q.p90, q.p99, q.max, q.total)))
        for name, q in named
        if q is not None
    ]
    return Grid(("", "mean", "p50", "p90", "p99", "max", "sum"), rows)


def answers(s: Stats) -> list[tuple[str, str]]:
    t = s.texts
    reasons = ", ".join(f"{one_line(reason, 30)} {count:,}" for reason, count in list(t.truncated_by.items())[:3])
    rows = [
        ("with reasoning", share(t.reasoning, s.judged)),
        ("without a reply", share(t.no_reply, s.judged)),
        ("cut short", share(t.truncated, s.judged) + (f": {reasons}" if reasons else "")),
        ("same reply as an earlier one of its task", share(t.same_reply, s.judged)),
        ("the same word for word, reasoning included", share(t.same_conversation, s.judged)),
        ("without an answer to vote with", share(s.answers.silent, s.judged)),
    ]
    if t.token_ids:
        rows.append(("with token ids", share(t.token_ids, s.judged)))
        rows.append(("of these, every prompt continues the tokens before", share(t.contiguous, t.token_ids)))
    return rows


def tools(s: Stats) -> Grid:
    rows = [
        (one_line(tool.name, 40), number(tool.calls), share(tool.errors, tool.calls), number(tool.rollouts))
        for tool in s.tools
    ]
    return Grid(("tool", "calls", "errors", "rollouts"), rows)


def metrics(sections: Sequence[Section]) -> Grid:
    """The verifiers' metrics by environment."""
    several = len(sections) > 1
    rows = []
    for section in sections:
        for name, m in section.stats.metrics.items():
            cells = tuple(number(value) for value in (m.n, m.mean, m.std, m.min, m.max))
            rows.append((*([visible(section.stats.name)] if several else []), one_line(name, 40), *cells))
    inputs = sorted({name for section in sections for name in section.stats.task_fields})
    note = one_line(f"Left out, being the task's own (constant within each): {', '.join(inputs)}", 500) if inputs else ""
    columns = (*(["environment"] if several else []), "metric", "n", "mean", "std", "min", "max")
    return Grid(columns, rows, words=1 + several, note=note)


def failures(profile: Profile, section: Section) -> list[tuple[str, str]]:
    """How many rollouts have no reward, and why, by the last failure."""
    whole = section is profile.overall
    named = whole and len(profile.environments) > 1
    rows = []
    for row in profile.failures:
        if whole or row.env == section.stats.name:
            where = f"{row.env}: " if named else ""
            rows.append((f"{row.count:,}", one_line(f"{where}{row.outcome} in {row.stage}, {row.type}: {row.message}", 400)))
    more = profile.failed_attempts - sum(failure.count for failure in profile.failures)
    if more and whole:
        rows.append((f"{more:,}", "more failed attempts, of these rollouts or of ones that a retry mended"))
    return rows


@dataclass(frozen=True, slots=True)
class Verdict:
    level: str
    says: str
    more: list[str]
    """Why it matters and what to do, of what needs doing."""


def verdicts(profile: Profile, section: Section) -> list[Verdict]:
    """The section's findings and, for all environments, what is wrong with each; the worst first."""
    rows = [(finding, "") for finding in section.findings]
    if section is profile.overall and len(profile.environments) > 1:
        for one in profile.environments:
            rows += [(finding, f"{one.stats.name}: ") for finding in one.findings if finding.level in ("bad", "warn")]
    rows.sort(key=lambda row: LEVELS.index(row[0].level))
    return [Verdict(finding.level, visible(about + finding.says), _more(finding, about)) for finding, about in rows]


def fits(section: Section) -> list[Verdict]:
    return [Verdict(fit.level, f"{fit.algorithm}: {visible(fit.says)}", [fit.do] if fit.do else []) for fit in section.fits]


def _more(finding: Finding, about: str) -> list[str]:
    # The same finding about all environments together has said it.
    return [text for text in (finding.why, finding.do) if text] if finding.level in ("bad", "warn") and not about else []
