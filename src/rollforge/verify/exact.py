"""Exact values: sums of rational multiples of roots and symbols, and quotients of such sums.

`7/3`, `3 + 2√5`, `π/4`, `2 - 3i`, `(x + 1)/(x - 1)`. A sum maps monomials to their coefficients; a monomial maps prime
numbers to exponents in [0, 1), -1 to 1/2 (that is i), and symbols to rational exponents. Sums in this form are equal exactly
when they are the same mapping, because roots of different primes are linearly independent over the rationals (Besicovitch
1940); π and e count as symbols. Roots are taken for positive symbols.

Every operation is bounded (`Unreadable` beyond), so that no expression of a policy can keep a verifier busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from math import ceil, floor, isqrt
from typing import Literal

Base = int | str
Monomial = tuple[tuple[Base, Fraction], ...]
Sum = Mapping[Monomial, Fraction]

MAX_BITS = 16_384
"""Of a coefficient's numerator or denominator. A published answer holds (2 + √3)^2016: 4,000 bits."""
MAX_EXPONENT_BITS = 1024
"""Of the numerator or denominator of a symbol's exponent."""
MAX_WRITTEN = 14_000
"""Of those of a coefficient in a symbol's name: Python writes no longer numbers."""
MAX_SIZE = 1 << 17
"""Terms of a sum times the bits of its largest coefficient."""
MAX_PAIRS = 1024
"""Products of terms in one multiplication."""
MAX_PRIME = 4000
"""Trial division goes this far: a root of a number with two larger prime factors is not read."""


class Unreadable(Exception):
    """No exact value: not in the language, undefined, or too large."""


@dataclass(frozen=True, eq=False)
class Value:
    """`top / bottom`; `bottom` is 1 unless it has several terms."""

    top: Sum
    bottom: Sum

    @cached_property
    def rational(self) -> Fraction | None:
        """The number, if it is a rational one."""
        if not self.top:
            return Fraction(0)
        return self.top.get(()) if len(self.top) == 1 and self.bottom == _ONE else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        if self.bottom == other.bottom:
            return self.top == other.top
        return _product(self.top, other.bottom) == _product(other.top, self.bottom)

    def ratio(self, other: Value) -> Fraction | None:
        """The rational number that this is times the other; None if it is no multiple."""
        if self.bottom != other.bottom or not other.top or self.top.keys() != other.top.keys():
            return None
        ratios = {coefficient / other.top[monomial] for monomial, coefficient in self.top.items()}
        return ratios.pop() if len(ratios) == 1 else None

    @property
    def symbols(self) -> set[str]:
        """Variables, and constants such as π."""
        return {
            base for part in (self.top, self.bottom) for monomial in part for base, _ in monomial if isinstance(base, str)
        }

    def __neg__(self) -> Value:
        return Value({monomial: -c for monomial, c in self.top.items()}, self.bottom)

    def __add__(self, other: Value) -> Value:
        if self.bottom == other.bottom:
            return _value(_sum(self.top, other.top), self.bottom)
        top = _sum(_product(self.top, other.bottom), _product(other.top, self.bottom))
        return _value(top, _product(self.bottom, other.bottom))

    def __sub__(self, other: Value) -> Value:
        return self + -other

    def __mul__(self, other: Value) -> Value:
        return _value(_product(self.top, other.top), _product(self.bottom, other.bottom))

    def __truediv__(self, other: Value) -> Value:
        if not other.top:
            raise Unreadable("division by zero")
        return _value(_product(self.top, other.bottom), _product(self.bottom, other.top))

    def __str__(self) -> str:
        """Canonical for equal values whose bottom is 1."""
        top = _text(self.top)
        return top if self.bottom == _ONE else f"({top})/({_text(self.bottom)})"


def number(value: int | Fraction) -> Value:
    return Value({(): Fraction(value)} if value else {}, _ONE)


def symbol(name: str) -> Value:
    """A variable, a constant such as π, or anything that is only equal to itself."""
    return Value({((name, Fraction(1)),): Fraction(1)}, _ONE)


