"""Which training algorithm the data fits, what not to do with it, and what to collect next. Every sentence has its number.

The numbers are `stats.profile`'s, and so is the judgement of how well they suit GRPO, DPO and SFT; here the algorithms are
ranked and the way from there is told. Sources: the "Quick Selection Guide" and "Algorithm Selection" of NeMo Gym's NeMo RL
integration pages, and its pages on data quality and on optimising collection.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

from rollforge.records.items import Json
from rollforge.records.shown import typed
from rollforge.stats import thresholds as at
from rollforge.stats.findings import Fit
from rollforge.stats.model_size import billions
from rollforge.stats.profiling import Profile, Section
from rollforge.stats.scale import standing, way
from rollforge.stats.shapes import Stats
from rollforge.stats.text import number, percent, plural, share

Level = Literal["good", "possible", "poor", "unsure"]
_RANK: dict[Level, int] = {"good": 3, "possible": 2, "unsure": 1, "poor": 0}

FEW_PROMPTS, MANY_PROMPTS = 100, 500
"""For each task type of a mix: too few below, enough from. NeMo RL integration pages, "Multi-Task Training"."""
KEPT = 0.6
"""A filter for SFT usually keeps 60 to 80 %."""
CLUSTERED = 0.9
"""So many rewards at the two ends of the range are most of them."""
ANSWERED = 0.5
"""With fewer rows that carry an expected answer, a trainer cannot verify by itself."""
MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
"""In commands that need the name of a model, where none is given."""
VOLUMES = ((1_000, "enough to try a pipeline"), (10_000, "a small training set; 10,000 to 100,000 are usual"))


@dataclass(frozen=True, slots=True)
class Choice:
    algorithm: str
    level: Level
    why: list[str]
    """What speaks for it, with numbers."""
    against: list[str]
    commands: list[str]
    """From here to the training files."""

    @property
    def words(self) -> list[str]:
        return [*self.why, *self.against]


@dataclass(frozen=True, slots=True)
class Collecting:
    """How to collect for an algorithm."""

    algorithm: str
    temperature: float
    repeats: str
    concurrency: int | None
    says: str


@dataclass(frozen=True, slots=True)
class Resources:
    model: str
    billions: float | None
    """Of parameters, from the name; None if it does not say."""
    says: str


@dataclass(frozen=True, slots=True)
class Advice:
    numbers: list[tuple[str, str]]
    """What was measured."""
    choices: list[Choice]
    """The best first."""
    environments: dict[str, str | None]
    """Where there are several: what each one's data alone fits best; None where there is too little to say."""
    avoid: list[str]
    collect: list[str]
    """What the next collection should do differently."""
    settings: list[Collecting]
    rewards: list[str]
    """Whether to scale them."""
    resources: Resources | None = None

    @property
    def first(self) -> Choice | None:
        """The recommendation; None if the data suits nothing yet."""
        best = self.choices[0]
        return best if best.level in ("good", "possible") else None

    @property
    def nothing(self) -> str:
        """What is said where there is no recommendation."""
        best = self.choices[0]
        if best.level == "unsure":
            return f"nothing yet: too few rollouts to say; by its kind this data would be for {best.algorithm}"
        return "nothing yet: these rollouts suit no algorithm; see what to collect"

    def row(self) -> Json:
        """The JSON form."""
        return {"recommended": self.first.algorithm if self.first else None, **asdict(self)}


SETTINGS = (
    Collecting("GRPO", 0.5, "1", 50, "many different prompts, one attempt each; 4 to 16 on a sample show which have signal"),
    Collecting("SFT", 0.2, "1", 20, "low temperature, consistent answers; filter afterwards"),
    Collecting("DPO", 0.7, "2 or more", None, "several different answers to each prompt, to be paired"),
    Collecting("PPO", 0.5, "1", 10, "moderate exploration, rewards with degrees"),
)
"""From the pages; where they give no concurrency it is None."""

