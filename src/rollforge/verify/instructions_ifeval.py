"""The 25 families of IFEval, each as its authors check it, in linear time, with keywords taken literally.

Stricter than theirs on purpose, where a reply could pass without doing what it was asked: `constrained_response` takes one
of the options and no other, JSON is JSON (no NaN), and a text without letters is in no language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollforge.verify.documents import Unreadable, parse
from rollforge.verify.instructions_arguments import Family, count, letter, relation, text, texts
from rollforge.verify.languages import LANGUAGES, language_of
from rollforge.verify.sentences import sentences, tokens, word_count

Relation = Callable[[int, int], bool]

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def keywords_exist(reply: str, keywords: Sequence[str]) -> bool:
    return all(occurrences(reply, keyword) for keyword in keywords)


def keyword_frequency(reply: str, keyword: str, frequency: int, relation: Relation) -> bool:
    return relation(occurrences(reply, keyword), frequency)


def occurrences(reply: str, keyword: str) -> int:
    """How often it stands there, inside of other words too, letter case ignored."""
    return sum(1 for _ in re.finditer(re.escape(keyword), reply, re.IGNORECASE))


def forbidden_words(reply: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(reply: str, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return let_relation(reply.lower().count(letter), let_frequency)


def response_language(reply: str, language: str) -> bool:
    return language_of(reply) == language


def number_sentences(reply: str, num_sentences: int, relation: Relation) -> bool:
    return relation(len(sentences(reply)), num_sentences)


def divided(reply: str, num_paragraphs: int) -> bool:
    """Paragraphs with `***` between them."""
    return _full(reply.split("***")) == num_paragraphs


def _full(parts: Sequence[str]) -> int | None:
    """How many parts there are; the first and the last may be empty, and are none then. None if another is empty."""
    if any(not part.strip() for part in parts[1:-1]):
        return None
    return len(parts) - sum(not part.strip() for part in {0: parts[0], len(parts) - 1: parts[-1]}.values())


def number_words(reply: str, num_words: int, relation: Relation) -> bool:
    return relation(word_count(reply), num_words)


def nth_paragraph_first_word(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = reply.split("\n\n")
    full = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if full != num_paragraphs or not 1 <= nth_paragraph <= full:
        return False
    words = paragraphs[nth_paragraph - 1].split(maxsplit=1)
    return bool(words) and re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0].lower() == first_word.lower()


def number_placeholders(reply: str, num_placeholders: int) -> bool:
    found = 0
    for line in reply.split("\n"):
        opened = line.find("[")
        closed = line.find("]", opened) if opened >= 0 else -1
        while closed >= 0:
            found += 1
            opened = line.find("[", closed)
            closed = line.find("]", opened) if opened >= 0 else -1
    return found >= num_placeholders


def postscript(reply: str, postscript_marker: str) -> bool:
    marker = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(postscript_marker) or re.escape(postscript_marker.lower())
    return re.search(marker, reply.lower()) is not None


def number_bullets(reply: str, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in reply.split("\n")]
    return sum(line.startswith("-") or _starred(line) for line in lines) == num_bullets


def _starred(line: str) -> bool:
    return line[:1] == "*" and line[1:2] not in ("", "*")


def constrained_response(reply: str) -> bool:
    return sum(option in reply for option in OPTIONS) == 1


def highlights(reply: str, num_highlights: int) -> bool:
    single = sum(bool(one.strip("*").strip()) for one in re.findall(r"\*[^\n*]*\*", reply))
    double = sum(bool(one.strip("*").strip()) for one in re.findall(r"\*\*[^\n*]*\*\*", reply))
    return single + double >= num_highlights


def sections(reply: str, section_spliter: str, num_sections: int) -> bool:
    return sum(1 for _ in re.finditer(rf"{re.escape(section_spliter)}\s?\d+", reply)) >= num_sections


def json_format(reply: str) -> bool:
    inner = reply.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inner = inner.removeprefix(fence)
    try:
        parse(inner.removesuffix("```").strip(), "json", True)
    except Unreadable:
        return False
    return True


def title(reply: str) -> bool:
    for line in reply.split("\n"):
        first, last = line.find("<<"), line.rfind(">>")
        if first >= 0 and last > first + 2 and line[first : last + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def two_responses(reply: str) -> bool:
    parts = reply.split("******")
    given = [part.strip() for part in parts if part.strip()]
    return _full(parts) == len(given) == 2 and given[0] != given[1]


def repeat_prompt(reply: str, prompt_to_repeat: str) -> bool:
    return reply.strip().lower().startswith(prompt_to_repeat.lower())


def ends_with(reply: str, end_phrase: str) -> bool:
    return reply.strip().strip('"').lower().endswith(end_phrase.lower())


def capital_words(reply: str, capital_frequency: int, capital_relation: Relation) -> bool:
    return capital_relation(sum(token.isupper() for token in tokens(reply)), capital_frequency)


def english_capital(reply: str) -> bool:
    return reply.isupper() and _may_be_english(reply)


def english_lowercase(reply: str) -> bool:
    return reply.islower() and _may_be_english(reply)


def _may_be_english(reply: str) -> bool:
    """A few words are in no language that could be told."""
    found = language_of(reply)
    return found == "en" or (found is None and all(char.isascii() for char in reply if char.isalpha()))


def no_comma(reply: str) -> bool:
    return "," not in reply


def quotation(reply: str) -> bool:
    bare = reply.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _language(value: Any) -> str:
    code = text(value).lower().partition("-")[0]
    if code not in LANGUAGES:
        raise ValueError(f"one of {', '.join(sorted(LANGUAGES))}")
    return code


def _paragraph(value: Any) -> int:
    found = count(value)
    if not found:
        raise ValueError("1 or more")
    return found


IFEVAL: Mapping[str, Family] = {
    "keywords:existence": Family(keywords_exist, {"keywords": texts}),
    "keywords:frequency": Family(keyword_frequency, {"keyword": text, "frequency": count, "relation": relation}),
    "keywords:forbidden_words": Family(forbidden_words, {"forbidden_words": texts}),
    "keywords:letter_frequency": Family(
        letter_frequency, {"letter": letter, "let_frequency": count, "let_relation": relation}
    ),
    "language:response_language": Family(response_language, {"language": _language}),
    "length_constraints:number_sentences": Family(number_sentences, {"num_sentences": count, "relation": relation}),
    "length_constraints:number_paragraphs": Family(divided, {"num_paragraphs": count}),
    "length_constraints:number_words": Family(number_words, {"num_words": count, "relation": relation}),
    "length_constraints:nth_paragraph_first_word": Family(
        nth_paragraph_first_word, {"num_paragraphs": count, "nth_paragraph": _paragraph, "first_word": text}
    ),
    "detectable_content:number_placeholders": Family(number_placeholders, {"num_placeholders": count}),
    "detectable_content:postscript": Family(postscript, {"postscript_marker": text}),
    "detectable_format:number_bullet_lists": Family(number_bullets, {"num_bullets": count}),
    "detectable_format:constrained_response": Family(constrained_response),
    "detectable_format:number_highlighted_sections": Family(highlights, {"num_highlights": count}),
    "detectable_format:multiple_sections": Family(sections, {"section_spliter": text, "num_sections": count}),
    "detectable_format:json_format": Family(json_format),
    "detectable_format:title": Family(title),
    "combination:two_responses": Family(two_responses),
    "combination:repeat_prompt": Family(repeat_prompt, {"prompt_to_repeat": text}),
    "startend:end_checker": Family(ends_with, {"end_phrase": text}),
    "startend:quotation": Family(quotation),
    "change_case:capital_word_frequency": Family(capital_words, {"capital_frequency": count, "capital_relation": relation}),
    "change_case:english_capital": Family(english_capital),
    "change_case:english_lowercase": Family(english_lowercase),
    "punctuation:no_comma": Family(no_comma),
}
