"""Cells in containers, of Docker or Podman, for machines whose kernel gives this user no namespaces.

    jail --source of the cell, then jobs--> docker run -i --stdin--> cell, the first process of a container
         <-how each ended-----------------              <-stdout--

A container is a cell like any other: it stays warm, and speaks the same protocol. What is around it is the engine's work,
from the options below; the cell looks at what they came to before it accepts anything (`inside/cell.py`). It ends with its
standard input: when the jail closes that, and when this process is gone. Nothing is pulled, and no folder of this machine is
seen inside but those asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from rollforge.errors import InfraFault, SetupError, unknown
from rollforge.sandbox.cells import INSIDE, Room

SANDBOX = "ROLLFORGE_SANDBOX"
"""Where cells are made: `namespaces` (the default), or in containers of `docker` or `podman`."""
IMAGE = "ROLLFORGE_SANDBOX_IMAGE"
"""The containers' image: a shell, and the Python of this process. Without it, the official image of that Python."""
ENGINES = ("docker", "podman")
PLACES = ("namespaces", *ENGINES)
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True, slots=True)
class Engine:
    command: str = "docker"
    image: str = f"docker.io/library/python:{PYTHON}-slim"


def choose(name: str) -> None:
    """As the environment variable does, for this process and those it starts. Raises `UserError`."""
    if name not in PLACES:
        raise unknown("place", name, PLACES, "(--sandbox)")
    os.environ[SANDBOX] = name


def chosen() -> Engine | None:
    """The engine that the environment variables name; None if cells are made without one. Raises `SetupError`."""
    name = os.environ.get(SANDBOX) or "namespaces"
    if name not in PLACES:
        raise SetupError(f"{SANDBOX} is {name!r}; it can be {', '.join(PLACES[:-1])} or {PLACES[-1]}")
    return engine(name) if name in ENGINES else None


def engine(command: str) -> Engine:
    """With the image that the environment names, if it does."""
    image = os.environ.get(IMAGE)
    return Engine(command, image) if image else Engine(command)


class Container:
    """One, from its start to its end. `connection` is its standard input and output."""

    def __init__(self, engine: Engine, room: Room, folders: tuple[str, ...] = ()) -> None:
        self._engine = engine
        self._room = room
        self._name = f"rollforge-{os.getpid()}-{secrets.token_hex(6)}"
        self.connection, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()
        with theirs:
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    arguments(engine, self._name, room, folders),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=self._said,
                    start_new_session=True,
                )
            except OSError as error:
                self.connection.close()
                self._said.close()
                if isinstance(error, FileNotFoundError):
                    remedy = f"install it, or set {SANDBOX} to something else"
                    raise SetupError(
                        f"{SANDBOX} asks for {engine.command}, and there is no such command: {remedy}"
                    ) from None
                raise InfraFault(f"cannot start {engine.command}: {error.strerror or error}") from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def opening(self) -> bytes:
        kernel, cell = ((INSIDE / f"{name}.py").read_text(encoding="utf-8") for name in ("kernel", "cell"))
        source = _WHOLE.format(kernel=kernel, cell=cell).encode()
        return len(source).to_bytes(8, "big") + source

    def holds(self, room: Room) -> bool:
        return self._room.grown(room) == self._room

    def memory(self) -> int:
        return 0

    def kill(self) -> None:
        self.end()
        self.gone(wait=True)

    def fault(self, error: Exception, begun: bool) -> InfraFault | SetupError:
        self.end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines()]
        said = " ".join(line for line in lines if line and "run --help'" not in line)[-1000:] or "it said nothing"
        command, image, status = self._engine.command, self._engine.image, self._process.poll()
        if begun:
            return InfraFault(f"a container of {image} ended with exit status {status}: {said}")
        remedy = f"the image needs a shell and Python {PYTHON}: name one in {IMAGE}"
        if re.search(r"no such image|image not known|unable to find image", said, re.IGNORECASE):
            remedy = f"get it with `{command} pull {image}`, or name one that is here in {IMAGE}"
        elif status == _ENGINE_FAILED:
            remedy = f"see that `{command} info` works for this user, or set {SANDBOX} to something else"
        return SetupError(f"{command} cannot run a container of {image} (exit status {status}): {said}; {remedy}")

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)  # also where a fork of this process still holds it
        self.connection.close()

    def gone(self, wait: bool = False) -> bool:
        if wait:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._remove()
        if self.alive:
            return False
        self._said.close()
        return True

    def _remove(self) -> None:
        command = [self._engine.command, "rm", "--force", self._name]
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=3 * _END_SECONDS, check=False)
        self._process.kill()
        self._process.wait()


def arguments(engine: Engine, name: str, room: Room, folders: tuple[str, ...] = ()) -> list[str]:
    """The command line of a container in which there is nothing but the image and `folders`, read only, and a /tmp."""
    user = 20_000 + secrets.randbelow(40_000)  # owns nothing, and is its own: the kernel counts processes by user
    memory = room.memory_mb + room.disk_mb + _OVERHEAD_MB
    command = [engine.command, "run", "--rm", "--interactive", "--pull=never"]
    command += ["--name", name, "--label", "rollforge.sandbox=1"]
    command += ["--network=none", "--ipc=none", "--hostname=sandbox", "--log-driver=none", "--no-healthcheck", "--workdir=/"]
    command += ["--read-only", "--tmpfs", f"/tmp:rw,exec,nosuid,nodev,size={room.disk_mb}m,mode=1777"]
    if engine.command == "podman":  # which else makes some more folders writable, and knows what lies in the image
        command += ["--read-only-tmpfs=false", "--image-volume=ignore"]
    command += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--user", f"{user}:{user}"]
    command += [f"--memory={memory}m", f"--memory-swap={memory}m", f"--pids-limit={room.processes + _OWN_PROCESSES}"]
    command += ["--ulimit", "core=0:0", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
    for folder in folders:
        command += ["--mount", f"type=bind,source={folder},target={folder},readonly"]
    return [*command, "--entrypoint=sh", engine.image, "-c", _START, _RECEIVE]


_END_SECONDS = 10.0
_ENGINE_FAILED = 125
"""The exit status of `docker run` if it is not the program's."""
_OVERHEAD_MB = 256
"""For the cell itself, and what programs put out, which is kept in memory."""
_OWN_PROCESSES = 16
"""Beside a program's: the cell, the first of the program's, those of the engine when it starts."""
_START = (
    'exec env -i PATH="$PATH" PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 python3 -s -P -c "$0"'
    # The environment of an image, and what engines add to it (proxies, with passwords), is no program's business.
)
_RECEIVE = "import sys; given = sys.stdin.buffer; exec(given.read(int.from_bytes(given.read(8), 'big')))"
_WHOLE = """import sys, types
kernel = sys.modules["kernel"] = types.ModuleType("kernel")
exec(compile({kernel!r}, "kernel.py", "exec"), kernel.__dict__)
exec(compile({cell!r}, "cell.py", "exec"), {{"__name__": "__main__", "__file__": "cell.py"}})
"""
