"""The least that two model calls can cost: aiohttp on uvloop, the same two requests as a rollout, and nothing around them.

    python benchmarks/bare_client.py http://127.0.0.1:PORT/v1 --concurrency 100 --rollouts 2000

Prints one JSON object: CPU milliseconds per rollout, rollouts per second, peak memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Iterator

import aiohttp
import orjson
import uvloop

TOOL = {
    "name": "lookup",
    "description": "Look up the value of a key.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
}


async def rollout(session: aiohttp.ClientSession, url: str, number: int) -> None:
    messages = [{"role": "user", "content": f"Task {number}: what is the value of amber?"}]
    body = {"model": "stub", "messages": messages, "tools": [{"type": "function", "function": TOOL}]}
    for _ in range(2):
        async with session.post(url, data=orjson.dumps(body)) as answer:
            answer.raise_for_status()
            message = orjson.loads(await answer.read())["choices"][0]["message"]
        messages.append(message)
        for call in message.get("tool_calls") or ():
            key = orjson.loads(call["function"]["arguments"])["key"]
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": f"{key} = 42"})
    if "42" not in messages[-1]["content"]:
        raise ValueError(f"an unexpected reply: {messages[-1]}")


async def run(url: str, concurrency: int, rollouts: int) -> None:
    numbers = iter(range(rollouts))
    limits = aiohttp.ClientTimeout(total=600)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer stub"}
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=limits, headers=headers) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(concurrency):
            group.create_task(worker(session, url, numbers))


async def worker(session: aiohttp.ClientSession, url: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        await rollout(session, url, number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the stub server: http://127.0.0.1:PORT/v1")
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--rollouts", type=int, default=2000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, start = cpu_seconds(), time.perf_counter()
    uvloop.run(run(options.url.rstrip("/") + "/chat/completions", options.concurrency, options.rollouts))
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"cpu_ms": 1000 * cpu / options.rollouts, "per_second": options.rollouts / seconds, "peak_mb": peak}
    print(json.dumps({"rollouts": options.rollouts, "concurrency": options.concurrency, "seconds": seconds, **figures}))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
