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
from rollforge.verify.sql import Database, QueryLimits, is_ordered, keyed, order_keys, query_of, same_rows, sql
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
        ("SELECT b FROM t ORDER BY a, c", "SELECT b FROM t ORDER BY a, b DESC", 0),  # by what is not shown
        ("SELECT b FROM t ORDER BY a", "SELECT b FROM t ORDER BY a, b DESC", 1),
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
        ("SELECT a, b FROM t ORDER BY b DESC NULLS LAST, 1 LIMIT 3;", ["a", "b"], (1, 0)),
        ("SELECT u.b FROM t, u ORDER BY t.b", ["b"], ()),
        ("SELECT t.b, u.b FROM t, u ORDER BY b", ["b", "b"], ()),
        ("SELECT a FROM t ORDER BY length(b)", ["a"], ()),
        ("SELECT a FROM t ORDER BY b", ["a"], ()),
        ("SELECT ')' FROM t -- (\nORDER BY \"A\"", ["a"], (0,)),
    ],
)
def test_what_a_result_is_ordered_by(query: str, columns: list[str], keys: tuple[int, ...]) -> None:
    assert is_ordered(query)
    assert order_keys(query, columns) == keys


JOINED = "SELECT c.name, o.name FROM c JOIN o ON o.cid=c.id WHERE c.id=1"
PEOPLE = "SELECT name FROM e"
SHOP = Database(
    "CREATE TABLE c (id, name); CREATE TABLE o (cid, name, amt); CREATE TABLE e (name, pay);"
    "INSERT INTO c VALUES (1, 'Ann'), (2, 'Bo'); INSERT INTO o VALUES (1, 'lamp', 30), (1, 'desk', 12), (1, 'cup', 7);"
    "INSERT INTO e VALUES ('Zoe', 5), ('Ann', 5), ('Bo', 7), ('Cy', 5)"
)


@pytest.mark.parametrize(
    ("query", "expected", "reward"),
    [
        (JOINED, f"{JOINED} ORDER BY o.name", 0),
        (f"{JOINED} ORDER BY o.amt DESC", f"{JOINED} ORDER BY o.name", 0),
        (f"{JOINED} ORDER BY o.name, o.amt", f"{JOINED} ORDER BY o.name", 1),
        (f"{JOINED} ORDER BY o.amt", f"{JOINED} ORDER BY c.name", 1),  # all are ties
        (f"{JOINED} ORDER BY o.amt DESC", f"{JOINED} ORDER BY c.name, 2 -- by both", 0),
        (f"{PEOPLE} ORDER BY pay DESC, name", f"{PEOPLE} ORDER BY pay DESC", 1),
        (f"{PEOPLE} ORDER BY pay, name", f"{PEOPLE} ORDER BY pay DESC", 0),
        (f"{PEOPLE} ORDER BY name", f"{PEOPLE} ORDER BY pay DESC", 0),
        (f"{PEOPLE} ORDER BY pay DESC, name", f"{PEOPLE} ORDER BY -pay, length(name) > 9", 1),
        (f"{PEOPLE} ORDER BY pay DESC, name", f"{PEOPLE} ORDER BY pay DESC LIMIT 4", 1),
        (f"{PEOPLE} ORDER BY pay DESC, name", "SELECT e.name FROM e ORDER BY (SELECT MAX(pay) FROM e) - e.pay", 1),
        ("SELECT name, pay AS p FROM e ORDER BY p DESC, name", "SELECT name, pay AS p FROM e ORDER BY pay DESC", 1),
        ("SELECT name, pay AS p FROM e ORDER BY pay DESC, name", "SELECT name, pay p FROM e ORDER BY p DESC", 1),
        ("SELECT name, pay FROM e ORDER BY pay DESC, name", "SELECT name, pay FROM e ORDER BY 2 DESC", 1),
        ("SELECT name, pay FROM e ORDER BY pay DESC, name", "SELECT * FROM e ORDER BY 2 DESC", 1),
        ("SELECT name, pay FROM e ORDER BY pay DESC, name", "SELECT * FROM e ORDER BY pay DESC", 1),
        ("SELECT name, -pay FROM e ORDER BY pay DESC, name", "SELECT name, -pay AS pay FROM e ORDER BY pay", 1),
        ("SELECT name, -pay FROM e ORDER BY pay, name", "SELECT name, -pay AS pay FROM e ORDER BY pay", 0),
        # Names that change their columns.
        ("SELECT name, 1 FROM e ORDER BY pay, name", "SELECT name, 1 AS pay FROM e ORDER BY e.pay DESC", 0),
        ("SELECT pay, name FROM e ORDER BY 1, 2", "SELECT pay AS name, name AS pay FROM e ORDER BY name", 1),
        ("SELECT pay, name FROM e ORDER BY 1, 2 DESC", "SELECT pay AS name, name AS pay FROM e ORDER BY pay", 0),
        # Groups, DISTINCT, compounds, a WITH, and words in quotes.
        (
            "SELECT pay FROM e GROUP BY pay ORDER BY COUNT(*) DESC",
            "SELECT pay FROM e GROUP BY pay ORDER BY SUM(pay) DESC",
            1,
        ),
        ("SELECT pay FROM e GROUP BY pay ORDER BY pay DESC", "SELECT pay FROM e GROUP BY pay ORDER BY COUNT(*) DESC", 0),
        (
            "SELECT length(name), COUNT(*) FROM e GROUP BY 1 ORDER BY 1 DESC",
            "SELECT length(name), COUNT(*) AS n FROM e GROUP BY 1 ORDER BY n % 2",
            0,
        ),
        ("SELECT DISTINCT pay FROM e ORDER BY -pay", "SELECT DISTINCT pay FROM e ORDER BY pay DESC", 1),
        ("SELECT DISTINCT pay FROM e ORDER BY pay", "SELECT DISTINCT pay FROM e ORDER BY pay DESC", 0),
        ("SELECT DISTINCT name, pay FROM e ORDER BY 2, 1", "SELECT DISTINCT name, pay AS p FROM e ORDER BY p", 1),
        ("SELECT DISTINCT name FROM e ORDER BY name", "SELECT DISTINCT name FROM e ORDER BY name > 'B'", 1),
        (
            "SELECT name, pay FROM e ORDER BY pay, name",
            "SELECT name, pay FROM e WHERE pay > 5 UNION ALL SELECT name, pay FROM e WHERE pay = 5 ORDER BY pay",
            1,
        ),
        (
            "SELECT name, pay FROM e ORDER BY name",
            "SELECT name, pay FROM e WHERE pay > 5 UNION ALL SELECT name, pay FROM e WHERE pay = 5 ORDER BY pay",
            0,
        ),
        (
            f"{PEOPLE} ORDER BY pay, name",
            "WITH f AS (SELECT * FROM e ORDER BY name DESC) SELECT name FROM f WHERE 'a, FROM b -- c' > '' ORDER BY pay",
            1,
        ),
        (f"{PEOPLE} ORDER BY pay", f"{PEOPLE} WHERE name NOT LIKE '%--%' ORDER BY pay DESC", 0),
        (f"{PEOPLE} ORDER BY lower(name)", f"{PEOPLE} ORDER BY name COLLATE NOCASE", 1),
        (
            "SELECT name, RANK() OVER (ORDER BY pay) AS r FROM e ORDER BY r, name",
            "SELECT name, RANK() OVER (ORDER BY pay) AS r FROM e ORDER BY r",
            1,
        ),
    ],
)
async def test_only_ties_may_stand_in_any_order(query: str, expected: str, reward: float) -> None:
    assert (await judged(query, expected, databases=[SHOP]))["reward"] == reward


