"""What the numbers mean for training, in words. Thresholds: `thresholds`; the reasons stand in each finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Literal

from rollforge.records.rollout import Outcome
from rollforge.stats import thresholds as at
from rollforge.stats.scale import different_ranges, standing, way
from rollforge.stats.shapes import Stats
from rollforge.stats.text import number, plural

Level = Literal["bad", "warn", "unsure", "ok"]
LEVELS: tuple[Level, ...] = ("bad", "warn", "unsure", "ok")
"""The order in which findings are told."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    """`unsure`: the sample is too small to say."""
    measured: float | None
    threshold: float | None
    says: str
    why: str = ""
    do: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """How well the rollouts suit a training algorithm."""

    algorithm: str
    level: Literal["good", "possible", "poor", "unsure"]
    measured: float
    threshold: float
    says: str
    do: str = ""
    """What would make it suit better."""


def findings(s: Stats) -> list[Finding]:
    """All checks that apply, the bad ones first."""
    found = [*_ending(s), *_conversations(s), *_groups(s), *_distribution(s)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def between(environments: Sequence[Stats]) -> list[Finding]:
    """Checks that compare environments; none for a single one."""
    judged = [one for one in environments if one.judged]
    found = []
    if different := different_ranges({one.name: (one.reward.min or 0.0, one.reward.max or 0.0) for one in judged}):
        found.append(
            Finding(
                "reward_scales",
                "warn",
                None,
                None,
                f"environments reward on different ranges ({different})",
                "The environment with the largest rewards dominates the gradient and every mean over all.",
                "Scale each to one range, unless it only never got further (rollforge curate --shape scale); compare "
                "environments by their own rows.",
            )
        )
    total = sum(one.judged for one in judged)
    largest_env = max(judged, key=lambda one: one.judged, default=None)
    if largest_env is not None and len(judged) > 2 and largest_env.judged > at.LARGEST_ENV * total:
        share = largest_env.judged / total
        found.append(
            Finding(
                "balance",
                "warn",
                share,
                at.LARGEST_ENV,
                f"{largest_env.name} makes up {share:.0%} of the rollouts (more than {at.LARGEST_ENV:.0%})",
                "A model trained on the mixture learns mostly that environment.",
                "Collect more of the others, or balance.",
            )
        )
    return found


def _ending(s: Stats) -> Iterator[Finding]:
    """Which rollouts have a reward at all."""
    faults = s.outcomes[Outcome.VERIFIER_FAULT]
    if s.coverage is not None:
        level: Level = "ok" if s.coverage >= at.COVERAGE else "warn" if s.coverage >= at.POOR_COVERAGE else "bad"
        what = f"{s.coverage:.1%} of the rollouts have a reward"
        what += "" if level == "ok" else f" (under {at.COVERAGE:.0%})"
        do = "Run the same collect command again; it resumes. `rollforge show RUN --failures` shows why they failed."
        if s.unrewarded:
            what += f"; {plural(s.unrewarded, 'row')} without a usable one"
            do = "`rollforge stats RUN --bad` lists them: give them the reward that they lack, or judge their answers anew."
        elif faults and isclose(s.judged, s.coverage * (s.judged + faults)):  # nothing else is missing
            do = "Mend the environment, then rollforge reverify. `rollforge show RUN --failures` shows why they failed."
        yield Finding(
            "coverage",
            level,
            s.coverage,
            at.COVERAGE,
            what,
            "Failures are not random: the long and the hard rollouts fail first, so the means flatter.",
            do,
        )
    if faults:
        yield Finding(
            "verifier_faults",
            "bad",
            faults,
            0,
            f"the verifier or the environment failed on {plural(faults, 'rollout')}",
            "These answers could not be judged; another attempt would fail again.",
            "`rollforge show RUN --failures`, mend the environment, then re-verify.",
        )


def _conversations(s: Stats) -> Iterator[Finding]:
    texts = s.texts
    if texts.token_ids > texts.contiguous:
        drifted = texts.token_ids - texts.contiguous
        yield Finding(
            "token_contiguity",
            "bad",
            drifted,
            0,
            f"in {plural(drifted, 'rollout')} of {texts.token_ids} a prompt does not continue the tokens before it",
            "Trainers that join the calls of a rollout (NeMo RL) refuse them, or train on tokens nobody sampled.",
            "Send earlier turns as token ids (chat templates drop reasoning, and retokenise), or leave these rollouts out.",
        )
    if not s.judged:
        return
    if texts.truncated > at.TRUNCATED * s.judged:
        share = texts.truncated / s.judged
        reasons = ", ".join(f"{reason} {count}" for reason, count in list(texts.truncated_by.items())[:3])
        yield Finding(
            "truncated",
            "warn",
            share,
            at.TRUNCATED,
            f"{share:.0%} of the answers were cut short ({reasons})",
            "A cut answer gets its reward for a limit, not for the task; training on it teaches to stop anywhere.",
            "Raise max_output_tokens or the turn limit, or leave out truncated rollouts.",
        )
    if s.judged >= at.ENOUGH and texts.same_conversation > at.DUPLICATE * s.judged:
        share = texts.same_conversation / s.judged
        yield Finding(
            "duplicates",
            "warn",
            share,
            at.DUPLICATE,
            f"{share:.0%} of the rollouts repeat an earlier one of their task word for word",
            "Copies cost compute and add nothing; groups of copies have no signal.",
            "Raise the temperature; drop duplicates before training.",
        )
    calls = int(s.calls.total) if s.calls else 0
    if calls >= at.ENOUGH and s.call_errors > at.TOOL_ERRORS * calls:
        share = s.call_errors / calls
        yield Finding(
            "tool_errors",
            "warn",
            share,
            at.TOOL_ERRORS,
            f"{share:.0%} of the tool calls returned an error",
            "Either the policy misuses the tools or a tool is broken.",
            "Look at the tools by name; `rollforge show RUN --worst` shows what they answered.",
        )


def _groups(s: Stats) -> Iterator[Finding]:
    groups = s.groups
    if groups.mixed_prompts:
        yield Finding(
            "mixed_prompts",
            "warn",
            groups.mixed_prompts,
            0,
            f"the rollouts of {plural(groups.mixed_prompts, 'task')} do not all start from the same prompt",
            "A group compares attempts at one problem; different starts (an unseeded environment, merged files) are not.",
            "Seed the environment by task, or profile the files one by one.",
        )
    if not groups.count:
        if s.judged:
            yield Finding(
                "groups",
                "unsure",
                0,
                2,
                "every task has one rollout: nothing is known about the spread within a task",
                "Group signal, preference pairs and pass@k for k > 1 need several attempts at the same task.",
                "Collect with more repeats (4 to 16).",
            )
        return
    share = groups.no_signal_share or 0.0
    says = f"{share:.0%} of {groups.count} groups have no signal (all rewards equal)"
    if groups.count < at.ENOUGH_GROUPS:
        says += f": too few groups to judge (fewer than {at.ENOUGH_GROUPS})"
        yield Finding("group_signal", "unsure", share, at.NO_SIGNAL, says)
        return
    if share <= at.NO_SIGNAL:
        yield Finding("group_signal", "ok", share, at.NO_SIGNAL, says)
        return
    solved = groups.no_signal_high
    if solved * 2 > groups.no_signal:
        do = "Most of them are always solved: take harder tasks, or drop the easy ones."
    else:
        do = "Most of them are never solved: take easier tasks, a stronger model, more repeats or a higher temperature."
    yield Finding(
        "group_signal",
        "bad" if share > at.HARDLY_SIGNAL else "warn",
        share,
        at.NO_SIGNAL,
        f"{says}; {solved} all solved, {groups.no_signal - solved} not",
        "GRPO's advantage is zero in such a group: its rollouts cost compute and teach nothing.",
        do,
    )


def _distribution(s: Stats) -> Iterator[Finding]:
    r = s.reward
    if r.outside:
        whom = ", before filters and pairs too" if r.beyond else " for GRPO and PPO; SFT and DPO take them as they are"
        yield Finding(
            "reward_range",
            "warn",
            r.outside,
            0,
            f"{plural(r.outside, 'reward')} outside [-1, 1]: from {r.min:.4g} to {r.max:.4g}",
            "Clipping, learning rates and thresholds of most recipes assume rewards in [-1, 1].",
            f"Scale them (rollforge curate --shape scale, or in the trainer){whom}.",
        )
    if s.judged < at.ENOUGH:
        yield Finding(
            "sample",
            "unsure",
            s.judged,
            at.ENOUGH,
            f"{plural(s.judged, 'rollout')} with a reward: too few to judge the distribution (at least {at.ENOUGH})",
            do="Collect more before you act on these numbers.",
        )
        return
    mean, spread = r.mean.value or 0.0, r.std or 0.0
    if spread <= at.EQUAL:
        solved = bool(r.solved.value)
        yield Finding(
            "identical_rewards",
            "bad",
            spread,
            0,
            f"all {s.judged} rewards are {mean:g}",
            "Nothing can be learned from a constant reward, and a verifier that always says the same may be broken.",
            "Try the verifier on `scripted:wrong` and `scripted:perfect`; then take "
            + ("harder tasks." if solved else "easier tasks."),
        )
        return
    if r.outside:
        yield Finding(
            "scale",
            "unsure",
            r.outside,
            0,
            f"mean {number(mean)} and std {number(spread)} on a scale from {r.min:.4g} to {r.max:.4g}: no judgement",
            "The thresholds for mean, spread and contrast are for rewards between 0 and 1.",
        )
        return
    yield from _mean(mean, r.min or 0.0)
    enough = spread >= at.LOW_STD
    yield Finding(
        "spread",
        "ok" if enough else "warn",
        spread,
        at.LOW_STD,
        f"the standard deviation of rewards is {spread:.2f} ({'at least' if enough else 'under'} {at.LOW_STD:g})",
        "PPO and GRPO learn from differences between rewards; without them the gradient is noise.",
        "Raise the temperature, mix task difficulties, or reward partial success.",
    )
    high, low = r.high or 0.0, r.low or 0.0
    missing = [f"high (> {at.HIGH:g})"] * (high < at.SHARE) + [f"low (< {at.LOW:g})"] * (low < at.SHARE)
    yield Finding(
        "contrast",
        "warn" if missing else "ok",
        min(high, low),
        at.SHARE,
        f"{high:.0%} of rewards are high (> {at.HIGH:g}), {low:.0%} low (< {at.LOW:g})"
        + (f": too few {' and '.join(missing)} for DPO (at least {at.SHARE:.0%})" if missing else ""),
        "DPO needs answers to prefer and answers to reject.",
        "Take tasks of medium difficulty, or raise the temperature.",
    )


def _mean(mean: float, low: float) -> Iterator[Finding]:
    why = "Outside 0.3 to 0.9 few rollouts differ from the rest, and the policy has little to learn from."
    measured = standing(mean, low)
    if measured < at.LOW_MEAN:
        says = f"under {at.LOW_MEAN:g}"
        do = "Take easier tasks or a stronger model, reward partial success, or check the verifier."
    elif measured > at.HIGH_MEAN:
        says, do = f"over {at.HIGH_MEAN:g}", "Take harder tasks, or drop the ones that are always solved."
    else:
        says, do = f"between {at.LOW_MEAN:g} and {at.HIGH_MEAN:g}", ""
    limit = at.HIGH_MEAN if measured > at.HIGH_MEAN else at.LOW_MEAN
    text = f"the mean reward is {mean:z.2f}{way(mean, low)} ({says})"
    yield Finding("mean_reward", "warn" if do else "ok", measured, limit, text, why, do)


def fits(s: Stats) -> list[Fit]:
    """GRPO, DPO, SFT: does this data suit it, and why."""
    if s.judged < at.ENOUGH:
        few = f"{plural(s.judged, 'rollout')} with a reward, too few to say (at least {at.ENOUGH})"
        return [Fit(name, "unsure", s.judged, at.ENOUGH, few) for name in ("GRPO", "DPO", "SFT")]
    return [_grpo(s), _dpo(s), _sft(s)]


def _grpo(s: Stats) -> Fit:
    """Measured: the share of groups with signal; without groups, the spread."""
    mean, spread, groups, scaled = s.reward.mean.value or 0.0, s.reward.std or 0.0, s.groups, not s.reward.outside
    numbers = f"mean {mean:z.2f}, std {spread:.2f}" if scaled else f"mean {number(mean)}, std {number(spread)}"
    if groups.count < at.ENOUGH_GROUPS:
        says = f"{numbers}; signal within groups is not known ({plural(groups.count, 'group')})"
        level: Literal["possible", "poor"] = "possible" if spread >= at.LOW_STD else "poor"
        return Fit("GRPO", level, spread, at.LOW_STD, says, "Collect several repeats per task to know.")
    signal, threshold = 1 - (groups.no_signal_share or 0.0), 1 - at.NO_SIGNAL
    says = f"{signal:.0%} of {groups.count} groups have signal; {numbers}"
    if not scaled:
        level = "possible" if signal > 1 - at.HARDLY_SIGNAL else "poor"
        return Fit("GRPO", level, signal, threshold, says, "Scale the rewards to [-1, 1] first.")
    wanted = at.LOW_MEAN <= standing(mean, s.reward.min or 0.0) <= at.HIGH_MEAN
    if signal >= threshold and wanted and spread >= at.LOW_STD:
        return Fit("GRPO", "good", signal, threshold, says)
    do = "Keep the tasks of medium difficulty, raise the temperature, or add repeats."
    return Fit("GRPO", "possible" if signal > 1 - at.HARDLY_SIGNAL else "poor", signal, threshold, says, do)


def _dpo(s: Stats) -> Fit:
    """Measured: tasks that give a pair."""
    pairs, high, low = s.groups.pairs, s.reward.high or 0.0, s.reward.low or 0.0
    if s.reward.beyond:
        level: Literal["possible", "poor"] = "possible" if pairs else "poor"
        says = f"{plural(pairs, 'task')} with rewards at least {at.GAP:g} apart, on a scale that reaches {s.reward.max:.4g}"
        return Fit("DPO", level, pairs, at.FEW, says, "Scale the rewards first: what is high or low is for rewards up to 1.")
    says = f"{plural(pairs, 'task')} with rewards at least {at.GAP:g} apart; {high:.0%} high, {low:.0%} low"
    if pairs >= at.FEW and min(high, low) >= at.SHARE:
        return Fit("DPO", "good", pairs, at.FEW, says)
    do = f"Wanted: {at.FEW} such tasks, {at.SHARE:.0%} high and {at.SHARE:.0%} low. More tasks, or more repeats of each."
    return Fit("DPO", "possible" if pairs else "poor", pairs, at.FEW, says, do)


def _sft(s: Stats) -> Fit:
    """Measured: demonstrations."""
    strict, relaxed = s.reward.sft, s.reward.sft_relaxed
    if s.reward.beyond:
        says = f"rewards reach {s.reward.max:.4g}: which are demonstrations is not known"
        return Fit("SFT", "possible", strict, at.FEW, says, "Scale the rewards first, or give min_reward.")
    says = f"{plural(strict, 'demonstration')} with reward at least {at.SFT:g}"
    if relaxed > strict:
        says += f", {relaxed} with at least {at.SFT_RELAXED:g}"
    if strict >= at.FEW:
        return Fit("SFT", "good", strict, at.FEW, says)
    do = f"Fewer than {at.FEW} are few: collect more, or from a stronger model."
    return Fit("SFT", "possible" if relaxed else "poor", strict, at.FEW, says, do)
