"""The problems of the coding environment: a statement, a reference solution, and what to run it on.

`<k>` in a statement and its solution stands for what is drawn for each task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from rollforge.records.items import Json

Take = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Problem:
    name: str
    """Of the function."""
    takes: tuple[Take, ...]
    """Name and kind (`int`, `ints`, `str`) of what it is given."""
    statement: str
    source: str
    draw: Callable[[Random], Json]
    arguments: Callable[[Random, int], list[Any]]
    """For a test: the higher its number, the larger."""


def _k(low: int, high: int) -> Callable[[Random], Json]:
    return lambda rng: {"k": rng.randint(low, high)}


def _ints(most: int, low: int = 1, length: int = 30) -> Callable[[Random, int], list[Any]]:
    def made(rng: Random, size: int) -> list[Any]:
        count = 1 if size == 3 else rng.randint(1, 2 + min(length, size))
        return [[rng.randint(low, most if size % 4 else 3) for _ in range(count)]]

    return made


def _number(most: int) -> Callable[[Random, int], list[Any]]:
    return lambda rng, size: [rng.randint(1, max(3, most * (size + 1) // 20)) if size != 2 else 1]


def _word(letters: str, length: int = 40) -> Callable[[Random, int], list[Any]]:
    def made(rng: Random, size: int) -> list[Any]:
        return ["".join(rng.choice(letters) for _ in range(rng.randint(1, 2 + min(size, length))))]

    return made


def _runs(rng: Random, size: int) -> list[Any]:
    return [
        "".join(rng.choice("abcd") * rng.randint(1, 12 if size % 5 == 0 else 4) for _ in range(rng.randint(1, 3 + size)))
    ]


def _brackets(rng: Random, size: int) -> list[Any]:
    text = ""
    for _ in range(rng.randint(1, 2 + min(size, 6))):
        depth = rng.randint(1, 5)
        text += "".join(rng.choice("([") for _ in range(depth))
        text += "".join({"(": ")", "[": "]"}[c] for c in reversed(text[-depth:]))
    if size % 3 == 2:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice("()[]") + text[place + 1 :]
    return [text]


def _letters(rng: Random) -> Json:
    return {"k": "".join(sorted(rng.sample("abcdefghijklmnop", rng.randint(2, 5))))}


def _coins(rng: Random) -> Json:
    return {"k": ", ".join(map(str, sorted(rng.sample(range(2, 24), rng.randint(3, 4)))))}


_VALUES: tuple[Take, ...] = (("values", "ints"),)
_NUMBER: tuple[Take, ...] = (("number", "int"),)
_TEXT: tuple[Take, ...] = (("text", "str"),)
_WORDS = "the quick brown fox jumps over a lazy dog The End ABCxyz"

PROBLEMS: dict[str, tuple[tuple[Problem, ...], ...]] = {
    "numbers": (
        (
            Problem(
                "weighted_digits",
                _NUMBER,
                "The digits of a whole number count from the right: the first is worth 1 times itself, the second <k> times "
                "itself, the third 1 times again, and so on in turns. What is the sum?",
                """
def weighted_digits(number):
    return sum(int(digit) * (<k> if index % 2 else 1) for index, digit in enumerate(reversed(str(number))))
""",
                _k(2, 30),
                _number(10**9),
            ),
            Problem(
                "steps_down",
                _NUMBER,
                "A number that is divisible by <k> is divided by it; any other is made smaller by 1. How many steps lead "
                "from the given number to 0?",
                """
def steps_down(number):
    steps = 0
    while number:
        number = number // <k> if number % <k> == 0 else number - 1
        steps += 1
    return steps
""",
                _k(2, 20),
                _number(10**6),
            ),
        ),
        (
            Problem(
                "last_one",
                _NUMBER,
                "Players 1, 2, 3 ... up to the given number sit in a circle. Starting to count at player 1, each time the "
                "player at whom <k> is reached leaves, and counting starts again with the next one. Who is left in the end?",
                """
