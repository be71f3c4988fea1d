"""Tasks of the choice environment: generated puzzles that need reasoning and no knowledge of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from math import isqrt
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

LETTERS = "ABCDEFGHIJ"


@generated("choice")
def tasks() -> Kinds:
    """Rows `{prompt, options, expected_answer, grading_mode, kind, level}`, as NeMo Gym's `mcqa` has them. Level: how many
    steps, and whether four, five or six options."""
    return {
        "sequence": _sequence,
        "odd_one_out": _odd_one_out,
        "units": _units,
        "weekday": _weekday,
        "date": _date,
        "ranking": _ranking,
        "direction": _direction,
        "cipher": _cipher,
    }


def _row(rng: Random, question: str, right: object, wrong: Sequence[object], level: int) -> tuple[str, Json]:
    """`wrong` may hold the right one and repetitions; the first of what is left become options."""
    others = [text for text in dict.fromkeys(map(str, wrong)) if text != str(right)][: 3 + level]
    texts = rng.sample([str(right), *others], 1 + len(others))
    options = [{letter: text} for letter, text in zip(LETTERS, texts, strict=False)]
    listed = "\n".join(f"{LETTERS[index]}: {text}" for index, text in enumerate(texts))
    row = {
        "prompt": f"{question}\n\n{listed}\n\nThink it through, then put the letter of the right option inside \\boxed{{}}.",
        "options": options,
        "expected_answer": LETTERS[texts.index(str(right))],
        "grading_mode": "strict_single_letter_boxed",
    }
    return question, row


def _near(rng: Random, value: int, steps: Sequence[int] = ()) -> list[int]:
    """Wrong numbers near the right one, likely mistakes first."""
    spread = max(4, abs(value) // 12)
    return [value + step for step in steps] + [value + d for d in rng.sample([*range(-spread, 0), *range(1, spread + 1)], 8)]


def _sequence(rng: Random, level: int) -> tuple[str, Json]:
    a, b = rng.randint(1, 20), rng.randint(2, 12)
    if level == 0:
        terms = [a + b * k for k in range(6)]
    elif level == 1:
        ratio = rng.randint(2, 3)
        rule: Callable[[int], int] = rng.choice(
            (lambda k: a * ratio**k, lambda k: a + k * k * b, lambda k: a + b * k * (k + 1) // 2)
        )
        terms = [rule(k) for k in range(6)]
    elif rng.random() < 0.5:
        terms = [a, b]
        while len(terms) < 7:
            terms.append(terms[-1] + terms[-2])
    else:
        c, d = rng.randint(1, 20), rng.randint(2, 12)
        terms = [start + step * k for k in range(4) for start, step in ((a, b), (c, -d))][:7]
    *shown, right = terms
    last = shown[-1] - shown[-2]
    question = f"Which number comes next: {', '.join(map(str, shown))}, ...?"
    return _row(rng, question, right, _near(rng, right, (last - (right - shown[-1]), 1, -1, b, -b)), level)


_PROPERTIES: dict[str, Callable[[int], bool]] = {
    "even": lambda k: k % 2 == 0,
    "a multiple of 3": lambda k: k % 3 == 0,
    "a multiple of 5": lambda k: k % 5 == 0,
    "a multiple of 7": lambda k: k % 7 == 0,
    "a square": lambda k: isqrt(k) ** 2 == k,
    "a prime": lambda k: k > 1 and all(k % d for d in range(2, isqrt(k) + 1)),
    "a number with equal digits": lambda k: len(set(str(k))) == 1,
}


def _odd_one_out(rng: Random, level: int) -> tuple[str, Json]:
    """One number lacks a property of all others, and no property of the list singles out another number."""
    names = list(_PROPERTIES)
    while True:
        has = _PROPERTIES[rng.choice(names[: (4, 6, 7)[level]])]
        candidates = range(10, (100, 200, 400)[level])
        having = [k for k in candidates if has(k)]
        if len(having) < 3 + level:
            continue
        numbers = [*rng.sample(having, 3 + level), rng.choice([k for k in candidates if not has(k)])]
        if _singled_out(numbers) == {numbers[-1]}:
            break
    question = (
        f"All of these numbers but one have something in common. Which is the odd one out: {_listed(sorted(numbers))}?"
    )
    return _row(rng, question, numbers[-1], numbers[:-1], level)


def _singled_out(numbers: Sequence[int]) -> set[int]:
    found = set()
    for has in _PROPERTIES.values():
        without = [k for k in numbers if not has(k)]
        if len(without) == 1:
            found.add(without[0])
    return found


def _units(rng: Random, level: int) -> tuple[str, Json]:
    """Units that nobody knows, so that only the given ratios help."""
    names = rng.sample(("blip", "dorn", "frell", "gask", "mip", "quen", "tarn", "vold", "zeb"), level + 2)
    ratios = [rng.randint(2, 9) for _ in names[1:]]
    rules = [f"1 {one} is {ratio} {other}s" for one, other, ratio in zip(names[:-1], names[1:], ratios, strict=True)]
    rng.shuffle(rules)
    total = 1
    for ratio in ratios:
        total *= ratio
    count = rng.randint(2, 12)
    if rng.random() < 0.5:
        question, right = f"How many {names[-1]}s are {count} {names[0]}s?", count * total
    else:
        question, right = f"How many {names[0]}s are {count * total} {names[-1]}s?", count
    mistakes = [right * ratios[0] // ratios[-1], right + ratios[0], right + ratios[-1], count + sum(ratios), right * 2]
    return _row(rng, f"{'. '.join(rules)}. {question}", right, [k for k in mistakes + _near(rng, right) if k > 0], level)


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _weekday(rng: Random, level: int) -> tuple[str, Json]:
    start, days = rng.randrange(7), rng.randint(2, (12, 60, 500)[level])
    if level == 0 or rng.random() < 0.5:
        question, right = f"Today is {_DAYS[start]}. Which day is it in {days} days?", _DAYS[(start + days) % 7]
    else:
        question, right = f"Today is {_DAYS[start]}. Which day was it {days} days ago?", _DAYS[(start - days) % 7]
    return _row(rng, question, right, rng.sample(_DAYS, 7), level)


def _date(rng: Random, level: int) -> tuple[str, Json]:
    start = date(2021, 1, 1) + timedelta(days=rng.randrange(365))  # no leap year here, nor next
    days = rng.randint(3, (20, 60, 300)[level])
    right = start + timedelta(days=days)
    wrong = [right + timedelta(days=d) for d in (1, -1, 2, -2, 3, 7, -7)]
    question = f"February has 28 days. Which date is {days} days after {_day(start)}?"
    return _row(rng, question, _day(right), [_day(d) for d in wrong], level)


def _day(d: date) -> str:
    return f"{_MONTHS[d.month - 1]} {d.day}"


_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


def _ranking(rng: Random, level: int) -> tuple[str, Json]:
    """A chain of comparisons in any order; who has a certain place."""
    people = rng.sample(("Ana", "Ben", "Cleo", "Dara", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jana"), 4 + level)
    more, less, most = rng.choice(
        (("taller", "shorter", "tallest"), ("older", "younger", "oldest"), ("faster", "slower", "fastest"))
    )
    clues = [
        f"{one} is {more} than {two}" if rng.random() < 0.6 else f"{two} is {less} than {one}"
        for one, two in pairwise(people)
    ]
    rng.shuffle(clues)
    place = rng.randrange(len(people))
    rank = ("", "second ", "third ", "fourth ", "fifth ", "sixth ")[place]
    question = f"{'. '.join(clues)}. Who is the {rank}{most}?"
    return _row(rng, question, people[place], people, level)


def _direction(rng: Random, level: int) -> tuple[str, Json]:
    compass = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
    facing = 2 * rng.randrange(4)
    turns = []
    at = facing
    possible = [(2, "right"), (-2, "left"), (4, "around"), (1, "half right"), (-1, "half left")][: 3 if level == 0 else 5]
    for _ in range(2 + 2 * level):
        step, text = rng.choice(possible)
        at += step
        turns.append(text)
    hint = " (Half right from north is north-east.)" if level else ""
    question = f"You face {compass[facing]} and turn {', then '.join(turns)}.{hint} Which way do you face now?"
    return _row(rng, question, compass[at % 8], rng.sample(compass[:: 1 if level else 2], 8 if level else 4), level)


def _cipher(rng: Random, level: int) -> tuple[str, Json]:
    """Letters moved along the alphabet; the rule is shown by an example."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    shift = rng.randint(1, 3 + 4 * level) * rng.choice((1, -1))

    def coded(word: str, by: int) -> str:
        moved = "".join(alphabet[(alphabet.index(c) + by) % 26] for c in word)
        return moved[::-1] if level == 2 else moved

    example, word = ("".join(rng.choice(alphabet) for _ in range(3 + level)) for _ in range(2))
    right = coded(word, shift)
    wrong = [coded(word, shift + d) for d in (1, -1, 2, -2)] + [right[::-1], coded(word, -shift)]
    question = f"In a code, {example} is written {coded(example, shift)}. How is {word} written?"
    return _row(rng, question, right, rng.sample(wrong, len(wrong)), level)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
