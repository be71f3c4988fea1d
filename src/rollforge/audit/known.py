"""What is known of a task: its reference solution, the answer in it, the fields of the row that hold the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from rollforge.models.base import Solution
from rollforge.records.task import Task
from rollforge.verify.answer import answer_line, boxed

FULL = 0.999
"""Of the way from nothing to the reference's reward (`Known.share`): as good as right."""
HALF = 0.5
Call = tuple[str, Mapping[str, Any]] | str
"""A tool call; in an environment that is played by steps, what is said before the last step."""

_GOLD_NAME = re.compile(
    r"(^|_)(gold|golds|answer|answers|expected|truth|target|targets|label|labels|solution|solutions|correct|reference)(_|$)|^expected|^gold",
    re.IGNORECASE,
)
_NOT_GOLD = re.compile(
    r"mode|type|regex|pattern|index|_id$|format|level|kind|tolerance|metadata|agent|options|choices", re.IGNORECASE
)
_TAGGED = re.compile(r"<answer>([^<]{1,2000})</answer>", re.IGNORECASE)
NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Known:
    task: Task
    reply: str
    """The reference's."""
    calls: tuple[Call, ...]
    """The reference's tool calls, to be made before any reply is judged; none where the reply does not count after them."""
    core: str
    """The answer within the reply."""
    gold: Mapping[str, Any]
    """The fields of the row that hold the answer, with their values."""
    closed: bool
    """The row holds the answer, so that another reply is wrong; else (a text to be written, a program) it may be right."""
    full: float
    low: float
    """The reward of what is no answer."""
    counts: bool = True
    """The reply does; else only what was done with tools."""
    made: tuple[Call, ...] = ()
    """The reference's calls, also where the reply does not count after them."""
    right: bool = True
    """The reply is known to get full marks; else there is none that does."""
    own: bool = True
    """From the environment's reference policy, not put together from the row."""

    def say(self, answer: str) -> str:
        """The reference reply with another answer."""
        if not self.core:
            return answer
        head, found, tail = self.reply.rpartition(self.core)
        return f"{head}{answer}{tail}" if found else answer

    def share(self, reward: float) -> float:
        """Of the way from nothing to full marks."""
        return (reward - self.low) / (self.full - self.low) if self.full > self.low else 0.0

    @property
    def number(self) -> Decimal | None:
        return as_number(self.core)

    @property
    def parts(self) -> list[str]:
        """Of an answer that is a list."""
        return as_list(self.core)

    def with_gold(self, value: str) -> dict[str, Any] | None:
        """Fields that make another answer the right one; None where the row's form does not allow it."""
        fields: dict[str, Any] = {}
        for name, old in self.gold.items():
            if isinstance(old, str):
                fields[name] = old.replace(self.core, value) if self.core and self.core in old else value
            elif isinstance(old, bool) or not isinstance(old, (int, float)):
                return None
            else:
                number = as_number(value)
                if number is None or (isinstance(old, int) and number != int(number)):
                    return None
                fields[name] = int(number) if isinstance(old, int) else float(number)
        return fields or None


def known_of(task: Task, reply: str, calls: Sequence[Call], *, own: bool = True) -> Known:
    """Rewards are filled in once they are known."""
    named = {name: value for name, value in task.fields.items() if is_gold(name)}
    core = _core(reply, named)
    gold: dict[str, Any] = {}
    for name, value in task.fields.items():
        same = any(_same(text, core) or _same(text, reply) for text in _texts(value)) or _is_json(core, value)
        if (same and not _NOT_GOLD.search(name)) or (
            name in named and isinstance(value, (str, int, float)) and not isinstance(value, bool)
        ):
            gold[name] = value
    held = [text for value in gold.values() for text in _texts(value)]
    closed = any(_same(text, core) for text in held) or any(_is_json(core, value) for value in gold.values())
    return Known(task, reply, tuple(calls), core, gold, closed, 1.0, 0.0, made=tuple(calls), own=own)


def is_gold(name: str) -> bool:
    """Whether a field of that name holds the answer."""
    return bool(_GOLD_NAME.search(name)) and not _NOT_GOLD.search(name)


