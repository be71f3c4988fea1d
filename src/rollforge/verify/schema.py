"""Structured outputs, as NeMo Gym's `structured_outputs` has them: a reply, or a tool's arguments, against a JSON Schema.

By default as strictly as there: every listed property must be present and no other may be, and the reply is the document and
nothing else, not even a fence. Differences from theirs: numbers that are not finite and keys that stand twice are refused,
dates in YAML are text, an empty place in XML is null where the schema allows it; a schema that cannot be read is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.records.items import Response, tool_calls
from rollforge.verify.documents import Unreadable, parse, unfenced
from rollforge.verify.json_schema import Schema, check_schema, same, share, strictly, violations

MESSAGE = 300
"""Characters of an error message that a verdict keeps."""
ABSENT: Any = object()


def structured_output(
    reply: str,
    schema: str | Schema,
    kind: str = "json",
    *,
    expected: Any = ABSENT,
    strict: bool = True,
    fenced: bool = False,
    partial: bool = False,
) -> dict[str, Any]:
    """1 if the reply is a document as the schema says, else 0, or with `partial` the share of the constraints that hold.

    Args:
        schema: as JSON text or data.
        kind: json, yaml, toml, xml or csv.
        expected: what the document must say; where given, the reward is for that (with `partial`, the share of its values),
            and only a document that fits the schema has one.
        strict: every listed property is required and no other allowed, whatever the schema says.
        fenced: a reply that is one fenced block is read, too.

    The verdict has `schema_valid`, `constraints_met`, `values_right` (if `expected`), `error_type` (`empty_response`,
    `parse_error`, `validation_error`, `wrong_values` or null) and `error_message`. Patterns of a schema come from data and
    may take for ever: call this where it can be killed. Raises `VerifierFault` for a schema that is none.
    """
    wanted = read_schema(schema, strict)
    if not reply.strip():
        return _failed("empty_response", "there is no text", expected)
    try:
        value = parse(unfenced(reply) if fenced else reply, kind, wanted)
    except Unreadable as error:
        return _failed("parse_error", f"this is no {kind.upper()}: {error}", expected)
    return _judged(value, wanted, expected, partial)


def structured_call(
    response: Response | Mapping[str, Any],
    schema: str | Schema,
    *,
    tool_name: str | None = None,
    payload_key: str | None = None,
    expected: Any = ABSENT,
    strict: bool = True,
    partial: bool = False,
) -> dict[str, Any]:
    """As `structured_output`, of the arguments of the one tool call of the response, or of what stands there under a key.

    Further values of `error_type`: `missing_tool_call`, `multiple_tool_calls`, `wrong_tool_name`,
    `tool_arguments_parse_error`, `missing_tool_payload_key`.
    """
    wanted = read_schema(schema, strict)
    calls = tool_calls(response)  # type: ignore[arg-type]
    if len(calls) != 1:
        kind = "multiple_tool_calls" if calls else "missing_tool_call"
        return _failed(kind, f"there are {len(calls)} tool calls, not one", expected)
    name, value = calls[0].get("name"), calls[0].get("arguments")
    if tool_name and name != tool_name:
        return _failed("wrong_tool_name", f"{name!r:.80} was called, not {tool_name!r}", expected)
    if isinstance(value, str):
        try:
            value = parse(value, "json", wanted)
        except Unreadable as error:
            return _failed("tool_arguments_parse_error", f"the arguments are no JSON: {error}", expected)
    if payload_key:
        if not isinstance(value, dict) or payload_key not in value:
            return _failed("missing_tool_payload_key", f"the arguments have no {payload_key!r}", expected)
        value = value[payload_key]
    return _judged(value, wanted, expected, partial)


def read_schema(schema: str | Schema, strict: bool = False) -> Any:
    """A schema from a row. Raises `VerifierFault`."""
    if isinstance(schema, str):
        try:
            schema = parse(schema, "json", True)
        except Unreadable as error:
            raise VerifierFault(f"the schema is no JSON: {error}") from error
    check_schema(schema)
    return strictly(schema) if strict else schema


def _judged(value: Any, schema: Any, expected: Any, partial: bool) -> dict[str, Any]:
    found = violations(value, schema)
    met = share(schema, found)
    message = "; ".join(f"{one.path}: {one.message}" for one in found[:5])[:MESSAGE]
    verdict: dict[str, Any] = {"schema_valid": float(not found), "constraints_met": met}
    if expected is ABSENT:
        reward = met if partial else float(not found)
        return {"reward": reward, **verdict, **_error("validation_error" if found else None, message)}
    leaves = _leaves(expected)
    right = sum(same(leaf, _at(value, path)) for path, leaf in leaves) / len(leaves)
    exact = not found and same(value, expected)
    # Nothing but the expected one has all: a further item of a list is no leaf that is missed.
    right = 1.0 if exact else min(right, 1 - 1 / (len(leaves) + 1))
    reward = 0.0 if found else right if partial else float(exact)
    if not found and not exact:
        message = f"{1 - right:.0%} of the values are not the expected ones"
    error = "validation_error" if found else None if exact else "wrong_values"
    return {"reward": reward, **verdict, "values_right": right, **_error(error, message)}


def _failed(kind: str, message: str, expected: Any) -> dict[str, Any]:
    values = {} if expected is ABSENT else {"values_right": 0.0}
    return {"reward": 0.0, "schema_valid": 0.0, "constraints_met": 0.0, **values, **_error(kind, message[:MESSAGE])}


def _error(kind: str | None, message: str) -> dict[str, Any]:
    return {"error_type": kind, "error_message": message if kind else None}


def _leaves(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """What the expected document says, place by place."""
    found: list[tuple[tuple[Any, ...], Any]] = []
    pending: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while pending:
        steps, one = pending.pop()
        entries = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        inner = [((*steps, step), item) for step, item in entries]
        pending += inner
        if not inner:
            found.append((steps, one))
    return found


def _at(value: Any, steps: tuple[Any, ...]) -> Any:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return ABSENT
    return value
