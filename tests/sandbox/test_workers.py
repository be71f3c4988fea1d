"""Verifiers in processes: whatever one does, its call ends in an answer or a clear error, and nothing of it is left."""

import asyncio
import ctypes
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, PolicyFault, SetupError, VerifierFault
from rollforge.sandbox import processes
from rollforge.sandbox.processes import descendants, kill_tree
from rollforge.sandbox.workers import CannotCarry, Workers
from tests.sandbox.conftest import LOOPS

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@pytest.fixture
def workers():
    """Workers that call the function they are sent, looked up here by name."""
    made = Workers(call, size=2, memory_mb=256)
    yield made
    made.close()


def call(name, *arguments):
    return globals()[name](*arguments)


def pack(function, *arguments) -> bytes:
    return pickle.dumps((function.__name__, *arguments))


def wait_until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen in ten seconds"
        time.sleep(0.005)


def running(pid: int) -> bool:
    """Whether it lives: not gone, and no zombie either."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def files() -> list[str]:
    return sorted(os.listdir("/dev/fd"))


# What the workers do.


def add(a, b):
    return a + b


def pid():
    return os.getpid()


def fail(kind):
    class Mine(PolicyFault):
        pass

    kinds = {
        error.__name__: error
        for error in (ValueError, PolicyFault, JudgeFault, InfraFault, SetupError, Mine, SystemExit, KeyboardInterrupt)
    }
    raise kinds[kind]("said so")


def hang():
    while True:
        time.sleep(1)


def spin():
    while True:
        pass


def deaf():
    """Hangs, and listens to nothing that can be refused."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with_everything_caught()


def with_everything_caught():
    try:
        time.sleep(1)
    except BaseException:  # noqa: BLE001
        return


def family(path):
    """A child, one in a session of its own, and one whose parent is gone; then hang."""
    children = [
        subprocess.Popen(["sleep", "60"]),
        subprocess.Popen(["sleep", "60"], start_new_session=True),
    ]
    orphan = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    Path(path).write_text(" ".join(map(str, [os.getpid(), *(child.pid for child in children), orphan.stdout.strip()])))
    hang()


def leave():
    os._exit(3)


def crash():
    ctypes.string_at(0)


def eat_at_once():
    return len(bytearray(1 << 33))


def eat_slowly():
    eaten = []
    while True:
        eaten.append(bytearray(1 << 20))


def print_much():
    print("from the verifier")
    os.write(1, b"straight to the file\n")
    sys.stderr.write("to standard error\n")
    return sys.stdin.read()


def close_files():
    os.closerange(3, 1024)
    return "closed"


def replace_files(path):
    os.closerange(3, 1024)
    for _ in range(64):
        os.open(path, os.O_WRONLY | os.O_APPEND)
    return "replaced"


def come_back_twice():
    return "child" if os.fork() == 0 else "parent"


def unpicklable():
    return lambda: None


def large():
    return bytes(80 << 20)


def echo(data):
    return data


def alarm():
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    wait_until(lambda: rang)
    return "rang"


def own_loop(name):
    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        return runner.run(asyncio.sleep(0, "looped"))


def pool():
    with multiprocessing.get_context("fork").Pool(2) as made:
        return made.map(abs, [-1, -2])


def product():
    return float((np.ones((300, 300)) @ np.ones((300, 300))).sum())


def open_files():
    return [name for name in os.listdir("/dev/fd") if int(name) > 2]


class Unreadable:
    def __reduce__(self):
        return int, ("not a number",)


# Answers and errors.


def test_answers_and_errors_come_back(run, workers) -> None:
    async def main():
        assert await workers.run(pack(add, 2, 3), 10) == 5
        assert await workers.run(pack(echo, b"x" * 3_000_000), 10) == b"x" * 3_000_000
        for error in (PolicyFault, JudgeFault, InfraFault, SetupError):
            with pytest.raises(error, match=r"^said so$"):
                await workers.run(pack(fail, error.__name__), 10)
        with pytest.raises(PolicyFault, match=r"^said so$"):
            await workers.run(pack(fail, "Mine"), 10)
        for kind in ("ValueError", "SystemExit", "KeyboardInterrupt"):
            with pytest.raises(VerifierFault, match=rf"^{kind}: said so \(test_workers.py:\d+\)$"):
                await workers.run(pack(fail, kind), 10)
        with pytest.raises(VerifierFault, match="the result cannot be sent back: "):
            await workers.run(pack(unpicklable), 10)
        with pytest.raises(VerifierFault, match=r"the result is 83,886,\d+ bytes long; at most 67,108,864 are sent back"):
            await workers.run(pack(large), 10)
        with pytest.raises(CannotCarry, match="invalid literal"):
            await workers.run(pack(echo, Unreadable()), 10)

    run(main())


def test_all_those_calls_were_made_by_one_process(run, workers) -> None:
    async def main():
        first = await workers.run(pack(pid), 10)
        for name in ("ValueError", "SystemExit"):
            with pytest.raises(VerifierFault):
                await workers.run(pack(fail, name), 10)
        assert await workers.run(pack(pid), 10) == first != os.getpid()

    run(main())


