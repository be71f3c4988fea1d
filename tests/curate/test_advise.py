"""Which algorithm data fits: on rollouts of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from rollforge.curate.advise import Advice, advise, resources
from rollforge.records.items import assistant
from rollforge.records.rollout import Rollout
from rollforge.stats.profiling import profile
from tests.stats.made import called, grid, made


def advised(rollouts: Iterable[Rollout], **more: Any) -> Advice:
    return advise(profile(rollouts), ["runs/a b"], **more)


def level(advice: Advice, algorithm: str) -> str:
    return next(choice.level for choice in advice.choices if choice.algorithm == algorithm)


def mixed(tasks: int = 150, repeats: int = 4) -> list[Rollout]:
    """Binary rewards, solve rates of all kinds."""
    draw = random.Random(0)
    return grid([[float(draw.random() < task / tasks) for _ in range(repeats)] for task in range(tasks)])


def test_verified_tasks_of_mixed_difficulty_are_for_grpo() -> None:
    advice = advised(mixed())
    assert advice.first is not None
    assert (advice.first.algorithm, advice.first.level) == ("GRPO", "good")
    assert advice.first.commands == [
        "rollforge curate 'runs/a b' --preset grpo --split 95/5 --out curated-grpo",
        "rollforge export curated-grpo --to nemo-rl:grpo --out export-grpo",
    ]
    assert any("have signal" in line for line in advice.first.why)
    assert [choice.algorithm for choice in advice.choices[:2]] == ["GRPO", "DPO"]
    assert any(line.startswith("SFT on all rollouts") for line in advice.avoid)
    assert any(line.startswith("dropping low rewards before GRPO") for line in advice.avoid)


def test_solved_tasks_are_for_sft() -> None:
    advice = advised(grid([[1.0, 1.0]] * 150))
    assert advice.first is not None
    assert (advice.first.algorithm, advice.first.level) == ("SFT", "good")
    assert "reward >= 0.95" in advice.first.commands[0]
    assert {choice.level for choice in advice.choices[1:]} == {"poor"}
    assert any("harder tasks" in line for line in advice.collect)
    assert any(line.startswith("GRPO on all tasks: in 100%") for line in advice.avoid)


def test_many_pairs_where_groups_are_too_good_for_grpo_are_for_dpo() -> None:
    advice = advised(grid([[0.8, 0.0, 0.95]] * 40 + [[1.0, 1.0, 1.0]] * 0 + [[0.9, 0.4]] * 80))
    assert level(advice, "DPO") == "good"
    assert level(advice, "GRPO") == "good"
    few_prompts = advised(grid([[1.0, 0.0] * 8] * 60))
    assert level(few_prompts, "GRPO") == "possible"


def test_single_attempts_with_degrees_are_for_ppo() -> None:
    draw = random.Random(0)
    advice = advised(grid([[round(draw.random(), 3)] for _ in range(300)]), model="Qwen/Qwen2.5-7B")
    assert advice.first is not None
    assert advice.first.algorithm == "PPO"
    assert any("more repeats" in line for line in advice.collect)
    assert any(line.startswith("DPO pairs across prompts") for line in advice.avoid)
    assert advice.resources is not None
    assert "1 to 2 GPUs" in advice.resources.says


def test_where_groups_have_no_signal_ppo_is_told_to_use_a_critic() -> None:
    advice = advised(grid([[float(task % 2)] * 8 for task in range(300)]), model="Qwen/Qwen2.5-7B it")
    assert advice.first is not None
    assert advice.first.algorithm == "PPO"
    assert level(advice, "GRPO") == "poor"
    assert advice.first.commands[1] == (
        "rollforge export curated-ppo --to verl:grpo --model 'Qwen/Qwen2.5-7B it' --set algorithm.adv_estimator=gae "
        "--set critic.model.path='Qwen/Qwen2.5-7B it' --out export-ppo"
    )


def test_demonstrations_are_exported_from_where_they_were_kept() -> None:
    near = advised(grid([[0.9]] * 150)).first
    assert near is not None
    assert near.algorithm == "SFT"
    assert near.commands == [
        "rollforge curate 'runs/a b' --preset sft --split 95/5 --out curated-sft",
        "rollforge export curated-sft --to nemo-rl:sft --min-reward 0.8 --out export-sft",
    ]
    strict = advised(grid([[1.0]] * 150)).first
    assert strict is not None
    assert "--filter 'reward >= 0.95'" in strict.commands[0]
    assert "--min-reward" not in strict.commands[1]


def test_a_name_that_looks_like_an_option() -> None:
    advice = advise(profile(mixed()), ["-x.jsonl", "y"])
    assert advice.choices[0].commands[0].startswith("rollforge curate ./-x.jsonl y --preset")


def test_what_is_split_is_not_split_again() -> None:
    assert all("--split" in choice.commands[0] for choice in advised(mixed()).choices)
    assert not any("--split" in choice.commands[0] for choice in advised(mixed(), split=True).choices)


def test_names_of_environments_are_as_they_are() -> None:
    rollouts = [made(float(task % 2), task, env=("code", "qa", *["math"] * 8)[task % 10]) for task in range(200)]
    assert any(line.startswith("math makes up 80%") for line in advised(rollouts).collect)


def test_single_binary_attempts_are_for_grpo() -> None:
    assert advised(mixed(repeats=1)).choices[0].algorithm == "GRPO"


@pytest.mark.parametrize(("rewards", "level"), [([[0.0, 0.0]] * 150, "poor"), ([[1.0, 0.0]] * 3, "unsure")])
def test_nothing_is_recommended_where_nothing_fits(rewards: list[list[float]], level: str) -> None:
    advice = advised(grid(rewards))
    assert advice.first is None
    assert advice.choices[0].level == level
    assert advice.nothing.startswith("nothing yet")
    assert advice.row()["recommended"] is None


def test_no_reward_at_all() -> None:
    advice = advised(grid([[None, None]] * 3))  # type: ignore[list-item]
    assert advice.first is None
    assert advice.avoid == advice.rewards == []
    assert "--failures" in advice.collect[0]


def test_reward_scales() -> None:
    draw = random.Random(0)
    wide = advised(grid([[draw.random() * 10 for _ in range(4)] for _ in range(150)]))
    assert any("outside [-1, 1]" in line for line in wide.rewards)
    assert level(wide, "SFT") == "possible"
    assert wide.first is not None
    assert "--shape scale" in wide.first.commands[0]
    assert any("no scaling is needed" in line for line in advised(grid([[0.2, 0.5, 0.8, 1.0]] * 30)).rewards)
    assert any("are 0 or 1, the ends of the range" in line for line in advised(mixed()).rewards)
    ends = advised(grid([[0.01 + 0.002 * task, 0.99 - 0.002 * task] for task in range(30)])).rewards
    assert ends[0].startswith("100% of the rewards are below 0.100 or at least 0.900, the ends of the range")
    both = [made(10.0, task, env="games") for task in range(30)] + [made(float(task % 2), task) for task in range(30)]
    advice = advised(both)
    assert any("different ranges" in line for line in advice.rewards)
    assert set(advice.environments) == {"games", "math"}


def test_rewards_are_scaled_before_anything_reads_them() -> None:
    advice = advised(grid([[0.0, 20.0, 60.0, 100.0]] * 150))
    assert advice.first is not None
    assert (advice.first.algorithm, advice.first.level) == ("GRPO", "possible")
    for choice in advice.choices:
        name = choice.algorithm.lower()
        first, second, _ = choice.commands
        assert first == f"rollforge curate 'runs/a b' --shape scale --out scaled-{name}"
        assert second.startswith(f"rollforge curate scaled-{name} --preset {name}")
    assert not any(name.startswith(("at least", "above")) for name, _ in advice.numbers)
    # A penalty is no reason to move the thresholds of SFT and DPO.
    scaled = {one.algorithm: len(one.commands) == 3 for one in advised(grid([[-10.0, 0.0, 1.0, 1.0]] * 150)).choices}
    assert scaled == {"GRPO": True, "PPO": True, "SFT": False, "DPO": False}


def test_rewards_of_minus_one_are_as_good_as_of_zero() -> None:
    signed = [replace(rollout, reward=2 * (rollout.reward or 0.0) - 1) for rollout in mixed()]
    before, after = advised(mixed()), advised(signed)
    assert [(one.algorithm, one.level) for one in after.choices] == [(one.algorithm, one.level) for one in before.choices]
    assert after.collect == before.collect


def test_few_prompts_are_few_for_ppo_as_for_grpo() -> None:
    advice = advised(grid([[0.0, 0.5, 1.0, 1.0]] * 60))
    assert advice.choices[0].algorithm == "GRPO"
    assert (level(advice, "GRPO"), level(advice, "PPO")) == ("possible", "possible")
    assert level(advised(grid([[0.0, 0.5, 1.0, 1.0]] * 100)), "PPO") == "good"


def test_what_to_collect() -> None:
    cut = {"incomplete_details": {"reason": "max_output_tokens"}, "usage": {"output_tokens": 100}}
    advice = advised([made(task % 2, task, response=cut) for task in range(40)])
    assert any("--max-output-tokens 200" in line for line in advice.collect)
    assert any("100 to 500 for each task type" in line for line in advice.collect)
    assert any("fewer than 1,000" in line for line in advice.collect)
    assert any("cut short" in line for line in advice.avoid)
    uncovered = advised([*mixed(), *(made(None, task, 9) for task in range(150))])
    assert any("it resumes" in line for line in uncovered.collect)
    assert [(one.algorithm, one.temperature, one.concurrency) for one in advice.settings] == [
        ("GRPO", 0.5, 50),
        ("SFT", 0.2, 20),
        ("DPO", 0.7, None),
        ("PPO", 0.5, 10),
    ]


def test_without_expected_answers_grpo_is_live() -> None:
    advice = advised(mixed(), answered=0.1)
    assert advice.choices[0].algorithm == "GRPO"
    assert "--to nemo-rl:nemo-gym" in advice.choices[0].commands[1]
    assert "nemo-rl:grpo" in advised(mixed(), answered=0.9).choices[0].commands[1]
    (ppo,) = (choice for choice in advice.choices if choice.algorithm == "PPO")
    assert ppo.against[-1] == "Few rows carry an expected answer: train live, with the environment at $GYM_URL."


def test_commands_keep_tools() -> None:
    output = [*called("add", "4"), assistant("4")]
    commands = {choice.algorithm: choice.commands[1] for choice in advised(grid([[1.0, 0.0]] * 120, output=output)).choices}
    assert "--to nemo-rl:nemo-gym" in commands["GRPO"]
    assert "--to nemo-rl:dpo-messages" in commands["DPO"]
    offered = advised(mixed(), answered=0.1, tools=True).choices[0]  # and none called
    assert "--to nemo-rl:nemo-gym" in offered.commands[1]
    assert offered.against[-1].startswith("Few rows carry an expected answer, and tasks offer tools")
    commands = {choice.algorithm: choice.commands[1] for choice in advised(mixed()).choices}
    assert "--to nemo-rl:dpo " in commands["DPO"]


def test_the_json_form() -> None:
    row = json.loads(json.dumps(advised(mixed(), model="x").row()))
    assert row["recommended"] == "GRPO"
    assert row["choices"][0]["commands"]
    assert row["resources"]["billions"] is None


@pytest.mark.parametrize(
    ("model", "billions", "says"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5, "1 GPU of 24 GB"),
        ("HuggingFaceTB/SmolLM2-135M", 0.135, "1 GPU of 24 GB"),
        ("Qwen2.5-7B", 7, "1 to 2 GPUs"),
        ("meta-llama/Llama-3.1-8B-Instruct", 8, "1 to 2 GPUs"),
        ("qwen3_14b", 14, "between 8B and 32B"),
        ("Qwen3-30B-A3B", 30, "4 to 8 GPUs"),
        ("Mixtral-8x7B-v0.1", 56, "4 to 8 GPUs"),
        ("Llama-3.3-70B", 70, "several nodes"),
        ("gpt-oss", None, "does not say"),
        ("model-v2-4bit", None, "does not say"),
    ],
)
def test_resources(model: str, billions: float | None, says: str) -> None:
    found = resources(model)
    assert found.billions == billions
    assert says in found.says
