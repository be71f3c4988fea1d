"""Signals on their way to an event loop; with several collections in one process, too."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import ExitStack

import pytest

from rollforge.collect.signals import on_signals
from tests.collect.parts import until


async def test_signals_are_told_to_the_loop_and_afterwards_are_as_before() -> None:
    told: list[str] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with on_signals(asyncio.get_running_loop(), told.append):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            count = len(told)
            os.kill(os.getpid(), number)
            await until(lambda: len(told) > count)  # noqa: B023 - called at once
    assert told == ["SIGINT", "SIGTERM", "SIGINT"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with on_signals(asyncio.get_running_loop(), lambda name: None):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("first_to_end", [0, 1])
async def test_two_at_a_time_in_any_order(first_to_end: int) -> None:
    told: list[int] = []
    outer: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: outer.append(number))
    loop = asyncio.get_running_loop()
    stacks = [ExitStack(), ExitStack()]
    try:
        for index, stack in enumerate(stacks):
            stack.enter_context(on_signals(loop, lambda name, index=index: told.append(index)))  # type: ignore[misc]
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: sorted(told) == [0, 1])
        stacks[first_to_end].close()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told[2:] == [1 - first_to_end])
        stacks[1 - first_to_end].close()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: outer == [signal.SIGTERM])
        assert len(told) == 3
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_has_no_signals() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def body() -> None:
        with on_signals(asyncio.get_running_loop(), lambda name: None):
            assert signal.getsignal(signal.SIGINT) is before

    done: list[None] = []
    thread = threading.Thread(target=lambda: done.append(asyncio.run(body())))
    thread.start()
    thread.join()
    assert done == [None]
