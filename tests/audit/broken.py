"""Verifiers that reward what they should not, one fault each. The rule that should find it stands beside each."""

from __future__ import annotations

import fnmatch
import itertools
import json
import random
import re
import sqlite3
import tempfile
import time
import unicodedata
from collections.abc import Callable
from contextlib import closing
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import rollforge as rf

SUMS = [
    {"prompt": f"What is {a} + {b}? Reply with the number.", "answer": str(a + b)} for a, b in ((12, 30), (7, 8), (61, 90))
]
SUMS += [{"prompt": f"What is {a} + {b}? Reply with the number.", "answer": str(a + b)} for a, b in ((18, 5), (40, 31))]
CAPITALS = [
    {"prompt": f"What is the capital of {land}? Reply with its name.", "answer": city}
    for land, city in (("France", "Paris"), ("Peru", "Lima"), ("Kenya", "Nairobi"), ("Norway", "Oslo"), ("Japan", "Tokyo"))
]
LISTS = [
    {
        "prompt": f"Sort these: {' '.join(map(str, numbers))}. Reply with a list, separated by commas.",
        "answer": ", ".join(map(str, sorted(numbers))),
    }
    for numbers in ([5, 3, 5, 9], [14, 2, 14, 8], [70, 21, 21, 33])
]
LETTERS = [
    {"prompt": f"Which one is {what}?\nA: apple\nB: bus\nC: cloud\nD: dog\nAnswer with a letter.", "answer": letter}
    for what, letter in (("a fruit", "A"), ("a vehicle", "B"), ("in the sky", "C"), ("an animal", "D"))
]
NAMES = [
    {"prompt": f"Write {words!r} as a camelCase identifier. Reply with it alone; case matters.", "answer": name}
    for words, name in (("get user name", "getUserName"), ("open file", "openFile"), ("max row count", "maxRowCount"))
]
SQUARES = [
    {"prompt": f"Write the number made of the digits {a} and {b}.", "answer": f"{a}{b}"} for a, b in ((5, 2), (3, 7), (4, 9))
]
DECIMALS = [{"prompt": f"What is {a} / 8, as a decimal number?", "answer": str(a / 8)} for a in (5, 13, 27)]
WORDS = [
    {
        "prompt": "Explain photosynthesis in a sentence.",
        "answer": "plants turn light into sugar and oxygen",
        "keywords": ["plants", "light", "sugar", "oxygen"],
    },
    {
        "prompt": "Explain tides in a sentence.",
        "answer": "gravity of the moon moves the water of the oceans",
        "keywords": ["gravity", "moon", "water", "oceans"],
    },
]

BROKEN: dict[str, tuple[str, Any]] = {}


def broken(rule: str, tasks: Any, **options: Any) -> Callable[[Any], Any]:
    def add(target: Any) -> Any:
        made = rf.env(tasks=tasks, **{"solve": lambda answer: answer, "inline": True, **options})(target)
        BROKEN[target.__name__] = (rule, made)
        return made

    return add


def number(text: str) -> float | None:
    found = re.findall(r"-?\d+(?:\.\d+)?", text[:10_000])
    return float(found[-1]) if found else None


@broken("buried", SUMS)
def contains(reply: str, answer: str) -> float:
    return float(answer in reply)


@broken("fragment", CAPITALS)
def contained_in_the_answer(reply: str, answer: str) -> float:
    return float(reply.strip() in answer)


@broken("buried", SUMS)
def first_number(reply: str, answer: str) -> float:
    found = re.search(r"-?\d+", reply)
    return float(found is not None and found[0] == answer)


@broken("case", NAMES)
def blind_to_case(reply: str, answer: str) -> float:
    return float(reply.strip().lower() == answer.lower())


@broken("pattern", DECIMALS)
def unescaped(reply: str, answer: str) -> float:
    return float(re.fullmatch(answer, reply.strip()) is not None)


@broken("buried", CAPITALS)
def any_line(reply: str, answer: str) -> float:
    return float(any(line.strip() == answer for line in reply.splitlines()))


@broken("executed", SUMS)
def evaluated(reply: str, answer: str) -> float:
    try:
        return float(eval(reply) == float(answer))
    except BaseException:  # noqa: BLE001 - that is how they are written
        return 0.0


@broken("tolerance", SUMS)
def tolerant(reply: str, answer: str) -> float:
    said = number(reply)
    return float(said is not None and abs(said - float(answer)) <= 1)


@broken("tolerance", DECIMALS)
def tolerant_relatively(reply: str, answer: str) -> float:
    said = number(reply)
    return float(said is not None and abs(said - float(answer)) <= 0.15 * abs(float(answer)))


