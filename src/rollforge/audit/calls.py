"""What tool calls and steps earn beyond what they achieve: again and again, and with the arguments of other tasks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from time import monotonic
from typing import Any

from rollforge.agents.tool_loop import ToolLoop
from rollforge.audit.finding import RULES, Finding, Shown, found, shown
from rollforge.audit.known import FULL, HALF, Call, Known, replay
from rollforge.audit.play import Ground, Played
from rollforge.envs.base import Tool
from rollforge.records.lossless import dumps

TASKS = 3
TIMES = (2, 5, 40)
MANY = TIMES[-1]
TURNS = ToolLoop().max_turns
"""That a policy has in an episode."""
DISTINCT = 4
"""Calls of a reference that are repeated by themselves, and tools that are tried between them."""
MOST = 400
"""Calls of one attempt."""
LONGEST = 3.0
"""Seconds that one attempt may take, by the time of the reference."""
SECONDS = 10.0
"""After these nothing is repeated any more."""
EQUAL = 1e-6

Calls = list[Call]


@dataclass(frozen=True, slots=True)
class Try:
    known: Known
    what: str
    calls: Calls
    played: Played

    @property
    def share(self) -> float:
        reward = self.played.reward
        return 0.0 if reward is None else self.known.share(reward)


async def look(ground: Ground, known: Sequence[Known], success: float) -> AsyncIterator[Finding]:
    above: list[Try] = []
    farmed: list[Try] = []
    alone: list[Try] = []
    options: list[tuple[Try, bool]] = []
    several = tried = stepwise = 0
    ends = monotonic() + SECONDS
    for one in known[:TASKS]:
        began = monotonic()
        first = await _play(ground, one, "the reference's calls", list(one.made)) if one.right and one.own else None
        if first is None or one.full <= one.low or first.share < FULL:
            continue  # there is none, or its calls are worth that only once
        room = min(MOST, max(1, int(LONGEST / (monotonic() - began) * max(1, len(one.made)))))
        stepwise += first.played.stepwise
        async for again in _each(ground, one, _before(one) if first.played.stepwise else iter(()), room, ends):
            farmed += [again] if (again.played.reward or 0.0) > max(one.full, success) + EQUAL else []
        if not one.made:
            continue
        tried += 1
        async for again in _each(ground, one, _again(one, first.played.tools), room, ends):
            above += [again] if (again.played.reward or 0.0) > max(one.full, success) + EQUAL else []
        several += len(_apart(one.made)) > 1
        async for many in _each(ground, one, _alone(one, first.played.tools), room, ends):
            once = many.calls[: len(many.calls) // MANY]
            if many.share >= FULL and (await _play(ground, one, "once", once)).share < FULL:
                alone.append(many)
                break
        options += [each async for each in _every(ground, one, known, room)]
    if above:
        says = f"the reference's calls again get more than full marks: {_told(above, tried)}"
        remedy = "reward the state that is reached at the end, not the calls that were made"
        yield found("above", "error", says, [_shown(each) for each in above[:3]], remedy)
    if farmed:
        says = f"an action again and again before the reference gets more than full marks: {_told(farmed, stepwise)}"
        remedy = "reward what steps achieve, or bound what one kind of action earns in an episode"
        yield found("above", "error", says, [_shown(each) for each in farmed[:3]], remedy)
    if several > 1 and len(alone) == several:
        says = f"{_told(alone, several)}; fine only if each call adds to what the one before it achieved"
        yield found("calls", "warning", says, [_shown(each) for each in alone[:1]])
    sure = [each for each, silent in options if silent]
    if sure:
        remedy = "compare the last call, or all of them, with what is expected: ==, not in"
        says = f"not so: {RULES['options'].asks}: {_told(sure, tried)}"
        yield found("options", "error", says, [_shown(each) for each in sure[:1]], remedy)
    elif options:
        says = f"{_told([each for each, _ in options], tried)}; the tool tells the right one from the others"
        yield found("options", "note", says, [_shown(options[0][0])])


async def _each(
    ground: Ground, one: Known, cases: Iterator[tuple[str, Calls]], room: int, ends: float
) -> AsyncIterator[Try]:
    """Those that are short enough, as long as there is time."""
    for what, calls in cases:
        if len(calls) <= room and monotonic() < ends:
            yield await _play(ground, one, what, calls)


def _again(known: Known, tools: Sequence[Tool]) -> Iterator[tuple[str, Calls]]:
    """The whole sequence and each of its calls some times, and each in turn with another tool, which may undo it."""
    made, apart = list(known.made), _apart(known.made)
    for times in TIMES:
        yield f"all of them {times} times", made * times
    for call in apart:
        at = made.index(call)
        for times in TIMES if len(made) > 1 else ():
            yield f"{_name(call)} {times} times", [*made[:at], *[call] * times, *made[at + 1 :]]
        for other in _undoing(call, tools):
            turns = f"{_name(call)} and {_name(other)} in turn, {MANY} times"
            yield turns, [*made[:at], *[call, other] * MANY, *made[at:]]


def _before(known: Known) -> Iterator[tuple[str, Calls]]:
    """An action that may leave the episode open, as often as a policy has turns, before what the reference does."""
    own = [step for step in (*known.made, known.reply) if isinstance(step, str) and step]
    plain = [re.sub(r"\d+", "", step).strip() for step in own]
    times = TURNS - len(known.made) - 1
    for action in list(dict.fromkeys((*plain, *own, "harbour copper maybe lantern")))[: 2 * DISTINCT]:
        yield f"{_name(action)} {times} times", [*[action] * times, *known.made]


def _alone(known: Known, tools: Sequence[Tool]) -> Iterator[tuple[str, Calls]]:
    """One of several calls many times, and none of the others."""
    apart = _apart(known.made)
    for call in apart if len(apart) > 1 else ():
        if not isinstance(call, str):
            yield f"{_name(call)} {MANY} times, none of the other calls", [call] * MANY
            for other in _undoing(call, tools):
                turns = f"{_name(call)} and {_name(other)} in turn, {MANY} times, none of the other calls"
                yield turns, [call, other] * MANY


def _apart(calls: Sequence[Call]) -> Calls:
    """Different ones, the first few."""
    kept: Calls = []
    for call in calls:
        if call not in kept:
            kept.append(call)
    return kept[:DISTINCT]


def _undoing(call: Call, tools: Sequence[Tool]) -> Calls:
    """Calls of other tools that take the same arguments, or some of them."""
    if isinstance(call, str):
        return []
    name, arguments = call
    others: Calls = []
    for tool in tools:
        known = tool.parameters.get("properties") or {}
        if tool.name != name and all(part in arguments for part in tool.parameters.get("required") or []):
            others.append((tool.name, {part: value for part, value in arguments.items() if part in known}))
    return others[:DISTINCT]


async def _every(ground: Ground, one: Known, known: Sequence[Known], room: int) -> AsyncIterator[tuple[Try, bool]]:
    """Each call among those with all other combinations of the arguments that tasks have, where the calls are the answer;
    and whether the tool is silent about which one is right. Where it tells, it may be a game of guesses."""
    around: Calls = []
    wrong: Calls = []
    decisive = -1
    for call in one.made:
        others = _variants(call, one, known)
        decisive = len(around) + len(others) if others else decisive
        around += [*others, call, *others]
        wrong += others or [call]
    if one.counts or decisive < 0 or len(around) > room:
        return
    every = await _play(ground, one, "its calls among those with all other arguments that tasks have", around)
    if every.share < FULL or (await _play(ground, one, "without the right ones", wrong)).share >= HALF:
        return
    outputs = [_masked(call, output) for call, output in zip(around, every.played.outputs, strict=False)]
    own = outputs[decisive : decisive + 1]
    yield every, bool(own) and own[0] in (*outputs[decisive - 1 : decisive], *outputs[decisive + 1 : decisive + 2])


def _variants(call: Call, one: Known, known: Sequence[Known]) -> Calls:
    """The call with every other combination of the values that its arguments have in the references of the tasks, without
    the calls of the task's own reference."""
    if isinstance(call, str):
        return []
    name, own = call
    same = [made[1] for other in known for made in other.made if not isinstance(made, str) and made[0] == name]
    values = {part: list({dumps(made[part]): made[part] for made in same if part in made}.values()) for part in own}
    combined = ((name, dict(zip(values, chosen, strict=True))) for chosen in islice(product(*values.values()), MOST))
    mine = [(made[0], dict(made[1])) for made in one.made if not isinstance(made, str)]
    return [each for each in combined if each not in mine]


def _masked(call: Call, output: str) -> str:
    """The output without what it says back, and without numbers."""
    arguments: Mapping[str, Any] = {} if isinstance(call, str) else call[1]
    for value in sorted(map(str, arguments.values()), key=len, reverse=True):
        output = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "_", output) if value else output
    return re.sub(r"\d+", "#", output)


async def _play(ground: Ground, known: Known, what: str, calls: Calls) -> Try:
    return Try(known, what, calls, await ground.play(what, known.task, replay(known.reply, calls)))


def _name(call: Call) -> str:
    return f"{call[:20]!r}" if isinstance(call, str) else call[0]


def _told(tries: Sequence[Try], tried: int) -> str:
    best = max(tries, key=lambda each: each.played.reward or 0.0)
    tasks = {each.known.task.id for each in tries}
    return f"{best.what} ({best.played.reward:g}; {len(tasks)} of {tried} tasks)"


def _shown(each: Try) -> Shown:
    return shown(each.played, each.known.reply, each.calls)
