r"""Reading a short mathematical answer, in plain text or LaTeX, as what it says: a quantity, or a group of such.

Numbers with separators, decimals (also repeating ones), percent, millions, mixed numbers, `\frac`, `\sqrt[n]`, `\pi`, `^`,
`!`, `\binom`, implicit products, variables, `\pm`, absolute values, floor and ceiling, logarithms, sines and the like; sets,
tuples, intervals and their unions, matrices and small determinants, equations, inequalities (`x > 3` is an interval), lists
with commas, "and" or "or"; a name before (`x =`) and a unit after. Everything else is `Unreadable`. Nothing is evaluated but
arithmetic on `exact.Value`, which is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import comb, factorial
from string import ascii_lowercase
from typing import TypeAlias

from rollforge.verify.exact import (
    Unreadable,
    Value,
    absolute,
    approximate,
    logarithm,
    number,
    power,
    root,
    symbol,
    trigonometric,
    whole,
    without_squared_sines,
)
from rollforge.verify.notation import (
    ANGLES,
    CLOSE,
    CURRENCIES,
    FUNCTIONS,
    OPEN,
    SCALES,
    WORDS,
    Token,
    tidy,
    tokenize,
)
from rollforge.verify.units import split_unit

MAX_CHARACTERS = 400
MAX_DEPTH = 25
MAX_ITEMS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    value: Value
    name: str = ""
    """Of the variable it is assigned to, if that was written."""
    unit: str = ""
    """As `units` writes it; "" if there is none."""
    percent: bool = False
    """The value is what stands before the sign: 50, not 1/2."""
    decimal: str = ""
    """The literal, if the whole quantity is one with a decimal point."""
    formula: Value | None = None
    """The value if the letters read as a unit are variables after all: 5m for `5 m`."""
    label: str = ""
    """What was written before the equals sign: the name, or words such as `Area`."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    kind: str
    """The brackets as written, "{}" for a set; "" for a bare list, "∪" for a union, "matrix" and its "row"s; "=", "≠", "<"
    or "≤" for what the one item is to zero."""
    items: tuple[Form, ...]
    name: str = ""
    """Of the variable, for an interval that was written as an inequality and an equation that ends with it (`5 = x`)."""
    label: str = ""
    """What was written before the equals sign, or before "is in"; the name, for what has one."""


Form: TypeAlias = Quantity | Group


@lru_cache(maxsize=2048)
def read(text: str, separators: bool = True) -> Form:
    """What `text` says. Raises `Unreadable`. `separators`: whether 1,234 outside of brackets is one number."""
    if len(text) > MAX_CHARACTERS:
        raise Unreadable("too long")
    tokens = tokenize(tidy(text), separators)
    if not tokens:
        raise Unreadable("empty")
    return _form(tokens, 0)


def _form(tokens: Sequence[Token], depth: int) -> Form:
    if depth > MAX_DEPTH:
        raise Unreadable("nested too deeply")
    parts = _split(tokens, lambda t: t.text in (",", ";") or (t.kind in ("word", "text") and t.text in ("and", "or")))
    if len(parts) > 1:
        listed = _group("", [part for part in parts if part], depth)
        return listed if any(t.text == "or" for t in tokens) else _both(listed)
    unions = _split(tokens, lambda t: t.text == "\\cup")
    if len(unions) > 1:
        return _group("∪", unions, depth)
    # An approximation that follows the exact value adds nothing to it.
    approximations = _split(tokens, lambda t: t.text == "\\approx")
    if len(approximations) > 1:
        exact, other = approximations[:2]
        tokens = other if not exact or _name_length(exact) == len(exact) else exact
    if any(t.text in _COMPARED for t in tokens):
        return _inequality(tokens)
    labels, tokens = _labels(tokens)
    form = _unlabelled(tokens, labels, depth)
    if len(labels) == 1:
        return replace(form, label=labels[0])
    if isinstance(form, Group) and form.kind == "()" and len(labels) == len(form.items):
        items = zip(form.items, labels, strict=True)
        return replace(form, items=tuple(replace(item, label=label) for item, label in items))
    return form


