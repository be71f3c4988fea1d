"""Programs that nobody trusts: what they try stays inside, ends in time, and leaves their neighbours' results right."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from rollforge.errors import InfraFault, SetupError
from rollforge.sandbox.deadline import within
from rollforge.sandbox.docker import ENGINES
from rollforge.sandbox.jail import Allowance, Ended, Jail, Level, Program
from rollforge.sandbox.processes import descendants

SHORT = Allowance(wall=0.4)
KINDS: tuple[Level, ...] = ("namespaces", "landlock")
APART = ("namespaces", "container")


@pytest.fixture(params=[*KINDS, *ENGINES])
async def jail(request: pytest.FixtureRequest, containers: Callable[[str], Awaitable[Jail]]) -> AsyncIterator[Jail]:
    if request.param in ENGINES:
        yield await containers(request.param)
        return
    before = descendants(os.getpid())
    jail = Jail(size=2, level=request.param)
    try:
        await jail.run(Program("pass"))
    except SetupError as error:
        pytest.skip(str(error))
    yield jail
    jail.close()
    assert descendants(os.getpid()) <= before


async def run(jail: Jail, code: str, allowance: Allowance | None = None, **more: object) -> Ended:
    return await jail.run(Program(code, **more), allowance)  # type: ignore[arg-type]


async def test_a_program_runs_as_one_does(jail: Jail) -> None:
    code = (
        "import sys; print(input()[::-1]); print('seen', file=sys.stderr)\nopen('left', 'w').write(open('given').read() * 2)"
    )
    code += "\nsys.exit(3)"
    ended = await run(jail, code, stdin="olleh\n", files={"given": "é"}, collect=("left", "missing"))
    assert (ended.code, ended.stdout, ended.stderr) == (3, "hello\n", "seen\n")
    assert ended.files == {"left": "éé", "missing": None}
    assert not ended.timed_out
    assert not ended.out_of_memory


async def test_a_command_runs_too(jail: Jail) -> None:
    ended = await jail.run(Program(argv=("/bin/sh", "-c", "cat; echo $HOME; exit 4"), stdin="in "))
    assert ended.code == 4
    assert ended.stdout.startswith("in ")


@pytest.mark.parametrize(
    ("code", "status", "out", "err"),
    [
        ("print('a', end='')", 0, "a", ""),
        ("raise SystemExit('bye')", 1, "", "bye\n"),
        ("raise SystemExit(256 + 5)", 5, "", ""),
        ("def f():\n  1/0\nf()", 1, "", "line 2, in f\nZeroDivisionError: division by zero\n"),
        ("if", 1, "", "SyntaxError: invalid syntax\n"),
        ("import os; os.kill(os.getpid(), 11)", -11, "", ""),
        ("import threading; threading.Thread(target=print, args=('late',)).start()", 0, "late\n", ""),
        ("import sys; print(__name__, sys.argv, __file__)", 0, "__main__ ['program.py'] program.py\n", ""),
        ("import random, subprocess, json, collections; print(type(random.random()).__name__)", 0, "float\n", ""),
    ],
)
async def test_how_programs_end(jail: Jail, code: str, status: int, out: str, err: str) -> None:
    ended = await run(jail, code)
    assert (ended.code, ended.stdout) == (status, out)
    assert ended.stderr.endswith(err)
    assert "cell.py" not in ended.stderr


async def test_one_program_leaves_nothing_for_the_next(jail: Jail) -> None:
    await run(jail, "import os, builtins; builtins.open = None; os.environ['A'] = '1'; os.open('x', 65); os.close(1)")
    ended = await run(jail, "import os; print(os.listdir('.'), os.environ.get('A'), open is None)")
    assert ended.stdout == "[] None False\n"


IGNORE_ALL = (
    "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
)


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
        f"{IGNORE_ALL}import time; time.sleep(100)",
        "import os\nif os.fork() == 0: os.setsid()\nif os.fork() == 0: os.setsid()\nimport time; time.sleep(100)",
        "import os, time\nfor _ in range(3):\n  os.fork()\nwhile True: os.getpid()",
    ],
    ids=["loop", "loop-in-C", "ignores-signals", "daemons", "forks"],
)
async def test_what_does_not_end_is_ended_with_all_it_started(jail: Jail, code: str) -> None:
    ended = await run(jail, code, SHORT)
    assert ended.timed_out
    assert ended.seconds < 5
    assert (await run(jail, "print(1)")).stdout == "1\n"


async def test_a_fork_bomb_stays_small(jail: Jail) -> None:
    if jail.level not in APART:
        pytest.skip("Landlock alone counts no processes")
    code = "import os, time\nn = 0\nwhile True:\n  try: child = os.fork()\n  except OSError: break\n"
    code += "  if child == 0: time.sleep(100)\n  n += 1\nprint(n)"
    ended = await run(jail, code, Allowance(processes=8))
    assert ended.stdout == "7\n"


@pytest.mark.parametrize("code", ["x = bytearray(10**10)", "x = []\nwhile True: x.append('x' * 10**6)"])
async def test_memory_is_bounded(jail: Jail, code: str) -> None:
    ended = await run(jail, code, Allowance(memory_mb=128))
    assert ended.code == 1
    assert "MemoryError" in ended.stderr


async def test_memory_of_all_processes_together_is_bounded(jail: Jail) -> None:
    hog = "import os, time\nfor _ in range(6):\n  if os.fork() == 0: break\nx = b'x' * (60 << 20)\ntime.sleep(20)"
    ended = await run(jail, hog, Allowance(memory_mb=100))
    assert ended.out_of_memory
    assert (await run(jail, "print(1)")).stdout == "1\n"


async def test_output_and_files_are_bounded(jail: Jail) -> None:
    ended = await run(jail, "print('x' * 10**7)", Allowance(output_kb=10, file_mb=1))
    assert len(ended.stdout) == 10 << 10
    assert ended.cut
    ended = await run(jail, "open('big', 'wb').write(b'x' * (3 << 20))", Allowance(file_mb=1))
    assert "File too large" in ended.stderr


ESCAPES = {
    "hosts-accounts": "print('root:' in open('/etc/passwd').read())",
    "shadow": "open('/etc/shadow')",
    "home": "import os; os.listdir('/root/.ssh')",
    "repository": f"import os; os.listdir({str(Path(__file__).parents[2] / '.git')!r})",
    "write-system": "open('/usr/lib/rollforge-was-here', 'w')",
    "write-python": "import os, sys; open(os.path.join(os.path.dirname(os.__file__), 'os.py'), 'a').write('#')",
    "write-root": "open('/rollforge-was-here', 'w')",
    "tcp": "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
    "ipv6": "import socket; socket.socket(socket.AF_INET6)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "namespaces": "import ctypes; l = ctypes.CDLL(None); print(l.unshare(0x10000000) == 0)",
    "clone-user": "import ctypes; l = ctypes.CDLL(None); print(l.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0)",
    "mount": "import ctypes; print(ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0)",
    "ptrace": "import ctypes, os; print(ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0)",
    "parent-memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "parent-files": "import os; print(bool(os.listdir(f'/proc/{os.getppid()}/fd')))",
    "kill-outside": f"import os; os.kill({os.getpid()}, 0)",
    "set-uid": "import os; os.setuid(0); print(True)",
    "device": "import os; os.mknod('null', 0o600 | 0o020000, os.makedev(1, 1)); open('null', 'rb').read(1); print(True)",
    "raise-limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print(True)",
    "old-root": "import os; print(os.path.exists('/.proc/1') or os.path.exists('/old_root/etc'))",
    "inherited-files": "import os\nfor n in range(3, 64):\n  try: os.write(n, b'x'); print(True)\n  except OSError: pass",
}


@pytest.mark.parametrize("name", ESCAPES)
async def test_nothing_gets_out(jail: Jail, name: str) -> None:
    if name == "set-uid" and jail.level == "landlock" and os.getuid() == 0:
        pytest.skip("Landlock alone lets root be root, walled in all the same")
    if name == "hosts-accounts" and jail.level == "container":
        pytest.skip("the accounts in a container are its image's")
    ended = await run(jail, ESCAPES[name])
    assert "True" not in ended.stdout
    assert not os.access("/usr/lib/rollforge-was-here", os.F_OK)
    assert not os.access("/rollforge-was-here", os.F_OK)


async def test_it_cannot_read_a_file_of_the_machine_that_everybody_can(jail: Jail, tmp_path: Path) -> None:
    secret = tmp_path / "notes"
    secret.write_text("hunter2")
    for folder in (secret, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    assert "hunter2" not in (await run(jail, f"print(open({str(secret)!r}).read())")).stdout


async def test_it_sees_no_environment_and_no_secrets(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    jail.release()  # so that its cells are made with that in the environment
    code = (
        "import os, glob\nprint(dict(os.environ))\nfor f in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline'):\n"
    )
    code += "  try: print(open(f).read())\n  except OSError: pass"
    ended = await run(jail, code)
    assert "PATH" in ended.stdout
    assert "hunter2" not in ended.stdout


async def test_a_program_cannot_change_the_limits_of_the_next(jail: Jail) -> None:
    state = "import os, resource as r\nprint([r.getrlimit(n) for n in range(16)], os.sched_getaffinity(0), os.nice(0))"
    state += "\nopen('written', 'w').write('x'); print(sorted(os.listdir('.')))"
    before = await run(jail, state)
    tamper = "import os, resource as r\nfor pid in {1, os.getppid()}:\n  for limit in range(16):\n"
    tamper += "    try: r.prlimit(pid, limit, (1, 1)); print('limited', pid)\n    except OSError: pass\n"
    tamper += "  try: os.sched_setaffinity(pid, {0}); print('moved', pid)\n  except OSError: pass"
    tampered = await run(jail, tamper)
    assert jail.level == "namespaces" or tampered.stdout == ""  # there its parent is its own, and goes with it
    assert [await run(jail, state, collect=("written",)) for _ in range(2)][1].files == {"written": "x"}
    assert (await run(jail, state)).stdout == before.stdout
    assert before.stdout.endswith("['written']\n")


async def test_neighbours_are_right_beside_a_hostile_one(jail: Jail) -> None:
    bad = "import os, signal\nwhile True:\n  try: os.fork()\n  except OSError: pass\n"
    bad += "  try: os.kill(-1, signal.SIGKILL)\n  except OSError: pass"
    if jail.level not in APART:
        bad = "while True: pass"  # without namespaces its relatives are its own affair
    hostile = asyncio.create_task(run(jail, bad, Allowance(wall=1.5)))
    found = [(await run(jail, f"print({n} ** 2)")).stdout for n in range(20)]
    assert found == [f"{n**2}\n" for n in range(20)]
    assert (await hostile).code != 0


async def test_the_clock_starts_with_the_program_not_in_the_queue(jail: Jail) -> None:
    busy = [run(jail, "import time; time.sleep(0.3)", SHORT) for _ in range(6)]
    assert [ended.timed_out for ended in await asyncio.gather(*busy)] == [False] * 6


async def _stopped_at_its_start(jail: Jail, code: str) -> tuple[asyncio.Task[Ended], int]:
    """A run whose cell stands still, as on a machine that has no time for it."""
    before = descendants(os.getpid())
    running = asyncio.create_task(within(3.0, "the run", jail.run(Program(code), Allowance(wall=2.0))))
    while not (new := descendants(os.getpid()) - before):  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(0)
    [cell] = new
    os.kill(cell, signal.SIGSTOP)
    return running, cell


async def test_a_cell_that_starts_late_costs_the_program_nothing() -> None:
    jail = Jail(size=1, level="namespaces")
    try:
        running, cell = await _stopped_at_its_start(jail, "print('done')")
        await asyncio.sleep(4.0)  # more than the run has
        os.kill(cell, signal.SIGCONT)
        ended = await running
    except SetupError as error:
        pytest.skip(str(error))
    finally:
        jail.close()
    assert (ended.stdout, ended.timed_out) == ("done\n", False)


async def test_a_cell_that_does_not_start_is_a_fault_that_says_so() -> None:
    before = descendants(os.getpid())
    jail = Jail(size=1, level="namespaces", grace=0.3)
    running, _ = await _stopped_at_its_start(jail, "print('done')")
    with pytest.raises(InfraFault, match=r"did not start within 0.3 s: the load is \d+ on \d+ processors; run fewer"):
        await running
    assert descendants(os.getpid()) <= before
    jail.close()


async def test_cancelling_ends_the_program(jail: Jail) -> None:
    task = asyncio.create_task(run(jail, "import time; time.sleep(100)"))
    await asyncio.sleep(0.1)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await run(jail, "print(1)")).stdout == "1\n"
    assert time.monotonic() - started < 50


async def test_many_timeouts_leave_nothing_behind(jail: Jail) -> None:
    quick = Allowance(wall=0.02)
    ended = await asyncio.gather(
        *(run(jail, "import os; os.fork(); os.setsid()\nwhile True: pass", quick) for _ in range(40))
    )
    assert all(one.timed_out for one in ended)
    assert (await run(jail, "print(1)")).stdout == "1\n"
    assert len(descendants(os.getpid())) < 10


async def test_the_benchmark_counts_what_was_ended_and_what_is_left(jail: Jail) -> None:
    if jail.level != "namespaces":
        pytest.skip("it takes what the machine has")
    script = Path(__file__).parents[2] / "benchmarks" / "sandbox.py"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ROLLFORGE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), "--programs", "5"), stdout=asyncio.subprocess.PIPE, env=environment
    )
    printed, _ = await process.communicate()
    assert "not ended by the sandbox: 0; neighbours that were wrong: 0; zombies: 0; left: 0" in printed.decode()
    assert process.returncode == 0


async def test_weaker_isolation_has_to_be_allowed() -> None:
    jail = Jail(size=1, level="none")
    try:
        assert (await run(jail, "print(1)")).stdout == "1\n"
        assert (await run(jail, "while True: pass", SHORT)).timed_out
    finally:
        jail.close()


def test_it_works_in_one_event_loop_after_another() -> None:
    jail = Jail(size=1, level="none")
    try:
        assert [asyncio.run(run(jail, f"print({n})")).stdout for n in range(3)] == ["0\n", "1\n", "2\n"]
    finally:
        jail.close()
