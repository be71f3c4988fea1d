"""Tasks of the sql environment: four small databases, questions from templates, the expected query with each.

A task is judged on two databases of the same tables with other rows than those in the prompt, on which the expected query
returns different results: an answer that was read off the prompt is of no use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json


@dataclass(frozen=True, slots=True)
class World:
    """Words for the same three tables: who, what, and who did how much of what when."""

    people: str
    items: str
    links: str
    group: str
    """What kind an item is of."""
    price: str
    amount: str
    did: str
    things: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def person(self) -> str:
        return self.people[:-1]

    @property
    def item(self) -> str:
        return self.items[:-1]


WORLDS = {
    "shop": World(
        *("customers", "products", "purchases", "category", "price", "quantity", "bought"),
        things=("lamp", "kettle", "desk", "chair", "mug", "rug", "clock", "shelf", "vase", "fan", "stool", "towel"),
        groups=("kitchen", "office", "bedroom", "garden"),
    ),
    "library": World(
        *("members", "books", "loans", "genre", "fee", "days", "borrowed"),
        things=("Harbour", "Winter", "Atlas", "Orchid", "Lantern", "River", "Ember", "Signal", "Garden", "Comet", "Mirror"),
        groups=("novel", "travel", "science", "poetry"),
    ),
    "gym": World(
        *("athletes", "courses", "visits", "sport", "cost", "minutes", "attended"),
        things=("Sunrise", "Power", "Balance", "Core", "Sprint", "Flow", "Summit", "Circuit", "Rhythm", "Stretch", "Punch"),
        groups=("yoga", "boxing", "swimming", "climbing"),
    ),
    "farm": World(
        *("workers", "fields", "harvests", "crop", "size", "crates", "harvested"),
        things=("Northmead", "Lowfield", "Hilltop", "Brook", "Longacre", "Marsh", "Oakside", "Stony", "Eastend", "Millside"),
        groups=("apples", "beets", "barley", "grapes"),
    ),
}
NAMES = """
Ada Ben Cleo Dan Eva Finn Gia Hugo Ida Jon Kim Lea Max Nora Otto Pia Quinn Rosa Sam Tess Uma Vic Wes Yara Zoe
""".split()  # noqa: SIM905
CITIES = ("Bergen", "Lyon", "Porto", "Turku", "Graz")
SHOWN = 3
TRIES = 20

Question = tuple[str, str]
"""What is asked, and the query that answers it."""


@generated("sql", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, sql, databases, kind, level}`. Kinds are what the database is about: shop, library, gym, farm. Level:
    one table; joins and groups; comparisons of groups, windows."""
    return {name: _maker(world) for name, world in WORLDS.items()}


def _maker(world: World) -> Callable[[Random, int], tuple[str, Json]]:
    def make(rng: Random, level: int) -> tuple[str, Json]:
        databases: list[str] = []
        while len(databases) < 2:
            ask, query = rng.choice(QUESTIONS[level])(rng, world)
            databases = _databases(rng, world, query)
        shown = "\n".join(_samples(world, _script(rng, world)))
        prompt = (
            f"An SQLite database has these tables:\n\n{_schema(world)}\n\nSome of its rows, as an example:\n\n{shown}\n\n"
            f"{ask}\n\nAnswer by one query that works for any rows, in a block that begins with ```sql and ends with ```."
        )
        return ask, {"prompt": prompt, "sql": query, "databases": databases}

    return make


def _databases(rng: Random, world: World, query: str) -> list[str]:
    """Two on which the query returns something, and not the same."""
    found: list[tuple[str, list[Any]]] = []
    for _ in range(TRIES):
        script = _script(rng, world)
        rows = _result(script, query)
        if rows and all(rows != others for _, others in found):
            found.append((script, rows))
        if len(found) == 2:
            break
    return [script for script, _ in found]


def _result(script: str, query: str) -> list[Any]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(script)
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _schema(world: World) -> str:
    w = world
    return (
        f"CREATE TABLE {w.people} (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, city TEXT, joined INTEGER NOT NULL);\n"
        f"CREATE TABLE {w.items} (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, {w.group} TEXT NOT NULL, "
        f"{w.price} INTEGER NOT NULL);\n"
        f"CREATE TABLE {w.links} (id INTEGER PRIMARY KEY, {w.person}_id INTEGER NOT NULL REFERENCES {w.people}(id), "
        f"{w.item}_id INTEGER NOT NULL REFERENCES {w.items}(id), day TEXT NOT NULL, {w.amount} INTEGER NOT NULL);"
    )