def _unlabelled(tokens: Sequence[Token], labels: Sequence[str], depth: int) -> Form:
    # A description ("Area =") is no variable.
    name = labels[0] if len(labels) == 1 and is_variable(labels[0]) else ""
    if [t.text for t in tokens[:4]] == ["\\mathbb", "{", "R", "}"]:
        if len(tokens) == 4:
            return Group("()", (Quantity(-symbol("∞")), Quantity(symbol("∞"))))
        if tokens[4].text == "\\setminus":
            return _without(_form(tokens[5:], depth + 1))
    if tokens and tokens[-1].text == "\\endmatrix":
        return _matrix(tokens, depth)
    if len(tokens) == 1 and tokens[0].text in ("\\emptyset", "\\varnothing"):
        return Group("{}", ())
    if _enclosed(tokens):
        kind = (tokens[0].text + tokens[-1].text).replace("\\", "")
        inner = tokens[1:-1]
        if kind in ("()", "[]") and inner and inner[0].text == "\\matrix" and _enclosed(inner):
            return _matrix(inner, depth)
        items = _split(inner, lambda t: t.text in (",", ";"))
        if (kind in ("{}", "[]") and tokens[0].text != "{") or len(items) > 1:
            return _group(kind, items if inner else [], depth)
    if any(t.text == "\\pm" for t in tokens):
        signed = ([Token("mark", s, t.spaced) if t.text == "\\pm" else t for t in tokens] for s in "+-")
        return Group("", tuple(_form(variant, depth + 1) for variant in signed))
    return _quantity(tokens, name)


def _group(kind: str, parts: Sequence[Sequence[Token]], depth: int) -> Group:
    if len(parts) > MAX_ITEMS or not all(parts):
        raise Unreadable("an empty or a very long list")
    return Group(kind, tuple(_form(part, depth + 1) for part in parts))


_COMPARED = {"<": "<", ">": ">", "\\le": "≤", "\\ge": "≥", "\\ne": "≠"}
_TURNED = {">": "<", "≥": "≤"}


def _inequality(tokens: Sequence[Token]) -> Group:
    """An interval where a variable stands alone between constants, else how an expression compares with zero."""
    signs = [_COMPARED[t.text] for t in tokens if t.text in _COMPARED]
    sides = _split(tokens, lambda t: t.text in _COMPARED)
    if len(sides) != len(signs) + 1:
        raise Unreadable("an inequality in brackets")
    values = [_evaluate(side) for side in sides]
    if all(sign in _TURNED for sign in signs):
        signs, sides, values = [_TURNED[sign] for sign in reversed(signs)], sides[::-1], values[::-1]
    if signs != ["≠"] and not set(signs) <= {"<", "≤"}:
        raise Unreadable("inequalities of several directions")
    names = [
        i
        for i, side in enumerate(sides)
        if side and _name_length(side) == len(side) and _lone(values[i]) and (len(side) > 1 or len(values[i].symbols) == 1)
    ]
    constant = not any(value.symbols - _CONSTANT for i, value in enumerate(values) if i not in names)
    if len(names) == 1 and constant and signs != ["≠"] and (len(sides) == 2 or (len(sides) == 3 and names == [1])):
        return _interval(names[0], _written(sides[names[0]]), values, signs)
    if len(signs) != 1:
        raise Unreadable("a chain of inequalities")
    return Group(signs[0], (Quantity(values[0] - values[1]),))


def _both(listed: Group) -> Group:
    """`x > 1 and x < 5` is `1 < x < 5`."""
    if len(listed.items) != 2:
        return listed
    for up, down in (listed.items, listed.items[::-1]):
        if not (isinstance(up, Group) and isinstance(down, Group) and up.name and up.name == down.name):
            return listed
        bounds = (up.items[0], down.items[1])
        low, high = (approximate(bound.value) if isinstance(bound, Quantity) else None for bound in bounds)
        # The other bounds are infinite: they have no approximation.
        if low is not None and high is not None and low < high and _is_ray(up) and _is_ray(down):
            return Group(up.kind[0] + down.kind[1], bounds, up.name, up.label)
    return listed


