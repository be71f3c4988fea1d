"""Cells in containers: the command line, what is said where there can be none, and, with an engine, that none is left.

`stand_in` is no engine: a script in the place of `docker` that runs the cell as a plain process, or fails as Docker does. It
shows the protocol and the failures, never that anything is isolated. What programs try in real containers: test_jail.py.
The image is the default one, or that of ROLLFORGE_SANDBOX_IMAGE.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rollforge.errors import InfraFault, SetupError
from rollforge.sandbox import docker
from rollforge.sandbox.cells import Room
from rollforge.sandbox.docker import ENGINES, IMAGE, PYTHON, SANDBOX, Engine, arguments, chosen
from rollforge.sandbox.jail import ALLOW, Allowance, Ended, Jail, Program
from rollforge.sandbox.processes import descendants

ROOM = Room(memory_mb=1024, disk_mb=64, processes=16)
RUNS_IT = """#!/bin/sh
# A stand-in for docker: runs the cell as a plain process.
PATH="{python}:$PATH"
while [ "$1" != --entrypoint=sh ]; do shift; done
shift 2
exec sh "$@"
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def put(script: str) -> None:
        (tmp_path / "docker").write_text(script)
        (tmp_path / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv(SANDBOX, "docker")
        monkeypatch.delenv(IMAGE, raising=False)

    return put


async def one(code: str, **more: int) -> Ended:
    jail = Jail(size=1)
    try:
        return await jail.run(Program(code), Allowance(**more))
    finally:
        jail.close()


def test_the_command_line_closes_everything_and_opens_one_folder() -> None:
    line = arguments(Engine("docker", "some/image:1"), "cell-1", ROOM, ("/opt/packages",))
    options, image = line[: line.index("some/image:1")], line.index("some/image:1")
    assert line[:5] == ["docker", "run", "--rm", "--interactive", "--pull=never"]
    for option in (
        *("--network=none", "--ipc=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *("--log-driver=none", "--memory=1344m", "--memory-swap=1344m", "--pids-limit=32", "--entrypoint=sh"),
    ):
        assert option in options
    assert options[options.index("--tmpfs") + 1] == "/tmp:rw,exec,nosuid,nodev,size=64m,mode=1777"
    assert options[options.index("--mount") + 1] == "type=bind,source=/opt/packages,target=/opt/packages,readonly"
    assert options[options.index("--name") + 1] == "cell-1"
    user, group = options[options.index("--user") + 1].split(":")
    assert 20_000 <= int(user) == int(group) < 60_000
    assert not {"--privileged", "--volume", "-v", "--env", "-e", "--cap-add"} & set(options)
    assert line[image + 1] == "-c"


def test_podman_is_told_to_add_no_folders_of_its_own() -> None:
    assert "--read-only-tmpfs=false" in arguments(Engine("podman"), "cell-1", ROOM)
    assert "--read-only-tmpfs=false" not in arguments(Engine("docker"), "cell-1", ROOM)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IMAGE, raising=False)
    for name, engine in (("", None), ("namespaces", None), ("docker", Engine("docker")), ("podman", Engine("podman"))):
        monkeypatch.setenv(SANDBOX, name)
        assert chosen() == engine
    assert Engine().image == f"docker.io/library/python:{PYTHON}-slim"
    monkeypatch.setenv(IMAGE, "mine:2")
    assert chosen() == Engine("podman", "mine:2")
    monkeypatch.setenv(SANDBOX, "dokcer")
    with pytest.raises(SetupError, match="ROLLFORGE_SANDBOX is 'dokcer'; it can be namespaces, docker or podman"):
        chosen()


async def test_no_such_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(SANDBOX, "podman")
    jail = Jail(size=1)
    for _ in range(2):  # it says so again, not something else
        with pytest.raises(SetupError, match="asks for podman, and there is no such command: install it"):
            await jail.run(Program("pass"))


NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            f"echo 'docker: {NO_DAEMON}' >&2; echo >&2; echo \"Run 'docker run --help' for more information\" >&2; exit 125",
            r"\(exit status 125\): docker: Cannot connect .* running\?; see that `docker info` works for this user",
        ),
        (
            "echo 'docker: Error response from daemon: No such image: x' >&2; exit 125",
            "No such image: x; get it with `docker pull docker.io/library/python:.*-slim`, or name one that is here",
        ),
        ("echo 'sh: python3: not found' >&2; exit 127", "python3: not found; the image needs a shell and Python 3"),
        ("echo hello", "it said nothing; the image needs a shell and Python"),
    ],
    ids=["daemon", "image", "python", "other-program"],
)
async def test_why_there_can_be_no_container(stand_in: Callable[[str], None], script: str, said: str) -> None:
    stand_in(f"#!/bin/sh\n{script}\n")
    with pytest.raises(SetupError, match=said):
        await one("pass")


