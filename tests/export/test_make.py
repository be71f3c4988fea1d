from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from rollforge.bulk.record import Record
from rollforge.export.make import (
    How,
    answer_of,
    hosted,
    lost,
    make_demonstration,
    make_half,
    make_judged,
    make_prompt,
    origin_of,
)
from rollforge.export.target import Refused
from tests.export.toy import call, output, row, said

TOOL = {"type": "function", "name": "add", "description": "adds", "parameters": {"type": "object"}, "strict": True}


def record(value: dict[str, Any]) -> Record:
    return Record(json.dumps(value).encode())


def demonstration(value: dict[str, Any], **how: Any) -> Any:
    made = record(value)
    return make_demonstration(made, origin_of(made, 0, 7), How(**how))


def with_output(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return row(response={"output": list(items)}, **fields)


def test_a_conversation_with_tools_is_canonical() -> None:
    params = {
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Use tools."},
            {"role": "user", "content": [{"text": "2+"}, {"text": "2"}]},
        ],
        "tools": [TOOL],
    }
    items = [
        call("add", '{"a": 2, "b": 2}', None),
        call("add", "", None),
        output("4", None),
        output("0", None),
        said("4"),
    ]
    made = demonstration(with_output(*items, responses_create_params=params))
    assert made.prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "2+2"},
    ]
    calls = [
        {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}},
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {}}},
    ]
    assert made.completion == [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0", "content": "4"},
        {"role": "tool", "tool_call_id": "call_1", "content": "0"},
        {"role": "assistant", "content": "4"},
    ]
    assert made.tools == [
        {"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object"}}}
    ]


def test_ids_go_on_after_those_of_the_prompt() -> None:
    history = [
        {"role": "user", "content": "2+2?"},
        call("add", '{"a": 2}', None),
        output("4", None),
        said("4"),
        {"role": "user", "content": "3+3?"},
    ]
    made = demonstration(
        with_output(call("add", "{}", None), output("6", None), said("6"), responses_create_params={"input": history})
    )
    assert [message["tool_calls"][0]["id"] for message in (made.prompt[1], made.completion[0])] == ["call_0", "call_1"]
    assert [made.prompt[2]["tool_call_id"], made.completion[1]["tool_call_id"]] == ["call_0", "call_1"]


