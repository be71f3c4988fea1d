r"""Multiple choice: which letter a reply chose, in the grading modes of NeMo Gym's `mcqa`, and whether it is the right one.

| mode | where the letter stands |
|---|---|
| `strict_single_letter_boxed` | the last `\boxed{}`: one capital letter and no other, or one before `:`, `)`, `.` or `-` |
| `lenient_boxed` | as strict; else the text of exactly one option in the last box |
| `lenient_answer_colon` | the first "Answer:" line: a letter, or the text of an option |
| `lenient_answer_colon_md` | the last "Answer:" line, Markdown or not, with a usable letter; several letters are none |

Three rules differ from theirs on purpose: an option's text counts in a box as a whole phrase only (5 is not in 15), and the
box that is exactly one option's text is that option even where it holds others; "Answer: not B" chooses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from rollforge.errors import VerifierFault
from rollforge.verify.answer import boxed

Mode = Literal["strict_single_letter_boxed", "lenient_boxed", "lenient_answer_colon", "lenient_answer_colon_md"]
Options = Sequence[Mapping[str, str | None]] | Mapping[str, str | None]


def choice(
    reply: str,
    expected: str,
    options: Options | None = None,
    mode: str = "strict_single_letter_boxed",
    regex: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """1 if the reply chose the expected letter, else 0; with the letter it chose.

    A `regex` (or several, tried in order) goes before the mode: the first group of its last match, letter case ignored, is
    a letter or the text of an option. Where none of them gives a letter, or one is no regular expression, the mode decides.
    Such expressions come from data and may take for ever: call this where it can be killed.

    Args:
        options: `[{"A": "text"}, ...]` or `{"A": "text", ...}`; options without text do not exist. None: any letter.

    Raises `VerifierFault` for a row that no reply can answer: no expected letter, one that is no option, an unknown mode.
    """
    texts = _texts(options)
    if not isinstance(expected, str | None):
        raise VerifierFault(f"expected_answer is {expected!r:.80}, not a letter")
    gold = (expected or "").strip().upper()
    if not gold:
        raise VerifierFault("the row has no expected_answer")
    if mode not in get_args(Mode):
        raise VerifierFault(f"grading_mode is {mode!r}; known: {', '.join(get_args(Mode))}")
    if texts and gold not in texts and not regex:
        raise VerifierFault(f"expected_answer is {expected!r}, but the options are {', '.join(texts)}")
    text = reply.strip()
    letter = _by_regex(text, [regex] if isinstance(regex, str) else regex or (), texts) or _by_mode(text, mode, texts)
    return {"reward": float(letter == gold), "extracted_answer": letter}


def _texts(options: Options | None) -> dict[str, str]:
    """Letter to text."""
    entries = [options] if isinstance(options, Mapping) else options or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise VerifierFault(f"options are {options!r:.80}, not letters with their texts: [{{'A': 'text'}}, ...]")
    pairs = (pair for entry in entries for pair in entry.items())
    return {k.upper(): str(v) for k, v in pairs if len(k) == 1 and k.isalpha() and v is not None}


def _allowed(letter: str, texts: Mapping[str, str]) -> str | None:
    letter = letter.upper()
    return letter if (letter in texts if texts else letter.isascii() and letter.isalpha()) else None


def _by_mode(reply: str, mode: str, texts: Mapping[str, str]) -> str | None:
    if mode == "lenient_answer_colon":
        return _answer_colon(reply, texts)
    if mode == "lenient_answer_colon_md":
        return _answer_colon_markdown(reply, texts)
    box = boxed(reply)
    if box is None:
        return None
    content = _unwrapped(box)
    letter = _letter_in_box(content, texts)
    return letter or (_option_in_box(content, texts) if mode == "lenient_boxed" else None)


_ONLY_LETTER = re.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*", re.DOTALL)
_LABEL = re.compile(r"([A-Z])\s*[:).\-]")


def _letter_in_box(content: str, texts: Mapping[str, str]) -> str | None:
    found = _ONLY_LETTER.fullmatch(content) or _LABEL.match(content)
    return _allowed(found[1], texts) if found else None


def _option_in_box(content: str, texts: Mapping[str, str]) -> str | None:
    inside = _flat(content)
    if not inside:
        return None
    exact = [letter for letter, text in texts.items() if _flat(text) == inside]
    if len(exact) == 1:
        return exact[0]
    phrases = ((letter, _flat(text)) for letter, text in texts.items())
    found = [letter for letter, text in phrases if text and re.search(rf"(?<![\w.-]){re.escape(text)}(?!\w|\.\d)", inside)]
    return found[0] if len(found) == 1 else None


_COLON = re.compile(r"answer\s*:\s*(.+)", re.IGNORECASE)


def _answer_colon(reply: str, texts: Mapping[str, str]) -> str | None:
    found = _COLON.search(reply)
    if found is None:
        return None
    content = _unwrapped(found[1])
    letter = _allowed(content, texts) if len(content) == 1 else None
    return letter or next((letter for letter, text in texts.items() if _flat(text) == _flat(content)), None)


_COLON_MARKDOWN = re.compile(r"answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)", re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|never|neither|nor|isn't|cannot|can't|except)\b", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
_BETWEEN = re.compile(r"\s*[/|&,;]\s*|\s+(?:or|and)\s+|\s+", re.IGNORECASE)
_LEADING = re.compile(r"[A-Za-z](?![A-Za-z0-9])")
_CAPITAL = re.compile(r"\b[A-Z]\b")


def _answer_colon_markdown(reply: str, texts: Mapping[str, str]) -> str | None:
    for content in reversed(_COLON_MARKDOWN.findall(reply)):
        letter = _letter_of(_latin(content).strip("*_` \t\n\r.,;:"), texts)
        if letter:
            return letter
    return None


def _letter_of(content: str, texts: Mapping[str, str]) -> str | None:
    """The letter that a line after "Answer:" chooses; None if it lists several, or says which one it is not."""
    letters = [m for m in _LETTER.finditer(content) if _allowed(m[0], texts)]
    for left, right in pairwise(letters):
        if left[0].upper() != right[0].upper() and _BETWEEN.fullmatch(content, left.end(), right.start()):
            return None
    leading = _LEADING.match(content)
    if leading:
        return _allowed(leading[0], texts)
    capitals = list(_CAPITAL.finditer(content))
    return _allowed(capitals[-1][0], texts) if capitals and not _NOT.search(content, 0, capitals[-1].start()) else None


def _by_regex(reply: str, patterns: Sequence[str], texts: Mapping[str, str]) -> str | None:
    for pattern in patterns:
        try:
            found = list(re.finditer(pattern, reply, re.IGNORECASE))
        except re.error:
            continue
        if not found:
            continue
        groups = [group for group in found[-1].groups() if group] or [found[-1][0]]
        content = _latin(groups[0].strip())
        if len(content) == 1 and content.isalpha():
            return content.upper()  # as theirs: the expression knows better than the options, which may be incomplete
        named = next((letter for letter, text in texts.items() if _flat(text) == _flat(content)), None)
        if named:
            return named
    return None


def _unwrapped(content: str) -> str:
    r"""Without the `\text{}` around it."""
    content = content.strip()
    for _ in range(8):
        if not (content.startswith("\\text{") and content.endswith("}")):
            break
        content = content[6:-1].strip()
    return content


def _flat(text: str) -> str:
    return " ".join(text.lower().split())


# The option letters of translated data sets: Arabic, Bengali, full-width.
_LATIN = {
    ord(c): f" {letter}" for letters in ("أبجد", "অবডঢ", "ＡＢＣＤ") for c, letter in zip(letters, "ABCD", strict=True)
}


def _latin(text: str) -> str:
    return text.translate(_LATIN).strip()