async def test_a_container_without_walls_is_refused(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW, raising=False)
    stand_in(RUNS_IT.format(python=Path(sys.executable).parent))
    with pytest.raises(SetupError, match=r"\(the container has processes of others, .*--allow-unsandboxed"):
        await one("pass")


@pytest.fixture
async def plain(stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Jail]:
    """Cells of the stand-in, which has no walls; that is allowed here."""
    before = descendants(os.getpid())
    monkeypatch.setenv(ALLOW, "1")
    stand_in(RUNS_IT.format(python=Path(sys.executable).parent))
    jail = Jail(size=1)
    yield jail
    jail.close()
    assert descendants(os.getpid()) <= before


async def test_allowed_it_runs_with_what_there_is(plain: Jail) -> None:
    ended = await plain.run(Program("print(input() * 2)", stdin="ab\n"))
    assert (ended.stdout, ended.code) == ("abab\n", 0)
    assert plain.level != "container"
    assert (await plain.run(Program("while True: pass"), Allowance(wall=0.3))).timed_out
    assert (await plain.run(Program("print(1)"))).stdout == "1\n"


async def test_a_container_that_dies_is_a_fault_of_the_machine_and_the_next_is_another(plain: Jail) -> None:
    await plain.run(Program("pass"))
    before = descendants(os.getpid())
    running = asyncio.create_task(plain.run(Program("import time; time.sleep(60)")))
    while descendants(os.getpid()) <= before:  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(0.01)
    for process in sorted(descendants(os.getpid())):
        with suppress(ProcessLookupError):  # it went with the one before
            os.kill(process, signal.SIGKILL)
    with pytest.raises(InfraFault, match=r"a container of docker.io/library/python:.* ended with exit status -9"):
        await running
    assert (await plain.run(Program("print(1)"))).stdout == "1\n"


async def test_an_engine_that_breaks_later_does_not_end_the_whole_run(plain: Jail, stand_in: Callable[[str], None]) -> None:
    await plain.run(Program("pass"))
    plain.release()
    stand_in("#!/bin/sh\necho 'the daemon restarts' >&2; exit 125\n")
    with pytest.raises(InfraFault, match="ended with exit status 125: the daemon restarts"):
        await plain.run(Program("pass"))


@pytest.fixture(params=ENGINES)
async def pool(request: pytest.FixtureRequest, containers: Callable[[str], Awaitable[Jail]]) -> Jail:
    return await containers(request.param)


@pytest.fixture
def engine(pool: Jail, request: pytest.FixtureRequest) -> Engine:
    return docker.engine(request.node.callspec.params["pool"])


def done(engine: Engine, *arguments: str) -> str:
    return subprocess.run([engine.command, *arguments], capture_output=True, text=True, check=True).stdout


def listed(engine: Engine) -> set[str]:
    return set(done(engine, "ps", "--all", "--quiet", "--filter", "label=rollforge.sandbox=1").split())


LEAVES = {
    "files": "open('left', 'w'); open('/tmp/left', 'w')",
    "closed-folders": "import os; os.makedirs('/tmp/a/b'); os.chmod('/tmp/a/b', 0); os.chmod('/tmp/a', 0)",
    "deep-folders": "import os\nwhile True:\n  os.mkdir('d' * 200); os.chdir('d' * 200)",
    "processes": "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(60)",
    "shared-memory": "import ctypes; print('made', ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0)",
    "queue": "import ctypes; print('made', ctypes.CDLL(None).msgget(7, 0o1666) >= 0)",
    "named-memory": "import ctypes; print('made', ctypes.CDLL(None).shm_open(b'/left', 66, 0o666) >= 0)",
    "named-queue": "import ctypes; print('made', ctypes.CDLL(None).mq_open(b'/left', 66, 0o666, None) >= 0)",
}
FINDS = """import glob, os
print(os.getcwd(), os.listdir('/tmp'), os.listdir('/dev/mqueue'))
print(len([name for name in os.listdir('/proc') if name.isdigit()]))
print(sum(len(open(f'/proc/sysvipc/{name}').readlines()) for name in ('shm', 'msg', 'sem')))"""


