"""Tools from functions: the schema that the policy is shown, and the check of its arguments before the call."""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional

import numpy as np
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import rollforge as rf
from rollforge.envs.base import ToolCall
from rollforge.envs.tools import read_docstring, result_text
from rollforge.errors import UserError
from tests.envs.drive import task


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    """Where."""

    x: int
    y: int = 0
    title: str = "here"


class Address(TypedDict, total=False):
    street: str
    number: int


@dataclass
class Size:
    width: int
    height: int = 1


class Pair(NamedTuple):
    left: Any
    right: Any


UserId = NewType("UserId", int)
Node = dict[str, "Node"]


def with_tool(function: Any, inline: bool = True) -> Any:
    """An environment with this one tool, called `tool`."""
    return rf.env(type("Env", (), {"tool": function, "verify": lambda self: 0.0}), inline=inline)


def schema(function: Any) -> Any:
    (tool,) = with_tool(function).tools
    return tool.parameters


async def called(function: Any, **arguments: Any) -> tuple[str, bool]:
    found = with_tool(function)
    async with found.open(task()) as session:
        output = await session.call(ToolCall("tool", arguments))
    return output.text, output.error


# Schemas.


def annotated(hint: Any, **defaults: Any) -> Any:
    def tool(self, value):
        """Do it."""
        return repr(value)

    tool.__annotations__["value"] = hint
    tool.__defaults__ = tuple(defaults.values()) or None
    return tool


NUMBER, TEXT = {"type": "integer"}, {"type": "string"}
POINT = {
    "type": "object",
    "description": "Where.",
    "properties": {"x": NUMBER, "y": {"type": "integer", "default": 0}, "title": {"type": "string", "default": "here"}},
    "required": ["x"],
}

HINTS = [
    # hint, schema, given -> as the function sees it
    (int, NUMBER, 3, "3"),
    (int, NUMBER, "3", "3"),
    (int, NUMBER, 10**30, repr(10**30)),
    (float, {"type": "number"}, 3, "3.0"),
    (bool, {"type": "boolean"}, True, "True"),
    (str, TEXT, "a", "'a'"),
    (Any, {}, [1], "[1]"),
    (dict, {"type": "object", "additionalProperties": True}, {"a": 1}, "{'a': 1}"),
    (dict[str, int], {"type": "object", "additionalProperties": NUMBER}, {"a": 1}, "{'a': 1}"),
    (list, {"type": "array", "items": {}}, [1], "[1]"),
    (list[int], {"type": "array", "items": NUMBER}, [1, 2], "[1, 2]"),
    (tuple[int, str], {"maxItems": 2, "minItems": 2, "type": "array", "prefixItems": [NUMBER, TEXT]}, [1, "a"], "(1, 'a')"),
    (set[int], {"type": "array", "items": NUMBER, "uniqueItems": True}, [1, 1], "{1}"),
    (int | str, {"anyOf": [NUMBER, TEXT]}, "a", "'a'"),
    (Optional[int], {"anyOf": [NUMBER, {"type": "null"}]}, None, "None"),  # noqa: UP045
    (Literal["a", 1], {"enum": ["a", 1]}, "a", "'a'"),
    (UserId, NUMBER, 3, "3"),
    (
        Annotated[int, Field(ge=1, description="At least one.")],
        {**NUMBER, "minimum": 1, "description": "At least one."},
        1,
        "1",
    ),
]


@pytest.mark.parametrize(("hint", "value", "given", "seen"), HINTS)
async def test_a_hint_is_a_schema_and_a_check(hint: Any, value: Any, given: Any, seen: str) -> None:
    function = annotated(hint)
    assert schema(function) == {
        "type": "object",
        "properties": {"value": value},
        "required": ["value"],
        "additionalProperties": False,
    }
    assert await called(function, value=given) == (seen, False)


NESTED = [
    (Colour, {"Colour": {"enum": ["red", "blue"], "type": "string"}}, "red", "<Colour.RED: 'red'>"),
    (Point, {"Point": POINT}, {"x": 1}, "Point(x=1, y=0, title='here')"),
    (list[Point], {"Point": POINT}, [{"x": 1, "y": 2}], "[Point(x=1, y=2, title='here')]"),
    (Size, {"Size": None}, {"width": 2}, "Size(width=2, height=1)"),
    (Address, {"Address": None}, {"number": 3}, "{'number': 3}"),
]


