"""Tasks of structured outputs: a text that states some facts among others, a schema, and the form to put them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json
from rollforge.records.lossless import dumps

FORMS = ("json", "yaml", "toml", "xml", "csv", "tool_call")


@generated("structured_outputs")
def tasks() -> Kinds:
    """Rows `{prompt, tools?, schema_str, schema_type, response_mode, tool_name, tool_payload_key, ...}` with an
    `expected_output`. Kind: the form. Level: how many facts, how deep, what is left open, tools."""
    return {name: partial(_task, name) for name in FORMS}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a text may say."""

    name: str
    schema: Json
    draw: Callable[[Random], Any]
    says: str
    """The sentence; `{}` is the value."""
    flat: bool = True
    """It fits into a cell of a table."""


def _task(form: str, rng: Random, level: int) -> tuple[str, Json]:
    subject, facts = rng.choice(list(SUBJECTS.items()))
    if form == "csv":
        schema, value, text = _table(rng, subject, facts, level)
    else:
        schema, value, text = _record(rng, subject, facts, level, nulls=form != "toml")
    wanted = dumps(schema).decode()
    row: Json = {"schema_str": wanted, "schema_type": "json" if form == "tool_call" else form}
    rule = "" if form in ("toml", "csv") else " What the text does not say is null."
    if form == "tool_call":
        asked, more = _as_tool(rng, schema, level)
        row |= more
    else:
        asked = f"{ASKED[form]}{rule} The schema:\n{wanted}"
        row["response_mode"] = "text"
    return f"{form} {text} {wanted}", {"prompt": f"{text}\n\n{asked}", **row, "expected_output": value}


ASKED = {
    "json": "Reply with JSON that fits the schema, and nothing else.",
    "yaml": "Reply with YAML that fits the schema, and nothing else.",
    "toml": "Reply with TOML that fits the schema, and nothing else.",
    "xml": "Reply with XML that fits the schema, and nothing else. The root is <answer>, properties are elements, the items "
    "of a list are elements <item>, and null is an empty element.",
    "csv": "Reply with CSV that fits the schema, and nothing else: a header, then a line for each as in the text.",
}


def _record(rng: Random, subject: str, facts: Sequence[Fact], level: int, *, nulls: bool) -> tuple[Json, Any, str]:
    chosen = rng.sample(facts, 3 + level)
    schema, value, lines = _stated(rng, chosen)
    if nulls and level:
        absent = rng.choice([fact for fact in facts if fact not in chosen and "enum" not in fact.schema])
        schema[absent.name] = {**absent.schema, "type": [absent.schema["type"], "null"]}
        value[absent.name] = None
    if level == 2:
        inner = rng.sample(CONTACT, 2)
        below, named, more = _stated(rng, inner)
        schema["contact"], value["contact"] = _object(below), named
        lines += more
    lines += rng.sample(BESIDE, level + 1)
    rng.shuffle(lines)
    return _object(schema), value, f"{subject}.\n\n{' '.join(lines)}"


def _table(rng: Random, subject: str, facts: Sequence[Fact], level: int) -> tuple[Json, Any, str]:
    chosen = rng.sample([fact for fact in facts if fact.flat], 2 + level)
    rows = [_stated(rng, chosen) for _ in range(2 + level)]
    numbered = [f"{number}. {' '.join(lines)}" for number, (_, _, lines) in enumerate(rows, 1)]
    schema = {"type": "array", "items": _object(rows[0][0])}
    return schema, [value for _, value, _ in rows], f"{subject}, {len(rows)} of the kind.\n\n" + "\n".join(numbered)


def _stated(rng: Random, facts: Sequence[Fact]) -> tuple[Json, Json, list[str]]:
    values = {fact.name: fact.draw(rng) for fact in facts}
    lines = [fact.says.format(_words(values[fact.name])) for fact in facts]
    return {fact.name: fact.schema for fact in facts}, values, lines


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "" if value else "not "
    return ", ".join(value) if isinstance(value, list) else str(value)


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _as_tool(rng: Random, schema: Json, level: int) -> tuple[str, Json]:
    """The tool that takes the answer, among others that take something else."""
    names = rng.sample(("submit_record", "store_answer", "report_facts", "send_form", "file_entry"), 1 + level)
    key = rng.choice((None, "record", "result"))
    mine = _object({key: schema}) if key else schema
    other = _object({"note": {"type": "string"}})
    tools = [
        {"type": "function", "name": name, "description": said, "parameters": parameters}
        for name, said, parameters in [
            (names[0], "Takes what the text says.", mine),
            *((name, "Takes a note of the reader.", other) for name in names[1:]),
        ]
    ]
    rng.shuffle(tools)
    row = {"tools": tools, "response_mode": "tool_call", "tool_name": names[0], "tool_payload_key": key}
    return "Give what the text says to the tool that takes it, in one call. What it does not say is null.", row


