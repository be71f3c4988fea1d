"""Deadlines that stand still while a call queues."""

from __future__ import annotations

import asyncio

import pytest

from rollforge.errors import DeadlineExceeded
from rollforge.sandbox.deadline import queued, remaining, within


async def test_queueing_does_not_count() -> None:
    async def call() -> str:
        async with queued():
            assert remaining() is None
            await asyncio.sleep(0.3)
        left = remaining()
        assert left is not None
        assert 0 < left <= 0.2
        return "done"

    assert await within(0.2, "the call", call()) == "done"
    assert remaining() is None


async def test_work_after_the_queue_does() -> None:
    async def call() -> None:
        async with queued():
            await asyncio.sleep(0.01)
        await asyncio.sleep(60)

    with pytest.raises(DeadlineExceeded, match="the call took longer"):
        await within(0.05, "the call", call())


async def test_without_a_deadline_there_is_nothing_to_stop() -> None:
    async with queued():
        assert remaining() is None
