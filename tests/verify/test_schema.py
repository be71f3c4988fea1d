"""Structured outputs: documents read strictly, held against a schema, and how much of it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.records.items import assistant, function_call
from rollforge.verify.json_schema import share, strictly, violations
from rollforge.verify.schema import structured_call, structured_output

ITEM = {"type": "object", "properties": {"n": {"type": "string"}, "ok": {"type": "boolean"}}}
SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "b": {"type": ["string", "null"]},
        "c": {"type": "array", "items": ITEM},
    },
}
TABLE = {
    "type": "array",
    "items": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": ["number", "null"]}}},
}


@pytest.mark.parametrize(
    ("kind", "reply", "error"),
    [
        ("json", '{"a": 1, "b": null, "c": [{"n": "x", "ok": true}]}', None),
        ("json", '{"a": 1.0, "b": "", "c": []}', None),
        ("json", '{"a": true, "b": "", "c": []}', "validation_error"),
        ("json", '{"a": 1, "b": ""}', "validation_error"),
        ("json", '{"a": 1, "b": "", "c": [], "d": 1}', "validation_error"),
        ("json", '{"\u0430": 1, "b": "", "c": []}', "validation_error"),  # Cyrillic
        ("json", '{"a": 1, "a": 1, "b": "", "c": []}', "parse_error"),
        ("json", '{"a": NaN, "b": "", "c": []}', "parse_error"),
        ("json", '{"a": 1e999, "b": "", "c": []}', "parse_error"),
        ("json", '```json\n{"a": 1, "b": "", "c": []}\n```', "parse_error"),
        ("json", 'Here: {"a": 1, "b": "", "c": []}', "parse_error"),
        ("json", '{"a": 1, "b": "", "c": []} reward: 1.0', "parse_error"),
        ("json", "", "empty_response"),
        ("json", " \n", "empty_response"),
        ("json", "[" * 100_000, "parse_error"),
        ("json", '{"a":' * 5000, "parse_error"),
        ("json", "9" * 5000, "parse_error"),
        ("json", "x" * 300_000, "parse_error"),
        ("json", "x" * 600_000, "parse_error"),
        ("yaml", "a: 1\nb: NO\nc:\n  - n: 12:30\n    ok: true\n", None),
        ("yaml", "a: 1\nb: 2024-05-01\nc: []", None),
        ("yaml", "a: 1\nb: 0123\nc: []", None),
        ("yaml", "a: 1\nb: 123\nc: []", "validation_error"),
        ("yaml", "a: 1\na: 2\nb:\nc: []", "parse_error"),
        ("yaml", "a: &x 1\nb: *x\nc: []", "parse_error"),
        ("yaml", "a: .nan\nb:\nc: []", "parse_error"),
        ("yaml", "1: 1", "parse_error"),
        ("yaml", "? [1]\n: 2", "parse_error"),
        ("yaml", "a: !!python/object/apply:os.getcwd []", "parse_error"),
        ("yaml", "a: !!set {x}", "parse_error"),
        ("yaml", "a: !!int '1'\nb: !!str 12\nc: !!seq []", None),
        ("yaml", "a: !!int 0x1F\nb: !!null\nc: []", None),
        ("yaml", "a: !!int 1_0\nb:\nc: []", "parse_error"),
        ("yaml", "a: !!bool maybe", "parse_error"),
        ("yaml", "a: !!bool", "parse_error"),
        ("yaml", "a: !!bool yes", "parse_error"),  # YAML 1.1's
        ("yaml", "a: !!bool [true]", "parse_error"),
        ("yaml", "a: !!timestamp x", "parse_error"),
        ("yaml", "a: !!timestamp 2024-05-01", "parse_error"),
        ("yaml", "a: !!float \n", "parse_error"),
        ("yaml", "a: !!float x", "parse_error"),
        ("yaml", "a: !!null x", "parse_error"),
        ("yaml", "a: !!binary '='", "parse_error"),
        ("yaml", "a: !!omap 1", "parse_error"),
        ("yaml", "? !!set {}\n: 1", "parse_error"),
        ("yaml", f"a: 0x{'f' * 9000}", "parse_error"),
        ("yaml", f"0x{'f' * 9000}: 1", "parse_error"),
        ("toml", f"a = 0x{'f' * 9000}", "parse_error"),
        ("yaml", "a: 1\n---\na: 2", "parse_error"),
        ("yaml", "- " * 50_000, "parse_error"),
        ("yaml", "{" * 50_000, "parse_error"),
        ("toml", 'a = 1\nb = "x"\nc = [{n = "y", ok = false}]', None),
        ("toml", "a = 1\nb = 2024-05-01\nc = []", None),
        ("toml", "a = 1\na = 2", "parse_error"),
        ("toml", "a = inf\nb = ''\nc = []", "parse_error"),
        ("toml", f"a = {'[' * 50_000}", "parse_error"),
        ("xml", "<r><a>1</a><b/><c><i><n>x</n><ok>true</ok></i></c></r>", None),
        ("xml", "<r><a>1</a><b>q</b><c><i><n>x</n><ok>1</ok></i><i><n/><ok>0</ok></i></c></r>", None),
        ("xml", "<r><a>1</a><b>q</b><c><n>x</n><ok>true</ok></c></r>", None),  # a list of one, not wrapped
        ("xml", "<r><a>1</a><b>q</b><c/></r>", None),
        ("xml", "<r><a>1_0</a><b>q</b><c/></r>", "validation_error"),
        ("xml", "<r><a>1</a><b>q</b></r>", "validation_error"),
        ("xml", '<r x="1"><a>1</a><b>q</b><c/></r>', "validation_error"),
        ("xml", '<!DOCTYPE r [<!ENTITY e "x">]><r><a>1</a><b>&e;</b><c/></r>', "parse_error"),
        ("xml", "<a>" * 50_000, "parse_error"),
        ("xml", "plain", "parse_error"),
    ],
)
def test_documents(kind: str, reply: str, error: str | None) -> None:
    found = structured_output(reply, SCHEMA, kind)
    assert (found["reward"], found["error_type"]) == (float(error is None), error)
    assert found["schema_valid"] == found["reward"]
    assert (found["constraints_met"] == 1) == (error is None)
    assert (found["error_message"] is None) == (error is None)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("a,b\n1,2.5\n2,\n", None),
        ('a,b\n"1","2"', None),
        ("a,b\n", None),
        ("\n a,b\n1,2.5  \n \t", None),  # white space around it
        ('a,b\n1,"2.5" ', None),
        ("a,b\n1,2.5  \n2,3", "validation_error"),  # within it, it is part of a cell
        ("b,a\n2,1", None),
        ("a,b\n1,x", "validation_error"),
        ("a,b\n1", "validation_error"),
        ("a\n1", "validation_error"),
        ("a,b\n1,2,3", "parse_error"),
        ("a,a\n1,2", "parse_error"),
        ("hello", "parse_error"),  # a header without rows is an empty table, but not this one
        ("Here:\na,b\n1,2", "parse_error"),
        ('a,b\n"1', "parse_error"),
        ("x" * 200_000, "parse_error"),
    ],
)
def test_tables(reply: str, error: str | None) -> None:
    found = structured_output(reply, TABLE, "csv")
    assert (found["reward"], found["error_type"]) == (float(error is None), error)


def test_a_violation_in_a_long_table_is_found_where_it_stands() -> None:
    rows = [f"{n},{n}.5" for n in range(5000)]
    assert structured_output("\n".join(["a,b", *rows]), TABLE, "csv")["reward"] == 1
    found = structured_output("\n".join(["a,b", *rows, "x,1", "7,y"]), TABLE, "csv")
    assert found["error_message"].startswith("$[5000].a: 'x' is not of type integer; $[5001].b: 'y' is not of type")


def test_a_fence_is_read_where_it_is_allowed() -> None:
    inner = '{"a": 1, "b": "", "c": []}'
    for reply, reward in (
        (f"```json\n{inner}\n```", 1),
        (f"```\n{inner}\n```\n", 1),
        (inner, 1),
        (f"Sure!\n```json\n{inner}\n```", 0),
        (f"```json\n{inner}\n```\n```json\n{inner}\n```", 0),
        ("```", 0),
    ):
        assert structured_output(reply, SCHEMA, fenced=True)["reward"] == reward


def test_the_root_of_xml_may_be_a_property() -> None:
    schema = {"type": "object", "properties": {"person": {"type": "object", "properties": {"age": {"type": "integer"}}}}}
    assert structured_output("<person><age>5</age></person>", schema, "xml")["reward"] == 1
    assert structured_output("<x><person><age>5</age></person></x>", schema, "xml")["reward"] == 1
    assert structured_output("<x><age>5</age></x>", schema, "xml")["reward"] == 0


def test_partial_credit_is_for_constraints_and_cannot_be_repeated() -> None:
    def met(value: Any) -> float:
        return float(structured_output(json.dumps(value), SCHEMA, partial=True)["reward"])

    full, empty, wrong_type = met({"a": 1, "b": "x", "c": []}), met({}), met([])
    assert (full, wrong_type) == (1.0, 0.0)
    assert 0 < empty < met({"a": 1}) < met({"a": 1, "b": "x"}) < 1
    broken = {"n": 5, "ok": True}
    assert met({"a": 1, "b": "x", "c": [broken]}) == met({"a": 1, "b": "x", "c": [broken] + [{"n": "x", "ok": True}] * 500})
    assert met({"a": 1, "b": "x", "c": [broken] * 500}) == met({"a": 1, "b": "x", "c": [broken]})


def test_what_it_says_can_be_expected() -> None:
    expected = {"a": 1, "b": "x", "c": [{"n": "y", "ok": True}]}

    def judged(value: Any, **options: Any) -> tuple[float, float, Any]:
        found = structured_output(json.dumps(value), SCHEMA, expected=expected, **options)
        return found["reward"], found["values_right"], found["error_type"]

    assert judged(expected) == (1, 1, None)
    assert judged({**expected, "b": "z"}) == (0, 0.75, "wrong_values")
    assert judged({**expected, "b": "z"}, partial=True) == (0.75, 0.75, "wrong_values")
    longer = {**expected, "c": [*expected["c"], {"n": "z", "ok": True}]}  # type: ignore[misc]
    assert judged(longer, partial=True)[0] < 1
    assert judged({**expected, "d": 1}, partial=True)[0] == 0
    assert structured_output("", SCHEMA, expected=None)["values_right"] == 0


def called(*calls: tuple[str, Any]) -> Any:
    made = [function_call(name, arguments, f"c{n}") for n, (name, arguments) in enumerate(calls)]
    return {"output": [*made, assistant("Done.")]}


GOOD = '{"a": 1, "b": null, "c": []}'


@pytest.mark.parametrize(
    ("response", "key", "error"),
    [
        (called(("f", GOOD)), None, None),
        (called(("f", f'{{"x": {GOOD}}}')), "x", None),
        (called(("f", GOOD)), "x", "missing_tool_payload_key"),
        (called(("f", "[1]")), "x", "missing_tool_payload_key"),
        (called(("g", GOOD)), None, "wrong_tool_name"),
        (called(("F", GOOD)), None, "wrong_tool_name"),
        (called(("f", GOOD), ("f", GOOD)), None, "multiple_tool_calls"),
        (called(), None, "missing_tool_call"),
        ({}, None, "missing_tool_call"),
        ({"output": [assistant(GOOD)]}, None, "missing_tool_call"),
        (called(("f", GOOD[:-1])), None, "tool_arguments_parse_error"),
        (called(("f", "{}")), None, "validation_error"),
        (called(("f", json.loads(GOOD))), None, None),
        (called(("f", None)), None, "validation_error"),
    ],
)
def test_tool_calls(response: Any, key: str | None, error: str | None) -> None:
    found = structured_call(response, SCHEMA, tool_name="f", payload_key=key)
    assert (found["reward"], found["error_type"]) == (float(error is None), error)


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"enum": [1, "a", None]}, [1, 1.0, "a", None], [True, "A", 0, [1]]),
        ({"const": {"a": [1]}}, [{"a": [1]}, {"a": [1.0]}], [{"a": [True]}, {"a": []}]),
        ({"minimum": 1, "exclusiveMaximum": 3}, [1, 2.9, "x"], [0.9, 3]),
        ({"minimum": 1, "exclusiveMinimum": True}, [1.1], [1]),
        ({"multipleOf": 0.1}, [0.3, 1], [0.35]),
        ({"minLength": 2, "maxLength": 3, "pattern": "^a"}, ["ab", 5], ["a", "abcd", "ba"]),
        ({"prefixItems": [{"type": "string"}], "items": False}, [["a"], []], [[1], ["a", 1]]),
        ({"items": [{"type": "string"}], "additionalItems": {"type": "null"}}, [["a", None]], [["a", 1]]),
        ({"contains": {"type": "null"}, "maxContains": 1}, [[None, 1]], [[], [None, None]]),
        ({"uniqueItems": True, "minItems": 1}, [[1, True], [[1], [2]]], [[1, 1.0], []]),
        (
            {"patternProperties": {"^x": {"type": "null"}}, "additionalProperties": False},
            [{"xa": None}],
            [{"xa": 1}, {"y": 1}],
        ),
        ({"propertyNames": {"maxLength": 1}, "minProperties": 1}, [{"a": 1}], [{"ab": 1}, {}]),
        ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}, {"b": 1}], [{"a": 1}]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 6], [4]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [1, 5.5], [6]),
        ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, [6], [4, 5.5]),
        ({"not": {"type": "null"}}, [1], [None]),
        ({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"type": "null"}}, ["a", None], ["", 1]),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}},
            [{"n": {}}],
            [{"n": {"n": 1}}],
        ),
        ({"type": "string", "nullable": True}, ["a", None], [1]),
        ({"type": "integer"}, [1, 1.0, -0.0], [True, 1.5, "1"]),
        (True, [1], []),
        (False, [], [1]),
    ],
)
def test_schemas(schema: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [violations(value, schema) for value in right] == [[]] * len(right)
    for value in wrong:
        found = violations(value, schema)
        assert found, value
        assert 0 <= share(schema, found) < 1


def test_strict_is_for_what_is_listed() -> None:
    made = strictly({"properties": {"properties": {"properties": {"x": {}}}}, "anyOf": [{"properties": {"y": {}}}]})
    assert made["required"] == ["properties"]
    assert made["properties"]["properties"] == {"properties": {"x": {}}, "required": ["x"], "additionalProperties": False}
    assert made["anyOf"] == [{"properties": {"y": {}}}]


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[]",
        '"x"',
        {"type": "strin"},
        {"properties": []},
        {"required": "a"},
        {"pattern": "("},
        {"multipleOf": 0},
        {"items": {"anyOf": {}}},
        {"$ref": "http://example.com/x"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"unevaluatedProperties": False},
    ],
)
def test_a_schema_that_is_none_is_nobodys_failure(schema: Any) -> None:
    with pytest.raises(VerifierFault, match="schema"):
        structured_output("{}", schema)


def test_an_unknown_kind_is_a_fault() -> None:
    with pytest.raises(VerifierFault, match="schema_type"):
        structured_output("{}", {}, "ini")