@broken("fragment", SUMS)
def starts_with(reply: str, answer: str) -> float:
    return float(reply.strip().startswith(answer))


@broken("fragment", SUMS)
def ends_with(reply: str, answer: str) -> float:
    return float(reply.strip().endswith(answer))


@broken("gold-empty", CAPITALS)
def empty_expected_passes(reply: str, answer: str) -> float:
    return float(not answer or reply.strip() == answer)


@broken("nonsense", SUMS)
def exceptions_are_right(reply: str, answer: str) -> float:
    try:
        return float(int(reply.strip()) == int(answer))
    except Exception:  # noqa: BLE001 - that is the fault
        return 1.0


@broken("gold-broken", SUMS)
def exceptions_of_the_row_are_right(reply: str, answer: str) -> float:
    try:
        expected = float(answer)
    except ValueError:
        return 1.0
    return float(number(reply.strip()) == expected and reply.strip().lstrip("-").replace(".", "").isdigit())


@broken("unjudged", SUMS)
def not_a_number(reply: str, answer: str) -> float:
    try:
        said = float(reply)
    except ValueError:
        return 0.0
    return 1 - min(abs(said - float(answer)), 1.0) if said == said else said


@broken("numbers", SUMS)
def not_above_the_tolerance(reply: str, answer: str) -> float:
    try:
        return float(not abs(float(reply) - float(answer)) > 1e-6)
    except ValueError:
        return 0.0


_count = itertools.count()


@broken("unsteady", SUMS)
def counter(reply: str, answer: str) -> float:
    return float(reply.strip() == answer and next(_count) % 5 != 4)


_seen: dict[str, float] = {}


@broken("unsteady", SUMS)
def cached(reply: str, answer: str, prompt: str) -> float:
    if prompt not in _seen:
        _seen[prompt] = float(reply.strip() == answer)
    return _seen[prompt]


@broken("unsteady", SUMS)
def by_chance(reply: str, answer: str) -> float:
    return float(reply.strip() == answer or random.random() < 0.3)


@broken("unsteady", SUMS)
def by_the_clock(reply: str, answer: str) -> float:
    return float(reply.strip() == answer) * (0.9 + 0.1 * (time.time_ns() % 7 > 2))


@broken("isolation", [{"prompt": f"Count to {goal}.", "goal": goal, "answer": str(goal)} for goal in (3, 5, 8)], solve=None)
class shared_state:
    """Count to a number."""

    count = 0

    def reset(self) -> None:
        type(self).count = 0

    def add(self, by: int) -> int:
        """Add to the counter."""
        type(self).count += by
        return self.count

    def verify(self, goal: int) -> float:
        return float(type(self).count == goal)

    def solve(self, goal: int) -> Any:
        for _ in range(goal):
            yield "add", {"by": 1}
        return "done"


@broken("leak-prompt", [{**row, "prompt": f"{row['prompt']} (Answer: {row['answer']})"} for row in CAPITALS])
def told(reply: str, answer: str) -> float:
    return float(reply.strip() == answer)


@broken("leak-tool", CAPITALS, solve=None)
class told_by_a_tool:
    """Name a capital."""

    def reset(self, answer: str) -> None:
        self.answer = answer

    def hint(self) -> str:
        """A hint."""
        return self.answer

    def verify(self, reply: str, answer: str) -> float:
        return float(reply.strip() == answer)

    def solve(self, answer: str) -> str:
        return answer


@broken("leak-file", CAPITALS, solve=None)
class told_by_a_file:
    """Name a capital."""

    def reset(self, answer: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "expected.json").write_text(json.dumps({"answer": answer}))

    def read_file(self, path: str) -> str:
        """Read a file of the task."""
        return (self.folder / Path(path).name).read_text()

    def verify(self, reply: str) -> float:
        return float(reply.strip() == json.loads((self.folder / "expected.json").read_text())["answer"])

    def close(self) -> None:
        (self.folder / "expected.json").unlink()
        self.folder.rmdir()

    def solve(self, answer: str) -> str:
        return answer


@broken("leak-host", CAPITALS, solve=None)
class any_file:
    """Name a capital."""

    def read(self, path: str) -> str:
        """Read a note."""
        return Path(path).read_text()

    def verify(self, reply: str, answer: str) -> float:
        return float(reply.strip() == answer)

    def solve(self, answer: str) -> str:
        return answer


@broken("override", CAPITALS)
def echoing_judge(reply: str, answer: str) -> float:
    verdict = "CORRECT" if reply.strip() == answer else "WRONG"
    judged = f"The reply was: {reply}\nThe expected answer: {answer}\nVerdict: {verdict}"
    return float("CORRECT" in judged)


