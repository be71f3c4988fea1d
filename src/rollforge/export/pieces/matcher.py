"""Whether a reply says the expected answer: the last box, what follows "Answer:", or the last line; numbers by value.

Where the answer stands is as in `rollforge.verify.answer`. One answer is read out of a reply, whatever is expected."""

from __future__ import annotations

import re
from fractions import Fraction


def score(reply: str, expected: object) -> float:
    r"""1.0 if the reply's answer is the expected one, else 0.0.

    The answer is the last `\boxed{...}`, else what follows the last "answer:" or "answer is", else the last line, or all of
    the reply. Numbers count by value (1,200.0 and 1.2e3 are 1200; outside of a box the answer's last number, or else the
    reply's), other texts without regard to case, spaces and punctuation at the ends; of a choice (A, B, ...) the letter that
    the answer begins with.
    """
    wanted = plain(str(expected))
    found, exact = answer(reply)
    if not wanted or not found:
        return 0.0
    if wanted.casefold() in (plain(found).casefold(), " ".join(said(reply).split()).casefold()):
        return 1.0
    value = number(wanted)
    if value is not None:
        given = number(found)
        if given is None and not exact:
            numbers = _NUMBER.findall(found) or _NUMBER.findall(said(reply))
            given = number(numbers[-1]) if numbers else None
        return float(given == value)
    return float(len(wanted) == 1 and wanted.isupper() and re.match(r"\W{0,3}" + wanted + r"(?!\w)", found) is not None)


def answer(reply: str) -> tuple[str, bool]:
    """(the answer of a reply, whether it was boxed); ("", False) if there is none."""
    text = said(reply)
    boxed = last_box(text)
    if boxed is not None or _BOX.search(text):
        return boxed or "", True  # a box that is never closed is a reply that was cut
    named = list(_ANSWER.finditer(text))
    rest = text[named[-1].end() :].strip() if named else ""
    return (rest.partition("\n")[0] if rest else text.strip().rpartition("\n")[2]).strip(), False


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
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start, depth = boxes[-1].end(), 1
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
    r"""The value of a text that is a number: 1,200.50, -3/4, 1e3, 50%, \frac{1}{2}."""
    text = plain(text).replace("−", "-").replace("\\$", "").replace("\\%", "%")
    text = _FRACTION.sub(r"\1/\2", text)
    if len(text) > 1000 or not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.replace(",", "").removeprefix("+").rstrip("%").partition("/")
    if bottom and not int(bottom):
        return None
    return Fraction(top) / int(bottom or 1)


_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{")
# A heading needs no colon.
_ANSWER = re.compile(
    r"\banswers?\b[*_ \t]{0,4}(?:is|are|:|=)[*_: \t]{0,4}|^[#*_ \t]{1,8}(?:final )?answer[*_ \t]{0,4}$",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\w)|/\d+)?%?"
    r"|(?<![\w.])[-+−]?\.\d+%?",
    re.ASCII,
)
_FRACTION = re.compile(r"\\[dt]?frac\{([-+]?\d{1,300})\}\{(\d{1,300})\}")
