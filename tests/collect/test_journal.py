"""The journal: what was appended stays, a torn tail goes, and a line that cannot be written leaves no trace."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollforge.collect.journal import Journal
from rollforge.errors import SetupError

LINES = b'{"a":1}\n{"b":"\xc3\xa9\\n"}\n'


@pytest.mark.parametrize("size", range(len(LINES) + 1))
def test_torn_tail_of_every_length(tmp_path: Path, size: int) -> None:
    file = tmp_path / "j"
    file.write_bytes(LINES[:size])
    whole = LINES[:size].rpartition(b"\n")
    journal = Journal(file)
    journal.append(b'{"c":3}\n')
    journal.close()
    assert file.read_bytes() == whole[0] + whole[1] + b'{"c":3}\n'


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000])
@pytest.mark.parametrize("before", [b"", b"first\n", b"x" * 65_536 + b"\n"])
def test_torn_tail_longer_than_a_read(tmp_path: Path, before: bytes, length: int) -> None:
    file = tmp_path / "j"
    file.write_bytes(before + b"t" * length)
    Journal(file).close()
    assert file.read_bytes() == before


def test_reopening_appends(tmp_path: Path) -> None:
    for number in range(3):
        journal = Journal(tmp_path / "j")
        journal.append(b"%d\n" % number)
        journal.close()
    assert (tmp_path / "j").read_bytes() == b"0\n1\n2\n"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk with so much room: a longer write stores what fits, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 6])
def test_a_line_that_does_not_fit_leaves_none_of_it(tmp_path: Path, room: int) -> None:
    file = tmp_path / "j"
    journal = Journal(file)
    journal.append(LINES)
    with files_of_at_most(len(LINES) + room):
        with pytest.raises(SetupError, match=r"cannot write .*/j: File too large"):
            journal.append(b"1234567\n")
        assert file.read_bytes() == LINES
        with pytest.raises(SetupError, match="File too large"):
            journal.append(b"\n")  # it would fit; but what is lost once must not be hidden by what comes later
    journal.close()
    assert file.read_bytes() == LINES


def test_full_disk() -> None:
    journal = Journal(Path("/dev/full"))
    with pytest.raises(SetupError, match="cannot write /dev/full: No space left on device"):
        journal.append(b"{}\n")
    journal.close()


@pytest.mark.parametrize("path", ["missing/j", "file/j", "folder"])
def test_unwritable_place(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SetupError, match=f"cannot write {tmp_path / path}: "):
        Journal(tmp_path / path)


def descriptor(path: Path) -> int:
    """Of the open file: what a test needs to take the disk away from under a journal."""
    for name in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd") / name
        if link.is_symlink() and os.readlink(link) == str(path):
            return int(name)
    raise AssertionError(f"{path} is not open")


async def test_sync_that_the_disk_refuses_ends(tmp_path: Path) -> None:
    # A pipe takes writes and cannot be forced to disk: its place is taken by the journal's own descriptor.
    journal = Journal(tmp_path / "j")
    place = descriptor(tmp_path / "j")
    ours, theirs = os.pipe()
    os.dup2(theirs, place)
    journal.append(b"{}\n")
    with pytest.raises(SetupError, match=r"cannot write .*/j: Invalid argument"):
        await asyncio.wait_for(journal.sync_forever(0.001), 10)
    with pytest.raises(SetupError, match="cannot write"):
        journal.close()
    for number in (ours, theirs):
        os.close(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(place)


async def test_deleted_while_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(b"{}\n")
    (tmp_path / "j").unlink()
    with pytest.raises(SetupError, match="was deleted while it was being written"):
        await asyncio.wait_for(journal.sync_forever(0.001), 10)
    journal.close()
