"""Tasks of the function_calling environment: requests in words, and the calls that they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

Drawn = tuple[str, Json]
"""What is asked, after "please", and the arguments that it means."""

CITIES = "Oslo Lima Cairo Quito Hanoi Dakar Porto Kyoto Tunis Riga Perth Accra".split()  # noqa: SIM905
NAMES = "Amira Boris Chen Dalia Emil Farah Goran Hilde Ivan Jana".split()  # noqa: SIM905
CURRENCIES = ("EUR", "USD", "JPY", "NOK", "CHF", "INR", "BRL")
LANGUAGES = ("French", "Finnish", "Hindi", "Portuguese", "Turkish")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
FOOD = "apples bread cheese dates eggs figs ginger honey lentils mustard noodles olives".split()  # noqa: SIM905
SAYINGS = ("running late", "the keys are in the blue box", "call me after lunch", "dinner is at eight", "the train is full")
ROOMS = ("kitchen", "bedroom", "office", "hall")
BANDS = ("the Quiet Rivers", "Northern Lamps", "Tin Harbour", "the Paper Kites")


@generated("function_calling", n=80)
def tasks() -> Kinds:
    """Rows `{prompt, tools, expected_answers, kind, level}`. Kinds: single (one call), repeated (one tool several times),
    several (different tools). Level: how many calls, and how many tools there are to choose from."""
    return {"single": _single, "repeated": _repeated, "several": _several}


def one_call(rng: Random, level: int) -> tuple[str, list[Json], Json]:
    """A request for one call, the tools to choose from, and the call."""
    text, tools, calls = _asked(rng, level, [rng.choice(list(_TOOLS))])
    return text, tools, calls[0]


def _single(rng: Random, level: int) -> tuple[str, Json]:
    return _row(*_asked(rng, level, [rng.choice(list(_TOOLS))]))


def _repeated(rng: Random, level: int) -> tuple[str, Json]:
    return _row(*_asked(rng, level, [rng.choice(list(_TOOLS))] * (2 + (level > 0))))


def _several(rng: Random, level: int) -> tuple[str, Json]:
    return _row(*_asked(rng, level, rng.sample(list(_TOOLS), 2 + level)))


def _row(text: str, tools: list[Json], calls: list[Json]) -> tuple[str, Json]:
    return text, {"prompt": text, "tools": tools, "expected_answers": calls}


def _asked(rng: Random, level: int, names: Sequence[str]) -> tuple[str, list[Json], list[Json]]:
    clauses: list[str] = []
    calls: list[Json] = []
    while len(calls) < len(names):
        name = names[len(calls)]
        clause, arguments = _TOOLS[name][2](rng)
        if clause not in clauses:
            clauses.append(clause)
            calls.append({"name": name, "arguments": arguments})
    others = [name for name in _TOOLS if name not in names]
    chosen = {*names, *rng.sample(others, min(len(others), (2, 5, 12)[level]))}
    tools = [_declared(name) for name in rng.sample(sorted(chosen), len(chosen))]
    opening = rng.choice(("Please ", "Could you ", "I need you to "))
    end = "?" if opening.startswith("Could") else "."
    return f"{opening}{'; then '.join(clauses)}{end}", tools, calls


def _declared(name: str) -> Json:
    description, properties, _ = _TOOLS[name]
    required = [key for key, value in properties.items() if "default" not in value]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": False}


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


def _weather(rng: Random) -> Drawn:
    city, days, unit = rng.choice(CITIES), rng.randint(1, 7), rng.choice(("celsius", "fahrenheit"))
    arguments: Json = {"city": city, "days": days}
    if unit == "fahrenheit":
        arguments["unit"] = unit
    degrees = " in Fahrenheit" if unit == "fahrenheit" else ""
    return f"tell me the weather in {city} for the next {days} days{degrees}", arguments


def _clock(rng: Random) -> tuple[str, str]:
    hour, minute = rng.randint(1, 12), rng.choice((0, 15, 30, 45))
    late = rng.random() < 0.5
    spoken = {0: f"{hour} o'clock", 15: f"a quarter past {hour}", 30: f"half past {hour}", 45: f"{hour}:45"}[minute]
    return f"{spoken} {'in the afternoon' if late else 'in the morning'}", f"{hour % 12 + 12 * late:02}:{minute:02}"


def _set_alarm(rng: Random) -> Drawn:
    spoken, time = _clock(rng)
    days = sorted(rng.sample(DAYS, rng.randint(1, 3)), key=DAYS.index)
    listed = " and ".join(day.capitalize() for day in days)
    return f"set an alarm for {spoken} on {listed}", {"time": time, "days": days}


def _cancel_alarm(rng: Random) -> Drawn:
    spoken, time = _clock(rng)
    return f"cancel the alarm at {spoken}", {"time": time}


def _message(rng: Random) -> Drawn:
    name, text = rng.choice(NAMES), rng.choice(SAYINGS)
    return f'send {name} the message "{text}"', {"to": name, "text": text}


def _convert(rng: Random) -> Drawn:
    source, target = rng.sample(CURRENCIES, 2)
    amount = rng.choice((rng.randint(2, 900), rng.randint(20, 9000) / 10))
    return f"convert {amount} {source} to {target}", {"amount": amount, "source": source, "target": target}


def _rate(rng: Random) -> Drawn:
    source, target = rng.sample(CURRENCIES, 2)
    return f"find the exchange rate from {source} to {target}", {"source": source, "target": target}


def _day(rng: Random) -> tuple[str, str]:
    day = date(2031, 1, 1) + timedelta(days=rng.randrange(700))
    return f"{day.day} {day:%B} {day.year}", day.isoformat()


def _flights(rng: Random) -> Drawn:
    origin, destination = rng.sample(CITIES, 2)
    spoken, day = _day(rng)
    arguments: Json = {"origin": origin, "destination": destination, "date": day}
    direct = rng.random() < 0.5
    if direct:
        arguments["max_stops"] = 0
    return f"search {'direct ' if direct else ''}flights from {origin} to {destination} on {spoken}", arguments


def _heat(rng: Random) -> Drawn:
    room, degrees = rng.choice(ROOMS), rng.randint(32, 48) / 2
    return f"heat the {room} to {degrees:g} degrees", {"room": room, "temperature": degrees}


def _play(rng: Random) -> Drawn:
    band, shuffle = rng.choice(BANDS), rng.random() < 0.5
    arguments: Json = {"artist": band}
    if shuffle:
        arguments["shuffle"] = True
    return f"play something by {band}{' in random order' if shuffle else ''}", arguments


def _shopping(rng: Random) -> Drawn:
    things = rng.sample(FOOD, rng.randint(2, 4))
    return f"put {', '.join(things)} on the shopping list", {"list": "shopping", "items": things}


def _timer(rng: Random) -> Drawn:
    minutes, label = rng.randint(2, 90), rng.choice(("", "tea", "laundry", "oven"))
    arguments: Json = {"minutes": minutes}
    if label:
        arguments["label"] = label
    return f"start a timer of {minutes} minutes{f' called {label}' if label else ''}", arguments


def _translate(rng: Random) -> Drawn:
    text, target = rng.choice(SAYINGS), rng.choice(LANGUAGES)
    return f'translate "{text}" into {target}', {"text": text, "language": target}


def _event(rng: Random) -> Drawn:
    (spoken_day, day), (spoken, time) = _day(rng), _clock(rng)
    title, guests = rng.choice(("review", "workshop", "interview")), rng.sample(NAMES, rng.randint(1, 2))
    asked = f"put a {title} with {' and '.join(guests)} in the calendar for {spoken_day}, {spoken}"
    return asked, {"title": title, "start": {"date": day, "time": time}, "attendees": guests}


_TIME = _text("As HH:MM, 24 hours.")
_DATE = _text("As YYYY-MM-DD.")
_CURRENCY = _text("Code of three letters.", enum=list(CURRENCIES))
_START = {
    "type": "object",
    "description": "When it starts.",
    "properties": {"date": _DATE, "time": _TIME},
    "required": ["date", "time"],
}


def _strings(description: str, **more: Any) -> Json:
    return {"type": "array", "items": {"type": "string", **more}, "description": description}


_TOOLS: dict[str, tuple[str, Json, Callable[[Random], Drawn]]] = {
    "get_weather": (
        "The weather forecast of a city.",
        {
            "city": _text("Name of the city."),
            "days": {"type": "integer", "description": "How many days ahead."},
            "unit": _text("Of the temperatures.", enum=["celsius", "fahrenheit"], default="celsius"),
        },
        _weather,
    ),
    "set_alarm": (
        "Set an alarm.",
        {"time": _TIME, "days": _strings("Days of the week, from Monday on.", enum=list(DAYS))},
        _set_alarm,
    ),
    "cancel_alarm": ("Cancel an alarm.", {"time": _TIME}, _cancel_alarm),
    "send_message": ("Send a text message.", {"to": _text("First name."), "text": _text("The message.")}, _message),
    "convert_currency": (
        "Convert an amount of money.",
        {"amount": {"type": "number", "description": "How much."}, "source": _CURRENCY, "target": _CURRENCY},
        _convert,
    ),
    "get_exchange_rate": ("The exchange rate of two currencies.", {"source": _CURRENCY, "target": _CURRENCY}, _rate),
    "search_flights": (
        "Search flights.",
        {
            "origin": _text("City."),
            "destination": _text("City."),
            "date": _DATE,
            "max_stops": {"type": "integer", "description": "Stops at most; 0 is direct.", "default": 2},
        },
        _flights,
    ),
    "set_thermostat": (
        "Heat a room.",
        {"room": _text("The room.", enum=list(ROOMS)), "temperature": {"type": "number", "description": "In °C."}},
        _heat,
    ),
    "play_music": (
        "Play music of an artist.",
        {"artist": _text("Name."), "shuffle": {"type": "boolean", "description": "In random order.", "default": False}},
        _play,
    ),
    "add_to_list": (
        "Add items to a list.",
        {"list": _text("Name of the list."), "items": _strings("What to add, as it was said.")},
        _shopping,
    ),
    "start_timer": (
        "Start a timer.",
        {"minutes": {"type": "integer", "description": "How long."}, "label": _text("Its name.", default="")},
        _timer,
    ),
    "translate": (
        "Translate a text.",
        {"text": _text("The text."), "language": _text("Into which, in English.")},
        _translate,
    ),
    "create_event": (
        "Put an event in the calendar.",
        {"title": _text("What it is."), "start": _START, "attendees": _strings("First names, as they were said.")},
        _event,
    ),
}
