"""Tasks of the weather environment: the weather itself is drawn for each task, so no policy can know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

CITIES = """
Accra Athens Bergen Bogota Cairo Dakar Delhi Dublin Hanoi Havana Kyoto Lagos Lima Lisbon Lusaka Madrid
Manila Montreal Nairobi Oslo Perth Prague Quito Riga Rome Santiago Seoul Sofia Tunis Turin Vienna Warsaw
""".split()  # noqa: SIM905
CONDITIONS = ("sunny", "cloudy", "rainy", "windy", "foggy", "stormy")


@generated("weather", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, weather, cities, question, expected_answer, kind, level}`. Kinds: report (one city), warmest (of two to
    four), count (in how many of two to five a condition holds). Level: how many cities, and how close they are."""
    return {"report": _report, "warmest": _warmest, "count": _count}


def answer(question: str, weather: Mapping[str, Mapping[str, Any]]) -> str:
    """The answer to a question (`report`, `warmest` or a condition to count) about these cities."""
    if question == "report":
        [here] = weather.values()
        return f"{here['condition']}, {here['temperature']} °C"
    if question == "warmest":
        return max(weather, key=lambda city: float(weather[city]["temperature"]))
    return str(sum(here["condition"] == question for here in weather.values()))


def _report(rng: Random, level: int) -> tuple[str, Json]:
    [city] = rng.sample(CITIES, 1)
    ask = (
        ("What is the weather in {}?", "How is the weather in {} now?"),
        ("I am about to land in {}. What weather awaits me?", "Tell me the weather in {}, please."),
        (
            "My sister moved from {} to {}. What is the weather where she lives now?",
            "Not {} but {}: what is the weather there?",
        ),
    )[level]
    others = rng.sample([c for c in CITIES if c != city], 2)
    places = [others[0], city] if level == 2 else [city]
    form = "Answer: <condition>, <temperature> °C"
    return _row(rng, rng.choice(ask).format(*places), form, [city], "report", others)


def _warmest(rng: Random, level: int) -> tuple[str, Json]:
    cities = rng.sample(CITIES, 2 + level)
    ask = rng.choice(("Where is it warmest now: {}?", "Which of these is the warmest now: {}?"))
    return _row(rng, ask.format(_listed(cities, "or")), "Answer: <city>", cities, "warmest", spread=(15, 8, 3)[level])


def _count(rng: Random, level: int) -> tuple[str, Json]:
    cities = rng.sample(CITIES, rng.randint(2, 3) + level)
    condition = rng.choice(CONDITIONS)
    ask = rng.choice(("In how many of {} is it {} now?", "Count the cities among {} where it is {} now."))
    return _row(rng, ask.format(_listed(cities, "and"), condition), "Answer: <number>", cities, condition)


def _row(
    rng: Random, ask: str, form: str, cities: list[str], question: str, others: Sequence[str] = (), spread: int = 30
) -> tuple[str, Json]:
    low = rng.randint(-10, 20)
    # Different temperatures, so that one city is the warmest.
    temperatures = rng.sample(range(low, low + max(spread, len(cities) + len(others))), len(cities) + len(others))
    conditions = CONDITIONS if question not in CONDITIONS else (question, *rng.sample(CONDITIONS, 2))
    weather = {
        city: {"condition": rng.choice(conditions), "temperature": temperature}
        for city, temperature in zip([*cities, *others], temperatures, strict=True)
    }
    asked = {city: weather[city] for city in cities}
    row = {
        "prompt": f"{ask} End your reply with a line of the form: {form}",
        "weather": weather,
        "cities": cities,
        "question": question,
        "expected_answer": answer(question, asked),
    }
    return f"{ask} {asked}", row


def _listed(names: Sequence[str], word: str) -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
