"""Parquet files, row by row. pyarrow is an extra: without it every use says how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.records.items import Json

_AT_ONCE = 256


def arrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet). Raises `UserError` where they are not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'rollforge[parquet]'") from error


def parquet_rows(path: Path) -> Iterator[Json]:
    """Raises `UserError` without pyarrow, and for what it cannot read."""
    pyarrow, parquet = arrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_ONCE):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: pyarrow cannot read it: {' '.join(str(error).split())[:300]}") from None
