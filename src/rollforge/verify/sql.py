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
            same = same_rows(mine, theirs, order=order, as_set=compare == "set", tolerance=tolerance)
            if not same and order and same_rows(mine, theirs, tolerance=tolerance):
                theirs, ties = await _ordered(gold, wanted["columns"], theirs, sources[place - 1], limits, jail or shared())
                same = same_rows(mine, theirs, order=True, ties=ties, tolerance=tolerance)
            if not same:
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
    """The places of the columns by which a query's result is ordered; none if it cannot be told that they are in the result.

    Rows that agree in them may come in any order.
    """
    names = [column.casefold() for column in columns]
    keys = []
    for term in _terms(query):
        name = _bare(term)
        if name.isdigit() and 0 < int(name) <= len(names):
            keys.append(int(name) - 1)
        elif names.count(name) == 1:
            keys.append(names.index(name))
        else:
            return ()
    return tuple(keys)


def keyed(query: str) -> tuple[str, int] | None:
    """The query with what it is ordered by as further columns, and how many; None for one without ORDER BY, or a compound.

    It may be none that SQLite runs, and return other rows (DISTINCT).
    """
    text, plain = _masked(query)
    found = [token for token in _CLAUSE.finditer(plain) if _depth(plain, token.start()) == 0]
    words = [token[0].casefold().split()[0] for token in found]
    if words.count("select") != 1 or "order" not in words:
        return None
    first = found[words.index("select")].end()
    last = next((token.start() for token, word in zip(found, words, strict=True) if word in ("from", "order")), None)
    if last is None or last < first:
        return None
    items = _pieces(text[first:last], plain[first:last])
    aliases = {_bare(named[2]): named[1] for item in items if (named := _ALIAS.fullmatch(item))}
    keys = []
    for term in _terms(query):
        name = _bare(term)
        place = name.strip("() ")
        if place.isdigit():
            if not 0 < int(place) <= len(items) or any(item.endswith("*") for item in items[: int(place)]):
                return None
            item = items[int(place) - 1]
            term = named[1] if (named := _ALIAS.fullmatch(item)) else item
        folded = _FOLDED.fullmatch(aliases.get(name, term))
        keys.append(f"lower({folded[1]})" if folded else f"({aliases.get(name, term)})")
    return f"{text[:last]} , {', '.join(keys)} {text[last:]}", len(keys)


def _order_by(query: str) -> str | None:
    text, plain = _masked(query)
    found = [token for token in _ORDER.finditer(plain) if _depth(plain, token.start()) == 0]
    return text[found[-1].end() :] if found else None


def _terms(query: str) -> list[str]:
    """What a query is ordered by, without the directions."""
    text, plain = _masked(_order_by(query) or "")
    end = next((token.start() for token in _TAIL.finditer(plain) if _depth(plain, token.start()) == 0), len(plain))
    return [_DIRECTION.sub("", term).strip() for term in _pieces(text[:end], plain[:end])]


def _masked(query: str) -> tuple[str, str]:
    """A query without its comments, and the same without what stands in quotes; both as long as it."""
    comments = _APART.sub(lambda found: " " * len(found[0]) if found[0][:2] in ("--", "/*") else found[0], query)
    return comments, _APART.sub(lambda found: "x" * len(found[0]), comments)


def _depth(plain: str, place: int) -> int:
    return plain.count("(", 0, place) - plain.count(")", 0, place)


def _pieces(text: str, plain: str) -> list[str]:
    """Between commas that are in no brackets."""
    commas = [place for place, sign in enumerate(plain) if sign == "," and _depth(plain, place) == 0]
    return [
        text[start:end].strip() for start, end in zip([0, *(place + 1 for place in commas)], [*commas, None], strict=True)
    ]


def _bare(name: str) -> str:
    name = name.strip()
    return (name[1:-1] if name[:1] + name[-1:] in ('""', "``", "[]") else name).casefold()


_QUERY = re.compile(r"\s*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)
_APART = re.compile(r"--[^\n]*|/\*.*?\*/|'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]", re.DOTALL)
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
_CLAUSE = re.compile(r"\bselect\b(?:\s+(?:distinct|all)\b)?|(?<!distinct )\bfrom\b|\border\s+by\b", re.IGNORECASE)
_TAIL = re.compile(r"\blimit\b|\boffset\b|;", re.IGNORECASE)
_DIRECTION = re.compile(r"(?:\s+(?:asc|desc))?(?:\s+nulls\s+(?:first|last))?\s*\Z", re.IGNORECASE)
_FOLDED = re.compile(r"(.*\S)\s+collate\s+nocase", re.IGNORECASE | re.DOTALL)
_ALIAS = re.compile(
    r"(.*?[\w)\]\"'`])(?:\s+as\s+|\s+|(?<=\)))([A-Za-z_]\w*|\"[^\"]*\"|`[^`]*`|\[[^\]]*\])", re.IGNORECASE | re.DOTALL
)


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


async def _ordered(
    query: str, columns: Sequence[str], rows: list[Row], source: Mapping[str, str], limits: QueryLimits, jail: Jail
) -> tuple[list[Row], list[Row]]:
    """The rows of the expected query, and of each what it is ordered by; of none where that cannot be told."""
    if further := keyed(query):
        text, count = further
        [[found]] = await _run([source], [text], limits, jail)
        if "error" not in found and len(found["columns"]) == len(columns) + count:
            wider = [_row(row) for row in found["rows"]]
            again, keys = ([row[part] for row in wider] for part in (slice(-count), slice(-count, None)))
            if Counter(again) == Counter(rows):
                return again, keys
    places = order_keys(query, columns)
    return rows, [tuple(row[place] for place in places) for row in rows] if places else []


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
    ties: Sequence[Row] = (),
    as_set: bool = False,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether two results are the same, in order if `order`: then expected rows that have the same in `ties` are ties."""
    if as_set:
        return _same_rows(list(dict.fromkeys(given)), list(dict.fromkeys(expected)), tolerance)
    if len(given) != len(expected):
        return False
    if not order:
        return _same_rows(given, expected, tolerance)
    start = 0
    for end in range(1, len(expected) + 1):
        tie = bool(ties) and end < len(expected) and ties[end] == ties[start]
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
