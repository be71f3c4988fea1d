"""What a trainer that drives environments live is handed: always tokens it can use, never a failure as a zero."""

from __future__ import annotations

import asyncio
import math
from copy import deepcopy
from typing import Any

import pytest

from rollforge.errors import InfraFault, RollforgeError, SetupError, UserError, VerifierFault
from rollforge.nemo.live import TransportError, mended, run_rows, trainable
from rollforge.records.items import TOKEN_FIELDS, Json


def row(number: int, prompt: str = "p") -> Json:
    params = {"input": [{"role": "user", "content": prompt}]}
    return {"responses_create_params": params, "agent_ref": {"name": "a"}, "_rowidx": number}


def call(prompt: list[int], new: list[int], logs: list[float] | None = None) -> Json:
    logs = [-0.5] * len(new) if logs is None else logs
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    return {**message, "prompt_token_ids": prompt, "generation_token_ids": new, "generation_log_probs": logs}


def result(reward: float, *items: Json) -> Json:
    return {"response": {"output": list(items or [call([1, 2], [3])])}, "reward": reward}


async def gathered(rows: list[Json], answers: dict[int, Any], limit: Any = None) -> dict[int, Json]:
    """The results by row; `answers` says what each attempt at a row gives, the last one for all further attempts."""
    tries = dict.fromkeys(answers, 0)

    async def run(one: Json) -> Json:
        number = one["_rowidx"]
        listed = answers[number] if isinstance(answers[number], list) else [answers[number]]
        found = listed[min(tries[number], len(listed) - 1)]
        tries[number] += 1
        await asyncio.sleep(0)
        if isinstance(found, Exception):
            raise found
        return dict(found)

    found = {}
    for task in run_rows(rows, run, limit, backoff=0):
        given, got = await task
        assert any(given is one for one in rows)
        found[given["_rowidx"]] = deepcopy(got)
        for item in got["response"]["output"]:  # as NeMo RL does, which takes results apart
            for name in TOKEN_FIELDS:
                item.pop(name, None)
    assert tries.keys() == found.keys() or None in found
    return found


def nemo_rl_accepts(got: Json) -> None:
    """The checks that end a batch in NeMo RL: contiguous prompts, finite log probabilities, something to train on."""
    seen: list[int] = []
    items = trainable(got)
    assert items
    for item in items:
        assert item["prompt_token_ids"][: len(seen)] == seen
        assert len(item["generation_log_probs"]) == len(item["generation_token_ids"])
        assert all(math.isfinite(value) for value in item["generation_log_probs"])
        seen = item["prompt_token_ids"] + item["generation_token_ids"]
    assert isinstance(got["responses_create_params"]["input"], list)
    assert isinstance(got["reward"], float)
    parts = got.get("reward_components")
    assert not parts or math.isclose(sum(parts.values()), got["reward"])


async def test_rows_come_back_with_their_fields_untouched() -> None:
    got = await gathered([row(7), row(8)], {7: result(1.0), 8: result(0.25, call([1], [2]), call([1, 2, 5], [6]))})
    assert [got[n]["reward"] for n in (7, 8)] == [1.0, 0.25]
    assert got[7]["agent_ref"] == {"name": "a"}
    assert "mask_sample" not in got[7]
    for one in got.values():
        nemo_rl_accepts(one)


async def test_what_fails_is_tried_again() -> None:
    got = await gathered([row(0)], {0: [InfraFault("503"), InfraFault("cut off"), result(0.5)]})
    assert got[0]["reward"] == 0.5
    assert "mask_sample" not in got[0]


@pytest.mark.parametrize(
    "failure",
    [
        InfraFault("dead"),
        VerifierFault("bad task"),
        SetupError("key"),
        KeyError("bug"),
        {"response": None},
        {"reward": None},
        {"response": {"output": [[call([1], [2])]]}, "reward": 1.0},
        {"response": {"output": ["hi"]}, "reward": 1.0},
        {"response": {"output": [None]}, "reward": 1.0},
        {**result(1.0), "reward_components": [1.0]},
        {**result(1.0), "reward_components": {"right": None}},
        result(10**400),
    ],
)
async def test_a_failure_is_masked_with_the_mean_of_its_group(failure: Any) -> None:
    answers = {0: result(1.0), 1: failure, 2: result(0.5), 3: result(0.0)}
    got = await gathered([row(0), row(1), row(2), row(3, "another prompt")], answers)
    assert got[1]["reward"] == 0.75
    assert got[1]["instance_config"] == {"mask_sample": True}
    assert got[1]["mask_sample"] is True
    assert got[1]["rollforge"]["masked"]
    for one in got.values():
        nemo_rl_accepts(one)


