"""Hands of blackjack, each a seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from rollforge.envs.blackjack.cards import Cards, stand, value
from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

PROMPT = (
    "Play one hand of blackjack. Get closer to 21 than the dealer without going over it. Number cards count what they say, "
    "J, Q and K count 10, an ace 11 or 1. The dealer draws until 17. After each look at your hand, answer with one action, "
    "<action>hit</action> to draw a card or <action>stand</action> to stop."
)


@generated("blackjack", n=60, kind="winnable")
def tasks() -> Kinds:
    """Rows `{prompt, seed, kind, level}`. Kinds: `winnable` (some way of playing wins), `dealt` (as the cards fall: many
    hands cannot be won). Level: how many hits the shortest best play takes: none, one, two or more."""
    return {"winnable": partial(_hand, results=("win",)), "dealt": partial(_hand, results=("win", "draw", "loss"))}


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
