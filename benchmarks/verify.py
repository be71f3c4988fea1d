"""Verifications of mathematical answers per second of one core: `rollforge.verify.math` on the fast path.

    python benchmarks/verify.py           20,000 replies
    python benchmarks/verify.py --quick   4,000

Every reply is extracted from and compared; hardly an answer comes twice, so that the cache of what was read does not help.
math-verify is not asked.
Exit status: 1 when the bar is missed, or a reply is graded wrongly.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable

from rollforge.verify.math import math_answer

BAR = 2000.0
ROUNDS = 5
Case = tuple[str, str, bool]
TALK = "First we simplify: $2 + 3 = 5$, then we substitute and collect terms. " * 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer replies")
    count = 4_000 if parser.parse_args().quick else 20_000
    rates, wrong = [], 0
    for number in range(ROUNDS):
        cases = made(random.Random(number), count // ROUNDS)
        start = time.process_time()
        rewards = [math_answer(reply, expected)["reward"] for reply, expected, _ in cases]
        rates.append(len(cases) / (time.process_time() - start))
        wrong += sum(reward != right for reward, (_, _, right) in zip(rewards, cases, strict=True))
    rate = statistics.median(rates)
    print(f"{count:,} replies of {len(TALK):,} characters: {rate:,.0f} verifications per second of CPU (bar: {BAR:,.0f})")
    print(f"rounds: {', '.join(f'{each:,.0f}' for each in rates)}; graded wrongly: {wrong}")
    return 0 if rate >= BAR and not wrong else 1


def made(rng: random.Random, count: int) -> list[Case]:
    cases = []
    for index in range(count):
        given, expected = KINDS[index % len(KINDS)](rng)
        right = rng.random() < 0.5
        # A wrong one answers with something else altogether.
        answer = given if right else f"{rng.randint(10**7, 10**8)}x"
        cases.append((f"{TALK}So the answer is \\boxed{{{answer}}}.", expected, right))
    return cases


def fraction(rng: random.Random) -> tuple[str, str]:
    a, b, k = rng.randint(1, 9999), rng.randint(2, 999), rng.randint(2, 9)
    return f"\\dfrac{{{a * k}}}{{{b * k}}}", f"{a}/{b}"


def whole(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(1000, 10**9)
    return f"{n:,}", str(n)


def surd(rng: random.Random) -> tuple[str, str]:
    a, b, c = rng.randint(1, 999), rng.choice([2, 3, 5, 6, 7, 10]), rng.randint(2, 30)
    return f"{a}+{c}\\sqrt{{{b}}}", f"\\sqrt{{{b * c * c}}} + {a}"


def polynomial(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 99), rng.randint(100, 199)
    return f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b}"


def interval(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(-999, 0), rng.randint(1, 999)
    return f"{a} < x \\le {b}", f"\\left({a}, {b}\\right]"


def numbers(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 999), rng.randint(1000, 1999)
    return f"\\{{{b}, {a}\\}}", f"\\{{{a},{b}\\}}"


def matrix(rng: random.Random) -> tuple[str, str]:
    a, b, c, d = (rng.randint(-99, 99) for _ in range(4))
    return f"\\begin{{pmatrix}}{a}&{b}\\\\{c}&{d}\\end{{pmatrix}}", f"[[{a}, {b}], [{c}, {d}]]"


def unit(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(1, 99_999) / 100
    return f"{n} \\text{{ cm}}", f"{n}"


KINDS: tuple[Callable[[random.Random], tuple[str, str]], ...] = (
    whole, fraction, whole, surd, whole, polynomial, unit, interval, fraction, numbers, whole, matrix
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