async def test_a_verdict_that_could_not_be_had_is_no_zero() -> None:
    judge_failed = {**result(0.0), "_ng_failure_class": "judge_failed", "_ng_failure_judge_error": "no verdict"}
    got = await gathered([row(0), row(1)], {0: result(1.0), 1: judge_failed})
    assert got[1]["reward"] == 1.0
    assert got[1]["mask_sample"] is True


async def test_what_was_generated_before_the_failure_is_kept() -> None:
    fault = InfraFault("cut off in the second turn")
    fault.partial = {"output": [call([1, 2], [9, 9])]}
    got = await gathered([row(0), row(1)], {0: result(1.0), 1: fault})
    assert [item["generation_token_ids"] for item in trainable(got[1])] == [[9, 9]]


async def test_a_group_without_any_verdict_borrows_from_another() -> None:
    got = await gathered([row(0), row(1, "b"), row(2, "b")], {0: result(0.5), 1: InfraFault("x"), 2: InfraFault("y")})
    assert [got[n]["reward"] for n in range(3)] == [0.5, 0.5, 0.5]
    assert [bool(got[n].get("mask_sample")) for n in range(3)] == [False, True, True]
    for one in got.values():
        nemo_rl_accepts(one)


async def test_many_failures_of_several_groups_all_come_back() -> None:
    prompts = ["a", "a", "b", "b", "b", "c"]
    answers = {number: result(1.0) if prompt == "a" else InfraFault("x") for number, prompt in enumerate(prompts)}
    got = await gathered([row(number, prompt) for number, prompt in enumerate(prompts)], answers)
    for one in got.values():
        nemo_rl_accepts(one)
    assert [bool(got[number].get("mask_sample")) for number in range(6)] == [False, False, True, True, True, True]


async def test_nothing_judged_at_all_is_an_error_of_the_infrastructure() -> None:
    with pytest.raises(TransportError, match="InfraFault: dead") as caught:
        await gathered([row(0)], {0: InfraFault("dead")})
    assert caught.value.status == 503


@pytest.mark.parametrize("failure", [SetupError("wrong key"), VerifierFault("the row has no input")])
async def test_what_is_wrong_with_rows_or_set_up_is_no_error_of_the_infrastructure(failure: RollforgeError) -> None:
    with pytest.raises(type(failure), match=str(failure)) as caught:
        await gathered([row(0)], {0: failure})
    assert not hasattr(caught.value, "status")


@pytest.mark.parametrize("failure", [SetupError("no such agent"), UserError("no head"), InfraFault("gone"), KeyError("bug")])
async def test_what_is_wrong_before_any_row_runs_is_told_to_every_row(failure: Exception) -> None:
    ran: list[Json] = []

    async def run(one: Json) -> Json:
        ran.append(one)
        return result(1.0)

    async def begin(_: Any) -> None:
        raise failure

    found = await asyncio.gather(*run_rows([row(0), row(1)], run, begin=begin), return_exceptions=True)
    expected = TransportError if isinstance(failure, (InfraFault, KeyError)) else type(failure)
    assert [type(one) for one in found] == [expected, expected]
    assert not ran


async def test_a_rollout_without_tokens_keeps_its_reward_and_is_masked() -> None:
    silent = {"response": {"output": [{"type": "message", "role": "assistant", "content": []}]}, "reward": 0.0}
    got = await gathered([row(0), row(1)], {0: result(1.0), 1: silent})
    assert (got[1]["reward"], got[1]["mask_sample"]) == (0.0, True)
    nemo_rl_accepts(got[1])


