"""What a session changes in a company's data: the data are shared by all sessions and never change; each keeps its changes.

Two sessions end in the same state if their `changes` are equal. Neither the ids of new rows nor their order count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

KEYS = {"emails": "email_id", "events": "event_id", "tasks": "task_id", "customers": "customer_id", "plots": "plot_id"}
"""The tables that can change, with the column of their ids."""
EXACT = ("status", "list_name", "board")
"""Columns with a choice of values; letter case counts there and nowhere else."""

Change = tuple[str, ...]


@dataclass(frozen=True)
class Data:
    tables: Mapping[str, Mapping[str, Row]]
    """Table to id to row."""
    visits: Sequence[Row]
    directory: Sequence[str]
    """Addresses of the people of the company."""
    now: str
    """The time on its clocks, as in the tables."""
    known: bool = True
    """Whether the rows are there: of unknown data every id exists, and nothing is known of it."""


class Table:
    """One table as one session sees it."""

    def __init__(self, name: str, base: Mapping[str, Row]) -> None:
        self.key = KEYS[name]
        self._name = name
        self._base = base
        self._changed: dict[str, Row | None] = {}
        self._added: dict[str, Row] = {}
        self._last: int | None = None

    def get(self, id: str) -> Row | None:
        if id in self._changed:
            return self._changed[id]
        return self._added.get(id) or self._base.get(id)

    def rows(self) -> Iterator[Row]:
        for id, row in self._base.items():
            now = self._changed.get(id, row)
            if now is not None:
                yield now
        yield from self._added.values()

    def add(self, row: Row) -> str:
        """The id of the new row: eight digits, one more than any before it."""
        if self._last is None:
            self._last = max((int(id) for id in self._base), default=-1)
        self._last += 1
        id = f"{self._last:08d}"
        self._added[id] = {self.key: id, **row}
        return id

    def change(self, id: str, field: str, value: str) -> None:
        """`id` must be there."""
        row = {**(self.get(id) or {}), field: value}
        (self._added if id in self._added else self._changed)[id] = row

    def remove(self, id: str) -> None:
        if self._added.pop(id, None) is None:
            self._changed[id] = None

    def changes(self) -> Counter[Change]:
        """How it differs from the data: rows removed, fields set, rows added."""
        found: Counter[Change] = Counter()
        for id, row in self._changed.items():
            if row is None:
                found["removed", self._name, id] += 1
                continue
            before = self._base.get(id) or {}
            for field, value in row.items():
                new = _plain(field, value)
                if new != _plain(field, before.get(field)):
                    found["set", self._name, id, field, new] += 1
        for row in self._added.values():
            values = sorted((field, _plain(field, value)) for field, value in row.items() if field != self.key)
            found["added", self._name, *(text for pair in values for text in pair)] += 1
        return found


class Store:
    """All tables of one session."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.tables = {name: Table(name, data.tables.get(name, {})) for name in KEYS}

    def changes(self) -> Counter[Change]:
        return sum((table.changes() for table in self.tables.values()), Counter())


def _plain(field: str, value: Any) -> str:
    text = " ".join(str("" if value is None else value).split())
    return text if field in EXACT else text.casefold()


class _AnyId(dict[str, Row]):
    """A table of which nothing is known but that an id named in a call is there, with values that no other row has."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self._columns = columns

    def get(self, id: str, default: Any = None) -> Row:
        return {column: f"unknown {column} of {id}" for column in self._columns}


COLUMNS = {
    "emails": ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body"),
    "events": ("event_id", "event_name", "participant_email", "event_start", "duration"),
    "tasks": ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board"),
    "customers": (
        "customer_id",
        "assigned_to_email",
        "customer_name",
        "customer_email",
        "customer_phone",
        "last_contact_date",
        "product_interest",
        "status",
        "follow_up_by",
        "notes",
    ),
}
VISIT_COLUMNS = ("date_of_visit", "visitor_id", "page_views", "session_duration_seconds", "traffic_source", "user_engaged")

UNKNOWN = Data({name: _AnyId(columns) for name, columns in COLUMNS.items()}, (), (), "2023-11-30 23:59:00", known=False)
