"""Cards, what a hand is worth, and the dealer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from rollforge.errors import VerifierFault

RANKS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "A")


class Cards:
    """Drawn from so many decks that no card changes the odds of the next: player, player, dealer, dealer, and then in turn.

    `first` are drawn before the others. Raises `VerifierFault` for what is no card.
    """

    def __init__(self, seed: int | str, first: Sequence[str] = ()) -> None:
        for card in first:
            if card not in RANKS:
                raise VerifierFault(f"cards holds {card!r}; cards are {', '.join(RANKS)}")
        self._first = list(first)
        self._rng = Random(f"blackjack {seed}")

    def draw(self) -> str:
        return self._first.pop(0) if self._first else self._rng.choice(RANKS)


def value(hand: Sequence[str]) -> int:
    """Aces count 11 as long as the hand is worth 21 at most, else 1."""
    total = sum(11 if card == "A" else 10 if card in "JQK" else int(card) for card in hand)
    for card in hand:
        if total > 21 and card == "A":
            total -= 10
    return total


def stand(player: Sequence[str], dealer: list[str], cards: Cards) -> str:
    """win, draw or loss: the dealer draws to 17 and stands there, with an ace too."""
    while value(dealer) < 17:
        dealer.append(cards.draw())
    ours, theirs = value(player), value(dealer)
    return "win" if theirs > 21 or ours > theirs else "draw" if ours == theirs else "loss"


def dealt(info: Any, prompt: str) -> list[str]:
    """The cards of a stored rollout of NeMo Gym, in the order they were drawn: its `info` tells the hands as they ended."""
    player, dealer = (_hand(info.get(name)) if isinstance(info, dict) else [] for name in ("player", "dealer"))
    if len(dealer) < 2:
        # Of a hand that went over 21 the dealer's are not told: one was seen, and the other does not count.
        dealer = [prompt.rpartition(SHOWS)[2].partition("\n")[0].strip(), RANKS[0]]
    return [*player[:2], *dealer[:2], *player[2:], *dealer[2:]] if len(player) > 1 else []


def _hand(text: Any) -> list[str]:
    return [card.strip() for card in text.strip("[]").split(",")] if isinstance(text, str) else []


SHOWS = "Dealer shows: "


def shown(hand: Sequence[str]) -> str:
    return f"[{', '.join(hand)}]"