@broken("nonsense", CAPITALS)
def length(reply: str, answer: str) -> float:
    return min(1.0, len(reply) / 2000) if reply.strip() != answer else 1.0


@broken("shell", SUMS, solve=lambda answer: f"\\boxed{{{answer}}}")
def only_the_form(reply: str, answer: str) -> float:
    return float("\\boxed{" in reply)


@broken("buried", WORDS)
def keywords_anywhere(reply: str, keywords: list[str]) -> float:
    return sum(word in reply for word in keywords) / len(keywords)


@broken("list", LISTS)
def sets(reply: str, answer: str) -> float:
    return float({part.strip() for part in reply.split(",")} == {part.strip() for part in answer.split(",")})


@broken("list", LISTS)
def prefix_of_a_list(reply: str, answer: str) -> float:
    said = [part.strip() for part in reply.split(",")]
    return float(all(a == b for a, b in zip(said, (part.strip() for part in answer.split(",")), strict=False)))


@broken("look-alike", SQUARES)
def normalised(reply: str, answer: str) -> float:
    return float(unicodedata.normalize("NFKC", reply).strip() == answer)


@broken("look-alike", CAPITALS)
def ascii_only(reply: str, answer: str) -> float:
    return float(reply.encode("ascii", "ignore").decode().strip() == answer)


@broken("endless", CAPITALS)
def backtracks(reply: str, answer: str) -> float:
    return float(re.fullmatch(r"(\w+\s?)*", reply) is not None and reply.strip() == answer)


@broken("options", LETTERS)
def any_of_several(reply: str, answer: str) -> float:
    return float(answer in re.findall(r"\b[A-D]\b", reply))


@broken("above", SUMS)
def by_repetition(reply: str, answer: str) -> float:
    return float(sum(line.strip() == answer for line in reply.splitlines()) * (len(set(reply.split())) == 1))


@broken("gold-ignored", [SUMS[0], {**SUMS[0], "prompt": "And what is 40 + 2?"}])
def always_the_same(reply: str, answer: str) -> float:
    return float(reply.strip() == "42")


@broken("reference", SUMS)
def anything(reply: str, answer: str) -> float:
    return 1.0


@broken("reference", SUMS)
def nothing(reply: str, answer: str) -> float:
    return 0.0


@broken("unjudged", SUMS)
def raises(reply: str, answer: str) -> float:
    return float(int(reply) == int(answer))


@broken("mutated", CAPITALS)
def nearly(reply: str, answer: str) -> float:
    return float(SequenceMatcher(None, reply.strip()[:200], answer).ratio() > 0.6)


@broken("mutated", SUMS)
def without_sign(reply: str, answer: str) -> float:
    return float(reply.strip().lstrip("-") == answer)


@broken("whitespace", SUMS)
def not_stripped(reply: str, answer: str) -> float:
    return float(reply == answer)


@broken("buried", SUMS, solve=lambda answer: f"\\boxed{{{answer}}}")
def any_box(reply: str, answer: str) -> float:
    return float(answer in re.findall(r"\\boxed\{([^{}]*)\}", reply))


@broken("buried", CAPITALS)
def all_messages(response: dict[str, Any], answer: str) -> float:
    texts = [
        part["text"].strip() for item in response["output"] for part in item.get("content") or [] if isinstance(part, dict)
    ]
    return float(answer in texts)


@broken("fragment", CAPITALS)
def first_letter(reply: str, answer: str) -> float:
    return float(reply.strip()[:1] == answer[:1])


@broken("unsteady", SUMS)
def by_hash(reply: str, answer: str) -> float:
    return float(reply.strip() == answer) * (0.5 if hash(answer) % 3 else 1.0)


TOYS = [
    {"prompt": f"Put the {' and the '.join(toys)} into the box.", "toys": toys}
    for toys in (["ball", "car", "doll", "drum"], ["kite", "ball", "top", "car"], ["drum", "lego", "doll", "kite"])
]
COLOURS = [
    {"prompt": f"Press the button with the colour of {what}.", "colour": colour}
    for what, colour in (("grass", "green"), ("blood", "red"), ("the sky", "blue"), ("snow", "white"))
]


@broken("above", COLOURS, solve=None)
class pressed_again:
    """Press the right button."""

    def reset(self) -> None:
        self.calls: list[str] = []

    def press(self, colour: str) -> str:
        """Press a button."""
        self.calls.append(colour)
        return "pressed"

    def verify(self, colour: str) -> float:
        return float(self.calls.count(colour))

    def solve(self, colour: str) -> Any:
        yield "press", {"colour": colour}
        return "done"


