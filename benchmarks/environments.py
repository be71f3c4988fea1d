"""What the built-in environments can take: a thousand sessions at once, and memory over ten thousand.

    python benchmarks/environments.py --quick
    python benchmarks/environments.py --only sql,coding --seconds 600

Each environment has a process of its own. Its reference policy plays through `collect`'s own runner and tool loop: first
1,000 sessions that are all open before the first of them goes on, then more, 100 at a time. Memory is that of the process
and of the workers and sandboxes below it, taken while no session is open. Verifiers that run programs are slow: `--seconds`
ends an environment's turn early, and the table says how many sessions there were.

Exit status: 1 when an environment misses a bar (a session without full marks; memory that grows by more than 10 MB
from a quarter of the sessions to the end), 2 when something failed and there is no figure.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.load import load_env
from rollforge.errors import UserError
from rollforge.models.base import Model, ModelOptions
from rollforge.models.load import load_model
from rollforge.records.items import Response
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task
from rollforge.registry import BUILT_IN

GROWTH = 10.0
"""The bar, in MB."""
WINDOW, ROUND = 100, 250
"""Sessions at a time, and from one look at the memory to the next, once the many at once are done."""
PATIENCE = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names with commas")
    parser.add_argument("--at-once", type=int, help="sessions open at the same time (1,000; quick: 100)")
    parser.add_argument("--sessions", type=int, help="sessions in all (10,000; quick: 500)")
    parser.add_argument("--seconds", type=float, default=PATIENCE, help="start no more sessions of one after so long")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    at_once, sessions = args.at_once or (100 if args.quick else 1000), args.sessions or (500 if args.quick else 10_000)
    if args.one:
        print(json.dumps(asyncio.run(measured(args.one, at_once, sessions, args.seconds))))
        return
    names = args.only.split(",") if args.only else sorted(BUILT_IN["env"])
    options = ["--at-once", str(at_once), "--sessions", str(sessions), "--seconds", str(args.seconds)]
    print(f"{'':22}{at_once:,} at once              memory, MB")
    print(f"{'environment':22}seconds   peak MB   sessions   before   quarter      end  ms each", flush=True)
    good = [row(name, options) for name in names]
    print(f"bar: full marks for all, growth from a quarter to the end at most {GROWTH:g} MB")
    sys.exit(0 if all(good) else 1)


def row(name: str, options: list[str]) -> bool:
    """Measure one in a process of its own and print the line; whether it meets the bars."""
    command = [sys.executable, __file__, "--one", name, *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        print(f"{name} failed:\n{ended.stderr[-3000:]}", file=sys.stderr)
        sys.exit(2)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    if "skipped" in found:
        print(f"{name:22}left out: {found['skipped']}", flush=True)
        return True
    problems = [f"{found['failed']} without full marks: {found['first']}"] if found["failed"] else []
    if found["end"] - found["quarter"] > GROWTH:
        problems.append(f"grows by {found['end'] - found['quarter']:.1f} MB")
    print(
        f"{name:22}{found['seconds']:7.1f}{found['peak']:10.0f}{found['sessions']:11,}{found['before']:9.1f}"
        f"{found['quarter']:10.1f}{found['end']:9.1f}{found['each']:9.2f}  {'; '.join(problems) or 'ok'}",
        flush=True,
    )
    return not problems


async def measured(name: str, at_once: int, sessions: int, seconds: float) -> dict[str, Any]:
    """The figures of one environment."""
    env: Any = load_env(name)
    try:
        tasks: list[Task] = list(islice(env.tasks(), at_once))
    except UserError as error:
        return {"skipped": str(error)}
    gate, tally = Gate(), Tally()
    model = load_model("scripted:perfect", ModelOptions(solve=env.solve))
    runner = Runner(env=env, env_name=name, model=model, model_name="scripted:perfect", agent=gate, rollout_seconds=PATIENCE)
    try:
        before = memory()
        deadline = time.perf_counter() + seconds
        gate.barrier = asyncio.Barrier(at_once)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(play(runner, tasks, number, tally))
        took, gate.barrier = time.perf_counter() - started, None
        peak = tally.peak
        looks = [(at_once, memory())]
        started = time.perf_counter()
        while tally.played < sessions and time.perf_counter() < deadline:
            await play_round(runner, tasks, min(ROUND, sessions - tally.played), tally)
            looks.append((tally.played, memory()))
        each = (time.perf_counter() - started) / max(1, tally.played - at_once) * 1000
    finally:
        await env.aclose()
    quarter = next(mb for played, mb in looks if played >= tally.played / 4)
    return {
        "seconds": took,
        "peak": peak,
        "sessions": tally.played,
        "before": before,
        "quarter": quarter,
        "end": looks[-1][1],
        "each": each,
        "failed": tally.failed,
        "first": tally.first,
    }


class Gate:
    """The tool loop, behind a barrier while there is one: nobody goes on before all are there."""

    def __init__(self) -> None:
        self.barrier: asyncio.Barrier | None = None
        self._loop = ToolLoop(max_turns=64)

    async def __call__(self, task: Task, model: Model, session: Any, /) -> Response:
        if self.barrier is not None:
            await self.barrier.wait()
        return await self._loop(task, model, session)


class Tally:
    def __init__(self) -> None:
        self.played = self.failed = 0
        self.first = ""
        self.peak = 0.0

    def add(self, rollout: Rollout) -> None:
        self.played += 1
        if self.played % 100 == 50:
            self.peak = max(self.peak, memory(quiet=False))
        if rollout.reward is None or rollout.reward < 1:
            self.failed += 1
            self.first = self.first or f"task {rollout.task_index}: {rollout.failure or rollout.reward}"


async def play(runner: Runner, tasks: list[Task], number: int, tally: Tally) -> None:
    tally.add(await runner(tasks[number % len(tasks)], number // len(tasks)))


async def play_round(runner: Runner, tasks: list[Task], sessions: int, tally: Tally) -> None:
    numbers = iter(range(tally.played, tally.played + sessions))

    async def worker() -> None:
        for number in numbers:
            await play(runner, tasks, number, tally)

    async with asyncio.TaskGroup() as group:
        for _ in range(WINDOW):
            group.create_task(worker())


def memory(quiet: bool = True) -> float:
    """MB resident of this process and all below it; without garbage where it is quiet enough to collect that."""
    if quiet:
        gc.collect()
    below: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(path.parent.name)
        below.setdefault(int(fields[1]), []).append(pid)
        resident[pid] = int(fields[21])
    waiting, total = [os.getpid()], 0
    while waiting:
        pid = waiting.pop()
        total += resident.get(pid, 0)
        waiting += below.get(pid, [])
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
