"""Invented countries: towns, rivers, people, bridges, companies and books that refer to each other, and the pages on them.

A world is its number. Nothing in it exists, so nothing can be known but by looking it up, and what one world says is of no
use in another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from rollforge.envs.search.index import Index, Page

SITE = "https://encyclopedia.example/"


@dataclass(slots=True)
class Thing:
    """What a page is about."""

    kind: str
    name: str
    facts: dict[str, str] = field(default_factory=dict)
    """Relation to value; of the relations in `LEADS`, the value is the name of another thing."""

    @property
    def url(self) -> str:
        return SITE + re.sub(r"\W+", "_", self.name)


@dataclass(frozen=True, slots=True)
class World:
    things: Mapping[str, Thing]
    index: Index


LEADS = {
    "designer": "the engineer who designed {}",
    "town": "the town in which {} stands",
    "founder": "the founder of {}",
    "seat": "the town where {} has its seat",
    "author": "the author of {}",
    "setting": "the town in which {} is set",
    "birthplace": "the town where {} was born",
    "teacher": "the teacher of {}",
    "mayor": "the first mayor of {}",
    "river": "the river that flows through {}",
}
"""The relations that lead to a further page, and what a question calls where they lead."""

ASKS = {
    "designer": "Who designed {}?",
    "town": "In which town does {} stand?",
    "opened": "In which year was {} opened?",
    "arches": "How many arches does {} have?",
    "founder": "Who founded {}?",
    "seat": "In which town does {} have its seat?",
    "founded": "In which year was {} founded?",
    "product": "What does {} make?",
    "author": "Who wrote {}?",
    "setting": "In which town is {} set?",
    "published": "In which year was {} published?",
    "birthplace": "In which town was {} born?",
    "born": "In which year was {} born?",
    "teacher": "Who was the teacher of {}?",
    "instrument": "Which instrument did {} play?",
    "mayor": "Who was the first mayor of {}?",
    "river": "Which river flows through {}?",
    "chartered": "In which year did {} get its charter?",
    "dish": "For which dish is {} known?",
    "source": "On which mountain does {} rise?",
    "length": "How many kilometres long is {}?",
}

_SAYS: dict[str, Sequence[str]] = {
    "designer": ("It was designed by {}.", "The plans were drawn by {}."),
    "town": ("It stands in {}.", "It belongs to the town of {}."),
    "opened": ("Traffic has crossed it since {}.", "It was opened in {}."),
    "arches": ("It rests on {} arches.", "It has {} arches."),
    "founder": ("It was founded by {}.", "Its founder was {}."),
    "seat": ("Its seat is in {}.", "It has always been run from {}."),
    "founded": ("It was established in {}.", "It has been in business since {}."),
    "product": ("It makes {}.", "It is a maker of {}."),
    "author": ("It was written by {}.", "Its author is {}."),
    "setting": ("The story takes place in {}.", "It is set in {}."),
    "published": ("It was first printed in {}.", "It was published in {}."),
    "birthplace": ("The family lived in {}, where the birth is recorded.", "Born in {}, the eldest of four children."),
    "born": ("The year of birth is {}.", "According to the parish register, the birth was in {}."),
    "teacher": ("The most important teacher was {}.", "Lessons with {} decided the career."),
    "instrument": ("In the evenings there was music, with the {}.", "The {} was a lifelong passion."),
    "mayor": ("The first mayor was {}.", "It was {} who first held the office of mayor."),
    "river": ("The river {} flows through it.", "It lies on the {}."),
    "chartered": ("Its charter dates from {}.", "It became a town in {}."),
    "dish": ("Visitors come for the {}.", "Its {} is famous."),
    "source": ("It rises on {}.", "Its spring is on {}."),
    "length": ("Its length is {} kilometres.", "It runs for {} kilometres to the sea."),
}
_OPENS = {
    "bridge": "{} is a bridge.",
    "company": "{} is a company.",
    "book": "{} is a novel.",
    "person": "{} was known far beyond the country.",
    "town": "{} is a town.",
    "river": "{} is a river.",
}
_FILLS = (
    "Much has been written about it, not all of it true.",
    "A painting of the time hangs in the national gallery.",
    "The archive burned in the great fire, and little is left.",
    "Opinions were divided at the time.",
    "An anniversary was celebrated with a postage stamp.",
    "Scholars still argue about the details.",
)

KEPT = 64
"""Worlds in memory; making one takes about 10 ms."""
TOWNS, RIVERS, PEOPLE, BRIDGES, COMPANIES, BOOKS = 14, 7, 36, 14, 14, 14


@lru_cache(KEPT)
def world(number: int) -> World:
    """The same for the same number, always."""
    rng = Random(f"search world {number}")
    names = _Names(rng)
    rivers = [Thing("river", names.new(_river)) for _ in range(RIVERS)]
    towns = [Thing("town", names.new(_town)) for _ in range(TOWNS)]
    people = [Thing("person", names.new(_person)) for _ in range(PEOPLE)]
    bridges = [Thing("bridge", names.new(_bridge)) for _ in range(BRIDGES)]
    companies = [Thing("company", names.new(_company)) for _ in range(COMPANIES)]
    books = [Thing("book", names.new(_book)) for _ in range(BOOKS)]
    for one in rivers:
        one.facts |= {"source": names.new(_mountain), "length": str(rng.randint(60, 900))}
    for one in people:
        one.facts |= {"born": str(rng.randint(1780, 1880)), "birthplace": rng.choice(towns).name}
        one.facts["instrument"] = rng.choice(_INSTRUMENTS)
    for one in people:
        elders = [other.name for other in people if int(other.facts["born"]) <= int(one.facts["born"]) - 12]
        if elders:
            one.facts["teacher"] = rng.choice(elders)
    for one in towns:
        one.facts |= {"river": rng.choice(rivers).name, "mayor": rng.choice(people).name}
        one.facts |= {"chartered": str(rng.randint(1150, 1750)), "dish": rng.choice(_DISHES)}
    for one, maker, place, year in [
        *((one, "designer", "town", "opened") for one in bridges),
        *((one, "founder", "seat", "founded") for one in companies),
        *((one, "author", "setting", "published") for one in books),
    ]:
        person = rng.choice(people)
        one.facts |= {maker: person.name, place: rng.choice(towns).name}
        one.facts[year] = str(int(person.facts["born"]) + rng.randint(24, 60))
    for one in bridges:
        one.facts["arches"] = str(rng.randint(3, 29))
    for one in companies:
        one.facts["product"] = rng.choice(_PRODUCTS)
    things = [*rivers, *towns, *people, *bridges, *companies, *books]
    rng.shuffle(things)
    return World({thing.name: thing for thing in things}, Index([_page(rng, thing) for thing in things]))


def _page(rng: Random, thing: Thing) -> Page:
    sentences = [rng.choice(_SAYS[relation]).format(value) for relation, value in thing.facts.items()]
    sentences += rng.sample(_FILLS, 2)
    rng.shuffle(sentences)
    return Page(thing.name, thing.url, " ".join([_OPENS[thing.kind].format(thing.name), *sentences]))


class _Names:
    """No two things of a world share a name."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._given: set[str] = set()

    def new(self, make: Callable[[Random], str]) -> str:
        while True:
            name = make(self._rng)
            if name not in self._given:
                self._given.add(name)
                return name


