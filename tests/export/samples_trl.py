"""Conversations, and what the TRL and the generic target make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rollforge.export.examples import Demonstration, Judged, Origin, Pair, Prompt
from rollforge.export.target import Data, Made, Settings, Target
from rollforge.records.lossless import dumps

Json = dict[str, Any]

WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Json = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a zone.",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}, "utc": {"type": "boolean"}}},
    },
}


def call(id: str, name: str, **arguments: Any) -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def said(content: str = "", *calls: Json) -> Json:
    return {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {})


def heard(id: str, content: str) -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


ASK: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather in Oslo, and the time?"},
]
TOLD: list[Json] = [
    said("", call("c1", "get_weather", city="Oslo"), call("c2", "get_time", zone="CET", utc=False)),
    heard("c1", "9 degrees"),
    heard("c2", "noon"),
    said("9 degrees at noon."),
]
SUM: list[Json] = [{"role": "user", "content": "2 + 2?"}]


def origin(id: str, reward: float = 1.0) -> Origin:
    return Origin(id, 0, 0, "weather" if id.startswith("w") else "sums", id.partition("-")[0], reward, "policy")


def examples(family: str) -> list[Any]:
    """One with tools, one without."""
    match family:
        case "prompt":
            fields = {"expected_answer": "4", "level": 2, "agent_ref": {"name": "sums"}, "_ng_task_index": 0}
            return [
                Prompt(origin("s-0"), SUM, [], "4", {"input": "2 + 2?"}, fields, "4"),
                Prompt(origin("w-0"), ASK, [WEATHER, CLOCK], None, {}, {"city": "Oslo"}, "9 degrees at noon."),
            ]
        case "demonstration":
            return [
                Demonstration(origin("s-0"), SUM, [said("4")], []),
                Demonstration(origin("w-0"), ASK, TOLD, [WEATHER, CLOCK]),
            ]
        case "pair":
            return [
                Pair(origin("s-0"), origin("s-1", 0.25), SUM, [said("4")], [said("5")], []),
                Pair(origin("w-0"), origin("w-1", 0.0), ASK, TOLD, [*TOLD[:3], said("It is cold.")], [WEATHER, CLOCK]),
            ]
        case "judged":
            return [
                Judged(origin("s-0"), SUM, [said("4")], [], True),
                Judged(origin("w-1", 0.0), ASK, [*TOLD[:3], said("It is cold.")], [WEATHER, CLOCK], False),
            ]
    raise ValueError(family)


def made(target: Target, kind: str, folder: Path, copies: int = 4, validation: bool = False, **settings: Any) -> Made:
    """The files as an export writes them: data, then configuration and scripts."""
    family = target.kinds[kind]
    given = Settings(**settings)
    rows = [family.row(example, given) for example in examples(family.family)]
    data = []
    for split in ("train", "validation") if validation else ("train",):
        path = folder / f"{split}.jsonl"
        path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows * copies))
        answered = copies if family.family == "prompt" else 0
        data.append(Data(split, [], path, len(rows) * copies, 100, 400, answered, True))
    written = Made(kind, folder, data, given, True, [WEATHER, CLOCK])
    for name, text in target.files(written).items():
        (folder / name).write_text(text, encoding="utf-8")
    return written
