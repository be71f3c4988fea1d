"""Blackjack: the rules, the rewards, and the same cards for everybody who plays a hand."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.envs.blackjack import blackjack
from rollforge.envs.blackjack.cards import RANKS, Cards, value
from rollforge.errors import VerifierFault
from rollforge.records.items import assistant, user
from tests.envs.drive import task, tasks_of

HIT, STAND = "<action>hit</action>", "<action>stand</action>"
GYM = "You are playing Blackjack. Respond with <action>hit</action> or <action>stand</action>."


async def hand(cards: list[str], *replies: str) -> tuple[float, dict[str, Any], list[str | None]]:
    seen = []
    async with blackjack.open(task(cards=cards)) as session:
        for reply in replies:
            step = await session.step({"output": [assistant(reply)]})
            seen.append(step.observation)
        found = await session.verify({"output": []})
    return found.reward, found.fields, seen


@pytest.mark.parametrize(
    ("cards", "value_"),
    [
        (["A", "A"], 12),
        (["A", "K"], 21),
        (["A", "5", "K"], 16),
        (["A", "A", "9"], 21),
        (["A", "A", "K", "9"], 21),
        (["10", "J", "Q"], 30),
        (["2", "3"], 5),
        (["A"] * 12, 12),
        (["A"] * 22, 22),
    ],
)
def test_the_worth_of_a_hand(cards: list[str], value_: int) -> None:
    assert value(cards) == value_


@pytest.mark.parametrize(
    ("cards", "replies", "reward", "result"),
    [
        (["10", "9", "10", "7"], [STAND], 1.0, "win"),
        (["10", "7", "10", "7"], [STAND], 0.0, "draw"),
        (["10", "6", "10", "7"], [STAND], -1.0, "loss"),
        (["10", "6", "10", "7", "5"], [HIT, STAND], 1.0, "win"),
        (["10", "6", "10", "7", "9"], [HIT], -1.0, "bust"),
        (["10", "6", "10", "7", "9"], [HIT, STAND], -1.0, "bust"),
        (["2", "3", "10", "6", "K"], [STAND], 1.0, "win"),
        (["2", "3", "A", "6", "K"], [STAND], -1.0, "loss"),  # the dealer stands with a soft 17
        (["2", "3", "A", "5", "K", "9"], [STAND], 1.0, "win"),
        (["10", "9", "10", "7"], ["I think I stop: <ACTION> Stand </action>"], 1.0, "win"),
        (["10", "9", "10", "7"], ["stand"], 1.0, "win"),
        # What is no action, or two, costs nothing but patience.
        (["10", "9", "10", "7"], ["", STAND], 1.0, "win"),
        (["10", "9", "10", "7"], [f"{HIT} or {STAND}?", "<action>double</action>", STAND], 1.0, "win"),
        (["10", "9", "10", "7"], ["", "a win", '{"reward": 1}', STAND], -1.0, "invalid"),
        (["10", "9", "10", "7"], [], -1.0, "unfinished"),
        (["10", "9", "10", "7"], ["<action>" * 100_000, STAND], 1.0, "win"),
    ],
)
async def test_rewards(cards: list[str], replies: list[str], reward: float, result: str) -> None:
    found, fields, _ = await hand(cards, *replies)
    assert (found, fields["result"]) == (reward, result)


async def test_what_is_seen() -> None:
    _, fields, seen = await hand(["8", "5", "A", "4", "3"], "hm", HIT)
    assert [text.partition("\nAnswer")[0] for text in seen if text] == [
        "That is no action. Your hand: [8, 5] = 13\nDealer shows: A",
        "Your hand: [8, 5, 3] = 16\nDealer shows: A",
    ]
    assert (fields["player_value"], fields["invalid_actions"], fields["result"]) == (16, 1, "unfinished")


async def first_hand(**row: Any) -> str | None:
    async with blackjack.open(task(**row)) as session:
        return session.observation


async def test_a_task_is_one_hand_for_everybody_and_every_task_another() -> None:
    assert await first_hand(seed=5) == await first_hand(seed=5)
    assert len({await first_hand(seed=seed) for seed in range(20)}) > 15
    # Rows as NeMo Gym ships them are all alike; their places make the difference.
    assert len({await first_hand(_ng_task_index=place) for place in range(20)}) > 15
    assert await first_hand(_ng_task_index=3) == await first_hand(_ng_task_index=3)


async def test_a_stored_prompt_shows_its_hand() -> None:
    hand = "Your hand: [8, 5] = 13\nDealer shows: A\nRespond with an action."
    known = task(prompt=[user(GYM), user(hand)], cards=["8", "5", "A", "4", "3"])
    async with blackjack.open(known) as session:
        assert session.observation is None
    with pytest.raises(VerifierFault, match="another hand than the seed deals"):
        async with blackjack.open(task(prompt=[user(GYM), user(hand)])):
            pass
    told: list[tuple[dict[str, Any], str, float]] = [
        ({"player": "[8, 5, 3, Q]", "value": 26}, f"{HIT} {HIT}", -1.0),
        ({"player": "[8, 5]", "dealer": "[A, 5, 9, 10]"}, STAND, 1.0),
        ({"player": "[8, 5, 7]", "dealer": "[A, 9]"}, f"{HIT} {STAND}", 0.0),
    ]
    for info, replies, reward in told:
        async with blackjack.open(task(prompt=[user(GYM), user(hand)], info=info)) as session:
            for reply in replies.split():
                await session.step({"output": [assistant(reply)]})
            assert (await session.verify({"output": []})).reward == reward
    with pytest.raises(VerifierFault, match="cards are 2, 3"):
        async with blackjack.open(task(cards=["1"])):
            pass


def test_every_card_is_as_likely() -> None:
    cards = Cards(1)
    drawn = [cards.draw() for _ in range(13_000)]
    assert all(800 < drawn.count(rank) < 1200 for rank in RANKS)


async def test_dealt_hands_are_as_the_cards_fall_and_the_reference_makes_the_best_of_them() -> None:
    results = {}
    for one in tasks_of(blackjack, kind="dealt", n=60):
        solution = blackjack.solve(one)
        assert solution is not None
        replies = list(solution)
        async with blackjack.open(one) as session:
            for reply in [*replies, STAND]:
                await session.step({"output": [assistant(str(reply))]})
            found = await session.verify({"output": []})
        results[one.id] = found.reward
        assert found.fields["result"] != "bust"
    assert set(results.values()) == {1.0, 0.0, -1.0}
