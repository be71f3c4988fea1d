"""Where the answer stands in a reply."""

from __future__ import annotations

import pytest

from rollforge.verify.answer import after_thinking, answer_line, boxed, has_box, last_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{ 1 } then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\fbox{7}", "7"),
        ("\\boxed {7}", "7"),
        ("\\boxed{\\boxed{7}}", "7"),
        ("\\boxed{}", ""),
        ("no box", None),
        ("\\boxed{7", None),
        ("\\boxed{6} and then \\boxed{7", None),
        ("\\boxed{\\}", None),
        ("\\boxed7", None),
    ],
)
def test_boxed(text: str, expected: str | None) -> None:
    assert boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: 5", "5"),
        ("**Answer:** 5", "5"),
        ("**Answer**: 5", "5"),
        ("Answer:\n\n5\nbecause", "5"),
        ("The final answer is x = 5.", "x = 5."),
        ("answer is 4, or rather the answer is 5", "5"),
        ("ANSWER = 5", "5"),
        ("The answers are 2 and 3", "2 and 3"),
        ("I answered 5", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_answer_line(text: str, expected: str | None) -> None:
    assert answer_line(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 and then -4.", "-4"),
        ("costs $1,234.50 today", "1,234.50"),
        ("3-4", "4"),
        ("half: 1/2", "1/2"),
        ("about 50% of it", "50%"),
        ("x2 and y.5z", None),
        ("0.25 or .5", ".5"),
        ("٤٢", None),
        ("none", None),
    ],
)
def test_last_number(text: str, expected: str | None) -> None:
    assert last_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("<think>5</think> 6", " 6"), ("<think>5", ""), ("5", "5"), ("a</think>b</think>c", "c")],
)
def test_thinking_is_no_answer(text: str, expected: str) -> None:
    assert after_thinking(text) == expected


def test_long_replies_are_read_through() -> None:
    """Each of these is quadratic for a reader that goes back."""
    size = 300_000
    assert boxed("\\boxed{" * size) is None
    assert boxed("\\boxed{" + "{" * size) is None
    assert boxed("{" * size + "\\boxed{5}") == "5"
    assert answer_line("the answer is " * size + "5") == "5"
    assert answer_line("Answer" + "*" * size) is None
    assert last_number("1," * size + "x") == "1"
    assert not has_box("\\" * size)
