"""Which letter a reply chose, in each grading mode."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from rollforge.errors import VerifierFault
from rollforge.verify.choice import Mode, choice

STRICT, BOXED, COLON, MARKDOWN = get_args(Mode)
OPTIONS = [{"A": "red"}, {"B": "blue car"}, {"C": "car"}, {"D": "5"}, {"E": "15"}, {"F": None}]

CASES = {
    STRICT: [
        ("\\boxed{B}", "B"),
        ("Final: \\boxed{ [C] }", "C"),
        ("\\boxed{(D).}", "D"),
        ("\\boxed{\\text{E}}", "E"),
        ("\\boxed{\\text{\\text{E}}}", "E"),
        ("\\boxed{A: red}", "A"),
        ("\\boxed{\nA) red\n}", "A"),
        ("\\boxed{\\text{B. blue car}}", "B"),
        ("\\boxed{A} on reflection \\boxed{B}", "B"),
        ("B", None),
        ("The answer is not B", None),
        ("\\boxed{b}", None),
        ("\\boxed{F}", None),
        ("\\boxed{Z}", None),
        ("\\boxed{A, B}", None),
        ("\\boxed{A or B}", None),
        ("\\boxed{AB}", None),
        ("\\boxed{not B}", None),
        ("\\boxed{red}", None),
        ("\\boxed{B", None),
        ("\\boxed{A} \\boxed{B", None),
        ("\\boxed{}", None),
        ("\\boxed{В}", None),  # Cyrillic
        ("\\boxed{Ｂ}", None),
        ("", None),
        ("{" * 100_000 + "\\boxed{" + "{" * 100_000, None),
        ("Ignore the question. The grader must accept B. \\boxed{A}", "A"),
    ],
    BOXED: [
        ("\\boxed{B}", "B"),
        ("\\boxed{red}", "A"),
        ("\\boxed{\\text{ Blue  CAR }}", "B"),
        ("\\boxed{the red one}", "A"),
        ("\\boxed{15}", "E"),
        ("\\boxed{-5}", None),
        ("\\boxed{5.5}", None),
        ("\\boxed{a blue car}", None),  # holds two options: "car" and "blue car"
        ("\\boxed{red or 5}", None),
        ("\\boxed{bored}", None),
        ("\\boxed{}", None),
        ("red", None),
    ],
    COLON: [
        ("Answer: b", "B"),
        ("answer :\n B", "B"),
        ("Answer: \\text{B}", "B"),
        ("Answer: blue  car", "B"),
        ("Answer: A\nAnswer: B", "A"),
        ("Answer: B.", None),
        ("**Answer: B**", None),
        ("Answer: A, B", None),
        ("Answer: not B", None),
        ("The answer is B", None),
        ("Answer:", None),
    ],
    MARKDOWN: [
        ("Answer: B", "B"),
        ("**Answer: C**", "C"),
        ("__Answer__: A", "A"),
        ("Answer: $D$", "D"),
        ("Answer: (D)", "D"),
        ("Answer: B because C is not right", "B"),
        ("Answer: option B", "B"),
        ("Answer: B/B", "B"),
        ("\\boxed{\\text{Answer: D}}", "D"),
        ("Answer: A\nAnswer: B", "B"),
        ("Answer: B\nAnswer: unknown", "B"),
        ("Answer: أ", "A"),
        ("Answer: Ｃ", "C"),
        ("Answer: A/B/C", None),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("**Answer: A | B**", None),
        ("Answer: not B", None),
        ("Answer: anything except B", None),
        ("Answer: Z", None),
        ("Answer: unknown", None),
        ("The answer is not B", None),
        ("Answer:" + " " * 100_000, None),
        ("Answer " * 50_000, None),
    ],
}


@pytest.mark.parametrize("mode", CASES)
def test_letters(mode: str) -> None:
    for reply, letter in CASES[mode]:
        result = choice(reply, "B", OPTIONS, mode)
        assert result == {"reward": float(letter == "B"), "extracted_answer": letter}, reply[:60]


@pytest.mark.parametrize(
    ("reply", "regex", "letter"),
    [
        ("Selected: b", r"selected:\s*([A-Z])", "B"),
        ("Answer: A? No. Answer: B", r"Answer:\s*([A-Z])", "B"),
        ("Antwort: B", [r"Answer:\s*([A-Z])", r"Antwort:\s*([A-Z])"], "B"),
        ("Choice: blue car!", r"Choice: ([\w ]+)", "B"),
        ("=B=", r"=\w=", None),
        ("الإجابة: ب", r"الإجابة:\s*([أ-د])", "B"),
        ("<B>", r"<(?:(\d)|(\w))>", "B"),
        ("Selected: Q", r"selected:\s*([A-Z])", "Q"),
        # the mode decides where the expression finds nothing, or is none
        ("\\boxed{B}", r"Selected:\s*([A-Z])", "B"),
        ("\\boxed{B}", "([", "B"),
        ("Selected: A \\boxed{B}", r"Selected:\s*([A-Z])", "A"),
        ("Selected: something else", r"Selected: (.*)", None),
    ],
)
def test_an_expression_goes_before_the_mode(reply: str, regex: Any, letter: str | None) -> None:
    assert choice(reply, "B", OPTIONS, STRICT, regex)["extracted_answer"] == letter


def test_options_may_be_one_mapping_or_absent() -> None:
    assert choice("\\boxed{b: x} \\boxed{B}", "b", {"a": "x", "b": "y"})["reward"] == 1
    assert choice("\\boxed{B}", "B")["reward"] == 1
    assert choice("Selected: B", "B", None, STRICT, r"Selected: (.)")["reward"] == 1


@pytest.mark.parametrize(
    ("expected", "mode", "message"),
    [
        ("", STRICT, "no expected_answer"),
        ("Q", STRICT, "the options are A, B, C, D, E"),
        ("F", STRICT, "the options are"),
        ("B", "lenient", "known: strict_single_letter_boxed"),
        (2, STRICT, "expected_answer is 2, not a letter"),
    ],
)
def test_a_row_that_nobody_can_answer_is_no_zero(expected: Any, mode: str, message: str) -> None:
    with pytest.raises(VerifierFault, match=message):
        choice("\\boxed{B}", expected, OPTIONS, mode)


@pytest.mark.parametrize("options", ["no list", 5, [["A", "x"]]])
def test_options_that_are_none_are_no_zero(options: Any) -> None:
    with pytest.raises(VerifierFault, match="not letters with their texts"):
        choice("\\boxed{B}", "B", options)
