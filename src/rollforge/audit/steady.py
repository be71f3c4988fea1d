"""Whether a score depends on anything but the answer: on what was judged before, on chance, on the clock, on the process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rollforge.audit.attacks import wrong_answers
from rollforge.audit.finding import Finding, brief, found, shown, where
from rollforge.audit.known import Known, replay
from rollforge.audit.play import Ground, Played
from rollforge.envs.base import Limits
from rollforge.records.lossless import dumps, loads
from rollforge.records.task import Task

TASKS = 3
ROUNDS = 6
SECONDS = 120.0

Play = tuple[Known, str, str]
"""The task, what is said in words, and the reply."""


async def look(ground: Ground, known: Sequence[Known], reference: str, limits: Limits) -> AsyncIterator[Finding]:
    plays = [play for one in known[:TASKS] for play in _plays(one)]
    first, finding = await _in_orders(ground, plays)
    if finding is not None:
        yield finding
    elif reference and not reference.startswith(("http://", "https://")):
        elsewhere = await _elsewhere(reference, plays, first, limits)
        if elsewhere is not None:
            yield elsewhere


def _plays(known: Known) -> list[Play]:
    wrong = known.say(wrong_answers(known)[0]) if known.closed else "harbour copper maybe lantern"
    return [(known, "the reference", known.reply), (known, "a wrong answer", wrong), (known, "an empty reply", "")]


async def _in_orders(ground: Ground, plays: Sequence[Play]) -> tuple[list[Played], Finding | None]:
    """One after the other, forwards, backwards, each many times: a counter, a cache or a coin shows."""
    orders = [list(range(len(plays))), list(range(len(plays)))[::-1]]
    orders += [[place for place in range(len(plays)) for _ in range(2)], list(range(0, len(plays), 2)) * 2]
    orders = [orders[number % len(orders)] for number in range(ROUNDS)]
    seen: dict[int, list[Played]] = defaultdict(list)
    for order in orders:
        for place in order:
            known, _, reply = plays[place]
            seen[place].append(await ground.play("again", known.task, replay(reply, known.calls)))
    first = [seen[place][0] for place in range(len(plays))]
    for place, attempts in sorted(seen.items()):
        other = next((one for one in attempts if _judged(one) != _judged(attempts[0])), None)
        if other is not None:
            known, what, reply = plays[place]
            number = attempts.index(other) + 1
            says = f"{_what(known, what, reply)} is judged {_judged(attempts[0])}, and {_judged(other)} the {number}. time"
            evidence = [shown(attempts[0], reply, known.calls), shown(other, reply, known.calls)]
            return first, found("unsteady", "error", says, evidence)
    return first, None


def _what(known: Known, what: str, reply: str) -> str:
    return f"{what} ({brief(reply, 40)}) for {where(known.task)}"


def _judged(played: Played) -> Any:
    return played.reward if not played.problem else played.problem


async def _elsewhere(reference: str, plays: Sequence[Play], here: Sequence[Played], limits: Limits) -> Finding | None:
    """The same in two other processes: other seeds of hash(), another time zone, no terminal."""
    asked = [
        {
            "params": k.task.params,
            "fields": k.task.fields,
            "id": k.task.id,
            "index": k.task.index,
            "calls": k.calls,
            "reply": r,
        }
        for k, _, r in plays
    ]
    sent = dumps({"env": reference, "plays": asked, "limits": [limits.tool, limits.verify]})
    for seed, zone in (("1", "Pacific/Kiritimati"), ("4242", "America/Adak")):
        answer, problem = await _ask(sent, {"PYTHONHASHSEED": seed, "TZ": zone})
        if problem:
            return found("unsteady", "warning", f"it cannot be tried in another process: {problem}")
        for (known, what, reply), played, other in zip(plays, here, answer, strict=True):
            if _judged(played) != other:
                says = f"{_what(known, what, reply)} is judged {_judged(played)}, in another process {other}"
                return found("unsteady", "error", says, [shown(played, reply, known.calls)])
    return None


async def _ask(sent: bytes, variables: dict[str, str]) -> tuple[list[Any], str]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "rollforge.audit.steady")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **variables}
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(sent)
    except TimeoutError:
        process.kill()
        await process.wait()
        return [], f"it took longer than {SECONDS:g} s"
    last = out.splitlines()[-1:]
    if process.returncode or not last:
        return [], err.decode(errors="replace").strip().rpartition("\n")[2] or f"exit status {process.returncode}"
    return loads(last[0]), ""


async def _answer(asked: Any) -> list[Any]:
    from rollforge.envs.load import load_env

    env: Any = load_env(asked["env"])
    limits = Limits(*asked["limits"])
    if hasattr(env, "limits"):
        env.limits = limits
    ground = Ground(env, "", limits)
    try:
        answers = []
        for play in asked["plays"]:
            task = Task(play["params"], play["fields"], play["id"], play["index"])
            played = await ground.play(
                "elsewhere",
                task,
                replay(play["reply"], [call if isinstance(call, str) else (call[0], call[1]) for call in play["calls"]]),
            )
            answers.append(_judged(played))
        return answers
    finally:
        if hasattr(env, "aclose"):
            await env.aclose()


if __name__ == "__main__":
    print("\n" + dumps(asyncio.run(_answer(loads(sys.stdin.buffer.read())))).decode())
