"""Text of models, tools and files, made safe to print: it must not steer the terminal, hide in it, or fill the memory."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

_KEPT = {"\n", "\t"}
_HIDING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: controls, format characters (direction overrides, zero width), surrogates, unassigned, separators."""
# Format characters that ordinary text needs: joiners of emoji and of Indic and Persian script, soft hyphen.
_ORDINARY = {"\u200c", "\u200d", "\u00ad"}
OTHERS = "(others)"


def visible(text: str) -> str:
    """The text with every control and hiding character, line feed and tab apart, written as its escape (`\\x1b`)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def one_line(text: str, length: int) -> str:
    """The beginning of the text on one line, cut with an ellipsis."""
    text = visible(" ".join(text[: 4 * length].split()))
    return text if len(text) <= length else text[: length - 1] + "…"


def capped(name: str, known: Collection[str], most: int) -> str:
    """A name from data among those known, or `OTHERS` once there are `most`."""
    return name if name in known or len(known) < most else OTHERS


def _shown(character: str) -> str:
    if character in _KEPT or character in _ORDINARY or unicodedata.category(character) not in _HIDING:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
