r"""Short answers against the expected one: text, numbers with units, lists and sets; where they stand in a reply; and the
exact match and F1 of question answering (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250).

| mode | the answer |
|---|---|
| `final_answer` | what follows the last "Answer:" or "Final answer:" on its line, or the next; without one, the last box |
| `boxed` | the content of the last `\boxed{}` |
| `last_line` | the last line that is not blank |
| `full_response` | the whole reply |
| `regex` | the first group (or all) of the last match of the row's expression |

Only the one place counts: a reply does not get several tries. All but `regex` read any reply in linear time; expressions
come from data and may take for ever: use that mode where it can be killed.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from rollforge.errors import VerifierFault
from rollforge.records.lossless import loads
from rollforge.verify.answer import after_thinking, boxed, last_match
from rollforge.verify.quantity import amount

Mode = Literal["final_answer", "boxed", "last_line", "full_response", "regex"]
Kind = Literal["text", "number", "list", "set"]
Expected = str | float | Sequence[str | float]

LONG = 1000
"""So many characters more than four times the expected answer, and an answer is not compared: it is no short answer."""


def string_match(
    reply: str,
    expected: Expected,
    mode: str = "final_answer",
    *,
    kind: str = "text",
    case_sensitive: bool = False,
    regex: str | None = None,
    tolerance: float = 0.0,
    relative: float = 0.0,
) -> dict[str, Any]:
    """1 if the answer in the reply is the expected one, else 0; with the answer.

    Args:
        kind: `text` compares as `same_text`, numbers as numbers, enumerations by item; `number` insists on a number; `list`
            and `set` compare items separated by commas, semicolons, "and" or line breaks, in order or in any.
        case_sensitive: the answer must be the expected text letter for letter, but for space around it.
        tolerance, relative: the difference, or share of the expected number, by which a number may be off.

    Raises `VerifierFault` for a row that no reply can answer.
    """
    if kind not in get_args(Kind):
        raise VerifierFault(f"answer_type is {kind!r}; known: {', '.join(get_args(Kind))}")
    gold = [str(item) for item in expected] if isinstance(expected, Sequence) and not isinstance(expected, str) else None
    if gold is not None and kind in ("text", "number"):
        raise VerifierFault(f"expected_answer is a list, but answer_type is {kind!r}; make it 'list' or 'set'")
    if expected is None or isinstance(expected, bool | Mapping):
        raise VerifierFault(f"expected_answer is {expected!r}; it is text, a number or a list of them")
    text = str(expected) if gold is None else ", ".join(gold)
    if not text.strip():
        raise VerifierFault(f"expected_answer is {expected!r}: nothing to compare with")
    if kind == "number" and amount(plain(text)) is None:
        raise VerifierFault(f"expected_answer is {expected!r}, which is no number (answer_type is 'number')")
    answer = extract(reply, mode, regex)
    if answer is None or len(answer) > 4 * len(text) + LONG:
        right = False
    elif kind in ("list", "set"):
        right = same_items(items(answer), gold if gold is not None else items(text), kind == "list", case_sensitive)
    elif kind == "number":
        right = same_number(answer, text, tolerance, relative) is True
    elif case_sensitive:
        right = answer.strip() == text.strip()
    else:
        right = same_text(answer, text) or same_number(answer, text, tolerance, relative) is True or _same_row(answer, text)
    return {"reward": float(right), "extracted_answer": answer}


_FINAL = re.compile(r"\b(?:final\s{1,8})?answer[*_ \t]{0,8}[:：][*_ \t]{0,8}", re.IGNORECASE)
_ENDING = ".!?。*_ "
_MARKS = "*_`"


def extract(reply: str, mode: str = "final_answer", regex: str | None = None) -> str | None:
    """The answer of a reply as it is written there; None if it is not where the mode says. Raises `VerifierFault`."""
    text = after_thinking(reply).strip()
    if mode == "boxed":
        return _of_box(text)
    if mode == "final_answer":
        last = last_match(_FINAL, text)
        if last is None:
            return _of_box(text)
        return text[last.end() :].lstrip().partition("\n")[0].strip().strip(_MARKS).strip() or None
    if mode == "last_line":
        return text.rpartition("\n")[2].strip() or None
    if mode == "full_response":
        return text or None
    if mode == "regex":
        return _by_regex(text, regex)
    raise VerifierFault(f"extraction_mode is {mode!r}; known: {', '.join(get_args(Mode))}")


def _of_box(text: str) -> str | None:
    content = boxed(text)
    return _unwrapped(content) or None if content is not None else None


def _by_regex(text: str, regex: str | None) -> str | None:
    if not regex:
        raise VerifierFault("extraction_mode is 'regex', but the row has no output_regex")
    try:
        pattern = re.compile(regex)
    except (re.error, OverflowError) as error:
        raise VerifierFault(f"output_regex {regex!r:.200} is no regular expression: {error}") from None
    last = last_match(pattern, text)
    if last is None:
        return None
    return (next((group for group in last.groups() if group), None) or last[0]).strip() or None


def _same_row(given: str, expected: str) -> bool:
    """Whether both are the same enumeration, whatever separates its items."""
    parts = items(expected)
    return len(parts) > 1 and amount(plain(expected, case=True)) is None and same_items(items(given), parts)


def same_text(given: str, expected: str) -> bool:
    """Equal but for letter case, full-width forms, spaces, LaTeX around words, quotes around all, and the sign that ends a
    sentence. Look-alikes of other alphabets, powers and indices stay different."""
    return plain(given) == plain(expected)


def same_number(given: str, expected: str, tolerance: float = 0.0, relative: float = 0.0) -> bool | None:
    """Whether two numbers are equal, units converted; None if one of the texts is no number."""
    left, right = amount(plain(given, case=True)), amount(plain(expected, case=True))
    return None if left is None or right is None else left.same(right, tolerance, relative)


def items(text: str) -> list[str]:
    """Of an enumeration: `1, 2 and 3`, `[a; b]`, one a line with or without bullets."""
    text = text.strip()
    if len(text) > 1 and (text[0], text[-1]) in (("[", "]"), ("{", "}"), ("(", ")")):
        text = text[1:-1]
    parts = (_BULLET.sub("", part, count=1) for part in _BETWEEN.split(text.replace("\\{", "").replace("\\}", "")))
    return [part.strip() for part in parts if part.strip()]


_BETWEEN = re.compile(r"[,;，、；\n]|(?<=\s)(?:and|&)(?=\s)")
_BULLET = re.compile(r"\s{0,8}(?:[-*•]|\d{1,3}[.)])\s")


def same_items(given: Sequence[str], expected: Sequence[str], ordered: bool = True, case_sensitive: bool = False) -> bool:
    """Whether two lists have equal items, in the same order or (`ordered` False) as often each."""
    if len(given) != len(expected):
        return False
    left, right = ([_key(item, case_sensitive) for item in side] for side in (given, expected))
    return left == right if ordered else Counter(left) == Counter(right)


def _key(item: str, case_sensitive: bool) -> str:
    if case_sensitive:
        return item.strip()
    number = amount(plain(item, case=True))
    return f"{number.value} {number.unit}" if number else plain(item)


_WRAPPED = re.compile(r"\\(?:text|textbf|textit|texttt|emph|mathrm|mathbf|mathit|mathsf|operatorname)\s?\{([^{}]*)\}")
_FORMS: dict[int, str] = {
    0x2212: "-",
    0x3000: " ",
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **{ord(char): f"^{digit}" for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}
"""Minus sign, full-width forms, powers. Not NFKC: that makes 256 of 2⁵⁶."""
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}
_MATHS = re.compile(r"\\[()\[\],;! ]|\$(?!\d)|(?<=\d)\$")


def plain(text: str, case: bool = False) -> str:
    """What `same_text` compares; with `case`, letter case is kept."""
    text = unicodedata.normalize("NFC", text).translate(_FORMS)
    for _ in range(4):
        text = _WRAPPED.sub(r"\1", text)
    text = " ".join(_MATHS.sub(" ", text).split())
    text = text.rstrip(_ENDING) or text
    text = text.lstrip("*_ ")
    if len(text) > 2 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
        text = text.rstrip(_ENDING) or text
    return text if case else text.casefold()


def _unwrapped(text: str) -> str:
    r"""Without the `\text{}` around all of it."""
    for _ in range(8):
        found = _WRAPPED.fullmatch(text.strip())
        if found is None:
            break
        text = found[1]
    return text.strip()


# Question answering.

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = ("yes", "no", "noanswer")


def squad_normalized(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, single spaces: as the SQuAD and HotpotQA evaluations do."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(given: str, expected: str | Sequence[str]) -> float:
    """SQuAD's: 1 if it is one of the expected answers, normalised."""
    return max(float(squad_normalized(given) == squad_normalized(gold)) for gold in _golds(expected))