def with_rewards(known: Known, full: float, low: float, right: bool) -> Known:
    return replace(known, full=full, low=low, right=right)


def recorded(solution: Solution, into: list[Call], said: list[str]) -> Solution:
    """The solution, its calls (or steps) and its reply noted down."""
    sent: str | None = None
    while True:
        try:
            call = solution.send(sent)  # type: ignore[arg-type] # None to begin with
        except StopIteration as ended:
            said.append(str(ended.value or ""))
            return said[-1]
        into.append(call)
        sent = yield call


def replay(reply: str, calls: Iterable[Call]) -> Solution:
    """A solution that makes these calls or steps, whatever is answered."""
    for call in calls:  # noqa: UP028 - the output is sent in, which an iterator does not take
        yield call
    return reply


def guesses(task: Task) -> Iterator[str]:
    """Replies that may be right, for an environment without a reference policy."""
    for name, value in task.fields.items():
        if is_gold(name):
            for text in list(_texts(value))[:2]:
                yield from (
                    text,
                    f"\\boxed{{{text}}}",
                    f"Answer: {text}",
                    f"<answer>{text}</answer>",
                    f"The answer is {text}",
                )


def as_number(text: str) -> Decimal | None:
    plain = text.strip().rstrip("%").replace("−", "-")
    if not plain or not NUMBER.fullmatch(plain) or not any(c.isdigit() for c in plain):
        return None
    try:
        return Decimal(plain.replace(",", ""))
    except InvalidOperation:
        return None


def as_list(text: str) -> list[str]:
    stripped = text.strip()
    if stripped[:1] in "[{":
        try:
            value = json.loads(stripped)
        except (ValueError, RecursionError):
            return []
        return [json.dumps(item) for item in value] if isinstance(value, list) and len(value) > 1 else []
    if as_number(stripped) is not None:
        return []
    for separator in ("\n", ";", ","):
        parts = [part.strip() for part in stripped.split(separator)]
        if len(parts) > 1 and all(0 < len(part) <= 40 and len(part.split()) <= 4 for part in parts):
            return parts
    return []


def join_like(text: str, parts: Sequence[str]) -> str:
    """A list written as `text` is."""
    if text.strip().startswith("["):
        return f"[{', '.join(parts)}]"
    return next(f"{s} " if s != "\n" else s for s in ("\n", ";", ",") if s in text.strip()).join(parts)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def holds(text: str, core: str) -> bool:
    """Whether the answer stands in the text, as words."""
    wanted, there = words(core), words(text)
    if not wanted:
        return core.strip() in text if core.strip() else False
    size = len(wanted)
    return any(there[at : at + size] == wanted for at in range(len(there) - size + 1) if there[at] == wanted[0])


def _core(reply: str, named: Mapping[str, Any]) -> str:
    for value in named.values():
        texts = list(_texts(value))
        for text in [*texts, ", ".join(texts)] if isinstance(value, list) else texts:
            # The answer as the row writes it, if it stands in the reply on its own.
            at = reply.rfind(text) if text.strip() else -1
            around = f"{reply[at - 1 : at]}{reply[at + len(text) : at + len(text) + 1]}" if at >= 0 else "x"
            alone = not any(character.isalnum() for character in around)
            if alone and (not isinstance(value, list) or len(texts) == 1 or text not in texts):
                return text
    tagged = _TAGGED.findall(reply)
    return (tagged[-1].strip() if tagged else None) or boxed(reply) or answer_line(reply) or reply.strip()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, (str, int, float)):
        yield str(value)
    elif isinstance(value, list) and value and all(isinstance(item, (str, int, float)) for item in value):
        yield ", ".join(map(str, value))
        yield from map(str, value)
        yield json.dumps(value)


def _is_json(text: str, value: Any) -> bool:
    """Whether the text is this object or list, as JSON."""
    if not isinstance(value, (dict, list)) or not value or text[:1] not in ("{", "["):
        return False
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


def _same(a: str, b: str) -> bool:
    if a.strip() == b.strip():
        return bool(a.strip())
    x, y = as_number(a), as_number(b)
    if x is not None and y is not None:
        return x == y
    return bool(words(a)) and words(a) == words(b)
