"""Hands of blackjack, each a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from rollforge.envs.blackjack.cards import Cards, stand, value
from rollforge.envs.generate import generate
from rollforge.records.items import Json

PROMPT = (
    "Play one hand of blackjack. Get closer to 21 than the dealer without going over it. Number cards count what they say, "
    "J, Q and K count 10, an ace 11 or 1. The dealer draws until 17. After each look at your hand, answer with one action, "
    "<action>hit</action> to draw a card or <action>stand</action> to stop."
)


def tasks(
    n: int | None = 60,
    seed: int = 0,
    split: str = "train",
    level: str | Sequence[str] | None = None,
    kind: str | Sequence[str] | None = "winnable",
) -> Iterator[Json]:
    """Rows `{prompt, seed, kind, level}`. Kinds: `winnable` (some way of playing wins), `dealt` (as the cards fall: many
    hands cannot be won). Level: how many hits the shortest best play takes: none, one, two or more."""
    return generate(
        "blackjack", {"winnable": _winnable, "dealt": _dealt}, n=n, seed=seed, split=split, level=level, kind=kind
    )


def _winnable(rng: Random, level: int) -> tuple[str, Json]:
    return _hand(rng, level, ("win",))


def _dealt(rng: Random, level: int) -> tuple[str, Json]:
    return _hand(rng, level, ("win", "draw", "loss"))


def _hand(rng: Random, level: int, results: Sequence[str]) -> tuple[str, Json]:
    while True:
        seed = rng.randrange(2**32)
        hits, result = best(seed)
        if min(hits, 2) == level and result in results:
            return str(seed), {"prompt": PROMPT, "seed": seed}


def best(seed: int) -> tuple[int, str]:
    """How many hits the shortest of the best plays takes, and what comes of it."""
    found = (len(RESULTS), 0, "loss")
    for hits in range(20):
        cards = Cards(seed)
        player, dealer = [cards.draw(), cards.draw()], [cards.draw(), cards.draw()]
        player += [cards.draw() for _ in range(hits)]
        if value(player) > 21:
            break
        result = stand(player, dealer, cards)
        found = min(found, (RESULTS.index(result), hits, result))
    return found[1:]


RESULTS = ("win", "draw", "loss")