def test_ids_are_text_and_no_two_calls_get_the_same() -> None:
    calls = [call("add", "{}", name) for name in ("call_1", None, 7, None)]
    outputs = [output(text, name) for text, name in (("c", 7), ("a", "call_1"), ("b", None), ("d", ""))]
    for history in ([], [*calls[2:3], output("7", 7)]):
        asked = [{"role": "user", "content": "?"}, *history, {"role": "user", "content": "?"}]
        made = demonstration(with_output(*calls, *outputs, said("4"), responses_create_params={"input": asked}))
        first, *results, _ = made.completion
        names = [one["id"] for one in first["tool_calls"]]
        assert names == ["call_1", "call_2", "7", "call_3" if not history else "call_4"]
        assert [(one["tool_call_id"], one["content"]) for one in results] == list(zip(names, "abcd", strict=True))
    chat = [
        {"role": "assistant", "content": "", "tool_calls": [{"id": 7, "function": {"name": "add", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": 7, "content": "4"},
    ]
    made = demonstration(with_output(*chat, said("4")))
    assert made.completion[0]["tool_calls"][0]["id"] == made.completion[1]["tool_call_id"] == "7"


def test_a_result_without_an_id_is_of_a_call_that_has_none() -> None:
    calls = [call("add", "{}", "x"), call("add", "{}", None)]
    made = demonstration(with_output(*calls, output("second", None), output("first", "x"), said("4")))
    assert [(one["tool_call_id"], one["content"]) for one in made.completion[1:3]] == [("x", "first"), ("call_1", "second")]


def test_a_result_at_the_head_of_the_response_is_of_the_last_call_of_the_prompt() -> None:
    asked = [{"role": "user", "content": "?"}, call("add", "{}", "a"), output("1", "a"), said("1"), call("add", "{}", "b")]
    made = demonstration(with_output(output("2", None), said("4"), responses_create_params={"input": asked}))
    assert made.completion[0] == {"role": "tool", "tool_call_id": "b", "content": "2"}


@pytest.mark.parametrize(
    ("reasoning", "message"),
    [
        ("keep", {"role": "assistant", "content": "4", "reasoning_content": "easy"}),
        ("inline", {"role": "assistant", "content": "<think>easy</think>4"}),
        ("drop", {"role": "assistant", "content": "4"}),
    ],
)
def test_reasoning(reasoning: str, message: dict[str, Any]) -> None:
    thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "easy"}]}
    assert demonstration(with_output(thought, said("4")), reasoning=reasoning).completion == [message]
    blank = {**thought, "content": [{"type": "reasoning_text", "text": ""}]}
    assert demonstration(with_output(blank, said("4")), reasoning=reasoning).completion == [message]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "there is no response"),
        ([call("add", "{"), output("?"), said("4")], "a tool call's arguments are not a JSON object"),
        ([call("add", "[1]"), output("?"), said("4")], "a tool call's arguments are not a JSON object"),
        ([call("add", '{"a": 1, "a": 2}'), output("?"), said("4")], "a tool call's arguments have a key twice"),
        ([call("add", '{"a": {"b": "", "b": ":"}}'), output("?"), said("4")], "a tool call's arguments have a key twice"),
        ([call("add", "{}"), output("4")], "the conversation does not end with the assistant's message"),
        ([said("")], "the last answer is empty"),
        ([said(" \n ")], "the last answer is empty"),
    ],
)
def test_refusals(items: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        demonstration(with_output(*items))


@pytest.mark.parametrize("asked", ["", " \n", [], [{"role": "system", "content": " "}, {"role": "user", "content": ""}]])
def test_a_prompt_that_says_nothing_is_empty(asked: Any) -> None:
    with pytest.raises(Refused, match="the prompt is empty"):
        demonstration(row(responses_create_params={"input": asked}))


def test_what_is_shown_after_the_last_action_is_left_out() -> None:
    """An environment played by steps shows something after the step that ends it, too."""
    seen = [{"role": "user", "content": text} for text in (".P.", "..P")]
    value = with_output(said("on"), seen[0], said("on"), *seen)
    made = record(value)
    for completion in (
        demonstration(value).completion,
        make_half(made, origin_of(made, 0, 7)).completion,
        make_judged(made, origin_of(made, 0, 7), True).completion,
    ):
        assert [message["content"] for message in completion] == ["on", ".P.", "on"]
    with pytest.raises(Refused, match="there is no response"):
        demonstration(with_output(*seen))


def test_a_rollout_may_end_with_a_call() -> None:
    assert demonstration(with_output(call("submit", '{"x": 1}'))).completion[0]["content"] == ""


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"expected_answer": "4", "answer": "5"}, "4"),
        ({"expected_answer": 1081}, "1081"),
        ({"expected_answer": True}, "True"),
        ({"expected_answer": ""}, None),
        ({"expected_answer": ["4"]}, None),
        ({"label": "safe"}, "safe"),
        ({"verifier_metadata": {"expected_answer": "4"}}, "4"),
        ({"reward_model": {"style": "rule", "ground_truth": 0.5}}, "0.5"),
        ({"responses_create_params": {"input": "?", "metadata": {"ground_truth": "7"}}}, "7"),
        ({"responses_create_params": {"input": "?", "ground_truth": "8"}}, "8"),
        ({}, None),
        ({"ground_truth": ["Paris", "paris"], "label": "London"}, None),  # whose is that label?
        ({"ground_truth": [], "label": "Paris"}, "Paris"),
        ({"expected_answer": False, "label": "yes"}, "False"),
    ],
)
def test_the_expected_answer_is_found(fields: dict[str, Any], answer: str | None) -> None:
    assert answer_of(record(row(**fields))) == answer


def test_a_named_answer_may_be_anything() -> None:
    made = record(row(tests={"cases": [[1, 2]]}, **{"a.b": "dotted"}, expected_answer="4"))
    assert answer_of(made, "tests.cases") == "[[1,2]]"
    assert answer_of(made, "a.b") == "dotted"
    assert answer_of(made, "tests.none") is None


def test_a_prompt_has_what_live_training_needs() -> None:
    made = record(row(expected_answer="4", _ng_task_index=3, _ng_rollout_index=1))
    prompt = make_prompt(made, origin_of(made, 0, 7))
    assert prompt.origin.id == "3-1"
    assert prompt.params == {"input": [{"role": "user", "content": "2 + 2?"}]}
    assert prompt.fields["expected_answer"] == "4"
    assert prompt.output == "4"


def test_halves_that_differ_in_ids_only_say_the_same() -> None:
    def half(*items: dict[str, Any]) -> Any:
        made = record(with_output(*items))
        return make_half(made, origin_of(made, 0, 0))

    one = half(call("add", '{"a": 1}', "x"), output("1", "x"), said("1"))
    assert one.says_the_same(half(call("add", '{"a":1}', "y"), output("1", "y"), said("1")))
    assert not one.says_the_same(half(call("add", '{"a": 2}', "x"), output("1", "x"), said("1")))
    assert not one.says_the_same(half(said("2")))


