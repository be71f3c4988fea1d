"""Items of the OpenAI Responses API as plain JSON objects, and the few questions everybody asks of them.

Items stay the dictionaries they arrived as, so unknown fields survive every hop; the TypedDicts name the fields that this
package reads. `check_items` is the one place that validates them, where they enter. Shapes: the OpenAI API reference,
"Responses", and the training fields of NeMo Gym (`prompt_token_ids`, `generation_token_ids`, `generation_log_probs`:
all three or none, on the last output item of each model call).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

Item: TypeAlias = dict[str, Any]
"""message {role, content}, reasoning {summary, content?}, function_call {call_id, name, arguments: str},
function_call_output {call_id, output}; any other type passes through."""

Json: TypeAlias = dict[str, Any]


class Usage(TypedDict, total=False):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: Json
    output_tokens_details: Json


class Response(TypedDict, total=False):
    """A model's (or, summed over an episode, an agent's) answer: a Responses API response object."""

    id: str
    object: str
    created_at: float
    model: str
    output: list[Item]
    usage: Usage | None
    status: str
    incomplete_details: Json | None
    """`{"reason": "max_output_tokens" | "content_filter" | "max_turns" | ...}` when the answer was cut."""
    error: Any
    metadata: Any


class Params(TypedDict, total=False):
    """`responses_create_params`: what is asked of the model. Extra keys survive."""

    input: str | list[Item]
    instructions: str | None
    tools: list[Json]
    tool_choice: Any
    parallel_tool_calls: bool | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    text: Json | None
    reasoning: Json | None
    metadata: Any


BYTES_PER_TOKEN = 4
"""Where nobody counted tokens they are estimated: UTF-8 bytes of what was written, by this, rounded up."""
TOKEN_FIELDS = ("prompt_token_ids", "generation_token_ids", "generation_log_probs")


def user(text: str) -> Item:
    return {"type": "message", "role": "user", "content": text}


def system(text: str) -> Item:
    return {"type": "message", "role": "system", "content": text}


def assistant(text: str, id: str = "msg_0") -> Item:
    """An output message, with every field the Responses API requires of one."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part]}


def function_call(name: str, arguments: str, call_id: str, id: str | None = None) -> Item:
    """`arguments` is the JSON text as the model wrote it, valid or not."""
    item: Item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return {**item, "id": id or call_id, "status": "completed"}


def function_call_output(call_id: str, output: str) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def input_items(params: Mapping[str, Any]) -> list[Item]:
    """The prompt as items; a string input is one user message. Does not include `instructions`."""
    value = params.get("input")
    return [user(value)] if isinstance(value, str) else list(value or [])


def item_type(item: Mapping[str, Any]) -> str:
    """Messages may leave `type` out ("easy messages"); they have a role."""
    return item.get("type") or ("message" if "role" in item else "")


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list, joined as they stand."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (p if isinstance(p, str) else p.get("text") or "" for p in content if isinstance(p, (str, dict)))
    return "".join(part for part in parts if isinstance(part, str))


def final_text(response: Response | None) -> str:
    """The reply: the text of the last assistant message, "" if there is none. A refusal is no reply."""
    for item in reversed((response or {}).get("output") or []):
        if item_type(item) == "message" and item.get("role", "assistant") == "assistant":
            return text_of(item.get("content"))
    return ""


def prompt_text(params: Mapping[str, Any]) -> str:
    """The text of the last user message of the prompt, "" if there is none."""
    for item in reversed(input_items(params)):
        if item_type(item) == "message" and item.get("role") == "user":
            return text_of(item.get("content"))
    return ""


def tool_calls(response: Response | None) -> list[Item]:
    return [item for item in (response or {}).get("output") or [] if item.get("type") == "function_call"]


def tool_name(tool: Mapping[str, Any]) -> Any:
    """Of a tool as the Responses API has it, or nested, as Chat Completions has it."""
    return tool.get("name") or inside(tool.get("function"), "name")


def model_calls(items: Sequence[Item]) -> list[list[Item]]:
    """The items that each model call made, in order: a call ends where a tool's output or somebody else's message follows,
    and at an item with token ids (they stand on the last item of a call). Calls without either between them are one."""
    calls: list[list[Item]] = []
    ended = True
    for item in items:
        if item_type(item) == "function_call_output" or item.get("role", "assistant") != "assistant":
            ended = True
            continue
        if ended:
            calls.append([])
        calls[-1].append(item)
        ended = bool(item.get("generation_token_ids"))
    return calls


