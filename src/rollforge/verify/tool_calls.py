"""Tool calls against the expected ones: names, arguments, number, order; and a state against the expected one.

Arguments are equal as JSON (1 and 1.0 are, 1 and true are not), with two allowances for what the tool's JSON Schema says.
Where an expected value has not the type that the schema declares (data sets have `14` for a string), a value that has it and
reads the same is right too. And an argument that nobody expected is no difference if it is null or the declared default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.records import items
from rollforge.records.items import Json, Response
from rollforge.records.lossless import loads

STORED = 32
"""Calls that a verdict names."""
COMPARED = 1024
"""Calls that are looked at; who makes more has made too many."""

Calls = Sequence[Mapping[str, Any]] | Mapping[str, Any] | None


def tool_calls(
    response: Response | Mapping[str, Any],
    expected: Calls,
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    ordered: bool = False,
    allow_extra: bool = False,
    partial: bool = False,
) -> dict[str, Any]:
    """1 if the response made the expected calls, else 0, or with `partial` how nearly it did.

    Args:
        expected: `[{"name", "arguments"}, ...]`, one such call, or an `expected_action` (`{"type": "function_call" |
            "function_call_batch" | "message", ...}`). No calls, or a message: it must make none.
        tools: as the row declares them, flat or nested: their schemas say which values mean the same.
        ordered: the calls must be made in the expected order.
        allow_extra: further calls cost nothing; otherwise one is as bad as a missing one.
        partial: the reward is F1 over calls, or the share of expected calls made where `allow_extra`.

    Raises `VerifierFault` if `expected` is none of these.
    """
    gold = expected_calls(expected)
    made = made_calls(response)
    looked = made[:COMPARED]
    schemas = _schemas(tools)
    fits = [[_same_call(call, one, schemas) for call in looked] for one in gold]
    correct = _in_order(fits) if ordered else _matching(fits)
    total = len(gold) if allow_extra else (len(gold) + len(made)) / 2
    share = correct / total if total else 1.0
    if not gold:
        share = float(not made)
    return {
        "reward": share if partial else float(share == 1.0),
        "num_expected": len(gold),
        "num_predicted": len(made),
        "num_correct": correct,
        "predicted_calls": made[:STORED],
    }


def expected_calls(value: Calls) -> list[Json]:
    """The expected calls of a row, in one form. Raises `VerifierFault`."""
    if isinstance(value, Mapping):
        if value.get("type") == "message":
            return []
        entries: Any = value.get("calls") if value.get("type") == "function_call_batch" else [value]
    else:
        entries = value if value is not None else []
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise VerifierFault(f"the expected calls are {type(entries).__name__}, not a list of calls")
    return [_expected(entry) for entry in entries]


def _expected(entry: Any) -> Json:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise VerifierFault(f"an expected call is {entry!r:.100}; it has a name and arguments")
    arguments = entry.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments)
        except ValueError as error:
            raise VerifierFault(f"the arguments of the expected call {entry['name']} are not JSON: {error}") from None
    if arguments is not None and not isinstance(arguments, Mapping):
        raise VerifierFault(f"the arguments of the expected call {entry['name']} are {type(arguments).__name__}, no object")
    return {"name": entry["name"], "arguments": dict(arguments or {})}


def made_calls(response: Response | Mapping[str, Any]) -> list[Json]:
    """The calls of a response; `arguments` is None where they were no JSON object."""
    calls = items.tool_calls(response)  # type: ignore[arg-type]
    return [{"name": str(call.get("name")), "arguments": _arguments(call.get("arguments"))} for call in calls]


def _arguments(written: Any) -> Json | None:
    if isinstance(written, str):
        try:
            written = loads(written or "{}")
        except (ValueError, RecursionError):
            return None
    return {} if written is None else dict(written) if isinstance(written, Mapping) else None


def valid_call(call: Json, tools: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether a made call is of a declared tool, with every required argument, and arguments of the declared types and
    enums. What stands inside of an argument is not looked at."""
    schema = _schemas(tools).get(call["name"])
    arguments = call["arguments"]
    if schema is None or arguments is None:
        return False
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    if any(key not in arguments for key in schema.get("required") or ()):
        return False
    if schema.get("additionalProperties") is False and any(key not in properties for key in arguments):
        return False
    return all(_allowed(value, properties.get(key)) for key, value in arguments.items())


def _allowed(value: Any, schema: Any) -> bool:
    schema = schema if isinstance(schema, Mapping) else {}
    kinds, options = _types(schema), schema.get("enum")
    return (not kinds or _is(value, kinds)) and (not isinstance(options, list) or value in options)