def power(base: Value, exponent: Value) -> Value:
    """For a rational exponent with a small denominator; other powers are symbols."""
    e = exponent.rational
    if e is None:
        return _symbolic_power(base, exponent)
    if not base.top:
        if e <= 0:
            raise Unreadable("zero to a power that is not positive")
        return base
    if e.denominator != 1:
        return power(root(base, e.denominator), number(e.numerator))
    return _whole_power(base, int(e)) if e >= 0 else _whole_power(number(1) / base, -int(e))


def _symbolic_power(base: Value, exponent: Value) -> Value:
    """By the primes of the base and the terms of the exponent: 4^x and e^(2x) are squares of 2^x and e^x, 2^(x+1) is 2 times
    2^x, and e^(x + ln 3) is 3e^x."""
    primes = None if "∞" in exponent.symbols else _primes(base)
    if primes is not None and (len(primes) != 1 or 1 not in primes.values()):
        return _all(_symbolic_power(number(prime), exponent * number(count)) for prime, count in primes.items())
    terms = exponent.top
    if base == symbol("e") and exponent.bottom == _ONE and any(_logarithm_of(monomial) for monomial in terms):
        rest = Value({monomial: c for monomial, c in terms.items() if not _logarithm_of(monomial)}, _ONE)
        known = _all(power(number(p), number(c)) for monomial, c in terms.items() if (p := _logarithm_of(monomial)))
        return known * power(base, rest)
    if exponent.bottom != _ONE or len(terms) > 8 or any(c.denominator != 1 or abs(c) > 64 for c in terms.values()):
        return symbol(f"({base})^({exponent})")
    product = number(1)
    for monomial, coefficient in terms.items():
        factor = symbol(f"({base})^({Value({monomial: Fraction(1)}, _ONE)})") if monomial else base
        product = product * power(factor, number(coefficient))
    return product


def _primes(base: Value) -> dict[int, int] | None:
    """Of a positive rational number, those below with negative counts; None of others."""
    known = base.rational
    if known is None or known <= 0:
        return None
    try:
        below = {prime: -count for prime, count in _factors(known.denominator).items()}
        return _factors(known.numerator) | below
    except Unreadable:
        return None


def _logarithm_of(monomial: Monomial) -> int:
    """The prime whose logarithm it is; 0 if it is something else."""
    if len(monomial) != 1 or monomial[0][1] != 1 or not isinstance(name := monomial[0][0], str):
        return 0
    prime = name.removeprefix("ln(").removesuffix(")")
    return int(prime) if prime != name and prime.isdigit() else 0


def _all(factors: Iterable[Value]) -> Value:
    product = number(1)
    for factor in factors:
        product = product * factor
    return product


def absolute(value: Value) -> Value:
    """Of a real number, the number; else a symbol that is the same for both signs."""
    if (known := value.rational) is not None:
        return number(abs(known))
    if (near := _near(value)) is not None and near[0]:
        return value if near[0] > 0 else -value
    return symbol(f"|{min(str(value), str(-value))}|")


def whole(value: Value, rounding: Literal["floor", "ceil"]) -> Value:
    """Of a real number, the next whole one below or above; else a symbol."""
    take = floor if rounding == "floor" else ceil
    if (known := value.rational) is not None:
        return number(take(known))
    if (near := _near(value)) is None:
        return symbol(f"{rounding}({value})")
    place, error = map(Fraction, near)
    if take(place - error) != take(place + error):
        raise Unreadable("too near to a whole number")
    return number(take(place))


def trigonometric(name: str, angle: Value) -> Value:
    """`sin`, `cos`, `tan`, `cot`, `sec` or `csc`: exact for the usual angles, else by the sine and the cosine as symbols.
    Raises `Unreadable` where it has no value."""
    sine, cosine = _circle(angle)
    top, bottom = {
        "sin": (sine, number(1)),
        "cos": (cosine, number(1)),
        "tan": (sine, cosine),
        "cot": (cosine, sine),
        "sec": (number(1), cosine),
        "csc": (number(1), sine),
    }[name]
    return top / bottom