RESOURCES = (
    (3.5, "1-3B models: 1 GPU of 24 GB"),
    (9.0, "7-8B models: 1 to 2 GPUs of 40 to 80 GB"),
    (29.0, "between 8B and 32B: more than the 1 to 2 GPUs of 80 GB of a 7-8B model, up to the 4 to 8 of a 32B model"),
    (float("inf"), "32B models and larger: 4 to 8 GPUs of 80 GB, on several nodes"),
)


class _Given(NamedTuple):
    """What the commands name."""

    runs: Sequence[str]
    model: str
    split: bool


def advise(
    profile: Profile,
    runs: Sequence[str] = ("RUN",),
    model: str | None = None,
    answered: float | None = None,
    *,
    split: bool = False,
    tools: bool = False,
) -> Advice:
    """`runs`: the sources as the user named them, for the commands. `model`: the name of the one to be trained. `answered`:
    the share of rows that carry an expected answer, if somebody looked. `split`: whether the sources are split already.
    `tools`: whether tasks offer tools (where some were called, that is known)."""
    section = profile.overall
    given = _Given(runs, model or MODEL, split)
    environments = profile.environments if len(profile.environments) > 1 else []
    answers = [("rows with an expected answer", f"{answered:.0%} of those looked at")] if answered is not None else []
    unanswered = answered is not None and answered < ANSWERED
    tooled = tools or bool(section.stats.tools)
    return Advice(
        numbers=[*_numbers(section.stats, profile.success), *answers],
        choices=[_live(choice, unanswered, tooled) for choice in _ranked(section, given)],
        environments={one.stats.name: _best(_ranked(one, given)) for one in environments},
        avoid=list(_avoid(section)),
        collect=list(_collect(section, environments)),
        settings=list(SETTINGS),
        rewards=list(_rewards(section)),
        resources=resources(model) if model else None,
    )


def resources(model: str) -> Resources:
    """By the number of parameters in a name such as Qwen2.5-7B or Mixtral-8x7B."""
    size = billions(model)
    if size is None:
        table = "; ".join(says for _, says in (RESOURCES[0], RESOURCES[1], RESOURCES[3]))
        return Resources(model, None, f"the name does not say how large it is. {table}")
    return Resources(model, size, next(says for limit, says in RESOURCES if size <= limit))


def _numbers(s: Stats, success: float) -> Iterator[tuple[str, str]]:
    r, g = s.reward, s.groups
    yield "rollouts with a reward", f"{s.judged:,} of {plural(s.tasks, 'task')} (coverage {percent(s.coverage)})"
    if not s.judged:
        return
    kinds = _values(s)
    kind = "many values" if kinds is None else plural(kinds, "value")
    yield "rewards", f"mean {number(r.mean.value)}, std {number(r.std)}, from {number(r.min)} to {number(r.max)}, {kind}"
    if not r.beyond:
        yield f"at least {at.SFT:g} (at least {at.SFT_RELAXED:g})", f"{r.sft:,} ({r.sft_relaxed:,}) of {s.judged:,}"
        yield f"above {at.HIGH:g}, below {at.LOW:g}", f"{percent(r.high)}, {percent(r.low)}"
    yield f"solved (at least {success:g})", percent(r.solved.value)
    if s.repeats:
        yield "attempts at a task", f"{number(s.repeats.p50)} (median)"
    if g.count:
        yield "groups with signal (rewards differ)", f"{share(g.count - g.no_signal, g.count)} of {g.count:,}"
        if not r.beyond:
            yield f"tasks with a pair at least {at.GAP:g} apart", f"{g.pairs:,}"
    yield "answers cut short", share(s.texts.truncated, s.judged)


def _values(s: Stats) -> int | None:
    """How many different rewards there are; None for many."""
    bins = s.reward.histogram
    return len(bins) if all(each.low == each.high for each in bins) else None


