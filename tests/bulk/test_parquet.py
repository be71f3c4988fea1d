"""Parquet rows, free JSON among them."""

from __future__ import annotations

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
