"""Rewards made of rewards. Every part is kept: `reward_components` are what each contributed and sum to `reward`, `parts`
are the scores before weights and gates.

A score is a number or what a verifier returned (a mapping with `reward`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from rollforge.errors import VerifierFault
from rollforge.records.items import Response, tool_calls

Score: TypeAlias = float | Mapping[str, Any]
Stage: TypeAlias = Callable[[], Score | Awaitable[Score | None] | None]


def weighted(parts: Mapping[str, Score], weights: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The sum of the parts, each times its weight (1 for all if None; with weights, each part needs one)."""
    scores = _scores(parts)
    if weights is not None and set(weights) != set(scores):
        raise VerifierFault(f"the weights are for {', '.join(weights) or 'none'}, the parts are {', '.join(scores)}")
    return _made({name: score * (1.0 if weights is None else weights[name]) for name, score in scores.items()}, scores)


def gated(gates: Mapping[str, Score], rest: Mapping[str, Score], threshold: float = 1.0) -> dict[str, Any]:
    """The sum of all, but what is in `rest` counts only where every gate reaches the threshold: correctness first, style
    after. A policy that fails a gate gets what the gates gave, and nothing for style. Weights are for `weighted` first."""
    first, second = _scores(gates), _scores(rest)
    both = set(first) & set(second)
    if both:
        raise VerifierFault(f"{sorted(both)[0]!r} is both a gate and behind it")
    opened = all(score >= threshold for score in first.values())
    return _made({**first, **{name: score if opened else 0.0 for name, score in second.items()}}, {**first, **second})


def lowest(parts: Mapping[str, Score]) -> dict[str, Any]:
    """The smallest part: as good as the worst of them."""
    return _one(parts, min)


def highest(parts: Mapping[str, Score]) -> dict[str, Any]:
    """The largest part: as good as the best of them."""
    return _one(parts, max)


async def cascade(
    stages: Mapping[str, Stage],
    undecided: Callable[[float], bool] | None = None,
) -> dict[str, Any]:
    """The first score that decides, cheap stages first: a later one is called only if those before said nothing (None), or
    something that is `undecided` (`lambda score: 0 < score < 1`). What the last one says stands.

    Stages are functions without arguments, sync or async. What they raise passes through: a judge's fault is no 0.
    Raises `VerifierFault` if nobody said anything.
    """
    parts: dict[str, float] = {}
    found: Mapping[str, Any] = {}
    for name, stage in stages.items():
        said = stage()
        result = await said if inspect.isawaitable(said) else said
        if result is None:
            continue
        parts[name] = _score(name, result)
        found = result if isinstance(result, Mapping) else {}
        if undecided is None or not undecided(parts[name]):
            break
    if not parts:
        raise VerifierFault(f"none of {', '.join(stages) or 'no stages'} had a verdict")
    decided = next(reversed(parts))
    kept = {key: value for key, value in found.items() if key not in ("reward", "reward_components")}
    return {**kept, **_made({decided: parts[decided]}, parts), "decided_by": decided}


def penalised(score: Score, penalties: Mapping[str, float], floor: float = 0.0, name: str = "score") -> dict[str, Any]:
    """The score less its penalties (numbers of 0 or less), never below `floor` nor above the score itself.

    Where the floor holds them up, they are scaled down to fit, so that the components still sum to the reward.
    """
    base = _score(name, score)
    costs = _scores(penalties)
    if name in costs:
        raise VerifierFault(f"{name!r} is both the score and a penalty")
    bad = next((cost for cost in costs if costs[cost] > 0), None)
    if bad is not None:
        raise VerifierFault(f"the penalty {bad} is {costs[bad]:g}; penalties are 0 or less")
    total = -math.fsum(costs.values())
    room = max(base - floor, 0.0)
    share = 1.0 if total <= room else room / total
    return _made({name: base, **{key: cost * share for key, cost in costs.items()}}, {name: base, **costs})


def length_penalty(reply: str, free: int, full: int, most: float = 1.0) -> float:
    """0 up to `free` words, falling evenly to -`most` at `full` words and beyond."""
    if not 0 <= free < full or most < 0:
        raise VerifierFault(f"free ({free}) words are fewer than full ({full}), and most ({most:g}) is not negative")
    over = (len(reply.split()) - free) / (full - free)
    return -most * min(max(over, 0.0), 1.0)


def call_penalty(response: Response, free: int, each: float, most: float = 1.0) -> float:
    """-`each` for every tool call after the first `free`, down to -`most`."""
    if free < 0 or each < 0 or most < 0:
        raise VerifierFault(f"free ({free}), each ({each:g}) and most ({most:g}) are not negative")
    return -min(most, each * max(len(tool_calls(response)) - free, 0))


def _made(components: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, Any]:
    # + 0.0: a score of 0 under a negative weight is 0, not -0.
    kept = {name: component + 0.0 for name, component in components.items()}
    return {"reward": math.fsum(kept.values()), "reward_components": kept, "parts": dict(parts)}


def _one(parts: Mapping[str, Score], choose: Callable[..., str]) -> dict[str, Any]:
    scores = _scores(parts)
    if not scores:
        raise VerifierFault("there are no parts to choose from")
    chosen = choose(scores, key=scores.__getitem__)
    return _made({name: score if name == chosen else 0.0 for name, score in scores.items()}, scores)


def _scores(parts: Mapping[str, Score]) -> dict[str, float]:
    return {name: _score(name, part) for name, part in parts.items()}


def _score(name: str, part: Any) -> float:
    value: Any = part.get("reward") if isinstance(part, Mapping) else part
    try:
        number = float(value) if not isinstance(value, (str, bytes)) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise VerifierFault(f"the part {name!r} is {value!r:.100}, not a finite number")
    return number
