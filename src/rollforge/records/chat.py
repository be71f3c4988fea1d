"""Responses <-> Chat Completions, both ways: requests and answers, as pure functions on JSON objects.

    params   --chat_request-->    body          body        --params_from_chat-->         params
    response --chat_completion--> completion    completion  --response_from_completion--> response
    items    --messages-->        messages      messages    --items_from_messages-->      items
    params   --responses_request-->  body, whose parts are in the form of either

Items become messages, and messages items, in `records.messages`. A tool or parameter that Chat Completions cannot express
raises `UserError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from rollforge.errors import InfraFault, UserError
from rollforge.records.items import Item, Json, Params, Response, Usage, input_items, item_type, token_count
from rollforge.records.messages import (
    WIRE,
    Dialect,
    Turn,
    as_items,
    assistant_kind,
    items_from_messages,
    messages,
    others,
    translate,
    turn_items,
    unique,
)

# Requests


def chat_request(params: Mapping[str, Any], dialect: Dialect = WIRE) -> Json:
    """The body of a Chat Completions request, without a model if `params` names none. Parameters that Responses does not
    know (seed, stop, top_k, ...) keep their names. NeMo Gym's `metadata.extra_body` and `metadata.chat_template_kwargs`
    (JSON in a string) are unpacked into the body, last."""
    body: Json = {"messages": messages(params, (), dialect)}
    translate(params, body, _TO_CHAT, _INPUT, dialect)
    if "tools" not in body:
        # Servers refuse these without tools; the data sets have them everywhere.
        body.pop("tool_choice", None)
        body.pop("parallel_tool_calls", None)
    metadata = params.get("metadata")
    if isinstance(metadata, dict):
        _unpack_metadata(body, metadata)
    return body


def params_from_chat(body: Mapping[str, Any]) -> Params:
    """The Responses parameters of a Chat Completions request. Raises `UserError` if it has no list of messages."""
    chat = body.get("messages")
    if not isinstance(chat, list):
        raise UserError("the request has no messages (a list of chat messages)")
    params: Json = {"input": items_from_messages(chat)}
    translate(body, params, _FROM_CHAT, ("messages",))
    return params  # type: ignore[return-value]


def responses_request(params: Mapping[str, Any]) -> Json:
    """The body of a Responses request, without nulls. Items, tools and a choice of one that a task has as Chat Completions
    does are there as Responses has them."""
    body: Json = {key: value for key, value in params.items() if value is not None}
    body["input"] = as_items(input_items(params))
    if body.get("tools"):
        body["tools"] = [flat_tool(tool) for tool in body["tools"]]
    if "tool_choice" in body:
        _tool_choice_from_chat(body, body["tool_choice"])
    return body


_INPUT = frozenset(("input", "instructions", "metadata"))


def _unpack_metadata(body: Json, metadata: Json) -> None:
    rest = {key: value for key, value in metadata.items() if key not in ("extra_body", "chat_template_kwargs")}
    if rest:
        body["metadata"] = rest
    if "chat_template_kwargs" in metadata:
        body["chat_template_kwargs"] = _json_object(metadata, "chat_template_kwargs")
    if "extra_body" in metadata:
        body |= _json_object(metadata, "extra_body")


def _json_object(metadata: Json, key: str) -> Json:
    value = metadata[key]
    try:
        value = orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError as error:
        raise UserError(f"metadata.{key} is not JSON ({error.msg}): {metadata[key][:100]!r}") from None
    if not isinstance(value, dict):
        raise UserError(f"metadata.{key} is {type(value).__name__}, not an object: {metadata[key]!r:.100}")
    return value


def _tools(body: Json, tools: Any, dialect: Dialect) -> None:
    if tools:
        body["tools"] = [_tool_to_chat(tool) for tool in tools]


def _tool_to_chat(tool: Json) -> Json:
    if tool.get("type", "function") != "function":
        raise UserError(
            f"Chat Completions has functions only, and a tool of type {tool.get('type')!r} is run by a Responses server; "
            f"use --model openai:NAME, or take it out of the task's tools"
        )
    if isinstance(tool.get("function"), dict):
        return tool
    function = {key: tool[key] for key in _FUNCTION_KEYS if tool.get(key) is not None}
    return {"type": "function", "function": function} | others(tool, ("type", *_FUNCTION_KEYS))


def flat_tool(tool: Json) -> Json:
    """As the Responses API has it: the same object, unless it is nested, as Chat Completions has it."""
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    return {"type": "function", **function} | others(tool, ("type", "function"))


_FUNCTION_KEYS = ("name", "description", "parameters", "strict")


def _tool_choice(body: Json, choice: Any, dialect: Dialect) -> None:
    body["tool_choice"] = choice
    if not isinstance(choice, dict):
        return
    if choice.get("type") == "function" and "name" in choice:
        body["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice.get("type") == "allowed_tools" and "tools" in choice:
        named = [{"type": "function", "function": {"name": tool.get("name")}} for tool in choice["tools"]]
        body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": named}}
    elif choice.get("type") not in ("function", "allowed_tools"):
        raise UserError(f"tool_choice {choice!r:.100} names a tool that Chat Completions does not have")


def _tool_choice_from_chat(params: Json, choice: Any) -> None:
    params["tool_choice"] = choice
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        params["tool_choice"] = {"type": "function", **choice["function"]}
    elif isinstance(choice, dict) and isinstance(choice.get("allowed_tools"), dict):
        allowed = choice["allowed_tools"]
        named = [{"type": "function", **(tool.get("function") or {})} for tool in allowed.get("tools") or []]
        params["tool_choice"] = {"type": "allowed_tools", "mode": allowed.get("mode"), "tools": named}


def _text(body: Json, text: Json, dialect: Dialect) -> None:
    if not isinstance(text, dict):
        raise UserError(f"text is {type(text).__name__}, not an object such as {{'format': {{'type': 'json_object'}}}}")
    for key, value in text.items():
        if key == "format" and isinstance(value, dict):
            schema = {name: value[name] for name in value if name != "type"}
            nested = {"type": value.get("type"), "json_schema": schema}
            body["response_format"] = nested if value.get("type") == "json_schema" else value
        elif value is not None:
            body[key] = value


def _format_from_chat(params: Json, value: Any) -> None:
    if isinstance(value, dict) and isinstance(value.get("json_schema"), dict):
        value = {"type": "json_schema", **value["json_schema"]}
    params.setdefault("text", {})["format"] = value


def _refuse(name: str) -> Callable[[Json, Any, Dialect], None]:
    def put(body: Json, value: Any, dialect: Dialect) -> None:
        if value:
            raise UserError(f"{name} needs a Responses endpoint (--model openai:NAME); Chat Completions has nothing like it")

    return put


def _reasoning(body: Json, reasoning: Any, dialect: Dialect) -> None:
    # `summary` says how reasoning is to be shown; chat servers have no such choice.
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]


def _include(body: Json, include: Any, dialect: Dialect) -> None:
    if _LOGPROBS in include:
        body["logprobs"] = True


def _logprobs_from_chat(params: Json, wanted: Any) -> None:
    if wanted:
        params["include"] = [_LOGPROBS]


def _nothing(body: Json, value: Any, dialect: Dialect) -> None:
    """Says nothing to a chat server: how to deliver, how to shorten, limits of hosted tools."""


_LOGPROBS = "message.output_text.logprobs"

_TO_CHAT: dict[str, Callable[[Json, Any, Dialect], None]] = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
    "max_output_tokens": lambda body, value, dialect: body.update({dialect.max_tokens: value}),
    "top_logprobs": lambda body, value, dialect: body.update(logprobs=True, top_logprobs=value),
    "stream": _nothing,
    "truncation": _nothing,
    "max_tool_calls": _nothing,
    "background": _refuse("background"),
    "conversation": _refuse("conversation"),
    "previous_response_id": _refuse("previous_response_id"),
    "prompt": _refuse("prompt (a stored template)"),
}

_FROM_CHAT: dict[str, Callable[[Json, Any], None]] = {
    "tools": lambda params, value: params.update(tools=[flat_tool(tool) for tool in value]),
    "tool_choice": _tool_choice_from_chat,
    "response_format": _format_from_chat,
    "verbosity": lambda params, value: params.setdefault("text", {}).update(verbosity=value),
    "reasoning_effort": lambda params, value: params.update(reasoning={"effort": value}),
    "logprobs": _logprobs_from_chat,
    "max_tokens": lambda params, value: params.setdefault("max_output_tokens", value),
    "max_completion_tokens": lambda params, value: params.update(max_output_tokens=value),
}


# Answers


def response_from_completion(completion: Any, tokens: Json | None = None) -> Response:
    """The answer of a chat server as a Response. `tokens`: the training fields of this call, if the caller read them.

    Raises `InfraFault` saying what is wrong with an answer that has not the shape of one.
    """
    choice, message = first_choice(completion)
    logprobs = choice.get("logprobs")
    logprobs = logprobs.get("content") if isinstance(logprobs, dict) and not tokens else None
    output = turn_items(message, None, logprobs=logprobs)
    if tokens:
        output[-1] |= tokens
    finish = choice.get("finish_reason")
    reason = _REASONS.get(finish.lower()) if isinstance(finish, str) else None
    extra = others(completion, _COMPLETION_KEYS) | others(choice, _CHOICE_KEYS)
    response: Json = extra | {
        "id": completion.get("id") or f"resp_{unique()}",
        "object": "response",
        "created_at": completion.get("created") or time.time(),
        "model": completion.get("model") or "",
        "status": "incomplete" if reason else "completed",
        "output": output,
        "usage": usage_from_chat(completion.get("usage")),
    }
    if reason:
        response["incomplete_details"] = {"reason": reason}
        if output[-1]["type"] != "reasoning":
            output[-1]["status"] = "incomplete"
    return response  # type: ignore[return-value]


def first_choice(completion: Any) -> tuple[Json, Json]:
    """The choice and its message. Raises `InfraFault` if the answer is no chat completion."""
    if not isinstance(completion, dict):
        raise InfraFault(f"the server's answer is {type(completion).__name__}, not a chat completion: {completion!r:.200}")
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and isinstance(message, dict):
        calls, content = message.get("tool_calls") or [], message.get("content")
        if not isinstance(calls, list) or not all(map(_is_call, calls)):
            raise InfraFault(f"the server's answer has tool_calls that are no list of function calls: {calls!r:.200}")
        if content is not None and not isinstance(content, (str, list)):
            raise InfraFault(f"the server's answer has a content of type {type(content).__name__}: {content!r:.200}")
        return choice, message
    error = completion.get("error")
    if error:
        text = error.get("message") if isinstance(error, dict) else error
        raise InfraFault(f"the server answered with an error in place of a chat completion: {text!s:.500}")
    lacks = "no choices" if not choices else "a choice without a message"
    raise InfraFault(f"the server's answer is no chat completion: it has {lacks} (keys: {', '.join(map(str, completion))})")


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


_ANSWER = Dialect(tokens=True)


def chat_completion(response: Response, dialect: Dialect = _ANSWER) -> Json:
    """A Response to one model call as a chat completion. Raises `UserError` for a whole episode, which has no such form."""
    turn = Turn()
    for item in response.get("output") or []:
        kind = assistant_kind(item)
        if not kind:
            raise UserError(f"a chat completion is one model call; this response holds a {item_type(item) or '?'} as well")
        turn.add(kind, item)
    reason = (response.get("incomplete_details") or {}).get("reason")
    usual = "tool_calls" if turn.calls else "stop"
    choice: Json = {
        "index": 0,
        "message": turn.message(dialect),
        "finish_reason": _FINISHES.get(reason, reason) if reason else usual,
    }
    logprobs = [entry for item in response.get("output") or [] for entry in _logprobs_of(item)]
    if logprobs:
        choice["logprobs"] = {"content": logprobs}
    annotations = [entry for item in response.get("output") or [] for entry in _annotations_of(item)]
    if annotations:
        choice["message"]["annotations"] = annotations
    extra = others(response, _RESPONSE_KEYS)
    choice |= {key: extra.pop(key) for key in _CHOICE_EXTRA if key in extra}
    return {
        "id": response.get("id") or f"chatcmpl-{unique()}",
        "object": "chat.completion",
        "created": int(response.get("created_at") or time.time()),
        "model": response.get("model") or "",
        "choices": [choice],
        "usage": usage_to_chat(response.get("usage")),
    } | extra


def _parts_of(item: Item) -> list[Json]:
    content = item.get("content") if item_type(item) == "message" else None
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _logprobs_of(item: Item) -> list[Json]:
    return [entry for part in _parts_of(item) for entry in part.get("logprobs") or ()]


def _annotations_of(item: Item) -> list[Json]:
    found = [annotation for part in _parts_of(item) for annotation in part.get("annotations") or ()]
    return [{"type": a.get("type"), a.get("type"): {key: a[key] for key in a if key != "type"}} for a in found]


_REASONS = {
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "max_length", "model_length"), "max_output_tokens"),
    **dict.fromkeys(("max_context", "model_context_window_exceeded"), "max_context"),
    **dict.fromkeys(("content_filter", "safety", "refusal"), "content_filter"),
    "repetition": "repetition",  # vLLM's, which ends an answer that goes round in circles
    "pause_turn": "pause_turn",
}
"""Finish reason, in lower case -> why the answer is incomplete. Any other (stop, eos_token, end_turn, ...) is a normal end:
servers have their own words for it."""
_FINISHES = {"max_output_tokens": "length", "max_context": "length"}
_COMPLETION_KEYS = frozenset(("id", "object", "created", "model", "choices", "usage", "prompt_token_ids"))
_CHOICE_KEYS = frozenset(
    ("index", "message", "finish_reason", "logprobs", "token_ids", "prompt_token_ids", "meta_info", "routed_experts")
)
_CHOICE_EXTRA = ("stop_reason", "matched_stop", "content_filter_results")
_RESPONSE_KEYS = frozenset(
    (
        *("id", "object", "created_at", "completed_at", "status", "error", "incomplete_details", "model", "output", "usage"),
        *("background", "conversation", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "output_text"),
        *("parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_retention", "store"),
        *("reasoning", "safety_identifier", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "user"),
        "truncation",
    )
)
"""Of a response: what it is, and what it repeats of its request."""


def usage_from_chat(usage: Any) -> Usage | None:
    """Token counts with both details, which Responses requires; None if the server gave none."""
    if not isinstance(usage, dict):
        return None
    read, written = token_count(usage.get("prompt_tokens")), token_count(usage.get("completion_tokens"))
    extra = others(usage, _CHAT_USAGE)
    details = _details(usage.get("completion_tokens_details"), "reasoning_tokens")
    if not details["reasoning_tokens"]:
        # SGLang has it beside the others.
        details["reasoning_tokens"] = extra.pop("reasoning_tokens", 0)
    counts: Json = {
        "input_tokens": read,
        "input_tokens_details": _details(usage.get("prompt_tokens_details"), "cached_tokens"),
        "output_tokens": written,
        "output_tokens_details": details,
        "total_tokens": token_count(usage.get("total_tokens")) or read + written,
    }
    return counts | extra  # type: ignore[return-value]


def usage_to_chat(usage: Usage | None) -> Json | None:
    if usage is None:
        return None
    read, written = usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": usage.get("total_tokens") or read + written,
        "prompt_tokens_details": _details(usage.get("input_tokens_details"), "cached_tokens"),
        "completion_tokens_details": _details(usage.get("output_tokens_details"), "reasoning_tokens"),
    } | others(usage, _USAGE)


def _details(given: Any, needed: str) -> Json:
    found = {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else {}
    found.setdefault(needed, 0)
    return found


_CHAT_USAGE = frozenset(
    ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")
)
_USAGE = frozenset(("input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details"))