@pytest.mark.parametrize(
    ("query", "more"),
    [
        ("SELECT a FROM t ORDER BY b, f(c, 1)", ("SELECT a , (b), (f(c, 1)) FROM t ORDER BY b, f(c, 1)", 2)),
        ("SELECT DISTINCT a b FROM t ORDER BY B", ("SELECT DISTINCT a b , (a) FROM t ORDER BY B", 1)),
        ("SELECT a IS DISTINCT FROM b FROM t ORDER BY a", ("SELECT a IS DISTINCT FROM b , (a) FROM t ORDER BY a", 1)),
        ("SELECT ', FROM' FROM t ORDER BY 1", ("SELECT ', FROM' , (', FROM') FROM t ORDER BY 1", 1)),
        ("SELECT *, a FROM t ORDER BY 2", None),
        ("SELECT a FROM t UNION SELECT a FROM u ORDER BY a", None),
        ("VALUES (1) ORDER BY 1", None),
        ("SELECT a FROM t", None),
    ],
)  # fmt: skip
def test_what_a_query_is_ordered_by_as_columns(query: str, more: tuple[str, int] | None) -> None:
    found = keyed(query)
    assert (found and (" ".join(found[0].split()), found[1])) == more


def test_fewer_columns_are_another_result() -> None:
    assert not same_rows([(1,), (2,)], [(1, 2), (2, 3)], order=True, ties=[(1,), (2,)])
    assert same_rows([(2,), (1,)], [(1,), (2,)], order=True, ties=[(0,), (0,)])


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT a FROM (SELECT a FROM t ORDER BY a)", "SELECT 'ORDER BY a' FROM t"])
def test_what_is_not_ordered(query: str) -> None:
    assert not is_ordered(query)


def test_many_rows_that_differ_in_the_last_digits() -> None:
    rows = [(n, n / 7) for n in range(1000)]
    assert same_rows([(n, x * (1 + 1e-9)) for n, x in reversed(rows)], rows)
    assert not same_rows([(n, x * 1.01) for n, x in rows], rows)
    assert not same_rows(rows[:-1], rows)
