"""Questions about a database: one reply with a query, judged by what it returns (`verify.sql`).

Its own tasks are judged on two databases that the policy has not seen. Rows of NeMo Gym's `text_to_sql` are judged by
running both queries on their `sql_context`; those of `bird_sql` need BIRD's databases, in the folder that
ROLLFORGE_SQL_DATABASES names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollforge.envs.jailed import jailed
from rollforge.envs.sql.tasks import tasks
from rollforge.errors import SetupError, VerifierFault
from rollforge.sandbox.jail import shared
from rollforge.verify.sql import Compare, Database
from rollforge.verify.sql import sql as judge

DATABASES = "ROLLFORGE_SQL_DATABASES"
"""The folder of BIRD's databases: `<db_id>/<db_id>.sqlite` in it."""


def solve(**row: Any) -> str | None:
    query = row.get("sql") or row.get("gt_sql")
    return query and f"```sql\n{query}\n```"


@jailed(name="sql", tasks=tasks, solve=solve)
async def sql(
    reply: str,
    sql: str | None = None,
    gt_sql: str | None = None,
    databases: Sequence[str] = (),
    sql_context: str = "",
    sql_dialect: str = "sqlite",
    db_id: str | None = None,
    compare: Compare = "auto",
) -> dict[str, Any]:
    """Answer a question about a database by a query."""
    expected = sql or gt_sql
    if not expected:
        raise VerifierFault("the row has neither sql nor gt_sql: no expected query")
    if gt_sql and db_id:
        file = _file(db_id)
        return await judge(reply, expected, [Database(path=str(file))], compare="set", jail=shared((str(file.parent),)))
    scripts = databases or ([sql_context] if sql_context else [])
    if not scripts:
        raise VerifierFault("the row has neither databases nor sql_context: nothing to run the query on")
    return await judge(reply, expected, [Database(one) for one in scripts], compare=compare, dialect=sql_dialect.lower())


def _file(db_id: str) -> Path:
    folder = os.environ.get(DATABASES)
    if not folder:
        raise SetupError(f"the row asks for the database {db_id!r}: set {DATABASES} to the folder of BIRD's databases")
    if db_id != Path(db_id).name:
        raise VerifierFault(f"{db_id!r} is no name of a database")
    file = Path(folder).resolve() / db_id / f"{db_id}.sqlite"
    if file.is_relative_to("/tmp"):
        raise SetupError(f"{DATABASES} is in /tmp, where each program of the sandbox has its own files: move the folder")
    if not file.is_file():
        raise VerifierFault(f"there is no database {file}")
    return file
