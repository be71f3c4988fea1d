"""The unit at the end of an answer: which words may be one, its short form, and which units say the same.

Units are not converted. A word that is not known ("5 apples") is one too, unless it is a number, says more than a unit does
("squared", "at most") or may be a product of variables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from string import ascii_lowercase

from rollforge.verify.notation import CLOSE, OPEN, SCALES, WORDS, Token


def split_unit(tokens: Sequence[Token]) -> tuple[Sequence[Token], str]:
    """Without the unit at the end; and the unit in its short form, "" for none. An unknown word has a ? before it."""
    for start in range(max(1, len(tokens) - MAX_TOKENS), len(tokens)):
        if _takes_unit(tokens[:start], tokens[start]):
            unit = _unit(tokens[start:])
            if unit is not None:
                return tokens[:start], unit
    return tokens, ""


def same_unit(given: str, expected: str) -> bool:
    """Whether units agree, one of which may be missing. What is said after a known unit ("5 cm long") does not count, and of
    things that are counted one side may say more ("5 red apples")."""
    if not given or not expected:
        return True
    one, other = sorted((_known(given), _known(expected)))
    if one or other:
        return one == other or (one, other) in _LOOSE
    words, others = set(given.split()), set(expected.split())
    return words <= others or others <= words


def says_more(text: str) -> bool:
    """Whether some word in it is a number, or changes what a number beside it says."""
    return any(_CHANGES.fullmatch(word) or word in WORDS for word in _LETTERS.findall(text.casefold()))


MAX_TOKENS = 16
"""A longer end is no unit."""


def _takes_unit(tokens: Sequence[Token], first: Token) -> bool:
    """Whether a unit may follow: words after any operand, letters (which may be variables) after a number, and a single one
    of them not after a sum: `2\\pi r h`, `x^2 + C` and `3 + 5 h` are formulas."""
    if tokens[-1].text in _SIGNS_BEFORE:
        return False
    if first.kind != "word" or len(first.text) > 3:
        return True
    if any(token.kind != "number" and token.text.lower() not in _NUMERIC for token in tokens):
        return False
    return len(first.text) > 1 or not _is_sum(tokens)


def _is_sum(tokens: Sequence[Token]) -> bool:
    depth = 0
    for before, token in pairwise(tokens):
        depth += (before.text in OPEN) - (before.text in CLOSE)
        if depth == 0 and token.text in "+-" and before.text not in _SIGNS_BEFORE:
            return True
    return False


_SIGNS_BEFORE = frozenset("+-*/^_=([{,;<>|")
"""An operand is still to come after these."""
_NUMERIC = frozenset({*"+-*/^(){}[]!", "\\frac", "\\sqrt", "\\pi", "pi", "sqrt", *SCALES})
"""Besides digits, what a number is written with."""


def _unit(tokens: Sequence[Token]) -> str | None:
    """The tokens as a unit, its words apart; None if they are none."""
    before = ""
    prose = any(token.kind == "word" and len(token.text) > 3 for token in tokens)
    for token in tokens:
        if token.kind == "word" and not _is_unit_word(token, before, prose):
            return None
        before = token.text
    text = _JOINED.sub(" ", " ".join(token.text for token in tokens))
    if not _WRITTEN.fullmatch(text) or says_more(_POWERED.sub("", text)):
        return None
    return _short(_PART.findall(text))


def _is_unit_word(token: Token, before: str, prose: bool) -> bool:
    """Of letters outside of `\\text`; `prose` if there is a long word among them."""
    word, low = token.text, token.text.lower()
    if len(before) > 3 and before != "\\degree":
        return True
    if len(word) == 1:
        return word in _ALONE and (before in ("/", "per", "\\degree") or (not before and token.spaced))
    if word in _ATTACHED or low in _ATTACHED:
        return True
    # Other short runs of letters are products of variables: 3ab, 2 xyz, and 3abcd too.
    return token.spaced and (prose or low in _COUNTED or before == "\\degree")


def _short(parts: Sequence[str]) -> str | None:
    words: list[str] = []
    stroke = power = ""
    for index, part in enumerate(parts):
        low = part.casefold()
        if low in ("/", "per"):
            stroke = "/"
        elif part[0] == "^" or low in _POWERS:
            if not words or words[-1][-1].isdigit():
                return None
            words[-1] += "^" + (_POWERS.get(low) or part.strip("^{} "))
        elif low in _BEFORE:
            power = "^" + _BEFORE[low]
        elif part not in ("*", "US"):
            known = "" if low == "in" and _LETTERS.match("".join(parts[index + 1 : index + 2])) else _name(part)
            if not known and not _is_prose(low, first=not words):
                return None
            if known in ("C", "F", "K") and words[-1:] == ["deg"]:
                words.pop()
            words.append((known and stroke + known + power) or "?" + stroke + low.rstrip("s"))
            stroke = power = ""
    return " ".join(words) if words and not stroke and not power else None


def _is_prose(word: str, first: bool) -> bool:
    if len(word) < 3:
        return not first and word in ("a", "an", "at", "by", "in", "of", "on", "us", "up")
    return not _VOWEL.isdisjoint(word) and word not in ascii_lowercase


def _name(word: str) -> str:
    """The short form of a known unit, "" of others."""
    low = word.casefold()
    for name in (word, low, low[:-1] if low.endswith("s") and len(low) > 2 else low):
        if name in _SHORT:
            return _SHORT[name]
        if symbol := _SYMBOL.fullmatch(name):
            return (symbol[1] or "") + symbol[2].replace("l", "L", symbol[2] == "l")
        if full := _FULL.fullmatch(name):
            return _PREFIXES.get(full[1], "") + _BASES[full[2]]
    return ""


def _known(unit: str) -> str:
    """Up to its last known word."""
    words = unit.split()
    while words and words[-1][0] == "?":
        words.pop()
    return " ".join(words)


_LETTERS = re.compile(r"[A-Za-z]+")
_JOINED = re.compile(r"(?<=[A-Za-z])[.-](?=[A-Za-z\s]|$)")
_PART = re.compile(r"\\degree|[A-Za-z][A-Za-z']*+|\^\s*\{?\s*[23]\s*\}?|[/*]")
_WRITTEN = re.compile(rf"\s*(?:(?:{_PART.pattern})\s*+)++")
_POWERS, _BEFORE = {"squared": "2", "cubed": "3"}, {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_POWERED = re.compile(r"(?<=[A-Za-z])\s+(?:squared|cubed)\b|\bsquare(?=\s+[A-Za-z])", re.IGNORECASE)
_VOWEL = frozenset("aeiouy")
_CHANGES = re.compile(
    r"(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fif|nin|twelf|eigh|half|third|quarter"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)t(?:y|ie)|hundred|thousand"
    r"|(?:m|b|tr|quadr)illion|dozen|score|gross|lakh|crore|myriad)(?:s|ths?|eths?)?|halves|halve[ds]?|halved"
    r"|not|no|nor|never|none|neither|or|isn|but|if|except|without|then|else|other|another|instead|either|maybe"
    r"|perhaps|possibly|probably|unknown|wrong|cannot|false|incorrect|least|most|less|fewer|over|under|until|versus"
    r"|minus|plus|negative|opposite|inverse|reciprocal|twice|thrice|double[ds]?|triple[ds]?|divided|multiplied|squared?"
    r"|cubed?|cubes|roots?|powers?|factorial|base|mod|modulo|remainder|percent|exponent|radical|anything|nothing"
    r"|hardly|unlike|doubt|point|binary|octal|hex(?:adecimal)?|choose|modulus|freezing"
)
"""Numbers, and words that say more than a unit does."""
_BASES = {
    name: symbol
    for symbol, *names in (
        *(
            ("m", "meter", "metre"),
            ("g", "gram"),
            ("s", "second", "sec"),
            ("L", "liter", "litre"),
            ("W", "watt"),
            ("V", "volt"),
        ),
        *(("J", "joule"), ("N", "newton"), ("Pa", "pascal"), ("Hz", "hertz"), ("mol", "mole"), ("A", "ampere", "amp")),
        *(("B", "byte"), ("bit", "bit"), ("cal", "calorie")),
    )
    for name in names
}
_PREFIXES = dict(zip("kilo milli centi deci micro nano pico mega giga tera".split(), "kmcdμnpMGT", strict=True))  # noqa: SIM905
_FULL = re.compile(rf"({'|'.join(_PREFIXES)})?({'|'.join(_BASES)})")
_SYMBOL = re.compile(r"([kMGTcdmnpμ])?(m|g|s|L|l|W|V|J|N|Pa|Hz|mol|A|B|bit|eV|cal|Wh|bar)")
_SHORT = {
    alias: names.split()[0].replace("_", " ")
    for names in (
        *("min minute", "h hr hour", "day", "week", "month", "year yr", "deg degree \\degree", "rad radian"),
        *("dollars dollar usd", "cents cent", "euros euro eur", "pounds pound", "£ gbp", "lb", "oz ounce", "ton"),
        *("in inch inche", "ft foot feet", "yd yard", "mile mi", "mile_/h mph", "km_/h kph kmh", "gal gallon", "unit"),
        *("C celsius centigrade", "F fahrenheit", "K kelvin"),
    )
    for alias in names.split()
}
_LOOSE = {("C", "deg"), ("F", "deg"), ("lb", "pounds"), ("pounds", "£")}
_ALONE = frozenset("mghslLCFK")
_ATTACHED = frozenset("cm mm km kg ml min hr hrs deg rad usd in ft mph sec".split())  # noqa: SIM905
_COUNTED = frozenset(
    """
    mol lb lbs oz yd yds mi kms sq kph hz khz mhz ghz kw kj pa kpa
    men day egg box bag car cat dog cow hen pig boy kid way set pen pie job bus hat cup jar can toy bee ant fox owl fan
    key lot pot row ton yen gal won oil tea nut jug cap tie map mug ram ewe
    """.split()  # noqa: SIM905
)
"""Of the words of two or three letters, those that are units, or things to be counted, where a space stands before them."""
