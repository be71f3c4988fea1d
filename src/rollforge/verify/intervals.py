"""Sets of real numbers as what they hold: unions of intervals and points, in order, touching ones joined."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from rollforge.verify.exact import Unreadable, Value, approximate, symbol
from rollforge.verify.expression import Form, Group, Quantity


class Span(NamedTuple):
    low: Value
    closed_low: bool
    high: Value
    closed_high: bool


def spans(form: Form) -> list[Span] | None:
    """The fewest spans that hold the same numbers; None if the form is no set of numbers, or one that is not in order."""
    parts: list[Span] = []
    for item in form.items if isinstance(form, Group) and form.kind in ("∪", "") else (form,):
        found = _parts(item)
        if found is None:
            return None
        parts += found
    try:
        return _joined(sorted(parts, key=lambda span: (_place(span.low), not span.closed_low)))
    except Unreadable:
        return None


def _parts(item: Form) -> list[Span] | None:
    if not isinstance(item, Group):
        return None
    values = [each.value for each in item.items if isinstance(each, Quantity)]
    if len(values) != len(item.items):
        return None
    if item.kind == "{}":
        return [Span(value, True, value, True) for value in values]
    if item.kind in ("()", "[)", "(]", "[]") and len(values) == 2:
        return [Span(values[0], item.kind[0] == "[", values[1], item.kind[1] == "]")]
    return None


def _joined(parts: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in parts:
        if _place(span.low) > _place(span.high):
            raise Unreadable("an interval that ends before it begins")
        last = joined[-1] if joined else None
        if last is None or not _touch(last, span):
            joined.append(span)
        elif span.high == last.high:
            joined[-1] = last._replace(closed_high=last.closed_high or span.closed_high)
        elif _place(span.high) > _place(last.high):
            joined[-1] = last._replace(high=span.high, closed_high=span.closed_high)
    return joined


def _touch(first: Span, second: Span) -> bool:
    if first.high == second.low:
        return first.closed_high or second.closed_low
    return _place(second.low) < _place(first.high)


def _place(value: Value) -> Decimal:
    for sign, infinity in ((1, symbol("∞")), (-1, -symbol("∞"))):
        if value == infinity:
            return Decimal(sign) * Decimal("Infinity")
    place = approximate(value)
    if place is None:
        raise Unreadable("a bound that is no number")
    return place