def _integer(low: int, high: int) -> Callable[[Random], int]:
    return lambda rng: rng.randint(low, high)


def _decimal(low: int, high: int) -> Callable[[Random], float]:
    """With a digit behind the point that is not 0, so that every format keeps it a fraction."""
    return lambda rng: rng.randint(low, high) + rng.randint(1, 9) / 10


def _one(*of: str) -> Callable[[Random], str]:
    return lambda rng: rng.choice(of)


def _some(*of: str) -> Callable[[Random], list[str]]:
    return lambda rng: rng.sample(of, rng.randint(2, 3))


def _date(rng: Random) -> str:
    return f"20{rng.randint(15, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _truth(rng: Random) -> bool:
    return rng.random() < 0.5


TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
TRUTH: Json = {"type": "boolean"}
TEXTS: Json = {"type": "array", "items": {"type": "string"}}
DAY: Json = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}

PEOPLE = ("Ana Lopez", "Ben Okafor", "Chen Wei", "Dina Haddad", "Emil Novak", "Fay O'Neill", "Goran Ilić", "Hana Sato")
PLACES = ("Bergen", "Cork", "Graz", "Izmir", "Lyon", "Porto", "Quito", "São Tomé", "Turku", "Łódź")
CONTACT = (
    Fact("name", TEXT, _one(*PEOPLE), "The person to ask is {}."),
    Fact(
        "phone",
        TEXT,
        lambda rng: f"0{rng.randint(10, 99)} {rng.randint(100, 999)} {rng.randint(100, 999)}",
        "The phone number is {}.",
    ),
    Fact("floor", WHOLE, _integer(1, 9), "The office is on floor {}."),
)
BESIDE = (
    "Nobody expected it to take so long.",
    "There was a good deal of talk about it.",
    "The weather had nothing to do with it.",
    "More will be known next month.",
    "An earlier note on it was withdrawn.",
)
SUBJECTS: dict[str, tuple[Fact, ...]] = {
    "A parcel": (
        Fact("order_number", WHOLE, _integer(10_000, 99_999), "The order number is {}."),
        Fact("recipient", TEXT, _one(*PEOPLE), "It goes to {}."),
        Fact("city", TEXT, _one(*PLACES), "Its city of destination is {}."),
        Fact("weight_kg", NUMBER, _decimal(0, 30), "It weighs {} kg."),
        Fact("sent_on", DAY, _date, "It was sent on {}."),
        Fact("insured", TRUTH, _truth, "It is {}insured."),
        Fact(
            "contents",
            TEXTS,
            _some("a lamp", "two books", "a coat", "tea & sugar", "a <small> sign"),
            "In it are: {}.",
            flat=False,
        ),
    ),
    "A concert": (
        Fact(
            "title", TEXT, _one("Night and Day", "Yes, No", "The 5th Hour", "True North", "Null Island"), "It is called {}."
        ),
        Fact("hall", TEXT, _one("Old Mill", "Hall 3", "Town Theatre", "Pier 7"), "It takes place in {}."),
        Fact("day", DAY, _date, "The day is {}."),
        Fact("starts", TEXT, lambda rng: f"{rng.randint(17, 21)}:{rng.choice(('00', '15', '30'))}", "It starts at {}."),
        Fact("seats", WHOLE, _integer(80, 1500), "There are {} seats."),
        Fact("price", NUMBER, _decimal(8, 60), "A ticket is {} euros."),
        Fact("sold_out", TRUTH, _truth, "It is {}sold out."),
        Fact("players", TEXTS, _some(*PEOPLE), "On stage are: {}.", flat=False),
    ),
    "A house for sale": (
        Fact("city", TEXT, _one(*PLACES), "It stands in {}."),
        Fact("rooms", WHOLE, _integer(2, 12), "It has {} rooms."),
        Fact("area_m2", NUMBER, _decimal(40, 320), "Its area is {} square metres."),
        Fact("built", WHOLE, _integer(1880, 2020), "It was built in {}."),
        Fact(
            "condition",
            {"type": "string", "enum": ["new", "good", "poor"]},
            _one("new", "good", "poor"),
            "Its condition: {}.",
        ),
        Fact("heated", TRUTH, _truth, "It is {}heated."),
        Fact("postcode", TEXT, lambda rng: f"0{rng.randint(1000, 9999)}", "The postcode is {}."),
        Fact("extras", TEXTS, _some("a cellar", "a balcony", "a shed", "a well"), "It comes with: {}.", flat=False),
    ),
}
