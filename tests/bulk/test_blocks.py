"""Files cut into blocks lose no line, whatever the size; work spread over processes comes back in order."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.bulk.alien import refuse_alien
from rollforge.bulk.blocks import blocks, line_number, lines
from rollforge.errors import UserError


@given(st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"").strip()), max_size=12), st.integers(1, 40))
def test_every_line_once(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], size: int) -> None:
    file = tmp_path_factory.mktemp("blocks") / "rows.jsonl"
    file.write_bytes(b"\n".join(texts))
    cut = list(blocks([file], size))
    assert [block.start for block in cut[1:]] == [block.end for block in cut[:-1]]
    found = [(at, line) for block in cut for at, line in lines(block)]
    expected = file.read_bytes().split(b"\n") if file.stat().st_size else []
    if expected and not expected[-1]:
        expected.pop()
    assert [line for _, line in found] == [
        text.strip().removeprefix(b"\xef\xbb\xbf").strip() if n == 0 else text.strip() for n, text in enumerate(expected)
    ]
    for number, (at, _) in enumerate(found, 1):
        assert line_number(file, at) == number


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nothing.jsonl: No such file"):
        list(blocks([tmp_path / "nothing.jsonl"]))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for refused in (lambda: list(blocks([tmp_path / "pipe"])), lambda: refuse_alien(tmp_path / "pipe")):
        with pytest.raises(UserError, match=r"pipe is not a file; .*a pipe will not do: save it first"):
            refused()
    with pytest.raises(UserError, match="is a directory, not a file"):
        list(blocks([tmp_path]))


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"{}\n" + b"x" * 100 + b"\n")
    assert [block.end for block in blocks([file], 10, 100)] == [104]
    with pytest.raises(UserError, match=r"rows.jsonl: a line is longer than .*is this JSON Lines"):
        list(blocks([file], 10, 50))
    file.write_bytes(b'[{"a": 1}, ' + b" " * 100 + b"{}]")
    with pytest.raises(UserError, match="the file is one JSON array"):
        list(blocks([file], 10, 50))