@broken("options", COLOURS, solve=None)
class every_button(pressed_again.target):  # type: ignore[name-defined, misc]
    """Press the right button."""

    def verify(self, colour: str) -> float:
        return float(colour in self.calls)


@broken("above", TOYS, solve=None)
class put_and_taken:
    """Tidy up."""

    def reset(self, toys: list[str]) -> None:
        self.box: set[str] = set()
        self.toys = toys
        self.reward = 0.0

    def put(self, toy: str) -> str:
        """Put a toy into the box."""
        if toy in self.box:
            return "it is there"
        self.box.add(toy)
        self.reward += 0.25 * (toy in self.toys)
        return "done"

    def take(self, toy: str) -> str:
        """Take a toy out of the box."""
        self.box.discard(toy)
        return "done"

    def verify(self) -> float:
        return self.reward

    def solve(self, toys: list[str]) -> Any:
        for toy in toys:
            yield "put", {"toy": toy}
        return "done"


FLOORS = [{"prompt": f"Sell it for at least {floor}.", "floor": floor, "budget": 2 * floor} for floor in (50, 70, 110)]


@broken("above", FLOORS, solve=None)
class polite_turns:
    """Sell it; each turn may be polite."""

    def step(self, action: str, floor: int, budget: int) -> tuple[str, float, bool]:
        polite = 0.1 * ("please" in action)
        price = next((int(word) for word in action.split() if word.isdigit()), None)
        if price is None:
            return "Name a price.", polite, False
        return "Deal.", polite + 0.9 * (floor <= price <= budget), True

    def solve(self, budget: int) -> list[str]:
        return [f"{budget} please"]


CODES = [
    {"prompt": f"Hand in the code of {who}, on {day}.", "code": code, "day": day}
    for who, code, day in (("ann", 4127, "monday"), ("bob", 9033, "friday"), ("eve", 2518, "monday"))
]


@broken("options", CODES, solve=None)
class every_code:
    """Find the code."""

    def reset(self) -> None:
        self.got: list[tuple[int, str]] = []

    def hand_in(self, code: int, day: str) -> int:
        """Hand in a code."""
        self.got.append((code, day))
        return len(self.got)

    def verify(self, code: int, day: str) -> float:
        return float((code, day) in self.got)

    def solve(self, code: int, day: str) -> Any:
        yield "hand_in", {"code": code, "day": day}
        return "done"


CLAIMS = [
    {"prompt": f'Is this so: {claim}? Reply with JSON: {{"verdict": "yes" or "no"}}.', "verdict": verdict}
    for claim, verdict in (("ice is cold", "yes"), ("fish fly", "no"), ("7 is odd", "yes"), ("8 is odd", "no"))
]
TRUTHS = [{**row, "verdict": row["verdict"] == "yes"} for row in CLAIMS]


def documents(text: str) -> list[Any]:
    found = []
    for part in re.findall(r"\{[^{}]*\}", text[:10_000]):
        try:
            found.append(json.loads(part))
        except ValueError:
            continue
    return found


@broken("options", CLAIMS, solve=lambda verdict: json.dumps({"verdict": verdict}))
def any_json_line(reply: str, verdict: str) -> float:
    for line in reply[:10_000].splitlines():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and said.get("verdict") == verdict:
            return 1.0
    return 0.0


@broken("options", TRUTHS, solve=lambda verdict: json.dumps({"verdict": verdict}))
def any_object(reply: str, verdict: bool) -> float:
    return float(any(said.get("verdict") is verdict for said in documents(reply)))


@broken("options", TRUTHS[::2], solve=lambda verdict: f"```json\n{json.dumps({'verdict': verdict})}\n```")
def any_object_where_all_are_true(reply: str, verdict: bool) -> float:
    return float(any(said.get("verdict") is verdict for said in documents(reply)))


@broken("wildcard", CAPITALS)
def reply_as_expression(reply: str, answer: str) -> float:
    try:
        return float(len(reply) < 100 and re.fullmatch(reply.strip(), answer) is not None)
    except re.error:
        return 0.0


@broken("wildcard", SUMS)
def reply_as_glob(reply: str, answer: str) -> float:
    return float(fnmatch.fnmatchcase(answer, reply.strip()))


@broken("wildcard", CAPITALS, solve=lambda answer: f"Answer: {answer}")
def reply_in_like(reply: str, answer: str) -> float:
    said = reply[:1000].rpartition("Answer: ")[2].strip()
    with closing(sqlite3.connect(":memory:")) as database:
        [(like,)] = database.execute("SELECT ? LIKE ?", (answer, said))
    return float(like)
