"""The audit of an environment: unit tests and a red team for its reward. No model, nothing patched.

tasks ─► the reference's attempt at each ─► what the answer is, where it stands, what full marks and nothing are worth
      ─► attacks (attacks.py), each a fresh session ─► rewards against those bounds
      ─► the same again: in another order, after others, in another process ─► the same rewards
      ─► the reference's calls again and again, and with other arguments (calls.py) ─► no more than full marks
      ─► prompts, tools, files ─► no answer in them
      ─► the contract (contract.py)
      ─► findings, ranked
"""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from rollforge.audit import calls, leaks, steady
from rollforge.audit.alarm import alarm
from rollforge.audit.attacks import Attack, attacks, floor_attacks, wrong_answers
from rollforge.audit.contract import EQUAL, check_env
from rollforge.audit.finding import RULES, Finding, Severity, Shown, brief, found, ranked, shown
from rollforge.audit.known import FULL, HALF, Call, Known, guesses, holds, is_gold, known_of, recorded, replay, with_rewards
from rollforge.audit.play import Ground, Played, Player
from rollforge.envs.base import Env, Limits
from rollforge.envs.load import as_env
from rollforge.errors import RolloutError, UserError, VerifierFault, stage
from rollforge.records.items import Response, assistant
from rollforge.records.rollout import Outcome
from rollforge.records.rows import read_tasks
from rollforge.records.task import Task

READ = 2000
LOSS = 0.05
SLOW = 5.0
EXAMPLES = 3
AGAIN = 5
_RAISED = re.compile(r"\b(?:PatternError|error): ")
"""What a regular expression that is none raises, in the words of Python."""
LATE = 5
"""So many verifications that do not end, and no more are tried."""


@dataclass(frozen=True, slots=True)
class Audit:
    env: str
    tasks: int
    attempts: int
    findings: list[Finding]
    passed: list[str]
    """Rules that were tried and hold."""

    @property
    def errors(self) -> int:
        return sum(one.severity == "error" for one in self.findings)


@dataclass(frozen=True, slots=True)
class Hit:
    known: Known
    attack: Attack
    played: Played


async def audit_env(
    env: Env,
    name: str,
    *,
    reference: str = "",
    tasks: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    n: int = 6,
    success: float = 1.0,
    limits: Limits | None = None,
) -> Audit:
    """Attack `n` tasks of the environment, spread over all of them. `reference`: how `load_env` finds it, for the trial in
    another process (left out without). `success`: full marks. The environment is left open. Raises as `check_env` does."""
    env = as_env(env, name)
    limits = limits or Limits(10.0, 10.0)
    with alarm(limits.verify) as wind:
        checks = await check_env(env, name, tasks=tasks, options=options, n=min(n, 4), success=success, limits=limits)
        contract = {check.name: check for check in checks}
        findings = [_of_check(key, check.says, check.remedy) for key, check in contract.items() if check.status == "fail"]
        chosen = _chosen(env, tasks, options or {}, n)
        if not chosen or "opening" in contract:
            return Audit(name, len(chosen), 0, ranked(findings), [])
        ground = Ground(env, name, limits)
        known = [await _known(env, ground, task, success) for task in chosen]
        with _canary() as canary:
            hits = await _attack(ground, known, canary, wind)
            executed = [hit for hit in hits if hit.attack.rule == "executed" and _exists(canary)]
        findings += list(_judge(hits, success, limits.verify))
        if executed:
            says = "code in a reply was run by the verifier, outside of any sandbox: it wrote a file"
            findings.append(found("executed", "error", says, [_shown(hit) for hit in executed[:1]]))
        findings += [one async for one in steady.look(ground, known, reference, limits)]
        findings += [one async for one in calls.look(ground, known, success)]
        findings += [one async for one in leaks.look(env, ground, known)]
        if not any(one.own for one in known):
            says = "there is no reference policy: the right answers are guessed from the rows; give it a method solve"
            findings.append(found("reference", "note", says))
    tried = {hit.attack.rule for hit in hits} | {"unsteady", "leak-prompt", "unjudged", "endless", "above"}
    tried |= {"isolation", "tasks", "contract"} | ({"reference"} if any(one.own for one in known) else set())
    tried |= {"tools", "calls", "leak-tool", "leak-host"} if hits and any(hit.played.tools for hit in hits) else set()
    failed = {one.rule for one in findings if one.severity != "note"}
    result = ranked(findings)
    return Audit(name, len(known), len(hits), result, [rule for rule in RULES if rule in tried - failed])


