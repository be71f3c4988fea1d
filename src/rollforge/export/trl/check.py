"""What TRL would stumble over, or silently do otherwise, in a row written by anybody (TRL 1.16, trainer/*_trainer.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from rollforge.export.target import Alike
from rollforge.export.text import QUOTED_TWICE, for_calls, for_sides, for_templates
from rollforge.records.items import Json, inside
from rollforge.records.lossless import loads
from rollforge.records.messages import ROLES

SAID = ("content", "tool_calls", "reasoning_content")
CUT = "TRL cuts them without a word, and leaves out those of which no answer remains; raise it, or leave such rows out"
LISTS = ("messages", "prompt", "completion", "chosen", "rejected")
TAKEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Arguments that GRPO itself gives to reward functions (trainer/grpo_trainer.py `_calculate_rewards`)."""


def grpo(row: Json) -> Iterator[str]:
    yield from _present(row, "prompt")
    yield from _text_or_messages(row, "prompt", read=True)
    yield from _prompt_end(row)
    for name in TAKEN:
        if name in row:
            yield f"the column {name!r} is an argument of reward functions already: TRL fails at the first reward; rename it"
    if "completion" in row:
        yield "warning: the column 'completion' does not reach the reward functions: rename it (ground_truth)"
    if row.get("tools") not in (None, [], "", "[]", "null"):
        yield "warning: GRPO reads no tools column: the task is attempted without; give tools= or environment_factory= to it"
    yield from for_templates(row, *map(row.get, LISTS))
    yield from for_sides(row)
    yield from _tools(row)


def sft(row: Json) -> Iterator[str]:
    if "prompt" in row or "completion" in row:
        yield from prompt_completion(row)
        return
    if not row.keys() & {"messages", "text", "conversations"}:
        yield f"no messages, no text, and no prompt with a completion; the row has {_names(row)}"
    yield from _text_or_messages(row, "messages")
    if "conversations" in row:
        yield from _sharegpt(row["conversations"])
    name, key = ("conversations", "from") if "conversations" in row else ("messages", "role")
    turns = row.get(name)
    roles = [inside(turn, key) for turn in turns] if isinstance(turns, list) else []
    if roles and "assistant" not in roles and all(role in ROLES for role in roles):
        yield f"{name}: no assistant turn, so there is nothing to imitate"
    elif roles and roles[-1] != "assistant":
        yield f"warning: {name}: the last turn is {_short(roles[-1])}, not the assistant's: it is trained on as well"
    if "text" in row and not isinstance(row["text"], str):
        yield f"text is {_kind(row['text'])}, not a string"
    yield from for_templates(row, *map(row.get, LISTS))
    yield from for_calls(("messages", row.get("messages")))
    yield from _tools(row)


def prompt_completion(row: Json) -> Iterator[str]:
    yield from _present(row, "prompt", "completion")
    yield from _same_type(row, "prompt", "completion")
    for name in ("prompt", "completion"):
        yield from _text_or_messages(row, name)
    yield from _prompt_end(row)
    yield from _completion(row, "completion")
    yield from for_templates(row, *map(row.get, LISTS))
    yield from for_sides(row, "completion")
    yield from _tools(row)


def dpo(row: Json) -> Iterator[str]:
    if "prompt" not in row and row.keys() >= {"chosen", "rejected"}:
        yield from dpo_implicit(row)  # the trainer is the same, and takes their common beginning for the prompt
        return
    yield from _present(row, "prompt")
    yield from _same_type(row, "prompt", "chosen")
    yield from _text_or_messages(row, "prompt")
    yield from _prompt_end(row)
    for name in ("chosen", "rejected"):
        yield from _completion(row, name)
    yield from _preference(row)


def dpo_implicit(row: Json) -> Iterator[str]:
    if "prompt" in row:
        yield "there is a prompt: then chosen and rejected are only what follows it; leave it out, or check the file as dpo"
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, (list, str)) and type(chosen) is type(rejected) and chosen and rejected and chosen != rejected:
        if chosen[0] != rejected[0]:
            yield "there is no prompt, and chosen and rejected begin differently: TRL takes their common beginning for it"
        shorter = min(len(chosen), len(rejected))
        if chosen[:shorter] == rejected[:shorter]:
            yield "one of chosen and rejected is the beginning of the other: nothing is left of it without the common prompt"
    yield from _preference(row)