def _is_ray(interval: Group) -> bool:
    return any(isinstance(bound, Quantity) and "∞" in bound.value.symbols for bound in interval.items)


def _without(points: Form) -> Group:
    """The real numbers but for some."""
    values = [item.value for item in points.items if isinstance(item, Quantity)] if isinstance(points, Group) else []
    places = [(approximate(value), value) for value in values]
    if not isinstance(points, Group) or points.kind != "{}" or len(values) != len(points.items) or not values:
        raise Unreadable("the real numbers without something else than points")
    if any(place is None for place, _ in places):
        raise Unreadable("a point that is no number")
    infinity = symbol("∞")
    bounds = [-infinity, *(value for _, value in sorted(places, key=lambda pair: pair[0] or 0)), infinity]
    return Group("∪", tuple(Group("()", (Quantity(low), Quantity(high))) for low, high in pairwise(bounds)))


_CONSTANT = {"π", "e", "∞"}


def _lone(value: Value) -> bool:
    return bool(value.symbols) and not value.symbols & _CONSTANT


def _interval(variable: int, name: str, values: Sequence[Value], signs: Sequence[str]) -> Group:
    infinity = symbol("∞")
    low, high = (-infinity, infinity) if len(values) == 2 else (values[0], values[2])
    kind = ["(", ")"]
    if variable > 0:
        low, kind[0] = values[variable - 1], "[" if signs[variable - 1] == "≤" else "("
    if variable < len(signs):
        high, kind[1] = values[variable + 1], "]" if signs[variable] == "≤" else ")"
    return Group("".join(kind), (Quantity(low), Quantity(high)), name, name)


def _matrix(tokens: Sequence[Token], depth: int) -> Form:
    """What stands before it, if anything, is a factor of each entry."""
    start = next((i for i, t in enumerate(tokens) if t.text == "\\matrix"), 0)
    if not _enclosed(tokens[start:]):
        raise Unreadable("an expression of matrices")
    determined = start > 0 and tokens[start - 1].text == "\\det"
    before = tokens[: start - 1] if start and tokens[start - 1].text in ("*", "\\det") else tokens[:start]
    if determined and before and before[-1].text == "*":
        before = before[:-1]
    if [t.text for t in before] == ["-"]:
        factor = number(-1)
    else:
        factor = _evaluate(before) if before else number(1)
    rows = _split(tokens[start + 1 : -1], lambda t: t.text == ";")
    if len(rows) > 1 and not rows[-1]:
        rows.pop()
    if len(rows) > MAX_ITEMS:
        raise Unreadable("a large matrix")
    entries = [
        [_entry(cell, number(1) if determined else factor, depth) for cell in _split(row, lambda t: t.text == "&")]
        for row in rows
    ]
    if len({len(row) for row in entries}) != 1 or len(entries[0]) > MAX_ITEMS:
        raise Unreadable("rows of several lengths")
    if determined:
        return Quantity(factor * _determinant(entries))
    return Group("matrix", tuple(Group("row", tuple(row)) for row in entries))


def _determinant(entries: Sequence[Sequence[Form]]) -> Value:
    if len(entries) != len(entries[0]) or len(entries) > 5:
        raise Unreadable("no small square matrix")
    plain = [
        [entry.value for entry in row if isinstance(entry, Quantity) and not (entry.unit or entry.percent)]
        for row in entries
    ]
    if any(len(row) < len(entries) for row in plain):
        raise Unreadable("a determinant of something else than numbers")

    def minor(row: int, columns: tuple[int, ...]) -> Value:
        if not columns:
            return number(1)
        total = number(0)
        for place, column in enumerate(columns):
            part = plain[row][column] * minor(row + 1, columns[:place] + columns[place + 1 :])
            total = total - part if place % 2 else total + part
        return total

    return minor(0, tuple(range(len(entries))))