def f1(given: str, expected: str | Sequence[str]) -> float:
    """SQuAD's F1 of words, the best over the expected answers; as in HotpotQA, yes and no are right or wrong only."""
    return max(_f1(squad_normalized(given), squad_normalized(gold)) for gold in _golds(expected))


def _f1(given: str, gold: str) -> float:
    if given == gold:
        return 1.0
    if given in _CLOSED or gold in _CLOSED:
        return 0.0
    left, right = given.split(), gold.split()
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0


def _golds(expected: str | Sequence[str]) -> list[str]:
    golds = [expected] if isinstance(expected, str) else list(expected)
    if not golds or not all(isinstance(gold, str) and squad_normalized(gold) for gold in golds):
        raise VerifierFault(f"expected_answer is {expected!r:.200}: nothing to compare with")
    return golds


def json_answer(reply: str, key: str = "answer") -> str | None:
    """The value of `key` in the last JSON object of the reply that has it; None if there is none."""
    text = after_thinking(reply)
    for start, end in reversed(_objects(text)):
        try:
            found = loads(text[start:end])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and key in found:
            value = found[key]
            return value if isinstance(value, str) else str(value)
    return None


def _objects(text: str) -> list[tuple[int, int]]:
    """Where text in balanced braces stands that is in no other such text. Braces in strings are rare enough to count."""
    opened: list[int] = []
    found: list[tuple[int, int]] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            start = opened.pop()
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, brace.end()))
    return found


