"""Exact values: the laws of arithmetic, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rollforge.verify.exact import Unreadable, Value, approximate, number, power, root, symbol

rationals = st.fractions(min_value=-50, max_value=50, max_denominator=12).map(number)
roots = st.builds(lambda a, b: number(a) * root(number(b), 2), st.integers(-5, 5), st.integers(0, 40))
cubes = st.integers(-30, 30).map(lambda n: root(number(n), 3))
values = st.recursive(
    st.one_of(rationals, roots, cubes, st.sampled_from([symbol("x"), symbol("π"), root(number(-1), 2)])),
    lambda inner: st.builds(lambda a, b: a + b, inner, inner) | st.builds(lambda a, b: a * b, inner, inner),
    max_leaves=4,
)


@settings(deadline=None)
@given(values, values, values)
def test_the_laws_of_a_field(a: Value, b: Value, c: Value) -> None:
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) * c == a * c + b * c
    assert a - a == number(0)
    assert a + number(1) != a


@settings(deadline=None)
@given(values, values)
def test_division_undoes_multiplication(a: Value, b: Value) -> None:
    assume(b != number(0))
    assert a * b / b == a
    assert (a / b) * b == a


@settings(deadline=None)
@given(st.fractions(min_value=0, max_value=1000, max_denominator=30), st.integers(2, 6))
def test_a_root_to_its_degree_is_the_number(x: Fraction, degree: int) -> None:
    assert power(root(number(x), degree), number(degree)) == number(x)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(2, 12))
def test_square_roots_of_sums_come_apart(a: int, b: int, c: int) -> None:
    whole = number(a) + number(b) * root(number(c), 2)
    assert root(whole * whole, 2) == whole


@settings(deadline=None)
@given(values)
def test_equal_values_have_one_text(a: Value) -> None:
    assert str(a + a) == str(number(2) * a)


def test_values_far_beyond_floats_are_told_apart() -> None:
    big, small = power(number(2) + root(number(3), 2), number(2016)), power(number(2) - root(number(3), 2), number(2016))
    assert big * small == number(1)
    assert big + small != big


def test_approximate() -> None:
    assert str(approximate(root(number(2), 2), 20)) == "1.4142135623730950488"
    assert approximate(symbol("x")) is None
    assert approximate(root(number(-1), 2)) is None
    assert approximate(number(0)) == Decimal(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: number(1) / number(0),
        lambda: power(number(0), number(0)),
        lambda: power(number(9), power(number(9), number(9))),
        lambda: power(number(Fraction(1, 9)), number(-100_000)),
        lambda: power(symbol("x") + symbol("y") + number(1), number(200)),
        lambda: power(root(number(2), 2) + number(1), number(100_000)),
        lambda: root(number(2), 100),
        lambda: root(number(-1), 4),
        lambda: root(number(10_000_019 * 10_000_079), 2),
        lambda: root(number(7**400), 2),
    ],
)
def test_what_is_undefined_or_too_large_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(Unreadable):
        make()