def kto(row: Json) -> Iterator[str]:
    if "chosen" in row and "rejected" in row and "completion" not in row:
        yield from _preference(row)  # TRL makes two rows of a pair
        return
    yield from prompt_completion(row)
    if "label" not in row:
        yield f"label is missing (true: desirable); the row has {_names(row)}"
    elif not isinstance(row["label"], bool):
        taken = isinstance(row["label"], int) and row["label"] in (0, 1)
        yield f"{'warning: ' if taken else ''}label is {_short(row['label'])}, not true or false"


def _preference(row: Json) -> Iterator[str]:
    yield from _present(row, "chosen", "rejected")
    yield from _same_type(row, "chosen", "rejected")
    for name in ("chosen", "rejected"):
        yield from _text_or_messages(row, name)
    if "chosen" in row and row["chosen"] == row.get("rejected"):
        yield "chosen and rejected are the same: nothing can be learned from the pair"
    margin = row.get("margin")
    if isinstance(margin, (int, float)) and not isinstance(margin, bool) and margin <= 0:
        yield f"margin is {margin}: chosen is not better than rejected"
    rewards = (row.get("chosen_reward"), row.get("rejected_reward"))
    if all(isinstance(reward, (int, float)) for reward in rewards) and rewards[0] <= rewards[1]:  # type: ignore[operator]
        yield f"chosen_reward {rewards[0]} is not above rejected_reward {rewards[1]}"
    yield from for_templates(row, *map(row.get, LISTS))
    yield from for_sides(row, "chosen", "rejected")
    yield from _tools(row)


def _completion(row: Json, name: str) -> Iterator[str]:
    value = row.get(name)
    if value == "" or value == []:
        yield f"{name} is empty: there is nothing to learn"
    elif isinstance(value, list):
        role = inside(value[0], "role")
        if role in ("system", "developer", "user"):
            yield f"{name}: begins with a {role} turn; beside a prompt it holds only what follows the prompt"
        if not any(isinstance(turn, dict) and any(turn.get(key) for key in SAID) for turn in value):
            yield f"{name}: no turn has text or tool calls"


def _prompt_end(row: Json) -> Iterator[str]:
    prompt = row.get("prompt")
    last = inside(prompt[-1], "role") if isinstance(prompt, list) and prompt else None
    if last == "assistant":
        yield "warning: prompt: the last turn is 'assistant': TRL ends it and begins another one, which continues nothing"
    elif last in ("system", "developer"):
        yield f"warning: prompt: the last turn is {last!r}: nobody asks anything, and some chat templates refuse that"
    elif prompt == "":
        yield "prompt is empty"


def _text_or_messages(row: Json, name: str, *, read: bool = False) -> Iterator[str]:
    """`read`: whether TRL itself reads each message's content."""
    if name not in row:
        return
    value = row[name]
    if isinstance(value, str) and name != "messages":
        return
    if not isinstance(value, list):
        yield f"{name} is {_kind(value)}, not {'' if name == 'messages' else 'text or '}a list of messages"
        return
    if not value and name != "completion":
        yield f"{name} is an empty list"
    for number, message in enumerate(value):
        yield from _message(message, f"{name}[{number}]", read)