def _entry(tokens: Sequence[Token], factor: Value, depth: int) -> Form:
    form = _form(tokens, depth + 1)
    if not isinstance(form, Quantity):
        raise Unreadable("a matrix of something else than numbers")
    return form if factor == number(1) else Quantity(form.value * factor, form.name, form.unit, form.percent)


def _split(tokens: Sequence[Token], at: Callable[[Token], bool]) -> list[Sequence[Token]]:
    """The runs between the tokens for which `at` is true, outside of brackets."""
    parts: list[Sequence[Token]] = []
    start = depth = 0
    for index, token in enumerate(tokens):
        depth += (token.text in OPEN) - (token.text in CLOSE)
        if depth == 0 and at(token):
            parts.append(tokens[start:index])
            start = index + 1
    return [*parts, tokens[start:]]


def _enclosed(tokens: Sequence[Token]) -> bool:
    """Whether the first token opens a bracket that the last one closes."""
    if len(tokens) < 2 or tokens[0].text not in OPEN:
        return False
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.text in OPEN) - (token.text in CLOSE)
        if depth == 0:
            return index == len(tokens) - 1
    return False


def _name_length(tokens: Sequence[Token]) -> int:
    """How many tokens at the start may be a name: `x`, `x_1`, `f(x)`, `Area`, `\\theta`; 0 if none."""
    if not tokens or not (tokens[0].kind in ("word", "text") or tokens[0].text in _GREEK):
        return 0
    length = 1
    if len(tokens) > 2 and tokens[1].text == "_":
        length = 3 if tokens[2].text != "{" else next((i + 1 for i, t in enumerate(tokens) if t.text == "}"), 3)
    while length < len(tokens) and tokens[length].text == "'":
        length += 1
    if len(tokens) >= length + 3 and tokens[length].text == "(" and tokens[length + 2].text == ")":
        length += 3
    return length


def _written(name: Sequence[Token]) -> str:
    return "".join(t.text for t in name if t.text not in ("{", "}"))


def is_variable(label: str) -> bool:
    return label.startswith("\\") or (label[:1].isalpha() and not label[1:2].isalpha())


def _labels(tokens: Sequence[Token]) -> tuple[list[str], Sequence[Token]]:
    """What the value has before it, `x =` or `(x, y) =`, and the value."""
    if tokens and tokens[0].text == "(":
        close = next((i for i, t in enumerate(tokens) if t.text == ")"), 0)
        variables = all(t.text == "," or (t.kind == "word" and len(t.text) == 1) for t in tokens[1:close])
        if close > 2 and variables and len(tokens) > close + 1 and tokens[close + 1].text in ("=", "\\in"):
            return [t.text for t in tokens[1:close] if t.text != ","], tokens[close + 2 :]
    length = _name_length(tokens)
    if not length or len(tokens) <= length or tokens[length].text not in ("=", "\\in"):
        return [], tokens
    return [_written(tokens[:length])], tokens[length + 1 :]


def _quantity(tokens: Sequence[Token], name: str) -> Form:
    sides = _split(tokens, lambda t: t.text == "=")
    quantities = [_side(side) for side in sides]
    last = quantities[-1]
    if any(q.value != last.value for q in quantities):
        difference = quantities[0].value - last.value
        plain = not any(q.unit or q.percent for q in quantities)
        if len(sides) == 2 and not name and plain and difference.symbols - _CONSTANT:
            solved = len(sides[1]) == 1 and sides[1][0].kind == "word" and _lone(last.value)
            return Group("=", (Quantity(difference),), sides[1][0].text if solved else "")
        raise Unreadable("an equation")
    return Quantity(last.value, name, last.unit, last.percent, last.decimal, last.formula)


