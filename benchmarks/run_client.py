"""Posts tasks to an agent's `/run`, so many at a time, and says what came back.

    python benchmarks/run_client.py http://127.0.0.1:PORT --concurrency 100 --rollouts 2000

Ends after --rollouts, or begins no more after --seconds. Prints one JSON object: how many answers had a reward, which named
faults the others had, what was neither, latencies, and what the client itself cost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import uvloop

FAULTS = ("infra_fault", "judge_fault", "verifier_fault", "policy_fault", "timeout")


@dataclass
class Seen:
    rewards: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    unnamed: Counter[str] = field(default_factory=Counter)
    """Answers that are neither, by what they were."""
    seconds: list[float] = field(default_factory=list)


async def one(session: aiohttp.ClientSession, url: str, given: dict[str, Any], number: int, seen: Seen) -> None:
    params = {**given.get("responses_create_params", {}), "input": f"Task {number}: what is the value of amber?"}
    row = {**given, "responses_create_params": params, "_ng_task_index": number, "_ng_rollout_index": 0}
    started = time.perf_counter()
    try:
        async with session.post(url, data=orjson.dumps(row)) as answer:
            body = orjson.loads(await answer.read())
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
        seen.unnamed[f"{type(error).__name__}: {error}"[:100]] += 1
        return
    finally:
        seen.seconds.append(time.perf_counter() - started)
    error = body.get("error") if isinstance(body, dict) else None
    if status == 200 and isinstance(body.get("reward"), (int, float)) and _is_answer(body, row):
        seen.rewards += 1
    elif isinstance(error, dict) and error.get("type") in FAULTS:
        seen.faults[error["type"]] += 1
    else:
        seen.unnamed[f"{status}: {str(body)[:100]}"] += 1


def _is_answer(body: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether it is the answer to this row; NeMo Gym's verifiers give back its params only."""
    told = body.get("responses_create_params")
    same = body.get("_ng_task_index", row["_ng_task_index"]) == row["_ng_task_index"]
    return same and isinstance(told, dict) and told.get("input") == row["responses_create_params"]["input"]


async def run(options: argparse.Namespace, seen: Seen) -> None:
    end = time.perf_counter() + options.seconds
    numbers = iter(range(options.rollouts)) if options.rollouts else itertools.count()
    headers = {"Content-Type": "application/json"}
    limits = aiohttp.ClientTimeout(total=options.patience)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits, headers=headers) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(options.concurrency):
            group.create_task(work(session, options, numbers, end, seen))


async def work(
    session: aiohttp.ClientSession, options: argparse.Namespace, numbers: Iterator[int], end: float, seen: Seen
) -> None:
    url = f"{options.url.rstrip('/')}/run"
    while time.perf_counter() < end and (number := next(numbers, None)) is not None:
        await one(session, url, options.row, number, seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the agent service")
    parser.add_argument(
        "--row", type=json.loads, default={"key": "amber", "answer": "42"}, help="the task's row, but its input"
    )
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--rollouts", type=int, default=0, help="0: as many as --seconds allow")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for one answer")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seen, start = Seen(), time.perf_counter()
    uvloop.run(run(options, seen))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = sorted(seen.seconds) or [0.0]
    figures = {
        "answers": len(seen.seconds),
        "rewards": seen.rewards,
        "faults": seen.faults,
        "unnamed": dict(seen.unnamed.most_common(10)),
        "per_second": len(seen.seconds) / (time.perf_counter() - start),
        "p50": seconds[len(seconds) // 2],
        "longest": seconds[-1],
        "cpu": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
