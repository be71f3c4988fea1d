"""What counts, and what the numbers are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.errors import UserError
from rollforge.records.items import assistant, function_call_output, user
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.rows import BadLine, rollout_from_row, row_of
from rollforge.stats import Profile, profile, summary
from tests.stats.made import called, grid, made


def stats(*rollouts: Rollout, **options: Any) -> Any:
    return profile(rollouts, **options).overall.stats


# What counts


def test_a_reward_outlives_failed_attempts_and_failures_count_once() -> None:
    timeout = Failure("model", "DeadlineExceeded", "took longer than 5 s")
    found = profile(
        [
            made(1.0, 0, 0, attempt=2),
            made(None, 0, 0),  # mended by the retry above
            made(None, 0, 1),
            made(None, 0, 1, outcome=Outcome.TIMEOUT, failure=timeout),  # the last one counts
            made(0.0, 1, 0, outcome=Outcome.POLICY_FAULT),
        ],
        planned=6,
    )
    s = found.overall.stats
    assert {name: n for name, n in s.outcomes.items() if n} == {"scored": 1, "policy_fault": 1, "timeout": 1}
    assert (s.judged, found.failed_attempts, found.not_run) == (2, 3, 3)
    assert s.coverage == pytest.approx(2 / 6)
    assert sum(s.outcomes.values()) + found.not_run == found.planned
    assert [(f.outcome, f.type, f.count, f.message) for f in found.failures] == [
        ("timeout", "DeadlineExceeded", 1, "took longer than 5 s")
    ]


def test_failures_come_before_or_after() -> None:
    rows = [made(None, 0, 0), made(1.0, 0, 0), made(None, 1, 0)]
    assert profile(rows).row() == profile([rows[1], rows[2], rows[0]]).row()


def test_without_an_index_every_row_is_a_rollout() -> None:
    found = profile([made(None, 0, None), made(None, 0, None), made(1.0, 0, None)])
    assert found.overall.stats.outcomes["infra_fault"] == 2
    assert found.not_run is None
    assert found.overall.stats.coverage == pytest.approx(1 / 3)


def test_keys_are_of_one_source_and_tasks_of_all() -> None:
    first, second = [made(1.0, 0, 0), made(None, 0, 1)], [made(0.0, 0, 0), made(0.0, 0, 1)]
    found = profile(first, second)
    assert found.overall.stats.outcomes["infra_fault"] == 1
    assert (found.overall.stats.tasks, found.overall.stats.at_k[-1].k, found.repeated) == (1, 2, 0)
    assert found.used == [2, 2]
    merged = profile([*first, *second])
    assert (merged.repeated, merged.overall.stats.outcomes["infra_fault"]) == (1, 0)


def test_bad_lines_are_counted_and_the_first_kept() -> None:
    lines = [BadLine("f", number, "blank line") for number in range(9)]
    found = profile([*lines, made()], keep_bad=2)
    assert (found.bad_count, found.bad, found.used) == (9, lines[:2], [1])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [made(1.0)],
        [made(0.5, index=None, reply="")],
        [made(None)],
        [made(None, t, i) for t in range(3) for i in range(3)],
    ],
    ids=["empty", "single", "silent", "one failure", "all failures"],
)
def test_little_or_nothing(rows: list[Rollout]) -> None:
    found = profile(rows)
    json.dumps(found.row(tasks=True), allow_nan=False)
    assert summary(found).startswith(f"{len(rows)} rollout")
    assert found.overall.stats.judged == sum(row.outcome.judged for row in rows)
    assert len(found.tasks()) == found.overall.stats.tasks


def test_environments_and_overall() -> None:
    found = profile([*grid([[1, 0], [1, 1]], env="b"), *grid([[0, 0]], env="a"), made(None, 7, env="c")])
    assert [(e.stats.name, e.stats.judged, e.stats.tasks) for e in found.environments] == [
        ("a", 2, 1),
        ("b", 4, 2),
        ("c", 0, 0),
    ]
    s = found.overall.stats
    assert (s.name, s.judged, s.tasks, s.groups.count) == ("overall", 6, 3, 3)
    assert s.reward.mean.value == pytest.approx(0.5)


def test_one_environment_is_all() -> None:
    found = profile(grid([[1, 0]]))
    assert found.environments[0].stats is found.overall.stats
    assert found.overall.stats.name == "math"


# Rewards


def test_rewards() -> None:
    s = stats(*grid([[1, 1], [0, 0.5], [0.2, 0.2, 0.2, 0.2]]))
    r = s.reward
    assert r.mean.value == pytest.approx(3.3 / 8)
    assert r.mean_of_tasks == pytest.approx((1 + 0.25 + 0.2) / 3)
    assert (r.min, r.p50, r.max, r.sft, r.sft_relaxed, r.outside) == (0, 0.2, 1, 2, 2, 0)
    assert (r.high, r.low) == (2 / 8, 5 / 8)
    assert r.solved.value == 0.25
    assert s.groups.std_within == pytest.approx(math.sqrt(2 * 0.25**2 / 5))
    assert [(b.low, b.count) for b in r.histogram] == [(0, 1), (0.2, 4), (0.5, 1), (1, 2)]


def test_sums_that_make_a_threshold_but_for_the_last_bit_reach_it() -> None:
    assert 0.1 * 7 > 0.7
    assert 0.7 - 0.2 < 0.5
    r = stats(*grid([[0.1 * 7, 0.7 - 0.2]])).reward
    assert (r.high, r.low) == (0, 0)


def test_groups_difficulty_and_pairs() -> None:
    s = stats(*grid([[1] * 5, [1, 1, 1, 1, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0] * 5, [0.1, 0.2, 0, 0, 0]]))
    assert (s.difficulty.easy, s.difficulty.medium, s.difficulty.hard, s.difficulty.unsolved) == (2, 1, 1, 2)
    assert s.difficulty.always == 1
    assert s.difficulty.rates == [2, 0, 1, 0, 1, 0, 0, 0, 1, 1]
    g = s.groups
    assert (g.count, g.no_signal, g.no_signal_high, g.pairs) == (6, 2, 1, 4)
    assert g.no_signal_share == pytest.approx(1 / 3)


def test_k_attempts() -> None:
    s = stats(*grid([[1, 0, 0, 0], [1, 1, 0], [0]]))
    assert [(row.k, row.tasks) for row in s.at_k] == [(1, 3), (2, 2), (4, 1)]
    one, two, four = s.at_k
    assert [one.pass_at, one.pass_all, one.avg, one.best, one.majority] == pytest.approx([(1 / 4 + 2 / 3 + 0) / 3] * 5)
    assert two.pass_at == pytest.approx((1 / 2 + 1) / 2)
    assert two.pass_all == pytest.approx((0 + 1 / 3) / 2)
    assert (four.pass_at, four.pass_all, four.avg) == (1.0, 0.0, 0.25)


@pytest.mark.parametrize(
    ("answers", "majority"),
    [
        (["4", "4", "5"], 1.0),
        (["5", "5", "4"], 0.0),
        ([None, "", "4"], 1.0),
        (["4", "5", None], 0.5),
        (["4 ", " 4", "5"], 1.0),
        ([4, 4, 5], 1.0),
        ([None, "", []], None),
    ],
)
def test_majority(answers: list[Any], majority: float | None) -> None:
    rows = [
        made(float("4" in str(answer)), 0, index, reply="ignored", fields={"extracted_answer": answer})
        for index, answer in enumerate(answers)
    ]
    assert stats(*rows).at_k[0].k == 1
    assert stats(*rows, made(0.0, 0, 3, fields={"extracted_answer": None})).at_k[-1].majority == majority


def test_the_reply_is_the_answer_where_none_was_extracted() -> None:
    replies = {"The  Answer": 1.0, "the answer\n": 1.0, "else": 0.0, "": 0.0}
    s = stats(*(made(reward, 0, index, reply=reply) for index, (reply, reward) in enumerate(replies.items())))
    assert (s.at_k[-1].majority, s.answers.voting, s.answers.silent) == (1.0, 3, 1)


def test_success_threshold() -> None:
    rows = grid([[0.5, 0.49], [1.0 - 1e-12, 0]])
    assert stats(*rows).reward.solved.value == 0.25
    assert stats(*rows, success=0.5).reward.solved.value == 0.5


def test_any_reward_is_written_as_json() -> None:
    rows = grid([[-1e308, 1e308], [1e308, 0.0], [True, -2.0000000000000004]])
    row = profile(rows).row(tasks=True)
    json.dumps(row, allow_nan=False)
    assert row["overall"]["reward"]["outside"] == 4
    assert row["overall"]["reward"]["std"] is None


def test_a_reward_of_minus_zero_is_zero() -> None:
    row = profile(grid([[-0.0, -0.0], [-1e-12, 0.0]], fields={"penalty": -0.0})).row(tasks=True)
    assert "-0.0" not in json.dumps(row)


# The conversation


def test_tokens_turns_tools_and_times() -> None:
    output = [
        {"type": "reasoning", "summary": []},
        *called("add", "3"),
        *called("add", '{"error": "no such number"}', "c1"),
        *called("find", "Error: not there", "c2"),
        assistant("done"),
    ]
    usage = {"input_tokens": 10, "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 5}}
    rows = [
        made(1.0, 0, 0, output=output, response={"usage": usage}, seconds={"total": 2.0, "tools": 0.5}, attempt=3),
        made(0.0, 0, 1, output=[], response={"usage": None}, seconds={"total": 4.0}),
    ]
    s = stats(*rows)
    assert (s.tokens["input"].total, s.tokens["output"].n, s.tokens["reasoning"].mean) == (10, 1, 5)
    assert (s.turns.max, s.turns.min, s.calls.total, s.call_errors) == (4, 0, 3, 2)
    assert [(t.name, t.calls, t.errors, t.rollouts) for t in s.tools] == [("add", 2, 1, 1), ("find", 1, 1, 1)]
    assert (s.seconds["total"].p50, s.seconds["tools"].n, s.attempts.max) == (3.0, 1, 3)
    assert (s.texts.reasoning, s.texts.no_reply) == (1, 1)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ('{"error": "bad"}', True),
        ('{"error": null, "value": 1}', False),
        ('{"detail": "Not Found"}', True),
        ('{"detail": "Not Found", "id": 1}', False),
        ("Error: division by zero", True),
        ("Traceback (most recent call last):\n  ...", True),
        ("0 errors", False),
        ('{"error"', False),
        ("", False),
    ],
)
def test_tool_errors(output: str, error: bool) -> None:
    assert stats(made(output=called("t", output))).call_errors == int(error)


def test_a_call_fails_at_most_once() -> None:
    again, stray = function_call_output("c0", "Error: still"), function_call_output("c9", "Error: whose?")
    others = [*called("t", "Error: no", "c1"), *called("u", "ok", "c2")]
    s = stats(made(output=[*called("t", "Error: no"), again, stray, *others]))
    assert (s.calls.total, s.call_errors) == (3, 2)
    assert [(tool.name, tool.calls, tool.errors) for tool in s.tools] == [("t", 2, 2), ("u", 1, 0)]


def test_parallel_calls_without_ids_fail_one_by_one() -> None:
    calls = [{"type": "function_call", "name": name, "arguments": "{}"} for name in "ab"]
    outputs = [{"type": "function_call_output", "output": text} for text in ("ok", "Error: no")]
    assert [(tool.name, tool.errors) for tool in stats(made(output=[*calls, *outputs])).tools] == [("a", 0), ("b", 1)]


def test_parallel_calls_are_one_turn() -> None:
    calls = [called("a", "", "c0")[0], called("b", "", "c1")[0]]
    outputs = [function_call_output("c0", "1"), function_call_output("c1", "2")]
    assert stats(made(output=[*calls, *outputs, assistant("x"), user("go on"), assistant("y")])).turns.max == 3


def test_cut_answers_and_copies() -> None:
    thought = [{"type": "reasoning", "summary": [{"text": "hm"}]}]
    rows = [
        made(0, 0, 0, reply="a"),
        made(0, 0, 1, reply="a"),
        made(0, 0, 2, output=[*thought, assistant("a")]),
        made(0, 1, 0, reply="a"),
        made(0, 1, 1, output=[], response={"status": "incomplete", "incomplete_details": {"reason": "max_turns"}}),
        made(0, 1, 2, output=[], response={"status": "incomplete", "incomplete_details": None}),
    ]
    t = stats(*rows).texts
    assert (t.same_reply, t.same_conversation) == (2, 1)
    assert (t.truncated, t.truncated_by) == (2, {"max_turns": 1, "unknown": 1})


def test_what_says_nothing_is_no_copy() -> None:
    thought = [{"type": "reasoning", "summary": [{"text": "hm"}]}]
    said: list[Any] = [[assistant("")], [assistant(" \n")], [*thought, assistant("")], []]
    found = profile([made(0.0, task, 4 * n + i, output=said[i]) for task in range(5) for n in range(3) for i in range(4)])
    assert (found.overall.stats.texts.same_reply, found.overall.stats.texts.same_conversation) == (0, 0)
    assert "duplicates" not in {finding.check for finding in found.overall.findings}
    silent = profile([made(0.0, task, i, output=called("t", "x")) for task in range(5) for i in range(4)])
    assert (silent.overall.stats.texts.same_reply, silent.overall.stats.texts.same_conversation) == (15, 15)


def test_token_ids() -> None:
    def call(prompt: list[int], generated: list[int]) -> dict[str, Any]:
        ids = {"prompt_token_ids": prompt, "generation_token_ids": generated}
        return {**assistant("x"), **ids, "generation_log_probs": [0.0] * len(generated)}

    rows = [
        made(0, 0, 0, output=[call([1], [2, 3]), user("more"), call([1, 2, 3, 4], [5])]),
        made(0, 0, 1, output=[call([1], [2, 3]), user("more"), call([1, 9, 3, 4], [5])]),
        made(0, 0, 2),
    ]
    s = stats(*rows)
    assert (s.texts.token_ids, s.texts.contiguous) == (2, 1)
    assert (s.tokens["output"].total, s.tokens["input"].n, s.turns.max) == (6, 2, 2)


# The verdict's fields


def test_metrics_are_the_verdicts_numbers() -> None:
    rows = []
    for task in range(3):
        for index in range(2):
            reward = float(index)
            fields = {
                "accuracy": bool(index),
                "level": task,  # the task's
                "limit": 10,  # constant everywhere: nobody can tell
                "task_id": task,
                "seed": index,
                "_ng_attempt_index": index,
                "name": "x",
                "partial": 0.5 if index else None,
                "reward_components": {"format": 0.0, "right": reward},
            }
            rows.append(made(reward, task, index, fields=fields))
    s = stats(*rows)
    assert list(s.metrics) == ["accuracy", "limit", "partial", "reward_components.format", "reward_components.right"]
    assert s.task_fields == ["level"]
    assert (s.metrics["accuracy"].mean, s.metrics["partial"].n, s.metrics["limit"].std) == (0.5, 3, 0.0)


def test_without_evidence_a_number_is_a_metric() -> None:
    """One rollout per task, or rewards that are as constant as the number."""
    assert "score" in stats(*(made(float(t), t, fields={"score": t}) for t in range(2))).metrics
    always = [made(float(t), t, index, fields={"score": t}) for t in range(2) for index in range(2)]
    assert "score" in stats(*always).metrics


def test_hostile_names_do_not_fill_the_memory() -> None:
    rows = [made(0, 0, i, fields={f"m{i}_{j}": 1.0 for j in range(50)}, output=called(f"tool{i}", "")) for i in range(1200)]
    s = stats(*rows)
    assert len(s.metrics) < 400
    assert len(s.tools) == 1000


# Rows of every shape


def shapes() -> Iterator[dict[str, Any]]:
    params = {"input": "2+2?"}
    message = assistant("4")
    yield {"responses_create_params": params, "response": {"output": [message], "usage": None}, "reward": 1.0}
    yield {"responses_create_params": params, "output": [message], "reward": 1.0}
    yield {"responses_create_params": {"input": [{"role": "user", "content": "2+2?"}]}, "output": [], "reward": -2.5}
    yield {
        "responses_create_params": params,
        "response": {"output": [{"type": "function_call", "name": "f", "arguments": "{"}]},
        "reward": 10,
        "_ng_task_index": 0,
        "_ng_rollout_index": 0,
        "agent_ref": {"name": "agent"},
    }
    yield {
        "responses_create_params": params,
        "response": {"output": [message]},
        "reward": 0.0,
        "_ng_failure_class": "judge_failed",
        "_ng_failure_judge_error": "no verdict",
        "_ng_task_index": 0,
        "_ng_rollout_index": 1,
    }


def test_rows_of_both_shapes() -> None:
    found = profile([rollout_from_row(row) for row in shapes()])
    s = found.overall.stats
    assert (s.judged, s.outcomes["judge_fault"]) == (4, 1)
    assert found.failures[0].message == "no verdict"


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "a"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_row_is_refused_or_counted(data: st.DataObject) -> None:
    """Anything may stand anywhere in a row."""
    row = row_of(made(1.0, output=[*called("add", "1"), assistant("4")], fields={"accuracy": 1.0}, seconds={"total": 1.0}))
    place: Any = row
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(junk)
        break
    try:
        rollout = rollout_from_row(row)
    except UserError:
        return
    found = profile([rollout])
    json.dumps(found.row(tasks=True), allow_nan=False)
    assert sum(found.overall.stats.outcomes.values()) == 1


# The documented form


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/statistics.md").read_text()
    row = profile(
        grid([[1, 0]], fields={"accuracy": 1.0}, seconds={"total": 1.0}, response={"usage": {"output_tokens": 1}})
    ).row(True)
    assert not {key for key in keys(row) if f"`{key}`" not in text}


def keys(value: Any) -> Iterator[str]:
    """Of all objects, save those keyed by names that come from data."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("math", "accuracy", "total", "output", "scored") and key not in list(Outcome):
                yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def test_profile_is_public() -> None:
    assert isinstance(profile([]), Profile)
