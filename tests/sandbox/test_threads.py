"""Blocking functions in threads: one thread per session, deadlines, threads that nobody waits for any more."""

import asyncio
import gc
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from rollforge.errors import DeadlineExceeded
from rollforge.sandbox.threads import Threads

OTHERS: set[threading.Thread] = set()
"""Idle threads of environments that other tests have used."""


@pytest.fixture
def threads():
    OTHERS.clear()
    OTHERS.update(alive())
    made = Threads()
    yield made
    made.close()
    wait_until(lambda: not alive())


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rollforge-tool" and thread not in OTHERS]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen in ten seconds"
        time.sleep(0.002)


def raising(error):
    def function():
        raise error

    return function


class Stuck:
    """A function that comes back to Python again and again, and notes how it was ended."""

    def __init__(self) -> None:
        self.began, self.ended, self.kind = threading.Event(), threading.Event(), None

    def __call__(self) -> None:
        self.began.set()
        try:
            while True:
                time.sleep(0.001)
        except BaseException as error:
            self.kind = type(error)
            raise
        finally:
            self.ended.set()


def test_results_and_errors_come_back(run, threads) -> None:
    async def main():
        lane = threads.lane()
        assert await lane.run(lambda a, b: a - b, {"a": 5, "b": 2}, 10, "it") == 3
        with pytest.raises(KeyError, match="x"):
            await lane.run(raising(KeyError("x")), {}, 10, "it")
        with pytest.raises(TimeoutError, match=r"^its own$"):
            await lane.run(raising(TimeoutError("its own")), {}, 10, "it")
        for error in (
            SystemExit(3),
            KeyboardInterrupt("k"),
            StopIteration("s"),
            asyncio.CancelledError("c"),
            GeneratorExit("g"),
        ):
            with pytest.raises(RuntimeError, match=type(error).__name__):
                await lane.run(raising(error), {}, 10, "it")
        assert await lane.run(threading.get_ident, {}, 10, "it") != threading.get_ident()
        lane.release()

    run(main())


def test_a_lane_is_one_thread_until_it_is_released(run, threads) -> None:
    async def main():
        one, two = threads.lane(), threads.lane()
        first = {await one.run(threading.get_ident, {}, 10, "it") for _ in range(5)}
        second = {await two.run(threading.get_ident, {}, 10, "it") for _ in range(5)}
        assert (len(first), len(second), len(first | second)) == (1, 1, 2)
        connection = await one.run(sqlite3.connect, {"database": ":memory:"}, 10, "it")
        await one.run(connection.close, {}, 10, "it")
        one.release()
        three = threads.lane()
        assert {await three.run(threading.get_ident, {}, 10, "it")} == first
        two.release()
        three.release()

    run(main())
    assert len(alive()) == 2


def test_calls_of_one_lane_queue_and_lanes_run_side_by_side(run, threads) -> None:
    inside, most, meeting = [], [], threading.Barrier(2, timeout=10)

    def alone():
        inside.append(1)
        time.sleep(0.001)
        most.append(len(inside))
        inside.pop()

    async def main():
        lane, other = threads.lane(), threads.lane()
        await asyncio.gather(*(lane.run(alone, {}, 10, "it") for _ in range(20)))
        await asyncio.gather(lane.run(meeting.wait, {}, 10, "it"), other.run(meeting.wait, {}, 10, "it"))
        lane.release()
        other.release()

    run(main())
    assert most == [1] * 20


def test_a_call_that_takes_too_long_is_abandoned_and_the_lane_goes_on(run, threads) -> None:
    stuck = Stuck()

    async def main():
        lane = threads.lane()
        before = await lane.run(threading.get_ident, {}, 10, "it")
        with pytest.raises(DeadlineExceeded, match=r"^play took longer than 0.05 s$"):
            await lane.run(stuck, {}, 0.05, "play")
        assert await lane.run(threading.get_ident, {}, 10, "it") != before
        lane.release()

    run(main())
    assert stuck.ended.wait(10)
    assert stuck.kind is SystemExit


def test_a_cancelled_call_is_abandoned(run, threads) -> None:
    stuck = Stuck()

    async def main():
        call = asyncio.create_task(threads.lane().run(stuck, {}, 60, "it"))
        await asyncio.to_thread(stuck.began.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(main())
    assert stuck.ended.wait(10)


def test_a_thread_that_does_not_come_back_keeps_nobody(run, threads) -> None:
    let_go = threading.Event()

    async def main():
        lane = threads.lane()
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await lane.run(let_go.wait, {"timeout": 30}, 0.02, "it")
        assert await lane.run(int, {}, 10, "it") == 0
        lane.release()

    run(main())
    assert len(alive()) == 4
    let_go.set()


def test_the_clock_does_not_run_while_a_call_queues(run) -> None:
    threads = Threads(limit=1)

    async def main():
        first, second = threads.lane(), threads.lane()
        hold = threading.Event()
        waiting = asyncio.create_task(first.run(hold.wait, {"timeout": 30}, 60, "it"))
        await asyncio.sleep(0.01)
        quick = asyncio.create_task(second.run(int, {}, 0.5, "it"))
        await asyncio.sleep(0.7)
        assert not quick.done()
        hold.set()
        assert (await waiting, await quick) == (True, 0)
        first.release()
        second.release()

    run(main())
    threads.close()


def test_one_loop_after_another(run) -> None:
    threads = Threads(limit=1)

    async def main():
        lanes = [threads.lane() for _ in range(5)]
        found = await asyncio.gather(*(lane.run(int, {}, 10, "it") for lane in lanes))
        for lane in lanes:
            lane.release()
        return found

    assert [run(main()) for _ in range(3)] == [[0] * 5] * 3
    threads.close()


def test_a_loop_that_is_gone_when_the_function_ends(run, threads) -> None:
    let_go = threading.Event()

    async def main():
        lane = threads.lane()
        with pytest.raises(DeadlineExceeded):
            await lane.run(let_go.wait, {"timeout": 30}, 0.02, "it")

    run(main())
    let_go.set()


def test_an_idle_thread_holds_nothing_of_its_last_call(run, threads) -> None:
    class Big:
        pass

    big = Big()
    seen = weakref.ref(big)

    async def main(thing):
        lane = threads.lane()
        await lane.run(lambda thing: None, {"thing": thing}, 10, "it")
        lane.release()

    run(main(big))
    del big
    gc.collect()
    wait_until(lambda: seen() is None)


def test_close_ends_the_idle_threads(run, threads) -> None:
    async def main():
        lanes = [threads.lane() for _ in range(3)]
        for lane in lanes:
            await lane.run(int, {}, 10, "it")
            lane.release()

    run(main())
    threads.close()
    wait_until(lambda: not alive())
    run(main())