@pytest.mark.parametrize("what", LEAVES)
async def test_nothing_is_left_for_the_next_program_in_the_same_container(pool: Jail, what: str) -> None:
    pool.release()
    left = await pool.run(Program(LEAVES[what]), Allowance(wall=3, memory_mb=256))
    assert "made True" not in left.stdout
    found = await pool.run(Program(FINDS))
    assert found.stdout == "/tmp [] []\n3\n3\n", found.stderr


@pytest.mark.parametrize("number", [*range(1, 20), 34, 64])
async def test_a_program_that_kills_what_it_can_gets_a_result_and_no_excuse(pool: Jail, number: int) -> None:
    killer = f"import os\nfor _ in range(3):\n  try: os.kill(1, {number})\n  except OSError: pass\n"
    killer += f"try: os.kill(os.getppid(), {number})\nexcept OSError: pass\nimport time; time.sleep(0.2)"
    ended = await pool.run(Program(killer), Allowance(wall=1))  # a result, not a fault of the machine
    assert ended.code != 0 or number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGCONT)
    assert (await pool.run(Program("print(1)"))).stdout == "1\n"


async def test_a_program_cannot_slow_the_next(pool: Jail) -> None:
    slow = "import os\nfor which, who in ((os.PRIO_PROCESS, 1), (os.PRIO_USER, 0), (os.PRIO_PGRP, 1)):\n"
    slow += "  try: os.setpriority(which, who, 19); print('slowed')\n  except OSError: pass\n"
    slow += "try: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)); print('idle')\nexcept OSError: pass"
    asked = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))"
    before = await pool.run(Program(asked))
    assert (await pool.run(Program(slow))).stdout == ""
    assert (await pool.run(Program(asked))).stdout == before.stdout


async def test_a_program_that_needs_more_gets_a_larger_container(pool: Jail) -> None:
    write = "open('big', 'wb').write(b'x' * (90 << 20)); print('written')"
    large = Allowance(disk_mb=128, file_mb=128)
    assert "No space left" in (await pool.run(Program(write), Allowance(disk_mb=32, file_mb=128))).stderr
    assert (await pool.run(Program(write), large)).stdout == "written\n"


async def test_a_container_ends_when_its_program_is_cancelled_and_when_the_pool_is_closed(engine: Engine) -> None:
    before = listed(engine)
    jail = Jail(size=1, engine=engine)
    await jail.run(Program("pass"))
    assert len(listed(engine) - before) == 1
    running = asyncio.create_task(jail.run(Program("while True: pass")))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    jail.close()
    assert listed(engine) <= before


async def test_one_that_does_not_end_by_itself_is_removed(engine: Engine) -> None:
    before = listed(engine)
    jail = Jail(size=1, engine=engine)
    await jail.run(Program("pass"))
    [name] = listed(engine) - before
    assert done(engine, "pause", name).strip()
    jail.close()
    assert listed(engine) <= before


async def test_no_container_outlives_a_process_that_is_killed(engine: Engine) -> None:
    before = listed(engine)
    script = f"""import asyncio
from rollforge.sandbox.docker import Engine
from rollforge.sandbox.jail import Allowance, Jail, Program
async def main():
    jail = Jail(size=2, engine=Engine({engine.command!r}, {engine.image!r}))
    await asyncio.gather(*(jail.run(Program("pass")) for _ in range(2)))
    running = asyncio.create_task(jail.run(Program("while True: pass"), Allowance(wall=600, cpu=600)))
    await asyncio.sleep(0.2)
    print("both", flush=True)
    await running
asyncio.run(main())"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"both\n"
    assert len(listed(engine) - before) == 2
    process.kill()
    await process.wait()
    async with asyncio.timeout(30):
        while listed(engine) - before:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.1)


async def test_walls_that_the_engine_left_out_are_missed(
    engine: Engine, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which(engine.command)
    monkeypatch.delenv(ALLOW, raising=False)
    for option, gap in (
        ("--read-only", r"folders that can be written to \(.*/"),
        ("--ipc=none", r"folders that can be written to \(.*/dev/shm\)"),
    ):
        script = f'#!/bin/sh\nfor one; do shift; [ "$one" = {option} ] || set -- "$@" "$one"; done\nexec {real} "$@"\n'
        stand_in(script)
        monkeypatch.setenv(IMAGE, engine.image)
        with pytest.raises(SetupError, match=f"the container has {gap}"):
            await one("pass")
