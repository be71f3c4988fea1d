"""`rollforge serve` in a process of its own, for as long as a test needs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import aiohttp

ROLLFORGE = str(Path(sys.executable).parent / "rollforge")

BANK = """
import asyncio, os
import rollforge as rf

@rf.env(tasks=[{"prompt": "pay", "target": 6}])
class Bank:
    def reset(self, target: int = 0): self.balance = 0
    async def pay(self, amount: int) -> str:
        "Pay an amount."
        self.balance += amount
        return f"{self.balance} {os.getpid()}"
    async def wait(self, seconds: float) -> str:
        "Wait."
        await asyncio.sleep(seconds)
        return "done"
    def verify(self, reply: str, target: int) -> float: return float(self.balance == target)
"""
ROW = {"responses_create_params": {"input": "pay"}, "target": 6}


@dataclass
class Started:
    process: subprocess.Popen[str]
    urls: dict[str, str]
    """By name, and by kind where there is one of it."""
    err: IO[str]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and what was said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        return status, self.said()

    def said(self) -> str:
        self.err.seek(0)
        return self.err.read()


@contextmanager
def started(folder: Path, *arguments: str, services: int = 1) -> Iterator[Started]:
    """Up to when all services have been announced."""
    with open(folder / "stderr", "w+", encoding="utf-8") as err:
        command = [ROLLFORGE, "serve", *arguments, "--json"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=err, text=True)
        found = Started(process, {}, err)
        try:
            assert process.stdout
            for _ in range(services):
                line = process.stdout.readline()
                assert line, f"it ended with {process.wait(60)}: {found.said()}"
                told = json.loads(line)
                found.urls[told["name"]] = found.urls[told["kind"]] = told["url"]
            yield found
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                if process.poll() is None:
                    process.send_signal(number)
            process.communicate(timeout=60)


async def post(url: str, row: Any = None, cookies: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    """Over a connection of its own, which any worker may take: status, body, cookies."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as client,
        client.post(url, json=row, cookies=cookies) as found,
    ):
        return found.status, await found.text(), {name: morsel.value for name, morsel in found.cookies.items()}


async def get(url: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as found:
        return found.status, await found.text()
