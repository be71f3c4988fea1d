"""Parquet rows, free JSON among them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rollforge.bulk.parquet import free_json, parquet_rows
from rollforge.errors import UserError

pytestmark = pytest.mark.trainers


def written(path: Path, json: Any, pyarrow: Any) -> Path:
    """`json`: the type of what is free JSON."""

    def schema(kind: Any) -> Any:
        call = pyarrow.struct([("arguments", kind), ("name", pyarrow.string())])
        types = {"row": kind, "messages": pyarrow.list_(kind), "calls": pyarrow.large_list(call), "text": pyarrow.string()}
        return pyarrow.schema(types)

    table = pyarrow.Table.from_pylist(ROWS, schema(pyarrow.string())).cast(schema(json))
    import_module("pyarrow.parquet").write_table(table, path)
    return path


ROWS = [
    {
        "row": '{"city": {"name": null}}',
        "messages": ['{"role": "user"}', '"said"', None],
        "calls": [{"arguments": "[1]", "name": "{}"}, None],
        "text": '{"a": 1}',
    },
    {"row": None, "messages": None, "calls": [], "text": None},
]


def test_free_json_is_read_as_what_it_says_at_any_depth(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", minversion="19")
    file = written(tmp_path / "a.parquet", pyarrow.json_(), pyarrow)
    assert free_json(file) == ["row", "messages", "calls"]
    assert list(parquet_rows(file)) == [
        {
            "row": {"city": {"name": None}},
            "messages": [{"role": "user"}, "said", None],
            "calls": [{"arguments": [1], "name": "{}"}, None],
            "text": '{"a": 1}',
        },
        ROWS[1],
    ]


def test_text_stays_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    file = written(tmp_path / "a.parquet", pyarrow.string(), pyarrow)
    assert free_json(file) == []
    assert list(parquet_rows(file)) == ROWS


def test_what_is_no_parquet_is_said(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 and no more")
    for read in (free_json, lambda path: list(parquet_rows(path))):
        with pytest.raises(UserError, match=r"a\.parquet: pyarrow cannot read it"):
            read(file)


def test_of_many_row_groups_and_of_large_rows_few_are_held(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    file = tmp_path / "a.parquet"
    texts = [f"{number}" + "".join(map(chr, range(40, 90))) * 20_000 for number in range(64)]  # of a megabyte each
    with import_module("pyarrow.parquet").ParquetWriter(file, pyarrow.schema([("text", pyarrow.string())])) as out:
        for at in range(0, len(texts), 8):
            out.write_table(pyarrow.table({"text": texts[at : at + 8]}))
    before, most = pyarrow.total_allocated_bytes(), 0
    for number, row in enumerate(parquet_rows(file)):
        assert row["text"] == texts[number]
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert number == 63
    assert most < 32 << 20  # all of the 64 MB, when they were read at once


def test_what_was_freed_is_given_back() -> None:
    pytest.importorskip("pyarrow")
    code = "from rollforge.bulk.parquet import arrow; print(arrow()[0].default_memory_pool().backend_name)"
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["system"]
