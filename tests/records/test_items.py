"""The questions everybody asks of items have one answer each, whatever shape the items came in."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.records.items import (
    add_usage,
    assistant,
    check_items,
    check_params,
    final_text,
    function_call,
    function_call_output,
    input_items,
    model_calls,
    prompt_text,
    reasoning_text,
    system,
    text_of,
    token_drift,
    tool_calls,
    user,
)
from rollforge.records.lossless import dumps, has_long_number, loads

REASONING = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}]}
CALL = function_call("add", "{}", "c1")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, ""),
        (5, ""),
        ({"text": "x"}, ""),
        ([], ""),
        ([{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}], "ab"),
        ([{"text": "no type"}], "no type"),
        (["a", "b"], "ab"),
        ([{"type": "input_image", "image_url": "x"}, {"type": "input_text", "text": "see"}], "see"),
        ([{"type": "refusal", "refusal": "No."}], ""),
        ([{"text": None}, {"text": 5}, {}, None, 7, ["x"]], ""),
    ],
)
def test_the_text_of_any_content(content, text) -> None:
    assert text_of(content) == text


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ([assistant("one")], "one"),
        ([assistant("one"), assistant("two")], "two"),
        ([assistant("one"), REASONING, CALL], "one"),
        ([{"role": "assistant", "content": "easy"}], "easy"),
        ([{"type": "message", "content": [{"text": "no role"}]}], "no role"),
        ([assistant("one"), user("mine")], "one"),
        ([REASONING], ""),
        ([function_call_output("c1", "4")], ""),
        ([assistant("one"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_the_reply_is_the_last_assistant_message(output, text) -> None:
    assert final_text({"output": output}) == text


def test_no_response_has_no_reply_and_no_calls() -> None:
    assert (final_text(None), tool_calls(None), reasoning_text(None)) == ("", [], "")
    assert (final_text({}), tool_calls({})) == ("", [])


@pytest.mark.parametrize(
    ("value", "items"),
    [("Hi", [user("Hi")]), ([user("a"), assistant("b")], [user("a"), assistant("b")]), (None, []), ([], [])],
)
def test_the_prompt_as_items(value, items) -> None:
    assert input_items({"input": value}) == items


def test_the_prompt_s_text_is_the_last_user_message() -> None:
    assert prompt_text({"input": [system("s"), user("a"), assistant("b"), user("c"), CALL]}) == "c"
    assert prompt_text({"input": [system("s")]}) == ""
    assert prompt_text({"input": "direct"}) == "direct"


def test_reasoning_is_content_before_summary() -> None:
    both = {**REASONING, "content": [{"type": "reasoning_text", "text": "long"}]}
    assert reasoning_text({"output": [both, REASONING, {"type": "reasoning"}]}) == "long\n\nshort"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], None),
        ([user("a"), REASONING, CALL, {"type": "web_search_call"}], None),
        (None, "x is NoneType, not a list of items"),
        ("text", "x is str, not a list of items"),
        ({}, "x is dict, not a list of items"),
        ([[]], "x[0] is list, not an item"),
        ([user("a"), None], "x[1] is NoneType, not an item"),
        ([{}], "x[0] has neither type nor role"),
        ([{"type": ""}], "x[0] has neither type nor role"),
        ([{"type": "function_call", "arguments": "{}"}], "x[0] is a function_call without a name"),
        ([{"type": "function_call", "name": 5}], "x[0] is a function_call without a name"),
    ],
)
def test_what_is_no_list_of_items(value, problem) -> None:
    assert check_items(value, "x") == problem


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"input": ""}, None),
        ({"input": [], "tools": None}, None),
        ({"input": "x", "tools": [{}]}, None),
        ({}, "input is missing"),
        ({"input": {}}, "input is dict, not a list of items"),
        ({"input": "x", "tools": {}}, "tools is not a list of tools"),
        ({"input": "x", "tools": ["add"]}, "tools is not a list of tools"),
    ],
)
def test_what_cannot_be_asked(params, problem) -> None:
    assert check_params(params) == problem


@pytest.mark.parametrize(
    ("total", "more", "summed"),
    [
        (None, None, None),
        (None, {"input_tokens": 1}, {"input_tokens": 1}),
        ({"input_tokens": 1}, None, {"input_tokens": 1}),
        ({"a": 1, "b": 2}, {"a": 3, "c": 4}, {"a": 4, "b": 2, "c": 4}),
        ({"d": {"cached": 1}}, {"d": {"cached": 2, "new": 1}}, {"d": {"cached": 3, "new": 1}}),
        ({"d": None, "n": None}, {"d": {"cached": 2}, "n": 3}, {"d": {"cached": 2}, "n": 3}),
        ({"d": {"cached": 2}, "n": 3}, {"d": None, "n": None}, {"d": {"cached": 2}, "n": 3}),
        ({"turns": [1]}, {"turns": [2, 3]}, {"turns": [1, 2, 3]}),
        ({"tier": "a"}, {"tier": "b"}, {"tier": "b"}),
        ({"n": 1}, [5], {"n": 1}),
        ({"input_tokens": 10}, {"input_tokens": "10"}, {"input_tokens": 20}),
    ],
)
def test_usage_is_summed_with_its_details(total, more, summed) -> None:
    before = json.dumps([total, more])
    assert add_usage(total, more) == summed
    assert json.dumps([total, more]) == before


def call(prompt, generated):
    return {**assistant("x"), "prompt_token_ids": prompt, "generation_token_ids": generated, "generation_log_probs": []}


@pytest.mark.parametrize(
    ("output", "drift"),
    [
        ([], None),
        ([assistant("no ids"), CALL], None),
        ([call([1, 2], [3])], None),
        ([call([1, 2], [3]), function_call_output("c", "4"), call([1, 2, 3, 4], [5])], None),
        ([call([1, 2], [3]), call([1, 2, 3], [5]), call([1, 2, 3, 5], [6])], None),
        ([call([1, 2], [3]), call([1, 2, 9, 4], [5])], 1),
        ([call([1, 2], [3]), call([1, 2], [5])], 1),
        ([call([1], [2]), assistant("no ids"), call([1, 2], [3]), call([9], [9])], 2),
        ([call(None, [2]), call([2, 3], [4])], None),
        ([call([1], [2]), call({"a": 1}, [3]), call([1, 2], 5)], None),  # what are no ids
    ],
)
def test_each_prompt_extends_what_was_seen(output, drift) -> None:
    assert token_drift(output) == drift


def test_the_items_of_each_model_call() -> None:
    answer = function_call_output("c1", "4")
    assert model_calls([]) == []
    assert model_calls([REASONING, CALL, answer, assistant("a")]) == [[REASONING, CALL], [assistant("a")]]
    assert model_calls([call([1], [2]), call([1, 2], [3])]) == [[call([1], [2])], [call([1, 2], [3])]]
    assert model_calls([assistant("a"), user("b"), assistant("c")]) == [[assistant("a")], [assistant("c")]]


# JSON without loss.

whole = st.integers(-(10**30), 10**30)
values = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_json_there_and_back_is_exact(value) -> None:
    assert loads(dumps(value)) == value
    assert loads(json.dumps(value)) == value


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**19, 10**20, -(10**19), 10**300])
def test_whole_numbers_stay_whole(number) -> None:
    for text in (f"{number}", f"[{number}]", f'{{"a":{number}}}', f'{{"a": [0.5, {number}]}}'):
        assert loads(text) == json.loads(text)
        assert loads(text.encode()) == json.loads(text)


def test_long_fractions_are_read_as_ever() -> None:
    assert loads("[-0.0005304477270692587, 0.00012345678901234567]") == [-0.0005304477270692587, 0.00012345678901234567]


@pytest.mark.parametrize(
    ("text", "long"),
    [
        *(("-" * 40, False), (f"1-{'-' * 30}1", False), ("0." + "1" * 30, False), (f"0.{'1' * 30},{'1' * 20}", True)),
        *(("1" * 19, False), ("1" * 20, True), ("-" + "1" * 18, False), ("-" + "1" * 19, True)),
    ],
)
def test_only_numbers_that_may_be_rounded_are_read_slowly(text: str, long: bool) -> None:
    assert has_long_number(text.encode()) is long


def test_numpy_and_odd_keys_are_written() -> None:
    value = {1: np.float32(0.5), "a": np.arange(3), None: np.bool_(True), "big": 10**30}
    assert loads(dumps(value)) == {"1": 0.5, "a": [0, 1, 2], "null": True, "big": 10**30}
    assert dumps({"b": 1, "a": 10**30}, sort_keys=True) == b'{"a":1000000000000000000000000000000,"b":1}'
    assert dumps({"b": [1], "a": 10**30}, indent=True).splitlines()[:2] == [b"{", b'  "b": [']
    assert loads(dumps({"b": [1], "a": 10**30}, indent=True)) == {"b": [1], "a": 10**30}
    assert loads(dumps([math.nan, "\ud83d"])) == [None, "?"]


def test_what_json_cannot_hold_is_named_or_made_into_something() -> None:
    with pytest.raises(ValueError, match=r"a\[0\] is set, which JSON cannot hold"):
        dumps({"a": [{1}]})
    with pytest.raises(ValueError, match="a has the key"):
        dumps({"a": {(1, 2): 3}})
    assert loads(dumps({"a": {1}, "n": 10**30}, default=list)) == {"a": [1], "n": 10**30}
