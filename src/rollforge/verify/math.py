r"""Grading a mathematical answer: where it stands in the reply, and whether it equals the expected one.

Exact: `1/2`, `0.5`, `50%` and `\frac{1}{2}` are equal, `0.33` is not `1/3`. What `expression` cannot read (a word, an
integral) must agree as text; of an expected answer like that, math-verify has the say where the `math` extra is there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from rollforge.errors import VerifierFault
from rollforge.verify.answer import after_thinking, answer_line, boxed, has_box, hashed_lines, last_number
from rollforge.verify.exact import Unreadable, Value, approximate, number, symbol
from rollforge.verify.expression import Form, Group, Quantity, is_variable, read
from rollforge.verify.intervals import spans
from rollforge.verify.notation import UPRIGHT, tidy
from rollforge.verify.second_opinion import second_opinion
from rollforge.verify.statement import is_result, stated
from rollforge.verify.units import same_unit

Found = Literal["box", "hashes", "answer", "number"]
Compared = Literal["exact", "text", "math_verify"]


def math_answer(reply: str, expected: str | float | Sequence[float]) -> dict[str, Any]:
    """1 if the reply's answer equals the expected one, else 0; with the answer, where it was found, how it was compared.

    Raises `VerifierFault` if there is nothing to compare with.
    """
    if isinstance(expected, bool) or not isinstance(expected, str | int | float | Sequence):
        raise VerifierFault(f"the expected answer is {expected!r:.80}; it is text, a number or a list of them")
    gold = expected_answer(str(expected))
    if not gold:
        raise VerifierFault(f"the expected answer is {expected!r}: nothing to compare with")
    answer, found = extract(reply)
    equal, compared = equivalent(answer, gold) if answer else (False, None)
    return {"reward": float(equal), "extracted_answer": answer, "extracted_by": found, "compared_by": compared}


def expected_answer(text: str) -> str:
    """The answer in a row's field: alone, in a box, or behind `####` after a worked solution (GSM8K)."""
    if has_box(text):
        return (boxed(text) or "").strip()
    return text.rpartition("####")[2].strip()


def extract(reply: str) -> tuple[str | None, Found | None]:
    """The answer as written and where it was found: the last box, behind `####`, on the last "Answer:" line, or the last
    number. Only the first of these that is there counts: a reply does not get several tries."""
    text = after_thinking(reply)
    if has_box(text):
        return boxed(text), "box"
    hashed = next((line for line, last in hashed_lines(text) if is_result(line, last)), None)
    if hashed is not None:
        return hashed, "hashes"
    line = answer_line(text)
    if line is not None:
        return stated(line), "answer"
    found = last_number(text)
    return (found, "number") if found else (None, None)


def equivalent(given: str, expected: str) -> tuple[bool, Compared]:
    """Whether two answers say the same, and how that was decided."""
    if given.strip() == expected.strip():
        return True, "text"
    gold = None
    try:
        gold = read(expected)
        if _same(read(given), gold):
            return True, "exact"
        # "1,234" is one number, unless a list was asked for.
        return isinstance(gold, Group) and "," in given and _same(read(given, separators=False), gold), "exact"
    except Unreadable:
        if _same_text(given, expected):
            return True, "text"
    # It finds a right answer in much that is none ("4 = 5", "evil" for "live", 11_3 for 11_2, mW for MW): not asked where
    # the expected one is plain.
    plain = gold is not None or expected.isalpha() or _BASE.search(expected) or _differ_in_case(given, expected)
    opinion = None if plain else second_opinion(given, expected)
    return (False, "text") if opinion is None else (opinion, "math_verify")


_LETTERS = re.compile(UPRIGHT + r"\{([^{}]*)\}")
_BASE = re.compile(r"(?<![\w.])(?:\(([0-9A-F]+)\)|([0-9A-F]+))_(?:\{([0-9]+)\}|([0-9]+))")
"""A number in another base."""


def _same_text(given: str, expected: str) -> bool:
    """Layout, letter case and spaces around signs do not matter."""
    if len(given) > 4 * len(expected) + 1000:
        return False
    plain = _plain(given)
    return bool(plain) and plain == _plain(expected)


