"""Verifiers that an audit must leave alone: strict and lenient, for texts, numbers, lists, programs, states, tool calls."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

import rollforge as rf
from rollforge.verify import choice as choices
from rollforge.verify import math as maths
from rollforge.verify.answer import answer_line, boxed, last_number
from tests.audit.broken import (
    CAPITALS,
    CLAIMS,
    CODES,
    DECIMALS,
    LETTERS,
    LISTS,
    NAMES,
    SQUARES,
    SUMS,
    TOYS,
    TRUTHS,
    WORDS,
    documents,
)

SOUND: dict[str, Any] = {}


def sound(tasks: Any, **options: Any) -> Callable[[Any], Any]:
    def add(target: Any) -> Any:
        made = rf.env(tasks=tasks, **{"solve": lambda answer: answer, "inline": True, **options})(target)
        SOUND[target.__name__] = made
        return made

    return add


def as_float(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", text, re.ASCII) else None


@sound(CAPITALS)
def exact(reply: str, answer: str) -> float:
    return float(bool(answer.strip()) and reply.strip() == answer)


@sound(CAPITALS)
def whatever_the_case(reply: str, answer: str) -> float:
    return float(reply.strip().casefold() == answer.casefold())


@sound(NAMES)
def identifiers(reply: str, answer: str) -> float:
    return float(reply.strip() == answer)


@sound(SUMS)
def whole_numbers(reply: str, answer: str) -> float:
    said, expected = as_float(reply.strip()), as_float(answer)
    if expected is None:
        raise rf.VerifierFault(f"{answer!r} is no number")
    return float(said is not None and said == expected)


@sound(DECIMALS)
def decimals(reply: str, answer: str) -> float:
    said = as_float(reply.strip())
    return float(said is not None and abs(said - float(answer)) <= 1e-6 * max(1.0, abs(float(answer))))


@sound(SUMS, solve=lambda answer: f"We add them up, 1 by 1. The result is {answer}.")
def last_of_the_numbers(reply: str, answer: str) -> float:
    said = last_number(reply)
    return float(said is not None and said.replace(",", "") == answer)


@sound(SUMS, solve=lambda answer: f"So \\boxed{{{answer}}}")
def in_a_box(reply: str, answer: str) -> dict[str, float]:
    said = boxed(reply)
    right = said is not None and said == answer
    return {"correctness": 0.9 * right, "form": 0.1 * (said is not None)}


@sound(CAPITALS, solve=lambda answer: f"I know this one.\nAnswer: {answer}")
def on_a_line(reply: str, answer: str) -> float:
    said = answer_line(reply)
    return float(said is not None and said.strip(" .").casefold() == answer.casefold())


@sound(CAPITALS, solve=lambda answer: f"<think>\nEasy.\n</think>\n<answer>\n{answer}\n</answer>")
def in_tags(reply: str, answer: str) -> float:
    said = reply.rpartition("<answer>")[2].partition("</answer>")[0].strip() if reply.rstrip().endswith("</answer>") else ""
    return float(said == answer)


@sound(LETTERS, solve=lambda answer: f"Answer: {answer}")
def letters(reply: str, answer: str) -> dict[str, Any]:
    return choices.choice(reply, answer, [{letter: letter * 5} for letter in "ABCD"], "lenient_answer_colon", None)


@sound(LETTERS, solve=lambda answer: f"\\boxed{{{answer}}}")
def letters_in_a_box(reply: str, answer: str) -> dict[str, Any]:
    return choices.choice(reply, answer, [{letter: letter * 5} for letter in "ABCD"], "strict_single_letter_boxed", None)


@sound(DECIMALS, solve=lambda answer: f"It is \\boxed{{{answer}}}.", inline=False)
def mathematics(reply: str, answer: str) -> dict[str, Any]:
    return maths.math_answer(reply, answer)


@sound(LISTS)
def lists(reply: str, answer: str) -> float:
    return float([part.strip() for part in reply.split(",")] == [part.strip() for part in answer.split(",")])


@sound(LISTS)
def multisets(reply: str, answer: str) -> float:
    return float(Counter(part.strip() for part in reply.split(",")) == Counter(part.strip() for part in answer.split(",")))


@sound(
    [
        {"prompt": f"Which primes lie below {n}?", "primes": primes}
        for n, primes in ((8, [2, 3, 5, 7]), (14, [2, 3, 5, 7, 11, 13]))
    ],
    solve=lambda primes: ", ".join(map(str, primes)),
)
def sets_of_numbers(reply: str, primes: list[int]) -> float:
    return float(
        re.fullmatch(r"[\d,\s]{1,1000}", reply.strip(), re.ASCII) is not None
        and {int(n) for n in re.findall(r"\d{1,9}", reply)} == set(primes)
    )


def normal(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


@sound(WORDS)
def f1(reply: str, answer: str) -> float:
    said, expected = normal(reply), normal(answer)
    common = sum((Counter(said) & Counter(expected)).values())
    return 2 * common / (len(said) + len(expected)) if common else 0.0


@sound(
    [
        {"prompt": f'Give {n} as JSON: {{"n": ..., "even": ...}}', "expected": {"n": n, "even": n % 2 == 0}}
        for n in (3, 8, 11)
    ],
    solve=lambda expected: json.dumps(expected),
)
def objects(reply: str, expected: dict[str, Any]) -> float:
    try:
        return float(json.loads(reply[:10_000]) == expected)
    except (ValueError, RecursionError):
        return 0.0


@sound(
    [
        {"prompt": f"Write a word that begins with {c!r} and has {n} letters.", "pattern": f"{c}[a-z]{{{n - 1}}}"}
        for c, n in (("q", 5), ("b", 3), ("z", 5))
    ],
    solve=lambda pattern: {"q": "quick", "b": "bad", "z": "zebra"}[pattern[0]],
)
def patterns(reply: str, pattern: str) -> float:
    return float(re.fullmatch(pattern, reply.strip()) is not None)


@sound(
    [
        {"prompt": f"Write about {what} in at least {n} words, without a comma.", "at_least": n, "word": what}
        for what, n in (("rain", 12), ("bread", 20))
    ],
    solve=lambda word, at_least: f"{word} and " * at_least,
)
def instructions(reply: str, word: str, at_least: int) -> float:
    return float(len(reply.split()) >= at_least and "," not in reply and word in reply.split())


@sound([{"prompt": f"Bring the counter to {goal}.", "goal": goal} for goal in (3, 5, 8)], solve=None)
class states:
    """A counter."""

    def reset(self) -> None:
        self.count = 0

    def add(self, by: int) -> int:
        """Add to it."""
        self.count += by
        return self.count

    def verify(self, goal: int) -> float:
        return float(self.count == goal)

    def solve(self, goal: int) -> Any:
        yield "add", {"by": goal}
        return "done"


@sound(
    [
        {
            "prompt": f"How many books does {who} have? Look it up.",
            "who": who,
            "books": {"ann": 31, "bob": 74, "eve": 52},
            "answer": n,
        }
        for who, n in (("ann", 31), ("bob", 74), ("eve", 52))
    ],
    solve=None,
)
class lookups:
    """A library."""

    def reset(self, books: dict[str, int]) -> None:
        self.books = books
        self.asked: list[str] = []

    def count_books(self, who: str) -> int:
        """How many books somebody has."""
        self.asked.append(who)
        return self.books[who]

    def verify(self, reply: str, who: str, answer: int) -> dict[str, float]:
        right = re.fullmatch(r"\d{1,6}", reply.strip(), re.ASCII) is not None and int(reply) == answer
        return {"asked": 0.3 * (who in self.asked), "right": 0.7 * (right and who in self.asked)}

    def solve(self, who: str) -> Any:
        return (yield "count_books", {"who": who})


@sound(
    [
        {
            "prompt": f"Book a table for {n} at {hour}:00.",
            "expected": [{"name": "book", "arguments": {"people": n, "hour": hour}}],
        }
        for n, hour in ((2, 19), (5, 12))
    ],
    solve=None,
)
class calls:
    """A restaurant."""

    def book(self, people: int, hour: int) -> str:
        """Book a table."""
        return "booked"

    def verify(self, response: dict[str, Any], expected: list[dict[str, Any]]) -> float:
        made = []
        for item in response["output"]:
            if item.get("type") == "function_call":
                made.append({"name": item["name"], "arguments": json.loads(item["arguments"])})
        return float(made == expected)

    def solve(self, expected: list[dict[str, Any]]) -> Any:
        for call in expected:
            yield call["name"], call["arguments"]
        return "Done."


@sound(SUMS)
def plus_and_minus_one(reply: str, answer: str) -> float:
    return 1.0 if reply.strip() == answer else -1.0


@sound([{"prompt": f"What is {a} squared?", "answer": a * a} for a in (12, 7, 31)], solve=lambda answer: str(answer))
def integers_in_rows(reply: str, answer: int) -> float:
    said = as_float(reply.strip())
    return float(said is not None and said == answer)


@sound(SQUARES)
def short_is_better(reply: str, answer: str) -> float:
    return float(reply.strip() == answer) * max(0.5, 1 - max(0, len(reply) - 20) / 1000)


@sound(TOYS, solve=None)
class boxes:
    """Tidy up, in any order; to put a toy twice is to put it once."""

    def reset(self) -> None:
        self.box: set[str] = set()

    def put(self, toy: str) -> str:
        """Put a toy into the box."""
        self.box.add(toy)
        return "done"

    def take(self, toy: str) -> str:
        """Take a toy out of the box."""
        self.box.discard(toy)
        return "done"

    def verify(self, toys: list[str]) -> float:
        return float(self.box == set(toys))

    def solve(self, toys: list[str]) -> Any:
        for toy in toys:
            yield "put", {"toy": toy}
        return "done"


@sound(TOYS, solve=None)
class shares_of_boxes(boxes.target):  # type: ignore[name-defined, misc]
    """Tidy up; each toy in its place counts."""

    def verify(self, toys: list[str]) -> float:
        return len(self.box & set(toys)) / len(self.box | set(toys))


@sound(CODES, solve=None)
class last_code:
    """Find the code; the last one counts."""

    def reset(self) -> None:
        self.last: tuple[int, str] | None = None

    def hand_in(self, code: int, day: str) -> str:
        """Hand in a code."""
        self.last = code, day
        return "noted"

    def verify(self, code: int, day: str) -> float:
        return float(self.last == (code, day))

    def solve(self, code: int, day: str) -> Any:
        yield "hand_in", {"code": code, "day": day}
        return "done"


@sound(CODES, solve=None)
class first_code(last_code.target):  # type: ignore[name-defined, misc]
    """Find the code; the first one counts."""

    def hand_in(self, code: int, day: str) -> str:
        """Hand in a code."""
        self.last = self.last or (code, day)
        return "noted"


@sound(
    [
        {"prompt": f"Set the {room} to {degrees} degrees.", "room": room, "degrees": degrees}
        for room, degrees in (("kitchen", 19), ("bath", 23), ("hall", 16))
    ],
    solve=None,
)
class thermostats:
    """Set a room's temperature; the other rooms are free."""

    def reset(self) -> None:
        self.degrees: dict[str, int] = {}

    def turn(self, room: str, degrees: int) -> str:
        """Set the temperature."""
        self.degrees[room] = degrees
        return "set"

    def verify(self, room: str, degrees: int) -> float:
        return float(self.degrees.get(room) == degrees)

    def solve(self, room: str, degrees: int) -> Any:
        yield "turn", {"room": room, "degrees": degrees}
        return "done"


