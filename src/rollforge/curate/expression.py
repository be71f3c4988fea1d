"""The expressions of filters: text in, a function over named values out. Nothing is evaluated as Python.

What a row does not have is null. An order (`<`) of null, or of a text and a number, is false, and so are `==` and `in`; the
row's reason then says so ("no task.level") instead of failing. `!=` and `not in` are true there. Names: `facts.ABOUT`;
what can be written: `grammar`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rollforge.curate.bounded import Search
from rollforge.curate.facts import GROUP, LATER
from rollforge.curate.grammar import Node, parse

Run: TypeAlias = Callable[[Mapping[str, Any], list[str]], Any]
"""(values by name, notes) -> value. A comparison that could not be made adds to the notes why."""


class Expression:
    """A compiled expression. `names` are the values that it needs."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.text = " ".join(node.text.split())
        self.names = frozenset(name.name for name in node.names())
        self.needs_group = not self.names.isdisjoint(GROUP)
        self._run = function(node)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self._run(values, [])

    @property
    def denial(self) -> str:
        """What is said of rows for which it does not hold."""
        if self.node.kind == "not":
            return " ".join(self.node.parts[0].text.split())
        return f"not ({self.text})" if self.node.kind == "or" else f"not {self.text}"

    def conjuncts(self) -> list[Expression]:
        """The parts that a top-level `and` joins, in order."""
        return [Expression(node) for node in _conjuncts(self.node)]


def compile(text: str) -> Expression:
    """Raises `ExpressionError` that points at an unknown name, or at what is no expression."""
    return Expression(parse(text))


def _conjuncts(node: Node) -> Iterator[Node]:
    if node.kind == "and":
        for part in node.parts:
            yield from _conjuncts(part)
    else:
        yield node


_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITH: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def function(node: Node) -> Run:
    """Made once; a call of it costs a fraction of a microsecond per node."""
    return _MAKERS[node.kind](node, [function(part) for part in node.parts])


def _value(node: Node, _: list[Run]) -> Run:
    value = node.value
    return lambda values, notes: value


def _name(node: Node, _: list[Run]) -> Run:
    name = node.name

    def run(values: Mapping[str, Any], notes: list[str]) -> Any:
        value = values[name]
        if type(value) is Doubt:
            notes.append(value.reason)
            return value.value
        return value

    return run


@dataclass(frozen=True, slots=True)
class Doubt:
    """The value of a part that was worked out elsewhere, with the note that came of it."""

    value: Any
    reason: str


def _list(_: Node, parts: list[Run]) -> Run:
    return lambda values, notes: [part(values, notes) for part in parts]


def _or(_: Node, parts: list[Run]) -> Run:
    return lambda values, notes: any(part(values, notes) for part in parts)


def _and(_: Node, parts: list[Run]) -> Run:
    return lambda values, notes: all(part(values, notes) for part in parts)


def _not(_: Node, parts: list[Run]) -> Run:
    (inner,) = parts
    return lambda values, notes: not inner(values, notes)


def _compare(node: Node, parts: list[Run]) -> Run:
    links = [_link(node.parts[i], sign, node.parts[i + 1]) for i, sign in enumerate(node.value)]
    first, second, *more = parts
    link = links[0]
    if not more:
        return lambda values, notes: link(first(values, notes), second(values, notes), notes)

    def chain(values: Mapping[str, Any], notes: list[str]) -> bool:
        left = first(values, notes)
        for part, link in zip(parts[1:], links, strict=True):
            right = part(values, notes)
            if not link(left, right, notes):
                return False
            left = right
        return True

    return chain


_NUMBERS = frozenset((int, float, bool))


def _link(left: Node, sign: str, right: Node) -> Callable[[Any, Any, list[str]], bool]:
    link = _exactly(left, sign, right)
    sides = (left, right)
    fine = any(side.kind == "value" and side.value and not _rounded(side.value) for side in sides)  # 1e-12: a tolerance
    if fine or all(name.name not in LATER for side in sides for name in side.names()):
        return link
    # Both: a third has more digits, wherever it stands.
    return lambda a, b, notes: link(_rounded(a), _rounded(b), notes)


DIGITS = 9
"""Rewards are compared rounded to as many: 0.7 - 0.5 is meant to be 0.2."""


def _rounded(value: Any) -> Any:
    if type(value) is list:
        return [_rounded(each) for each in value]
    return round(value, DIGITS) if type(value) is float else value


