"""Parquet files, row by row. pyarrow is an extra: without it every use says how to get it.

`datasets` keeps free JSON (its feature `Json`) as text of Arrow's type `arrow.json`, and reads it back as what the text
says; so does this. pandas reads the text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import loads

_AT_ONCE = 256
_BYTES = 4 << 20
"""Rows that are opened at once: so many, and of large ones (images, long conversations) as many as take these bytes."""


def arrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet). Raises `UserError` where they are not installed."""
    # Its own allocator keeps what was freed: 70 MB, and is no faster. Who has imported pyarrow already has chosen.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError("Parquet files need pyarrow: pip install 'rollforge[parquet]'") from error


def parquet_rows(path: Path) -> Iterator[Json]:
    """Raises `UserError` without pyarrow, and for what it cannot read."""
    pyarrow, parquet = arrow()
    try:
        with parquet.ParquetFile(path) as file:
            free = _free(file.schema_arrow)
            for batch in _batches(file):
                for row in batch.to_pylist():
                    for name, opened in free.items():
                        row[name] = opened(row[name])
                    yield row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _batches(file: Any) -> Iterator[Any]:
    """Of one row group after the other: asked for all of them at once, pyarrow holds each to the end."""
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        mean = group.total_byte_size // max(1, group.num_rows)
        yield from file.iter_batches(max(1, min(_AT_ONCE, _BYTES // max(1, mean))), row_groups=[number])


def free_json(path: Path) -> list[str]:
    """Columns that hold free JSON, at any depth. Raises as `parquet_rows`."""
    pyarrow, parquet = arrow()
    try:
        return list(_free(parquet.read_schema(path)))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: pyarrow cannot read it: {' '.join(str(error).split())[:300]}")


_Opened = Callable[[Any], Any]


def _free(fields: Any) -> dict[str, _Opened]:
    """Name of each field with free JSON in it -> what makes of its value what the text says."""
    return {field.name: opened for field in fields if (opened := _opened(field))}


def _opened(field: Any) -> _Opened | None:
    kind = field.type
    # pyarrow before 19 does not know the type: it has the name from the file.
    name = getattr(kind, "extension_name", "") or (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    if name == "arrow.json":
        return lambda text: None if text is None else loads(text)
    if hasattr(kind, "value_field"):  # of a list
        item = _opened(kind.value_field)
        return item and (lambda values: values and list(map(item, values)))
    inner = _free(kind) if hasattr(kind, "get_field_index") else {}  # of a struct
    if not inner:
        return None
    return lambda values: values and {**values, **{name: opened(values[name]) for name, opened in inner.items()}}
