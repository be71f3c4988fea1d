"""Killing a process with everything it started, sessions of their own included."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable


def kill_tree(pid: int) -> None:
    """Kill a child of ours that was not waited for yet, its process group, and (on Linux) all its descendants.

    It is stopped first, so that it starts no more while it is looked at.
    """
    _signal(pid, signal.SIGSTOP)
    found: set[int] = set()
    # Again until no new ones appear: what was found and not yet killed may go on starting others.
    while new := descendants(pid) - found:
        found |= new
        for child in new:
            _signal(child, signal.SIGSTOP)
    for child in found:
        _signal(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _signal(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """Children, their children and so on; none where there is no /proc."""
    children = _listed if os.path.exists("/proc/thread-self/children") else _searched()
    found: set[int] = set()
    new = children(pid)
    while new:
        found.update(new)
        new = [child for parent in new for child in children(parent) if child not in found]
    return found


def _listed(pid: int) -> list[int]:
    """The children as the kernel lists them, if it was built to."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    return found


def _searched() -> Callable[[int], list[int]]:
    """The children found by asking every process for its parent."""
    children: dict[int, list[int]] = {}
    names = [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []
    for name in names:
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
            # pid (name, which may hold anything) state parent ...
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    return lambda pid: children.get(pid, [])


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
