"""The math_answer environment: rows in the shapes found in the wild, and problems whose answers are right."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import pytest

from rollforge.envs.decorate import PythonEnv
from rollforge.envs.math_answer import math_answer
from rollforge.errors import VerifierFault
from rollforge.verify.exact import Value, number
from rollforge.verify.expression import Group, Quantity, read
from tests.envs.drive import attempt, solved, task, tasks_of


@pytest.fixture
async def env() -> AsyncIterator[PythonEnv]:
    yield math_answer
    await math_answer.aclose()


@pytest.mark.parametrize(
    "row",
    [
        {"expected_answer": "\\(\\frac{1}{4}\\)", "question": "?"},
        {"expected_result": "0.25", "expected_code_contains": ""},
        {"answer": "Half of a half.\n#### 1/4"},
        {"answer": 0.25},
        {"ground_truth": "[0.25]", "depth": 1, "breadth": 1},
        {"ground_truth": [0.25]},
        {"expected_answer": "25%", "answer": "ignored"},
    ],
)
async def test_rows(env: PythonEnv, row: dict[str, Any]) -> None:
    verdict = await attempt(env, task(**row), "It is \\boxed{\\frac{1}{4}}.")
    assert (verdict.reward, verdict.fields["extracted_answer"], verdict.fields["compared_by"]) == (
        1,
        "\\frac{1}{4}",
        "exact",
    )
    assert (await attempt(env, task(**row), "It is \\boxed{4}.")).reward == 0
    assert (await solved(env, task(**row))).reward == 1


@pytest.mark.parametrize("row", [{}, {"expected_answer": None}, {"expected_answer": " "}])
async def test_a_row_without_an_answer_cannot_be_judged(env: PythonEnv, row: dict[str, Any]) -> None:
    with pytest.raises(VerifierFault, match=r"expected_answer|nothing to compare"):
        await attempt(env, task(**row), "\\boxed{4}")


def _cases(kind: str) -> list[tuple[list[str], str, str]]:
    """The formulas of the problem, its answer, and its prompt, of many tasks of a kind."""
    rows = [(str(one.params["input"]), one.fields["expected_answer"]) for one in tasks_of(math_answer, kind=kind, n=100)]
    return [(re.findall(r"\$(.+?)\$", prompt), answer, prompt) for prompt, answer in rows]


def _value(text: str) -> Value:
    form = read(text)
    assert isinstance(form, Quantity)
    return form.value


def _with(formula: str, **numbers: str) -> Value:
    """The value of a formula with numbers put in for its variables."""
    return _value(re.sub(r"[xy]", lambda m: f"({numbers[m[0]]})", formula))


def _holds(equation: str, **numbers: str) -> bool:
    left, right = equation.split("=")
    return _with(left, **numbers) == _with(right, **numbers)


@pytest.mark.parametrize("kind", ["operations", "fractions", "expand", "roots"])
def test_what_is_to_be_computed_equals_the_answer(kind: str) -> None:
    for formulas, answer, _ in _cases(kind):
        assert _value(formulas[0].replace("\\div", "/")) == _value(answer)


def test_solutions_solve_their_equations() -> None:
    for formulas, answer, _ in _cases("linear"):
        assert _holds(formulas[1], x=answer)
    for formulas, answer, _ in _cases("system"):
        x, y = answer.strip("()").split(",")
        assert all(_holds(equation, x=x, y=y) for equation in formulas[:2])
    for formulas, answer, _ in _cases("quadratic"):
        roots = answer.split(",")
        assert isinstance(read(answer), Group)
        assert len(roots) == 2
        assert all(_holds(formulas[0], x=root) for root in roots)


def test_percentages_are_right() -> None:
    for _, answer, prompt in _cases("percent"):
        a, b, *rest = (int(n) for n in re.findall(r"\d+", prompt))
        if rest:
            assert Fraction(answer) == Fraction(a * (100 - b) * (100 + rest[0]), 10_000)
        elif "percent of" in prompt:
            assert Fraction(answer.rstrip("%")) == Fraction(100 * b, a)
        else:
            assert Fraction(answer) == Fraction(a * b, 100)


def test_circles_and_word_problems_are_right() -> None:
    for _, answer, prompt in _cases("circle"):
        a, *rest = (int(n) for n in re.findall(r"\d+", prompt))
        radius = rest[0] if rest else Fraction(a, 2 if "circumference" in prompt else 1)
        squared = radius**2 * (Fraction(a, 360) if rest else 1)
        assert _value(answer) == number(squared) * _value("\\pi")
    for _, answer, prompt in _cases("words"):
        a, b, *rest = (int(n) for n in re.findall(r"\d+", prompt))
        if "pump" in prompt:
            assert 1 / Fraction(answer) == Fraction(1, a) + Fraction(1, b)
        elif "train" in prompt:
            assert int(answer) == 60 * a // b + rest[0]
        else:
            assert int(answer) == a - b * rest[0]
