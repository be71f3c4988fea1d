"""Kill a collection at random moments, over and over, and resume it each time: nothing may be lost, double, or different.

    python benchmarks/kill.py --kills 200

Each run is begun with the same command until it is through, then another one with another seed. Some kills fall into its
start, some into its work; after some, the end of a journal is torn as an unlucky write would leave it. What the runs hold in
the end (rollouts, failed attempts, counts) is compared with runs of the same seeds that nobody disturbed. Prints one JSON
object; exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from processes import rollforge

ENVIRONMENT = """
import asyncio
import rollforge as rf

@rf.env(tasks=[{"prompt": f"{n}+{n}=?", "answer": str(2 * n)} for n in range(50)])
async def doubling(reply: str, answer: str, seed: int) -> float:
    await asyncio.sleep(0.005 + seed % 7 / 200)
    return float(reply == answer)
"""
KEPT = ("rollouts.jsonl", "failures.jsonl")
START_SECONDS, WORK_SECONDS = 0.6, 0.3
"""How long after its start, and how long after its first row, a run is killed at the latest."""
WRONG = ("lost", "double", "different", "forgotten")
"""Rows that are missing in the end, or there too often, or others; files that lost lines from one kill to the next."""
FIGURES = ("kills", "kills_at_start", "torn", "runs", "rollouts", "failures", *WRONG)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; they still differ, as the machine does")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    began = time.perf_counter()
    figures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "doubling.py").write_text(ENVIRONMENT)
        while figures["kills"] < options.kills:
            figures["runs"] += 1
            disturbed(folder, figures, options.kills, rng)
    wrong = sum(figures[what] for what in WRONG)
    result = {name: figures[name] for name in FIGURES}
    print(json.dumps({"ok": not wrong, **result, "seconds": round(time.perf_counter() - began, 1)}))
    return 1 if wrong else 0


def disturbed(folder: Path, figures: Counter[str], kills: int, rng: random.Random) -> None:
    """One run, killed until it is through or there were kills enough; then finished, and compared."""
    number = figures["runs"]
    out, whole = folder / f"killed-{number}", folder / f"whole-{number}"
    before: dict[str, bytes] = {}
    while figures["kills"] < kills:
        process = start(folder, out, number)
        at_start = rng.random() < 0.25
        if not at_start:
            wait_for_a_row(out, process, sum(map(len, before.values())))
        time.sleep(rng.uniform(0, START_SECONDS if at_start else WORK_SECONDS))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            break  # through
        figures["kills"] += 1
        figures["kills_at_start"] += at_start
        after = {file: whole_lines(out / file) for file in KEPT}
        figures["forgotten"] += sum(not after[file].startswith(before[file]) for file in before)
        before = after
        figures["torn"] += tear(out / rng.choice(KEPT), rng)
    for path in (out, whole):
        process = start(folder, path, number)
        if process.wait() not in (0, 1):
            raise SystemExit(f"the command failed with status {process.returncode}")
    compare(rows(whole), rows(out), figures)
    figures["different"] += (out / "metrics.json").read_bytes() != (whole / "metrics.json").read_bytes()


def start(folder: Path, out: Path, seed: int) -> subprocess.Popen[bytes]:
    command = [
        rollforge(),
        "collect",
        "doubling.py",
        "--model",
        "scripted:flaky:0.2",
        "--repeats",
        "4",
        "--concurrency",
        "4",
    ]
    command += ["--set", "backoff=0.01", "--seed", str(seed), "--out", str(out)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_a_row(out: Path, process: subprocess.Popen[bytes], size: int) -> None:
    while process.poll() is None and sum((out / file).stat().st_size for file in KEPT if (out / file).exists()) <= size:
        time.sleep(0.002)


def whole_lines(file: Path) -> bytes:
    data = file.read_bytes() if file.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def tear(file: Path, rng: random.Random) -> bool:
    """Sometimes: leave the beginning of a line at the end."""
    if not file.exists() or rng.random() < 0.5:
        return False
    line = file.read_bytes().partition(b"\n")[0] or b'{"responses_create_params"'
    with open(file, "ab") as journal:
        journal.write(line[: rng.randrange(1, len(line))])
    return True


def rows(out: Path) -> list[tuple[Any, ...]]:
    """(file, task, repeat, attempt, what the row holds besides times)"""
    found = []
    for file in KEPT:
        for line in (out / file).read_bytes().splitlines():
            row = json.loads(line)
            row["rollforge"].pop("seconds")
            key = row["_ng_task_index"], row["_ng_rollout_index"], row["rollforge"]["attempt"]
            found.append((file, *key, json.dumps(row, sort_keys=True)))
    return found


def compare(whole: list[tuple[Any, ...]], killed: list[tuple[Any, ...]], figures: Counter[str]) -> None:
    expected, got = Counter(row[:-1] for row in whole), Counter(row[:-1] for row in killed)
    figures["rollouts"] += sum(row[0] == KEPT[0] for row in killed)
    figures["failures"] += sum(row[0] == KEPT[1] for row in killed)
    figures["lost"] += len(expected - got)
    figures["double"] += len(got - expected)
    figures["different"] += len(set(killed) - set(whole))


if __name__ == "__main__":
    sys.exit(main())
