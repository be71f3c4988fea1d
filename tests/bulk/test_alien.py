from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from rollforge.bulk.alien import alien_file

ROWS = b'{"a":1}\n{"a":2}\n'


@pytest.mark.parametrize(
    ("tool", "content"),
    [
        ("gunzip", gzip.compress(ROWS, mtime=0)),
        ("bunzip2", bz2.compress(ROWS)),
        ("unxz", lzma.compress(ROWS)),
        ("iconv", ROWS.decode().encode("utf-16")),
        ("jq", b'[{"a":1},\n{"a":2}]'),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz", "x", "my data;$HOME 'x'.jsonl", "-x.rows.jsonl"])
def test_the_remedy_makes_json_lines_and_leaves_the_file_alone(tool: str, content: bytes, name: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    file = tmp_path / name
    file.write_bytes(content)
    told = alien_file(file)
    assert told is not None
    command = told.split(": ", 1)[1]
    assert command.startswith(tool)
    subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path)
    assert file.read_bytes() == content
    (made,) = (other for other in tmp_path.iterdir() if other != file)
    assert made.name.endswith(".rows.jsonl")
    assert made.read_bytes() == ROWS
    assert alien_file(made) is None
