"""Requests of three dialects -> the parameters of a model call, or a 400 that names what cannot be done.

What a backend may rely on is checked here: the types of the parameters that it reads, and the shape of the items. Parameters
that nobody here knows pass through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforge.errors import UserError
from rollforge.records.anthropic import params_from_messages
from rollforge.records.chat import params_from_chat
from rollforge.records.items import TOKEN_FIELDS, Json, Params, check_params, input_items, item_type
from rollforge.records.problem import bad_request

_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(_NUMBERS, ((int, float), "a number")),
    **dict.fromkeys(("max_output_tokens", "top_logprobs", "seed", "top_k"), ((int,), "a whole number")),
    **dict.fromkeys(("text", "reasoning", "metadata"), ((dict,), "an object")),
    **dict.fromkeys(("tools", "include"), ((list,), "a list")),
    **dict.fromkeys(("model", "instructions", "user", "prompt_cache_key"), ((str,), "a text")),
    **dict.fromkeys(("stop",), ((str, list), "a text or a list of texts")),
    **dict.fromkeys(("tool_choice",), ((str, dict), "a text or an object")),
}
_REFUSED = ("background", "conversation", "previous_response_id", "prompt", "audio", "functions", "function_call")
"""Nothing is kept between requests, and answers are text and calls of `tools`."""
_DELIVERY = ("stream", "stream_options", "n", "background")
"""How to answer, not what to ask."""


ITEM: Json = {
    "type": "object",
    "anyOf": [
        {"required": ["role"], "properties": {"role": {"type": "string"}}},
        {"required": ["type"], "properties": {"type": {"type": "string", "minLength": 1}}},
    ],
}
"""JSON Schema of an item."""
INPUT: Json = {"anyOf": [{"type": "string"}, {"type": "array", "items": ITEM}]}

_FULL: Json = {"anyOf": [{"type": "string", "pattern": "[^ \\t\\r\\n]"}, {"type": "array", "items": ITEM, "minItems": 1}]}
_PARAMS: Json = {"type": "object", "required": ["input"], "properties": {"input": _FULL}}
ROW: Json = {
    "type": "object",
    "description": "A task row: responses_create_params, or a prompt, and the fields that its verifier wants.",
    "anyOf": [
        {"required": ["responses_create_params"], "properties": {"responses_create_params": _PARAMS}},
        *(
            {"required": [key], "properties": {key: _FULL, "responses_create_params": {"type": "null"}}}
            for key in ("prompt", "messages", "input")
        ),
    ],
}
"""JSON Schema of what a rollout is made of."""


def of_responses(body: Json) -> Params:
    """Raises `Problem` 400 naming the parameter."""
    return _checked(dict(body))


def of_chat(body: Json) -> Params:
    if body.get("n") not in (None, 1):
        raise bad_request(f"n is {body['n']!r:.100}; one answer per request is given: ask several times", param="n")
    return _checked(_read(params_from_chat, body, "messages"))


def of_messages(body: Json) -> Params:
    return _checked(_read(params_from_messages, body, "messages"))


def _read(convert: Any, body: Json, where: str) -> Json:
    try:
        return convert(body)  # type: ignore[no-any-return]
    except UserError as error:
        raise bad_request(str(error), param=where) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The conversion reads what is there as it should be; a caller may send anything.
        raise bad_request(f"the request has not the shape of its API ({error!r:.200})") from error


def _checked(params: Json) -> Params:
    for name, value in params.items():
        if value and name in _REFUSED:
            raise bad_request(f"{name} is not supported: send the whole conversation, and tools as `tools`", param=name)
    params = {key: value for key, value in params.items() if key not in _DELIVERY and value is not None}
    for name, value in params.items():
        types, words = _TYPES.get(name, ((), ""))
        if types and (not isinstance(value, types) or isinstance(value, bool)):
            raise bad_request(f"{name} is {value!r:.100}, not {words}", param=name)
    if params.get("store"):
        del params["store"]  # nothing is; that nothing shall be is passed on
    _check_values(params)
    problem = check_params(params)
    if problem:
        raise bad_request(problem, param="input")
    params["input"] = input_items(params)
    for place, item in enumerate(params["input"]):
        problem = _wrong(item)
        if problem:
            raise bad_request(f"input[{place}]{problem}", param="input")
    return params  # type: ignore[return-value]


def _check_values(params: Mapping[str, Any]) -> None:
    for name, low, high in (("temperature", 0, 100), ("top_p", 0, 1), ("max_output_tokens", 1, 2**40)):
        if name in params and not low <= params[name] <= high:
            raise bad_request(f"{name} is {params[name]!r:.100}, not from {low} to {high}", param=name)
    for name in ("seed", "top_k", "top_logprobs"):
        if name in params and abs(params[name]) >= 2**63:
            raise bad_request(f"{name} has more than 64 bits", param=name)
    if "stop" in params and not all(isinstance(text, str) for text in params["stop"]):
        raise bad_request("stop has something that is no text", param="stop")
    if "include" in params and not all(isinstance(name, str) for name in params["include"]):
        raise bad_request("include has something that is no text", param="include")
    form = params.get("text", {}).get("format")
    if not isinstance(form, (dict, type(None))):
        raise bad_request(f"text.format is {form!r:.100}, not an object", param="text")
    for place, tool in enumerate(params.get("tools", ())):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        named = isinstance(function, dict) and isinstance(function.get("name"), str)
        if not isinstance(tool, dict) or (tool.get("type", "function") == "function" and not named):
            raise bad_request(f"tools[{place}] is no function with a name: {tool!r:.100}", param="tools")
    choice = params.get("tool_choice")
    if isinstance(choice, dict):
        of = choice.get("tools", [])
        if not isinstance(of, list) or not all(isinstance(tool, dict) for tool in of):
            raise bad_request(f"tool_choice.tools is no list of tools: {of!r:.100}", param="tool_choice")


def _wrong(item: Json) -> str | None:
    """What of an item is not of its type."""
    for field in TOKEN_FIELDS if not item.keys().isdisjoint(TOKEN_FIELDS) else ():
        numbers = item.get(field) or []
        if not isinstance(numbers, list) or not all(type(n) in (int, float) for n in numbers):
            return f".{field} is no list of numbers"
    kind: Any = item_type(item)
    if not isinstance(kind, str):
        return f".type is {kind!r:.100}, not a text"
    if kind == "message":
        if not isinstance(item.get("role"), str):
            return f".role is {item.get('role')!r:.100}, not a text"
        return _wrong_content(item.get("content"), "content")
    if kind == "function_call" and not isinstance(item.get("arguments", ""), (str, dict)):
        return f".arguments is {item['arguments']!r:.100}, not JSON text"
    if kind in ("function_call", "function_call_output") and not isinstance(item.get("call_id"), str):
        return f".call_id is {item.get('call_id')!r:.100}, not a text"
    if kind == "function_call_output":
        return _wrong_content(item.get("output"), "output")
    if kind == "reasoning":
        return _wrong_content(item.get("summary"), "summary") or _wrong_content(item.get("content"), "content")
    return None


def _wrong_content(content: Any, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return None
    if not isinstance(content, list):
        return f".{where} is {content!r:.100}, neither a text nor a list of parts"
    for place, part in enumerate(content):
        if isinstance(part, str):
            continue
        if not isinstance(part, dict) or not isinstance(part.get("type", ""), str):
            return f".{where}[{place}] is {part!r:.100}, not a part"
        for field in ("text", "refusal"):
            if not isinstance(part.get(field, ""), (str, type(None))):
                return f".{where}[{place}].{field} is {part[field]!r:.100}, not a text"
    return None
