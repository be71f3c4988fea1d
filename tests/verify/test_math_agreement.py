"""Generated answers: graded as they were made, and where math-verify says otherwise it is math-verify that is wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from rollforge.verify.math import equivalent, math_answer
from rollforge.verify.second_opinion import second_opinion
from tests.verify.answers import KINDS, answers


def test_generated_answers_are_graded_as_they_were_made() -> None:
    cases = list(answers(Random(5), 12))
    assert len(cases) > 2000
    assert Counter(case.kind for case in cases).keys() == KINDS.keys()
    assert [case for case in cases if equivalent(case.given, case.expected)[0] != case.right] == []


FRAMES = (
    "\\[\n\\boxed{%s}\n\\]",
    "First $\\boxed{4}$, then $x + 2 = 7$.\n\nSo it is $\\boxed{%s}$, which is not 5.",
    "**Final answer:** $%s$",
    "Therefore the answer is $%s$.",
    "2 * 3 = 6\n#### %s",
    "#### Result\nAnswer:\n$$\n%s\n$$\nas 2 + 3 = 5.",
    "Answer: The result is $%s$.",
)


@pytest.mark.parametrize("frame", FRAMES)
def test_and_so_are_replies_that_hold_them(frame: str) -> None:
    # A dollar sign would end the formula.
    cases = [case for case in answers(Random(6), 3) if "$" not in case.given]
    wrong = [case for case in cases if math_answer(frame % case.given, case.expected)["reward"] != case.right]
    assert wrong == []


@pytest.mark.extras
def test_no_difference_from_math_verify_is_our_mistake() -> None:
    pytest.importorskip("math_verify")
    cases = list(answers(Random(7), 2))
    theirs = [second_opinion(case.given, case.expected) for case in cases]
    ours = [equivalent(case.given, case.expected)[0] for case in cases]
    told = list(zip(cases, ours, theirs, strict=True))
    assert [case for case, mine, other in told if mine != other and mine != case.right] == []
    rightly = [mine == other for case, mine, other in told if other == case.right]
    assert sum(rightly) >= 0.99 * len(rightly)
    assert len(rightly) > 0.75 * len(cases)