ENDS = [
    (leave, (), 10, "the process of verify ended before it answered (exit status 3)"),
    (crash, (), 10, "the process of verify ended before it answered (killed by SIGSEGV)"),
    (close_files, (), 10, "the process of verify ended before it answered (exit status 1)"),
    (eat_at_once, (), 10, "MemoryError: more than the 256 MB (memory_mb) that its process may use"),
    (eat_slowly, (), 10, "MemoryError: more than the 256 MB (memory_mb) that its process may use"),
    (hang, (), 0.05, "verify took longer than 0.05 s and was killed"),
    (spin, (), 0.05, "verify took longer than 0.05 s and was killed"),
    (deaf, (), 0.2, "verify took longer than 0.2 s and was killed"),
]


@pytest.mark.parametrize(("function", "arguments", "seconds", "message"), ENDS, ids=[end[0].__name__ for end in ENDS])
def test_a_call_that_ends_its_process(run, workers, function, arguments, seconds, message) -> None:
    if function in (eat_at_once, eat_slowly) and sys.platform != "linux":
        pytest.skip("memory is limited on Linux only")

    async def main():
        for _ in range(2):
            with pytest.raises((VerifierFault, DeadlineExceeded)) as error:
                await workers.run(pack(function, *arguments), seconds, "verify")
            assert str(error.value) == message
            assert isinstance(error.value, DeadlineExceeded) == ("took longer" in message)
        assert await workers.run(pack(add, 1, 1), 10) == 2

    run(main())


def test_an_answer_never_goes_to_a_file_of_the_verifier(run, workers, tmp_path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("kept")

    async def main():
        with pytest.raises(VerifierFault, match=r"ended before it answered \(exit status 1\)"):
            await workers.run(pack(replace_files, str(mine)), 10)

    run(main())
    assert mine.read_text() == "kept"


def test_a_fork_that_comes_back_too_answers_nobody(run, workers) -> None:
    async def main():
        for number in range(5):
            assert await workers.run(pack(come_back_twice), 10) == "parent"
            assert await workers.run(pack(add, number, 0), 10) == number

    run(main())


@LINUX
def test_what_a_killed_verifier_had_started_is_killed_too(run, workers, tmp_path) -> None:
    path = tmp_path / "pids"

    async def main():
        asked = asyncio.create_task(workers.run(pack(family, str(path)), 60))
        await asyncio.to_thread(wait_until, lambda: path.exists() and len(path.read_text().split()) == 4)
        pids = [int(name) for name in path.read_text().split()]
        assert all(running(pid) for pid in pids)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        return pids

    pids = run(main())
    wait_until(lambda: not any(running(pid) for pid in pids))


def test_what_is_printed_goes_to_standard_error(run, workers, capfd) -> None:
    async def main():
        assert await workers.run(pack(print_much), 10) == ""

    run(main())
    out, err = capfd.readouterr()
    assert out == ""
    assert [line in err for line in ("from the verifier", "straight to the file", "to standard error")] == [True] * 3


# What a worker is.


def test_a_worker_is_a_process_like_any_other(run, workers) -> None:
    async def main():
        assert await workers.run(pack(alarm), 10) == "rang"
        assert await workers.run(pack(own_loop, "asyncio"), 10) == "looped"
        assert await workers.run(pack(own_loop, "uvloop"), 10) == "looped"
        assert await workers.run(pack(pool), 10) == [1, 2]
        assert len(await workers.run(pack(open_files), 10)) <= 2  # its connection, and the folder it lists

    run(main())


def test_numpy_works_in_a_fork_of_a_process_that_used_it(run, workers) -> None:
    async def main():
        return await asyncio.gather(*(workers.run(pack(product), 30) for _ in range(4)))

    assert product() == 27_000_000.0
    assert run(main()) == [27_000_000.0] * 4


IMPORTS = """
import asyncio, pickle, sys
from rollforge.sandbox.workers import Workers

def load(name):
    module = __import__(name)
    return module.ones(3).sum()

async def main():
    workers = Workers(load, memory_mb=256)
    print(*[float(await workers.run(pickle.dumps((name,)), 60)) for name in sys.argv[1:]], "numpy" in sys.modules)
    workers.close()

asyncio.run(main())
"""


def test_the_memory_limit_leaves_room_for_imports() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, "numpy"], capture_output=True, text=True, check=False)
    # Sending the answer back did not import it here: it came as a number made by numpy, which the parent knows how to read.
    assert done.stdout.split() == ["3.0", "True"], done.stderr


OPENMP = """
import asyncio, pickle, torch
from rollforge.sandbox.workers import Workers

def work(size):
    return float((torch.ones(size, size) @ torch.ones(size, size)).sum())

async def main():
    workers = Workers(work)
    print(await workers.run(pickle.dumps((600,)), 30))
    workers.close()

torch.set_num_threads(4)
work(600)
asyncio.run(main())
"""