@pytest.mark.parametrize(("hint", "defs", "given", "seen"), NESTED)
async def test_nested_types_are_defined_in_the_schema(hint: Any, defs: Any, given: Any, seen: str) -> None:
    function = annotated(hint)
    found = schema(function)["$defs"]
    assert found.keys() == defs.keys()
    assert all(found[name] == value for name, value in defs.items() if value)
    assert "title" not in found["Size"] if "Size" in found else True
    assert await called(function, value=given) == (seen, False)


def test_defaults_stand_in_the_schema() -> None:
    def tool(self, a: int, b: str = "x", c: list[int] = [], *, d: float | None = None, e: int = None, f=True) -> str:  # noqa: B006, RUF013
        """Do it."""

    found = schema(tool)
    assert found["required"] == ["a"]
    assert found["properties"]["b"] == {"type": "string", "default": "x"}
    assert found["properties"]["c"] == {"type": "array", "items": {"type": "integer"}}
    assert found["properties"]["e"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert found["properties"]["f"] == {"default": True}


async def test_any_parameter_name_will_do() -> None:
    def tool(
        this, schema: int, copy: int, json: int, model_config: int, name: int, type: int, cls: int, title: int, __x: int = 0
    ) -> list[int]:
        """Do it."""
        return [schema, copy, json, model_config, name, type, cls, title]

    names = ["schema", "copy", "json", "model_config", "name", "type", "cls", "title"]
    assert list(schema(tool)["properties"])[:8] == schema(tool)["required"] == names
    assert await called(tool, **{name: number for number, name in enumerate(names)}) == ("[0,1,2,3,4,5,6,7]", False)


async def test_static_methods_may_have_a_parameter_called_self() -> None:
    def tool(self: int) -> int:
        """Do it."""
        return self + 1

    assert await called(staticmethod(tool), self=4) == ("5", False)


async def test_no_hints_and_any_further_arguments() -> None:
    def tool(self, a, **more):
        """Do it."""
        return [a, more]

    assert schema(tool) == {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": True}
    assert await called(tool, a=[1], b=2) == ('[[1],{"b":2}]', False)


def test_what_a_tool_returns_needs_no_hint_that_can_be_read() -> None:
    def tool(self, a: "int") -> "Unknown":  # noqa: F821
        """Do it."""

    assert schema(tool)["properties"] == {"a": {"type": "integer"}}


def positional(self: Any, *values: int) -> None:
    """Do it."""


def positional_only(self: Any, a: int, /) -> None:
    """Do it."""


def unknown_hint(self: Any, a: "Nowhere") -> None:  # noqa: F821
    """Do it."""


def failing_hint(self: Any, a: "[][0]") -> None:
    """Do it."""


def not_a_type(self: Any, a: object()) -> None:  # type: ignore[valid-type]
    """Do it."""


def no_schema(self: Any, a: Callable[[], int]) -> None:
    """Do it."""


def yields(self: Any) -> Any:
    """Do it."""
    yield 1


async def yields_later(self: Any) -> Any:
    """Do it."""
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (positional, r"parameter \*values: int cannot be filled by name"),
        (positional_only, "parameter a: int cannot be filled by name"),
        (unknown_hint, "cannot read its type hints: NameError: name 'Nowhere' is not defined"),
        (failing_hint, "cannot read its type hints: IndexError"),
        (not_a_type, "no JSON Schema for its parameters: "),
        (no_schema, "no JSON Schema for its parameters: "),
        (yields, "it yields; a tool returns what the model is to read"),
        (yields_later, "it yields; a tool returns"),
    ],
)
def test_what_cannot_be_a_tool_is_told_when_it_is_written(function: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^tool 'tool' \(tests.envs.test_tools\): {message}"):
        with_tool(function)


@pytest.mark.parametrize("name", ["größe", "x" * 65])
def test_a_name_that_models_cannot_be_told(name: str) -> None:
    with pytest.raises(UserError, match="models take names of at most 64 letters"):
        rf.env(type("Env", (), {name: yields, "verify": lambda self: 0.0}))


# Arguments.


def take(self: Any, a: int, b: Literal["x", "y"] = "x", points: list[Point] | None = None) -> str:
    """Do it."""
    raise AssertionError("called with arguments that do not fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a: Field required"),
        ({"a": "three"}, "a: Input should be a valid integer"),
        ({"a": None}, "a: Input should be a valid integer"),
        ({"a": 1.5}, "a: Input should be a valid integer"),
        ({"a": 1, "b": "z"}, "b: Input should be 'x' or 'y'"),
        ({"a": 1, "c": 2}, "c: Extra inputs are not permitted"),
        ({"a": 1, "points": [{"x": 1}, {"y": 2}]}, "points.1.x: Field required"),
        ({"a": "three", "b": 5}, "a: Input should be a valid integer"),
    ],
)
async def test_arguments_are_checked_before_the_call(arguments: Any, message: str) -> None:
    text, error = await called(take, **arguments)
    assert error
    assert text.startswith('{"error":"invalid arguments for tool: ' + message)