def _plain(text: str) -> str:
    words = _BASE.sub(r"\1\2_\3\4", _LETTERS.sub(r" \1 ", tidy(text)))
    words = re.sub(r"[^\W\d_]+", lambda word: word[0].casefold() if _one_case(word[0]) else word[0], words)
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(words.split())).strip(".")


def _differ_in_case(given: str, expected: str) -> bool:
    """Whether they have the same words, but for letter case that matters."""
    words, others = (re.findall(r"[^\W\d_]+", _plain(text)) for text in (given, expected))
    return words != others and [word.casefold() for word in words] == [word.casefold() for word in others]


def _one_case(word: str) -> bool:
    """Not so in mW and kHz."""
    return word.islower() or word.isupper() or word.istitle()


def _same(given: Form, expected: Form) -> bool:
    if not _agree(given.label, expected.label):
        return False
    if isinstance(given, Quantity) and isinstance(expected, Quantity):
        return _same_quantity(given, expected)
    if isinstance(given, Group) and isinstance(expected, Group) and "matrix" in (given.kind, expected.kind):
        return _same_matrix(given, expected)
    if isinstance(expected, Group) and expected.kind in _RELATIONS:
        return _same_relation(given, expected)
    if isinstance(given, Group) and given.kind == "=" and isinstance(expected, Quantity):
        return _same_ended(given, expected)
    if isinstance(given, Quantity):
        given = Group("{}", (given,))
    if isinstance(expected, Quantity):
        expected = Group("{}", (expected,))
    kinds = {given.kind, expected.kind}
    if kinds == {"{}"} and len(given.items) > 1 and len(expected.items) > 1:
        # Saying an element of a set twice says nothing else.
        return _covers(given.items, expected.items) and _covers(expected.items, given.items)
    if "∪" in kinds:
        # "x < 1 or x > 2" is a union; a list of pairs is not.
        listed = [item for form in (given, expected) if not form.kind for item in form.items]
        left, right = spans(given), spans(expected)
        if left is not None and right is not None:
            return all(isinstance(item, Group) and item.name for item in listed) and left == right
    if len(given.items) != len(expected.items):
        return False
    if len(given.items) == 1 and kinds <= {"{}", "[]", ""}:
        return _same(given.items[0], expected.items[0])
    if len(_labels(given)) > 1 or len(_labels(expected)) > 1:
        # It is said which is which: by a label, or by the order.
        if _labels(given) == _labels(expected):
            return _same_set(given.items, expected.items)
        return "{}" not in kinds and all(map(_same, given.items, expected.items))
    if kinds <= {"{}", ""} or kinds == {"∪"}:
        return _same_set(given.items, expected.items)
    # A list without brackets may stand for a tuple or a list, in its order.
    if len(kinds) > 1 and not ("" in kinds and kinds & {"()", "[]"}):
        return False
    return all(map(_same, given.items, expected.items))


def _labels(group: Group) -> set[str]:
    return {item.label for item in group.items if item.label}


def _agree(label: str, other: str) -> bool:
    """Variables are the same one; of two descriptions one says what the other does; a variable is not described."""
    if not label or not other or label == other:
        return True
    if is_variable(label) or is_variable(other):
        return not (is_variable(label) and is_variable(other))
    if len(label) == 2 and label == other[::-1]:  # AB is BA, and xy is yx
        return True
    words, others = ({*each.casefold().split()} - {"the"} for each in (label, other))
    return words <= others or others <= words


_RELATIONS = ("=", "≠", "<", "≤")


def _same_relation(given: Form, expected: Group) -> bool:
    """Up to a factor. An expected equation may be answered by one solved for a variable, not the other way round: `2x = 10`
    is the question, `x = 5` the answer."""
    [wanted] = expected.items
    assert isinstance(wanted, Quantity)
    if isinstance(given, Quantity):
        if expected.kind == "=" and _same_ended(expected, given):
            return True
        if expected.kind != "=" or not given.name or given.unit or given.percent:
            return False
        return (symbol(given.name) - given.value).ratio(wanted.value) is not None
    if given.kind != expected.kind:
        return False
    [item] = given.items
    ratio = item.value.ratio(wanted.value) if isinstance(item, Quantity) else None
    return ratio is not None and (ratio > 0 or expected.kind in ("=", "≠"))