def last_one(number):
    place = 0
    for size in range(2, number + 1):
        place = (place + <k>) % size
    return place + 1
""",
                _k(2, 40),
                _number(2000),
            ),
            Problem(
                "in_base",
                _NUMBER,
                "Write the given number in base <k>. The digits are 0 to 9, then a for ten, b for eleven, and so on.",
                """
def in_base(number):
    digits = ""
    while number:
        number, digit = divmod(number, <k>)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
""",
                _k(3, 36),
                _number(10**9),
            ),
        ),
        (
            Problem(
                "fewest_coins",
                _NUMBER,
                "There are coins worth <k>, as many as you like of each. What is the smallest number of coins that together "
                "are worth exactly the given number? If there is no way, the result is -1.",
                """
def fewest_coins(number):
    best = [0] + [None] * number
    for value in range(1, number + 1):
        known = [best[value - coin] for coin in (<k>) if coin <= value and best[value - coin] is not None]
        best[value] = min(known) + 1 if known else None
    return -1 if best[number] is None else best[number]
""",
                _coins,
                _number(400),
            ),
            Problem(
                "ways_to_sum",
                _NUMBER,
                "In how many ways can the given number be written as a sum of whole numbers from 1 to <k>, where the order "
                "of the summands matters? Give the result modulo 1000000007.",
                """
def ways_to_sum(number):
    ways = [1]
    for value in range(1, number + 1):
        ways.append(sum(ways[max(0, value - <k>):value]) % 1_000_000_007)
    return ways[number]
""",
                _k(2, 24),
                _number(500),
            ),
        ),
    ),
    "text": (
        (
            Problem(
                "count_letters",
                _TEXT,
                "How many characters of a text are one of the letters of `<k>`, in small or capital form?",
                """
def count_letters(text):
    return sum(letter in "<k>" for letter in text.lower())
""",
                _letters,
                _word(_WORDS.replace(" ", "")),
            ),
            Problem(
                "shifted",
                _TEXT,
                "Replace each small letter a to z of a text by the one <k> places later in the alphabet; after z comes a "
                "again. Everything else stays.",
                """
def shifted(text):
    return "".join(chr((ord(c) - 97 + <k>) % 26 + 97) if "a" <= c <= "z" else c for c in text)
""",
                _k(1, 25),
                _word("abcdefghijklmnopqrstuvwxyzXYZ019"),
            ),
        ),
        (
            Problem(
                "packed",
                _TEXT,
                "Shorten a text of letters: each run of the same letter, of <k> or more of them, becomes the letter "
                "followed by the length of the run; shorter runs stay as they are.",
                """
def packed(text):
    result, index = "", 0
    while index < len(text):
        end = index
        while end < len(text) and text[end] == text[index]:
            end += 1
        length = end - index
        result += text[index] + str(length) if length >= <k> else text[index] * length
        index = end
    return result
""",
                _k(2, 9),
                _runs,
            ),
            Problem(
                "bracket_score",
                _TEXT,
                "A text consists of round and square brackets. If they are not properly nested, the result is -1. Otherwise "
                "it is the greatest depth of nesting, where a square bracket counts <k> and a round one 1.",
                """
def bracket_score(text):
    stack, depth, best = [], 0, 0
    for c in text:
        if c in "([":
            stack.append(c)
            depth += <k> if c == "[" else 1
            best = max(best, depth)
        elif not stack or stack.pop() != {")": "(", "]": "["}[c]:
            return -1
        else:
            depth -= <k> if c == "]" else 1
    return -1 if stack else best
""",
                _k(2, 20),
                _brackets,
            ),
        ),
        (
            Problem(
                "longest_with_few",
                _TEXT,
                "How long is the longest stretch of consecutive characters of a text that has at most <k> different "
                "characters and no character more than <m> times?",
                """