# Docstrings.

DOCSTRINGS = [
    ("", "", {}),
    ("Only this.", "Only this.", {}),
    ("One.\n\nTwo.", "One.\n\nTwo.", {}),
    ("One.\n\nArgs:\n    a: first\n    b (int): second", "One.", {"a": "first", "b": "second"}),
    (
        "One.\n\nArgs:\n    a: first\n        goes on: here\n    b: second",
        "One.",
        {"a": "first goes on: here", "b": "second"},
    ),
    ("One.\n\nArgs:\n    a (dict[str, tuple(int)], optional): first", "One.", {"a": "first"}),
    ("One.\n\nArgs:\n    a:\n        first\n    **more: others", "One.", {"a": "first", "more": "others"}),
    ("One.\n\nParameters:\n  a: first\n\nReturns:\n    x: y", "One.", {"a": "first"}),
    ("One.\n\nArgs:\n    a: see http://x.y: z", "One.", {"a": "see http://x.y: z"}),
    ("One.\n\nArgs:\n    a: first\n\nWarning: it costs.", "One.\n\nWarning: it costs.", {"a": "first"}),
    (
        "One.\n\n:param a: first\n:param int b: second\n    goes on\n:type a: str\n:returns: c",
        "One.",
        {"a": "first", "b": "second goes on"},
    ),
    ("One.\n\n:param dict[str, int] a: first\n:raises ValueError: never", "One.", {"a": "first"}),
    ("Give it a :smile: now.\n:smile: again", "Give it a :smile: now.\n:smile: again", {}),
    ("Ratio a:b.\n\nReturns: the ratio.", "Ratio a:b.\n\nReturns: the ratio.", {}),
    ("One.\n\nExample:\n    a: no parameter", "One.", {}),
]


@pytest.mark.parametrize(("text", "description", "described"), DOCSTRINGS)
def test_docstrings(text: str, description: str, described: dict[str, str]) -> None:
    assert read_docstring(text) == (description, described)


def test_the_docstring_describes_the_parameters() -> None:
    def tool(self, a: int, b: Annotated[int, Field(description="own")] = 1, c: Point | None = None) -> None:
        """Do it.

        Args:
            a: first
            b: never shown
            c: where
        """

    (found,) = with_tool(tool).tools
    assert found.description == "Do it."
    assert {name: value["description"] for name, value in found.parameters["properties"].items()} == {
        "a": "first",
        "b": "own",
        "c": "where",
    }
    assert found.row() == {"type": "function", "name": "tool", "description": "Do it.", "parameters": found.parameters}


# Results.


class Odd:
    def __str__(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        ("☃ \u2028 \x00", "☃ \u2028 \x00"),
        ("lone \ud800", "lone ?"),
        (b"bytes \xff", "bytes �"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (2**100, str(2**100)),
        (float("nan"), "null"),
        ([1, (2, 3)], "[1,[2,3]]"),
        ({"a": {1}, 2: None}, '{"a":[1],"2":null}'),
        ({"b": b"x", "n": 2**70}, '{"b":"x","n":1180591620717411303424}'),
        (np.float32(0.5), "0.5"),
        (np.arange(3), "[0,1,2]"),
        (Point(x=1), '{"x":1,"y":0,"title":"here"}'),
        ([Size(1)], '[{"width":1,"height":1}]'),
        (Pair(1, "b"), '[1,"b"]'),
        ({"a": [Pair(1, Pair(2**70, 3))]}, '{"a":[[1,[1180591620717411303424,3]]]}'),
        (Size(Pair(1, 2)), '{"width":[1,2],"height":1}'),  # type: ignore[arg-type]
        ((deque("ab"), range(3)), '[["a","b"],[0,1,2]]'),
        (Colour.RED, '"red"'),
        (Odd(), '"odd"'),
    ],
)
def test_a_result_as_the_policy_reads_it(value: Any, text: str) -> None:
    assert result_text(value) == text
