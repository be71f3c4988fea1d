"""Linux's own walls, by ctypes: namespaces, mounts, Landlock, seccomp, capabilities. Sources: the man pages named below."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    *(0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000),
)
NEW_ANY = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER = 1, 4, 38, 22, 36

MACHINE = platform.machine()


def unshare(flags: int) -> None:
    """unshare(2). Raises `OSError`."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises `OSError`."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(done, f"mount {target}")


def bind_read_only(source: str, target: str) -> None:
    """`source` with all that is mounted in it, seen at `target`, read only, without set-uid programs and devices."""
    mount(source, target, flags=MS_BIND | MS_REC)
    attributes = struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0)  # MOUNT_ATTR_RDONLY | NOSUID | NODEV
    done = _libc.syscall(442, -100, target.encode(), 0x8000, attributes, len(attributes))  # mount_setattr, AT_RECURSIVE
    _check(done, f"mount_setattr {target}")


def pivot_root(new: str) -> None:
    """pivot_root(2): `new`, a mount point, becomes the root; the old one is gone. Raises `OSError`."""
    os.chdir(new)
    _check(_libc.syscall({"x86_64": 155}.get(MACHINE, 41), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def drop_capabilities() -> None:
    """capset(2) to none, and none to be had back: no exec and no set-uid file gives any."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    number = 0
    while _libc.prctl(24, ctypes.c_ulong(number), 0, 0, 0) == 0:  # PR_CAPBSET_DROP
        number += 1
    header, nothing = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
    _check(_libc.capset(header, nothing), "capset")


def landlock_version() -> int:
    """landlock(7): which version of it the kernel has; 0 for none."""
    return max(0, int(_libc.syscall(444, None, 0, 1)))


def landlock(read: Iterable[str], write: Iterable[str]) -> None:
    """From here on, files can be opened beneath these folders only. Raises `OSError` where the kernel has no Landlock."""
    version = landlock_version()
    every = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    # Network (version 4): no TCP ports. Scope (version 6): no signals and no abstract sockets to processes outside.
    rules = struct.pack("QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _libc.syscall(444, rules, size, 0)
    _check(ruleset, "landlock_create_ruleset")
    look = 1 | 4 | 8  # execute, read a file, read a folder
    try:
        for paths, allowed in ((read, look), (write, every)):
            for path in paths:
                folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
                of_file = allowed & (1 | 2 | 4 | (1 << 14))
                rule = struct.pack("=Qi", allowed if os.path.isdir(path) else of_file, folder)
                done = _libc.syscall(445, ruleset, 1, rule, 0)
                os.close(folder)
                _check(done, f"landlock {path}")
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        _check(_libc.syscall(446, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def seccomp(apart: bool) -> None:
    """seccomp(2): no sockets but local ones, no namespaces, no mounts, no tracing, none of the kernel's rarer doors.

    A program that is not `apart`, in namespaces of its own, can neither leave anything in System V's shared memory nor
    change the limits and priorities of others that run as the same user: the cell is among them.
    """
    machine = _MACHINES.get(MACHINE)
    if machine is None:
        raise OSError(f"no list of system calls for {MACHINE}")
    audit, numbers = machine
    load, equal, larger, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, eperm, enosys = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, audit),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # the number of the call
        (larger, 0, 1, 0x40000000),  # x32: the same calls by other numbers
        (give, 0, 0, eperm),
        (equal, 0, 1, 435),  # clone3, whose flags cannot be looked at: libraries then use clone
        (give, 0, 0, enosys),
        (equal, 0, 4, numbers["clone"]),
        (load, 0, 0, 16),  # its first argument
        (any_bit, 0, 1, NEW_ANY & 0xFFFFFFFF),
        (give, 0, 0, eperm),
        (give, 0, 0, allow),
        (equal, 0, 4, numbers["socket"]),
        (load, 0, 0, 16),
        (equal, 1, 0, 1),  # AF_UNIX
        (give, 0, 0, eperm),
        (give, 0, 0, allow),
    ]
    for name in () if apart else _OF_ITSELF:
        # Arguments of 0 mean the caller. Of setpriority it is the second; the first says that it is about one process.
        asked = [(load, 0, 0, 16), (equal, 0, 2, 0), (load, 0, 0, 24 if name == "setpriority" else 16)]
        asked += [(equal, 1, 0, 0), (give, 0, 0, eperm), (give, 0, 0, allow)]
        program += [(equal, 0, len(asked), numbers[name]), *asked]
    looked_at = ("clone", "socket", *_OF_ITSELF, *(_BEYOND if apart else ()))
    for name, number in numbers.items():
        if name not in looked_at:
            program += [(equal, 0, 1, number), (give, 0, 0, eperm)]
    program.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _check(_libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), filters, 0, 0), "seccomp")


def _check(done: int, what: str) -> None:
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


_OF_ITSELF = ("prlimit64", "sched_setaffinity", "setpriority")
"""Allowed where they are about the caller."""
_BEYOND = (
    "shmget",
    "semget",
    "msgget",
    "ioprio_set",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
)
"""Refused except in namespaces: what outlasts a program, or changes the cell."""
_CALLS = """
clone 56 220, socket 41 198, ptrace 101 117, syslog 103 116, personality 135 92, vhangup 153 58, pivot_root 155 41,
adjtimex 159 171, chroot 161 51, acct 163 89, settimeofday 164 170, mount 165 40, umount2 166 39, swapon 167 224,
swapoff 168 225, reboot 169 142, sethostname 170 161, setdomainname 171 162, iopl 172 -, ioperm 173 -, init_module 175 105,
delete_module 176 106, quotactl 179 60, clock_settime 227 112, kexec_load 246 104, add_key 248 217, request_key 249 218,
keyctl 250 219, unshare 272 97, perf_event_open 298 241, name_to_handle_at 303 264, open_by_handle_at 304 265, setns 308 268,
process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272, finit_module 313 273, kexec_file_load 320 294,
bpf 321 280, userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433,
pidfd_getfd 438 438, mount_setattr 442 442, shmget 29 194, semget 64 190, msgget 68 186, prlimit64 302 261,
sched_setaffinity 203 122, setpriority 141 140, ioprio_set 251 30, sched_setscheduler 144 119, sched_setparam 142 118,
sched_setattr 314 274
"""
"""The calls that are looked at or refused: name, number on x86-64, on 64-bit Arm."""


def _numbers(column: int) -> dict[str, int]:
    calls = [call.split() for call in _CALLS.split(",")]
    return {call[0]: int(call[column]) for call in calls if call[column] != "-"}


_MACHINES = {"x86_64": (0xC000003E, _numbers(1)), "aarch64": (0xC00000B7, _numbers(2))}
"""The architecture as the audit system names it, and its numbers."""
