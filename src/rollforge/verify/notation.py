"""How answers are written: one spelling for the many of LaTeX and Unicode, and the tokens of that."""

from __future__ import annotations

import re
import unicodedata
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
_VARIABLES = ("\\mathbf", "\\mathit", "\\operatorname")
"""Letters in these are no text."""
_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"^\s*{UPRIGHT}\{{([^{{}}0-9]*[0-9][^{{}}]*)\}}\s*$", r"\1"),
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
        if kind == "text" and token.text.isalpha() and match[0].startswith(_VARIABLES):
            token = token._replace(kind="word")
        tokens.append(token)
        spaced = False
        depth += (token.text in OPEN and token.text != "{") - (token.text in CLOSE and token.text != "}")
    return tokens


CURRENCIES = {"\\dollar": "dollars", "\\euro": "euros", "\\pound": "£"}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12} | {
    "lakh": 10**5,
    "crore": 10**7,
}
FUNCTIONS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "ln", "log", "exp"})
ANGLES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
"""Those of an angle."""
WORDS = frozenset({"pi", "sqrt", "inf", "infty", "infinity", "oo"}) | FUNCTIONS - {"sec"}
"""Words that mean something in an expression ("sec" is seconds unless it has its backslash)."""