def _schemas(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    found = {}
    for tool in tools or ():
        inner = tool.get("function") if isinstance(tool.get("function"), Mapping) else tool
        if isinstance(inner, Mapping) and isinstance(inner.get("parameters"), Mapping):
            found[str(inner.get("name"))] = inner["parameters"]
    return found


def _same_call(made: Json, expected: Json, schemas: Mapping[str, Mapping[str, Any]]) -> bool:
    if made["name"] != expected["name"] or made["arguments"] is None:
        return False
    return _same_object(made["arguments"], expected["arguments"], schemas.get(expected["name"], {}))


def same_value(given: Any, expected: Any, schema: Any = None) -> bool:
    """Whether two JSON values are equal, with the allowances above where there is a schema."""
    schema = schema if isinstance(schema, Mapping) else {}
    if isinstance(expected, Mapping):
        return isinstance(given, Mapping) and _same_object(given, expected, schema)
    if isinstance(expected, (list, tuple)):
        pairs = isinstance(given, (list, tuple)) and len(given) == len(expected)
        inner = schema.get("items")
        return pairs and all(same_value(a, b, inner) for a, b in zip(given, expected, strict=True))
    if _same_scalar(given, expected):
        return True
    kinds = _types(schema)
    if not kinds or _is(expected, kinds) or not _is(given, kinds) or isinstance(given, (Mapping, list)):
        return False
    return _written(given) == _written(expected)


def _same_object(given: Mapping[str, Any], expected: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    for key, value in expected.items():
        if key not in given:
            # Left out is as good as null.
            if value is not None:
                return False
        elif not same_value(given[key], value, properties.get(key)):
            return False
    return all(key in expected or _idle(value, properties.get(key)) for key, value in given.items())


def _idle(value: Any, schema: Any) -> bool:
    """Whether an argument says only what would be so without it."""
    if value is None:
        return True
    return isinstance(schema, Mapping) and "default" in schema and same_value(value, schema["default"])


def _same_scalar(given: Any, expected: Any) -> bool:
    if isinstance(given, bool) or isinstance(expected, bool):
        return given is expected
    if isinstance(given, float) or isinstance(expected, float):
        numbers = isinstance(given, (int, float)) and isinstance(expected, (int, float))
        return numbers and _close(given, expected)
    return type(given) is type(expected) and bool(given == expected)


def _close(a: float, b: float) -> bool:
    try:
        return math.isclose(a, b, rel_tol=1e-9)
    except OverflowError:  # a whole number beyond all floats
        return a == b


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _types(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else []
    return [name for name in kinds if isinstance(name, str) and name in _TYPES]


def _is(value: Any, kinds: Sequence[str]) -> bool:
    return any(isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _matching(fits: Sequence[Sequence[bool]]) -> int:
    """How many expected calls can be told to a made call of their own: augmenting paths, since allowances make one made call
    fit several expected ones."""
    taken: dict[int, int] = {}

    def place(gold: int, seen: set[int]) -> bool:
        for made, fit in enumerate(fits[gold]):
            if fit and made not in seen:
                seen.add(made)
                if made not in taken or place(taken[made], seen):
                    taken[made] = gold
                    return True
        return False

    return sum(place(gold, set()) for gold in range(len(fits)))


def _in_order(fits: Sequence[Sequence[bool]]) -> int:
    """The longest common subsequence of expected and made calls."""
    width = len(fits[0]) if fits else 0
    row = [0] * (width + 1)
    for line in fits:
        new = [0]
        for place, fit in enumerate(line):
            new.append(row[place] + 1 if fit else max(row[place + 1], new[-1]))
        row = new
    return row[-1]


SHOWN = 20
"""Differences of a state that a verdict names."""


def same_state(given: Any, expected: Any, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """1 if a final state is the expected one, else 0; with the places where they differ.

    States are JSON-like: mappings, lists, scalars; sets count as lists without an order. Keys in `ignore` (times, random
    ids) are left out at every depth.
    """
    found = [text for text, _ in zip(_differences(given, expected, "state", frozenset(ignore)), range(SHOWN), strict=False)]
    return {"reward": float(not found), "differences": found}


def _differences(given: Any, expected: Any, where: str, ignore: frozenset[str]) -> Iterator[str]:
    if isinstance(given, Mapping) and isinstance(expected, Mapping):
        for key in dict.fromkeys([*expected, *given]):
            if key in ignore:
                continue
            if key not in given:
                yield f"{where}.{key} is missing"
            elif key not in expected:
                yield f"{where}.{key} is {given[key]!r:.80}, which nobody expected"
            else:
                yield from _differences(given[key], expected[key], f"{where}.{key}", ignore)
    elif isinstance(given, (set, frozenset)) and isinstance(expected, (set, frozenset)):
        if given != expected:
            yield f"{where} lacks {sorted(map(repr, expected - given))} and has {sorted(map(repr, given - expected))}"[:200]
    elif isinstance(given, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(given) != len(expected):
            yield f"{where} has {len(given)} entries, expected {len(expected)}"
        else:
            for index, (left, right) in enumerate(zip(given, expected, strict=True)):
                yield from _differences(left, right, f"{where}[{index}]", ignore)
    elif not _same_scalar(given, expected):
        yield f"{where} is {given!r:.80}, expected {expected!r:.80}"
