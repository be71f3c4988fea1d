r"""The form of a reply: tags, citations, language, length. What it says is for others to judge.

| citation grammar | written |
|---|---|
| `ascii_brackets` | `[id]`, but not the link `[id](url)` |
| `fullwidth_brackets` | `【id】` |
| `ref_colon`, `web_brackets` | `[ref:id]`, `[web:id]` |
| `double_angle` | `<<id>>` |
| `paren_part` | `(id)` |
| `markdown_footnote` | `[^id]` |
| `curly_double` | `{{id}}` |
| `angle_pipe` | `<ref|id>` |
| `cite_xml` | `<cite>id</cite>`, or several: `<cite>id,id</cite>` |
| `claim_wrap_xml` | `<cite index="id">the claim</cite>`, or several ids |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.verify.languages import LANGUAGES, language_of


def tags(reply: str, names: Sequence[str] = ("think", "answer"), strict: bool = True) -> dict[str, Any]:
    """1 if the reply has each of these tags once, in this order, closed, not empty and not one in another, else 0; with what
    stands in them. `strict`: and nothing but space outside of them."""
    if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]{1,40}", name) for name in names):
        raise VerifierFault(f"the tags are {list(names)!r:.200}; they are different names")
    contents: dict[str, str] = {}
    outside: list[str] = []
    place = 0
    for name in names:
        opening, closing = f"<{name}>", f"</{name}>"
        start = reply.find(opening, place)
        end = reply.find(closing, start + len(opening)) if start >= 0 else -1
        if end < 0:
            break
        contents[name] = reply[start + len(opening) : end].strip()
        outside.append(reply[place:start])
        place = end + len(closing)
    outside.append(reply[place:])
    once = all(reply.count(f"<{name}>") == reply.count(f"</{name}>") == 1 for name in names)
    right = once and len(contents) == len(names) and all(contents.values())
    right = right and not (strict and any(text.strip() for text in outside))
    return {"reward": float(right), **{name: contents.get(name) for name in names}}


# Citations.


@dataclass(frozen=True, slots=True)
class Grammar:
    opening: str
    closing: str
    after: str = ""
    """A regular expression for what may follow."""
    several: bool = False
    """Ids separated by commas, without spaces, may stand in one citation."""
    claim: str = ""
    """Where the citation wraps the text that it is for: what ends that."""
    tag: str = ""
    """Every such tag that is opened must be a citation, and every one that is closed."""


GRAMMARS: Mapping[str, Grammar] = {
    "angle_pipe": Grammar("<ref|", ">"),
    "ascii_brackets": Grammar("[", "]", after=r"(?!\()"),
    "cite_xml": Grammar("<cite>", "</cite>", several=True, tag="cite"),
    "claim_wrap_xml": Grammar('<cite index="', '">', several=True, claim="</cite>", tag="cite"),
    "curly_double": Grammar("{{", "}}"),
    "double_angle": Grammar("<<", ">>"),
    "fullwidth_brackets": Grammar("【", "】"),
    "markdown_footnote": Grammar("[^", "]"),
    "paren_part": Grammar("(", ")"),
    "ref_colon": Grammar("[ref:", "]"),
    "web_brackets": Grammar("[web:", "]"),
}

ID = r"citation_[a-z0-9]+(?::snippet_[0-9]+)?"
"""Where a row does not say how an id is written."""
_LIKE_ID = r"citation_[A-Za-z0-9_:]+"
"""What looks like an id of the rows found in the wild, whatever the row's own ids are."""


def cited(claim: str, ids: Sequence[str], grammar: str) -> str:
    """A claim with its citations, as the grammar has it."""
    form = GRAMMARS[grammar]
    groups = [",".join(ids)] if form.several else ids
    if form.claim:
        return f"{form.opening}{groups[0]}{form.closing}{claim}{form.claim}"
    return " ".join([claim, *(f"{form.opening}{group}{form.closing}" for group in groups)])


def citations(
    reply: str,
    grammar: str,
    valid: Collection[str],
    expected: Collection[str] | None = None,
    *,
    mode: str = "cite",
    id_regex: str | None = None,
    slack: int = 1,
    minimum: int = 1,
    calls: int = 0,
) -> dict[str, Any]:
    """1 if the reply cites as it should, else 0 with the gate it failed at; the first of these:

    `structural` (no text, or tool `calls`), `no_answer` (nothing but citations), `malformed_attempt` (an id anywhere but in
    a well-formed citation, a tag left open), `must_cite` (fewer than `minimum` valid ids), `no_hallucination` (an id not
    among `valid`), `correctness_missed_gold` (one of `expected` is not cited), `correctness_over_cap` (more than `slack` ids
    beside the expected). With mode `no_cite`: `no_cite` for anything like an id or a citation.

    The answer itself is not read. `id_regex` comes from data and may take for ever: call this where it can be killed.
    Raises `VerifierFault` for a row that no reply can satisfy.
    """
    pattern, like = _checked(grammar, valid, expected, mode, id_regex, minimum)
    form = GRAMMARS[grammar]
    text = reply.strip()
    spans = _spans(text, pattern, form)
    ids = list(dict.fromkeys(name for _, _, found, _ in spans for name in found.split(",")))
    good, bad = [name for name in ids if name in valid], [name for name in ids if name not in valid]
    missed = sorted(set(expected or ()) - set(good))

    def gate() -> str | None:
        if not text or calls:
            return "structural"
        if mode == "no_cite":
            tag = form.tag and re.search(rf"<{form.tag}\b", text, re.IGNORECASE)
            return "no_cite" if spans or tag or like.search(text) else None
        rest, claims = _apart(text, spans)
        if not re.search(r"\w", rest + claims):
            return "no_answer"
        if like.search(rest) or like.search(claims) or not _balanced(text, form, len(spans)):
            return "malformed_attempt"
        if len(good) < minimum:
            return "must_cite"
        if bad:
            return "no_hallucination"
        if missed:
            return "correctness_missed_gold"
        return "correctness_over_cap" if expected is not None and len(good) > len(set(expected)) + slack else None

    failed = gate()
    return {
        "reward": float(failed is None),
        "gate_failed": failed,
        "cited_ids": good[:_NAMED],
        "invalid_ids": bad[:_NAMED],
        "missed_ids": missed,
    }


