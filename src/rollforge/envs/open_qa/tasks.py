"""Tasks of open_qa: questions with one short answer, which may be said in several ways."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.envs.open_qa.facts import CAPITALS, COUNTRIES, ELEMENTS, SPELLINGS, TERMS, WORKS
from rollforge.records.items import Json

FORM = "Think it through if you need to, then put the answer, and nothing else, inside \\boxed{}."


@generated("open_qa")
def tasks() -> Kinds:
    """Rows `{prompt, question, expected_answer, accepted, kind, level}`. Kinds: element, country, term, author. Level: how
    well known the fact is, and whether it takes one or two of them."""
    return {"element": _element, "country": _country, "term": _term, "author": _author}


def _row(question: str, expected: str, accepted: Sequence[str] = ()) -> tuple[str, Json]:
    row = {
        "prompt": f"{question}\n\n{FORM}",
        "question": question,
        "expected_answer": expected,
        "accepted": list(accepted),
    }
    return question, row


def _element(rng: Random, level: int) -> tuple[str, Json]:
    number = rng.randint(1, (36, 54, 86)[level])
    symbol, name = _ELEMENTS[number - 1]
    if level == 0:
        if rng.random() < 0.5:
            return _row(f"What is the chemical symbol of {name}?", symbol)
        return _row(f"Which element has the chemical symbol {symbol}?", name, _spelt(name))
    if level == 1:
        if rng.random() < 0.5:
            return _row(f"What is the atomic number of {name}?", str(number))
        return _row(f"Which element has the atomic number {number}?", name, _spelt(name))
    other = rng.randint(max(1, number - 12), min(len(_ELEMENTS), number + 12))
    if other == number:
        return _element(rng, level)
    there = _ELEMENTS[other - 1][1]
    more, word = abs(other - number), "more" if other > number else "fewer"
    protons = f"{more} {word} proton{'s' if more > 1 else ''}"
    return _row(f"Which element has {protons} in its nucleus than {name}?", there, _spelt(there))


def _country(rng: Random, level: int) -> tuple[str, Json]:
    country, capital, currency = rng.choice(_COUNTRIES)
    if level == 0:
        return _row(f"What is the capital of {country}?", capital, CAPITALS.get(capital, ()))
    if level == 1:
        if rng.random() < 0.5:
            return _row(f"Of which country is {capital} the capital?", country)
        return _row(f"In which of {_with_others(rng, country)} does one pay with the {currency}?", country)
    question = f"What is the capital of that one of {_with_others(rng, country)} whose currency is the {currency}?"
    return _row(question, capital, CAPITALS.get(capital, ()))


def _with_others(rng: Random, country: str) -> str:
    names = [country, *rng.sample([name for name, *_ in _COUNTRIES if name != country], 2)]
    rng.shuffle(names)
    return f"{names[0]}, {names[1]} and {names[2]}"


def _term(rng: Random, level: int) -> tuple[str, Json]:
    third = len(_TERMS) // 3
    definition, term, *accepted = rng.choice(_TERMS[level * third : (level + 1) * third])
    phrase = rng.choice(("What is this called: {}?", "Which word is meant? {}."))
    head = definition if "Which" in phrase else definition[0].lower() + definition[1:]
    return definition, _row(phrase.format(head), term, accepted)[1]


def _author(rng: Random, level: int) -> tuple[str, Json]:
    third = len(_WORKS) // 3
    title, author, *accepted = rng.choice(_WORKS[level * third : (level + 1) * third])
    phrase = rng.choice(("Who wrote {}?", "Who is the author of {}?"))
    return title, _row(phrase.format(title), author, accepted)[1]


def _spelt(name: str) -> list[str]:
    return [SPELLINGS[name]] if name in SPELLINGS else []


_ELEMENTS = [tuple(entry.split()) for entry in "".join(ELEMENTS.split("\n")).split(";")]
_COUNTRIES = [tuple(word.replace("_", " ") for word in entry.split()) for entry in "".join(COUNTRIES.split("\n")).split(";")]
_TERMS = [tuple(line.split("|")) for line in TERMS.strip().split("\n")]
_WORKS = [tuple(line.split("|")) for line in WORKS.strip().split("\n")]