def _message(message: Any, place: str, read: bool) -> Iterator[str]:
    if not isinstance(message, dict):
        yield f"{place} is {_kind(message)}, not a message {{role, content}}"
        return
    role = message.get("role")
    if "from" in message and role is None:
        yield f"{place} has from and value: TRL converts those only under the name conversations; write role and content"
    elif role not in ROLES:
        yield f"{place}.role is {_short(role)}; known: {', '.join(ROLES)}"
    content, calls = message.get("content"), message.get("tool_calls")
    if content is None and "from" not in message:
        what = f"{place}.content is null" if "content" in message else f"{place} has no content"
        if read and "content" not in message:
            yield f'{what}: TRL reads it of each message (KeyError); with tool calls write ""'
        elif calls:
            yield f'warning: {what}: some templates write "None", others fail; write ""'
        else:
            yield f"{what}, and there are no tool calls: templates fail on it (UndefinedError)"
    elif not isinstance(content, (str, list, type(None))):
        yield f"{place}.content is {_kind(content)}, not text"
    if message.get("function_call"):
        yield f"{place} has a function_call, which no template reads: the call is lost; write tool_calls"
    if calls is None:
        return
    if not isinstance(calls, list):
        yield f"{place}.tool_calls is {_kind(calls)}, not a list"
        return
    for number, call in enumerate(calls):
        yield from _call(call, f"{place}.tool_calls[{number}]")


def _sharegpt(turns: Any) -> Iterator[str]:
    """TRL renames `from` and `value`, under this name only, and leaves the words for the roles as they are."""
    if not isinstance(turns, list) or not turns:
        yield f"conversations is {_kind(turns)}, not a list of turns" if turns != [] else "conversations is an empty list"
        return
    for number, turn in enumerate(turns):
        place = f"conversations[{number}]"
        if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
            yield f"{place} has no from and value: TRL reads no others under this name (KeyError: 'text'); call it messages"
        elif turn["from"] not in ROLES:
            yield (
                f"{place}.from is {_short(turn['from'])}, which TRL takes for the role: templates that do not know it leave "
                f"the turn out without a word (Qwen2.5) or fail; known: {', '.join(ROLES)}"
            )


def _call(call: Any, place: str) -> Iterator[str]:
    function = inside(call, "function")
    if not isinstance(function, dict):
        yield f"{place} has no function {{name, arguments}}"
        return
    if not isinstance(function.get("name"), str) or not function["name"]:
        yield f"{place}.function.name is {_short(function.get('name'))}"
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        yield f"{place}.function.arguments are text: {QUOTED_TWICE}"
    elif not isinstance(arguments, dict):
        yield f"{place}.function.arguments is {_kind(arguments)}, not an object"


def _shape(row: Json) -> str | None:
    values = [row.get(name) for name in (*LISTS, "text")]
    kinds = {type(value) for value in values if isinstance(value, (str, list))}
    return ("text" if kinds == {str} else "messages") if len(kinds) == 1 else None


ONE_SHAPE = Alike(
    _shape,
    "error",
    "TRL takes the first row's shape for that of all (AttributeError: 'list' object has no attribute 'endswith', or text "
    "where a chat template wants messages); write all rows as text, or all as messages",
)


def _tools(row: Json) -> Iterable[str]:
    tools = row.get("tools")
    return _tools_text(tools) if isinstance(tools, str) else _tools_list(tools)


@lru_cache(64)
def _tools_text(text: str) -> list[str]:
    """Rows share their tools."""
    try:
        return list(_tools_list(loads(text)))
    except ValueError as error:
        return [f"tools is text that is not JSON ({error}): TRL parses it"]


def _tools_list(tools: Any) -> Iterator[str]:
    if tools is None:
        return
    if not isinstance(tools, list):
        yield f"tools is {_kind(tools)}, not a list of tools"
        return
    for number, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield f"tools[{number}] has no name: {{type: function, function: {{name, description, parameters}}}}"


def _present(row: Json, *names: str) -> Iterator[str]:
    for name in names:
        if name not in row:
            yield f"{name} is missing; the row has {_names(row)}"


def _same_type(row: Json, first: str, second: str) -> Iterator[str]:
    kinds = [type(row[name]) for name in (first, second) if isinstance(row.get(name), (str, list))]
    if len(set(kinds)) > 1:
        yield f"{first} is {_kind(row[first])}, {second} is {_kind(row[second])}: both must be texts, or lists of messages"


def _names(row: Json) -> str:
    return ", ".join(list(row)[:10]) or "no fields"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    return repr(value)[:60]


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
