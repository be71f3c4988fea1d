"""What a collection shows while it goes: counts, the mean with its coverage, speeds, what went wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rollforge.cli.progress import Meter, counted, duration, faults, rates, reward
from rollforge.collect.config import CollectConfig
from rollforge.collect.run import Collection
from rollforge.collect.tally import Tally
from rollforge.config import validate
from rollforge.records.rollout import Outcome
from tests.collect.parts import rollout


@pytest.mark.parametrize(
    ("tally", "shown"),
    [
        (Tally(), "0"),
        (Tally(planned=12_000), "0/12,000"),
        (Tally(planned=10, before=3, outcomes=Counter({Outcome.SCORED: 4})), "4/10 (3 before)"),
    ],
)
def test_counts(tally: Tally, shown: str) -> None:
    assert counted(tally) == shown


def test_a_mean_is_never_shown_without_its_coverage() -> None:
    tally = Tally(planned=100)
    assert reward(tally) == "no reward yet"
    tally.count(rollout(Outcome.TIMEOUT), final=True)
    assert reward(tally) == "no reward yet"
    for outcome in (Outcome.SCORED, Outcome.POLICY_FAULT, Outcome.SCORED):
        tally.count(rollout(outcome), final=True)
    assert reward(tally) == "mean reward 0.667 over 75.0% of what ended"


def test_faults_by_class_the_most_frequent_first() -> None:
    tally = Tally()
    assert faults(tally) == ""
    for outcome, times in ((Outcome.TIMEOUT, 1), (Outcome.INFRA_FAULT, 3)):
        for _ in range(times):
            tally.count(rollout(outcome, retryable=True), final=False)
    tally.bad_lines = 2
    assert faults(tally) == "failed: 3 infra_fault in model, 1 timeout in model, 2 task lines not used"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (1e300, "277777:46:40")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.fixture
def collection() -> Collection:
    values: dict[str, Any] = {"env": "arithmetic", "model": "scripted:perfect", "budget": {"price_out": 1e6}}
    return Collection(validate(CollectConfig, values, "here"))


def test_rates(collection: Collection) -> None:
    tally = collection.tally
    tally.planned = 8
    tally.began -= 2.0  # four rollouts in two seconds: two a second, another two to go
    for _ in range(4):
        tally.count(rollout(), final=True)
    meter = Meter(tally)
    meter.read()
    speed, tokens, in_flight, cost, left = rates(meter, collection)
    assert float(speed.removesuffix("/s")) == pytest.approx(2.0, rel=0.1)
    assert tokens.endswith(" tokens/s")
    assert (in_flight, cost) == ("0 in flight", "cost 12")
    assert left == "0:02 left"
    collection.stop("enough")
    assert rates(meter, collection)[-1] == "stopping: enough"
