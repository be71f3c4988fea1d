"""Queries on an SQLite database in a cell: read only, one statement each, within limits of time, rows and memory.

Sent into a cell as the program to run; the job comes by standard input, the report goes to standard output. What is expected
of a query is not compared here. Standard library only.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from typing import Any


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    report: dict[str, Any] = {"databases": []}
    for source in job["databases"]:
        try:
            connection = _open(source)
        except (sqlite3.Error, MemoryError, ValueError) as error:
            report["databases"].append({"error": f"{type(error).__name__}: {error}"})
            continue
        with connection:
            runs = [_run(connection, query, job) for query in job["queries"]]
        report["databases"].append({"runs": runs})
    json.dump(report, sys.stdout)


def _open(source: dict[str, str]) -> sqlite3.Connection:
    if "path" in source:
        connection = sqlite3.connect(f"file:{source['path']}?mode=ro&immutable=1", uri=True)
    else:
        connection = sqlite3.connect(":memory:")
        connection.executescript(source["script"])
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 8 << 20)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for name, (count, function) in FUNCTIONS.items():
        connection.create_function(name, count, function, deterministic=True)
    return connection


def _run(connection: sqlite3.Connection, query: str, job: dict[str, Any]) -> dict[str, Any]:
    read: set[str] = set()

    def allowed(action: int, first: str | None, second: str | None, _: str | None, __: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            read.add(str(first))
        fine = action in READING and not (action == sqlite3.SQLITE_FUNCTION and second == "load_extension")
        return sqlite3.SQLITE_OK if fine else sqlite3.SQLITE_DENY

    until = time.monotonic() + job["seconds"]
    connection.set_progress_handler(lambda: time.monotonic() > until, 5000)
    connection.set_authorizer(allowed)
    started = time.monotonic()
    try:
        cursor = connection.execute(query)
        if cursor.description is None:
            return {"error": "the statement is no query"}
        rows = cursor.fetchmany(job["rows"] + 1)
    except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError, OverflowError, RecursionError) as error:
        late = time.monotonic() > until
        return {"error": "out of time" if late else f"{type(error).__name__}: {error}"[:500], "seconds": _since(started)}
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
    if len(rows) > job["rows"]:
        return {"error": f"more than {job['rows']} rows"}
    return {
        "rows": [[_cell(cell) for cell in row] for row in rows],
        "columns": [column[0] for column in cursor.description],
        "read": sorted(read),
        "seconds": _since(started),
    }


READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)


def _cell(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": repr(value)}
    return {"blob": value.hex()} if isinstance(value, bytes) else value


def _substring_index(text: Any, mark: Any, count: Any) -> Any:
    if text is None or mark is None or count is None:
        return None
    parts = str(text).split(str(mark)) if mark else [""]
    return str(mark).join(parts[: int(count)] if int(count) > 0 else parts[int(count) :] if int(count) else [])


def _concat(*parts: Any) -> Any:
    return None if None in parts else "".join(map(str, parts))


def _regexp(pattern: Any, text: Any) -> Any:
    return None if text is None else bool(re.search(str(pattern), str(text)))


FUNCTIONS: dict[str, tuple[int, Any]] = {
    "substring_index": (3, _substring_index),
    "concat": (-1, _concat),
    "left": (2, lambda text, count: None if text is None else str(text)[: int(count)]),
    "right": (2, lambda text, count: None if text is None else str(text)[-int(count) :] if int(count) else ""),
    "year": (1, lambda text: None if text is None else int(str(text)[:4])),
    "month": (1, lambda text: None if text is None else int(str(text)[5:7])),
    "day": (1, lambda text: None if text is None else int(str(text)[8:10])),
    "regexp": (2, _regexp),
}
"""What MySQL and PostgreSQL have and SQLite lacks, as far as queries about data use it."""


if __name__ == "__main__":
    main()
