"""Work spread over processes comes back in order; a worker that is killed is noticed, whatever it was doing."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from rollforge.bulk.blocks import Block, blocks, lines
from rollforge.bulk.workers import processes, spread
from rollforge.errors import UserError


def length(file: str, block: Block) -> tuple[int, int]:
    assert block.file == file
    return sum(len(line) for _, line in lines(block)), os.getpid()


def test_work_in_processes_comes_back_in_order(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(b"x" * n + b"\n" for n in range(100)))
    cut = list(blocks([file], 60))
    here = list(spread(partial(length, str(file)), cut))
    there = list(spread(partial(length, str(file)), cut, workers=2))
    assert [count for count, _ in there] == [count for count, _ in here]
    assert sum(count for count, _ in here) == sum(range(100))
    assert {process for _, process in here} == {os.getpid()}
    assert os.getpid() not in {process for _, process in there}


def refuse(number: int) -> int:
    if number == 3:
        raise UserError("three")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_work_raises_is_raised_here(workers: int) -> None:
    results = spread(refuse, range(100), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="three"):
        next(results)


def die(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(UserError, match="worker process was killed"):
        list(spread(die, range(10), workers=2))


def test_small_files_take_one_process() -> None:
    assert processes(1_000_000) == 1
    assert processes(1 << 40) >= 1


def large(number: int) -> bytes:
    return bytes(4 << 20)


def test_a_worker_that_is_killed_while_it_sends_is_noticed() -> None:
    results = spread(large, range(10), workers=2)
    next(results)
    time.sleep(0.2)  # both have more to send than a pipe holds, and nobody reads
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match="worker process was killed"):
        list(results)


def test_no_worker_is_left() -> None:
    results = spread(large, range(10), workers=3)
    next(results)
    assert len(multiprocessing.active_children()) == 3
    results.close()
    assert not multiprocessing.active_children()


def test_workers_that_have_hardly_begun_are_ended() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as the command line has one
    try:
        for _ in range(50):
            assert list(spread(abs, [-1], workers=4)) == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def stumble(number: int) -> int:
    return [0, 1][number]


def test_where_a_worker_failed_is_told() -> None:
    with pytest.raises(IndexError) as caught:
        list(spread(stumble, range(9), workers=2))
    assert "return [0, 1][number]" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("workers", [1, 2])
def test_little_is_under_way_at_once(workers: int) -> None:
    taken: list[int] = []
    results = spread(abs, (taken.append(number) or number for number in range(1000)), workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(taken) <= 5 + 2 * workers + 1
    assert [*results] == [*range(5, 1000)]
