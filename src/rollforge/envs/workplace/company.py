"""Where the data of a company come from: made from a number, or read from a folder of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random

from rollforge.envs.workplace.store import COLUMNS, VISIT_COLUMNS, Data, Row
from rollforge.errors import VerifierFault

NOW = datetime(2025, 3, 13, 17, 45)
"""A Thursday."""
TODAY = NOW.date()
DOMAIN = "larkfield.example"
LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
STATUSES = ("Qualified", "Won", "Lost", "Lead", "Proposal")
PRODUCTS = ("Software", "Hardware", "Services", "Consulting", "Training")
SOURCES = ("direct", "referral", "search engine", "social media")

# Nobody shares a first name, and no name is part of another: a first name alone says who is meant.
PEOPLE = """
Amara Okafor, Bruno Keller, Celeste Roy, Dagny Holm, Emeka Eze, Farida Noor, Giulio Conti, Hana Sasaki, Ingrid Dahl,
Jorge Prado, Kavya Nair, Lorenz Vogt, Mirela Popa, Nuno Faria, Oksana Hlib, Pilar Soto, Quentin Marsh, Rashid Aziz,
Sunniva Berg, Tadeo Luna, Ulrike Brandt, Viktor Zeman, Wendell Pike, Yusra Haddad
""".replace("\n", " ").split(",")
CLIENT_FIRST = """
Abel Blythe Corin Della Edmund Fern Gideon Hollis Isolde Jasper Kit Lowell Maren Nell Orla Perry
""".split()  # noqa: SIM905
CLIENT_LAST = """
Ashdown Birch Calloway Draper Ellery Fenwick Garrow Hale Ivory Jessop Kemble Larch Moreland Nash
""".split()  # noqa: SIM905
CLIENT_FIRMS = ("brightmill", "coralworks", "deltaforge", "evenwood", "firthline", "greyharbor", "hilltop-labs")
WORK = ("Write tests for", "Fix bug in", "Refactor", "Document", "Review design of", "Speed up", "Add logging to", "Plan")
PARTS = (
    """
login page, search index, export dialog, billing service, photo gallery, report builder, map view, message queue,
settings panel, payment form, news feed, backup job, help center, price table
""".replace("\n", " ")
    .strip()
    .split(", ")
)
MEETINGS = (
    """
