"""What it costs to make training data of stored rollouts, against the scripts of NeMo Gym's pages in the same run.

    python benchmarks/data.py speed     MB/s per core of export, transform, statistics, dedup and split; a second process
    python benchmarks/data.py memory    peak memory of 1 GB and of ten times as much

The rows are made for it: 8 KB each, reasoning, parallel tool calls and their results, four attempts a task. The pages' way
is: every line through json into one list, convert, json.dumps. It is measured with the same rows, in turns with ours.

`--quick` takes 100 MB instead of 1 GB. Every figure is printed with its bar. Exit status: 1 when a bar is missed, 2 when
something failed and there is no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import HERE, Measured, give_up, measure, rollforge

ATTEMPTS = 4
RATIO, SECOND, PEAK = 7.0, 1.7, 200.0
"""The bars: times the pages' speed per core, times with a second process, MB."""
MOST_SECONDS = 3600.0


@dataclass(frozen=True)
class Subject:
    """A way to do something, ours and the pages'."""

    name: str
    pages: str
    command: tuple[str, ...]
    """IN, OUT and WORKERS are put in."""


SUBJECTS = (
    Subject("GRPO export", "grpo", ("export", "IN", "--to", "trl:grpo", "--out", "OUT", "--workers", "WORKERS")),
    Subject("SFT export", "sft", ("export", "IN", "--to", "nemo-rl:sft", "--out", "OUT", "--workers", "WORKERS")),
    Subject("DPO pairing", "dpo", ("export", "IN", "--to", "nemo-rl:dpo-messages", "--out", "OUT", "--workers", "WORKERS")),
    Subject("transform grpo", "grpo", ("grpo", "--input", "IN", "--output", "OUT/rows.jsonl", "--workers", "WORKERS")),
    Subject("transform sft", "sft", ("sft", "--input", "IN", "--output", "OUT/rows.jsonl", "--workers", "WORKERS")),
    Subject("transform dpo", "dpo", ("dpo", "--input", "IN", "--output", "OUT/rows.jsonl", "--workers", "WORKERS")),
    Subject("statistics", "stats", ("stats", "IN", "--json", "--workers", "WORKERS")),
    Subject("exact dedup", "dedup", ("curate", "IN", "--dedup", "both", "--out", "OUT", "--workers", "WORKERS")),
    Subject("split", "split", ("curate", "IN", "--split", "90/10", "--out", "OUT", "--workers", "WORKERS")),
)


@dataclass(frozen=True)
class Sizes:
    mb: int
    rounds: int
    times: int
    only: str
    folder: Path


def speed(sizes: Sizes) -> bool:
    file = made(sizes)
    size = file.stat().st_size / 1e6
    print(f"{size:.0f} MB, {rows_of(sizes.mb):,} rows, median of {sizes.rounds} rounds; MB/s is per second of CPU")
    print(f"  {'':15}{'pages':>8}{'ours':>8}{'ratio':>8}{'second':>8}{'peak':>8}{'pages':>9}")
    print(f"  {'':15}{'MB/s':>8}{'MB/s':>8}{'times':>8}{'times':>8}{'MB':>8}{'MB':>9}")
    kept = True
    baseline: dict[str, list[Measured]] = {}
    for subject in chosen(sizes):
        one: list[Measured] = []
        two: list[Measured] = []
        theirs = baseline.setdefault(subject.pages, [])
        for number in range(sizes.rounds):
            if len(theirs) <= number:
                theirs.append(pages(subject.pages, file, sizes.folder))
            one.append(ours(subject, [file], sizes.folder, 1))
            two.append(ours(subject, [file], sizes.folder, 2))
        ratio = middle(theirs, "cpu") / middle(one, "cpu")
        second = middle(one, "seconds") / middle(two, "seconds")
        peak = max(used.peak_mb for used in (*one, *two))
        bars = (("ratio", ratio >= RATIO), ("second", second >= SECOND), ("peak", peak <= PEAK))
        missed = [bar for bar, ok in bars if not ok]
        figures = f"{size / middle(theirs, 'cpu'):8.1f}{size / middle(one, 'cpu'):8.1f}{ratio:8.1f}{second:8.2f}{peak:8.0f}"
        verdict = f"MISS {', '.join(missed)}" if missed else "ok"
        print(f"  {subject.name:15}{figures}{max(used.peak_mb for used in theirs):9.0f}  {verdict}", flush=True)
        kept &= not missed
    print(f"  bars: ratio {RATIO:g}, second process {SECOND:g}, peak {PEAK:g} MB")
    return kept


