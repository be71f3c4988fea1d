"""What the tools of the workplace share: the tables of a session, deleting and changing a row, checks, forms of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import WithJsonSchema

from rollforge.envs.workplace.company import BOARDS, LISTS, PRODUCTS, STATUSES
from rollforge.envs.workplace.store import COLUMNS, Row, Store, Table
from rollforge.errors import VerifierFault

# Models send null for what they leave out; the schema need not say so. With a default of None it would.
Text = Annotated[str | None, WithJsonSchema({"type": "string"})]
Count = Annotated[int | None, WithJsonSchema({"type": "integer"})]
LEFT_OUT: Any = ()


class Desk:
    """What all tools share: the tables of the session."""

    store: Store
    used = False
    """Whether a tool was called in this session."""
    replaying = False

    def _table(self, name: str) -> Table:
        self.used = True
        if not self.store.data.known and not self.replaying:
            raise VerifierFault(
                "the row speaks of a company whose data are not here (it has no `company`): set ROLLFORGE_WORKPLACE_DATA to"
                " the folder with its data, such as csv_data of NeMo Gym's workplace_assistant"
            )
        return self.store.tables[name]

    def _people(self) -> Iterable[str]:
        self._table("tasks")
        return self.store.data.directory

    def _row(self, table: str, id: str, what: str) -> Row:
        row = self._table(table).get(id)
        if row is None:
            raise ValueError(f"{what} not found.")
        return row

    def _information(self, table: str, id: str, field: str, what: str) -> Row:
        row = self._row(table, id, what)
        if field not in row:
            raise ValueError(f"there is no field {field!r:.60}; the fields are: {', '.join(row)}")
        return output({field: row[field]})

    def _delete(self, table: str, id: str, what: str) -> Row:
        self._row(table, id, what)
        self._table(table).remove(id)
        return output(f"{what} deleted successfully.")

    def _update(self, table: str, id: str, field: str, value: str, what: str) -> Row:
        allowed = COLUMNS[table][1:]
        if field not in allowed:
            raise ValueError(f"{field!r:.60} cannot be set; the fields are: {', '.join(allowed)}")
        needed(new_value=value)
        if field == "assigned_to_email" and table == "tasks":
            self._check_team(value)
        if field in _CHECKS:
            value = _CHECKS[field](value)
        self._row(table, id, what)
        self._table(table).change(id, field, value)
        return output(f"{what} updated successfully.")

    def _check_team(self, address: str) -> None:
        """Tasks go to people who have one, as far as that is known."""
        team = {str(row["assigned_to_email"]).lower() for row in self._table("tasks").rows()}
        if self.store.data.known and address.lower() not in team:
            raise ValueError(f"{address!r:.80} is not in the team: nobody of that address has a task")


def output(value: Any) -> Row:
    return {"output": value}


def paged(name: str, rows: list[Row], page: int | None, size: int | None) -> Row:
    if not rows:
        return output(f"No {name} found.")
    size = max(1, size or 5)
    pages = -(-len(rows) // size)
    page = max(1, min(page or 1, pages))
    numbers = {f"total_{name}": len(rows), "page": page, "page_size": size, "total_pages": pages}
    return output({name: rows[(page - 1) * size : page * size], "pagination": numbers})


def containing(rows: Iterable[Row], parts: dict[str, str | None]) -> list[Row]:
    wanted = {field: part.casefold() for field, part in parts.items() if part}
    return [row for row in rows if all(part in str(row[field] or "").casefold() for field, part in wanted.items())]


def needed(**given: str) -> None:
    for name, value in given.items():
        if not value.strip():
            raise ValueError(f"{name} is empty")


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{name} {value!r:.60} is none of {', '.join(known)}")
    return value


def a_time(text: str, name: str) -> str:
    """A time as the tables have it."""
    try:
        return f"{datetime.fromisoformat(text.strip()).replace(tzinfo=None):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        raise ValueError(f"{name} {text!r:.60} is no time; write it as YYYY-MM-DD HH:MM:SS") from None


def a_day(text: str, name: str) -> str:
    return a_time(text, name)[:10]


def minutes(text: str) -> str:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and int(digits)):
        raise ValueError(f"duration {text!r:.60} is no number of minutes")
    return str(int(digits))


_CHECKS: dict[str, Callable[[str], str]] = {
    "event_start": lambda value: a_time(value, "event_start"),
    "duration": minutes,
    "due_date": lambda value: a_day(value, "due_date"),
    "participant_email": str.lower,
    "assigned_to_email": str.lower,
    "customer_email": str.lower,
    "list_name": lambda value: one_of("list_name", value, LISTS),
    "board": lambda value: one_of("board", value, BOARDS),
    "status": lambda value: one_of("status", value, STATUSES),
    "product_interest": lambda value: one_of("product_interest", value, PRODUCTS),
}
