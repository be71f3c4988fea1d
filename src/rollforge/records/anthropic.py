"""Responses <-> Anthropic Messages, both ways: requests and answers, as pure functions on JSON objects.

    params   --messages_request-->  body       body     --params_from_messages-->   params
    response --message_from-->      message    message  --response_from_message-->  response

What Messages has no place for: ids of items, token ids, reasoning that another model signed or nobody. What Responses has no
place for and is dropped: cache marks, service tiers. Hosted tools and their blocks pass as items of their own type, which
only the model that knows them takes. Shapes: the Anthropic API reference, "Messages".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rollforge.errors import InfraFault, UserError
from rollforge.records.blocks import items_of, output_item, parts_of, thinking_of, turn_of
from rollforge.records.items import (
    Item,
    Json,
    Params,
    Response,
    Usage,
    assistant,
    input_items,
    inside,
    item_type,
    text_of,
    token_count,
)
from rollforge.records.messages import as_items, others, translate, unique

MAX_TOKENS = 8192
"""Messages needs a limit; this one is sent where a request names none."""

# Requests


def params_from_messages(body: Mapping[str, Any]) -> Params:
    """The Responses parameters of a Messages request. Raises `UserError` for what cannot be one."""
    if not isinstance(body.get("messages"), list):
        raise UserError("the request has no messages (a list)")
    refused = [key for key in ("mcp_servers", "container") if body.get(key)]
    if refused:
        raise UserError(f"{refused[0]} needs Anthropic's own servers; leave it out")
    params: Json = {"input": [item for n, message in enumerate(body["messages"]) for item in items_of(message, n)]}
    translate(body, params, _FROM_MESSAGES, _DROPPED | {"messages"})
    if not params.get("tools"):
        params.pop("tool_choice", None)
    return params  # type: ignore[return-value]


def messages_request(params: Mapping[str, Any]) -> Json:
    """The body of a Messages request, without a model if `params` names none. System and developer messages join
    `instructions` in `system`, wherever they stand. Raises `UserError` for what Messages cannot express."""
    systems = [params.get("instructions") or ""]
    messages: list[Json] = []
    for item in as_items(input_items(params)):
        role, blocks = turn_of(item)
        if role == "system":
            systems.append(text_of(item.get("content")))
        elif blocks and messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    for message in messages:
        # The results of tools come first in the answer to their calls.
        message["content"].sort(key=lambda block: message["role"] == "user" and block["type"] != "tool_result")
    body: Json = {"messages": messages, "max_tokens": params.get("max_output_tokens") or MAX_TOKENS}
    system = "\n\n".join(text for text in systems if text)
    if system:
        body["system"] = system
    translate(params, body, _TO_MESSAGES, _NOT_SENT)
    if not body.get("tools"):
        body.pop("tool_choice", None)
    elif params.get("parallel_tool_calls") is False:
        choice = body.setdefault("tool_choice", {"type": "auto"})
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return body


# Answers


def response_from_message(message: Any) -> Response:
    """The answer of a Messages server as a Response. Raises `InfraFault` for what is none."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        error = message.get("error") if isinstance(message, dict) else None
        said = error.get("message") if isinstance(error, dict) else repr(message)
        raise InfraFault(f"the server's answer is no message of the Messages API: {said!s:.500}")
    output = [output_item(block) for block in content]
    if not output:
        output.append(assistant("", f"msg_{unique()}"))
    stop = message.get("stop_reason")
    reason = _REASONS.get(stop)
    if reason and item_type(output[-1]) != "reasoning":
        output[-1]["status"] = "incomplete"
    extra = others(message, ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"))
    if stop == "stop_sequence":
        extra["stop_reason"] = message.get("stop_sequence")
    return extra | {  # type: ignore[return-value]
        "id": message.get("id") or f"resp_{unique()}",
        "object": "response",
        "created_at": time.time(),
        "model": message.get("model") or "",
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage_from_message(message.get("usage")),
    }


def message_from(response: Response) -> Json:
    """A Response to one model call as a message. Raises `UserError` for a whole episode, which has no such form."""
    content = [block for item in response.get("output") or [] for block in blocks_of(item)]
    return {
        "id": response.get("id") or f"msg_{unique()}",
        "type": "message",
        "role": "assistant",
        "model": response.get("model") or "",
        "content": content,
        **stop_of(response),
        "usage": usage_to_message(response.get("usage")),
    }


def blocks_of(item: Item) -> list[Json]:
    """The blocks of an output item, as an answer shows them."""
    if item_type(item) == "reasoning":
        # Without a signature too: it is to be read. Going back, it is left out.
        return [thinking_of(item)]
    role, blocks = turn_of(item)
    if role != "assistant":
        raise UserError(f"a message is one model call; this response holds a {item_type(item) or '?'} as well")
    return blocks


def stop_of(response: Response) -> Json:
    """stop_reason and stop_sequence."""
    output = response.get("output") or []
    reason = (response.get("incomplete_details") or {}).get("reason")
    found = response.get("stop_reason")
    stop, text = "end_turn", None
    if reason:
        stop = _STOPS.get(reason, "max_tokens")
    elif any(item.get("type") == "function_call" for item in output):
        stop = "tool_use"
    elif any(isinstance(part, dict) and part.get("type") == "refusal" for item in output for part in parts_of(item)):
        stop = "refusal"
    elif isinstance(found, str):
        stop, text = "stop_sequence", found
    return {"stop_reason": stop, "stop_sequence": text}


def usage_from_message(usage: Any) -> Usage | None:
    """Responses counts what was read from a cache as input, Messages beside it."""
    if not isinstance(usage, dict):
        return None
    cached = token_count(usage.get("cache_read_input_tokens"))
    read = token_count(usage.get("input_tokens")) + cached + token_count(usage.get("cache_creation_input_tokens"))
    written = token_count(usage.get("output_tokens"))
    thought = token_count(inside(usage, "output_tokens_details", "thinking_tokens"))
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": read + written,
    }