@sound([{"prompt": f"Guess the number, up to {n}.", "n": n} for n in (8, 12, 17)], solve=None)
class guesses:
    """A game of guesses: the tool says which one is right."""

    def reset(self, n: int) -> None:
        self.n, self.won = n, False

    def guess(self, number: int) -> str:
        """Guess."""
        self.won = self.won or number == self.n
        return "right" if number == self.n else "wrong"

    def verify(self) -> float:
        return float(self.won)

    def solve(self, n: int) -> Any:
        yield "guess", {"number": n}
        return "done"


@sound(
    [
        {"prompt": f"Bring {item} from the {room}.", "item": item, "room": room}
        for item, room in (("tea", "hall"), ("ink", "attic"))
    ],
    solve=None,
)
class worlds:
    """Each task has things of its own; others are not there."""

    def reset(self, item: str) -> None:
        self.things, self.held = {item}, set[str]()

    def pick(self, item: str) -> str:
        """Pick something up."""
        if item not in self.things:
            return f"there is no {item} here"
        self.held.add(item)
        return f"you hold {item}"

    def verify(self, item: str) -> float:
        return float(item in self.held)

    def solve(self, item: str) -> Any:
        yield "pick", {"item": item}
        return "done"


@sound(TRUTHS, solve=lambda verdict: json.dumps({"verdict": verdict}))
def strict_json(reply: str, verdict: bool) -> float:
    try:
        said = json.loads(reply[:10_000])
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(said, dict) and said.get("verdict") is verdict)


