"""Tasks of the instruction environment: a request, and instructions that some reply follows, and no empty talk does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.envs.instruction_following.reference import compose
from rollforge.records.items import Json
from rollforge.verify.instructions import read


@generated("instruction_following")
def tasks() -> Kinds:
    """Rows `{prompt, instruction_id_list, kwargs, grading_mode, kind, level}`, as NeMo Gym's `instruction_following` has.
    Kind: what the first of them is about. Level: one or two instructions, three, or more."""
    return {name: partial(_task, name) for name in FAMILIES}


def _task(kind: str, rng: Random, level: int) -> tuple[str, Json]:
    request = rng.choice(REQUESTS).format(rng.choice(TOPICS))
    while True:
        names, arguments, lines = _drawn(rng, kind, level, request)
        checks = read(names, arguments)
        if not any(all(check(junk) for check in checks) for junk in JUNK) and compose(names, arguments) is not None:
            break
    form = rng.choice(("\n\nFollow these instructions:\n{}", "\n\nYour reply has to meet these conditions:\n{}"))
    prompt = request + form.format("\n".join(f"- {line}" for line in lines))
    row = {"prompt": prompt, "instruction_id_list": names, "kwargs": arguments, "grading_mode": "binary"}
    return prompt, row


def _drawn(rng: Random, kind: str, level: int, request: str) -> tuple[list[str], list[Json], list[str]]:
    """Instructions, one of each group at most, the first of the kind."""
    count = rng.choice(((1, 2), (3,), (4, 5))[level])
    first = rng.choice(FAMILIES[kind])
    others = [one for one in EVERY if kind != "whole" or one.name in BESIDE_WHOLE]
    chosen = {first.group: first}
    for family in rng.sample(others, len(others)):
        if len(chosen) < count and family.group not in chosen:
            chosen[family.group] = family
    made = [(family.name, *family.make(rng, request)) for family in chosen.values()]
    return [name for name, _, _ in made], [arguments for _, arguments, _ in made], [line for _, _, line in made]


JUNK = ("x", "9" * 5000, "word " * 400, "Yes. " * 60, "(" * 400, "a\n\n" * 30, "☃ {{{ \\boxed{}} ``` <think>")


class Drawn:
    """A family as tasks of this environment ask for it."""

    def __init__(self, name: str, group: str, make: Callable[[Random, str], tuple[Json, str]]) -> None:
        self.name, self.group, self.make = name, group, make


def _said(name: str, group: str, line: str, **arguments: Callable[[Random], Any]) -> Drawn:
    def make(rng: Random, request: str) -> tuple[Json, str]:
        made = {key: draw(rng) for key, draw in arguments.items()}
        return made, line.format(**{key: _shown(value) for key, value in made.items()})

    return Drawn(name, group, make)


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _number(low: int, high: int) -> Callable[[Random], int]:
    return lambda rng: rng.randint(low, high)


def _one(*of: str) -> Callable[[Random], str]:
    return lambda rng: rng.choice(of)


def _paragraph(rng: Random, request: str) -> tuple[Json, str]:
    count, word = rng.randint(2, 5), rng.choice(WORDS)
    place = rng.randint(1, count)
    line = f"Write {count} paragraphs with one blank line between them. Paragraph {place} starts with the word {word}."
    return {"num_paragraphs": count, "nth_paragraph": place, "first_word": word}, line


def _repeat(rng: Random, request: str) -> tuple[Json, str]:
    line = "Begin with the request above, word for word, without these instructions. Then answer it."
    return {"prompt_to_repeat": request}, line


def _in_language(rng: Random, request: str) -> tuple[Json, str]:
    code = rng.choice(list(LANGUAGES))
    return {"language": code}, f"Write the whole reply in {LANGUAGES[code]}."


LANGUAGES = {
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
}

WORDS = """
anchor bridge candle desert engine forest garden harbor island jacket kitchen lantern market needle orange pepper quarter
river silver timber umbrella valley window yellow zebra
""".split()  # noqa: SIM905


def _words(count: int) -> Callable[[Random], list[str]]:
    return lambda rng: rng.sample(WORDS, count)


_least, _less = _one("at least"), _one("less than")
ENDINGS = ("Does that answer it?", "Ask me for more.", "That is all I know.")

FAMILIES: dict[str, tuple[Drawn, ...]] = {
    "words": (
        _said("keywords:existence", "words", "Use these words: {keywords}.", keywords=_words(2)),
        _said(
            "keywords:frequency",
            "often",
            "Use the word {keyword} {relation} {frequency} times.",
            keyword=_one(*WORDS),
            frequency=_number(2, 5),
            relation=_least,
        ),
        _said("keywords:forbidden_words", "without", "Do not use the words: {forbidden_words}.", forbidden_words=_words(3)),
        _said(
            "keywords:letter_frequency",
            "letters",
            "The letter {letter} has to appear {let_relation} {let_frequency} times.",
            letter=_one(*"jkqvxz"),
            let_frequency=_number(3, 9),
            let_relation=_least,
        ),
        _said("keywords:word_once", "often", "Use the word {keyword} exactly once.", keyword=_one(*WORDS)),
        _said("keywords:palindrome", "palindrome", "One word has to be a palindrome of three letters or more."),
    ),
    "length": (
        _said(
            "length_constraints:number_words",
            "length",
            "Write {relation} {num_words} words.",
            num_words=_number(40, 300),
            relation=_least,
        ),
        _said(
            "length_constraints:number_words",
            "length",
            "Write {relation} {num_words} words.",
            num_words=_number(90, 160),
            relation=_less,
        ),
        _said(
            "length_constraints:number_sentences",
            "length",
            "Write {relation} {num_sentences} sentences.",
            num_sentences=_number(4, 15),
            relation=_least,
        ),
        _said(
            "length_constraints:number_sentences",
            "length",
            "Write {relation} {num_sentences} sentences.",
            num_sentences=_number(16, 24),
            relation=_less,
        ),
        _said("letters:letter_counting", "size", "Write {relation} {N} letters.", N=_number(60, 400), relation=_least),
    ),
    "structure": (
        _said(
            "length_constraints:number_paragraphs",
            "structure",
            "Write {num_paragraphs} paragraphs, with a line of *** between them.",
            num_paragraphs=_number(2, 5),
        ),
        Drawn("length_constraints:nth_paragraph_first_word", "structure", _paragraph),
        _said("paragraphs:paragraphs2", "structure", "Write two paragraphs, with a blank line between them."),
        _said(
            "detectable_format:multiple_sections",
            "structure",
            "Write {num_sections} sections. Begin each with a line {section_spliter} X, X being its number.",
            section_spliter=_one("Section", "SECTION", "Part"),
            num_sections=_number(2, 5),
        ),
    ),
    "format": (
        _said(
            "detectable_format:number_bullet_lists",
            "bullets",
            "Have exactly {num_bullets} bullet points, each on a line that starts with * and a space.",
            num_bullets=_number(2, 6),
        ),
        _said(
            "detectable_format:number_highlighted_sections",
            "highlights",
            "Highlight at least {num_highlights} parts in Markdown, like *this part*.",
            num_highlights=_number(1, 4),
        ),
        _said(
            "detectable_content:number_placeholders",
            "places",
            "Have at least {num_placeholders} placeholders in square brackets, such as [name].",
            num_placeholders=_number(1, 4),
        ),
        _said("detectable_format:title", "title", "Give it a title in double angular brackets, such as <<a long day>>."),
        _said(
            "detectable_content:postscript",
            "end",
            "Add a postscript at the end that starts with {postscript_marker}",
            postscript_marker=_one("P.S.", "P.P.S"),
        ),
    ),
    "letters": (
        _said("change_case:english_capital", "case", "Write in English, in capital letters only."),
        _said("change_case:english_lowercase", "case", "Write in English, in small letters only."),
        _said(
            "change_case:capital_word_frequency",
            "case",
            "Words in capital letters only have to appear {capital_relation} {capital_frequency} times.",
            capital_frequency=_number(2, 8),
            capital_relation=_least,
        ),
        _said("punctuation:no_comma", "comma", "Use no commas."),
        _said("punctuation:punctuation_dot", "dot", "Use no dots."),
        _said("punctuation:punctuation_exclamation", "exclamation", "Use no exclamation marks."),
    ),
    "ends": (
        _said("startend:end_checker", "end", "End with these very words: {end_phrase}", end_phrase=_one(*ENDINGS)),
        _said("last_word:last_word_answer", "end", "The last word of your reply is {last_word}.", last_word=_one(*WORDS)),
        _said("first_word:first_word_answer", "start", "The first word is {first_word}.", first_word=_one(*WORDS)),
        _said("startend:quotation", "quotes", "Put the whole reply in double quotation marks."),
        Drawn("combination:repeat_prompt", "start", _repeat),
        _said("keywords:start_end", "end", "Start and end with the same word, with nothing behind the last."),
    ),
    "whole": (
        _said("detectable_format:json_format", "structure", "The whole reply is JSON. It may be fenced in ```."),
        _said(
            "detectable_format:constrained_response",
            "structure",
            "Reply with one of these: My answer is yes. / My answer is no. / My answer is maybe.",
        ),
        _said("combination:two_responses", "structure", "Give two different answers, with ****** between them."),
        Drawn("language:response_language", "structure", _in_language),
    ),
}
EVERY = [family for families in FAMILIES.values() for family in families]
BESIDE_WHOLE = ("keywords:forbidden_words", "punctuation:no_comma", "punctuation:punctuation_exclamation")
"""What can be asked for besides, where one instruction decides about the whole reply."""

TOPICS = (
    "a walk by the sea",
    "a first day at work",
    "bread",
    "bicycles",
    "a city at night",
    "clouds",
    "coffee",
    "the desert",
    "a long journey by train",
    "friendship",
    "gardens",
    "glaciers",
    "a small library",
    "the moon",
    "mountain huts",
    "old maps",
    "a power cut",
    "rain",
    "sleep",
    "spices",
    "street music",
    "tea",
    "a village school",
    "winter",
)
REQUESTS = (
    "Write a short text about {}.",
    "Tell me something about {}.",
    "What should one know about {}?",
    "Explain to a child what is special about {}.",
    "Describe {} to someone who has never seen anything like it.",
    "Is it worth writing about {}? Say why.",
)
