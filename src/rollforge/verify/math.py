r"""Grading a mathematical answer: where it stands in the reply, and whether it equals the expected one.

Exact: `1/2`, `0.5`, `50%` and `\frac{1}{2}` are equal, `0.33` is not `1/3`. What `expression` cannot read (a matrix, a word,
an inequality) must agree as text; of an expected answer like that, math-verify has the say where the `math` extra is there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from rollforge.errors import VerifierFault
from rollforge.verify.answer import after_thinking, answer_line, boxed, has_box, last_number
from rollforge.verify.exact import Unreadable, Value, approximate, number
from rollforge.verify.expression import Form, Group, Quantity, read
from rollforge.verify.notation import UPRIGHT, tidy

Found = Literal["box", "hashes", "answer", "number"]
Compared = Literal["exact", "text", "math_verify"]


def math_answer(reply: str, expected: str) -> dict[str, Any]:
    """1 if the reply's answer equals the expected one, else 0; with the answer, where it was found, how it was compared.

    Raises `VerifierFault` if there is nothing to compare with.
    """
    gold = expected_answer(expected)
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
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0], "hashes"
    line = answer_line(text)
    if line is not None:
        return _of_line(line), "answer"
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
    # It finds a right answer in much that is none ("4 = 5", "evil" for "live"): not asked where the expected one is plain.
    opinion = _second_opinion(given, expected) if gold is None and not expected.isalpha() else None
    return (False, "text") if opinion is None else (opinion, "math_verify")


_NEGATION = re.compile(r"\b(?:not|never|neither|nor|no|isn't|cannot|can't|unknown|wrong)\b", re.IGNORECASE)
_END = re.compile(r"[.!?](?=\s|$)|[;\n]|,?\s+(?:because|since|as|so|which|where)\b", re.IGNORECASE)
_BOLD = re.compile(r"^\*\*(.+?)\*\*")


def _of_line(line: str) -> str:
    """The answer of an "Answer:" line: what is bold at its start, or its first clause; or the only number of that."""
    bold = _BOLD.match(line)
    clause = bold[1] if bold else _END.split(line, maxsplit=1)[0].strip()
    try:
        read(clause)
    except Unreadable:
        numbers = [] if _NEGATION.search(clause) else _NUMBERS.findall(clause)
        return str(numbers[0]) if len(numbers) == 1 else clause
    return clause


_NUMBERS = re.compile(r"(?<![\w.\\])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?", re.ASCII)
_LETTERS = re.compile(UPRIGHT + r"\{([^{}]*)\}")


def _same_text(given: str, expected: str) -> bool:
    """Layout, letter case and spaces around signs do not matter."""
    if len(given) > 4 * len(expected) + 1000:
        return False
    plain = _plain(given)
    return bool(plain) and plain == _plain(expected)


def _plain(text: str) -> str:
    words = _LETTERS.sub(r" \1 ", tidy(text))
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(words.split())).casefold().strip(".")


def _same(given: Form, expected: Form) -> bool:
    if isinstance(given, Quantity) and isinstance(expected, Quantity):
        return _same_quantity(given, expected)
    if isinstance(given, Quantity):
        given = Group("{}", (given,))
    if isinstance(expected, Quantity):
        expected = Group("{}", (expected,))
    if len(given.items) != len(expected.items):
        return False
    kinds = {given.kind, expected.kind}
    if len(given.items) == 1 and kinds <= {"{}", "[]", ""}:
        return _same(given.items[0], expected.items[0])
    if kinds <= {"{}", ""} or kinds == {"∪"}:
        return _same_set(given.items, expected.items)
    # A list without brackets may stand for a tuple or a list, in its order.
    if len(kinds) > 1 and not ("" in kinds and kinds & {"()", "[]"}):
        return False
    return all(map(_same, given.items, expected.items))


def _same_set(given: Sequence[Form], expected: Sequence[Form]) -> bool:
    left = list(expected)
    for item in given:
        match = next((index for index, other in enumerate(left) if _same(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _same_quantity(given: Quantity, expected: Quantity) -> bool:
    if given.name and expected.name and given.name != expected.name:
        return False
    if given.unit and expected.unit and given.unit != expected.unit:
        return False
    if given.percent != expected.percent:
        return _same_percent(*((given, expected) if given.percent else (expected, given)))
    return given.value == expected.value or _rounded(given, expected.value) or _rounded(expected, given.value)


def _same_percent(percent: Quantity, other: Quantity) -> bool:
    """50% is 1/2; and 50 where the question asked for percent. A bare number up to 1 is always the fraction."""
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


@cache
def _math_verify() -> Any:
    return import_module("math_verify") if find_spec("math_verify") else None


def _second_opinion(given: str, expected: str) -> bool | None:
    """What math-verify says; None if it is not installed, or cannot be stopped here.

    Its time limits are signals, which only a main thread receives: that of a verifier's worker process is one.
    """
    library = _math_verify()
    if library is None or len(given) > 200 or threading.current_thread() is not threading.main_thread():
        return None
    gold, answer = (library.parse(f"\\boxed{{{text}}}") for text in (expected, given))
    return bool(gold and answer and library.verify(gold, answer))