def _side(tokens: Sequence[Token]) -> Quantity:
    unit = ""
    whole_side = tokens
    if tokens and tokens[0].text in CURRENCIES:
        unit, tokens = CURRENCIES[tokens[0].text], tokens[1:]
    percent = bool(tokens) and tokens[-1].text.lower() in ("%", "percent")
    if percent:
        tokens = tokens[:-1]
    elif not (tokens and tokens[-1].text == "\\degree" and any(t.text.lstrip("\\") in ANGLES for t in tokens)):
        tokens, written = split_unit(tokens)
        unit = unit or written
    scale = SCALES.get(tokens[-1].text.lower()) if len(tokens) > 1 else None
    if scale:
        tokens = tokens[:-1]
    if not tokens:
        raise Unreadable("nothing before the unit")
    value = _evaluate(tokens)
    if scale:
        return Quantity(value * number(scale), "", unit, percent)
    literal = "".join(t.text for t in tokens)
    plain = all(t.kind == "number" or t.text in "+-" for t in tokens) and len(tokens) <= 2
    finite = plain and "." in literal and "\\" not in literal
    formula = _formula(whole_side) if len(tokens) < len(whole_side) and whole_side[len(tokens)].kind == "word" else None
    return Quantity(value, "", unit, percent, literal if finite else "", formula)


def _formula(tokens: Sequence[Token]) -> Value | None:
    try:
        return _evaluate(tokens)
    except Unreadable:
        return None


_GREEK = {
    f"\\{name}"
    for name in "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi varphi omega ell Delta Omega".split()  # noqa: SIM905
}


def _no_word(letters: str) -> bool:
    """Such as `xyz` and `abc`."""
    return letters.islower() and letters not in ("no", "hi") and (letters in ascii_lowercase or not {*letters} & {*"aeiou"})


_NO_ATOM = ("\\}", "\\{", "\\rfloor", "\\rceil", "\\degree")
_CALLED: dict[str, Callable[[Value], Value]] = {
    "abs": absolute,
    "floor": lambda value: whole(value, "floor"),
    "ceil": lambda value: whole(value, "ceil"),
}


def _evaluate(tokens: Sequence[Token]) -> Value:
    cursor = _Cursor(list(tokens))
    value = cursor.expression()
    if cursor.peek():
        raise Unreadable(f"{cursor.peek()!r}")
    return without_squared_sines(value)