def longest_with_few(text):
    counts, start, best = {}, 0, 0
    for end, c in enumerate(text):
        counts[c] = counts.get(c, 0) + 1
        while len(counts) > <k> or counts[c] > <m>:
            counts[text[start]] -= 1
            if not counts[text[start]]:
                del counts[text[start]]
            start += 1
        best = max(best, end - start + 1)
    return best
""",
                lambda rng: {"k": rng.randint(2, 5), "m": rng.randint(2, 6)},
                _word("abcdefg", 60),
            ),
            Problem(
                "cost_to_palindrome",
                _TEXT,
                "What is the lowest cost to make a text read the same forwards and backwards? Deleting a character costs "
                "<k>, and inserting one costs <m>.",
                """
def cost_to_palindrome(text):
    size = len(text)
    cost = [[0] * (size + 1) for _ in range(size + 1)]
    for start in range(size - 1, -1, -1):
        for end in range(start + 1, size):
            if text[start] == text[end]:
                cost[start][end] = cost[start + 1][end - 1]
            else:
                cost[start][end] = min(cost[start + 1][end], cost[start][end - 1]) + min(<k>, <m>)
    return cost[0][size - 1] if size else 0
""",
                lambda rng: {"k": rng.randint(1, 12), "m": rng.randint(1, 12)},
                _word("abcd", 30),
            ),
        ),
    ),
    "lists": (
        (
            Problem(
                "sum_of_multiples",
                _VALUES,
                "What is the sum of those values of a list that are divisible by <k> or end in the digit <m>?",
                """
def sum_of_multiples(values):
    return sum(value for value in values if value % <k> == 0 or value % 10 == <m>)
""",
                lambda rng: {"k": rng.randint(3, 15), "m": rng.randint(1, 9)},
                _ints(200),
            ),
            Problem(
                "ranked",
                _VALUES,
                "Which is the number <k> among the different values of a list when they are sorted from the largest down "
                "(the largest is number 1)? If there are not so many, the result is -1.",
                """
def ranked(values):
    different = sorted(set(values), reverse=True)
    return different[<k> - 1] if len(different) >= <k> else -1
""",
                _k(2, 12),
                _ints(60),
            ),
        ),
        (
            Problem(
                "best_window",
                _VALUES,
                "What is the largest sum of up to <k> values that stand directly beside each other in a list? At least one "
                "value must be taken.",
                """
def best_window(values):
    return max(sum(values[start:end]) for start in range(len(values))
               for end in range(start + 1, min(len(values), start + <k>) + 1))
""",
                _k(2, 25),
                _ints(50, -50),
            ),
            Problem(
                "turned",
                _VALUES,
                "Cut a list into pieces of <k> values; the last piece may be shorter. Turn every second piece around (the "
                "second, the fourth ...) and join them again.",
                """
def turned(values):
    result = []
    for number, start in enumerate(range(0, len(values), <k>)):
        piece = values[start:start + <k>]
        result += piece[::-1] if number % 2 else piece
    return result
""",
                _k(2, 14),
                _ints(99),
            ),
        ),
        (
            Problem(
                "longest_climb",
                _VALUES,
                "Choose values of a list, in their order but not necessarily beside each other, so that each is larger than "
                "the one before it by at least <k>. How many can be chosen at most?",
                """
def longest_climb(values):
    best = []
    for index, value in enumerate(values):
        best.append(1 + max((best[i] for i in range(index) if values[i] + <k> <= value), default=0))
    return max(best)
""",
                _k(1, 25),
                _ints(120, -40),
            ),
            Problem(
                "far_inversions",
                _VALUES,
                "How many pairs of places i < j of a list are there whose values differ so that the one at i is larger than "
                "the one at j by more than <k>, and that are at most <m> places apart?",
                """
def far_inversions(values):
    return sum(values[i] > values[j] + <k> for i in range(len(values))
               for j in range(i + 1, min(len(values), i + <m> + 1)))
""",
                lambda rng: {"k": rng.randint(1, 20), "m": rng.randint(3, 12)},
                _ints(80),
            ),
        ),
    ),
}
"""Kinds, then levels."""