async def test_a_server_that_gives_no_tokens_is_not_dressed_up() -> None:
    silent = {"response": {"output": []}, "reward": 1.0}
    got = await gathered([row(0)], {0: silent})
    assert got[0]["response"]["output"] == []
    assert "mask_sample" not in got[0]


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([call([1], [2]), call([1, 3], [4]), call([1, 3, 4], [5])], [[2]]),
        ([call([1], [2]), call([1, 2, 3], [4], [math.nan])], [[2]]),
        ([call([1], [2]), call([1, 2, 3], [4, 5], [-1.0])], [[2]]),
        ([call([1], [2]), {**call([1, 2, 3], [4]), "generation_token_ids": 5}], [[2]]),
        ([call([1], [2]), {**call([1, 2, 3], [4]), "prompt_token_ids": None}], [[2]]),
        ([call([1], [2]), {**call([1, 2, 3], [4]), "generation_log_probs": -0.5}], [[2]]),
        ([call([1], [2]), call([1, 2, 3], ["token_id:4"])], [[2]]),  # type: ignore[list-item]
        ([call([1], [2]), call([1, 2, 3], [4.0])], [[2]]),  # type: ignore[list-item]
        ([call([1], [2]), call([1, 2, 3], [None])], [[2]]),  # type: ignore[list-item]
        ([call([1], [2]), call([1, 2, [3]], [4])], [[2]]),  # type: ignore[list-item]
    ],
)
def test_tokens_that_do_not_continue_are_left_out(items: list[Json], kept: list[list[int]]) -> None:
    got = mended(result(1.0, *items))
    assert [item["generation_token_ids"] for item in trainable(got)] == kept
    assert len(got["response"]["output"]) == len(items)
    assert got["mask_sample"] is True
    assert got["reward"] == 1.0


async def test_parts_of_the_reward_are_there_for_every_sample() -> None:
    parts = {**result(1.0), "reward_components": {"right": 0.75, "short": 0.25}}
    got = await gathered([row(0), row(1)], {0: parts, 1: InfraFault("x")})
    assert got[1]["reward_components"] == {"right": 0.75, "short": 0.25}
    nemo_rl_accepts(got[1])


async def test_parts_that_do_not_add_up_for_the_group_are_left_out() -> None:
    whole, plain, nothing = {**result(1.0), "reward_components": {"right": 1.0}}, result(1.0), result(0.0)
    got = await gathered([row(n) for n in range(3)], {0: deepcopy(whole), 1: deepcopy(nothing), 2: InfraFault("x")})
    assert (got[2]["reward"], got[2]["reward_components"]) == (0.5, {"right": 0.5})
    got = await gathered([row(n) for n in range(4)], {0: whole, 1: nothing, 2: InfraFault("x"), 3: plain})
    assert got[2]["reward"] == pytest.approx(2 / 3)
    assert "reward_components" not in got[2]
    for one in got.values():
        nemo_rl_accepts(one)


@pytest.mark.parametrize("odd", [{"instance_config": "abc"}, {"rollforge": ["x"]}, {"responses_create_params": None}])
async def test_a_masked_row_says_why_whatever_the_agent_answered(odd: Json) -> None:
    answer = {**result(0.0, call([1], [2], [math.nan])), **odd}
    got = await gathered([row(0), row(1)], {0: result(1.0), 1: answer})
    assert (got[1]["reward"], got[1]["instance_config"]) == (0.0, {"mask_sample": True})
    assert got[1]["rollforge"]["masked"] == "log probabilities are missing or no numbers"
    nemo_rl_accepts(got[1])


async def test_a_failure_of_an_odd_row_is_masked_too() -> None:
    fault = InfraFault("cut off")
    fault.partial = {"output": ["hi"]}
    got = await gathered([row(0), {**row(1), "_ng_task_index": 0}], {0: result(1.0), 1: fault})
    assert got[1]["rollforge"]["masked"] == "InfraFault: cut off"
    nemo_rl_accepts(got[1])
    strange = {**row(1), "_ng_task_index": 0, "responses_create_params": {"input": 5}}
    ended = await asyncio.wait_for(asyncio.gather(*run_rows([strange], failing), return_exceptions=True), 5)
    assert [type(one) for one in ended] == [TransportError]


async def failing(_: Json) -> Json:
    raise KeyError("bug")


async def test_a_semaphore_bounds_what_is_in_flight() -> None:
    now, most = 0, 0

    async def run(one: Json) -> Json:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return result(1.0)

    await for_all(run_rows([row(n) for n in range(20)], run, asyncio.Semaphore(3)))
    assert most == 3


async def test_nothing_runs_on_when_the_iterator_is_dropped() -> None:
    ended = asyncio.Event()

    async def run(one: Json) -> Json:
        if one["_rowidx"] == 0:
            return result(1.0)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return {}

    tasks = run_rows([row(0), row(1)], run)
    await next(tasks)  # type: ignore[misc]
    tasks.close()  # type: ignore[attr-defined]
    await asyncio.wait_for(ended.wait(), 5)


async def for_all(tasks: Any) -> list[Any]:
    return [await task for task in tasks]