@pytest.mark.extras
def test_torch_works_in_a_fork_of_a_process_that_used_it() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", OPENMP], capture_output=True, text=True, check=False)
    assert done.stdout == f"{600.0**3}\n", done.stderr


# Many, and what is left of them.


def test_many_calls_at_once_each_get_their_own_answer(run, workers) -> None:
    async def main():
        return await asyncio.gather(*(workers.run(pack(add, number, 0), 60) for number in range(300)))

    assert run(main()) == list(range(300))
    assert len(descendants(os.getpid())) >= (2 if sys.platform == "linux" else 0)


def test_nothing_is_left_of_two_hundred_killed_workers() -> None:
    before, children = files(), descendants(os.getpid())
    workers = Workers(call, size=4)

    async def main():
        calls = [workers.run(pack(leave), 10) for _ in range(150)] + [workers.run(pack(hang), 0.001) for _ in range(50)]
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = [type(error) for error in asyncio.run(main())]
    assert outcomes == [VerifierFault] * 150 + [DeadlineExceeded] * 50
    workers.close()
    assert files() == before
    assert descendants(os.getpid()) <= children


def test_the_clock_does_not_run_while_a_call_queues(run) -> None:
    workers = Workers(call, size=1)

    async def main():
        first = asyncio.create_task(workers.run(pack(time_passes, 0.8), 30))
        await asyncio.sleep(0.01)
        assert await workers.run(pack(add, 1, 1), 0.5) == 2
        assert await first == "passed"

    run(main())
    workers.close()


def time_passes(seconds):
    time.sleep(seconds)
    return "passed"


def test_one_loop_after_another(run) -> None:
    workers = Workers(call, size=1)

    async def main():
        return await asyncio.gather(*(workers.run(pack(add, number, 0), 30) for number in range(4)))

    assert [run(main()) for _ in range(3)] == [[0, 1, 2, 3]] * 3
    workers.close()


def test_a_loop_in_a_thread_that_ends_before_the_next(run, workers) -> None:
    """The kernel ends a worker with the thread that forked it; that is not the next verifier's fault."""
    answers = []
    for number in range(3):
        thread = threading.Thread(target=lambda n=number: answers.append(run(workers.run(pack(add, n, 0), 30))))
        thread.start()
        thread.join()
    assert answers == [0, 1, 2]


def test_a_worker_that_died_with_nothing_to_do_is_replaced(run, workers) -> None:
    async def main():
        idle = await workers.run(pack(pid), 10)
        os.kill(idle, signal.SIGKILL)
        assert await workers.run(pack(add, 1, 1), 10) == 2

    run(main())


def test_close_ends_calls_under_way_and_new_ones_can_be_made(run, workers) -> None:
    async def main():
        under_way = asyncio.create_task(workers.run(pack(hang), 60, "verify"))
        await workers.run(pack(add, 1, 1), 10)
        workers.close()
        with pytest.raises(InfraFault, match=r"^verify was stopped: its processes were closed$"):
            await under_way
        assert await workers.run(pack(add, 1, 1), 10) == 2

    run(main())


def test_workers_that_nobody_closed_end_when_they_are_forgotten(run) -> None:
    before, children = files(), descendants(os.getpid())
    workers = Workers(call)
    run(workers.run(pack(add, 1, 1), 10))
    del workers
    assert (files(), descendants(os.getpid()) - children) == (before, set())


def test_no_process_to_be_had_is_the_machine_s_fault(run) -> None:
    script = """
import asyncio, pickle, resource
from rollforge.errors import InfraFault
from rollforge.sandbox.workers import Workers
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(__import__("os").listdir("/dev/fd")) - 1, 64))
    try:
        await Workers(abs).run(pickle.dumps((-1,)), 10)
    except InfraFault as error:
        print(error)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "cannot start a process: Too many open files\n", done.stderr
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64


ORPHANS = """
import asyncio, os, pickle, signal
from rollforge.sandbox.workers import Workers
async def main():
    workers = Workers(os.getpid)
    print(await workers.run(pickle.dumps(()), 10), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@LINUX
def test_workers_do_not_outlive_a_killed_parent() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not running(int(done.stdout)))


def test_killing_a_tree_that_is_gone_already() -> None:
    child = subprocess.Popen(["true"])
    wait_until(lambda: not running(child.pid))
    kill_tree(child.pid)
    assert child.wait() == 0


@LINUX
def test_both_ways_of_finding_children_agree() -> None:
    """The kernel may not have been built to list them."""
    child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    try:
        wait_until(lambda: len(descendants(child.pid)) == 1)
        (grandchild,) = descendants(child.pid)
        children = processes._searched()
        assert child.pid in children(os.getpid())
        assert children(child.pid) == processes._listed(child.pid) == [grandchild]
    finally:
        kill_tree(child.pid)
        child.wait()
    wait_until(lambda: not running(grandchild))