def memory(sizes: Sizes) -> bool:
    file = made(sizes)
    # The same bytes under other names: as many inputs as wished, on one file's disk space.
    many = [file]
    for number in range(1, sizes.times):
        link = file.with_name(f"{file.stem}-{number}.jsonl")
        link.unlink(missing_ok=True)
        os.link(file, link)
        many.append(link)
    size = file.stat().st_size / 1e9
    print(f"peak memory in MB of {size:.2g} GB and of {size * sizes.times:.2g} GB, two processes, largest of them")
    kept = True
    for subject in chosen(sizes):
        small = ours(subject, [file], sizes.folder, 2)
        large = ours(subject, many, sizes.folder, 2)
        most = 500.0 if subject.name == "statistics" else PEAK
        ok = large.peak_mb <= most
        print(
            f"  {subject.name:15}{small.peak_mb:8.0f}{large.peak_mb:8.0f}  {'ok' if ok else 'MISS'} (bar {most:g})",
            flush=True,
        )
        kept &= ok
    for link in many[1:]:
        link.unlink()
    return kept


def ours(subject: Subject, files: list[Path], folder: Path, workers: int) -> Measured:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    program = [rollforge()]
    command = list(subject.command)
    if subject.name.startswith("transform"):
        program = [sys.executable, str(HERE.parent / "scripts" / f"transform_gym_to_{command.pop(0)}.py")]
    words: list[str] = []
    for word in command:
        words += (
            [str(file) for file in files]
            if word == "IN"
            else [word.replace("OUT", str(out)).replace("WORKERS", str(workers))]
        )
    used = measure(*program, *words, seconds=MOST_SECONDS)
    shutil.rmtree(out, ignore_errors=True)
    return used


def pages(what: str, file: Path, folder: Path) -> Measured:
    used = measure(
        sys.executable, str(Path(__file__)), "pages", what, str(file), str(folder / "pages.jsonl"), seconds=MOST_SECONDS
    )
    (folder / "pages.jsonl").unlink(missing_ok=True)
    return used


def middle(found: list[Measured], name: str) -> float:
    return statistics.median(getattr(used, name) for used in found)


def chosen(sizes: Sizes) -> Iterator[Subject]:
    wanted = [name for name in sizes.only.split(",") if name]
    for subject in SUBJECTS:
        if not wanted or any(name in subject.name for name in wanted):
            yield subject


# Rows