_BRACE = re.compile(r"[{}]")


def qa_match(reply: str, expected: str | Sequence[str], metric: str = "em") -> dict[str, Any]:
    """The answer of a reply (`{"answer": ...}`, the last such object, else the whole reply) against the expected one.

    `answer_em` and `answer_f1` are SQuAD's; `is_correct` is 1 where an expected answer stands in the given one as whole
    words, `is_correct_strict` where moreover it stands in the first 40 characters of a long one. The reward is `metric`:
    `em`, `f1` or `strict`. The last rewards "yes or no" as both: it is there for rows graded so.
    """
    if metric not in _METRICS:
        raise VerifierFault(f"metric is {metric!r}; known: {', '.join(_METRICS)}")
    golds = [form for gold in _golds(expected) for form in _forms(gold)]
    found = json_answer(reply)
    answer = after_thinking(reply).strip() if found is None else found
    # SQuAD deletes the points and signs of numbers: to it, 3.5 is 35.
    fair = [gold for gold in golds if same_number(answer, gold) is not False]
    scores = dict.fromkeys(("answer_em", "answer_f1", "is_correct", "is_correct_strict"), 0.0)
    if fair:
        scores["answer_f1"] = f1(answer, fair)
    if fair and len(answer) <= LONG + 4 * max(map(len, golds)):
        places = [place for gold in fair if (place := _place(gold, answer)) is not None]
        scores["answer_em"] = exact_match(answer, fair)
        scores["is_correct"] = float(bool(places))
        scores["is_correct_strict"] = float(any(len(answer) <= 80 or place <= 40 for place in places))
    return {"reward": scores[_METRICS[metric]], "extracted_answer": answer[:LONG] or None, **scores}


_METRICS = {"em": "answer_em", "f1": "answer_f1", "strict": "is_correct_strict"}


def _place(gold: str, answer: str) -> int | None:
    flat = " ".join(answer.casefold().split())
    found = re.search(rf"(?<!\w){re.escape(' '.join(gold.casefold().split()))}(?!\w)", flat)
    return found.start() if found else None


_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()  # noqa: SIM905
_SUFFIX = {1: "st", 2: "nd", 3: "rd"}
_SAME = {
    form: other
    for number, (word, ordinal) in enumerate(zip(_WORDS, _ORDINALS, strict=True))
    for pair in ((word, str(number)), (ordinal, f"{number}{_SUFFIX.get(number, 'th')}"))
    for form, other in (pair, pair[::-1])
}
_LEFT_OUT = (
    (re.compile(r"^(?:the|an?)\s", re.IGNORECASE), ""),
    (re.compile(r"\s{0,8}\([^()]*\)"), ""),
    (re.compile(r"(?<=\d),(?=\d{3})"), ""),
    (re.compile(r"(?<!\d)\.|\.(?!\d)"), ""),
    (re.compile(r"&"), "and"),
    (re.compile(r"(?<=\w)-"), " "),
    (re.compile(r'["“”]'), ""),
)


def _forms(gold: str) -> list[str]:
    """An expected answer in the forms that mean the same: without its article, what is in parentheses, separators of
    thousands, dots of abbreviations; `and` for `&`; a small number or ordinal in words or digits."""
    forms = [gold, _SAME.get(gold.strip().lower(), gold)]
    forms += [pattern.sub(instead, gold).strip() for pattern, instead in _LEFT_OUT]
    return [form for form in dict.fromkeys(forms) if squad_normalized(form)]