def _circle(angle: Value) -> tuple[Value, Value]:
    """Sine and cosine; those of double and of negative angles by the simple ones."""
    turns = Fraction(0) if not angle.top else angle.ratio(symbol("π"))
    if turns is not None:
        return _sine(turns), _sine(turns + Fraction(1, 2))
    factor = next(iter(angle.top.values())) if len(angle.top) == 1 and angle.bottom == _ONE else Fraction(1)
    if factor < 0:
        sine, cosine = _circle(-angle)
        return -sine, cosine
    if factor.numerator in (2, 4, 6, 8):
        sine, cosine = _circle(angle / number(2))
        return number(2) * sine * cosine, cosine * cosine - sine * sine
    return symbol(f"sin({angle})"), symbol(f"cos({angle})")


def _sine(turns: Fraction) -> Value:
    """Of so many times π."""
    turns %= 2
    if turns > 1:
        return -_sine(turns - 1)
    turns = min(turns, 1 - turns)
    halves = {Fraction(0): 0, Fraction(1, 6): 1, Fraction(1, 4): 2, Fraction(1, 3): 3, Fraction(1, 2): 4}
    if turns in halves:
        return root(number(Fraction(halves[turns], 4)), 2)
    quarters = {Fraction(1, 12): (6, -2), Fraction(5, 12): (6, 2), Fraction(1, 10): (5, -1), Fraction(3, 10): (5, 1)}
    if turns not in quarters:
        return symbol(f"sine {turns}")
    large, small = quarters[turns]
    other = root(number(abs(small)), 2)
    return (root(number(large), 2) + (other if small > 0 else -other)) / number(4)


def without_squared_sines(value: Value) -> Value:
    """With 1 - cos² for each sin², so that what this makes equal is one form."""
    if not any(name.startswith("sin(") for name in value.symbols):
        return value
    return _cosines(value.top) / _cosines(value.bottom)


def _cosines(total: Sum) -> Value:
    result = number(0)
    for monomial, coefficient in total.items():
        term = number(coefficient)
        for base, exponent in monomial:
            pairs = 0
            if isinstance(base, str) and base.startswith("sin(") and abs(exponent) <= 12:
                pairs = int(exponent / 2)
                cosine = symbol(f"cos{base[3:]}")
                term = term * power(number(1) - cosine * cosine, number(pairs))
            term = term * _monomial({base: exponent - 2 * pairs}, Fraction(1))
        result = result + term
    return result


def _near(value: Value) -> tuple[Decimal, Decimal] | None:
    """A real number, and how far it may be from that; zero for one whose sign cannot be told. None if it is no number."""
    if value.bottom != _ONE:
        return None
    with localcontext() as context:
        context.prec = 60
        terms = [_decimal({monomial: coefficient}) for monomial, coefficient in value.top.items()]
        known = [term for term in terms if term is not None]
        if len(known) < len(terms):
            return None
        place, error = sum(known, Decimal(0)), sum(map(abs, known), Decimal(0)) * Decimal("1e-50")
        return (place if abs(place) > error else Decimal(0)), error


def logarithm(value: Value) -> Value:
    """The natural one, of a positive number that is a product of roots and powers of e by its primes: ln 36 is 2 ln 6."""
    [(monomial, coefficient)] = value.top.items() if len(value.top) == 1 and value.bottom == _ONE else [((), Fraction(0))]
    if coefficient <= 0 or any(base != "e" and (isinstance(base, str) or base < 0) for base, _ in monomial):
        return symbol(f"ln({value})")
    total = number(0)
    for base, exponent in monomial:
        total = total + number(exponent) * (number(1) if base == "e" else symbol(f"ln({base})"))
    for part, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
        for prime, count in _factors(part).items():
            total = total + number(sign * count) * symbol(f"ln({prime})")
    return total