def _ranked(section: Section, given: _Given) -> list[Choice]:
    """By how well the data suits them, then by the selection guide."""
    s = section.stats
    fits = {fit.algorithm: fit for fit in section.fits}
    found = [
        (_GUIDE[name](s), _choice(fit, s, given))
        for name, fit in (
            ("GRPO", _grpo(fits["GRPO"], s)),
            ("DPO", fits["DPO"]),
            ("SFT", _sft(fits["SFT"], s)),
            ("PPO", _ppo(s)),
        )
    ]
    ordered = sorted(found, key=lambda pair: (-_RANK[pair[1].level], -pair[0][0]))
    return [
        replace(choice, why=[why, *choice.why]) if why and choice.level != "poor" else choice for (_, why), choice in ordered
    ]


def _live(choice: Choice, unanswered: bool, tooled: bool) -> Choice:
    """Only the environment can run its tools, and without expected answers judge new attempts."""
    reasons = ["few rows carry an expected answer"] * unanswered
    if choice.algorithm == "GRPO":
        reasons += ["tasks offer tools, which NeMo RL's own environments leave out"] * tooled
    if choice.algorithm not in ("GRPO", "PPO") or not reasons:
        return choice
    where = "in the environment itself" if choice.algorithm == "GRPO" else "with the environment at $GYM_URL"
    return replace(
        choice,
        against=[*choice.against, _sentence(f"{', and '.join(reasons)}: train live, {where}")],
        commands=[command.replace("nemo-rl:grpo", "nemo-rl:nemo-gym") for command in choice.commands],
    )


def _best(choices: list[Choice]) -> str | None:
    best = choices[0]
    if best.level == "unsure":
        return None
    return f"{best.algorithm} ({best.level})" if best.level != "poor" else "nothing yet"


def _grpo(fit: Fit, s: Stats) -> Fit:
    if fit.level == "good" and s.tasks < FEW_PROMPTS:
        return replace(fit, level="possible", do=f"{plural(s.tasks, 'prompt')} are few: at least {FEW_PROMPTS}.")
    return fit


def _sft(fit: Fit, s: Stats) -> Fit:
    kept = s.reward.sft_relaxed / s.judged if s.judged else 0.0
    if fit.level == "good" and kept < KEPT:
        do = f"A filter at {at.SFT_RELAXED:g} leaves {kept:.0%} of the rollouts; the others teach nothing."
        return replace(fit, level="possible", do=do)
    return fit


def _ppo(s: Stats) -> Fit:
    mean, spread, solved = s.reward.mean.value or 0.0, s.reward.std or 0.0, s.reward.solved.value or 0.0
    low = s.reward.min or 0.0
    if s.judged < at.ENOUGH:
        few = f"{plural(s.judged, 'rollout')} with a reward, too few to say (at least {at.ENOUGH})"
        return Fit("PPO", "unsure", s.judged, at.ENOUGH, few)
    if s.reward.outside:
        says = f"mean {number(mean)}, std {number(spread)}"
        return Fit("PPO", "possible", spread, at.LOW_STD, says, "Scale the rewards to [-1, 1] first.")
    says = f"mean {mean:z.2f}{way(mean, low)}, std {spread:.2f}, {solved:.0%} solved"
    wrong = []
    if not at.LOW_MEAN <= standing(mean, low) <= at.HIGH_MEAN:
        wrong.append(f"a mean of {at.LOW_MEAN:g} to {at.HIGH_MEAN:g}{' of the way' if low < 0 else ''}")
    if not at.SOLVED[0] <= solved <= at.SOLVED[1]:
        wrong.append(f"{at.SOLVED[0]:.0%} to {at.SOLVED[1]:.0%} solved (--success says from which reward)")
    if (_values(s) or 3) <= 2:
        wrong.append("rewards with degrees (these have two values)")
    if s.tasks < FEW_PROMPTS:
        wrong.append(f"{FEW_PROMPTS} prompts (these are {s.tasks})")
    if spread <= at.LOW_STD:
        return Fit("PPO", "poor", spread, at.LOW_STD, says, f"It learns from differences: a std above {at.LOW_STD:g}.")
    return Fit(
        "PPO", "possible" if wrong else "good", spread, at.LOW_STD, says, f"Wanted: {', '.join(wrong)}." if wrong else ""
    )