_NAMED = 32


def _checked(
    grammar: str,
    valid: Collection[str],
    expected: Collection[str] | None,
    mode: str,
    id_regex: str | None,
    minimum: int,
) -> tuple[re.Pattern[str], re.Pattern[str]]:
    if grammar not in GRAMMARS:
        raise VerifierFault(f"grammar is {grammar!r}; known: {', '.join(GRAMMARS)}")
    if mode not in ("cite", "no_cite"):
        raise VerifierFault(f"mode is {mode!r}; known: cite, no_cite")
    strange = sorted(set(expected or ()) - set(valid))
    if strange and mode == "cite":
        raise VerifierFault(f"expected_ids has {strange[0]!r}, which is not in valid_id_set")
    if mode == "cite" and len(set(valid)) < minimum:
        raise VerifierFault(f"valid_id_set has {len(set(valid))} ids, but {minimum} must be cited")
    try:
        return _compiled(grammar, id_regex or ID)
    except (re.error, OverflowError) as error:
        raise VerifierFault(f"id_regex {id_regex!r:.200} is no regular expression: {error}") from None


@lru_cache(512)
def _compiled(grammar: str, id_regex: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    form = GRAMMARS[grammar]
    more = f"(?:,(?:{id_regex}))*" if form.several else ""
    ids = f"(?P<cited_ids_>(?:{id_regex}){more})"
    pattern = re.compile(f"{re.escape(form.opening)}{ids}{re.escape(form.closing)}{form.after}")
    return pattern, re.compile(f"(?:{id_regex})|{_LIKE_ID}", re.IGNORECASE)


Span = tuple[int, int, str, tuple[int, int]]
"""Start, end, ids, and where the claim stands."""


def _spans(text: str, pattern: re.Pattern[str], form: Grammar) -> list[Span]:
    spans: list[Span] = []
    place = 0
    for found in pattern.finditer(text):
        if found.start() < place:
            continue
        end, claim = found.end(), (found.end(), found.end())
        if form.claim:
            close = text.find(form.claim, end)
            if close < 0:
                break  # none is closed after it either
            claim, end = (end, close), close + len(form.claim)
            if not text[slice(*claim)].strip():
                continue
        spans.append((found.start(), end, found["cited_ids_"], claim))
        place = end
    return spans


def _apart(text: str, spans: Sequence[Span]) -> tuple[str, str]:
    """The text outside of citations, and the claims inside."""
    rest, place = [], 0
    for start, end, _, _ in spans:
        rest.append(text[place:start])
        place = end
    rest.append(text[place:])
    return " ".join(rest), " ".join(text[slice(*claim)] for _, _, _, claim in spans)


def _balanced(text: str, form: Grammar, count: int) -> bool:
    if not form.tag:
        return True
    opened = len(re.findall(rf"<{form.tag}\b", text, re.IGNORECASE))
    return opened == count == len(re.findall(rf"</{form.tag}\s{{0,8}}>", text, re.IGNORECASE))


# Language.


def language(reply: str, expected: str) -> dict[str, Any]:
    """1 if the reply is in the expected language (ISO 639-1), else 0; with the one it seems to be in, None if unclear.

    `verify.languages` says how: it tells the languages in `LANGUAGES` apart in texts of a sentence or more, and does not
    know others, nor single words, names or code.
    """
    if expected not in LANGUAGES:
        raise VerifierFault(f"the language is {expected!r}; known: {', '.join(sorted(LANGUAGES))}")
    found = language_of(reply)
    return {"reward": float(found == expected), "language": found}


# Length.

_END = re.compile(r"[.!?。！？]+(?=\s|$)")
_BLANK = re.compile(r"\n[ \t]*(?=\n)")
_UNITS: Mapping[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "sentences": lambda text: sum(any(map(str.isalnum, part)) for part in _END.split(text)),
    "lines": lambda text: sum(bool(line.strip()) for line in text.split("\n")),
    "paragraphs": lambda text: sum(bool(part.strip()) for part in _BLANK.split(text)),
}


def length(reply: str, unit: str = "words", minimum: int = 0, maximum: int | None = None) -> dict[str, Any]:
    """1 if the reply has at least `minimum` and at most `maximum` words (split at space), characters, sentences (ended by
    .!? and space), lines that are not blank, or paragraphs (blank lines between); else 0, with the number."""
    if unit not in _UNITS:
        raise VerifierFault(f"the unit is {unit!r}; known: {', '.join(_UNITS)}")
    if maximum is not None and maximum < minimum:
        raise VerifierFault(f"no reply has at least {minimum} and at most {maximum} {unit}")
    count = _UNITS[unit](reply.strip())
    return {"reward": float(count >= minimum and (maximum is None or count <= maximum)), "length": count}