def _same_ended(equation: Group, solved: Quantity) -> bool:
    """Whether `5 = x` says `x = 5`."""
    if not equation.name or solved.name not in ("", equation.name) or solved.unit or solved.percent:
        return False
    [item] = equation.items
    return isinstance(item, Quantity) and item.value + symbol(equation.name) == solved.value


def _same_matrix(given: Group, expected: Group) -> bool:
    """Entry by entry. A list of lists is a matrix, and a plain tuple or list a row or a column."""
    left, right = _rows(given), _rows(expected)
    if left is None or right is None:
        matrix, other = (right, given) if left is None else (left, expected)
        if matrix is None or other.kind not in ("()", "[]", "") or (len(matrix) > 1 and len(matrix[0]) > 1):
            return False
        flat = [entry for row in matrix for entry in row]
        pair = (other.items, flat) if left is None else (flat, other.items)
        return len(flat) == len(other.items) and all(map(_same, *pair))
    if [len(row) for row in left] != [len(row) for row in right]:
        return False
    return all(all(map(_same, *rows)) for rows in zip(left, right, strict=True))


def _rows(group: Group) -> list[tuple[Form, ...]] | None:
    kinds = {item.kind if isinstance(item, Group) else "" for item in group.items}
    if group.kind == "matrix" or (group.kind == "[]" and kinds == {"[]"}):
        return [item.items for item in group.items if isinstance(item, Group)]
    return None


def _covers(items: Sequence[Form], others: Sequence[Form]) -> bool:
    return all(any(_same(item, other) for item in items) for other in others)


def _same_set(given: Sequence[Form], expected: Sequence[Form]) -> bool:
    left = list(expected)
    for item in given:
        match = next((index for index, other in enumerate(left) if _same(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _same_quantity(given: Quantity, expected: Quantity) -> bool:
    if _same_formula(given, expected):
        return True
    if not same_unit(given.unit, expected.unit):
        return False
    if given.percent != expected.percent:
        return _same_percent(*((given, expected) if given.percent else (expected, given)))
    return given.value == expected.value or _rounded(given, expected.value) or _rounded(expected, given.value)


def _same_formula(given: Quantity, expected: Quantity) -> bool:
    """`5 m` is `5m`, whether that is a length or a product."""
    left, right = (q.formula or (None if q.unit or q.percent else q.value) for q in (given, expected))
    return left is not None and right is not None and left == right and (given.formula or expected.formula) is not None


def _same_percent(percent: Quantity, other: Quantity) -> bool:
    """50% is 1/2; and 50 where the question asked for percent. A bare number up to 1 is always the fraction."""
    if other.unit:
        return False
    if percent.value / number(100) == other.value:
        return True
    value = other.value.rational
    return value is not None and abs(value) > 1 and percent.value == other.value


MIN_DIGITS, LONG_DIGITS = 6, 12


def _rounded(short: Quantity, value: Value) -> bool:
    """Whether `short` is a decimal of six or more significant digits, and the value, rounded or cut to as many, is it.

    Only for values that nobody writes out: with no finite decimal, or one of more than twelve digits.
    """
    fraction, _, decimals = short.decimal.lstrip("+-").partition(".")
    if not short.decimal or len((fraction + decimals).lstrip("0")) < MIN_DIGITS or not _endless(value):
        return False
    exact = approximate(value)
    if exact is None:
        return False
    unit = Decimal(1).scaleb(-len(decimals))
    difference = exact - Decimal(short.decimal)
    toward_zero = difference if exact >= 0 else -difference
    return -unit / 2 <= toward_zero < unit


def _endless(value: Value) -> bool:
    fraction = value.rational
    if fraction is None:
        return True
    denominator = fraction.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    if denominator != 1:
        return True
    exact = approximate(value)
    return exact is not None and len(exact.normalize().as_tuple().digits) > LONG_DIGITS
