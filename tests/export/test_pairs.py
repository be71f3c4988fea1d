from __future__ import annotations

import random
import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.export.pairs import (
    Attempt,
    Funnel,
    Left,
    Pairing,
    Pick,
    Strategy,
    across,
    for_across,
    left_over,
    pair_up,
    without_effect,
)


def attempts(*rewards: float, lengths: list[int] | None = None) -> list[Attempt]:
    return [Attempt(reward, (lengths or [10] * 99)[at], 0, at) for at, reward in enumerate(rewards)]


def never(one: Attempt, other: Attempt) -> bool:
    return False


def places(found: list[tuple[Attempt, Attempt]]) -> list[tuple[int, int]]:
    return [(chosen.at, rejected.at) for chosen, rejected in found]


def test_best_and_worst_make_one_pair_and_ties_go_to_the_shorter_then_the_first() -> None:
    found = attempts(1, 1, 0, 0, 0.5, lengths=[30, 20, 10, 10, 5])
    assert pair_up(found, Pairing(), never) == ([(found[1], found[2])], "paired")


@pytest.mark.parametrize(
    ("rewards", "how", "outcome"),
    [
        ([1], {}, "one attempt"),
        ([0.5, 0.5], {}, "equal rewards"),
        ([0.5, 0.4], {}, "gap too small"),
        ([0.6, 0.1], {"strategy": "stratified"}, "none high enough"),
        ([0.9, 0.5], {"strategy": "stratified"}, "none low enough"),
        ([0.9, 0.3], {"strategy": "stratified"}, "paired"),
        ([0.9, 0.7], {}, "paired"),  # a gap of 0.2, whatever floating point makes of it
        ([1, 0], {"min_gap": 0}, "paired"),
        ([1, 1], {"min_gap": 0}, "equal rewards"),
        ([0.1 + 0.2, 0.3], {"min_gap": 0}, "equal rewards"),
        ([0.6 + 0.1, 0.3 + 0.1], {"strategy": "stratified"}, "paired"),
        ([0.5 + 0.2, 0.1 + 0.2 + 0.1], {"strategy": "stratified"}, "paired"),  # 0.4000000000000001
    ],
)
def test_what_becomes_of_a_task(rewards: list[float], how: dict[str, object], outcome: str) -> None:
    pairs, found = pair_up(attempts(*rewards), Pairing(**how), never)  # type: ignore[arg-type]
    assert found == outcome
    assert bool(pairs) == (outcome == "paired")


def test_equal_texts_fall_to_the_next_candidate() -> None:
    found = attempts(1, 0.8, 0)
    pairs, _ = pair_up(found, Pairing(), lambda one, other: (one.at, other.at) == (0, 2))
    assert places(pairs) == [(1, 2)]
    assert pair_up(found, Pairing(), lambda one, other: True) == ([], "equal texts")


@pytest.mark.parametrize("how", [Pairing(strategy="stratified"), *(Pairing(pick=pick) for pick in get_args(Pick))])
def test_no_pair_says_the_same_as_another(how: Pairing) -> None:
    rewards = [1.0, 0.9, 0.1, 0.0]
    found = attempts(*(reward for reward in rewards for _ in range(3)), lengths=[10] * 12)
    pairs, _ = pair_up(found, how, never, lambda one: one.reward)
    told = [(chosen.reward, rejected.reward) for chosen, rejected in pairs]
    assert len({*told}) == len(told) == (1 if how == Pairing() else 4)
    many = attempts(*[1.0] * 3000, *[0.0] * 3000, lengths=[10] * 6000)
    assert len(pair_up(many, how, never, lambda one: one.reward)[0]) == 1


def test_all_pairs_are_the_widest_and_capped() -> None:
    found = attempts(1, 0.9, 0.1, 0)
    pairs, _ = pair_up(found, Pairing(pick="all_pairs", max_pairs=3), never)
    assert places(pairs) == [(0, 3), (0, 2), (1, 3)]


def test_margin_takes_the_closest_below() -> None:
    pairs, _ = pair_up(attempts(1, 0.9, 0.75, 0), Pairing(pick="margin"), never)
    assert places(pairs) == [(0, 2), (1, 3)]


def test_like_lengths_are_looked_for_among_many() -> None:
    rewards = [0.0] * 30 + [1.0] * 4
    lengths = [*range(32, 57), *range(1003, 1008), *range(1004, 1008)]
    pairs, _ = pair_up(attempts(*rewards, lengths=lengths), Pairing(pick="length_matched"), never)
    assert [chosen.length - rejected.length for chosen, rejected in pairs] == [0, 0, 0, 0]


def test_length_matched_prefers_alike_lengths() -> None:
    found = attempts(1, 0.9, 0, 0.1, lengths=[100, 500, 490, 101])
    pairs, _ = pair_up(found, Pairing(pick="length_matched"), never)
    assert places(pairs) == [(0, 3), (1, 2)]