def test_a_prompt_has_the_tasks_fields_and_not_the_verdicts() -> None:
    verdict = {"extracted_answer": "5", "accuracy": 0.0, "_ng_rollout_index": 3, "pass@1/mean": 0.5}
    block = {"outcome": "scored", "task_fields": {"accuracy": "high"}}
    value = with_output(said("5"), expected_answer="4", level="easy", rollforge=block, **verdict)
    made = record(value)
    fields = make_prompt(made, origin_of(made, 0, 0)).fields
    assert fields.pop("agent_ref", None) == value.get("agent_ref")
    assert fields == {"expected_answer": "4", "level": "easy", "accuracy": "high"}


HOSTED = {"type": "web_search_preview"}


def test_tools_that_are_no_functions_are_left_out() -> None:
    params = {"input": "q", "tools": [HOSTED, TOOL, {"type": "function", "description": "nameless"}]}
    made = demonstration(row(responses_create_params=params))
    assert [tool["function"]["name"] for tool in made.tools] == ["add"]
    stored = record(row(responses_create_params=params))
    prompt = make_prompt(stored, origin_of(stored, 0, 0))
    assert [tool["function"]["name"] for tool in prompt.tools] == ["add"]
    assert prompt.params["tools"][0] == HOSTED  # live training gets the task as it is
    assert hosted(stored) == ["function without a name", "web_search_preview"]


def test_a_call_of_a_tool_that_is_no_function_is_refused() -> None:
    params = {"input": "q", "tools": [{"type": "bash_20250124", "name": "bash"}]}
    with pytest.raises(Refused, match="calls a tool of type bash_20250124"):
        demonstration(with_output(call("bash", "{}"), output("ok"), said("4"), responses_create_params=params))


def test_a_prompt_does_not_need_a_response_that_messages_can_hold() -> None:
    search = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}}
    stored = record(with_output(search, said("found"), said("it")))
    assert make_prompt(stored, origin_of(stored, 0, 0)).output == "it"
    with pytest.raises(Refused) as refused:
        make_demonstration(stored, origin_of(stored, 0, 0))
    assert "web_search_call" in str(refused.value)
    assert "--model" not in str(refused.value)


def test_a_refusal_after_text_is_a_refusal() -> None:
    parts = [{"type": "output_text", "text": "hm"}, {"type": "refusal", "refusal": "no"}]
    stored = with_output({"type": "message", "role": "assistant", "content": parts})
    with pytest.raises(Refused, match="refused to answer"):
        demonstration(stored)
    assert lost(record(stored), How()) == ["a refusal"]


def test_a_refusal_alone_is_no_side_of_a_pair_and_leaves_no_key_beside_a_text() -> None:
    part = {"type": "refusal", "refusal": "I cannot help."}
    message = {"type": "message", "role": "assistant"}
    for alone in ([part], [{"type": "output_text", "text": " "}, part]):
        thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}
        refused = record(with_output(thought, {**message, "content": alone}))
        for how in (How(), How("inline"), How("drop")):
            for make in (make_half, partial(make_judged, label=False)):
                with pytest.raises(Refused, match="the model refused to answer"):
                    make(refused, origin_of(refused, 0, 0), how=how)
    text = {"type": "output_text", "text": "Sure, here."}
    spoken = record(with_output({**message, "content": [text, part]}))
    half = make_half(spoken, origin_of(spoken, 0, 0))
    assert half.completion == [{"role": "assistant", "content": "Sure, here."}]
    params = {
        "input": [{"role": "user", "content": "1?"}, {**message, "content": [text, part]}, {"role": "user", "content": "2?"}]
    }
    asked = record(row(responses_create_params=params))
    assert make_prompt(asked, origin_of(asked, 0, 0)).messages[1] == {"role": "assistant", "content": "Sure, here."}


def test_results_come_in_the_order_of_their_calls() -> None:
    def calls(*ids: str) -> list[dict[str, Any]]:
        return [call("weather", json.dumps({"of": one}), one) for one in ids]

    def outputs(*ids: str) -> list[dict[str, Any]]:
        return [output(f"of {one}", one) for one in ids]

    def results(messages: list[dict[str, Any]]) -> list[str]:
        return [message["content"] for message in messages if message["role"] == "tool"]

    crossed = [
        *calls("a", "b", "c"),
        *outputs("c", "zz", "a"),
        *calls("a"),
        *outputs("a"),
        *calls("d", "e"),
        *outputs("e", "d"),
    ]
    made = demonstration(with_output(*crossed, said("done")))
    assert results(made.completion) == ["of a", "of c", "of zz", "of a", "of d", "of e"]
    asked = [{"role": "user", "content": "?"}, *calls("a", "b"), *outputs("b", "a"), {"role": "user", "content": "and?"}]
    params = {"input": [*asked, *calls("x", "y")]}
    made = demonstration(row(responses_create_params=params, response={"output": [*outputs("y", "x"), said("done")]}))
    assert (results(made.prompt), results(made.completion)) == (["of a", "of b"], ["of x", "of y"])
