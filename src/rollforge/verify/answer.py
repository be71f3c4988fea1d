"""Where the answer stands in a reply: the last box, an "Answer:" line, the last number. What it means is for others to say.

All of these read a reply of any length in linear time.
"""

from __future__ import annotations

import re
from collections import deque

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# "Answer: 5", "**Answer**: 5", "the final answer is 5", "Answer = 5"; a plural announces a list. A heading needs no colon.
_ANSWER = re.compile(
    r"\banswers?\b[*_ \t]{0,8}(?:is|are|:|=|：)[:：]?[*_]{0,3}[ \t:：]{0,8}"
    r"|^[#*_ \t]{1,12}(?:(?:the|my|final)[ \t]+){0,2}answers?[*_ \t]{0,8}$",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCK = re.compile(
    r"(?:\$\$|\\\[)((?:(?!\$\$|\\\]).)*+)(?:\$\$|\\\])[ \t.,]*(?=\n|$)|```\w*\n((?:(?!```).)*+)```[ \t]*(?=\n|$)", re.DOTALL
)
"""A formula or a fence that has its lines for itself."""
_NUMBER = re.compile(
    r"(?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?%?|(?<![\w.])[-−+]?\.\d+%?", re.ASCII
)


_HASHES = re.compile(r"#{4,}+\s*+([^\n]*)")


def has_box(text: str) -> bool:
    return _BOX.search(text) is not None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` (or `\fbox`), stripped; None if there is none, or its brace is never closed.

    The last one, because boxes before it are steps; an unclosed last box is a reply that was cut, not a reason to go back.
    """
    last = last_match(_BOX, text)
    if last is None:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, last.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[last.end() : brace.start()].strip()
    return None


def answer_line(text: str) -> str | None:
    """What follows the last "Answer:" or "the answer is" on its line, or on the next if it ends there; a displayed formula
    without its delimiters."""
    last = last_match(_ANSWER, text)
    if last is None:
        return None
    rest = text[last.end() :].lstrip()
    block = _BLOCK.match(rest)
    line = " ".join((block[1] or block[2] or "").split()) if block else rest.partition("\n")[0].strip()
    return line or None


def hashed_lines(text: str, most: int = 20) -> list[tuple[str, bool]]:
    """What follows each of the last `####`, on its line or on the next, the last one first; and whether it ends the text."""
    found = deque(_HASHES.finditer(text), maxlen=most)
    return [(match[1].strip(), not text[match.end() :].strip()) for match in reversed(found)]


def last_number(text: str) -> str | None:
    """The last number written in digits, with its sign, separators, denominator and percent sign."""
    last = last_match(_NUMBER, text)
    return last[0] if last else None


def after_thinking(text: str) -> str:
    """The reply without a `<think>` block that a server left in it; nothing of a reply that was cut while thinking."""
    _, closed, rest = text.rpartition("</think>")
    if closed:
        return rest
    return "" if "<think>" in text else text


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
