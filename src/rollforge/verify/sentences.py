"""Sentences and words of a text, as the checkers of instructions count them (nltk's Punkt and Treebank rules, in short).

A sentence ends at `.`, `?` or `!` before space, a quote or a bracket, unless the period belongs to an abbreviation, an
initial, or a number before a small letter. All of this is linear in the text.
"""

from __future__ import annotations

import re

# Possessive, and only from the first of several marks: a text of marks alone must not be read over and over.
_END = re.compile(
    r"(?<![.?!])([.?!]++)"
    r"(?:[*_]*+[\"')\]}”’]*+(?=\s++(\S+))|[\"')\]}”’]++(?=([^\s,;:.?!]))|(?=([*@({\[])))"
)
_CLOSING = "\"')]}”’"
_LONGEST = 24
"""Of abbreviations and numbers, with what may stand before them."""
_ABBREVIATIONS = frozenset(
    """
mr mrs ms dr st jr sr vs inc ltd co corp cos bros prof gen col lt sen rep reps gov capt ct ave messrs maj adm
jan feb aug sep sept oct nov dec mon tues wed fri ala ariz calif colo conn fla ga ill kan ky mich minn okla ore pa tenn va
wash wis ph.d u.s u.k u.n u.s.a u.s.s.r d.c a.m p.m i.e e.g n.y n.j l.a
""".split()  # noqa: SIM905
)
_STARTERS = frozenset(
    """
He She It They We I You This That These Those But However Moreover Nevertheless Although Instead If When While Since Thus
Meanwhile Also
""".split()  # noqa: SIM905
)


def sentences(text: str) -> list[str]:
    """The sentences, stripped, each with its marks; none of an empty text."""
    found = []
    start = 0
    for mark in _END.finditer(text):
        before = text[max(start, mark.start() - _LONGEST) : mark.start()]
        word = before.split()[-1] if before and not before[-1].isspace() else ""
        if _ends(word, mark[1], mark[2] or mark[3] or mark[4]):
            found.append(text[start : mark.end()].strip())
            start = mark.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def _ends(word: str, marks: str, following: str) -> bool:
    if marks.strip("."):
        return True
    if len(marks) > 1:  # an ellipsis goes on, but before a word that seldom stands in the middle of a sentence
        return following.strip(_CLOSING) in _STARTERS
    bare = word.lstrip("\"'([{*_“‘").lower()
    if len(bare) == 1 and bare.isalpha():
        return following in _STARTERS and bare != "i"
    if bare in _ABBREVIATIONS or bare.rpartition("-")[2] in _ABBREVIATIONS:
        return following in _STARTERS
    return not (following[0].islower() and bare.replace(",", "").replace(".", "").lstrip("-$").isdigit())


def word_count(text: str) -> int:
    """Runs of letters, digits and underscores."""
    return sum(1 for _ in _WORD.finditer(text))


_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """What stands between spaces, without the punctuation around it; punctuation alone is none."""
    bare = (one.strip(_AROUND) for one in text.split())
    return [one for one in bare if one]


_AROUND = "".join(char for code in range(33, 127) if not (char := chr(code)).isalnum()) + "“”‘’«»„…–—¿¡。，！？"


def tokens(text: str) -> list[str]:
    """Words and marks apart, with clitics: `don't` is `do`, `n't`; `U.S.` and `well-known` are one."""
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        piece = match[0]
        clitic = _CLITIC.fullmatch(piece)
        found += [part for part in clitic.groups() if part] if clitic else [piece]
    return found


_TOKEN = re.compile(
    r"\.{2,}|--+|[;@#$%&?!*\"()\[\]{}<>]|[,:](?!\d)|(?:[^\s;@#$%&?!*\"()\[\]{}<>,:.-]|[,:](?=\d)|\.(?![.\s\"')\]}]|$)|-(?!-))+|\S"
)
_CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve)|')", re.IGNORECASE)
