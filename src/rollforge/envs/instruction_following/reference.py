"""A reply made to follow instructions: from the inside outwards, text first, then its parts, its ends, its letters.

It knows what the tasks of this environment ask for, and most of what rows from elsewhere do; it gives no reply that does not
follow them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.verify.instructions import read
from rollforge.verify.sentences import sentences, word_count

# No commas, no capitals but the first, few rare letters, and nothing that a sentence could be asked not to have.
FILLER = (
    "This is worth a closer look",
    "The main idea is simple",
    "It helps to begin with the basics",
    "Small steps make a real difference",
    "The details depend on the place and the time",
    "Most people learn this by doing it",
    "There is more than one good way",
    "A clear plan saves effort later",
    "It pays to look at a few cases first",
    "Then the rest follows without much trouble",
)
IN_LANGUAGE = {
    "de": "Das ist eine kurze Antwort auf die Frage und sie ist in der verlangten Sprache geschrieben.",
    "en": "This is a short answer to the question and it is written in the language that was asked for.",
    "es": "Esta es una respuesta corta a la pregunta y está escrita en el idioma que se ha pedido.",
    "fr": "Voici une courte réponse à la question et elle est écrite dans la langue qui est demandée.",
    "it": "Questa è una breve risposta alla domanda ed è scritta nella lingua che è stata chiesta.",
    "pl": "To jest krótka odpowiedź na pytanie i jest ona napisana w tym języku na prośbę.",
    "pt": "Esta é uma resposta curta à pergunta e ela está escrita na língua que foi pedida.",
    "ru": "Это короткий ответ на вопрос и он написан на этом языке как просили.",
}


def solve(
    instruction_id_list: Sequence[str] | None = None,
    kwargs: Sequence[Mapping[str, Any] | None] | None = None,
    verifier_metadata: Mapping[str, Any] | None = None,
) -> str | None:
    inner = verifier_metadata or {}
    ids = inner.get("instruction_id_list") or instruction_id_list or []
    given = inner.get("kwargs", kwargs) or [{}] * len(ids)
    return compose(ids, given)


def compose(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None]) -> str | None:
    """A reply that follows all of these instructions; None if this does not know one."""
    asked = {name: {k: v for k, v in (args or {}).items() if v is not None} for name, args in zip(ids, kwargs, strict=False)}
    try:
        reply = _whole(asked) or _dressed(_body(asked), asked)
        return reply if reply.strip() and all(check(reply) for check in read(ids, kwargs)) else None
    except (VerifierFault, KeyError, TypeError, ValueError):
        return None


Asked = Mapping[str, Mapping[str, Any]]


def _whole(asked: Asked) -> str | None:
    """Where one instruction decides about the whole reply."""
    for name, args in asked.items():
        if name == "detectable_format:constrained_response":
            return "My answer is yes."
        if name == "detectable_format:json_format":
            words = asked.get("keywords:existence", {}).get("keywords", [])
            return '{"answer": "' + " ".join(["a short answer", *words]) + '"}'
        if name == "combination:two_responses":
            words = " ".join(asked.get("keywords:existence", {}).get("keywords", []))
            return f"It may be so. {words}".strip() + "\n******\n" + "It may be otherwise."
        if name in ("copy:copy", "copy:copying_simple"):
            return str(args["prompt_to_repeat"])
        if name == "copy:copying_multiple":
            return "\n******\n".join([args["prompt_to_repeat"]] * args["N"])
        if name == "language:response_language":
            return IN_LANGUAGE.get(args["language"])
        if name == "detectable_format:square_brackets":
            return "[This] [is] [my] [answer]"
        if name == "count:count_unique":
            return "Each word here stands alone."
    return None


def _body(asked: Asked) -> str:
    """Paragraphs with everything that has to be somewhere in them."""
    paragraphs = [[] for _ in range(_paragraphs(asked))] or [[]]  # type: list[list[str]]
    first = asked.get("length_constraints:nth_paragraph_first_word")
    used = 0
    for part in paragraphs:
        part.append(_filler(asked, used))
        used += 1
    if first:
        paragraphs[first["nth_paragraph"] - 1].insert(0, f"{first['first_word']} comes first here")
    last = paragraphs[-1]
    last += _needed(asked)
    words = asked.get("length_constraints:number_words", {})
    number = asked.get("length_constraints:number_sentences", {})
    least_words = words["num_words"] if words.get("relation") == "at least" else 0
    least_sentences = number["num_sentences"] if number.get("relation") == "at least" else 0
    while True:
        text = _joined(paragraphs, asked)
        if word_count(text) >= least_words and len(sentences(text)) >= least_sentences:
            return text
        last.append(_filler(asked, used))
        used += 1
        if used > 2000:
            raise ValueError("too long")


def _paragraphs(asked: Asked) -> int:
    for name, key in (
        ("length_constraints:number_paragraphs", "num_paragraphs"),
        ("length_constraints:nth_paragraph_first_word", "num_paragraphs"),
        ("detectable_format:multiple_sections", "num_sections"),
    ):
        if name in asked:
            return int(asked[name][key])
    return 2 if {"paragraphs:paragraphs", "paragraphs:paragraphs2"} & set(asked) else 1


def _filler(asked: Asked, used: int) -> str:
    forbidden = {word.lower() for word in asked.get("keywords:forbidden_words", {}).get("forbidden_words", ())}
    kept = [one for one in FILLER if not forbidden & set(one.lower().split())]
    return kept[used % len(kept)]


def _needed(asked: Asked) -> list[str]:
    """Sentences with the words and letters that are asked for."""
    found = [f"This is about {word}" for word in asked.get("keywords:existence", {}).get("keywords", ())]
    often = asked.get("keywords:frequency", {})
    if often.get("relation") == "at least":
        found += [f"This is about {often['keyword']}"] * often["frequency"]
    if "keywords:word_once" in asked:
        found.append(f"This is about {asked['keywords:word_once']['keyword']}")
    letters = asked.get("keywords:letter_frequency", {})
    if letters.get("let_relation") == "at least":
        found.append(f"Here it stands as {' '.join([letters['letter']] * letters['let_frequency'])}")
    capitals = asked.get("change_case:capital_word_frequency", {})
    if capitals.get("capital_relation") == "at least":
        found.append(f"Note {' '.join(['THIS'] * capitals['capital_frequency'])} well")
    places = asked.get("detectable_content:number_placeholders", {})
    if places:
        found.append(f"Write to {' '.join(['[name]'] * places['num_placeholders'])} about it")
    marked = asked.get("detectable_format:number_highlighted_sections", {})
    found += [f"Here *part {number + 1}* is the point" for number in range(marked.get("num_highlights", 0))]
    if "keywords:palindrome" in asked:
        found.append("It is said at noon")
    return found


def _joined(paragraphs: Sequence[Sequence[str]], asked: Asked) -> str:
    before = asked.get("first_word:first_word_sent", {}).get("first_word")
    behind = asked.get("last_word:last_word_sent", {}).get("last_word")
    texts = [" ".join(" ".join(filter(None, (before, one, behind))) + "." for one in part) for part in paragraphs]
    bullets = "".join(f"\n* Point {number + 1}" for number in range(_bullets(asked)))
    texts[-1] += bullets
    if "detectable_format:multiple_sections" in asked:
        mark = asked["detectable_format:multiple_sections"]["section_spliter"]
        return "\n".join(f"{mark} {number}\n{text}" for number, text in enumerate(texts, 1))
    divided = {"length_constraints:number_paragraphs", "paragraphs:paragraphs"} & set(asked)
    return ("\n***\n" if divided else "\n\n").join(texts)


def _bullets(asked: Asked) -> int:
    return int(asked.get("detectable_format:number_bullet_lists", {}).get("num_bullets", 0))


def _dressed(text: str, asked: Asked) -> str:
    """What stands before and behind, then the marks and the letters of it all."""
    if "detectable_format:title" in asked:
        text = f"<<My answer>>\n{text}"
    if "first_word:first_word_answer" in asked:
        text = f"{asked['first_word:first_word_answer']['first_word']} is the word. {text}"
    if "combination:repeat_prompt" in asked:
        text = f"{asked['combination:repeat_prompt']['prompt_to_repeat']}\n{text}"
    if "keywords:start_end" in asked:
        text = f"Yes it is so. {text} And yes"
    if "detectable_content:postscript" in asked:
        text = f"{text}\n{asked['detectable_content:postscript']['postscript_marker']} More of it later."
    if "last_word:last_word_answer" in asked:
        text = f"{text}\nAnd so to {asked['last_word:last_word_answer']['last_word']}"
    if "startend:end_checker" in asked:
        text = f"{text}\n{asked['startend:end_checker']['end_phrase']}"
    if "punctuation:punctuation_dot" in asked:
        text = text.replace(".", ";")
    if "punctuation:punctuation_exclamation" in asked:
        text = text.replace("!", ".")
    if {"change_case:english_capital", "count:lowercase_counting"} & set(asked):
        text = text.upper()
    if "change_case:english_lowercase" in asked:
        text = text.lower()
    return f'"{text}"' if "startend:quotation" in asked else text
