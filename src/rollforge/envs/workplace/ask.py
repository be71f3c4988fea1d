"""What makers of tasks share: a company as they see it, calls of a solution, days and free times as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

from rollforge.envs.workplace.company import PARTS, days
from rollforge.envs.workplace.store import Data, Row
from rollforge.records.items import Json
from rollforge.records.lossless import dumps

OPENS, CLOSES = 9, 18


@dataclass(frozen=True)
class Ask:
    text: str
    calls: list[Json]
    """What leads to the goal, the looking up included."""


@dataclass(frozen=True)
class Office:
    """A company, as the maker of a task sees it: it may look at everything."""

    data: Data
    rng: Random

    def rows(self, table: str, **fields: object) -> list[Row]:
        return [row for row in self.data.tables[table].values() if all(row[name] == value for name, value in fields.items())]

    def person(self, *others: str) -> str:
        """An address."""
        return self.rng.choice([person for person in self.data.directory if person not in others])

    def received(self, sender: str | None = None, since: str = "") -> list[Row]:
        found = self.rows("emails", **{"inbox/outbox": "inbox"}, **({"sender/recipient": sender} if sender else {}))
        return sorted((row for row in found if row["sent_datetime"] >= since), key=lambda row: str(row["sent_datetime"]))

    def events(self, day: date) -> list[Row]:
        found = [row for row in self.rows("events") if row["event_start"].startswith(f"{day:%F}")]
        return sorted(found, key=lambda row: str(row["event_start"]))

    def workday(self, first: int = 1, last: int = 24) -> date:
        return self.rng.choice(list(days(first, last)))


def call(name: str, /, **arguments: Any) -> Json:
    return {"name": name, "arguments": dumps(arguments).decode()}


def set_field(name: str, key: str, row: Row, field: str, value: str) -> Json:
    return call(name, **{key: row[key]}, field=field, new_value=value)


def find(person: str) -> Json:
    return call("company_directory_find_email_address", name=first_name(person))


def mail_to(person: str, subject: str, body: str) -> Json:
    return call("email_send_email", recipient=person, subject=subject, body=body)


def day_of(day: date) -> Json:
    times = {"time_min": f"{day:%F} 00:00:00", "time_max": f"{day:%F} 23:59:59"}
    return call("calendar_search_events", **times, page_size=30)


def part_of(letters: Sequence[Row]) -> str:
    """What the first of the letters is about."""
    return next((part for part in PARTS if letters and part in letters[0]["subject"]), "")


def first_name(address: str) -> str:
    return address.partition(".")[0].capitalize()


def said(day: date) -> str:
    return f"{day:%A}, {day:%B} {day.day}"


def free_slot(events: Sequence[Row], day: date, minutes: int) -> datetime | None:
    """The earliest full or half hour of the working day at which that many minutes are free."""
    taken = []
    for event in events:
        start = datetime.fromisoformat(event["event_start"])
        taken.append((start, start + timedelta(minutes=int(event["duration"]))))
    start = datetime(day.year, day.month, day.day, OPENS)
    while start + timedelta(minutes=minutes) <= datetime(day.year, day.month, day.day, CLOSES):
        end = start + timedelta(minutes=minutes)
        if all(end <= first or last <= start for first, last in taken):
            return start
        start += timedelta(minutes=30)
    return None
