"""Whether a reply says the expected answer: the last box, what follows "Answer:", or the last line; numbers by value."""

from __future__ import annotations

import re
from fractions import Fraction


def score(reply: str, expected: object) -> float:
    r"""1.0 if the reply's answer is the expected one, else 0.0.

    The answer is the last `\boxed{...}`, else what follows "answer:" or "answer is" on the last line, else the last line.
    Numbers count by value (1,200.0 is 1200; of a line with words its last number), other texts without regard to case,
    spaces and punctuation at the ends; of a choice (A, B, ...) the letter that the answer begins with.
    """
    wanted = plain(str(expected))
    found, exact = answer(reply)
    if not wanted or not found:
        return 0.0
    value = number(wanted)
    if value is not None:
        numbers = _NUMBER.findall(found)
        given = number(found)
        if given is None and numbers and not exact:
            given = number(numbers[-1])
        return float(given == value)
    if len(wanted) == 1 and wanted.isupper():
        return float(re.match(r"\W{0,3}" + wanted + r"(?!\w)", found) is not None)
    return float(plain(found).casefold() == wanted.casefold())


def answer(reply: str) -> tuple[str, bool]:
    """(the answer of a reply, whether it was boxed); ("", False) if there is none."""
    text = said(reply)
    boxed = last_box(text)
    if boxed is not None or "\\boxed{" in text:
        return boxed or "", True  # a box that is never closed is a reply that was cut
    lines = text.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    named = list(_ANSWER.finditer(last))
    return (last[named[-1].end() :] if named else last).strip(), False


def said(reply: str) -> str:
    """What the policy itself said last: without reasoning, tool results and the template's special tokens. A reply that ends
    in reasoning or in a tool call says nothing."""
    text = _SPECIAL.sub("\n", reply)
    _, closed, rest = text.rpartition("</think>")
    if closed:
        text = rest
    elif "<think>" in text:
        return ""
    _, closed, rest = text.rpartition("</tool_response>")
    if closed:
        text = rest.lstrip().removeprefix("assistant\n")
    return "" if "<tool_call>" in text else text


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`; None if there is none, or it is never closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at].strip()
    return None


def plain(text: str) -> str:
    """Without a box, GSM8K's `####`, mark-up and punctuation around it; spaces are one space."""
    text = text.rpartition("####")[2]
    boxed = last_box(text)
    text = " ".join((text if boxed is None else boxed).split())
    return text.strip("*_`\"'$ ").rstrip(".,;:!").strip("*_`\"'$ ")


def number(text: str) -> Fraction | None:
    r"""The value of a text that is a number: 1,200.50, -3/4, 50%, \frac{1}{2}."""
    text = plain(text).replace("−", "-").replace("\\$", "").replace("\\%", "%")
    text = _FRACTION.sub(r"\1/\2", text)
    if len(text) > 1000 or not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.replace(",", "").removeprefix("+").rstrip("%").partition("/")
    if bottom and not int(bottom):
        return None
    return Fraction(top) / int(bottom or 1)


_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>")
_ANSWER = re.compile(r"\banswer\b[*_ ]{0,4}(?:is|:|=)[*_: ]{0,4}", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?%?|(?<![\w.])[-+−]?\.\d+%?", re.ASCII
)
_FRACTION = re.compile(r"\\[dt]?frac\{([-+]?\d{1,300})\}\{(\d{1,300})\}")
