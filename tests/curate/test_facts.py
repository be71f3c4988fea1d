"""What the names of expressions find in rows of every shape."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rollforge.bulk.record import Record
from rollforge.curate.facts import ABOUT, GROUP, LATER, ROOTS, fact
from rollforge.errors import UserError
from tests.curate.made import called, record, said

THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
REFUSAL = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
CHAT: list[Any] = [
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "Error: no"},
    {"role": "assistant", "content": "four"},
]
"""Chat messages among the items, as exports read them, too."""
IDS = {"prompt_token_ids": [1, 2], "generation_token_ids": [3, 4, 5], "generation_log_probs": [0.1, 0.2, 0.3]}
USAGE = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12, "output_tokens_details": {"reasoning_tokens": 2}}


@pytest.mark.parametrize(
    ("name", "row", "wanted"),
    [
        ("reward", record(reward=0.5), 0.5),
        ("tokens", record(response={"usage": USAGE}), 5),
        ("tokens", record(response={"usage": {"prompt_tokens": 3, "completion_tokens": 4}}), 4),
        ("tokens", record(response={"usage": {"input_tokens": 3.0, "output_tokens": 4.0}}), 4),
        ("tokens", record([{**said("four"), **IDS}]), 3),
        ("tokens", record([said("12345678é")]), 3),
        ("tokens", record([*called('{"a": 1}'), THOUGHT, said("x")]), 4),
        ("tokens", record([]), 0),
        ("estimated", record(), True),
        ("estimated", record(response={"usage": USAGE}), False),
        ("estimated", record([{**said("four"), **IDS}]), False),
        ("estimated", record(response={"usage": None}), True),
        ("prompt_tokens", record(response={"usage": USAGE}), 7),
        ("prompt_tokens", record(), 2),
        ("total_tokens", record(response={"usage": USAGE}), 12),
        ("total_tokens", record(), 3),
        ("turns", record([*called(), *called(), said("x")]), 3),
        ("turns", record([THOUGHT, said("x")]), 1),
        ("turns", record([]), 0),
        ("turns", record([{**said("a"), **IDS}, {**said("b"), **IDS}]), 2),
        ("tool_calls", record([*called(), *called(), said("x")]), 2),
        ("tool_errors", record([*called(output="Error: no"), *called(), said("x")]), 1),
        ("tool_errors", record([*called(output='{"error": "no"}'), *called(output='{"error": null}')]), 1),
        ("chars", record([THOUGHT, *called("{}"), said("four")]), 11),
        ("truncated", record(), False),
        ("truncated", record(response={"incomplete_details": {"reason": "max_output_tokens"}}), True),
        ("truncated", record(response={"status": "incomplete"}), True),
        ("empty", record([]), True),
        ("empty", record([said("  \n")]), True),
        ("empty", record([THOUGHT]), True),
        ("empty", record([REFUSAL]), True),
        ("empty", record(called()), False),
        ("empty", record(), False),
        ("reasoning", record([THOUGHT, said("x")]), True),
        ("reasoning", record(), False),
        ("reasoning", record([{"type": "reasoning", "summary": []}, said("x")]), False),
        ("reasoning", record([{"type": "reasoning", "summary": [], "encrypted_content": "gA"}, said("x")]), False),
        ("reasoning", record([said("<think>hm</think>4")]), True),
        ("reasoning", record([said("<think>\n\n</think>4")]), False),
        ("reasoning", record([{"role": "assistant", "content": "4", "reasoning_content": "hm"}]), True),
        ("refused", record([REFUSAL]), True),
        ("refused", record([{"role": "assistant", "content": None, "refusal": "no"}]), True),
        ("refused", record([{**called()[0], "arguments": {}}, REFUSAL]), True),
        ("refused", record([said('a refusal is no "refusal"')]), False),
        ("tool_calls", record(CHAT), 1),
        ("tool_errors", record(CHAT), 1),
        ("turns", record(CHAT), 2),
        ("chars", record(CHAT), 9),
        ("empty", record(CHAT[:1]), False),
        ("text", record([said("first"), *called(), said("last")]), "last"),
        ("text", record(called()), ""),
        ("prompt", record(), "2 + 2?"),
        ("prompt", record(responses_create_params={"input": "short"}), "short"),
        ("prompt", record(responses_create_params={"input": [{"role": "system", "content": "s"}]}), ""),
        ("env", record(), "math"),
        ("env", record(agent_ref={"type": "responses_api_agents", "name": "agent"}), "agent"),
        ("model", record(response={"model": "m"}), "m"),
        ("model", record(), None),
        ("outcome", record(), "scored"),
        ("repeat", record(_ng_rollout_index=3), 3),
        ("task.level", record(level="hard"), "hard"),
        ("task.level", record(), None),
        ("task.a.b", record(a={"b": 2}), 2),
        ("task.a.b", record(a="text"), None),
        ("metrics.accuracy", record(accuracy=True), 1.0),
        ("metrics.accuracy", record(accuracy="0.5"), None),
        ("metrics.accuracy", record(metrics={"accuracy": 0.5}), 0.5),
        ("metrics.accuracy", record(accuracy=1, metrics={"accuracy": 0.5}), 1),
        ("metrics.accuracy", record(metrics=[1]), None),
        ("usage.output_tokens_details.reasoning_tokens", record(response={"usage": USAGE}), 2),
        ("seconds.total", record(rollforge={"seconds": {"total": 1.5}}), 1.5),
        ("seconds.total", record(), None),
    ],
)
def test_facts(name: str, row: Record, wanted: Any) -> None:
    found = fact(name)(row)
    assert (found, type(found)) == (wanted, type(wanted))


def test_the_other_shape_of_rows() -> None:
    row = Record(json.dumps({"responses_create_params": {"input": "q"}, "output": [said("a")], "reward": 1}).encode())
    assert [fact(name)(row) for name in ("text", "turns", "truncated", "empty")] == ["a", 1, False, False]


def test_facts_of_broken_items_name_them() -> None:
    row = record([[1]])
    with pytest.raises(UserError, match=r"output\[0\] is list, not an item"):
        fact("turns")(row)
    assert fact("reward")(row) == 1.0


def test_every_name_has_its_line_and_travels() -> None:
    for name, about in ABOUT.items():
        assert about
        assert name in LATER or callable(fact(name))
    assert set(GROUP) <= set(ABOUT)
    for name in ("tokens", "task.a.b", "metrics.x"):
        assert pickle.loads(pickle.dumps(fact(name)))(record(a={"b": 1})) == fact(name)(record(a={"b": 1}))


def test_unknown_facts() -> None:
    for name in ("tokns", "task", "task.", "task..x", "group.size"):
        with pytest.raises(UserError, match="unknown fact"):
            fact(name)
    with pytest.raises(UserError, match=r"did you mean tokens or"):
        fact("tokns")


def test_every_name_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/curate.md").read_text(encoding="utf-8")
    for name, about in [*ABOUT.items(), *((f"{root}.<field>", about) for root, about in ROOTS.items())]:
        assert f"| `{name}` | {about} |" in page