def test_what_is_left_over_is_in_no_pair() -> None:
    found = attempts(0.9, 0.8, 0.1)
    how = Pairing(strategy="stratified")
    pairs, _ = pair_up(found, how, never)
    assert places(pairs) == [(0, 2)]
    assert left_over(found, pairs, how) == ([found[1]], [])


rewards = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]), max_size=40)


@given(
    rewards,
    st.sampled_from(["same_prompt", "stratified"]),
    st.sampled_from(["best_worst", "all_pairs", "margin", "length_matched"]),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.randoms(use_true_random=False),
)
def test_pairs_keep_what_they_promise(
    rewards: list[float], strategy: str, pick: str, gap: float, rng: random.Random
) -> None:
    how = Pairing(strategy=strategy, pick=pick, min_gap=gap)  # type: ignore[arg-type]
    found = attempts(*rewards)
    pairs, outcome = pair_up(found, how, never)
    assert (outcome == "paired") == bool(pairs)
    assert len(pairs) <= how.max_pairs
    for chosen, rejected in pairs:
        assert chosen.reward > rejected.reward
        assert chosen.reward - rejected.reward >= gap - 1e-9
        if strategy == "stratified":
            assert chosen.reward >= how.high_threshold
            assert rejected.reward <= how.low_threshold
    if strategy == "stratified" or pick != "all_pairs":
        used = [one for pair in pairs for one in pair]
        assert len(set(used)) == len(used)
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert pair_up(shuffled, how, never) == (pairs, outcome)


@given(st.lists(st.sampled_from([0.2, 0.5, 0.7, 0.9]), max_size=30), st.sampled_from([0.0, 0.2]))
def test_across_prompts_an_attempt_is_used_once(rewards: list[float], gap: float) -> None:
    how = Pairing(strategy="stratified", high_threshold=0.5, low_threshold=0.5, min_gap=gap)
    found = attempts(*rewards)
    left = [Left(True, one) for one in found if one.reward >= 0.5]
    left += [Left(False, one) for one in found if one.reward <= 0.5]
    pairs = [(good, bad) for _, good, bad in across(sorted(left, key=for_across), how)]
    assert all(good.reward > bad.reward and good.reward - bad.reward >= gap - 1e-9 for good, bad in pairs)
    used = [one for pair in pairs for one in pair]
    assert len(used) == len({*used})
    assert len(pairs) >= min(rewards.count(0.2), len(rewards) - rewards.count(0.2))


def test_the_funnel_adds_up_and_says_what_would_give_more() -> None:
    how = Pairing()
    funnel = Funnel()
    for group in ([1.0], [0.6, 0.5], [0.55, 0.45], [1.0, 1.0]):
        found = attempts(*group)
        pairs, outcome = pair_up(found, how, never)
        funnel.count(found, outcome, len(pairs), how)
    numbers = funnel.row()
    assert numbers == {"tasks": 4, "one attempt": 1, "equal rewards": 1, "gap too small": 2, "pairs": 0}
    assert funnel.advice(how) == ["--min-gap 0.1 would give pairs for up to 2 tasks"]
    assert "0 pairs of 4 tasks" in str(funnel.few(how))


def test_one_attempt_each_asks_for_repeats() -> None:
    funnel = Funnel()
    for _ in range(10):
        funnel.count(attempts(1), "one attempt", 0, Pairing())
    assert funnel.advice(Pairing()) == ["collect with --repeats 4 or more: 100% of the tasks have one attempt"]


def test_stratified_says_what_the_other_strategy_would_give() -> None:
    how = Pairing(strategy="stratified")
    funnel = Funnel()
    found = attempts(0.6, 0.5)
    funnel.count(found, pair_up(found, how, never)[1], 0, Pairing(strategy="stratified", min_gap=0.1))
    assert funnel.advice(how)[0] == "--strategy same_prompt would give pairs for up to 1 task"
    assert not any("--across-prompts" in line for line in funnel.advice(how))
    for env, rewards in (("math", [1.0] * 3), ("code", [0.0] * 3)):
        funnel.count([one._replace(env=env) for one in attempts(*rewards)], "equal rewards", 0, how)
    assert not any("--across-prompts" in line for line in funnel.advice(how))
    funnel.count([one._replace(env="code") for one in attempts(1, 1)], "equal rewards", 0, how)
    assert funnel.advice(how)[-1] == "--across-prompts would give up to 2 pairs of different tasks"


def test_single_prompts_are_told_of_pairs_across_prompts() -> None:
    how = Pairing()
    funnel = Funnel()
    for rewards in ([1, 1], [0, 0], [0.5]):
        funnel.count(attempts(*rewards), pair_up(attempts(*rewards), how, never)[1], 0, how)
    offered = "--strategy stratified --across-prompts would give up to 2 pairs of different tasks"
    assert funnel.advice(how)[-1] == offered
    every = [one._replace(source=n) for n, rewards in enumerate(([1, 1], [0, 0], [0.5])) for one in attempts(*rewards)]
    wanted = Pairing(strategy="stratified", across_prompts=True)
    high, low = left_over(every, [], wanted)
    assert len([*across([Left(one in high, one) for one in high + low], wanted)]) == 2
    for _ in range(20):
        funnel.count(attempts(1, 0), "paired", 1, how)
    assert funnel.advice(how) == []


