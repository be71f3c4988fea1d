"""A thousand programs that never end, each beside one that must be right: what holds, what is left, how long it takes.

    python benchmarks/sandbox.py                    1,000 of each
    python benchmarks/sandbox.py --quick            100 of each
    ROLLFORGE_SANDBOX=docker python benchmarks/sandbox.py    in containers

The hostile ones take turns: a loop, a loop inside C, one that ignores every signal, daemons in sessions of their own, a fork
bomb. All are asked for at once; the sandbox runs as many as there are processors. The allowed time is
short, so that it is the ending of programs that is measured, and not waiting.
Exit status: 1 when one was not ended, a neighbour was wrong, or a process is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time

from rollforge.sandbox.jail import Allowance, Jail, Program
from rollforge.sandbox.processes import descendants

HOSTILE = {
    "loop": "while True: pass",
    "loop in C": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "ignores signals": "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
    "  except (OSError, ValueError): pass\nwhile True: signal.pause()",
    "daemons": "import os\nfor _ in range(2):\n  if os.fork() == 0: os.setsid()\nwhile True: pass",
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
}
WALL = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth")
    parser.add_argument("--programs", type=int, help="how many of each")
    options = parser.parse_args()
    return asyncio.run(measure(options.programs or (100 if options.quick else 1_000)))


async def measure(count: int) -> int:
    jail = Jail()
    await jail.run(Program("pass"))
    names = list(HOSTILE)
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        hostile, neighbours = [], []
        for number in range(count):
            name = names[number % len(names)]
            hostile.append((name, group.create_task(jail.run(Program(HOSTILE[name]), Allowance(wall=WALL)))))
            neighbours.append(group.create_task(jail.run(Program(f"print({number} ** 2)"))))
    seconds = time.monotonic() - started
    held = {name: [task.result() for kind, task in hostile if kind == name] for name in names}
    wrong = sum(task.result().stdout != f"{number**2}\n" for number, task in enumerate(neighbours))
    running, zombies = left()
    jail.close()
    after = len(descendants(os.getpid()))
    escaped = sum(not one.timed_out for ended in held.values() for one in ended)
    print(
        f"isolation: {jail.level}; {count:,} programs without an end, {WALL} s each, {count:,} neighbours: {seconds:.1f} s"
    )
    for name, ended in held.items():
        late = sum(one.timed_out for one in ended)
        print(f"  {name}: {late} of {len(ended)} out of time, the slowest after {max(one.seconds for one in ended):.2f} s")
    print(f"not ended by the sandbox: {escaped}; neighbours that were wrong: {wrong}; zombies: {zombies}; left: {after}")
    print(f"processes of the sandbox at the end: {running}")
    return 1 if escaped or wrong or zombies or after else 0


def left() -> tuple[int, int]:
    """Processes below this one, and how many of them are dead and not waited for."""
    states = []
    for process in descendants(os.getpid()):
        with contextlib.suppress(OSError), open(f"/proc/{process}/stat") as file:
            states.append(file.read().rpartition(")")[2].split()[0])
    return len(states), states.count("Z")


if __name__ == "__main__":
    sys.exit(main())
