"""Tool calls against the expected ones, and states."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.records.items import Response, assistant, function_call
from rollforge.verify.tool_calls import expected_calls, made_calls, same_state, same_value, tool_calls, valid_call

PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer", "default": 1},
    "period": {"type": "string"},
    "units": {"type": ["string", "null"], "enum": ["c", "f", None]},
    "tags": {"type": "array", "items": {"type": "string"}},
    "at": {"type": "object", "properties": {"hour": {"type": "integer"}, "zone": {"type": "string", "default": "utc"}}},
}
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": PROPERTIES, "required": ["city"], "additionalProperties": False},
}
NESTED = {"type": "function", "function": {"name": "weather", "parameters": TOOL["parameters"]}}
A, B = {"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "weather", "arguments": {"city": "Lima"}}


def said(*calls: tuple[str, Any], text: str | None = None) -> Response:
    made = [
        function_call(name, arguments if isinstance(arguments, str) else json.dumps(arguments), f"c{number}")
        for number, (name, arguments) in enumerate(calls)
    ]
    return {"output": [*made, *([assistant(text)] if text is not None else [])]}


OSLO, LIMA = ("weather", {"city": "Oslo"}), ("weather", {"city": "Lima"})


@pytest.mark.parametrize(
    ("calls", "expected", "options", "reward"),
    [
        ([OSLO], [A], {}, 1),
        ([OSLO], A, {}, 1),
        ([LIMA, OSLO], [A, B], {}, 1),
        ([LIMA, OSLO], [A, B], {"ordered": True}, 0),
        ([OSLO, LIMA], [A, B], {"ordered": True}, 1),
        ([OSLO, LIMA, OSLO], [A, B], {"ordered": True, "allow_extra": True}, 1),
        ([OSLO, OSLO], [A], {}, 0),
        ([OSLO, LIMA], [A], {"allow_extra": True}, 1),
        ([OSLO], [A, A], {}, 0),
        ([OSLO, OSLO], [A, A], {}, 1),
        ([OSLO], [A, B], {"partial": True}, 2 / 3),
        ([OSLO, LIMA, LIMA, LIMA], [A, B], {"partial": True}, 2 / 3),
        ([OSLO], [A, B], {"partial": True, "allow_extra": True}, 0.5),
        ([LIMA, OSLO], [A, B], {"partial": True, "ordered": True}, 0.5),
        ([], [A], {"partial": True}, 0),
        ([], [], {}, 1),
        ([OSLO], [], {}, 0),
        ([OSLO], [], {"allow_extra": True, "partial": True}, 0),
        ([("weather", '{"city": "Oslo"')], [A], {}, 0),
        ([("weather", "[1]")], [A], {}, 0),
        ([("weather", "null")], [A], {}, 0),
        ([("weather", "[" * 100_000)], [A], {}, 0),
        ([("Weather", {"city": "Oslo"})], [A], {}, 0),
        ([("wеather", {"city": "Oslo"})], [A], {}, 0),  # Cyrillic
        ([("weather", {"city": "Oslo", "reward": 1})], [A], {}, 0),
        ([OSLO] * 5000, [A], {}, 0),
        ([OSLO], {"type": "function_call", **A, "arguments": '{"city": "Oslo"}'}, {}, 1),
        ([LIMA, OSLO], {"type": "function_call_batch", "calls": [A, B]}, {}, 1),
        ([], {"type": "message", "content": "hi"}, {}, 1),
        ([OSLO], {"type": "message", "content": "hi"}, {}, 0),
    ],
)
def test_calls(calls: list[Any], expected: Any, options: dict[str, bool], reward: float) -> None:
    found = tool_calls(said(*calls), expected, [TOOL], **options)
    assert found["reward"] == pytest.approx(reward)
    assert found["num_predicted"] == len(calls)


@pytest.mark.parametrize("tool", [TOOL, NESTED])
@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [
        ({"city": "Oslo", "days": 2}, {"city": "Oslo", "days": 2.0}, True),
        ({"city": "Oslo", "days": True}, {"city": "Oslo", "days": 1}, False),
        ({"city": "Oslo", "days": "2"}, {"city": "Oslo", "days": 2}, False),  # the schema says integer
        ({"city": "Oslo", "days": 2}, {"city": "Oslo", "days": "2"}, True),
        ({"city": "Oslo", "period": "14"}, {"city": "Oslo", "period": 14}, True),  # the schema says string
        ({"city": "Oslo", "period": 14}, {"city": "Oslo", "period": 14}, True),
        ({"city": "Oslo", "period": "14.0"}, {"city": "Oslo", "period": 14.0}, False),
        ({"city": "Oslo", "period": 14}, {"city": "Oslo", "period": "14"}, False),
        ({"city": "Oslo", "days": 1}, {"city": "Oslo"}, True),  # the default
        ({"city": "Oslo", "days": 3}, {"city": "Oslo"}, False),
        ({"city": "Oslo", "units": None}, {"city": "Oslo"}, True),
        ({"city": "Oslo"}, {"city": "Oslo", "units": None}, True),
        ({"city": "Oslo"}, {"city": "Oslo", "days": 1}, False),
        ({"city": "oslo"}, {"city": "Oslo"}, False),
        ({"city": "Oslo", "tags": ["1"]}, {"city": "Oslo", "tags": [1]}, True),
        ({"city": "Oslo", "tags": ["b", "a"]}, {"city": "Oslo", "tags": ["a", "b"]}, False),
        ({"city": "Oslo", "at": {"hour": 3, "zone": "utc"}}, {"city": "Oslo", "at": {"hour": 3}}, True),
        ({"city": "Oslo", "at": {"hour": 3, "zone": "cet"}}, {"city": "Oslo", "at": {"hour": 3}}, False),
        ({"city": {"city": "Oslo"}}, {"city": "Oslo"}, False),
        ({"city": "Oslo", "days": 10**400}, {"city": "Oslo", "days": 1.5}, False),
    ],
)
def test_arguments(tool: dict[str, Any], given: dict[str, Any], expected: dict[str, Any], same: bool) -> None:
    found = tool_calls(said(("weather", given)), [{"name": "weather", "arguments": expected}], [tool])
    assert found["reward"] == same


def test_one_call_that_fits_two_is_told_to_the_one_that_has_no_other() -> None:
    """The first expected call is right in both forms, the second in one."""
    gold = [{"name": "weather", "arguments": {"period": 1}}, {"name": "weather", "arguments": {"period": "1"}}]
    calls = [("weather", {"period": "1"}), ("weather", {"period": 1})]
    assert tool_calls(said(*calls), gold, [TOOL])["reward"] == 1


def test_what_is_stored_is_bounded() -> None:
    found = tool_calls(said(*[OSLO] * 3000), [A], allow_extra=True)
    assert (found["reward"], found["num_predicted"], len(found["predicted_calls"])) == (1, 3000, 32)


@pytest.mark.parametrize(
    "row", ["weather", [1], [{"arguments": {}}], [{"name": "a", "arguments": "{"}], {"name": "a", "arguments": [1]}]
)
def test_rows_that_are_no_calls(row: Any) -> None:
    with pytest.raises(VerifierFault, match="call"):
        tool_calls(said(OSLO), row)


def test_expected_calls_without_arguments() -> None:
    assert expected_calls([{"name": "a"}, {"name": "b", "arguments": None}]) == [
        {"name": "a", "arguments": {}},
        {"name": "b", "arguments": {}},
    ]
    assert expected_calls(None) == []
    assert tool_calls(said(("a", "")), [{"name": "a"}])["reward"] == 1


@pytest.mark.parametrize(
    ("name", "arguments", "valid"),
    [
        ("weather", {"city": "Oslo"}, True),
        ("weather", {"city": "Oslo", "units": "f", "days": 2}, True),
        ("weather", {"city": "Oslo", "units": None}, True),
        ("weather", {"city": "Oslo", "units": "k"}, False),
        ("weather", {"city": 5}, False),
        ("weather", {"city": "Oslo", "days": True}, False),
        ("weather", {}, False),
        ("weather", {"city": "Oslo", "other": 1}, False),
        ("other", {"city": "Oslo"}, False),
        ("weather", "{", False),
    ],
)
def test_valid_calls(name: str, arguments: Any, valid: bool) -> None:
    [call] = made_calls(said((name, arguments)))
    assert valid_call(call, [TOOL]) == valid


@pytest.mark.parametrize(
    ("given", "expected", "differences"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1.0, {"b": 2}]}, []),
        ({"a": 1, "t": 5}, {"a": 1, "t": 6}, []),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["state.a[0] is 1, expected 2", "state.a[1] is 2, expected 1"]),
        ({"a": [1]}, {"a": [1, 2]}, ["state.a has 1 entries, expected 2"]),
        ({"a": 1}, {"a": True}, ["state.a is 1, expected True"]),
        ({"a": {1, 2}}, {"a": {2, 1}}, []),
        ({"a": {1, 2}}, {"a": {2}}, ["state.a lacks [] and has ['1']"]),
        ({}, {"a": 1}, ["state.a is missing"]),
        ({"a": 1, "b": 2}, {"a": 1}, ["state.b is 2, which nobody expected"]),
        ({"a": None}, {}, ["state.a is None, which nobody expected"]),
    ],
)
def test_states(given: Any, expected: Any, differences: list[str]) -> None:
    assert same_state(given, expected, ignore=["t"]) == {"reward": float(not differences), "differences": differences}


def test_a_state_that_differs_everywhere_is_told_in_short() -> None:
    assert len(same_state(list(range(1000)), list(range(1, 1001)))["differences"]) == 20


def test_values_without_a_schema() -> None:
    assert same_value({"a": [1, "x", None]}, {"a": [1, "x", None]})
    assert not same_value([1, 2], [1, 2, 3])
    assert not same_value("1", 1)
    assert same_value(0.1 + 0.2, 0.3)