def rows_of(mb: int) -> int:
    return max(ATTEMPTS, mb * 1_000_000 // 8192 // ATTEMPTS * ATTEMPTS)


def made(sizes: Sizes) -> Path:
    """The file of rollouts, written once."""
    path = sizes.folder / f"rollouts-{sizes.mb}.jsonl"
    count = rows_of(sizes.mb)
    if not path.exists():
        partial = path.with_suffix(".partial")
        words = [f"word{number}" for number in range(500)]
        draw = random.Random(0)
        with partial.open("w", encoding="utf-8") as file:
            for number in range(count):
                file.write(json.dumps(rollout(number // ATTEMPTS, number % ATTEMPTS, draw, words)) + "\n")
        partial.rename(path)
    return path


def rollout(task: int, attempt: int, draw: random.Random, words: list[str]) -> dict[str, Any]:
    """A row as NeMo Gym writes it, of about 8 KB."""

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length // 8))

    asked = random.Random(task)
    prompt = " ".join(asked.choices(words, k=90))
    output: list[dict[str, Any]] = []
    for turn in range(2):
        output.append({"type": "reasoning", "id": f"rs_{turn}", "summary": [{"type": "summary_text", "text": text(900)}]})
        names = ("search", "lookup")
        for place, name in enumerate(names):
            arguments = json.dumps({"query": text(40)} if name == "search" else {"key": task, "limit": 5})
            output.append(
                {
                    "type": "function_call",
                    "id": f"fc_{turn}{place}",
                    "call_id": f"call_{turn}{place}",
                    "name": name,
                    "arguments": arguments,
                    "status": "completed",
                }
            )
        for place in range(2):
            output.append({"type": "function_call_output", "call_id": f"call_{turn}{place}", "output": text(700)})
    content = [{"type": "output_text", "text": f"{text(500)} The answer is {task % 97}.", "annotations": []}]
    output.append({"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": content})
    reward = float(asked.random() * ATTEMPTS > attempt)
    return {
        "responses_create_params": {
            "input": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Task {task}: {prompt}"}],
            "tools": TOOLS,
            "parallel_tool_calls": True,
            "temperature": 1.0,
        },
        "response": {
            "id": f"resp_{task}_{attempt}",
            "model": "model",
            "output": output,
            "usage": {"input_tokens": 700, "output_tokens": 900, "total_tokens": 1600},
        },
        "reward": reward,
        "accuracy": reward,
        "expected_answer": str(task % 97),
        "_ng_task_index": task,
        "_ng_rollout_index": attempt,
        "agent_ref": {"type": "responses_api_agents", "name": "research_simple_agent"},
    }


SYSTEM = "You are a careful research assistant. Use the tools, think before you answer, and say where each fact comes from."
TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"{name.capitalize()} the collection, and return what was found as text.",
        "parameters": {
            "type": "object",
            "properties": {key: {"type": kind, "description": f"The {key}."} for key, kind in arguments},
            "required": [arguments[0][0]],
            "additionalProperties": False,
        },
        "strict": True,
    }
    for name, arguments in (("search", [("query", "string")]), ("lookup", [("key", "integer"), ("limit", "integer")]))
]


# The pages' way


def run_pages(what: str, source: str, target: str) -> None:
    """As the scripts of the pages do it: the whole file as a list, plain json. They look for `output` at the top of the row
    and would find nothing, so here it is looked for where it is."""
    with open(source, encoding="utf-8") as file:
        rollouts = [json.loads(line) for line in file]
    rows: list[Any] = []
    if what == "grpo":
        rows = [
            {
                "input": last_user(row),
                "output": final_text(row),
                "ground_truth": row["expected_answer"],
            }
            for row in rollouts
        ]
    elif what == "sft":
        rows = [chat(row) for row in rollouts if row["reward"] >= 0.95]
    elif what == "dpo":
        rows = pairs(rollouts)
    elif what == "stats":
        summary = summarize(rollouts)
        print(json.dumps(summary))
    elif what == "dedup":
        seen: set[str] = set()
        for row in rollouts:
            key = json.dumps([row["responses_create_params"]["input"], row["response"]["output"]], sort_keys=True)
            if key not in seen:
                seen.add(key)
                rows.append(row)
    elif what == "split":
        random.Random(0).shuffle(rollouts)
        rows = rollouts
    if rows:
        with open(target, "w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row) + "\n")


def last_user(row: dict[str, Any]) -> str:
    return next((one["content"] for one in reversed(row["responses_create_params"]["input"]) if one["role"] == "user"), "")


def final_text(row: dict[str, Any]) -> str:
    return next((one["content"][0]["text"] for one in reversed(row["response"]["output"]) if one["type"] == "message"), "")


def chat(row: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": one["role"], "content": one["content"]} for one in row["responses_create_params"]["input"]]
    calls: list[dict[str, Any]] = []
    for item in row["response"]["output"]:
        if item["type"] == "function_call":
            calls.append({"name": item["name"], "arguments": json.loads(item["arguments"])})
            continue
        if calls and item["type"] != "reasoning":
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            calls = []
        if item["type"] == "function_call_output":
            messages.append({"role": "tool", "content": item["output"]})
        elif item["type"] == "message":
            messages.append({"role": "assistant", "content": item["content"][0]["text"]})
    return {"messages": messages, "tools": row["responses_create_params"]["tools"]}


def pairs(rollouts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rollouts:
        groups.setdefault(last_user(row), []).append(row)
    found = []
    for prompt, group in groups.items():
        group.sort(key=lambda row: row["reward"])
        worst, best = group[0], group[-1]
        if best["reward"] - worst["reward"] >= 0.2:
            found.append({"prompt": prompt, "chosen": final_text(best), "rejected": final_text(worst)})
    return found


def summarize(rollouts: list[dict[str, Any]]) -> dict[str, Any]:
    rewards = [row["reward"] for row in rollouts]
    bins: dict[float, int] = {}
    for reward in rewards:
        bins[round(reward, 1)] = bins.get(round(reward, 1), 0) + 1
    calls = [sum(item["type"] == "function_call" for item in row["response"]["output"]) for row in rollouts]
    return {"mean": statistics.fmean(rewards), "bins": bins, "calls": statistics.fmean(calls)}


BENCHMARKS: dict[str, Callable[[Sizes], bool]] = {"speed": speed, "memory": memory}


def main() -> None:
    if sys.argv[1:2] == ["pages"]:
        run_pages(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="100 MB instead of 1 GB")
    parser.add_argument("--mb", type=int, help="instead of the benchmark's own size")
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of each (speed)")
    parser.add_argument("--times", type=int, default=10, help="how many times as much (memory)")
    parser.add_argument("--only", default="", help="subjects whose names hold one of these words, with commas")
    parser.add_argument("--folder", type=Path, help="where the rollouts are written and kept (default: a temporary one)")
    options = parser.parse_args()
    mb = options.mb or (100 if options.quick else 1000)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder or Path(temporary)
        if shutil.disk_usage(folder).free < 3.5e6 * mb:
            give_up(f"{folder} has less than {3.5 * mb / 1000:.1f} GB free: --folder, or a smaller --mb")
        sizes = Sizes(mb, options.rounds, options.times, options.only, folder)
        sys.exit(0 if BENCHMARKS[options.which](sizes) else 1)


if __name__ == "__main__":
    main()