def _of_check(name: str, says: str, remedy: str) -> Finding:
    """A failed check of the contract as a finding."""
    rules: dict[str, tuple[str, Severity]] = {
        "opening": ("tasks", "error"),
        "replies": ("unjudged", "error"),
        "reference": ("reference", "error"),
        "determinism": ("unsteady", "error"),
        "isolation": ("isolation", "error"),
        "tools": ("tools", "warning"),
        "tasks": ("tasks", "warning"),
    }
    rule, severity = rules.get(name, ("contract", "warning"))
    if name == "tasks" and ("another reading" in says or "cannot be read" in says or says == "there are none"):
        severity = "error"
    return found(rule, severity, f"{name}: {says}", remedy=remedy)


def _chosen(env: Any, source: str | Path | None, options: Mapping[str, Any], n: int) -> list[Task]:
    try:
        with stage("open", VerifierFault):
            rows = env.tasks(source, **options) if hasattr(env, "tasks") else read_tasks(source) if source else ()
            read = [row for row in islice(rows, READ) if isinstance(row, Task)]
    except (RolloutError, UserError):
        return []  # the contract has said so
    count = min(n, len(read))
    return [read[place * len(read) // count] for place in range(count)]


async def _known(env: Any, ground: Ground, task: Task, success: float) -> Known:
    """The reference's attempt; without a reference, the best of what the row suggests."""
    calls: list[Call] = []
    said: list[str] = []
    solve = getattr(env, "solve", None)
    played: Played | None = None
    if solve is not None:
        try:
            with stage("model", VerifierFault):
                solution = solve(task)
        except RolloutError:
            solution = None  # the contract has said so
        if solution is not None:
            played = await ground.play("the reference", task, recorded(solution, calls, said))
    if played is not None and not any(said) and calls:  # the last step ended the episode
        said = [str(calls.pop())] if isinstance(calls[-1], str) else [_last_text(calls)]
    if played is None or not said:
        return await _guessed(ground, task, success)
    known = known_of(task, said[0], calls)
    nothing = [attack.reply for attack in floor_attacks(known)]
    texts = [reply for reply in nothing if isinstance(reply, str)]
    if played.reward is not None and await _unread(ground, known, played.reward):
        known = replace(known, closed=False)
    # Without calls: what a policy gets that does nothing. After them: does the reply count at all?
    idle = [await ground.play("nothing", task, _solution(reply, ())) for reply in nothing]
    full = success if played.reward is None else played.reward
    if calls:
        after = [await ground.play("nothing", task, _solution(reply, calls)) for reply in texts]
        low = min((one.reward for one in after if one.reward is not None), default=0.0)
        if full - low > EQUAL:
            return with_rewards(known, full, low, played.reward is not None)
        known = replace(known, calls=(), closed=False, counts=False)
    low = min((one.reward for one in idle if one.reward is not None), default=0.0)
    # A reward that is the same whatever is said, or a reference that gets nothing: measured against what was asked for.
    if full - low <= EQUAL:
        return with_rewards(known, max(full, success), min(low, 0.0), False)
    return with_rewards(known, full, low, played.reward is not None)


def _last_text(calls: Sequence[Call]) -> str:
    """What was said last, "" where only tools were called: the calls themselves are the answer."""
    return next((call for call in reversed(calls) if isinstance(call, str)), "")


async def _unread(ground: Ground, known: Known, full: float) -> bool:
    """Whether what looks like the answer is not what is compared: the row has rules to check by, and another text in that
    place changes nothing (a sample reply, say)."""
    if any(is_gold(name) for name in known.gold):
        return False  # it is called the answer
    rules = [name for name, value in known.task.fields.items() if isinstance(value, (dict, list)) and name not in known.gold]
    other = known.with_gold(wrong_answers(known)[0]) if known.closed and rules and not known.calls else None
    if other is None:
        return False
    task = replace(known.task, fields={**known.task.fields, **other})
    played = await ground.play("another row", task, _solution(known.reply, ()))
    return played.reward is not None and played.reward >= full - EQUAL


async def _guessed(ground: Ground, task: Task, success: float) -> Known:
    low = await ground.play("nothing", task, {"output": [assistant("harbour copper maybe lantern")]})
    best: tuple[float, str] = (low.reward or 0.0, "")
    for text in guesses(task):
        played = await ground.play("a guess", task, {"output": [assistant(text)]})
        if played.reward is not None and played.reward > best[0] + EQUAL:
            best = played.reward, text
    known = known_of(task, best[1], (), own=False)
    if not best[1]:
        known = replace(known, closed=False)
    full = best[0] if best[1] else success
    return with_rewards(known, full, min(low.reward or 0.0, success - 1e-3), bool(best[1]))


async def _attack(ground: Ground, known: Sequence[Known], canary: Path, wind: Callable[[], Awaitable[None]]) -> list[Hit]:
    planned: list[tuple[Known, Attack]] = []
    for one in known:
        others = [other for other in known if other is not one]
        for attack in (*floor_attacks(one), *attacks(one, others, canary)):
            if not (attack.guess and one.closed and holds(attack.text, one.core)):
                planned.append((one, attack))
    hits: list[Hit] = []
    late = 0

    async def strike(one: Known, attack: Attack) -> None:
        nonlocal late
        if late >= LATE:
            return
        played = await ground.meet(attack.what, _task(one, attack), Player(_solution(attack.reply, one.calls), wind))
        late += _late(played)
        hits.append(Hit(one, attack, played))

    for one, attack in planned:
        if attack.rule == "executed":
            await strike(one, attack)
    # Where a verifier runs replies outside of any sandbox, one would end the audit, or write to the working folder.
    deadly = ("_exit", "open(") if _exists(canary) else ()
    async with asyncio.TaskGroup() as group:
        for one, attack in planned:
            if attack.rule != "executed" and not any(word in attack.text for word in deadly):
                group.create_task(strike(one, attack))
    return await _timed(ground, await _controlled(ground, hits), wind)


async def _controlled(ground: Ground, hits: Sequence[Hit]) -> list[Hit]:
    """Those that are paid for another reason count for nothing."""
    kept: list[Hit] = []
    for hit in hits:
        one, attack = hit.known, hit.attack
        if attack.control is not None and attack.bound == "below" and _is_full(hit):
            other = await ground.play("a control", one.task, _solution(attack.control, one.calls))
            if other.reward is not None and one.share(other.reward) >= HALF:
                hit = replace(hit, attack=replace(attack, bound="judged"))
        kept.append(hit)
    return kept


@contextmanager
def _canary() -> Iterator[Path]:
    """A file that is not there yet. Its name has no digits, which would be answers."""
    name = "".join(secrets.choice(ascii_lowercase) for _ in range(12))
    file = Path(tempfile.gettempdir()) / f"rollforge-canary-{name}"
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _exists(file: Path) -> bool:
    return file.exists()


async def _timed(ground: Ground, hits: list[Hit], wind: Callable[[], Awaitable[None]]) -> list[Hit]:
    """The slow ones once more, one at a time: side by side they wait for each other."""
    slow = sorted(
        (place for place, hit in enumerate(hits) if _slow(hit.played)), key=lambda p: -hits[p].played.verify_seconds
    )
    confirmed = False
    for number, place in enumerate(slow):
        one, attack = hits[place].known, hits[place].attack
        if number < AGAIN:
            again = await ground.meet(attack.what, _task(one, attack), Player(_solution(attack.reply, one.calls), wind))
            hits[place] = Hit(one, attack, again)
            confirmed = confirmed or _slow(again)
        elif not confirmed and not _late(hits[place].played):
            hits[place] = Hit(one, attack, replace(hits[place].played, verify_seconds=0.0))
    return hits


def _slow(played: Played) -> bool:
    return _late(played) or played.verify_seconds > SLOW


def _task(known: Known, attack: Attack) -> Task:
    return replace(known.task, fields={**known.task.fields, **attack.row}) if attack.row else known.task


def _late(played: Played) -> bool:
    return played.outcome is Outcome.TIMEOUT or "was blocked for" in played.problem


def _solution(reply: str | Response, calls: Sequence[Call]) -> Any:
    if not isinstance(reply, str):
        return reply
    return replay(reply, calls) if calls else {"output": [assistant(reply)]}


def _judge(hits: Sequence[Hit], success: float, seconds: float) -> Iterator[Finding]:
    by_attack: dict[tuple[str, str], list[Hit]] = defaultdict(list)
    for hit in hits:
        by_attack[hit.attack.rule, hit.attack.what].append(hit)
    told: dict[tuple[str, Severity], list[tuple[str, list[Hit], int]]] = defaultdict(list)
    for (_, what), tried in by_attack.items():
        for (rule, severity), struck in _struck(tried, success, seconds).items():
            told[rule, severity].append((what, struck, len(tried)))
    for (rule, severity), cases in told.items():
        cases.sort(key=lambda case: -len(case[1]))
        some = "; ".join(f"{what} ({_worth(rule, struck, tried)})" for what, struck, tried in cases[:4])
        more = f"; and {len(cases) - 4} more" if len(cases) > 4 else ""
        evidence = [_shown(struck[0]) for _, struck, _ in cases[:EXAMPLES]]
        yield found(rule, severity, f"not so: {RULES[rule].asks}: {some}{more}", evidence)


def _struck(tried: Sequence[Hit], success: float, seconds: float) -> dict[tuple[str, Severity], list[Hit]]:
    """The attempts of one attack that ended as they must not, by rule and severity."""
    struck: dict[tuple[str, Severity], list[Hit]] = defaultdict(list)
    full = [hit for hit in tried if hit.attack.bound == "below" and _is_full(hit)]
    for hit in tried:
        for rule, severity in _wrong(hit, success, seconds, everywhere=len(full) == len(tried)):
            struck[rule, severity].append(hit)
    return struck


def _wrong(hit: Hit, success: float, seconds: float, *, everywhere: bool) -> Iterator[tuple[str, Severity]]:
    known, attack, played = hit.known, hit.attack, hit.played
    if played.verify_seconds > SLOW and not played.problem:
        yield "endless", "warning"
    if played.problem:
        if attack.row and attack.bound != "judged" and played.outcome is not Outcome.TIMEOUT:
            return  # a row that cannot be used has no verdict: as it should be
        if attack.row and not _RAISED.search(played.problem) and not _late(played):
            return  # it says what is wrong with the row
        yield ("endless" if _late(played) else attack.rule if attack.row else "unjudged"), "error"
        return
    reward = played.reward or 0.0
    if reward > max(known.full, success) + EQUAL:
        yield "above", "error"
        return
    share = known.share(reward)
    if attack.bound == "same":
        if share < 1 - LOSS and known.full > known.low and known.counts:
            yield attack.rule, attack.severity
    elif attack.bound == "below":
        rule = "nonsense" if attack.rule == "unjudged" else attack.rule
        if _is_full(hit):
            yield rule, _weight(hit, everywhere)
        elif known.closed and share >= HALF and rule in _WITHOUT_ANSWER and not attack.row:
            yield "partial", "warning"


def _weight(hit: Hit, everywhere: bool) -> Severity:
    """Where the row does not hold the answer, a text may be right by chance: only what is right everywhere is an error."""
    attack = hit.attack
    if attack.severity != "error" or hit.known.closed or attack.row or (attack.rule == "options" and attack.control):
        return attack.severity
    if attack.rule in ("empty", "override", "forged", "executed"):
        return "error" if everywhere else "warning"
    return "warning" if everywhere else "note"


def _is_full(hit: Hit) -> bool:
    reward = hit.played.reward
    return reward is not None and hit.known.share(reward) >= FULL


_WITHOUT_ANSWER = ("empty", "nonsense", "echo", "shell", "options", "override", "forged", "numbers", "wildcard")


def _worth(rule: str, struck: Sequence[Hit], tried: int) -> str:
    played = struck[0].played
    on = f" on {len(struck)} of {tried} tasks" if tried > 1 else ""
    if played.problem:
        return f"{brief(played.problem, 120)}{on}"
    if rule == "endless":
        return f"{played.verify_seconds:.1f} s{on}"
    return f"{played.reward:g}{on}"


def _shown(hit: Hit) -> Shown:
    return shown(hit.played, hit.attack.text, hit.known.calls, hit.attack.row)
