"""Which rollouts of a run to look at: the first, the best, the worst, the ones that failed. Reads the files twice, keeps
little: first to choose places, then to fetch what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rollforge.records.items import final_text, tool_calls
from rollforge.records.rollout import Rollout
from rollforge.records.rows import task_key
from rollforge.stats.source import Place, Source


@dataclass(frozen=True, slots=True)
class Filter:
    task: str | None = None
    """A task's id, the beginning of one, or its index."""
    index: int | None = None
    """Which repeat."""

    def __call__(self, rollout: Rollout) -> bool:
        if self.index is not None and rollout.index != self.index:
            return False
        if self.task is None or self.task in (rollout.task, str(rollout.task_index)):
            return True
        return len(self.task) >= 4 and not self.task.isdigit() and rollout.task.startswith(self.task)


@dataclass(frozen=True, slots=True)
class Choice:
    title: str
    rollout: Rollout


@dataclass(frozen=True, slots=True)
class _Candidate:
    place: Place
    task: object
    reward: float
    merit: int
    """How much there is to learn from it: it answered, was not cut, used tools, and is not too long to read."""


def first(source: Source, wanted: Filter, limit: int) -> Iterator[Choice]:
    """In the order of the files, whatever became of them."""
    for rollout in _rollouts(source, wanted):
        if limit <= 0:
            return
        limit -= 1
        yield Choice("", rollout[1])


def failed(source: Source, wanted: Filter, limit: int) -> list[Choice]:
    """Rollouts without a reward: the last attempt of each that has none."""
    last: dict[object, Place] = {}
    done = set()
    for place, rollout in _rollouts(source, wanted):
        key = place if rollout.index is None else (rollout.env, task_key(rollout), rollout.task_index, rollout.index)
        if rollout.outcome.judged:
            done.add(key)
        else:
            last[key] = place
    places = [place for key, place in last.items() if key not in done]
    return _fetch(source, {place: f"failure {n} of {len(places)}" for n, place in enumerate(places[:limit], 1)})


def extremes(source: Source, wanted: Filter, *, best: int, worst: int) -> list[Choice]:
    """So many of the highest and of the lowest rewards. One of each: of the same task where one has both, since what made
    the difference shows best there."""
    candidates = [_candidate(place, rollout) for place, rollout in _rollouts(source, wanted) if rollout.outcome.judged]
    top = sorted(candidates, key=lambda c: (-c.reward, -c.merit, c.place))[:best]
    low = sorted(candidates, key=lambda c: (c.reward, -c.merit, c.place))
    taken = {c.place for c in top} if len(candidates) > 1 else set()
    low = [c for c in low if c.place not in taken][:worst]
    if len(top) == len(low) == 1 and top[0].reward > low[0].reward:
        top[0], low[0] = _pair(candidates, top[0], low[0])
    titles = {c.place: "best" for c in top}
    for c in low:
        titles[c.place] = "best and worst, being the only one" if c.place in titles else "worst"
    if top and low and top[0].reward == low[0].reward and len(candidates) > 1:
        titles = {place: f"{title} (rewards are equal)" for place, title in titles.items()}
    return _fetch(source, titles)


def _rollouts(source: Source, wanted: Filter) -> Iterator[tuple[Place, Rollout]]:
    return ((place, row) for place, row in source.placed() if isinstance(row, Rollout) and wanted(row))


def _candidate(place: Place, rollout: Rollout) -> _Candidate:
    assert rollout.reward is not None
    response, cut = rollout.response, rollout.incomplete
    answered, used_tools, short = bool(final_text(response).strip()), bool(tool_calls(response)), len(rollout.output) <= 12
    merit = 8 * answered + 4 * (not cut) + 2 * used_tools + short
    return _Candidate(place, (rollout.env, task_key(rollout)), rollout.reward, merit)


def _pair(candidates: list[_Candidate], top: _Candidate, low: _Candidate) -> tuple[_Candidate, _Candidate]:
    """The pair of highest and lowest reward within one task that there is most to learn from; else the pair given."""
    highs: dict[object, _Candidate] = {}
    lows: dict[object, _Candidate] = {}
    for c in candidates:
        for found, reward in ((highs, top.reward), (lows, low.reward)):
            if c.reward == reward and (c.task not in found or c.merit > found[c.task].merit):
                found[c.task] = c
    both = [(highs[task], lows[task]) for task in highs if task in lows]
    return max(both, key=lambda pair: pair[0].merit + pair[1].merit, default=(top, low))


def _fetch(source: Source, titles: dict[Place, str]) -> list[Choice]:
    """In the order of the titles."""
    found: dict[Place, Rollout] = {}
    for place, row in source.placed():
        if place in titles and isinstance(row, Rollout):
            found[place] = row
            if len(found) == len(titles):
                break
    return [Choice(title, found[place]) for place, title in titles.items() if place in found]
