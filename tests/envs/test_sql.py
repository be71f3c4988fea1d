"""The sql environment: its questions, and rows in the shapes found in the wild."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rollforge.envs.jailed import JailedEnv
from rollforge.envs.sql import DATABASES, sql
from rollforge.errors import SetupError, VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of
from tests.jails import isolated

__all__ = ["isolated"]

SCRIPT = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y');"


@pytest.fixture
async def env(isolated: None) -> AsyncIterator[JailedEnv]:
    yield sql
    await sql.aclose()


async def test_rows_of_text_to_sql(env: JailedEnv) -> None:
    row = task(uuid="1", sql="SELECT b FROM t WHERE a = 2", sql_dialect="sqlite", sql_context=SCRIPT, sql_prompt="Which?")
    assert (await attempt(env, row, "```sql\nSELECT b FROM t WHERE a > 1\n```")).reward == 1
    assert (await attempt(env, row, "```sql\nSELECT b FROM t\n```")).reward == 0
    assert (await attempt(env, row, "```sql\nSELECT 'y'\n```")).fields["failure"] == "the query reads no table"
    assert (await solved(env, row)).reward == 1


@pytest.fixture
def databases() -> Iterator[str]:
    """Not in /tmp: there every program has its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder, "shop").mkdir()
        Path(folder).chmod(0o755)
        with sqlite3.connect(Path(folder, "shop", "shop.sqlite")) as connection:
            connection.executescript(SCRIPT)
        connection.close()
        yield folder


async def test_rows_of_bird(env: JailedEnv, databases: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = task(question="?", gt_sql="SELECT b FROM t ORDER BY a", sql_context="CREATE ...", db_id="shop", id=0)
    monkeypatch.delenv(DATABASES, raising=False)
    with pytest.raises(SetupError, match=DATABASES):
        await attempt(env, row, "```sql\nSELECT b FROM t\n```")
    monkeypatch.setenv(DATABASES, databases)
    assert (await attempt(env, row, "```sql\nSELECT b FROM t ORDER BY a DESC -- any order\n```")).reward == 1
    assert (await attempt(env, row, "```sql\nSELECT a FROM t\n```")).reward == 0
    assert (await attempt(env, row, "no query")).reward == 0
    for name in ("other", "../shop"):
        with pytest.raises(VerifierFault, match=name):
            await attempt(env, task(gt_sql="SELECT 1", db_id=name), "```sql\nSELECT 1\n```")


@pytest.mark.parametrize("row", [{}, {"sql": "SELECT 1"}, {"sql_context": SCRIPT}])
async def test_rows_that_cannot_be_judged(env: JailedEnv, row: dict[str, str]) -> None:
    with pytest.raises(VerifierFault):
        await attempt(env, task(**row), "```sql\nSELECT a FROM t\n```")


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
async def test_every_expected_query_gets_full_marks(env: JailedEnv, level: str) -> None:
    for one in tasks_of(env, n=16, level=level):
        assert (await solved(env, one)).reward == 1


def test_the_databases_differ_where_it_matters() -> None:
    """What a query returns on one is no answer on the other, and what is in the prompt is neither."""
    for one in tasks_of(sql, n=80):
        results = []
        for script in one.fields["databases"]:
            connection = sqlite3.connect(":memory:")
            connection.executescript(script)
            results.append(connection.execute(one.fields["sql"]).fetchall())
            connection.close()
        assert len(results) == 2
        assert results[0] != results[1]
        assert all(results)
        assert not any(script in str(one.params["input"]) for script in one.fields["databases"])
