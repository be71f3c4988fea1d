"""Tasks of the math_answer environment: generated problems, each made from its answer or with it computed exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, isqrt
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json


@generated("math_answer")
def tasks() -> Kinds:
    """Rows `{prompt, expected_answer, kind, level}`."""
    return {
        "operations": _operations,
        "fractions": _fractions,
        "percent": _percent,
        "linear": _linear,
        "system": _system,
        "quadratic": _quadratic,
        "expand": _expand,
        "roots": _roots,
        "circle": _circle,
        "words": _words,
    }


def _row(rng: Random, problem: str, answer: object) -> tuple[str, Json]:
    ask = rng.choice(("Put the final answer in \\boxed{}.", "Give your final answer inside \\boxed{}."))
    return problem, {"prompt": f"{problem} {ask}", "expected_answer": str(answer)}


def _operations(rng: Random, level: int) -> tuple[str, Json]:
    """What binds more tightly."""
    a, b, c, d = (rng.randint(2, (12, 30, 60)[level]) for _ in range(4))
    if level == 0:
        text, value = rng.choice(((f"{a} + {b} \\cdot {c}", a + b * c), (f"{a} \\cdot {b} - {c}", a * b - c)))
    elif level == 1:
        text, value = rng.choice(
            ((f"({a} - {b}) \\cdot {c} + {d}", (a - b) * c + d), (f"{a} - {b} \\cdot ({c} - {d})", a - b * (c - d)))
        )
    else:
        power = rng.randint(2, 3)
        text = f"-({a} - {b})^{power} + {c * d} \\div {c} - {b} \\cdot 2^{power + 1}"
        value = -((a - b) ** power) + d - b * 2 ** (power + 1)
    return _row(rng, f"Compute ${text}$.", value)


def _fractions(rng: Random, level: int) -> tuple[str, Json]:
    x, y, z = (_fraction(rng, (9, 12, 20)[level]) for _ in range(3))
    if level == 0:
        text, value = f"{_tex(x)} + {_tex(y)}", x + y
    elif level == 1:
        text, value = rng.choice(((f"{_tex(x)} - {_tex(y)}", x - y), (f"{_tex(x)} \\cdot {_tex(y)}", x * y)))
    else:
        text, value = f"{_tex(x)} \\div {_tex(y)} - {_tex(z)}", x / y - z
    return _row(rng, f"Compute ${text}$ and reduce the result.", value)


def _percent(rng: Random, level: int) -> tuple[str, Json]:
    if level == 0:
        rate, whole = 5 * rng.randint(1, 19), 20 * rng.randint(1, 40)
        return _row(rng, f"What is {rate}% of {whole}?", rate * whole // 100)
    if level == 1:
        whole, rate = 20 * rng.randint(2, 40), 5 * rng.randint(1, 19)
        return _row(rng, f"What percent of {whole} is {whole * rate // 100}?", f"{rate}%")
    price, cut, tax = 10 * rng.randint(3, 90), 5 * rng.randint(1, 12), rng.choice((5, 8, 10, 20))
    final = Fraction(price) * (100 - cut) / 100 * (100 + tax) / 100
    text = (
        f"A coat costs {price} dollars. Its price is cut by {cut}%, then a tax of {tax}% is added. What is paid, in dollars?"
    )
    return _row(rng, text, _decimal(final))


def _linear(rng: Random, level: int) -> tuple[str, Json]:
    a = rng.randint(2, (9, 12, 15)[level])
    b = rng.randint(-20, 20) or 7
    if level == 0:
        x = rng.randint(-9, 12)
        return _row(rng, f"Solve for $x$: ${a}x {_signed(b)} = {a * x + b}$.", x)
    c = rng.choice([k for k in range(-9, 10) if k not in (0, a)])
    if level == 1:
        x = rng.randint(-12, 15)
        return _row(rng, f"Solve for $x$: ${a}x {_signed(b)} = {_times(c)}x {_signed((a - c) * x + b)}$.", x)
    d = rng.randint(-30, 30)
    return _row(rng, f"Solve for $x$: ${a}x {_signed(b)} = {_times(c)}x {_signed(d)}$.", Fraction(d - b, a - c))


def _system(rng: Random, level: int) -> tuple[str, Json]:
    size = (5, 9, 20)[level]
    x, y = rng.randint(-size, size), rng.randint(-size, size)
    while True:
        a, b, c, d = (rng.choice([k for k in range(-2 - 3 * level, 3 + 3 * level) if k]) for _ in range(4))
        if a * d != b * c:
            break
    first = f"{_times(a)}x {_signed(b, 'y')} = {a * x + b * y}"
    second = f"{_times(c)}x {_signed(d, 'y')} = {c * x + d * y}"
    return _row(rng, f"Solve the system ${first}$, ${second}$. Answer with the pair $(x, y)$.", f"({x}, {y})")


def _quadratic(rng: Random, level: int) -> tuple[str, Json]:
    size = (6, 12, 9)[level]
    if level < 2:
        lead = 1 if level == 0 else rng.randint(2, 5)
        p, q = rng.sample([k for k in range(-size, size + 1) if k], 2)
        b, c, answer = -lead * (p + q), lead * p * q, f"{min(p, q)}, {max(p, q)}"
    else:
        lead, p = 1, rng.randint(-size, size)
        k = rng.choice([k for k in range(2, 30) if isqrt(k) ** 2 != k])
        b, c = -2 * p, p * p - k
        answer = f"{p} + {_root(k)}, {p} - {_root(k)}" if p else f"{_root(k)}, -{_root(k)}"
    middle = f" {_signed(b, 'x')}" if b else ""
    constant = f" {_signed(c)}" if c else ""
    return _row(rng, f"Find all solutions of ${_times(lead)}x^2{middle}{constant} = 0$.", answer)


def _expand(rng: Random, level: int) -> tuple[str, Json]:
    a, b, c, d = (rng.choice([k for k in range(-9, 10) if k]) for _ in range(4))
    if level == 0:
        return _row(rng, f"Expand $(x {_signed(a)})(x {_signed(b)})$.", _polynomial([1, a + b, a * b]))
    if level == 1:
        return _row(
            rng,
            f"Expand $({_times(a)}x {_signed(b)})({_times(c)}x {_signed(d)})$.",
            _polynomial([a * c, a * d + b * c, b * d]),
        )
    cubic = [1, a + b + c, a * b + a * c + b * c, a * b * c]
    return _row(rng, f"Expand $(x {_signed(a)})(x {_signed(b)})(x {_signed(c)})$.", _polynomial(cubic))


def _roots(rng: Random, level: int) -> tuple[str, Json]:
    base = rng.choice((2, 3, 5, 6, 7, 10, 11))
    k, m = rng.randint(2, 9 + 3 * level), rng.randint(2, 9 + 3 * level)
    if level == 0:
        return _row(rng, f"Simplify $\\sqrt{{{k * k * base}}}$.", f"{k}\\sqrt{{{base}}}")
    if level == 1:
        text = f"Simplify $\\sqrt{{{k * k * base}}} + \\sqrt{{{m * m * base}}}$."
        return _row(rng, text, f"{k + m}\\sqrt{{{base}}}")
    text = f"Write $\\frac{{{k}}}{{{m} + \\sqrt{{{base}}}}}$ with a rational denominator."
    above = [f"{k * m}", f"{k}\\sqrt{{{base}}}"]
    below = m * m - base
    return _row(rng, text, f"\\frac{{{' - '.join(above if below > 0 else above[::-1])}}}{{{abs(below)}}}")


def _circle(rng: Random, level: int) -> tuple[str, Json]:
    r, k = rng.randint(2, 25), rng.randint(2, 9)
    if level == 0:
        return _row(rng, f"What is the area of a circle with radius {r}? Leave $\\pi$ in the answer.", f"{r * r}\\pi")
    if level == 1:
        text = f"The circumference of a circle is ${2 * r}\\pi$. What is its area? Leave $\\pi$ in the answer."
        return _row(rng, text, f"{r * r}\\pi")
    part = Fraction(rng.choice((30, 40, 45, 72, 120, 135)), 360)
    ask = "What is its area? Leave $\\pi$ in the answer."
    text = f"A sector of {part * 360} degrees is cut from a disc of radius {r * k}. {ask}"
    return _row(rng, text, f"{_tex(part * (r * k) ** 2)}\\pi")


def _words(rng: Random, level: int) -> tuple[str, Json]:
    a, b, c = (rng.randint(2, (9, 20, 40)[level]) for _ in range(3))
    if level == 0:
        thing = rng.choice(("pencils", "tickets", "apples", "stamps"))
        start = a * b + c
        return _row(rng, f"A box holds {start} {thing}. {a} children take {b} each. How many {thing} are left?", c)
    if level == 1:
        speed = 10 * rng.randint(3, 12)
        text = (
            f"A train covers {speed * a} km at a steady {speed} km per hour, then waits {b} minutes. How many minutes pass?"
        )
        return _row(rng, text, 60 * a + b)
    b += b == a
    together = Fraction(a * b, a + b)
    text = f"One pump fills a tank in {a} hours, another in {b} hours. How many hours do both need together?"
    return _row(rng, text, together)


def _fraction(rng: Random, size: int) -> Fraction:
    bottom = rng.randint(2, size)
    top = rng.choice([k for k in range(1, size + 1) if gcd(k, bottom) == 1])
    return Fraction(top, bottom)


def _tex(x: Fraction) -> str:
    return str(x) if x.denominator == 1 else f"\\frac{{{x.numerator}}}{{{x.denominator}}}"


def _decimal(x: Fraction) -> str:
    """At most four places, which is all that two percentages of a whole number leave."""
    text = f"{x.numerator * 10_000 // x.denominator / 10_000:.4f}".rstrip("0").rstrip(".")
    assert Fraction(text) == x
    return text


def _signed(k: int, variable: str = "") -> str:
    size = "" if variable and abs(k) == 1 else str(abs(k))
    return f"{'-' if k < 0 else '+'} {size}{variable}"


def _times(k: int) -> str:
    """A coefficient before its variable."""
    return {1: "", -1: "-"}.get(k, str(k))


def _root(k: int) -> str:
    outside = max(f for f in range(1, isqrt(k) + 1) if k % (f * f) == 0)
    return f"{_times(outside)}\\sqrt{{{k // outside**2}}}"


def _polynomial(coefficients: Sequence[int]) -> str:
    """Highest power first; `[1, 0, -4]` is x^2 - 4."""
    degree = len(coefficients) - 1
    names = ["", "x", *(f"x^{power}" for power in range(2, degree + 1))]
    terms = [(k, names[degree - index]) for index, k in enumerate(coefficients) if k]
    (lead, name), *rest = terms
    return " ".join([f"{_times(lead)}{name}", *(_signed(k, name) for k, name in rest)])