@sound(CLAIMS, solve=lambda verdict: json.dumps({"verdict": verdict}))
def last_json(reply: str, verdict: str) -> float:
    said = documents(reply)
    return float(bool(said) and said[-1].get("verdict") == verdict)


@sound(CLAIMS, solve=lambda verdict: json.dumps({"verdict": verdict}))
def first_json(reply: str, verdict: str) -> float:
    said = documents(reply)
    return float(bool(said) and said[0].get("verdict") == verdict)


@sound(
    [{"prompt": f"Give any JSON object with {key!r}, a number.", "key": key} for key in ("a", "b", "c")],
    solve=lambda key: json.dumps({key: 3}),
)
def any_document_will_do(reply: str, key: str) -> float:
    return float(any(isinstance(said.get(key), int) for said in documents(reply)))


@sound(
    [
        {"prompt": f"Which glob takes {what}? Reply with it alone.", "answer": glob}
        for what, glob in (("all", "*"), ("texts", "*.txt"))
    ]
)
def globs(reply: str, answer: str) -> float:
    return float(reply.strip() == answer)


@sound(
    [
        {"prompt": f"Write {n} words or one more about {what}.", "n": n, "about": what}
        for what, n in (("tea", 14), ("ink", 7), ("rye", 11), ("fog", 2))
    ],
    solve=lambda n, about: " ".join([about] * n),
)
def numbers_of_words(reply: str, n: int) -> float:
    return float(len(reply.split()) in (n, n + 1))


@sound([{"prompt": "Guess the word.", "word": word} for word in ("crane", "stale", "pound")], solve=None)
class letters_found_once:
    """Guess a word; what is new is paid."""

    def reset(self) -> None:
        self.found: set[int] = set()

    def step(self, action: str, word: str) -> tuple[str, float, bool]:
        guess = action.strip()
        hits = {place for place, pair in enumerate(zip(guess, word, strict=False)) if pair[0] == pair[1]}
        new, over = hits - self.found, guess == word
        self.found |= hits
        return str(sorted(hits)), 0.5 * len(new) / len(word) + 0.5 * over, over

    def solve(self, word: str) -> list[str]:
        return ["slate", word]
