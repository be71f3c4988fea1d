"""Tasks of the search environment: questions whose answer stands one, two or three pages away from what they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random

from rollforge.envs.generate import generate
from rollforge.envs.search.world import ASKS, KEPT, LEADS, Thing, World, world
from rollforge.errors import UserError
from rollforge.records.items import Json

FORM = "Look it up. End your reply with two lines:\nAnswer: <answer>\nSource: <url of the page that says so>"


def tasks(
    n: int | None = 60,
    seed: int = 0,
    split: str = "train",
    level: str | Sequence[str] | None = None,
    kind: str | Sequence[str] | None = None,
    worlds: int = 8,
) -> Iterator[Json]:
    """Rows `{prompt, world, question, expected_answer, source, path, kind, level}`. Kinds, by what the question names:
    bridge, company, book. Level: how many pages it takes, one to three. `worlds`: how many countries they are about."""
    if not 1 <= worlds <= KEPT:
        raise UserError(f"worlds is {worlds}; it is a number from 1 to {KEPT}")
    kinds = {name: partial(_question, name, seed * worlds, worlds) for name in ("bridge", "company", "book")}
    return generate("search", kinds, n=n, seed=seed, split=split, level=level, kind=kind)


def _question(kind: str, first: int, worlds: int, rng: Random, level: int) -> tuple[str, Json]:
    number = first + rng.randrange(worlds)
    here = world(number)
    path, relation = _walk(rng, here, kind, level)
    named = path[0][0].name
    for _, lead in path[:-1]:
        named = LEADS[lead].format(named)
    last = path[-1][0]
    question = ASKS[relation].format(named)
    row = {
        "prompt": f"{question} {FORM}",
        "world": number,
        "question": question,
        "expected_answer": last.facts[relation],
        "source": last.url,
        "path": [thing.name for thing, _ in path],
    }
    return f"{number} {question}", row


def _walk(rng: Random, here: World, kind: str, level: int) -> tuple[list[tuple[Thing, str]], str]:
    """The things on the way, each with the relation that leads on; and the relation that is asked of the last."""
    while True:
        thing = rng.choice([one for one in here.things.values() if one.kind == kind])
        path: list[tuple[Thing, str]] = []
        for _ in range(level):
            leads = [relation for relation in thing.facts if relation in LEADS]
            if not leads:
                break
            lead = rng.choice(leads)
            path.append((thing, lead))
            thing = here.things[thing.facts[lead]]
        names = [one.name for one, _ in path] + [thing.name]
        if len(names) == level + 1 and len(set(names)) == len(names):
            return [*path, (thing, "")], rng.choice(sorted(thing.facts))
