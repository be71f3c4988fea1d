from __future__ import annotations

import math
from typing import Any

import pytest

from rollforge.stats.aggregate import aggregate


def row(task: int | None, reward: Any, **more: Any) -> dict[str, Any]:
    index = {} if task is None else {"_ng_task_index": task}
    return {"responses_create_params": {"input": "?"}, "response": {"output": []}, "reward": reward, **index, **more}


def test_numbers_over_all_and_per_task() -> None:
    usage = [{"usage": {"output_tokens": n, "details": {"x": 1}}} for n in (10, 20, 60)]
    rows = [
        row(4, 1.0, right=True, response=usage[0], reward_components={"a": 0.5, "b": 0.5}, answer="x"),
        row(4, 0.0, right=False, response=usage[1], reward_components={"a": 0.0, "b": 0.0}),
        row(2, 0.5, response=usage[2], _rowidx=99),
    ]
    found = aggregate(rows)
    everything = found["agent_metrics"]
    assert (everything["rollouts"], everything["judged"]) == (3, 3)
    assert (everything["mean/reward"], everything["median/reward"], everything["std/reward"]) == (0.5, 0.5, 0.5)
    assert (everything["min/output_tokens"], everything["max/output_tokens"], everything["mean/output_tokens"]) == (
        10,
        60,
        30,
    )
    assert (everything["mean/right"], everything["mean/reward_components/a"]) == (0.5, 0.25)
    assert not {"mean/_rowidx", "mean/answer", "mean/details", "mean/_ng_task_index"} & everything.keys()
    second, fourth = found["group_level_metrics"]
    assert (second["_ng_task_index"], fourth["_ng_task_index"]) == (2, 4)
    assert (second["mean/reward"], second["std/reward"]) == (0.5, 0.0)
    assert fourth["std/output_tokens"] == pytest.approx(math.sqrt(50))
    assert found["key_metrics"] == {
        key: value for key, value in everything.items() if key.startswith("mean/") or key == "pass@2/reward"
    }


def test_pass_at_k_is_a_percentage_over_the_tasks_with_as_many_attempts() -> None:
    rows = [row(0, reward) for reward in (1, 0, 0, 0, 0)] + [row(1, 0)] + [row(2, 1) for _ in range(2)]
    found = aggregate(rows)["agent_metrics"]
    assert found["pass@1/reward"] == pytest.approx(100 * (0.2 + 0 + 1) / 3)
    assert found["pass@2/reward"] == pytest.approx(100 * (0.4 + 1) / 2)
    assert found["pass@4/reward"] == pytest.approx(80)
    assert found["pass@5/reward"] == pytest.approx(100)
    assert "pass@3/reward" not in found


def test_what_has_no_reward_is_counted_and_left_out() -> None:
    rows = [row(0, 1.0), row(0, 0.0, _ng_failure_class="judge_failed"), row(0, None, rollforge={"outcome": "infra_fault"})]
    rows += [row(0, 0.0, rollforge={"outcome": "policy_fault"}), row(0, "1"), row(1, None)]
    found = aggregate(rows)
    everything = found["agent_metrics"]
    assert (everything["rollouts"], everything["judged"], everything["mean/reward"]) == (6, 2, 0.5)
    assert found["group_level_metrics"][1] == {"_ng_task_index": 1, "rollouts": 1, "judged": 0}


def test_tasks_without_an_index_go_by_name_then_by_what_was_asked() -> None:
    rows = [row(None, 1.0, rollforge={"task": "a"}), row(None, 0.0, task_id="b"), row(None, 0.0, task_id="a")]
    rows += [row(None, 1.0), row(None, 0.0), row(None, 1.0, responses_create_params={"input": "other"})]
    groups = aggregate(rows)["group_level_metrics"]
    assert [group["rollouts"] for group in groups] == [2, 1, 2, 1]
    assert [group["task"] for group in groups][:2] == ["a", "b"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{"reward": 1}],
        [row(0, 1e308), row(0, 1e308), row(0, -1e308)],
        [row(10**30, 10**400), row(0, float("nan"))],
        [row(0, 1, rollforge=[], response=3, reward_components=[1], responses_create_params=None)],
        [row(None, 1, rollforge={"task": [], "outcome": []}, task_id={}, agent_ref=[])],
    ],
)
def test_odd_rows_give_finite_numbers(rows: list[dict[str, Any]]) -> None:
    found = aggregate(rows)
    assert found["agent_metrics"]["rollouts"] == len(rows)
    numbers = [*found["agent_metrics"].values(), *(v for group in found["group_level_metrics"] for v in group.values())]
    assert all(math.isfinite(number) for number in numbers if isinstance(number, float))
