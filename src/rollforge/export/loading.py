"""A data file read with `datasets`, as most trainers read it, and compared with what stands in it."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rollforge.errors import UserError
from rollforge.export.trial import read_into

_COMPARED = 2000
"""Rows that are compared with the file, from its beginning, and as many at its end."""


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


@contextmanager
def loaded(path: Path) -> Iterator[Any]:
    """The file as a `datasets.Dataset`. Raises what `datasets` raises, and `UserError` where the file has no rows, or they
    come back otherwise than they stand in it."""
    datasets = importlib.import_module("datasets")
    with tempfile.TemporaryDirectory(prefix="rollforge-") as cache, read_into(cache):
        loader = "parquet" if path.suffix == ".parquet" else "json"
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file has no rows")
        data = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=cache)
        if not len(data):
            raise UserError(f"{path}: the file has no rows")
        compare(path, data)
        yield data


def compare(path: Path, data: Any) -> None:
    """Raises `UserError` where the rows of a `datasets.Dataset` are other ones than those of its JSON Lines."""
    if path.suffix == ".parquet":
        return
    for number, line, text in _some_lines(path, len(data)):
        difference = _difference(msgspec.json.decode(text), data[number], "")
        if difference:
            raise UserError(
                f"{path}:{line}: `datasets` does not load what the file says: {difference}. Its schema is that of the first "
                f"10 MB: put one row of every shape first, or write what differs as JSON text"
            )


def _some_lines(path: Path, count: int) -> Iterator[tuple[int, int, bytes]]:
    with open(path, "rb") as file:
        number = 0
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            if number < _COMPARED or number >= count - _COMPARED:
                yield number, line, text.removeprefix(BOM_UTF8)
            number += 1


def _difference(written: Any, read: Any, where: str) -> str:
    """The first place where they differ, "" if nowhere. A null column that the row does not have is nothing."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key in (*written, *(key for key in read if key not in written)):
            place = f"{where}.{key}" if where else key
            if key not in written and where and read[key] is None:
                return f"{place} was filled with null"
            found = _difference(written.get(key), read.get(key), place)
            if found:
                return found
        return ""
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        pairs = enumerate(zip(written, read, strict=True))
        return next((found for n, (one, other) in pairs if (found := _difference(one, other, f"{where}[{n}]"))), "")
    if isinstance(written, float) and isinstance(read, float):
        # Where objects differ, datasets writes their numbers anew with ten decimal places: 1e-12 becomes 0.
        return "" if abs(written - read) <= 1e-6 * abs(written) else f"{where} is {read!r}, not {written!r}"
    return "" if written == read else f"{where} is {_short(read)}, not {_short(written)}"


def _short(value: Any) -> str:
    return repr(value)[:60]
