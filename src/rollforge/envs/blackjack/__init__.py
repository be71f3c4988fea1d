"""Blackjack, played by steps: hit or stand until the hand ends. A task is one hand: whoever plays it gets the same cards.

Rows of NeMo Gym's `blackjack` work as they are, with its rules and rewards (win 1, draw 0, loss -1); there the cards are
drawn anew each time. Of its stored rollouts, `info` tells the cards, so that they can be played again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollforge.envs.actions import chosen_action
from rollforge.envs.blackjack.cards import SHOWS, Cards, dealt, shown, stand, value
from rollforge.envs.blackjack.tasks import tasks
from rollforge.envs.decorate import env
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.records.task import Task

HAND = "Your hand: "
INVALID = 3
"""So many replies without an action in one hand, and it is lost."""


@env(name="blackjack", tasks=tasks, inline=True)
class blackjack:
    """Play a hand of blackjack: hit or stand."""

    def reset(self, prompt: str, task: Task, seed: int, cards: Sequence[str] = (), info: Any = None) -> str | None:
        stored = HAND in prompt  # what was dealt is seen there
        self.cards = _cards(task, seed, cards or (dealt(info, prompt) if stored else ()))
        self.player = [self.cards.draw(), self.cards.draw()]
        self.dealer = [self.cards.draw(), self.cards.draw()]
        self.result = "unfinished"
        self.invalid = 0
        seen = self._seen()
        if stored and not all(line in prompt.splitlines() for line in seen.splitlines()[:2]):
            raise VerifierFault("the prompt shows another hand than the seed deals: its cards are not known")
        return None if stored else seen

    def step(self, action: str) -> tuple[str | None, float, bool]:
        move = chosen_action(action, ("hit", "stand"))
        if move is None:
            self.invalid += 1
            if self.invalid >= INVALID:
                return self._end("invalid")
            return f"That is no action. {self._seen()}", 0.0, False
        if move == "stand":
            return self._end(stand(self.player, self.dealer, self.cards))
        self.player.append(self.cards.draw())
        return self._end("bust") if value(self.player) > 21 else (self._seen(), 0.0, False)

    def verify(self) -> dict[str, Any]:
        """A hand that was not played to its end is lost, else it would pay never to end a bad one."""
        return {
            "reward": REWARDS[self.result],
            "result": self.result,
            "player_value": value(self.player),
            "dealer_value": value(self.dealer),
            "invalid_actions": self.invalid,
        }

    def solve(self, task: Task, seed: int, cards: Sequence[str] = ()) -> Solution:
        """The best that these cards allow, which takes knowing them."""
        hits = max(range(20), key=lambda hits: (_outcome(_cards(task, seed, cards), hits), -hits))
        for _ in range(hits):
            yield "<action>hit</action>"
        return "<action>stand</action>"

    def _seen(self) -> str:
        hand = f"{HAND}{shown(self.player)} = {value(self.player)}\n{SHOWS}{self.dealer[0]}"
        return f"{hand}\nAnswer with <action>hit</action> or <action>stand</action>."

    def _end(self, result: str) -> tuple[None, float, bool]:
        self.result = result
        return None, REWARDS[result], True


REWARDS = {"win": 1.0, "draw": 0.0, "loss": -1.0, "bust": -1.0, "invalid": -1.0, "unfinished": -1.0}


def _cards(task: Task, seed: int, cards: Sequence[str]) -> Cards:
    # Rows that say nothing differ by their places only: each is another hand.
    return Cards(seed if "seed" in task.fields else f"{seed} {task.index or 0}", cards)


def _outcome(cards: Cards, hits: int) -> float:
    player, dealer = [cards.draw(), cards.draw()], [cards.draw(), cards.draw()]
    for _ in range(hits):
        player.append(cards.draw())
    return -1.0 if value(player) > 21 else REWARDS[stand(player, dealer, cards)]