def _town(rng: Random) -> str:
    return rng.choice(_STARTS) + rng.choice(("holt", "mere", "wick", "burg", "stad", "ford", "haven", "minster"))


def _river(rng: Random) -> str:
    return rng.choice(_STARTS) + rng.choice(("a", "ow", "ine", "el", "esk", "ava"))


def _mountain(rng: Random) -> str:
    return f"Mount {rng.choice(_STARTS)}{rng.choice(('or', 'um', 'ath', 'ek'))}"


def _person(rng: Random) -> str:
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


def _bridge(rng: Random) -> str:
    first = rng.choice(("Old", "New", "Iron", "Long", "White", "High", "Twin"))
    return f"{first} {rng.choice(('Heron', 'Lantern', 'Bishop', 'Weaver', 'Salt', 'Miller', 'Abbey'))} Bridge"


def _company(rng: Random) -> str:
    return f"{rng.choice(_LAST)} {rng.choice(('& Daughters', 'Works', 'Brothers', 'Trading Company', 'Mills'))}"


def _book(rng: Random) -> str:
    first = rng.choice(("Salt", "Glass", "Quiet", "Borrowed", "Northern", "Paper", "Seventh", "Winter", "Copper", "Hollow"))
    return f"The {first} {rng.choice(('Orchard', 'Ferry', 'Daughter', 'Clock', 'Harvest', 'Garden', 'Letter', 'Tide'))}"


_STARTS = """
Varn Brak Ost Ilm Tarn Kell Dru Fen Gar Hesp Jor Lind
Mor Nev Orl Pell Quar Ros Sel Thal Ulm Wend Yar Zell
""".split()  # noqa: SIM905
_FIRST = """
Ada Bram Cora Dirk Elsa Finn Greta Hugo Inga Joris
Karla Leon Mina Nils Olga Piet Ruth Sven Thea Viktor
""".split()  # noqa: SIM905
_LAST = """
Lorn Askel Brandt Corvin Drost Eyck Falk Grau
Hoorn Ivers Jansk Kroll Loew Marek Noord Oster
""".split()  # noqa: SIM905
_INSTRUMENTS = ("cello", "flute", "harp", "oboe", "zither", "trumpet", "viola", "bassoon")
_DISHES = ("smoked eel", "plum dumplings", "rye pudding", "onion tart", "pickled walnuts", "barley soup", "almond bread")
_PRODUCTS = ("clocks", "rope", "enamel pots", "bicycles", "organ pipes", "felt hats", "lenses", "door locks", "printing ink")
