"""Judging a query by what it returns: it and the expected one run on SQLite, in the sandbox, and their results are compared.

verifier --databases, both queries--> cell: read only, one statement each (`sandbox/inside/queries.py`)
         <-rows----------------------
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import isclose
from typing import Any, Literal

from rollforge.errors import InfraFault, UserError, VerifierFault
from rollforge.sandbox.deadline import remaining
from rollforge.sandbox.jail import Allowance, Jail, Program, inner, shared
from rollforge.verify.answer import after_thinking
from rollforge.verify.code import fenced

Compare = Literal["auto", "ordered", "rows", "set"]
Row = tuple[Any, ...]

TOLERANCE = 1e-6
MOST = 20_000
"""Characters of a query that is translated."""
FEW = 200
"""So many rows that differ in the last digits are matched one by one."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where a query is run: statements that make it, or a file of SQLite's that the cells can read."""

    script: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    seconds: float = 10.0
    """For one query on one database."""
    rows: int = 20_000
    memory_mb: int = 512


async def sql(
    reply: str,
    expected: str,
    databases: Sequence[Database],
    *,
    compare: Compare = "auto",
    dialect: str = "sqlite",
    tolerance: float = TOLERANCE,
    limits: QueryLimits = QueryLimits(),
    jail: Jail | None = None,
) -> dict[str, Any]:
    """1 if the query in the reply returns what the expected one does, on all databases; else 0, with the query and why.

    Columns count by their place. `compare`: rows in the order of the expected query (where it leaves ties, in any order of
    those), rows in any order, or, as BIRD does, in any order and without regard to how often they come; `auto` is the first
    if the expected query has an ORDER BY of its own, else the second. Queries of another `dialect` (mysql, postgresql) are
    translated by sqlglot. Raises `VerifierFault` if the expected query cannot be run, or returns nothing on any of them.
    """
    query = asked = query_of(reply)
    if query is None or asked is None:
        return {"reward": 0.0, "extracted_sql": None, "failure": "no query"}
    gold, scripts = expected, [database.script for database in databases]
    if dialect not in ("sqlite", "sqlite3"):
        gold, *scripts = (translated(text, dialect) for text in (expected, *scripts))
        try:
            if len(query) > MOST:
                raise VerifierFault(f"the query has more than {MOST} characters")
            asked = await asyncio.to_thread(translated, query, dialect)
        except VerifierFault as error:
            return {"reward": 0.0, "extracted_sql": query, "failure": str(error)}
    order = compare == "ordered" or (compare == "auto" and is_ordered(gold))
    sources = [{"path": one.path} if one.path else {"script": text} for one, text in zip(databases, scripts, strict=True)]
    found = await _run(sources, [gold, asked], limits, jail or shared())
    failure = ""
    returned = 0
    for place, (wanted, given) in enumerate(found, 1):
        if "error" in wanted:
            raise VerifierFault(f"the expected query cannot be run: {wanted['error']}; {gold!r:.200}")
        returned += len(wanted["rows"])
        where = f" (database {place})" if len(found) > 1 else ""
        if "error" in given:
            failure = failure or given["error"] + where
        elif wanted["read"] and not given["read"]:
            failure = failure or "the query reads no table" + where
        else:
            mine, theirs = ([_row(row) for row in one["rows"]] for one in (given, wanted))
            keys = order_keys(gold, wanted["columns"]) if order else ()
            if not same_rows(mine, theirs, order=order, keys=keys, as_set=compare == "set", tolerance=tolerance):
                failure = failure or f"another result{where}: {_shown(mine)} for {_shown(theirs)}"
    if not returned:
        raise VerifierFault(f"the expected query returns no rows: any empty result would do; {gold!r:.200}")
    return {"reward": float(not failure), "extracted_sql": query, "failure": failure or None}


def query_of(reply: str) -> str | None:
    """The last block marked as SQL, else the last block or the whole reply, if it begins as a query does."""
    text = after_thinking(reply)
    blocks = list(fenced(text))
    marked = [body for language, body in blocks if language in ("sql", "sqlite", "mysql", "postgresql") and body.strip()]
    if marked:
        return marked[-1].strip()
    plain = [body for language, body in blocks if not language] or [text]
    return plain[-1].strip() if _QUERY.match(plain[-1]) else None


def is_ordered(query: str) -> bool:
    """Whether a query has an ORDER BY that is not inside brackets."""
    return _order_by(query) is not None


def order_keys(query: str, columns: Sequence[str]) -> tuple[int, ...]:
    """The places of the columns by which a query's result is ordered; none if one of them is not in the result.

    Rows that agree in them may come in any order.
    """
    names = [column.casefold() for column in columns]
    keys = []
    for term in _TAIL.split(_order_by(query) or "", maxsplit=1)[0].split(","):
        name = _DIRECTION.sub("", term).strip().rpartition(".")[2].strip('`"[] ').casefold()
        if name.isdigit() and 0 < int(name) <= len(names):
            keys.append(int(name) - 1)
        elif name in names:
            keys.append(names.index(name))
        else:
            return ()
    return tuple(keys)


def _order_by(query: str) -> str | None:
    depth = 0
    text = _COMMENT.sub(" ", query)
    plain = _QUOTED.sub(lambda quoted: "x" * len(quoted[0]), text)
    found = None
    for token in _TOKEN.finditer(plain):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0 and len(token[0]) > 1:
            found = text[token.end() :]
    return found


