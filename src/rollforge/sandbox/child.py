"""The worker's side of `sandbox.workers`: make a fork safe to run a verifier in, then answer calls until the parent is gone.

Nothing here returns to the code that forked: the process ends in `os._exit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rollforge.errors import RolloutError, SetupError, describe

HEADER = 8
"""Bytes of the number of a call, and of a length."""

BEGUN = b"+"
"""Sent when a call has arrived and is about to be made."""

LARGEST = 64 << 20
"""Bytes of a result; more is a mistake."""

Unpack = Callable[[bytes], tuple[Any, ...]]


def serve(connection: socket.socket, function: Callable[..., Any], unpack: Unpack, memory_mb: int) -> None:
    """Answer until the parent is gone, or until the verifier left the process unfit for another call. Never returns."""
    code = 1
    try:
        _become_worker(connection)
        limit = _limit_memory(memory_mb)
        own = _identity(connection)
        stream = connection.makefile("rwb")
        spent = False
        while not spent and (header := stream.read(2 * HEADER)):
            packed = stream.read(int.from_bytes(header[HEADER:], "big"))
            stream.write(BEGUN)
            stream.flush()
            reply, spent = _answer(function, unpack, packed, limit)
            if _identity(connection) != own:
                break  # the verifier's own fork came back too, or another file is where the connection was
            reply = bytes([spent]) + reply
            _flush_output()
            stream.write(header[:HEADER] + len(reply).to_bytes(HEADER, "big") + reply)
            stream.flush()
        else:
            code = 0
    except OSError:
        code = 1  # the parent is gone, or the verifier closed the connection
    except Exception:  # noqa: BLE001 - the last place where it can be said
        traceback.print_exc()
    finally:
        os._exit(code)


def _identity(connection: socket.socket) -> tuple[int, int, int]:
    """Of this process and the file that the connection's number stands for."""
    file = os.fstat(connection.fileno())
    return os.getpid(), file.st_dev, file.st_ino


def _answer(function: Callable[..., Any], unpack: Unpack, packed: bytes, memory: str) -> tuple[bytes, bool]:
    """The pickled reply (kind, value), and whether this process should make no further call."""
    try:
        arguments = unpack(packed)
    except Exception as error:  # noqa: BLE001 - whatever the user's __setstate__ raises
        return _reply("unpack", describe(error))
    try:
        result = function(*arguments)
    except (RolloutError, SetupError) as error:
        ours = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "rollforge.errors")
        return _reply(ours, str(error))
    except MemoryError as error:
        # The traceback holds what filled the memory.
        error.__traceback__ = None
        return _reply("VerifierFault", f"MemoryError: {memory}", spent=True)
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like too: the verifier is at fault, not the worker
        return _reply("VerifierFault", describe(error))
    try:
        reply, spent = _reply("result", result)
    except Exception as error:  # noqa: BLE001 - as many kinds as there are types
        return _reply("VerifierFault", f"the result cannot be sent back: {describe(error)}")
    if len(reply) > LARGEST:
        return _reply("VerifierFault", f"the result is {len(reply):,} bytes long; at most {LARGEST:,} are sent back")
    return reply, spent


def _reply(kind: str, value: Any, spent: bool = False) -> tuple[bytes, bool]:
    return pickle.dumps((kind, value)), spent


def _become_worker(connection: socket.socket) -> None:
    os.setsid()
    gc.freeze()  # what the parent left to collect would close its file numbers here, when they are other files
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive a killed parent
        prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a child leaves behind stays findable
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    asyncio._set_running_loop(None)
    _own_files(connection.fileno())
    # One thread each: there are as many workers as cores, and a pool of threads does not survive a fork.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)  # OpenMP hangs in a fork of a process that has used it


def _own_files(keep: int) -> None:
    """Close what the parent has open (connections, locks); no input; what is printed goes to standard error."""
    try:
        numbers = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        numbers = list(range(3, 4096))
    for number in numbers:
        if number > 2 and number != keep:
            with contextlib.suppress(OSError):
                os.close(number)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        try:
            os.dup2(null if number == 0 else 2, number)
        except OSError:  # there is no standard error
            os.dup2(null, number)
    if null > 2:
        os.close(null)
    sys.stdin = open(0, closefd=False)
    sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _limit_memory(megabytes: int) -> str:
    """Allow so much more than now; the words for it. Elsewhere than on Linux there is no such limit."""
    if megabytes and sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            with open("/proc/self/statm", "rb") as file:
                now = int(file.read().split()[5]) * resource.getpagesize()
            # Of data, not of addresses: libraries and virtual machines reserve many more of those than they use.
            resource.setrlimit(resource.RLIMIT_DATA, (now + (megabytes << 20), resource.RLIM_INFINITY))
    return f"more than the {megabytes} MB (memory_mb) that its process may use"