def _script(rng: Random, world: World) -> str:
    people, things = rng.sample(NAMES, rng.randint(9, 14)), rng.sample(world.things, rng.randint(7, 10))
    rows = [_insert(world.people, (i, name, _city(rng), rng.randint(2015, 2024))) for i, name in enumerate(people, 1)]
    rows += [
        _insert(world.items, (i, name, rng.choice(world.groups), rng.randint(3, 60))) for i, name in enumerate(things, 1)
    ]
    for i in range(1, rng.randint(30, 45)):
        day = f"2024-{rng.randint(1, 6):02}-{rng.randint(1, 28):02}"
        # Some never do anything.
        who, what = rng.randint(1, len(people) - 2), rng.randint(1, len(things) - 1)
        rows.append(_insert(world.links, (i, who, what, day, rng.randint(1, 9))))
    return "\n".join((_schema(world), *rows))


def _city(rng: Random) -> str | None:
    return rng.choice(CITIES) if rng.random() < 0.88 else None


def _insert(table: str, values: tuple[Any, ...]) -> str:
    shown = ("NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value) for value in values)
    return f"INSERT INTO {table} VALUES ({', '.join(shown)});"


def _samples(world: World, script: str) -> list[str]:
    lines = script.splitlines()
    return [
        line
        for table in (world.people, world.items, world.links)
        for line in [line for line in lines if line.startswith(f"INSERT INTO {table} ")][:SHOWN]
    ]


def _joined(w: World) -> str:
    return f"{w.people} AS p JOIN {w.links} AS l ON l.{w.person}_id = p.id JOIN {w.items} AS i ON i.id = l.{w.item}_id"


def _from_city(rng: Random, w: World) -> Question:
    city, year = rng.choice(CITIES), rng.randint(2016, 2023)
    side, sign = rng.choice((("or later", ">="), ("or earlier", "<=")))
    ask = f"Which {w.people} from {city} joined in {year} {side}? Give their names in alphabetical order."
    return ask, f"SELECT name FROM {w.people} WHERE city = '{city}' AND joined {sign} {year} ORDER BY name"


def _costing(rng: Random, w: World) -> Question:
    low = rng.randint(10, 40)
    group = rng.choice(w.groups)
    ask = (
        f"Which {w.items} have a {w.price} of at least {low} or the {w.group} {group}? Give name and {w.price}, the highest "
        f"{w.price} first; those with the same {w.price} by name."
    )
    query = f"SELECT name, {w.price} FROM {w.items} WHERE {w.price} >= {low} OR {w.group} = '{group}'"
    return ask, f"{query} ORDER BY {w.price} DESC, name"


def _how_many(rng: Random, w: World) -> Question:
    month, least = rng.randint(1, 6), rng.randint(1, 6)
    ask = f"In how many of the {w.links} of month {month} of 2024 was the number of {w.amount} at least {least}?"
    return ask, f"SELECT COUNT(*) FROM {w.links} WHERE day LIKE '2024-{month:02}-%' AND {w.amount} >= {least}"


def _without_city(rng: Random, w: World) -> Question:
    year = rng.randint(2017, 2024)
    ask = f"Which {w.people} have no city, or joined in {year}? Give name and city, in any order."
    return ask, f"SELECT name, city FROM {w.people} WHERE city IS NULL OR joined = {year}"


def _totals(rng: Random, w: World) -> Question:
    month = rng.randint(2, 6)
    ask = (
        f"How many {w.amount} in all does each of the {w.people} have in the {w.links} up to the end of month {month} of "
        "2024? Give name and number, 0 where there are none."
    )
    join = f"LEFT JOIN {w.links} AS l ON l.{w.person}_id = p.id AND l.day < '2024-{month + 1:02}'"
    return ask, f"SELECT p.name, COALESCE(SUM(l.{w.amount}), 0) FROM {w.people} AS p {join} GROUP BY p.id"


def _averages(rng: Random, w: World) -> Question:
    least = rng.randint(2, 3)
    bound = rng.randint(5, 30)
    ask = (
        f"Of the {w.items} with a {w.price} above {bound}: for each {w.group} that has at least {least} of them, what is "
        f"the average {w.price}? Give {w.group} and average, not rounded."
    )
    query = f"SELECT {w.group}, AVG({w.price}) FROM {w.items} WHERE {w.price} > {bound} GROUP BY {w.group}"
    return ask, f"{query} HAVING COUNT(*) >= {least}"


def _never(rng: Random, w: World) -> Question:
    city, month = rng.choice(CITIES), rng.randint(1, 5)
    ask = (
        f"Which {w.items} were never {w.did} after month {month} of 2024 by anyone from {city}? Give their names in "
        "alphabetical order."
    )
    inner = f"SELECT 1 FROM {w.links} AS l JOIN {w.people} AS p ON p.id = l.{w.person}_id WHERE l.{w.item}_id = i.id"
    inner += f" AND p.city = '{city}' AND l.day >= '2024-{month + 1:02}'"
    return ask, f"SELECT i.name FROM {w.items} AS i WHERE NOT EXISTS ({inner}) ORDER BY i.name"


def _top(rng: Random, w: World) -> Question:
    n, group = rng.randint(2, 5), rng.choice(w.groups)
    ask = (
        f"Which {n} {w.people} have the most {w.amount} in all in {w.links} of the {w.group} {group}? Give name and "
        "number, the most first; where the numbers are equal, by name."
    )
    query = f"SELECT p.name, SUM(l.{w.amount}) AS total FROM {_joined(w)} WHERE i.{w.group} = '{group}'"
    return ask, f"{query} GROUP BY p.id ORDER BY total DESC, p.name LIMIT {n}"


def _best_of_city(rng: Random, w: World) -> Question:
    year = rng.randint(2015, 2019)
    ask = (
        f"Multiply {w.amount} by {w.price} for each of the {w.links}, and add up the products for each {w.person} who "
        f"joined in {year} or later. Who has the largest sum in each city? Give city, name and sum; all who share the first "
        "place, and none who has no city or did nothing."
    )
    sums = f"SELECT p.city AS city, p.name AS name, SUM(l.{w.amount} * i.{w.price}) AS total FROM {_joined(w)}"
    sums += f" WHERE p.city IS NOT NULL AND p.joined >= {year} GROUP BY p.id"
    ranked = f"SELECT *, RANK() OVER (PARTITION BY city ORDER BY total DESC) AS place FROM ({sums})"
    return ask, f"SELECT city, name, total FROM ({ranked}) WHERE place = 1"


def _running(rng: Random, w: World) -> Question:
    group = rng.choice(w.groups)
    other = rng.choice([name for name in w.groups if name != group])
    ask = (
        f"For each month in which {w.items} of the {w.group} {group} or {other} were {w.did}: how many {w.amount} of these "
        "were there up to the end of the month, since the beginning? Give month (as 2024-01) and number, in order of time."
    )
    months = f"SELECT substr(l.day, 1, 7) AS month, SUM(l.{w.amount}) AS total FROM {_joined(w)}"
    months += f" WHERE i.{w.group} IN ('{group}', '{other}') GROUP BY month"
    return ask, f"SELECT month, SUM(total) OVER (ORDER BY month) FROM ({months}) ORDER BY month"


def _above_average(rng: Random, w: World) -> Question:
    factor = rng.choice((1, 2))
    first = rng.randint(1, 4)
    above = "" if factor == 1 else f"{factor} times "
    ask = (
        f"Count the {w.amount} in {w.links} from month {first} of 2024 on. Which {w.people} have more in all than {above}"
        f"the average over all {w.people}, those with none included as 0? Give their names in alphabetical order."
    )
    join = f"LEFT JOIN {w.links} AS l ON l.{w.person}_id = p.id AND l.day >= '2024-{first:02}'"
    sums = f"SELECT p.name AS name, COALESCE(SUM(l.{w.amount}), 0) AS total FROM {w.people} AS p {join} GROUP BY p.id"
    query = f"WITH sums AS ({sums}) SELECT name FROM sums WHERE total > {factor} * (SELECT AVG(total) FROM sums)"
    return ask, f"{query} ORDER BY name"


def _pairs(rng: Random, w: World) -> Question:
    least, group = rng.randint(1, 2), rng.choice(w.groups)
    ask = (
        f"Which pairs of {w.people} of the same city have at least {least} of the {w.items} in common that both {w.did}, "
        f"counting only those of another {w.group} than {group}? Give both names of each pair once, the one that comes "
        "first in the alphabet first."
    )
    deeds = f"(SELECT DISTINCT {w.person}_id AS who, {w.item}_id AS what FROM {w.links})"
    query = f"SELECT a.name, b.name FROM {w.people} AS a JOIN {w.people} AS b ON a.city = b.city AND a.name < b.name"
    query += f" JOIN {deeds} AS x ON x.who = a.id JOIN {deeds} AS y ON y.who = b.id AND y.what = x.what"
    query += f" JOIN {w.items} AS i ON i.id = x.what WHERE i.{w.group} <> '{group}'"
    return ask, f"{query} GROUP BY a.id, b.id HAVING COUNT(*) >= {least}"


QUESTIONS: tuple[tuple[Callable[[Random, World], Question], ...], ...] = (
    (_from_city, _costing, _how_many, _without_city),
    (_totals, _averages, _never, _top),
    (_best_of_city, _running, _above_average, _pairs),
)