def root(value: Value, degree: int) -> Value:
    """The principal root; of a negative number the real one for an odd degree, an imaginary one for degree 2."""
    if not 2 <= degree <= 12:
        raise Unreadable(f"a root of degree {degree}")
    if not value.top:
        return value
    if value.bottom != _ONE:
        return root(Value(value.top, _ONE), degree) / root(Value(value.bottom, _ONE), degree)
    if len(value.top) > 1:
        split = _denest(value.top) if degree == 2 else None
        return split if split is not None else symbol(f"root{degree}({value})")
    [(monomial, coefficient)] = value.top.items()
    exponents: dict[Base, Fraction] = {}
    sign = number(1)
    if coefficient < 0:
        if degree == 2:
            exponents[-1] = Fraction(1, 2)
        elif degree % 2:
            sign = number(-1)
        else:
            raise Unreadable("an even root of a negative number")
    for base, exponent in monomial:
        if base == -1:
            raise Unreadable("a root of an imaginary number")
        exponents[base] = exponent / degree
    for part, direction in ((abs(coefficient.numerator), 1), (coefficient.denominator, -1)):
        for prime, count in _factors(part).items():
            exponents[prime] = exponents.get(prime, Fraction(0)) + Fraction(direction * count, degree)
    return sign * _monomial(exponents, Fraction(1))


def approximate(value: Value, digits: int = 60) -> Decimal | None:
    """The number to about so many digits; None if it holds symbols other than π and e, or i."""
    with localcontext() as context:
        context.prec = digits
        top, bottom = _decimal(value.top), _decimal(value.bottom)
        return None if top is None or not bottom else top / bottom


_ONE: Sum = {(): Fraction(1)}
_CONSTANTS = {
    "π": Decimal("3.14159265358979323846264338327950288419716939937510582097494459"),
    "e": Decimal("2.71828182845904523536028747135266249775724709369995957496696763"),
}


def _value(top: Sum, bottom: Sum) -> Value:
    """With a bottom of one term divided out."""
    if len(bottom) != 1 or bottom == _ONE:
        return Value(top, bottom)
    [(monomial, coefficient)] = bottom.items()
    inverse = _monomial({base: -exponent for base, exponent in monomial}, 1 / coefficient)
    return Value(_product(top, inverse.top), _ONE)


def _monomial(exponents: Mapping[Base, Fraction], coefficient: Fraction) -> Value:
    """One term, whole powers of numbers moved into its coefficient."""
    kept: list[tuple[Base, Fraction]] = []
    for base, exponent in exponents.items():
        if isinstance(base, int):
            whole = exponent.numerator // exponent.denominator
            if whole:
                if abs(whole) * base.bit_length() > MAX_BITS:
                    raise Unreadable("too large")
                coefficient *= Fraction(base) ** whole
            exponent -= whole
        if max(exponent.numerator.bit_length(), exponent.denominator.bit_length()) > MAX_EXPONENT_BITS:
            raise Unreadable("too large")
        if exponent:
            kept.append((base, exponent))
    return Value({tuple(sorted(kept, key=lambda pair: str(pair[0]))): coefficient}, _ONE)


def _sum(a: Sum, b: Sum) -> Sum:
    total = dict(a)
    for monomial, coefficient in b.items():
        c = total.get(monomial, 0) + coefficient
        if c:
            total[monomial] = c
        else:
            del total[monomial]
    return _bounded(total)


def _product(a: Sum, b: Sum) -> Sum:
    if b is _ONE or b == _ONE:
        return a
    if a is _ONE:
        return b
    if len(a) * len(b) > MAX_PAIRS:
        raise Unreadable("too many terms")
    total: dict[Monomial, Fraction] = {}
    for left, x in a.items():
        for right, y in b.items():
            monomial, coefficient = _times(left, right)
            c = total.get(monomial, 0) + x * y * coefficient
            if c:
                total[monomial] = c
            else:
                total.pop(monomial, None)
    return _bounded(total)