def _exactly(left: Node, sign: str, right: Node) -> Callable[[Any, Any, list[str]], bool]:
    if sign in _ORDERS:
        order = _ORDERS[sign]

        def ordered(a: Any, b: Any, notes: list[str]) -> bool:
            if (type(a) in _NUMBERS and type(b) in _NUMBERS) or (type(a) is str and type(b) is str):
                return bool(order(a, b))
            notes.append(_clash(left, a, right, b))
            return False

        return ordered
    if sign in ("==", "!="):
        wanted = sign == "=="

        def equal(a: Any, b: Any, notes: list[str]) -> bool:
            same = bool(a == b)
            if not same and wanted and _kind(a) != _kind(b) and not (_is_null(left) or _is_null(right)):
                notes.append(_clash(left, a, right, b))
            return same is wanted

        return equal
    wanted = sign == "in"

    def contained(a: Any, b: Any, notes: list[str]) -> bool:
        if isinstance(b, (list, dict)) or (isinstance(a, str) and isinstance(b, str)):
            found = a in b if not isinstance(b, dict) or isinstance(a, str) else False
            if not found and a is None and wanted:
                notes.append(_missing(left))
            return found is wanted
        notes.append(_clash(left, a, right, b) if a is None or b is None else f"{right.text} is {_kind(b)}, not a list")
        return not wanted

    return contained


def _is_null(node: Node) -> bool:
    return node.kind == "value" and node.value is None


def _kind(value: Any) -> str:
    """In words; true and false are numbers (1 and 0), as in `==`."""
    if type(value) in _NUMBERS:
        return "a number"
    return _KINDS.get(type(value), "an object")


_KINDS = {str: "text", list: "a list", dict: "an object", type(None): "null"}


def _missing(node: Node) -> str:
    return f"no {node.name}" if node.kind == "name" else f"{node.text} is null"


def _clash(left: Node, a: Any, right: Node, b: Any) -> str:
    if a is None or b is None:
        return _missing(left if a is None else right)
    if left.kind == "value":
        left, a, right, b = right, b, left, a
    against = _kind(b) if right.kind == "value" else f"{_kind(b)} ({right.text})"
    return f"{left.text} is {_kind(a)}, compared with {against}"


def _neg(node: Node, parts: list[Run]) -> Run:
    (inner,) = parts
    return _numeric(node, [inner], lambda found: -found[0])


def _arith(node: Node, parts: list[Run]) -> Run:
    act = _ARITH[node.name]
    return _numeric(node, parts, lambda found: act(found[0], found[1]))


def _numeric(node: Node, parts: list[Run], act: Callable[[list[Any]], Any]) -> Run:
    """Of numbers a number, of anything else null."""

    def run(values: Mapping[str, Any], notes: list[str]) -> Any:
        found = [part(values, notes) for part in parts]
        for value, part in zip(found, node.parts, strict=True):
            if type(value) not in _NUMBERS:
                notes.append(_missing(part) if value is None else f"{part.text} is {_kind(value)}, not a number")
                return None
        try:
            return act(found)
        except ZeroDivisionError:
            notes.append(f"{node.text} divides by zero")
        except OverflowError:
            notes.append(f"{node.text} is too large")
        return None

    return run


def _of(node: Node, parts: list[Run], kinds: tuple[type, ...], what: str, act: Callable[[Any, Any], Any]) -> Run:
    """`act` of the first value (and the second), if the first is of these kinds; else null."""
    first = parts[0]
    second = parts[1] if len(parts) > 1 else None
    about = node.parts[0]

    def run(values: Mapping[str, Any], notes: list[str]) -> Any:
        value = first(values, notes)
        if isinstance(value, kinds):
            return act(value, second(values, notes) if second else None)
        notes.append(_missing(about) if value is None else f"{about.text} is {_kind(value)}, not {what}")
        return None

    return run


def _len(node: Node, parts: list[Run]) -> Run:
    return _of(node, parts, (str, list, dict), "text or a list", lambda value, _: len(value))


def _lower(node: Node, parts: list[Run]) -> Run:
    return _of(node, parts, (str,), "text", lambda value, _: value.lower())


def _contains(node: Node, parts: list[Run]) -> Run:
    def act(value: Any, part: Any) -> bool:
        return (isinstance(part, str) or not isinstance(value, str)) and part in value

    return _of(node, parts, (str, list), "text or a list", act)


def _matches(node: Node, parts: list[Run]) -> Run:
    search = Search(node.value)
    return _of(node, parts[:1], (str,), "text", lambda value, _: search(value))


def _extreme(node: Node, parts: list[Run]) -> Run:
    choose: Callable[[list[Any]], Any] = min if node.name == "min" else max
    if len(parts) > 1:
        return _numeric(node, parts, choose)

    def act(found: Any, _: Any) -> Any:
        return choose(found) if found and all(type(value) in _NUMBERS for value in found) else None

    return _of(node, parts, (list,), "a list", act)


def _abs(node: Node, parts: list[Run]) -> Run:
    return _numeric(node, parts, lambda found: abs(found[0]))


_FUNCTIONS: dict[str, Callable[[Node, list[Run]], Run]] = {
    "len": _len,
    "lower": _lower,
    "contains": _contains,
    "matches": _matches,
    "min": _extreme,
    "max": _extreme,
    "abs": _abs,
}
_MAKERS: dict[str, Callable[[Node, list[Run]], Run]] = {
    "value": _value,
    "name": _name,
    "list": _list,
    "or": _or,
    "and": _and,
    "not": _not,
    "compare": _compare,
    "arith": _arith,
    "neg": _neg,
    "call": lambda node, parts: _FUNCTIONS[node.name](node, parts),
}
