"""How answers are written: one spelling for the many of LaTeX and Unicode, the tokens of that, and the unit at its end."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from rollforge.verify.answer import boxed, has_box
from rollforge.verify.exact import Unreadable


class Token(NamedTuple):
    kind: str
    """number, command (with backslash), word (letters), text (of `\\text{...}`), or mark."""
    text: str
    spaced: bool
    """Whether a space stands before it."""


def tidy(text: str) -> str:
    """One spelling for what LaTeX and Unicode write in many ways; layout removed."""
    text = boxed(text) or "" if has_box(text) else text
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda m: "^{" + m[0].translate(_DIGITS) + "}", text).translate(_SIGNS)
        text = unicodedata.normalize("NFKC", text)
    text = text.strip().strip("*_`").strip()
    if not _LATEX_SIGNS.isdisjoint(text):
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    for written, command in (("**", "^"), ("<=", "\\le "), (">=", "\\ge "), ("!=", "\\ne ")):
        text = text.replace(written, command)
    return text.rstrip(" .,;:")


_LATEX_SIGNS = frozenset("\\${~")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "√": "\\sqrt ", "π": "\\pi ", "∞": "\\infty "}
    | {"∪": "\\cup ", "≈": "\\approx ", "±": "\\pm ", "∅": "\\emptyset ", "°": "\\degree ", "∈": "\\in "}
    | {"≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\ne "}
    | {"ℝ": "\\mathbb{R}", "∖": "\\setminus "}
    | {"⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil "}
    | {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "€": "\\euro ", "£": "\\pound "}
)
UPRIGHT = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|emph|operatorname)\s*"
_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # A determinant is no matrix, but a number.
        (r"\\begin\s*\{vmatrix\}", r"\\det \\matrix "),
        (r"\\end\s*\{vmatrix\}", r"\\endmatrix "),
        (r"\\begin\s*\{(?:[pbB]|small)?(?:matrix|array)\}(?:\s*\{[clr| ]*\})?", r"\\matrix "),
        (r"\\end\s*\{(?:[pbB]|small)?(?:matrix|array)\}", r"\\endmatrix "),
        (r"\\\\", " ; "),
        (UPRIGHT + r"\{(\s*\\\$[^A-Za-z{}\\]*)\}", r" \1 "),
        (r"\\\$", r"\\dollar "),
        (r"\$|\\[()]|\\[\[\]]", " "),
        (r"(?<=[0-9])(?:\{,\}|\\,|,?\\!|\\!,)(?=[0-9]{3}(?![0-9]))", ","),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle)(?![A-Za-z])", ""),
        (r"\\(?:[,;:! ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\{\s*([0-9A-Za-z]+)\s*\\choose\s*([0-9A-Za-z]+)\s*\}", r"\\binom{\1}{\2}"),
        (r"\\mathbb\s+R(?![A-Za-z])", r"\\mathbb{R}"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
        (r"\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
        (r"\\neq(?![A-Za-z])", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\[lr]?vert(?![A-Za-z])", "|"),
        (r"\\%", "%"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))", r"\\degree "),
        # What is set upright without being a word is meant as it stands: \mathbf{5}, \text{B}.
        (UPRIGHT + r"\{([^A-Za-z{}\\]*[A-Za-z]?[^A-Za-z{}\\]*)\}", r" \1 "),
    )
]
_TOKEN = re.compile(
    rf"(?P<text>{UPRIGHT}\{{([^{{}}]*)\}})"
    r"|(?P<number>[0-9]*\.[0-9]*\\overline\{[0-9]+\}|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<command>\\[A-Za-z]+|\\[{}])"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<mark>[-+*/^_=(){}\[\],;!%<>|:'&])"
    r"|(?P<space>\s+)"
)
_SEPARATED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])(?:\.[0-9]+)?")
OPEN, CLOSE = {"(", "[", "{", "\\{", "\\matrix"}, {")", "]", "}", "\\}", "\\endmatrix"}


def tokenize(text: str, separators: bool) -> list[Token]:
    tokens: list[Token] = []
    at = depth = 0
    spaced = False
    while at < len(text):
        # Between brackets a comma separates items, so 1,234 is one number only outside of them.
        # A subscript is one token: log_2 512.
        grouped = separators and depth == 0 and text[at].isdigit() and not (tokens and tokens[-1].text == "_")
        long = _SEPARATED.match(text, at) if grouped else None
        if long:
            tokens.append(Token("number", long[0].replace(",", "").replace(" ", ""), spaced))
            at, spaced = long.end(), False
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"{text[at]!r}")
        at = match.end()
        kind = match.lastgroup or ""
        if kind == "space":
            spaced = True
            continue
        token = Token(kind, match[2].strip() if kind == "text" else match[0], spaced)
        tokens.append(token)
        spaced = False
        depth += (token.text in OPEN and token.text != "{") - (token.text in CLOSE and token.text != "}")
    return tokens


def split_unit(tokens: Sequence[Token]) -> tuple[Sequence[Token], str]:
    """Without the unit at the end; and the unit in its short form, "" for none or one that is not common."""
    for start in range(1, len(tokens)):
        if _takes_unit(tokens[:start], tokens[start]):
            unit = _unit(tokens[start:])
            if unit is not None:
                return tokens[:start], unit
    return tokens, ""


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


def _unit(tokens: Sequence[Token]) -> str | None:
    """The tokens as a unit: one to four words with powers and strokes; None if they are none."""
    unit = ""
    rest = list(tokens)
    if len(rest) > 8:
        return None
    single = True
    """Whether a single letter may come: first, behind a stroke, behind °."""
    while rest:
        token = rest.pop(0)
        if unit and token.text in ("/", "per") and rest:
            unit += "/"
            single = True
            token = rest.pop(0)
        if not _is_unit_word(token, bool(unit), single):
            return None
        single = token.text == "\\degree"
        unit += UNITS.get(token.text) or UNITS.get(token.text.lower()) or "?"
        for written in (["^", "2"], ["^", "3"], ["^", "{", "2", "}"], ["^", "{", "3", "}"]):
            if [one.text for one in rest[: len(written)]] == written:
                unit += "".join(one for one in written if one not in "{}")
                del rest[: len(written)]
    return "" if "?" in unit else {"mile/h": "mph"}.get(unit, unit)


def _is_unit_word(token: Token, inside: bool, single: bool) -> bool:
    word = token.text
    if word == "\\degree":
        return True
    if token.kind not in ("word", "text") or word.lower() in WORDS or not NO_UNITS.isdisjoint(word.lower().split()):
        return False
    if token.kind == "text":
        return bool(word)
    if len(word) == 1:
        return word in UNITS and single and (token.spaced or inside)
    if word in UNITS or word.lower() in UNITS:
        return True
    # Other short runs of letters are products of variables: 3ab, 2 xyz.
    return word.lower() in _COUNTED if len(word) == 3 else len(word) >= 4


UNITS = {
    alias: names.split()[0]
    for names in (
        "m meter meters metre metres",
        "cm centimeter centimeters centimetre centimetres",
        "mm millimeter millimeters millimetre millimetres",
        "km kilometer kilometers kilometre kilometres",
        "g gram grams",
        "kg kilogram kilograms",
        "L l liter liters litre litres",
        "mL ml milliliter milliliters",
        "s sec second seconds",
        "min minute minutes",
        "h hr hrs hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "deg degree degrees \\degree",
        "rad radian radians",
        "dollars dollar usd",
        "cents cent",
        "euros euro",
        "in inch inches",
        "ft foot feet",
        "mile miles",
        "/ per",
        "mph",
        "unit units",
        "? C F K celsius fahrenheit kelvin",
    )
    for alias in names.split()
}
_COUNTED = frozenset(
    """
    men mol day egg box bag car cat dog cow hen pig boy kid way set pen pie job bus hat cup jar can toy bee ant fox owl fan
    key lot pot row ton yen gal won oil tea nut jug cap tie map mug ram ewe
    """.split()  # noqa: SIM905
)
"""Of the words of three letters, those that things are counted in."""
CURRENCIES = {"\\dollar": "dollars", "\\euro": "euros", "\\pound": "pounds"}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NUMERIC = frozenset({*"+-*/^(){}[]!", "\\frac", "\\sqrt", "\\pi", "pi", "sqrt", *SCALES})
"""Besides digits, what a number is written with."""
NO_UNITS = frozenset(
    """
    not no nor or and is isn't to but if except without than then minus plus times over of more less
    hundred thousand million billion trillion dozen squared cubed factorial
    half halves third thirds quarter quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths
    """.split()  # noqa: SIM905
)
"""Words that say more than a unit does."""
FUNCTIONS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "ln", "log", "exp"})
ANGLES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
"""Those of an angle."""
WORDS = frozenset({"pi", "sqrt", "inf", "infty", "infinity", "oo"}) | FUNCTIONS - {"sec"}
"""Words that mean something in an expression ("sec" is seconds unless it has its backslash)."""