def _choice(fit: Fit, s: Stats, given: _Given) -> Choice:
    return Choice(fit.algorithm, fit.level, [fit.says], [fit.do] if fit.do else [], _commands(fit.algorithm, s, given))


def _commands(algorithm: str, s: Stats, given: _Given) -> list[str]:
    name = algorithm.lower()
    runs = " ".join(map(typed, given.runs))
    commands = []
    if s.reward.beyond or (s.reward.outside and name in ("grpo", "ppo")):
        # Before the preset, whose thresholds are for what comes out.
        commands.append(f"rollforge curate {runs} --shape scale --out scaled-{name}")
        runs = f"scaled-{name}"
    steps = [f"--preset {name}"]
    target = f"nemo-rl:{name}"
    if name == "sft":
        if s.reward.sft >= at.FEW and not s.reward.beyond:
            steps.append(f"--filter 'reward >= {at.SFT:g}'")  # there are enough to be choosy
        else:
            target += f" --min-reward {at.SFT_RELAXED:g}"  # as the preset
    if name == "sft" and s.texts.same_conversation > at.DUPLICATE * s.judged:
        steps.append("--dedup both")
    if s.tasks >= FEW_PROMPTS and not given.split:
        steps.append("--split 95/5")
    if name == "dpo" and (s.tools or (s.turns and s.turns.max > 1)):
        target += "-messages"  # the other holds one text
    if name == "ppo":
        # The same prompts as for GRPO, but advantages by a value model instead of within groups.
        model = shlex.quote(given.model)
        critic = f"--set algorithm.adv_estimator=gae --set critic.model.path={model}"
        target = f"verl:grpo --model {model} {critic}"
    return [
        *commands,
        f"rollforge curate {runs} {' '.join(steps)} --out curated-{name}",
        f"rollforge export curated-{name} --to {target} --out export-{name}",
    ]


# The guide: (how much it speaks for the algorithm among equally good ones, in words). What does not apply says nothing.


def _guide_grpo(s: Stats) -> tuple[float, str]:
    return 0.8, "the outcome of each task is verified, and a trainer can verify new attempts the same way"


def _guide_sft(s: Stats) -> tuple[float, str]:
    part = s.reward.sft / s.judged if s.judged and not s.reward.beyond else 0.0
    return (1.0, f"{part:.0%} of the rollouts are demonstrations already") if part >= 1 - at.SHARE else (0.2, "")


def _guide_dpo(s: Stats) -> tuple[float, str]:
    several = s.groups.pairs and s.repeats is not None and s.repeats.p50 >= 2
    return (0.6, "several attempts at each prompt, of mixed quality") if several else (0.1, "")


def _guide_ppo(s: Stats) -> tuple[float, str]:
    if (_values(s) or 3) <= 2:
        return 0.3, _PPO
    # Rewards with degrees; where tasks have groups, GRPO needs no value model for the same.
    return (0.4 if s.groups.count else 0.9), f"rewards with degrees; {_PPO}"


_PPO = "it reads the same prompts as GRPO, with a value model (a critic) in place of the groups"


_GUIDE: dict[str, Callable[[Stats], tuple[float, str]]] = {
    "GRPO": _guide_grpo,
    "DPO": _guide_dpo,
    "SFT": _guide_sft,
    "PPO": _guide_ppo,
}


