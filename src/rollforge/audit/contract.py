"""What every environment owes its users, checked by playing it: no model, nothing of the environment's own is patched.

    tasks ─► probes (nonsense, wrong calls, then the reference; nonsense and it twice) ─► what they must agree in
          ─► sessions open at the same time, nonsense and wrong calls after what solves it ─► the same verdicts as alone
          ─► the same work again ─► no thread, process, file or task more than before

Each check passes, warns of what may be meant, fails with a remedy, or is skipped with the reason. Time is bounded by the
deadlines of the calls.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from rollforge.audit.afresh import cause
from rollforge.audit.finding import where
from rollforge.audit.left import Left, looking
from rollforge.audit.outside import outside
from rollforge.audit.play import Ground, Played, Player, say
from rollforge.audit.schema import schema_problems, tool_problems, untold
from rollforge.envs.base import Env, Limits, Tool
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.load import as_env
from rollforge.envs.remote import RemoteEnv
from rollforge.envs.tasks import env_tasks
from rollforge.errors import RolloutError, UserError, VerifierFault, stage
from rollforge.models.base import Solution
from rollforge.models.schema_values import random_value
from rollforge.records.items import Response, assistant, prompt_text, tool_name
from rollforge.records.rollout import Outcome
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from rollforge.stats.text import plural
from rollforge.stats.visible import one_line

READ = 2000
"""Tasks that are looked at; generators may have no end."""
EQUAL = 1e-9
SLOW_SECONDS = 5.0

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Status
    says: str
    """What was found; of a failure, what exactly and where."""
    remedy: str = ""
    """Of a failure or warning, what mends it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """An environment that was written for NeMo Gym, as is every service that does not tell its tools. Told, and no failure,
    are rows that repeat or have no prompt, tools without a description, unusual responses (a refusal, none at all, tags of
    reasoning) that get no verdict, and chance in what is played by steps."""

    asks: str = ""
    """Other services that its verifier asks: where they give no answer, what needs verdicts is skipped."""


async def check_env(
    env: Env,
    name: str,
    *,
    tasks: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    n: int = 8,
    success: float = 1.0,
    limits: Limits | None = None,
    foreign: Foreign | None = None,
) -> list[Check]:
    """All checks, in order. `tasks`: a JSONL file instead of the environment's own; `options` go to its task generator; `n`
    tasks are played. `success`: the reward that the reference solution should get; `foreign`: it follows other rules. The
    environment is left open. Raises `UserError` for what is no environment, or fewer than one task."""
    env = as_env(env, name)
    if n < 1:
        raise UserError(f"n is {n}: at least one task is played")
    limits = limits or Limits()
    if hasattr(env, "limits"):
        env.limits = limits
    with chdir(os.getcwd()):  # back to it in the end, wherever sessions went
        return await _checks(env, name, tasks, options or {}, n, success, limits, foreign)


