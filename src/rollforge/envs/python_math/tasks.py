"""Tasks of the python_math environment: questions that take a short program, each with the code that answers it."""

from __future__ import annotations

from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json


@generated("python_math", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, expected_result, code, kind, level}`. Kinds: primes, digits, recurrence, counting, games, fractions."""
    return {
        "primes": _primes,
        "digits": _digits,
        "recurrence": _recurrence,
        "counting": _counting,
        "games": _games,
        "fractions": _fractions,
    }


def _row(problem: str, code: str) -> tuple[str, Json]:
    space: dict[str, Any] = {}
    exec(code, space)  # ours
    ask = "Use the tool execute_python for the calculations. Put the final answer in \\boxed{}."
    return problem, {
        "prompt": f"{problem} {ask}",
        "expected_result": str(space["result"]),
        "code": f"{code.strip()}\nprint(result)",
    }


def _primes(rng: Random, level: int) -> tuple[str, Json]:
    low = rng.randint(100, (500, 3000, 9000)[level])
    high = low + rng.randint(100, (400, 2000, 6000)[level])
    modulus = rng.choice((4, 5, 6, 7, 8, 9, 10))
    rest = rng.choice([r for r in range(1, modulus) if _coprime(r, modulus)])
    ask = (
        f"How many prime numbers p with {low} <= p <= {high} leave the remainder {rest} when divided by {modulus}?",
        f"What is the sum of all prime numbers p with {low} <= p <= {high} that leave the remainder {rest} when divided by "
        f"{modulus}?",
        f"Of the prime numbers p with {low} <= p <= {high}, take those that leave the remainder {rest} when divided by "
        f"{modulus}. What is the sum of their squares, modulo 1000003?",
    )[level]
    total = ("len(found)", "sum(found)", "sum(p * p for p in found) % 1000003")[level]
    code = f"""
found = [p for p in range({low}, {high} + 1) if p % {modulus} == {rest} and all(p % d for d in range(2, int(p**0.5) + 1))]
result = {total}
"""
    return _row(ask, code)


def _coprime(a: int, b: int) -> bool:
    while b:
        a, b = b, a % b
    return a == 1


def _digits(rng: Random, level: int) -> tuple[str, Json]:
    base, power = rng.randint(3, 29), rng.randint(20, (60, 300, 900)[level])
    digit = rng.randint(0, 9)
    if level == 0:
        return _row(
            f"What is the sum of the decimal digits of ${base}^{{{power}}}$?",
            f"result = sum(map(int, str({base}**{power})))",
        )
    if level == 1:
        ask = f"How often does the digit {digit} occur in the decimal digits of ${base}^{{{power}}}$?"
        return _row(ask, f"result = str({base}**{power}).count('{digit}')")
    ask = (
        f"For how many whole numbers n with 1 <= n <= {power} is the digit {digit} the most frequent digit of ${base}^n$ "
        "(no other digit is as frequent)?"
    )
    code = f"""
def most(n):
    text = str({base}**n)
    counts = sorted(((text.count(d), d) for d in "0123456789"), reverse=True)
    return counts[0][1] if counts[0][0] > counts[1][0] else None

result = sum(most(n) == "{digit}" for n in range(1, {power} + 1))
"""
    return _row(ask, code)


def _recurrence(rng: Random, level: int) -> tuple[str, Json]:
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    x, y = rng.randint(0, 9), rng.randint(1, 9)
    n, modulus = rng.randint(20, (60, 500, 5000)[level]), rng.randint(100, 9999)
    extra = ("", f" + {c}", f" + {c}n")[level]
    ask = (
        f"A sequence begins with $x_0 = {x}$, $x_1 = {y}$, and $x_n = {a}x_{{n-1}} + {b}x_{{n-2}}{extra}$ for n >= 2. "
        f"What is the remainder of $x_{{{n}}}$ when divided by {modulus}?"
    )
    more = ("0", str(c), f"{c} * n")[level]
    code = f"""
x, y = {x}, {y}
for n in range(2, {n} + 1):
    x, y = y, {a} * y + {b} * x + {more}
result = y % {modulus}
"""
    return _row(ask, code)


def _counting(rng: Random, level: int) -> tuple[str, Json]:
    n = rng.randint(30, (120, 300, 500)[level])
    m, r = rng.randint(5, 17), rng.randint(0, 4)
    if level == 0:
        ask = (
            f"How many pairs (a, b) of whole numbers with 1 <= a < b <= {n} are there for which a*b + a + b leaves the "
            f"remainder {r} when divided by {m}?"
        )
        code = f"result = sum((a * b + a + b) % {m} == {r} for b in range(1, {n} + 1) for a in range(1, b))"
    elif level == 1:
        ask = (
            f"How many pairs (a, b) of whole numbers with 1 <= a <= b <= {n} are there for which $a^2 + b^2 + {r}$ is a "
            "square?"
        )
        code = f"""
from math import isqrt
result = sum(isqrt(a * a + b * b + {r}) ** 2 == a * a + b * b + {r} for b in range(1, {n} + 1) for a in range(1, b + 1))
"""
    else:
        k = rng.randint(3, 6)
        ask = (
            f"In how many ways can {n} be written as a sum of exactly {k} different positive whole numbers, none of which "
            f"is divisible by {m}? The order does not matter."
        )
        code = f"""
ways = [[0] * ({n} + 1) for _ in range({k} + 1)]
ways[0][0] = 1
for part in range(1, {n} + 1):
    if part % {m}:
        for count in range({k}, 0, -1):
            for total in range({n}, part - 1, -1):
                ways[count][total] += ways[count - 1][total - part]
result = ways[{k}][{n}]
"""
    return _row(ask, code)


def _games(rng: Random, level: int) -> tuple[str, Json]:
    n = rng.randint(50, (300, 2000, 8000)[level])
    moves = sorted(rng.sample(range(1, 12), 2 + level))
    ask = (
        f"Two players take turns in removing {', '.join(map(str, moves[:-1]))} or {moves[-1]} stones from a heap; who "
        f"cannot move loses. For how many sizes n of the heap with 1 <= n <= {n} does the player who moves first lose, if "
        "both play as well as can be?"
    )
    code = f"""
lost = [True]
for n in range(1, {n} + 1):
    lost.append(not any(move <= n and lost[n - move] for move in {moves}))
result = sum(lost[1:])
"""
    return _row(ask, code)


def _fractions(rng: Random, level: int) -> tuple[str, Json]:
    n, m, k = rng.randint(4, (8, 12, 18)[level]), rng.randint(1, 9), rng.randint(2, 5)
    ask = f"What is $\\sum_{{i=1}}^{{{n}}} \\frac{{{m}}}{{i(i+{k})}}$ as a reduced fraction?"
    code = f"""
from fractions import Fraction
result = sum(Fraction({m}, i * (i + {k})) for i in range(1, {n} + 1))
"""
    return _row(ask, code)