Budget review, Design critique, Hiring interview, Launch rehearsal, Planning session, Quarterly outlook, Release check,
Risk workshop, Supplier call, Team lunch, Training hour, Vendor demo
""".replace("\n", " ")
    .strip()
    .split(", ")
)
LETTERS = (
    ("Status of {}", "The work on the {} goes well; I expect to finish it this week."),
    ("Question about {}", "Could you tell me who decides on the {}? I would like to go on with it."),
    ("Delay of {}", "The {} takes longer than planned. Can we talk about the dates?"),
    ("Notes on {}", "I wrote down what we said about the {}. Please have a look when you find time."),
)


@lru_cache(8)
def company(number: int) -> Data:
    """The company of that number: the same people and habits, other letters, meetings, tasks, customers and visits."""
    rng = Random(f"workplace {number}")
    people = [".".join(name.lower().split()) + f"@{DOMAIN}" for name in PEOPLE]
    tables = {
        "emails": list(_emails(rng, people)),
        "events": list(_events(rng, people)),
        "tasks": list(_tasks(rng, people)),
        "customers": list(_customers(rng, people)),
    }
    return Data(
        {name: _numbered(rng, name, rows) for name, rows in tables.items()}, list(_visits(rng)), people, f"{NOW:%F %T}"
    )


@lru_cache(4)
def read_company(folder: str) -> Data:
    """Data in the layout of NeMo Gym's `csv_data`: `processed/` with the tables, `raw/email_addresses.csv`.

    Raises `VerifierFault`: a file that is not there, or has not the columns.
    """
    processed = Path(folder) / "processed"
    files = {"emails": "emails", "events": "calendar_events", "tasks": "project_tasks"}
    files["customers"] = "customer_relationship_manager_data"
    tables = {}
    for name, file in files.items():
        columns = COLUMNS[name]
        rows = _read(processed / f"{file}.csv", columns)
        tables[name] = {str(row[columns[0]]): row for row in rows}
        odd = next((id for id in tables[name] if not (id.isascii() and id.isdigit())), None)
        if odd is not None:
            raise VerifierFault(f"{processed / file}.csv: the {columns[0]} {odd!r:.60} is no number")
    visits = list(_read(processed / "analytics_data.csv", VISIT_COLUMNS))
    for visit in visits:
        visit["user_engaged"] = visit["user_engaged"] == "True"
    people = _read(Path(folder) / "raw" / "email_addresses.csv", ("address",), header=False)
    return Data(tables, visits, [str(row["address"]) for row in people], "2023-11-30 23:59:00")


def days(first: int, last: int) -> Iterator[date]:
    """The working days from `first` to `last`, in days from today."""
    for distance in range(first, last + 1):
        day = TODAY + timedelta(distance)
        if day.weekday() < 5:
            yield day


def _read(file: Path, columns: tuple[str, ...], header: bool = True) -> list[Row]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows: list[Row] = [dict(row) for row in csv.DictReader(lines, None if header else columns)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VerifierFault(f"the company's data cannot be read: {error}") from error
    if rows and set(rows[0]) != set(columns):
        raise VerifierFault(f"{file} has the columns {', '.join(map(str, rows[0]))}; expected {', '.join(columns)}")
    return [{column: value or None for column, value in row.items()} for row in rows]


def _numbered(rng: Random, name: str, rows: list[Row]) -> dict[str, Row]:
    """By id. Ids say nothing of the order."""
    ids = [f"{number:08d}" for number in range(len(rows))]
    rng.shuffle(ids)
    return {id: {COLUMNS[name][0]: id, **row} for id, row in zip(ids, rows, strict=True)}


def _emails(rng: Random, people: list[str]) -> Iterator[Row]:
    minutes = sorted(rng.sample(range(1, 70 * 24 * 60), 420), reverse=True)
    for ago in minutes:
        person, part = rng.choice(people), rng.choice(PARTS)
        subject, body = rng.choice(LETTERS)
        yield {
            "inbox/outbox": rng.choice(("inbox", "inbox", "outbox")),
            "sender/recipient": person,
            "subject": subject.format(part),
            "sent_datetime": f"{NOW - timedelta(minutes=ago):%F %T}",
            "body": body.format(part),
        }


def _events(rng: Random, people: list[str]) -> Iterator[Row]:
    for day in days(-45, 30):
        start = datetime(day.year, day.month, day.day, 9) + timedelta(minutes=30 * rng.randint(0, 3))
        while True:
            length = rng.choice((30, 30, 60, 90))
            if start + timedelta(minutes=length) > datetime(day.year, day.month, day.day, 18):
                break
            yield {
                "event_name": rng.choice(MEETINGS),
                "participant_email": rng.choice(people),
                "event_start": f"{start:%F %T}",
                "duration": str(length),
            }
            start += timedelta(minutes=length + 30 * rng.randint(0, 4))


def _tasks(rng: Random, people: list[str]) -> Iterator[Row]:
    team = {board: rng.sample(people, 7) for board in BOARDS}
    due = list(days(-20, 25))
    names = [f"{work} {part}" for work in WORK for part in PARTS]
    rng.shuffle(names)
    for name in names:
        board = rng.choice(BOARDS)
        yield {
            "task_name": name,
            "assigned_to_email": rng.choice(team[board]),
            "list_name": rng.choice(LISTS),
            "due_date": f"{rng.choice(due):%F}",
            "board": board,
        }


def _customers(rng: Random, people: list[str]) -> Iterator[Row]:
    sellers = rng.sample(people, 6)
    names = [f"{first} {last}" for first in CLIENT_FIRST for last in CLIENT_LAST]
    for name in rng.sample(names, 170):
        contact = TODAY - timedelta(rng.randint(1, 70))
        yield {
            "assigned_to_email": rng.choice(sellers),
            "customer_name": name,
            "customer_email": f"{'.'.join(name.lower().split())}@{rng.choice(CLIENT_FIRMS)}.example",
            "customer_phone": rng.choice((None, f"555-01{rng.randint(10, 99)}")),
            "last_contact_date": f"{contact:%F}",
            "product_interest": rng.choice(PRODUCTS),
            "status": rng.choice(STATUSES),
            "follow_up_by": f"{TODAY + timedelta(rng.randint(1, 40)):%F}",
            "notes": f"{contact:%F}: {rng.choice(('Had a call.', 'Saw the demo.', 'Met at a fair.', 'Asked for prices.'))}",
        }


def _visits(rng: Random) -> Iterator[Row]:
    for number in rng.sample(range(10_000), 900):
        yield {
            "date_of_visit": f"{TODAY - timedelta(rng.randint(1, 60)):%F}",
            "visitor_id": f"{number:04d}",
            "page_views": str(rng.randint(1, 20)),
            "session_duration_seconds": str(rng.randint(2, 900)),
            "traffic_source": rng.choice(SOURCES),
            "user_engaged": rng.random() < 0.4,
        }