def usage_to_message(usage: Usage | None) -> Json:
    """Zeros where nothing is known: Messages requires the numbers."""
    given: Mapping[str, Any] = usage or {}
    cached = token_count((given.get("input_tokens_details") or {}).get("cached_tokens"))
    return {
        "input_tokens": max(0, token_count(given.get("input_tokens")) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": token_count(given.get("output_tokens")),
    }


_REASONS: dict[Any, str] = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_context",
    "refusal": "content_filter",
    "pause_turn": "pause_turn",
}
_STOPS = {reason: stop for stop, reason in _REASONS.items()}


# Parameters, one by one


def _tool_from(tool: Json) -> Json:
    if tool.get("type", "custom") != "custom" or "input_schema" not in tool:
        return tool
    extra = others(tool, ("type", "input_schema", "cache_control", "eager_input_streaming"))
    return {"type": "function", **extra, "parameters": tool["input_schema"]}


def _tool_to(tool: Json) -> Json:
    nested = tool.get("function")
    function: Json = nested if isinstance(nested, dict) else tool
    if tool.get("type", "function") != "function":
        return tool
    found = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    strict = {"strict": True} if function.get("strict") else {}
    return found | strict | ({"description": function["description"]} if function.get("description") else {})


def _choice_from(params: Json, choice: Any) -> None:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "none", "tool"):
        raise UserError(f"tool_choice is {choice!r:.100}; known types: auto, any, none, tool")
    params["tool_choice"] = {"any": "required", "tool": {"type": "function", "name": choice.get("name")}}.get(kind, kind)
    if choice.get("disable_parallel_tool_use"):
        params["parallel_tool_calls"] = False


def _choice_to(body: Json, choice: Any) -> None:
    if isinstance(choice, dict):
        name = choice.get("name") or (choice.get("function") or {}).get("name")
        if not name:
            raise UserError(f"tool_choice {choice!r:.100} cannot be asked of the Messages API")
        body["tool_choice"] = {"type": "tool", "name": name}
    else:
        body["tool_choice"] = {"type": {"required": "any"}.get(choice, choice)}


def _system_from(params: Json, system: Any) -> None:
    params["instructions"] = system if isinstance(system, str) else "\n\n".join(text_of([block]) for block in system)


def _thinking_from(params: Json, thinking: Any) -> None:
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    if kind == "enabled" and isinstance(budget, int):
        effort = "low" if budget <= 4096 else "medium" if budget <= 16384 else "high"
        params["reasoning"] = {"effort": effort, "budget_tokens": budget} | params.get("reasoning", {})
    elif kind == "disabled":
        params.pop("reasoning", None)


def _config_from(params: Json, config: Any) -> None:
    if config.get("effort"):
        params["reasoning"] = {**params.get("reasoning", {}), "effort": config["effort"]}
    if config.get("format"):
        schema = config["format"].get("schema")
        params["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}


def _reasoning_to(body: Json, reasoning: Any) -> None:
    effort, budget = reasoning.get("effort"), reasoning.get("budget_tokens")
    if budget:
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    elif effort in ("none", "minimal"):
        body["thinking"] = {"type": "disabled"}
    elif effort:
        body["thinking"] = {"type": "adaptive"}
        body.setdefault("output_config", {})["effort"] = effort


def _text_to(body: Json, text: Any) -> None:
    wanted = text.get("format") or {}
    if wanted.get("type") == "json_schema":
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": wanted.get("schema")}


_DROPPED = frozenset(
    (
        *("cache_control", "context_management", "diagnostics", "inference_geo", "service_tier", "speed", "stream"),
        *("user_profile_id", "workspace_id"),
    )
)
_FROM_MESSAGES: dict[str, Any] = {
    "system": _system_from,
    "max_tokens": lambda params, value: params.update(max_output_tokens=value),
    "stop_sequences": lambda params, value: params.update(stop=value),
    "tools": lambda params, value: params.update(tools=[_tool_from(tool) for tool in value]),
    "tool_choice": _choice_from,
    "thinking": _thinking_from,
    "output_config": _config_from,
}
_NOT_SENT = frozenset(
    (
        *("input", "instructions", "max_output_tokens", "parallel_tool_calls", "stream", "store", "truncation", "include"),
        *("user", "seed", "prompt_cache_key", "safety_identifier", "max_tool_calls", "background", "metadata"),
    )
)
"""What Messages has under another name, or not at all."""
_TO_MESSAGES: dict[str, Any] = {
    "stop": lambda body, value: body.update(stop_sequences=[value] if isinstance(value, str) else value),
    "tools": lambda body, value: body.update(tools=[_tool_to(tool) for tool in value]) if value else None,
    "tool_choice": _choice_to,
    "reasoning": _reasoning_to,
    "text": _text_to,
}