def _times(left: Monomial, right: Monomial) -> tuple[Monomial, Fraction]:
    if not left or not right:
        return left or right, Fraction(1)
    exponents = dict(left)
    for base, exponent in right:
        exponents[base] = exponents.get(base, Fraction(0)) + exponent
    [(monomial, coefficient)] = _monomial(exponents, Fraction(1)).top.items()
    return monomial, coefficient


def _bounded(total: Sum) -> Sum:
    bits = max((max(c.numerator.bit_length(), c.denominator.bit_length()) for c in total.values()), default=0)
    if bits > MAX_BITS or bits * len(total) > MAX_SIZE:
        raise Unreadable("too large")
    return total


def _whole_power(base: Value, exponent: int) -> Value:
    if len(base.top) == 1 and base.bottom == _ONE:
        [(monomial, coefficient)] = base.top.items()
        bits = max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length())
        if bits > 1 and bits * exponent > MAX_BITS:
            raise Unreadable("too large")
        # A coefficient of 1 or -1 is taken to any power at once.
        scaled = coefficient ** (exponent if bits > 1 else exponent % 2)
        return _monomial({b: e * exponent for b, e in monomial}, scaled)
    if exponent > MAX_BITS:
        raise Unreadable("too large")
    result, square = number(1), base
    while exponent:
        if exponent & 1:
            result = result * square
        exponent >>= 1
        if exponent:
            square = square * square
    return result


def _denest(top: Sum) -> Value | None:
    """√(a + b√c) as a sum of two roots, where a² - b²c is a square; None where it is not."""
    if len(top) != 2 or () not in top:
        return None
    a = top[()]
    [(monomial, b)] = [pair for pair in top.items() if pair[0]]
    surd = Value({monomial: b}, _ONE)
    square = (surd * surd).rational
    if square is None or square < 0:
        return None
    d = root(number(a * a - square), 2).rational
    if d is None or a < 0:
        return None
    small = root(number((a - d) / 2), 2)
    return root(number((a + d) / 2), 2) + (small if b > 0 else -small)


def _factors(n: int) -> dict[int, int]:
    """Prime factors with their counts. Raises `Unreadable` if what remains may be composite."""
    found: dict[int, int] = {}
    if n.bit_length() > 512:
        raise Unreadable("a root of a large number")
    p = 2
    while p <= MAX_PRIME and p * p <= n:
        while n % p == 0:
            found[p] = found.get(p, 0) + 1
            n //= p
        p += 1 if p == 2 else 2
    if n == 1:
        return found
    if n < MAX_PRIME * MAX_PRIME:
        found[n] = found.get(n, 0) + 1
        return found
    half = isqrt(n)
    if half * half != n:
        raise Unreadable("a root of a number with large prime factors")
    return {**found, **{prime: 2 * count for prime, count in _factors(half).items()}}


def _decimal(total: Sum) -> Decimal | None:
    result = Decimal(0)
    for monomial, coefficient in total.items():
        term = Decimal(coefficient.numerator) / Decimal(coefficient.denominator)
        for base, exponent in monomial:
            known = Decimal(base) if isinstance(base, int) else _CONSTANTS.get(base) or _known_logarithm(base)
            if known is None or base == -1 or abs(exponent) > MAX_BITS:  # a decimal overflows
                return None
            term *= known ** (Decimal(exponent.numerator) / Decimal(exponent.denominator))
        result += term
    return result


def _known_logarithm(name: str) -> Decimal | None:
    prime = _logarithm_of(((name, Fraction(1)),))
    return Decimal(prime).ln() if prime else None


def _text(total: Sum) -> str:
    if any(max(c.numerator.bit_length(), c.denominator.bit_length()) > MAX_WRITTEN for c in total.values()):
        raise Unreadable("too large to be written")

    def term(monomial: Monomial, coefficient: Fraction) -> str:
        return "*".join([str(coefficient), *(f"{base}^{exponent}" for base, exponent in monomial)])

    return "+".join(sorted(term(monomial, coefficient) for monomial, coefficient in total.items())) or "0"