def _avoid(section: Section) -> Iterator[str]:
    s = section.stats
    if not s.judged:
        return
    below = s.judged - s.reward.sft_relaxed
    if below and s.reward.sft_relaxed and not s.reward.beyond:
        yield (
            f"SFT on all rollouts: {share(below, s.judged)} have less than {at.SFT_RELAXED:g}, "
            "and it imitates whatever it is shown"
        )
    silent = s.groups.no_signal_share or 0.0
    if s.groups.count >= at.ENOUGH_GROUPS and silent > at.NO_SIGNAL:
        yield f"GRPO on all tasks: in {silent:.0%} of the groups all rewards are equal, and the advantage is zero"
    if s.groups.count - s.groups.no_signal:
        yield "dropping low rewards before GRPO: a group without its failures has no signal"
    if not s.groups.pairs:
        yield "DPO pairs across prompts, for want of others: they teach which prompt is easier, not which answer is better"
    spread = s.reward.std or 0.0
    if s.judged >= at.ENOUGH and spread <= at.LOW_STD and not s.reward.outside:
        yield f"PPO: the rewards hardly differ (std {spread:.2f}), and its gradient would be noise"
    if s.texts.truncated:
        yield f"training on the {plural(s.texts.truncated, 'answer')} that were cut short: they teach to stop anywhere"
    if s.texts.same_conversation > at.DUPLICATE * s.judged:
        copies = share(s.texts.same_conversation, s.judged)
        yield f"keeping copies: {copies} of the rollouts repeat an earlier one of their task word for word"


_COLLECTING = (
    *("coverage", "verifier_faults", "sample", "identical_rewards", "mean_reward", "group_signal", "groups"),
    *("truncated", "duplicates", "tool_errors", "mixed_prompts", "contrast", "balance"),
)


def _collect(section: Section, environments: Sequence[Section]) -> Iterator[str]:
    s = section.stats
    if not s.judged:
        yield "There is nothing to judge yet: `rollforge show RUN --failures` says why rollouts failed."
        return
    for finding in section.findings:
        if finding.level != "ok" and finding.do and finding.check in _COLLECTING:
            do = "" if finding.check == "sample" else f" {finding.do}"
            # What it says of the balance begins with the name of an environment.
            yield f"{f'{finding.says}.' if finding.check == 'balance' else _sentence(finding.says)}{do}"
    tokens = s.tokens.get("output")
    if s.texts.truncated > at.TRUNCATED * s.judged and tokens is not None:
        yield f"Answers have up to {number(tokens.max)} tokens: try --max-output-tokens {2 * int(tokens.max)}."
    few = [one.stats for one in environments or [section] if one.stats.judged and one.stats.tasks < FEW_PROMPTS]
    if few:
        names = ", ".join(f"{one.name} {one.tasks:,}" for one in few[:5]) + (", ..." if len(few) > 5 else "")
        yield f"Fewer than {FEW_PROMPTS} prompts ({names}): take {FEW_PROMPTS} to {MANY_PROMPTS} for each task type."
    for volume, says in VOLUMES:
        if s.judged < volume:
            yield f"{plural(s.judged, 'rollout')}: fewer than {volume:,}, {says}."
            break


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _rewards(section: Section) -> Iterator[str]:
    s = section.stats
    if not s.judged:
        return
    r = s.reward
    scaled = [finding for finding in section.findings if finding.check in ("reward_range", "reward_scales")]
    for finding in scaled:
        yield f"{_sentence(finding.says)} {finding.do}"
    ends = _at_ends(s)
    if ends >= CLUSTERED and (r.std or 0.0) > at.EQUAL:
        yield (
            f"{ends:.0%} of the rewards are {_ends(s)}, the ends of the range: PPO wants them "
            "standardised (--shape standardize); GRPO does that within each group, and thresholds of SFT and DPO want them "
            "as they are."
        )
    elif not scaled:
        yield f"All lie in [-1, 1] ({number(r.min)} to {number(r.max)}): no scaling is needed."


def _at_ends(s: Stats) -> float:
    bins = s.reward.histogram
    return (bins[0].count + bins[-1].count) / s.judged if len(bins) > 1 else 0.0


def _ends(s: Stats) -> str:
    """What the first and the last bin hold: a value each, or all that is below or from their inner edges."""
    first, last = s.reward.histogram[0], s.reward.histogram[-1]
    if _values(s) is not None:
        return f"{number(first.low)} or {number(last.low)}"
    return f"below {number(first.high)} or at least {number(last.low)}"