def cut_short(details: Any, status: Any) -> str | None:
    """Why a response was cut short, by its `incomplete_details` and `status`; None if it was not."""
    if details:
        return str(details.get("reason") or "unknown") if isinstance(details, dict) else str(details)
    return "unknown" if status == "incomplete" else None


def reasoning_text(response: Response | None) -> str:
    """All reasoning, content before summary (servers fill one or the other), joined by blank lines."""
    items = [item for item in (response or {}).get("output") or [] if item.get("type") == "reasoning"]
    texts = (text_of(item.get("content")) or text_of(item.get("summary")) for item in items)
    return "\n\n".join(text for text in texts if text)


def check_items(value: Any, where: str) -> str | None:
    """Why `value` is no list of items, naming the first offender; None if it is one."""
    if not isinstance(value, list):
        return f"{where} is {type(value).__name__}, not a list of items"
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            return f"{where}[{index}] is {type(item).__name__}, not an item"
        kind = item_type(item)
        for key in ("type", "role"):
            if not isinstance(item.get(key), str | None):
                return f"{where}[{index}].{key} is {type(item[key]).__name__}, not a name"
        if not kind:
            return f"{where}[{index}] has neither type nor role"
        if kind == "function_call" and not isinstance(item.get("name"), str):
            return f"{where}[{index}] is a function_call without a name"
    return None


def check_params(params: Mapping[str, Any]) -> str | None:
    """Why `params` cannot be asked of a model, naming the key; None if they can. `input` is a string or items."""
    value, tools = params.get("input"), params.get("tools")
    if value is None:
        return "input is missing"
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        return "tools is not a list of tools"
    return None if isinstance(value, str) else check_items(value, "input")


INPUT_TOKENS, OUTPUT_TOKENS = ("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")
"""Of a usage: the Responses API's name, and that of Chat Completions."""


def first_of(values: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of the names that has one; else None."""
    for name in names:
        value = values.get(name)
        if value is not None:
            return value
    return None


def token_count(value: Any) -> int:
    """As a server reported it, some in text or as a float; 0 for what is no count."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value[:20])
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and value > 0 else 0


def add_usage(total: Usage | None, more: Usage | None) -> Usage | None:
    """The sum, nested details included; None only if both are unknown. Never one of the two objects it was given."""
    if not isinstance(more, dict):
        return total
    summed: dict[str, Any] = dict(total or {})
    for key, given in more.items():
        old = summed.get(key)
        value: Any = token_count(given) if isinstance(given, str) and key.endswith("_tokens") else given
        if type(value) is int and type(old) is int:
            summed[key] = old + value
        elif isinstance(value, dict):
            summed[key] = add_usage(old if isinstance(old, dict) else None, value)  # type: ignore[arg-type]
        elif isinstance(value, (int, float)) and isinstance(old, (int, float)):
            summed[key] = old + value
        elif isinstance(value, list) and isinstance(old, list):
            summed[key] = [*old, *value]  # one entry per turn
        elif value is not None or key not in summed:
            summed[key] = value
    return summed  # type: ignore[return-value]


def mapping(value: Any) -> Json:
    """An object as it is; {} for what is none."""
    return value if isinstance(value, dict) else {}


def inside(value: Any, *path: str | int) -> Any:
    """What is found down a path of keys and list indices; None where it ends."""
    for key in path:
        if isinstance(key, str):
            value = value.get(key) if isinstance(value, dict) else None
        else:
            value = value[key] if isinstance(value, list) and -len(value) <= key < len(value) else None
    return value


def token_drift(output: Sequence[Item]) -> int | None:
    """The first model call (0-based, counted over items with token ids) whose prompt does not start with everything
    seen before it; None if all are contiguous. Trainers that concatenate calls need this (NeMo RL asserts it)."""
    seen: list[int] = []
    calls = 0
    for item in output:
        generated, prompt = item.get("generation_token_ids"), item.get("prompt_token_ids") or []
        if not generated or not isinstance(generated, list) or not isinstance(prompt, list):
            continue
        if prompt[: len(seen)] != seen:
            return calls
        seen = [*prompt, *generated]
        calls += 1
    return None