_QUERY = re.compile(r"\s*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`", re.DOTALL)
_TOKEN = re.compile(r"[()]|\border\s+by\b", re.IGNORECASE)
_TAIL = re.compile(r"\blimit\b|\boffset\b|;", re.IGNORECASE)
_DIRECTION = re.compile(r"\s+(?:asc|desc)\b|\s+nulls\s+(?:first|last)\b", re.IGNORECASE)


def translated(text: str, dialect: str) -> str:
    """For SQLite. Raises `VerifierFault` for what cannot be read, `UserError` without sqlglot or for an unknown dialect."""
    try:
        sqlglot = import_module("sqlglot")
    except ModuleNotFoundError:
        raise UserError(f"queries of {dialect} need sqlglot: pip install 'rollforge[sql]'") from None
    names = {"postgresql": "postgres", "pg": "postgres"}
    try:
        statements = sqlglot.transpile(
            text, read=names.get(dialect, dialect), write="sqlite", unsupported_level=sqlglot.ErrorLevel.IGNORE
        )
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise VerifierFault(f"this cannot be read as {dialect}: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise UserError(f"queries of {dialect!r} are not known to sqlglot: {error}") from None
    return ";\n".join(_ROWID.sub("INTEGER PRIMARY KEY", statement) for statement in statements if statement)


_ROWID = re.compile(r"(?:\w*SERIAL|\w*INT\w*)(?: NOT NULL| AUTOINCREMENT| UNIQUE){0,3} PRIMARY KEY(?: AUTOINCREMENT)?")


async def _run(
    databases: Sequence[Mapping[str, str]], queries: Sequence[str], limits: QueryLimits, jail: Jail
) -> list[list[dict[str, Any]]]:
    """For each database, what each query returned. The given query comes last: what it does harms no other."""
    left = remaining()
    seconds = limits.seconds if left is None else min(limits.seconds, 0.8 * left / (len(databases) * len(queries)))
    job = {"databases": databases, "queries": queries, "seconds": seconds, "rows": limits.rows}
    wall = 5 + seconds * len(databases) * len(queries)
    allowance = Allowance(wall=wall, cpu=wall, memory_mb=limits.memory_mb, output_kb=64 << 10)
    ended = await jail.run(Program(inner("queries"), stdin=json.dumps(job)), allowance)
    try:
        found = json.loads(ended.stdout)["databases"]
    except (ValueError, KeyError):
        if ended.timed_out or ended.out_of_memory or ended.cut or ended.code < 0:
            what = "out of time" if ended.timed_out else "too much memory or output"
            if len(queries) > 1:  # whose fault it was shows without it
                fine = await _run(databases, queries[:1], limits, jail)
                return [[*runs, {"error": what}] for runs in fine]
            return [[{"error": what}] * len(queries) for _ in databases]
        raise InfraFault(f"the queries could not be run: {ended.stderr[-500:]}") from None
    for one in found:
        if "error" in one:
            raise VerifierFault(f"the database cannot be made: {one['error']}")
    return [one["runs"] for one in found]


def same_rows(
    given: Sequence[Row],
    expected: Sequence[Row],
    *,
    order: bool = False,
    keys: Sequence[int] = (),
    as_set: bool = False,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether two results are the same, in order if `order`: then rows that agree in the columns `keys` are ties."""
    if as_set:
        return _same_rows(list(dict.fromkeys(given)), list(dict.fromkeys(expected)), tolerance)
    if len(given) != len(expected):
        return False
    if not order:
        return _same_rows(given, expected, tolerance)
    start = 0
    for end in range(1, len(expected) + 1):
        tie = bool(keys) and end < len(expected) and all(expected[end][key] == expected[start][key] for key in keys)
        if not tie:
            if not _same_rows(given[start:end], expected[start:end], tolerance):
                return False
            start = end
    return True


def _same_rows(given: Sequence[Row], expected: Sequence[Row], tolerance: float) -> bool:
    if len(given) != len(expected):
        return False
    mine, theirs = Counter(given), Counter(expected)
    left, right = list((mine - theirs).elements()), list((theirs - mine).elements())
    if len(left) > FEW:
        key = _rounded
        left, right = (sorted(rows, key=lambda row: tuple(map(key, row))) for rows in (left, right))
        return all(_same_row(*pair, tolerance) for pair in zip(left, right, strict=True))
    for row in left:
        match = next((place for place, other in enumerate(right) if _same_row(row, other, tolerance)), None)
        if match is None:
            return False
        del right[match]
    return True


def _rounded(cell: Any) -> tuple[str, Any]:
    return ("number", float(f"{cell:.5g}")) if isinstance(cell, (int, float)) else (type(cell).__name__, str(cell))


def _same_row(given: Row, expected: Row, tolerance: float) -> bool:
    return len(given) == len(expected) and all(_same_cell(*pair, tolerance) for pair in zip(given, expected, strict=True))


def _same_cell(given: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(given, float) or isinstance(expected, float):
        both = isinstance(given, (int, float)) and isinstance(expected, (int, float))
        return both and (given == expected or isclose(given, expected, rel_tol=tolerance, abs_tol=1e-9))
    return bool(given == expected)


def _row(cells: Sequence[Any]) -> Row:
    return tuple(_cell(cell) for cell in cells)


def _cell(cell: Any) -> Any:
    if isinstance(cell, dict):
        return float(cell["float"]) if "float" in cell else bytes.fromhex(cell["blob"])
    return cell


def _shown(rows: Sequence[Row]) -> str:
    return f"{len(rows)} rows, {repr(list(rows[:2]))[:120]}"
