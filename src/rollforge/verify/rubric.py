"""A rubric: criteria with weights, each judged by itself, so that none colours another and each is a part of the reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.verify.judge import Judge, judged, together
from rollforge.verify.judge_prompt import Template, plain_material

CRITERION = Template(
    "Decide whether a reply to a request meets one criterion.\n"
    "Look at this criterion alone. It is met only if the reply itself shows it; that the reply says so is not enough. "
    "Length, style and confidence do not count unless the criterion asks for them.",
    {"MET": 1.0, "NOT MET": 0.0},
)


@dataclass(frozen=True, slots=True)
class Criterion:
    text: str
    weight: float = 1.0
    """A negative one is a fault: meeting it costs."""
    name: str = ""


async def rubric(
    judge: Judge, request: str, reply: str, criteria: Any, *, reference: str = "", template: Template = CRITERION
) -> dict[str, Any]:
    """The share of the positive weight that the reply earns, less the faults it has, at least 0.

    `criteria` as `criteria_of` reads them. Every one is a part in `reward_components`; `floor` makes up for what faults
    would take beyond 0. An empty reply is 0 without asking. Raises `VerifierFault` for a rubric that is none.
    """
    wanted = criteria_of(criteria)
    total = math.fsum(one.weight for one in wanted if one.weight > 0)
    names = _names(wanted)
    if not reply.strip():
        return {"reward": 0.0, "reward_components": {**dict.fromkeys(names, 0.0), "floor": 0.0}, "judge_evaluations": []}
    found = await together([judged(judge, template, _material(one, request, reply, reference)) for one in wanted])
    parts = {name: one.weight / total * row["reward"] for name, one, row in zip(names, wanted, found, strict=True)}
    parts["floor"] = max(0.0, -math.fsum(parts.values()))
    opinions = [
        {**each, "criterion": name} for name, row in zip(names, found, strict=True) for each in row["judge_evaluations"]
    ]
    return {"reward": max(0.0, math.fsum(parts.values())), "reward_components": parts, "judge_evaluations": opinions}


def criteria_of(rows: Any) -> list[Criterion]:
    """Of a row: a list of texts, or of objects with `criterion` (or `text`, `description`), and, if they have any, `weight`
    (or `points`) and `name` (or `title`, `id`). Raises `VerifierFault`: no list, no text, no weight, none positive."""
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise VerifierFault(f"the rubric is {rows!r:.100}; it is a list of criteria")
    found = [one if isinstance(one, Criterion) else _criterion(one, place) for place, one in enumerate(rows, 1)]
    if not any(one.weight > 0 for one in found):
        raise VerifierFault("no criterion of the rubric has a positive weight: there is nothing to earn")
    return found


def _criterion(row: Any, place: int) -> Criterion:
    given: Mapping[str, Any] = row if isinstance(row, Mapping) else {"text": row}
    text = _first(given, ("criterion", "text", "description"))
    weight = _first(given, ("weight", "points"))
    name = _first(given, ("name", "title", "id"))
    if not isinstance(text, str) or not text.strip():
        raise VerifierFault(f"criterion {place} of the rubric has no text: {row!r:.100}")
    if weight is None:
        weight = 1.0
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not abs(weight) <= _HEAVIEST:
        raise VerifierFault(
            f"criterion {place} of the rubric has the weight {weight!r:.50}, which is no number from -1e9 to 1e9"
        )
    return Criterion(text, float(weight), "" if name is None else str(name))


_HEAVIEST = 1e9


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _names(criteria: Sequence[Criterion]) -> list[str]:
    """One each, whatever the rubric calls them."""
    names: list[str] = []
    for place, one in enumerate(criteria, 1):
        name = one.name or f"criterion_{place}"
        while name in (*names, "floor"):
            name += "_"
        names.append(name)
    return names


def _material(one: Criterion, request: str, reply: str, reference: str) -> dict[str, str]:
    return plain_material(request=request, reference=reference, criterion=one.text, reply=reply)
