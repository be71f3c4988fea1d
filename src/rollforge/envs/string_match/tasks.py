"""Tasks of the string_match environment: small transformations of words and numbers, with exactly one right answer."""

from __future__ import annotations

from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

WORDS = """
anchor apple arrow autumn badger barrel basket beacon blossom bottle bridge bronze candle canyon carpet castle cedar
cloud copper coral cotton cradle crystal desert dolphin dragon ember engine falcon feather fiddle forest garden glacier
hammer harbor hazel honey island ivory jasmine jungle kettle ladder lantern lemon marble meadow mirror needle ocean orchard
oyster paddle pebble pepper pillow planet pocket puzzle quartz rabbit ribbon river rocket saddle salmon shadow silver spider
spring stable summit sunset temple thunder timber tunnel turtle valley velvet violet walnut whistle willow window winter
""".split()  # noqa: SIM905
MODES = {
    "boxed": "Put your answer in \\boxed{}.",
    "final_answer": "End your reply with a line of the form: Final answer: <answer>",
    "last_line": "Write the answer alone on the last line of your reply.",
    "full_response": "Reply with the answer and nothing else.",
}


@generated("string_match", n=80)
def tasks() -> Kinds:
    """Rows `{prompt, expected_answer, extraction_mode, case_sensitive, answer_type, kind, level}`. Level: how long the words
    and lists are."""
    return {
        "reverse": _reverse,
        "nth_word": _nth_word,
        "initials": _initials,
        "roman": _roman,
        "convert": _convert,
        "sort": _sort,
        "common": _common,
    }


def _row(rng: Random, question: str, expected: Any, answer_type: str = "text", case: bool = False) -> tuple[str, Json]:
    mode = rng.choice(list(MODES))
    row = {
        "prompt": f"{question} {MODES[mode]}",
        "expected_answer": expected,
        "extraction_mode": mode,
        "case_sensitive": case,
        "answer_type": answer_type,
    }
    return question, row


def _reverse(rng: Random, level: int) -> tuple[str, Json]:
    text = "".join(rng.sample(WORDS, 1 + level))
    return _row(rng, f'Write "{text}" backwards.', text[::-1])


def _nth_word(rng: Random, level: int) -> tuple[str, Json]:
    words = rng.sample(WORDS, (5, 10, 20)[level])
    place = rng.randrange(1, len(words))
    back = bool(level) and rng.random() < 0.5
    name = f"word number {place + 1}{', counted from the end,' if back else ''}"
    return _row(rng, f"Which is {name} of this list: {' '.join(words)}?", words[-place - 1 if back else place])


def _initials(rng: Random, level: int) -> tuple[str, Json]:
    words = rng.sample(WORDS, (3, 5, 8)[level])
    question = f"Write the first letters of these words in capitals, in order and without spaces: {', '.join(words)}."
    return _row(rng, question, "".join(word[0] for word in words).upper(), case=True)


_ROMAN = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"))
_SMALL = ((9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


def _roman(rng: Random, level: int) -> tuple[str, Json]:
    number = rest = rng.randint((1, 50, 500)[level], (49, 499, 3999)[level])
    written = ""
    for value, sign in (*_ROMAN, *_SMALL):
        written += sign * (rest // value)
        rest %= value
    if rng.random() < 0.5:
        return _row(rng, f"Write {number} in Roman numerals.", written)
    return _row(rng, f"Which number is {written}? Write it in digits.", str(number), "number")


_CONVERSIONS = (
    ("kilometres", "metres", "m", 1000),
    ("metres", "centimetres", "cm", 100),
    ("hours", "minutes", "min", 60),
    ("kilograms", "grams", "g", 1000),
    ("litres", "millilitres", "mL", 1000),
    ("days", "hours", "h", 24),
)


def _convert(rng: Random, level: int) -> tuple[str, Json]:
    large, small, unit, factor = rng.choice(_CONVERSIONS)
    tenths = rng.randint(2, (20, 99, 999)[level]) * (10 if level == 0 else 1)
    count = f"{tenths / 10:g}"
    result = tenths * factor / 10
    return _row(rng, f"How many {small} are {count} {large}?", f"{result:.10g} {unit}", "number")


def _sort(rng: Random, level: int) -> tuple[str, Json]:
    if rng.random() < 0.5:
        words = rng.sample(WORDS, (3, 5, 8)[level])
        question, right = f"Sort these words alphabetically: {', '.join(words)}.", sorted(words)
    else:
        numbers = rng.sample(range((-9, -99, -999)[level], (20, 200, 2000)[level]), (4, 6, 9)[level])
        question = f"Sort these numbers, largest first: {', '.join(map(str, numbers))}."
        right = [str(number) for number in sorted(numbers, reverse=True)]
    return _row(rng, f"{question} Separate them with commas.", right, "list")


def _common(rng: Random, level: int) -> tuple[str, Json]:
    size = (3, 5, 8)[level]
    words = rng.sample(WORDS, 2 * size)
    both = words[: rng.randint(1, size - 1)]
    left, right = [*both, *words[len(both) : size]], [*both, *words[size : 2 * size - len(both)]]
    rng.shuffle(left)
    rng.shuffle(right)
    question = f"Which words are in both lists? First: {', '.join(left)}. Second: {', '.join(right)}."
    return _row(rng, f"{question} Separate them with commas.", sorted(both), "set")
