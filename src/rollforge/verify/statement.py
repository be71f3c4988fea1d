"""What an "Answer:" line says: its formula, its value, or the only number of a sentence whose words leave it as it is.

Where the line stands is `answer`'s business, what the answer is worth is `expression`'s.
"""

from __future__ import annotations

import re

from rollforge.verify.exact import Unreadable
from rollforge.verify.expression import MAX_CHARACTERS, read
from rollforge.verify.units import says_more


def is_result(line: str, last: bool) -> bool:
    """Whether what follows `####` is a number or a formula, or ends the reply: not if it is a heading."""
    if not line or _ANSWER_WORD.search(line) or _STEP.match(line):
        return False
    return last or _reads(line) or not _PROSE.search(line)


_ANSWER_WORD = re.compile(r"\banswers?\b", re.IGNORECASE)
_STEP = re.compile(r"\d+[.):]\s+[A-Za-z]")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_END = re.compile(
    r"\$(?:[^$.?;]|[.?;](?!\s))++\$|[.!?](?=\s|$)|[;\n]|(?<!\s),?\s++(?:because|since|as|so|which|where)\b", re.IGNORECASE
)
_EXCLAIMED = re.compile(r"\d!$")
"""More often than a factorial."""
_BOLD = re.compile(r"^\*\*(.+?)\*\*")
_FORMULA = re.compile(r"^\$([^$]+)\$(?=\s*(?:[.;!?](?:\s|$)|$))")
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+(?=[\d.])", re.IGNORECASE)


def stated(line: str) -> str:
    """The answer of an "Answer:" line: a formula that ends a sentence, or what is bold at its start, or its first clause; or
    the only number of that, if the words around it leave it as it is."""
    formula = _FORMULA.match(line)
    if formula:
        return formula[1]
    if not _PROSE.search(line) and not _EXCLAIMED.search(line) and _reads(line):
        return line
    bold = _BOLD.match(line)
    if bold and _leaves(_clause(line[bold.end() :])):
        clause = bold[1]
    else:
        clause = _clause(line.replace("**", "") if bold else line).strip()
    clause = _NEGATIVE.sub("-", clause)
    return clause if _reads(clause) else _only_number(clause) or clause


def _clause(text: str) -> str:
    """Up to the first end of one that is not in a formula: `$n! - 1$` has none."""
    end = next((one for one in _END.finditer(text) if one[0][0] != "$"), None)
    return text[: end.start()] if end else text


def _reads(text: str) -> bool:
    try:
        read(text)
    except Unreadable:
        return False
    return True


def _only_number(clause: str) -> str | None:
    """The only number or formula of a sentence, but for names such as `$x$`; None if there is not just one, or other words
    say something about it."""
    found = list(_SAID.finditer(clause)) if len(clause) <= MAX_CHARACTERS else []
    found = [one for one in found if not _NAME.fullmatch(one[0])] or found
    if len(found) != 1:
        return None
    before, after = clause[: found[0].start()], clause[found[0].end() :]
    after, *remarks = _REMARK.split(after, maxsplit=1)
    if not _introduces(before) or not all(_leaves(f" {remark}") for remark in remarks):
        return None
    if found[0][1]:
        return str(found[0][1]) if _leaves(after) else None
    if _reads(found[0][0] + after):
        return found[0][0] + after
    return str(found[0][0]) if _leaves(after) else None


def _leaves(after: str) -> bool:
    """Whether what follows an answer is only words, and none of them changes it."""
    return not (_SYMBOLS.search(after) or _VARIABLE.search(after) or says_more(after))


def _introduces(before: str) -> bool:
    """Whether words such as "it is", "for a total of" or "Ann has" leave the number after them as it is."""
    rest = _VERB.split(before)[-1]
    if _NEGATION.search(before) or _LIMIT.search(rest) or _VARIABLE.search(rest) or says_more(rest):
        return False
    if rest.rstrip().endswith(" of") and not _TOTAL.search(rest):
        return False
    return _OPEN.search(rest) is not None


_NUMBERS = re.compile(r"(?<![\w.\\])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?", re.ASCII)
_SAID = re.compile(rf"(?:\$|\\\()([^$]+?)(?:\$|\\\))|{_NUMBERS.pattern}", re.ASCII)
_NAME = re.compile(r"(?:\$|\\\()\s*\\?[A-Za-z]+(?:_\w)?\s*(?:\$|\\\))")
_SYMBOLS = re.compile(
    r"^[A-Za-z]|\d|[-+/^=<>|\\$%{}\[\]#&@°²³¹¼½¾×÷π·√∞\u2070-\u209f\u2150-\u218f\u2200-\u22ff](?<![A-Za-z]-(?=[A-Za-z]))"
)
"""Of mathematics, and what is attached to a number: more than words."""
_VARIABLE = re.compile(r"(?<![\w'])(?:[B-HJ-Z](?![\w')])|[b-hj-z](?![\w']))")
_REMARK = re.compile(r"\s+[-–—]+(?=\s)|[,(:]")
_VERB = re.compile(
    r"\b(?:(?:equal|comes?|amounts?|adds? up|sums? up|simplif\w+|evaluat\w+|reduc\w+|rounds?|rounded) to|is|are|was|were|be"
    r"|equals?|has|have|had|gets?|got|makes?|made|takes?|took|needs?|costs?|earn(?:s|ed)|gives?)\b|[:=≈]",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|no|isn't|cannot|can't|unknown|wrong|doubt|unlikely|false|incorrect|unless|if|anything|nothing"
    r"|but|except|instead|rather)\b",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"\b(?:below|above|before|near|between|beyond|without|per|than|times|up to|one in|closer? to|next to|greater|larger"
    r"|higher|bigger|smaller|lower|digits?|logarithm|derivative|integral|factors?|multiples?|divisors?)\b",
    re.IGNORECASE,
)
_TOTAL = re.compile(
    r"\b(?:total|sum|average|mean|median|product|value|result|maximum|minimum|number|distance|area|volume|length|perimeter"
    r"|probability|speed|cost|price|profit|difference|amount|score|ratio)\s+of\s*$",
    re.IGNORECASE,
)
_OPEN = re.compile(r"(?:^|^\(?[A-Z]\)|[A-Za-z]{2}|\ba)[\s\"'*_(,$:]*$")
"""Not behind an operator or a variable."""
