"""What is stuck is named: code that blocks the event loop, and a rollout in flight far longer than the others."""

from __future__ import annotations

import asyncio
import time

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.collect.tally import Tally
from rollforge.collect.watchdog import Watchdog
from tests.collect.parts import Script, calling, for_ever, reply, task, until


async def test_code_that_blocks_the_loop_is_named_while_it_does() -> None:
    told: list[str] = []

    def named() -> list[str]:
        return [text for text in told if "by task 7 repeat 3" in text]

    async def block() -> None:
        end = time.monotonic() + 20
        while not named() and time.monotonic() < end:
            time.sleep(0.001)  # noqa: ASYNC251 - this is what a watchdog is for

    async with Watchdog(told.append, Tally(), seconds=0.05):
        await asyncio.create_task(block(), name="task 7 repeat 3")
    assert "the event loop has been blocked for " in named()[0]
    assert "test_watchdog.py" in named()[0]
    assert "in block" in named()[0]


@pytest.mark.parametrize("where", ["the model", "a tool", "the verifier", "nothing known"])
async def test_a_rollout_that_is_stuck_is_named_once_with_what_it_waits_for(where: str) -> None:
    async def model(request: object) -> object:
        if where == "the model":
            await for_ever()
        return calling() if where == "a tool" else reply()

    env = Script(
        tool=for_ever if where == "a tool" else Script.tool,
        judge=for_ever if where == "the verifier" else Script.judge,
        opening=for_ever if where == "nothing known" else Script.opening,
    )
    runner = Runner(env=env, env_name="s", model=model, model_name="m", agent=ToolLoop())  # type: ignore[arg-type]
    worker = asyncio.create_task(runner(task(), 0), name="task 5 repeat 1")
    young = asyncio.create_task(for_ever(), name="task 6 repeat 0")
    await asyncio.sleep(0.05)  # until both wait
    now = time.monotonic()
    tally = Tally(attempts=4, seconds=8.0, live={worker: now - 1000, young: now - 19})
    told: list[str] = []
    async with Watchdog(told.append, tally, seconds=0.01, slow=1.0, times=10.0):  # 10 times the average is 20 s
        await until(lambda: any("in flight" in text for text in told))
        await asyncio.sleep(0.05)
    for job in (worker, young):
        job.cancel()
    await asyncio.wait((worker, young))
    waits = "" if where == "nothing known" else f", waiting for {where}"
    stuck = [text for text in told if "in flight" in text]
    assert stuck == [f"task 5 repeat 1 has been in flight for 1000 s{waits} (on average they take 2.0 s)"]