def test_the_widest_gap_that_gives_pairs_is_offered() -> None:
    how = Pairing(min_gap=2)
    funnel = Funnel()
    funnel.count(attempts(1, 0), "gap too small", 0, how)
    assert funnel.advice(how) == ["--min-gap 1 would give pairs for up to 1 task"]


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({}, set()),
        (
            {"high_threshold": 0.9, "low_threshold": 0.1, "across_prompts": True},
            {"high_threshold", "low_threshold", "across_prompts"},
        ),
        ({"across_prompts": False, "min_gap": 0.1}, set()),
        ({"max_pairs": 2}, {"max_pairs"}),
        ({"max_pairs": 2, "pick": "margin"}, set()),
        ({"strategy": "stratified", "high_threshold": 0.9, "across_prompts": True, "max_pairs": 2}, set()),
        ({"strategy": "stratified", "pick": "all_pairs"}, {"pick"}),
    ],
)
def test_options_without_effect(given: dict[str, object], idle: set[str]) -> None:
    assert {*without_effect(Pairing(**given))} == idle  # type: ignore[arg-type]


def test_lower_thresholds_are_offered_with_what_they_give() -> None:
    how = Pairing(strategy="stratified")
    funnel = Funnel()
    for rewards in ([0.6, 0.45], [0.65, 0.5], [1, 1]):
        funnel.count(attempts(*rewards), pair_up(attempts(*rewards), how, never)[1], 0, how)
    offered = "--high-threshold 0.6 --low-threshold 0.5 --min-gap 0.1 would give pairs for up to 2 tasks"
    assert funnel.advice(how) == [offered]
    lower = Pairing(strategy="stratified", high_threshold=0.6, low_threshold=0.5, min_gap=0.1)
    assert [len(pair_up(attempts(*one), lower, never)[0]) for one in ([0.6, 0.45], [0.65, 0.5], [1, 1])] == [1, 1, 0]


@pytest.mark.parametrize("strategy", ["same_prompt", "stratified"])
def test_no_option_is_offered_to_tasks_that_no_format_holds(strategy: Strategy) -> None:
    for how in (Pairing(strategy=strategy), Pairing(strategy=strategy, min_gap=0.01)):
        funnel = Funnel()
        funnel.count(attempts(1, 0, 0), "refused", 0, how)
        assert funnel.advice(how) == []


@pytest.mark.parametrize("strategy", ["same_prompt", "stratified"])
def test_no_option_is_offered_to_tasks_whose_texts_are_the_same(strategy: Strategy) -> None:
    how = Pairing(strategy=strategy)
    funnel = Funnel()
    for rewards in ([1, 0], [0.9, 0.1]):
        found = attempts(*rewards)
        pairs, outcome = pair_up(found, how, lambda good, bad: True)
        assert (pairs, outcome) == ([], "equal texts")
        funnel.count(found, outcome, 0, how)
    assert funnel.advice(how) == []


def test_rewards_beyond_all_measure_are_counted() -> None:
    funnel = Funnel()
    for rewards in ([1e308, -1e308], [1e308, 0], [0, -1e308]):
        found = attempts(*rewards)
        pairs, outcome = pair_up(found, Pairing(), never)
        assert [(good.reward, bad.reward) for good, bad in pairs] == [tuple(rewards)]
        funnel.count(found, outcome, 1, Pairing())
    assert funnel.row() == {"tasks": 3, "paired": 3, "pairs": 3}


def test_what_max_pairs_leaves_out_is_counted() -> None:
    rewards = [1, 0.9, 0.75, 0.5, 0.5, 0]
    how = Pairing(pick="all_pairs")
    pairs, outcome = pair_up(attempts(*rewards), how, never)
    funnel = Funnel()
    funnel.count(attempts(*rewards), outcome, len(pairs), how)
    everything = Pairing(pick="all_pairs", max_pairs=100)
    assert funnel.row()["pairs"] == 4
    assert funnel.row()["pairs_beyond_max_pairs"] == len(pair_up(attempts(*rewards), everything, never)[0]) - 4


@pytest.mark.parametrize(
    ("how", "pairs"),
    [
        (Pairing(pick="all_pairs", max_pairs=100_000), 19_999),
        (Pairing(pick="margin"), 1),
        (Pairing(strategy="stratified", max_pairs=100_000), 1),
    ],
)
def test_pairs_of_a_task_with_very_many_attempts(how: Pairing, pairs: int) -> None:
    one_bad, halves = (
        [Attempt(float(good), 1, 0, at) for at, good in enumerate(rewards)]
        for rewards in ([False, *[True] * 19_999], [False, True] * 10_000)
    )
    began = time.process_time()
    assert len(pair_up(one_bad, how, never)[0]) == pairs
    assert len(pair_up(halves, how, never)[0]) == (min(how.max_pairs, 10_000) if how.pick != "all_pairs" else 100_000)
    assert time.process_time() - began < 20  # minutes, and gigabytes, if it looked at each two of them
