"""Where a cell is: in a process of this machine, which walls itself in. The other place is a container (`docker.py`)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollforge.errors import InfraFault, SetupError
from rollforge.sandbox.processes import descendants, kill_tree

INSIDE = Path(__file__).parent / "inside"


@dataclass(frozen=True, slots=True)
class Room:
    """What a cell has for all processes of a program together, where that is fixed when it is made."""

    memory_mb: int = 0
    disk_mb: int = 0
    processes: int = 0

    def grown(self, other: Room) -> Room:
        """Room for either."""
        return Room(
            max(self.memory_mb, other.memory_mb), max(self.disk_mb, other.disk_mb), max(self.processes, other.processes)
        )


class Place(Protocol):
    connection: socket.socket
    """To the cell."""

    @property
    def alive(self) -> bool: ...
    def opening(self) -> bytes:
        """What it is sent before the first job."""

    def holds(self, room: Room) -> bool:
        """Whether there is as much room in it."""

    def memory(self) -> int:
        """Bytes that programs have there; 0 where they are watched inside."""

    def kill(self) -> None:
        """End it at once, with all that runs there."""

    def fault(self, error: Exception, begun: bool) -> InfraFault | SetupError:
        """Why its connection ended; where none has ever `begun` to work, that may be the machine's set-up. May block."""

    def end(self) -> None:
        """Begin its end."""

    def gone(self, wait: bool = False) -> bool:
        """Whether that is over; with `wait` it is, by force where it takes long."""


class Process:
    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-s", "-P", str(INSIDE / "cell.py"), str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                self.connection.close()
                raise InfraFault(f"cannot start a process: {error.strerror or error}") from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def opening(self) -> bytes:
        return b""

    def holds(self, room: Room) -> bool:
        return True

    def memory(self) -> int:
        pages = 0
        for process in descendants(self._process.pid):
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/statm") as file:
                pages += int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        kill_tree(self._process.pid)

    def fault(self, error: Exception, begun: bool) -> InfraFault:
        return InfraFault(f"a sandbox ended: {error or type(error).__name__}")

    def end(self) -> None:
        self.connection.close()
        if self.alive:
            self.kill()
        self._process.wait()

    def gone(self, wait: bool = False) -> bool:
        return True
