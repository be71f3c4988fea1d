"""Queries by what they return: the same rows, other rows, and queries that try something else."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.sandbox.jail import Jail
from rollforge.verify.sql import Database, QueryLimits, is_ordered, order_keys, query_of, same_rows, sql
from tests.jails import isolated

__all__ = ["isolated"]

pytestmark = pytest.mark.usefixtures("isolated")
ROWS = "(1, 'x', 1.5), (2, 'y', NULL), (2, 'z', 2.0), (3, NULL, 0.1)"
TABLE = Database(f"CREATE TABLE t (a INTEGER, b TEXT, c REAL); INSERT INTO t VALUES {ROWS}")
SHORT = QueryLimits(seconds=0.5)


async def judged(query: str, expected: str = "SELECT a, b FROM t", **more: Any) -> dict[str, Any]:
    return await sql(f"```sql\n{query}\n```", expected, more.pop("databases", [TABLE]), limits=SHORT, **more)


@pytest.mark.parametrize(
    ("expected", "query", "reward"),
    [
        ("SELECT a FROM t", "SELECT a AS other FROM t ORDER BY a DESC", 1),
        ("SELECT a FROM t", "select t.a from t;", 1),
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t", 0),
        ("SELECT a FROM t", "SELECT a, b FROM t", 0),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", 0),
        ("SELECT a FROM t ORDER BY a, b", "SELECT a FROM t ORDER BY a DESC", 0),
        ("SELECT a, b FROM t ORDER BY a", "SELECT a, b FROM t ORDER BY a, b DESC", 1),  # a tie
        ("SELECT a, b FROM t ORDER BY 1 ASC", "SELECT a, b FROM t ORDER BY a, b DESC", 1),
        ("SELECT a, b FROM t ORDER BY a, b", "SELECT a, b FROM t ORDER BY a, b DESC", 0),
        ("SELECT b FROM t ORDER BY a, c", "SELECT b FROM t ORDER BY a, b DESC", 0),  # by what is not shown: as it is
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", "SELECT a FROM t ORDER BY a DESC", 1),
        ("SELECT SUM(c) FROM t", "SELECT SUM(c) + 1e-9 FROM t", 1),
        ("SELECT SUM(c) FROM t", "SELECT ROUND(SUM(c)) FROM t", 0),
        ("SELECT SUM(a) FROM t", "SELECT SUM(a) + 0.0 FROM t", 1),
        ("SELECT SUM(a) FROM t", "SELECT CAST(SUM(a) AS TEXT) FROM t", 0),
        ("SELECT b FROM t", "SELECT COALESCE(b, '') FROM t", 0),
        ("SELECT b FROM t", "SELECT upper(b) FROM t", 0),
        ("SELECT COUNT(*) FROM t", "SELECT 4", 0),  # it reads no table
        ("SELECT COUNT(*) FROM t", "WITH n AS (SELECT * FROM t) SELECT COUNT(*) FROM n", 1),
        ("SELECT x'00ff' FROM t", "SELECT x'00FF' FROM t", 1),
        ("SELECT a FROM t", "SELECT a FROM t WHERE 0", 0),
    ],
)
async def test_results(expected: str, query: str, reward: float) -> None:
    assert (await judged(query, expected))["reward"] == reward


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "INSERT INTO t VALUES (1, 2, 3)",
        "UPDATE t SET a = 1 RETURNING a, b",
        "DROP TABLE t",
        "CREATE TEMP TABLE u AS SELECT * FROM t",
        "ATTACH DATABASE '/tmp/x' AS x",
        "PRAGMA table_info(t)",
        "PRAGMA writable_schema = ON",
        "VACUUM INTO '/tmp/copy'",
        "SELECT load_extension('/tmp/x.so'), 1",
        "SELECT writefile('/tmp/x', 'y'), 1",
        "SELECT readfile('/etc/passwd'), 1",
        "SELECT a, b FROM t; SELECT 1",
        "SELECT a, b FROM t; DROP TABLE t",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*), 1 FROM n",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x FROM n",
        "SELECT zeroblob(1000000000), 1 FROM t",
        "SELECT group_concat(hex(zeroblob(1000000))), 1 FROM t, t AS u, t AS v",
        "SELECT replace(hex(zeroblob(1000000)), '0', hex(zeroblob(1000))), 1 FROM t",
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
        "SELECT a FROM nowhere",
        "EXPLAIN SELECT a, b FROM t",
        "-- nothing",
        "\x00",
    ],
)
async def test_queries_that_may_not_or_cannot_be_run(query: str) -> None:
    found = await judged(query)
    assert found["reward"] == 0
    assert found["failure"]
    assert (await judged("SELECT a, b FROM t"))["reward"] == 1


@pytest.mark.parametrize(
    ("expected", "databases"),
    [
        ("SELECT a FROM", [TABLE]),
        ("SELECT a FROM t WHERE a > 9", [TABLE]),
        ("SELECT a FROM t", [Database("CREATE TABEL t (a)")]),
        ("SELECT a FROM t", [Database(path="/nowhere/x.sqlite")]),
    ],
)
async def test_rows_that_cannot_be_judged(expected: str, databases: list[Database]) -> None:
    with pytest.raises(VerifierFault):
        await judged("SELECT a FROM t", expected, databases=databases)


async def test_all_databases_count() -> None:
    other = Database("CREATE TABLE t (a INTEGER, b TEXT, c REAL); INSERT INTO t VALUES (7, 'q', 1)")
    expected = "SELECT SUM(a) FROM t"
    assert (await judged(expected, expected, databases=[TABLE, other]))["reward"] == 1
    found = await judged("SELECT 8 FROM t LIMIT 1", expected, databases=[TABLE, other])
    assert found["failure"] == "another result (database 2): 1 rows, [(8,)] for 1 rows, [(7,)]"


async def test_bird_compares_sets() -> None:
    assert (await judged("SELECT DISTINCT a FROM t", "SELECT a FROM t ORDER BY a", compare="set"))["reward"] == 1
    assert (await judged("SELECT 1 FROM t", "SELECT a FROM t", compare="set"))["reward"] == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in /tmp: there every program has its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_a_file_is_read_and_stays_as_it_is(folder: Path) -> None:
    file = folder / "d.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(TABLE.script)
    connection.close()
    before = file.read_bytes()
    jail = Jail(size=1, folders=(str(folder),))
    try:
        found = await judged("SELECT a FROM t", "SELECT a FROM t", databases=[Database(path=str(file))], jail=jail)
        refused = await judged("DELETE FROM t", "SELECT a FROM t", databases=[Database(path=str(file))], jail=jail)
    finally:
        jail.close()
    assert (found["reward"], refused["reward"]) == (1, 0)
    assert file.read_bytes() == before


async def test_other_dialects() -> None:
    pytest.importorskip("sqlglot")
    script = "CREATE TABLE p (id SERIAL PRIMARY KEY, n VARCHAR(9)); INSERT INTO p (n) VALUES ('a'), ('b');"
    query = "SELECT SUM(id)::NUMERIC / COUNT(*) FROM p"
    found = await judged(query, query, databases=[Database(script)], dialect="postgresql")
    assert (found["reward"], found["extracted_sql"]) == (1, query)
    mysql = "CREATE TABLE p (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, m VARCHAR(9)) ENGINE=InnoDB;"
    mysql += "INSERT INTO p (m) VALUES ('a@b')"
    query = "SELECT id, SUBSTRING_INDEX(m, '@', -1) FROM p"
    assert (await judged(query, query, databases=[Database(mysql)], dialect="mysql"))["reward"] == 1
    assert (await judged("SELECT FROM WHERE )(", query, databases=[Database(mysql)], dialect="mysql"))["reward"] == 0


@pytest.mark.parametrize(
    ("reply", "query"),
    [
        ("```sql\nSELECT 1\n```\n```sql\nSELECT 2\n```", "SELECT 2"),
        ("```SQL\nSELECT 1\n```", "SELECT 1"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("```sql\nSELECT 1\n```\nIt gives:\n```\n1\n```", "SELECT 1"),
        ("  with a as (select 1) select * from a", "with a as (select 1) select * from a"),
        ("Select all of them!", "Select all of them!"),
        ("The answer is SELECT 1", None),
        ("```sql\nSELECT 1", None),
        ("", None),
        ("<think>```sql\nSELECT 1\n```</think>", None),
    ],
)
def test_where_the_query_stands(reply: str, query: str | None) -> None:
    assert query_of(reply) == query


@pytest.mark.parametrize(
    ("query", "columns", "keys"),
    [
        ("SELECT a FROM t ORDER BY a", ["a"], (0,)),
        ("SELECT a, b FROM t ORDER BY t.b DESC NULLS LAST, 1 LIMIT 3;", ["a", "b"], (1, 0)),
        ("SELECT a FROM t ORDER BY length(b)", ["a"], ()),
        ("SELECT a FROM t ORDER BY b", ["a"], ()),
        ("SELECT ')' FROM t -- (\nORDER BY \"A\"", ["a"], (0,)),
    ],
)
def test_what_a_result_is_ordered_by(query: str, columns: list[str], keys: tuple[int, ...]) -> None:
    assert is_ordered(query)
    assert order_keys(query, columns) == keys


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT a FROM (SELECT a FROM t ORDER BY a)", "SELECT 'ORDER BY a' FROM t"])
def test_what_is_not_ordered(query: str) -> None:
    assert not is_ordered(query)


def test_many_rows_that_differ_in_the_last_digits() -> None:
    rows = [(n, n / 7) for n in range(1000)]
    assert same_rows([(n, x * (1 + 1e-9)) for n, x in reversed(rows)], rows)
    assert not same_rows([(n, x * 1.01) for n, x in rows], rows)
    assert not same_rows(rows[:-1], rows)