async def _checks(
    env: Any,
    name: str,
    tasks: str | Path | None,
    options: Mapping[str, Any],
    n: int,
    success: float,
    limits: Limits,
    foreign: Foreign | None,
) -> list[Check]:
    folder = os.getcwd()
    found, reading = _read(env, name, tasks, options, foreign)
    checks = [reading]
    if not found:
        return [*checks, *(Check(other, "skip", "there is no task to play") for other in _PLAYED)]
    chosen = [found[place * len(found) // min(n, len(found))] for place in range(min(n, len(found)))]
    ground = Ground(env, name, limits)
    first = await ground.play("nonsense", chosen[0], NONSENSE["nonsense"](chosen[0]))
    if first.problem and not first.opened:
        # A service that is not there, say: the others would wait for it as long.
        failed = Check("opening", "fail", f"{where(chosen[0])}: {first.problem}", "no session opens: nothing can be played")
        return [*checks, failed, *(Check(other, "skip", "no session opens") for other in _PLAYED)]
    if foreign is None and isinstance(env, RemoteEnv) and env.ours is False:
        foreign = Foreign()
        checks = [_read(env, name, tasks, options, foreign)[1]]
    if foreign and foreign.asks:
        tried = await _said_to(ground, chosen[:1], [kind for kind in NONSENSE if kind not in UNUSUAL])
        if any(played.problem for played in tried):
            seen = Probes(await _said_to(ground, chosen, ["an empty reply"]), [], [], "", [])
            shut = [f"{where(played.task)}: {played.problem}" for played in seen.nonsense if not played.opened]
            opening = Check("opening", "fail" if shut else "pass", _some(shut) or f"{len(chosen)} sessions")
            why = next(played.problem for played in tried if played.problem)
            unasked = Check("verdicts", "skip", f"all that needs them needs {foreign.asks}: {why}")
            return [*checks, opening, _tools(env, seen, foreign), unasked]
    probes = await _probes(env, ground, chosen)
    unseen = await _unseen(env, ground, chosen, probes)
    reference = _reference(probes, success, unseen, foreign)
    if unseen and reference.remedy == unseen.remedy:
        unseen = replace(unseen, status="fail")  # full marks are what it does not see
    determinism = await _determinism(env, ground, probes, foreign)
    if unseen and unseen.status == "fail":
        isolation = unseen
    elif determinism.remedy == _OWN_STATE:
        isolation = Check("isolation", "fail", "sessions share a state, as determinism shows", _OWN_STATE)
    else:
        isolation = await _isolation(env, ground, chosen, probes, foreign, unseen)
    checks += [
        _tools(env, probes, foreign),
        _replies(probes, foreign),
        reference,
        determinism,
        _fields(probes),
        isolation,
        await _clean_up(env, ground, chosen, probes, folder),
        await _speed(ground, chosen, limits),
    ]
    return checks


@dataclass(frozen=True, slots=True)
class Probes:
    nonsense: list[Played]
    wrong: list[Played]
    """Calls that are not the task's solution, made before any solution was."""
    reference: list[Played]
    """Two of each task that has a reference solution."""
    reference_problem: str
    """Why there is none, or what it raised."""
    repeated: list[tuple[Played, Played]]
    """The same answer, judged twice."""

    def all(self) -> Iterator[Played]:
        yield from self.nonsense
        yield from self.reference
        yield from (second for _, second in self.repeated if second not in self.reference)


_PLAYED = ("tools", "replies", "reference", "determinism", "fields", "isolation", "clean-up", "speed")


def _read(
    env: Any, name: str, source: str | Path | None, options: Mapping[str, Any], foreign: Foreign | None
) -> tuple[list[Task], Check]:
    try:
        with stage("open", VerifierFault):
            first, second = (list(islice(env_tasks(env, source, options, name=name), READ)) for _ in range(2))
    except RolloutError as error:
        return [], Check("tasks", "fail", f"they cannot be read: {error}", "mend the function or file they come from")
    tasks = [line for line in first if isinstance(line, Task)]
    bad = [line for line in first if isinstance(line, BadLine)]
    if bad:
        says = f"{len(bad)} of {len(first)} cannot be used; the first: {bad[0]}"
        if foreign:
            return tasks, Check("tasks", "skip", f"{says}; they are for an agent that fills them")
        return tasks, Check("tasks", "fail", says, "mend or remove those rows")
    if not tasks:
        return [], Check("tasks", "fail", "there are none", "give some: @env(tasks=...), or --tasks FILE.jsonl")
    ids: dict[str, int] = {}
    repeated = []
    for place, task in enumerate(tasks):
        if ids.setdefault(task.id, place) != place:
            repeated.append(f"task {place} is task {ids[task.id]} again")
    if repeated and not foreign:
        return tasks, Check("tasks", "fail", repeated[0], "remove the repetition, or give each row a task_id of its own")
    if [task.id for task in second if isinstance(task, Task)] != [task.id for task in tasks]:
        says = "another reading gave other tasks"
        return tasks, Check("tasks", "fail", says, "make the function that yields them a function of its parameters")
    more = " (more were not read)" if len(first) == READ else ""
    different = _some(repeated) if repeated else "all different"
    return tasks, Check("tasks", "pass", f"{len(tasks):,}, {different}, the same when read again{more}")


async def _probes(env: Any, ground: Ground, tasks: Sequence[Task]) -> Probes:
    nonsense: list[asyncio.Task[Played]] = []
    reference: list[asyncio.Task[Played]] = []
    again: list[tuple[asyncio.Task[Played], asyncio.Task[Played]]] = []
    problem = ""
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            plays = [group.create_task(ground.play(kind, task, made(task))) for kind, made in NONSENSE.items()]
            nonsense += plays
            again.append((plays[-1], group.create_task(ground.play("nonsense", task, NONSENSE["nonsense"](task)))))
    # One group after the other, so that no state the next leaves is there yet.
    said = [task.result() for task in nonsense]
    async with asyncio.TaskGroup() as group:
        wrong = [
            group.create_task(ground.play(kind, task, calls))
            for task in tasks
            for kind, calls in _wrong(env, task, tasks, said).items()
        ]
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            first, why = _solution(env, task)
            second, _ = _solution(env, task)
            problem = problem or why
            if first is not None and second is not None:
                pair = [group.create_task(ground.play("the reference", task, solution)) for solution in (first, second)]
                reference += pair
                again.append((pair[0], pair[1]))
    return Probes(
        said,
        [task.result() for task in wrong],
        [task.result() for task in reference],
        problem,
        [(one.result(), other.result()) for one, other in again],
    )


async def _said_to(ground: Ground, tasks: Sequence[Task], kinds: Sequence[str]) -> list[Played]:
    async with asyncio.TaskGroup() as group:
        plays = [group.create_task(ground.play(kind, task, NONSENSE[kind](task))) for task in tasks for kind in kinds]
    return [play.result() for play in plays]


NONSENSE: dict[str, Callable[[Task], Response]] = {
    "an empty reply": lambda task: {"output": [assistant("")]},
    "no message": lambda task: {"output": []},
    "a refusal": lambda task: {"output": [{**assistant(""), "content": [{"type": "refusal", "refusal": "no"}]}]},
    "the prompt": lambda task: {"output": [assistant(prompt_text(task.params))]},
    "odd characters": lambda task: {"output": [assistant("\x00\u202e\u2028{}[]<think>\\boxed{\\frac{1}{0}} 𝟘٣½ ��")]},
    "a very long reply": lambda task: {"output": [assistant("(1+" * 20_000)]},
    "nonsense": lambda task: {"output": [assistant("harbour seven -1 copper maybe")]},
}
"""What a policy may say that is no answer."""
UNUSUAL = ("no message", "a refusal", "odd characters")


def _solution(env: Any, task: Task) -> tuple[Solution | None, str]:
    solve = getattr(env, "solve", None)
    if solve is None:
        return None, "the environment has no reference policy"
    try:
        with stage("model", VerifierFault):
            solution: Solution | None = solve(task)
    except RolloutError as error:
        return None, f"solve() failed at {where(task)}: {error}"
    return solution, "" if solution is not None else f"no reference solution for {where(task)}"


def _tools(env: Any, probes: Probes, foreign: Foreign | None) -> Check:
    silent = untold(env)
    if silent:
        says = f"{_some(silent)}: a public method without a docstring is no tool, and no model is told of it"
        return Check("tools", "fail", says, "say in a docstring what it does; one that is no tool begins with an underscore")
    tools: dict[str, Tool] = {}
    problems: list[str] = []
    for played in probes.nonsense:
        for problem in tool_problems(played.tools, described=foreign is None):
            if problem not in problems:
                problems.append(problem)
        own = {tool.name: tool for tool in played.tools}
        tools |= own
        if not played.opened:
            continue  # a session that did not open has none
        rows = played.task.params.get("tools") or []
        missing = [str(name) for row in rows if row.get("type") == "function" and (name := tool_name(row)) not in own]
        problem = f"{where(played.task)} declares {', '.join(missing)}, which its session does not have"
        if missing and problem not in problems:
            problems.append(problem)
    if problems:
        remedy = "a public method with type hints and a docstring declares itself properly"
        return Check("tools", "fail", _some(problems), remedy)
    if not tools:
        return Check("tools", "pass", "none")
    bare = [name for name, tool in tools.items() if not tool.description.strip()]
    told = f"; without a description: {', '.join(bare)}" if bare else ""
    says = f"{len(tools)}, with names and JSON Schemas that model servers take: {', '.join(tools)}{told}"
    return Check("tools", "pass", says)


def _replies(probes: Probes, foreign: Foreign | None) -> Check:
    failed = [played for played in probes.nonsense if played.problem]
    unusual = failed if foreign and all(played.kind in UNUSUAL and played.opened for played in failed) else []
    if failed and not unusual:
        places = _some([f"{played.kind}, {where(played.task)}: {played.problem}" for played in failed])
        remedy = "a verifier has a verdict on whatever a policy says: nonsense is worth 0, an exception loses the rollout"
        return Check("replies", "fail", f"{len(failed)} of {len(probes.nonsense)} got no verdict: {places}", remedy)
    rewards = [played.reward for played in probes.nonsense if played.reward is not None]
    span = f"{min(rewards):g} to {max(rewards):g}"
    without = f"; no verdict on {unusual[0].kind}: {unusual[0].problem}" if unusual else ""
    return Check("replies", "pass", f"{len(rewards)} replies that are no answers got rewards of {span}{without}")


def _reference(probes: Probes, success: float, unseen: Check | None, foreign: Foreign | None) -> Check:
    if foreign is not None:
        return Check("reference", "skip", "a server of NeMo Gym brings none")
    reference = probes.reference
    failed = [f"{where(played.task)}: {played.problem}" for played in reference if played.problem]
    if failed or probes.reference_problem.startswith("solve()"):
        remedy = "the reference solution has to be judged; look at it: rollforge env show"
        return Check("reference", "fail", _some([*failed, *filter(None, [probes.reference_problem])]), remedy)
    if not reference:
        return Check("reference", "skip", f"{probes.reference_problem}; a method solve, or @env(solve=...), gives it one")
    low = [f"{where(played.task)}: {played.reward:g}" for played in reference if (played.reward or 0) < success - EQUAL]
    if low:
        marks = f"mend the verifier or solve; if full marks are another number than {success:g}, say so: --success"
        remedy = unseen.remedy if unseen else marks
        return Check("reference", "fail", f"below full marks: {_some(low)}", remedy)
    best = {played.task.id: played.reward or 0.0 for played in reference}
    above = [
        f"{played.kind}, {where(played.task)}: {played.reward:g}"
        for played in probes.nonsense
        if played.reward is not None and played.reward > best.get(played.task.id, math.inf) + EQUAL
    ]
    if above:
        return Check("reference", "fail", f"worth less than {_some(above)}", "the verifier rewards what is no answer")
    for kind in NONSENSE:
        same = [played for played in probes.nonsense if played.kind == kind and played.task.id in best]
        if same and all((played.reward or 0.0) >= best[played.task.id] - EQUAL for played in same):
            says = f"{kind} gets as much on all {plural(len(same), 'task')}"
            return Check("reference", "fail", says, "the verifier does not tell an answer from none")
    missing = f"; {probes.reference_problem}" if probes.reference_problem else ""
    return Check("reference", "pass", f"full marks on {plural(len(best), 'task')}, and nonsense gets less{missing}")


async def _determinism(env: Any, ground: Ground, probes: Probes, foreign: Foreign | None) -> Check:
    differ, told = [], []
    by_chance = foreign is not None
    for one, other in probes.repeated:
        if one.said == other.said:
            continue
        differ.append(one)
        told.append(f"{one.kind}, {where(one.task)}: {_differing(one, other)}")
        by_chance = by_chance and one.stepwise
    if differ and by_chance:
        return Check("determinism", "skip", f"{_CHANCE}: {_some(told)}")
    if differ:
        task, says, nonsense = differ[0].task, _some(told), differ[0].kind == "nonsense"
        again = partial(NONSENSE["nonsense"], task) if nonsense else partial(_acts, env, task, probes)
        if await cause(env, task, again) == "state":
            says += "; each new process begins with the first again, so it is no chance but a state that sessions share"
            return Check("determinism", "fail", says, _OWN_STATE)
        return Check("determinism", "fail", says, f"take all chance from the task: {_SEED}")
    if probes.reference:  # without one, isolation is checked with these calls
        task = probes.reference[0].task
        one, other = [await ground.play("calls", task, _calls(task, probes.nonsense)) for _ in range(2)]
        if one.outputs != other.outputs and not one.problem + other.problem:
            says = f"{where(task)}, the same calls of tools that need not be in its solution: {_differing(one, other)}"
            return Check("determinism", "warn", says, f"if that is no clock, take all chance from the task: {_SEED}")
    return Check(
        "determinism", "pass", f"{plural(len(probes.repeated), 'answer')} judged twice: the same observation and verdict"
    )


def _fields(probes: Probes) -> Check:
    judged = [played for played in probes.all() if played.outcome is Outcome.SCORED]
    kinds: dict[str, set[str]] = {}
    for played in judged:
        for name, value in played.fields.items():
            kinds.setdefault(name, set()).add(_kind(value))
    mixed = [
        f"{name} is {' and '.join(sorted(kind - {'null'}))}" for name, kind in kinds.items() if len(kind - {"null"}) > 1
    ]
    if mixed:
        return Check("fields", "fail", _some(mixed), "a field of the verdict has one type; null where there is no value")
    rare = [
        f"{name} in {count} of {len(judged)}"
        for name, kind in kinds.items()
        if "number" in kind and (count := sum(name in played.fields for played in judged)) < len(judged)
    ]
    if rare:
        remedy = "a metric that is only there at times has a mean over other rollouts than the reward: give it always"
        return Check("fields", "fail", f"metrics that are missing from some verdicts: {_some(rare)}", remedy)
    return Check("fields", "pass", f"{', '.join(kinds) or 'none'} beside the reward; JSON, of one type each")


async def _unseen(env: Any, ground: Ground, tasks: Sequence[Task], probes: Probes) -> Check | None:
    """The failure of a verifier that would judge otherwise in this process, where the tools have been at work; a warning if
    it reads what they change and judges the same: it may only log it."""
    if not isinstance(env, PythonEnv) or env.inline or not (env.tools or env.stepwise):
        return None
    found, told = [], []
    for task in _steady(tasks, probes):
        looks: list[dict[str, bytes]] = []

        async def look(looks: list[dict[str, bytes]] = looks) -> None:
            looks.append(outside(env))

        alone = await ground.meet("alone", task, Player(_acts(env, task, probes), look))
        changed = [name for name, value in looks[-1].items() if value != looks[0].get(name)] if looks else []
        reads = f"{where(task)}: the verifier reads {', '.join(changed)}, which the tools change" if changed else ""
        if alone.outcome is not Outcome.TIMEOUT:
            env.apart = False
            try:
                here = await ground.play("here", task, _acts(env, task, probes))
            finally:
                env.apart = True
            if not here.problem and (here.reward, here.fields) != (alone.reward, alone.fields):
                one, other = _said(alone), _said(here)
                what = f"{one}, but {other}" if one != other else _differing(alone, here)
                found.append(f"{reads or where(task)}: {what} where the tools were at work")
                continue
        told += [reads] if reads else []
    remedy = f"{_OWN_STATE}: the verifier runs in another process, which does not see what tools change there"
    if found:
        return Check("isolation", "fail", _some(found), remedy)
    return Check("isolation", "warn", f"the same verdicts, but {_some(told)}", remedy) if told else None


def _steady(tasks: Sequence[Task], probes: Probes) -> list[Task]:
    """Those that have the same verdict twice."""
    unlike = {one.task.id for one, other in probes.repeated if one.said != other.said}
    return [task for task in tasks if task.id not in unlike]


_OWN_STATE = (
    "keep the state of a rollout in the instance (self), not in the class, the module, a default argument "
    "or a file of one name"
)
_CHANCE = "what is played goes otherwise each time, by chance or by a state that its sessions share"
_SEED = "a parameter `seed` of reset or verify is the same for every repeat"


async def _isolation(
    env: Any, ground: Ground, tasks: Sequence[Task], probes: Probes, foreign: Foreign | None, unseen: Check | None
) -> Check:
    """Against the verdict alone; tasks with their neighbours, and each with itself; nonsense beside and after them, and
    wrong calls after them, against their verdicts before."""
    steady = _steady(tasks, probes)
    if not steady:
        return Check("isolation", "skip", "no task has the same verdict twice, so nothing can be compared")
    games = [(one, other) for one, other in zip(steady, [*steady[1:], steady[0]], strict=True) if one is not other]
    games += [(task, task) for task in steady]
    before = {one.task.id: one for one, _ in probes.repeated if one.kind == "nonsense"}
    if any(one.kind == "nonsense" and one.said != other.said for one, other in probes.repeated):
        before = {}  # its verdict goes by chance
    alone: dict[str, Played] = {}
    mixed = []
    for pair in games:
        for task in pair:
            if task.id not in alone:
                alone[task.id] = await ground.play("alone", task, _acts(env, task, probes))
                again = await ground.play("alone", task, _acts(env, task, probes))
                after = await ground.play("nonsense", task, NONSENSE["nonsense"](task))
                leaks = _unlike(f"nonsense, {where(task)}, after others have played", after, before.get(task.id), "before")
                leaks += await _late(env, ground, task, tasks, probes)
                same = again.said == alone[task.id].said
                if (leaks or not same) and foreign and again.stepwise:
                    return Check("isolation", "skip", f"{_CHANCE}: {where(task)}")
                if not same:
                    says = f"{where(task)}, the same calls twice: {_differing(alone[task.id], again)}"
                    return Check("isolation", "fail", says, f"{_OWN_STATE}; draw chance from the task: {_SEED}")
                mixed += leaks
        players: list[tuple[Task, Solution | Response]] = [(task, _acts(env, task, probes)) for task in pair]
        if pair[0] is pair[1]:
            players.append((pair[0], NONSENSE["nonsense"](pair[0])))
        found = await ground.together("together", players)
        for played in found[:2]:
            what = f"{where(played.task)} beside {where(pair[0] if played.task is pair[1] else pair[1])}"
            mixed += _unlike(what, played, alone[played.task.id], "alone")
        for played in found[2:]:
            what = f"nonsense, {where(played.task)}, beside others of it"
            mixed += _unlike(what, played, before.get(played.task.id), "before")
    if mixed:
        return Check("isolation", "fail", _some(mixed), _OWN_STATE)
    if unseen:
        return unseen
    return Check(
        "isolation", "pass", f"{plural(len(games), 'pair')} of sessions open at once, each with the same verdict as alone"
    )


def _unlike(what: str, played: Played, other: Played | None, when: str) -> list[str]:
    if other is None or played.said == other.said or "BrokenBarrier" in played.problem:
        return []
    now, then = _said(played), _said(other)
    return [f"{what}: {now}, {when} {then}" if now != then else f"{what}, and {when}: {_differing(played, other)}"]


async def _late(env: Any, ground: Ground, task: Task, tasks: Sequence[Task], probes: Probes) -> list[str]:
    """The wrong calls that are judged otherwise than before the solutions were played. What they answer may differ: that
    is a leak only where the verdict shows it."""
    leaks = []
    for first in probes.wrong:
        if first.task is not task or first.problem:
            continue
        made = partial(_of_kind, first.kind, env, task, tasks, probes)
        late = await ground.play(first.kind, task, made())
        if late.outcome is Outcome.TIMEOUT:
            continue
        what = f"{first.kind}, {where(task)}, after others have played"
        unlike = _unlike(what, replace(late, outputs=[]), replace(first, outputs=[]), "before")
        if unlike and await cause(env, task, made) != "chance":
            leaks += unlike
    return leaks


def _of_kind(kind: str, env: Any, task: Task, tasks: Sequence[Task], probes: Probes) -> Solution:
    return _wrong(env, task, tasks, probes.nonsense)[kind]


def _wrong(env: Any, task: Task, tasks: Sequence[Task], nonsense: Sequence[Played]) -> dict[str, Solution]:
    """What acts in a session and is not the task's solution: random calls, and the solution of the last task. Of all other
    tasks the same one: those that it does not solve are then still untouched."""
    first = next((played for played in nonsense if played.task is task), None)
    if first is None or not (first.tools or first.stepwise):
        return {}
    wrong = {} if first.stepwise else {"random calls": _calls(task, nonsense)}
    other = None if task is tasks[-1] else _solution(env, tasks[-1])[0]
    return wrong if other is None else {**wrong, f"the solution of {where(tasks[-1])}": other}


def _acts(env: Any, task: Task, probes: Probes) -> Solution:
    """The reference; without one, a call of each tool with random arguments."""
    solution, _ = _solution(env, task)
    if solution is not None:
        return solution
    return _calls(task, probes.nonsense)


def _calls(task: Task, nonsense: Sequence[Played]) -> Solution:
    """Of each tool, with random arguments, whatever it answers."""
    declared = next((played.tools for played in nonsense if played.task.id == task.id), ())
    tools = [tool for tool in declared if not any(schema_problems(tool.parameters))]
    rng = Random(task.id)
    calls = [(tool.name, random_value(tool.parameters, rng)) for tool in tools for _ in range(2)]
    return say("seven", [(name, arguments) for name, arguments in calls if isinstance(arguments, dict)])


async def _clean_up(env: Any, ground: Ground, tasks: Sequence[Task], probes: Probes, folder: str) -> Check:
    closing = [f"{where(played.task)}: {played.closing}" for played in probes.all() if played.closing]
    if closing:
        return Check("clean-up", "fail", f"closing failed: {_some(closing)}", "mend close()")
    if os.getcwd() != folder:
        says = f"the working folder was {folder}, and is {os.getcwd()} now"
        return Check("clean-up", "fail", says, "it is the process's, which all sessions share: use whole paths instead")
    counts: list[Left] = []
    grown: list[str] = []
    places = max(len(tasks), 4)
    renewed = env.aclose if isinstance(env, PythonEnv) else _nothing
    # Processes of verifiers know the temporary folder of when they were forked.
    await renewed()
    try:
        with looking() as look:
            # The first time fills pools and caches; only what grows the second time is left by the sessions, and the third.
            while len(counts) < 2 or (grown and len(counts) < 3):
                async with asyncio.TaskGroup() as group:
                    for number in range(places):
                        task = tasks[number % len(tasks)]
                        for solution in (NONSENSE["nonsense"](task), _acts(env, task, probes)):
                            group.create_task(ground.play("again", task, solution))
                counts.append(look())
                grown = counts[-1].beyond(counts[-2], places * 3 // 4) if len(counts) > 1 else []
    finally:
        await renewed()
    if grown:
        remedy = "end what a session starts in its close(), whatever happened before"
        return Check("clean-up", "fail", f"after {2 * places} sessions there are {_some(grown)}", remedy)
    return Check("clean-up", "pass", f"{2 * places} sessions closed: no thread, process, file or task was left")


async def _nothing() -> None:
    pass


async def _speed(ground: Ground, tasks: Sequence[Task], limits: Limits) -> Check:
    """One at a time: side by side they wait for each other."""
    seconds: list[float] = []
    kinds = ("nonsense", "an empty reply")
    for task, kind in ((task, kind) for kind in kinds for task in tasks):
        played = await ground.play(kind, task, NONSENSE[kind](task))
        if not played.problem:
            seconds.append(played.verify_seconds)
        if sum(seconds) > 2 * SLOW_SECONDS:
            break
    if not seconds:
        return Check("speed", "skip", "nothing was judged")
    seconds.sort()
    p50, p95 = (seconds[min(len(seconds) - 1, int(share * len(seconds)))] for share in (0.5, 0.95))
    says = f"a verification takes {p50 * 1000:.3g} ms (median), {p95 * 1000:.3g} ms (95th percentile)"
    if p50 > min(SLOW_SECONDS, limits.verify):
        return Check("speed", "fail", says, f"beyond {SLOW_SECONDS:g} s it is the verifier that a collection waits for")
    return Check("speed", "pass", says)


def _said(played: Played) -> str:
    return played.problem or f"reward {played.reward:g}" + (f", outputs {played.outputs!r:.120}" if played.outputs else "")


def _differing(one: Played, other: Played) -> str:
    pairs = zip((*one.said[:-1], *one.outputs), (*other.said[:-1], *other.outputs), strict=False)
    first, second = next(((a, b) for a, b in pairs if a != b), (one.outputs, other.outputs))
    texts = repr(first), repr(second)
    place = next((place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), 0)
    start = 0 if place < 80 else place - 20
    return " and then ".join(f"{'...' if start else ''}{text[start : start + 100]}" for text in texts)


def _some(texts: Sequence[str], most: int = 3) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(one_line(text, 300) for text in texts[:most]) + more


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    with suppress(KeyError):
        return {bool: "number", int: "number", float: "number", str: "text", list: "list", dict: "object"}[type(value)]
    return type(value).__name__