class _Cursor:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._angle = False
        """Inside of what is applied to an angle, which may be in degrees."""

    def peek(self, ahead: int = 0) -> str:
        """The text of a token to come, "" at the end."""
        index = self._at + ahead
        return self._tokens[index].text if index < len(self._tokens) else ""

    def expression(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        value = self._term()
        while self.peek() in ("+", "-"):
            minus = self._next().text == "-"
            value = value - self._term() if minus else value + self._term()
        self._depth -= 1
        return value

    def _term(self) -> Value:
        value = self._factor()
        while True:
            if self.peek() in ("*", "/"):
                divide = self._next().text == "/"
                value = value / self._factor() if divide else value * self._factor()
            elif self._starts_atom():
                value = value * self._power()
            else:
                return value

    def _starts_atom(self) -> bool:
        if self._at >= len(self._tokens):
            return False
        token = self._tokens[self._at]
        if token.kind == "number":
            return self._tokens[self._at - 1].text == "!"  # "2 3" is no product, 2!3! is
        return (token.kind in ("word", "command") and token.text not in _NO_ATOM) or token.text in ("(", "{")

    def _factor(self) -> Value:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self._next().text == "-"
        value = self._power()
        return -value if negative else value

    def _power(self) -> Value:
        base = self._atom()
        while self.peek() == "!":
            self._next()
            base = _factorial(base)
        if self._angle and self.peek() == "\\degree":
            self._next()
            return base * symbol("π") / number(180)
        if self.peek() != "^":
            return base
        self._next()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        exponent = self._factor()
        self._depth -= 1
        return power(base, exponent)

    def _atom(self) -> Value:
        token = self._next()
        if token.kind == "number":
            return self._mixed(token)
        if token.kind == "word":
            return self._letters(token)
        if token.text in ("(", "{", "["):
            value = self.expression()
            self._expect({"(": ")", "{": "}", "[": "]"}[token.text])
            return value
        if token.text == "|":
            value = self.expression()
            self._expect("|")
            return absolute(value)
        if token.kind != "command":
            raise Unreadable(f"{token.text!r}")
        return self._command(token.text[1:])

    def _command(self, name: str) -> Value:
        if name == "frac":
            top, bottom = self._argument(), self._argument()
            return top / bottom
        if name == "sqrt":
            degree = 2
            if self.peek() == "[":
                self._next()
                degree = _small(self.expression(), 12)
                self._expect("]")
            return root(self._argument(whole=True), degree)
        if name == "binom":
            return _choose(self._argument(), self._argument())
        if name in ("lfloor", "lceil"):
            value = self.expression()
            self._expect(name.replace("l", "\\r", 1))
            return whole(value, "floor" if name == "lfloor" else "ceil")
        if name == "pi":
            return symbol("π")
        if name in ("infty", "inf", "infinity", "oo"):
            return symbol("∞")
        if name in FUNCTIONS:
            return self._function(name)
        if f"\\{name}" in _GREEK:
            return symbol(self._subscripted(name))
        raise Unreadable(f"\\{name}")

    def _letters(self, token: Token) -> Value:
        word = token.text
        if word.lower() in WORDS:
            return self._command(word.lower())
        if word.lower() in _CALLED and self.peek() == "(":
            return _CALLED[word.lower()](self._atom())
        if len(word) == 1:
            return power(number(-1), number(Fraction(1, 2))) if word == "i" else symbol(self._subscripted(word))
        # Two or three letters beside something else are a product of variables; alone, or among words, they may be a word.
        prose = token.spaced and self._at > 1 and self._tokens[self._at - 2].kind in ("word", "number")
        alone = len(self._tokens) == 1 and not (len(word) == 2 and word.islower() and word not in ("no", "on"))
        if len(word) > 3 or ((alone or prose) and not _no_word(word)):
            raise Unreadable(f"the word {word!r}")
        value = number(1)
        for letter in word[:-1]:
            value = value * symbol(letter)
        self._at -= 1
        self._tokens[self._at] = Token("word", word[-1], False)
        return value * self._power() if word[-1] != "i" else value * self._atom()

    def _subscripted(self, name: str) -> str:
        if self.peek() != "_":
            return name
        self._next()
        if self.peek() != "{":
            return f"{name}_{self._next().text}"
        self._next()
        parts = []
        while self.peek() != "}":
            parts.append(self._next().text)
        self._next()
        return f"{name}_{''.join(parts)}"

    def _mixed(self, token: Token) -> Value:
        """A number; with a proper fraction right after it (`1 1/2`, `1\\frac12`) their sum."""
        value = _literal(token.text)
        if self.peek() == "_":
            raise Unreadable("a number in another base")
        if not token.text.isdigit():
            return value
        following = self._tokens[self._at : self._at + 3]
        if len(following) == 3 and following[1].text == "/" and following[0].text.isdigit() and following[2].text.isdigit():
            self._at += 3
            return value + _proper(number(int(following[0].text)) / number(int(following[2].text)))
        if self.peek() == "\\frac":
            start = self._at
            self._next()
            fraction = self._argument() / self._argument()
            digits = all(t.kind == "number" or t.text in "{}" for t in self._tokens[start + 1 : self._at])
            plain = digits and fraction.rational is not None and 0 < fraction.rational < 1
            return value + fraction if plain else value * fraction
        return value

    def _function(self, name: str) -> Value:
        """Known only as what it is applied to: equal where that is equal."""
        exponent = None
        base = None
        if self.peek() == "_":
            self._next()
            base = self._argument(whole=True)
        if self.peek() == "^":
            self._next()
            exponent = self._argument(whole=True)
        if exponent == number(-1) and name in ("sin", "cos", "tan"):
            name, exponent = f"arc{name}", None  # as it is written, not 1/sin
        outside, self._angle = self._angle, name in ANGLES
        if self.peek() in ("(", "{"):
            argument = self._power() if self._angle and self._is_degrees() else self._atom()
        else:
            argument = self._power()
            while self._starts_atom() and self._is_letter():
                argument = argument * self._power()
        self._angle = outside
        value = _applied(name, base, argument)
        return value if exponent is None else power(value, exponent)

    def _is_letter(self) -> bool:
        token = self._tokens[self._at]
        return (token.kind == "word" and token.text.lower() not in FUNCTIONS) or token.text == "\\pi" or token.text in _GREEK

    def _is_degrees(self) -> bool:
        """Whether the brackets that begin here have the sign behind them."""
        depth = 0
        for index in range(self._at, len(self._tokens) - 1):
            text = self._tokens[index].text
            depth += (text in OPEN) - (text in CLOSE)
            if not depth:
                return self._tokens[index + 1].text == "\\degree"
        return False

    def _argument(self, whole: bool = False) -> Value:
        """What a command applies to: a group in braces (or parentheses), else one token: of a number its first digit,
        unless `whole`, since TeX reads `\\frac12` so."""
        token = self._next()
        if token.kind == "number":
            if whole or len(token.text) == 1 or not token.text.isdigit():
                return _literal(token.text)
            self._at -= 1
            self._tokens[self._at] = Token("number", token.text[1:], False)
            return _literal(token.text[0])
        self._at -= 1
        return self._atom()

    def _next(self) -> Token:
        if self._at >= len(self._tokens):
            raise Unreadable("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, text: str) -> None:
        if self._next().text != text:
            raise Unreadable(f"no {text!r}")


def _applied(name: str, base: Value | None, argument: Value) -> Value:
    if name == "ln" and base is None:
        return logarithm(argument)
    if name == "exp" and base is None:
        return power(symbol("e"), argument)
    if name in ANGLES and base is None:
        return trigonometric(name, argument)
    if name == "log" and base is not None and ((base.rational or 0) > 0 or base == symbol("e")) and base != number(1):
        # A whole number where it is one: the ratio of sums over primes.
        top, bottom = logarithm(argument), logarithm(base)
        exponent = top.ratio(bottom)
        return top / bottom if exponent is None else number(exponent)
    return symbol(f"{name}{'' if base is None else f'_{base}'}({argument})")


def _factorial(n: Value) -> Value:
    """With a variable, by that of the part without its constant: (n+1)! is n! times n+1."""
    if not n.symbols - _CONSTANT:
        return number(factorial(_small(n, 200)))
    shift = n.top.get((), Fraction(0)) if n.bottom == number(1).top else Fraction(0)
    if shift.denominator != 1 or abs(shift) > 12:
        return symbol(f"({n})!")
    start = n - number(shift)
    result = symbol(f"({start})!")
    for step in range(1, int(shift) + 1):
        result = result * (start + number(step))
    for step in range(int(shift) + 1, 1):
        result = result / (start + number(step))
    return result


def _choose(n: Value, k: Value) -> Value:
    if not (n.symbols | k.symbols) - _CONSTANT:
        return number(comb(_small(n, 200), _small(k, 200)))
    if k.symbols:
        return _factorial(n) / (_factorial(k) * _factorial(n - k))
    result = number(1)
    for step in range(_small(k, 12)):
        result = result * (n - number(step)) / number(step + 1)
    return result


def _literal(text: str) -> Value:
    if "\\" in text:  # 0.1\overline{6} is (16 - 1)/90
        start, _, repeated = text.removesuffix("}").partition("\\overline{")
        whole_part, _, decimals = start.partition(".")
        nines = (10 ** len(repeated) - 1) * 10 ** len(decimals)
        before = int(whole_part + decimals or "0")
        return number(Fraction(int(f"{before}{repeated}") - before, nines))
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 4:
        raise Unreadable("too large")
    return number(Fraction(mantissa if mantissa[-1:] != "." else mantissa + "0") * Fraction(10) ** int(exponent or 0))


def _proper(fraction: Value) -> Value:
    if fraction.rational is None or not 0 < fraction.rational < 1:
        raise Unreadable("two numbers side by side")
    return fraction


def _small(value: Value, limit: int) -> int:
    n = value.rational
    if n is None or n.denominator != 1 or not 0 <= n <= limit:
        raise Unreadable("not a small whole number")
    return int(n)
