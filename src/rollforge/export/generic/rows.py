"""Rows for no trainer in particular: text or messages with a score, ShareGPT, OpenAI fine-tuning, any field names.

ShareGPT as LLaMA-Factory reads it (src/llamafactory/data/converter.py `SharegptDatasetConverter`): after a system turn,
human or observation turns and gpt or function_call turns alternate strictly; it leaves out other rows without an error.
OpenAI: the API reference, "Fine-tuning", training format for chat models and for preference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rollforge.export.examples import Demonstration, Judged, Pair, Prompt
from rollforge.export.mapping import constant
from rollforge.export.target import Refused, Settings
from rollforge.export.text import last_text
from rollforge.records.items import Json, inside
from rollforge.records.lossless import dumps


def prompt_completion_score(example: Judged, _: Settings) -> Json:
    prompt, completion = prompt_text(example.prompt), one_text(example.completion)
    if example.tools:
        raise Refused("the tools offered would be lost (generic:messages-score holds them)")
    return {"prompt": prompt, "completion": completion, "score": float(example.origin.reward)}


def messages_score(example: Judged, _: Settings) -> Json:
    score = float(example.origin.reward)
    return {"messages": [*example.prompt, *example.completion], "tools": example.tools, "score": score}


def prompt_text(prompt: Sequence[Json]) -> str:
    """A prompt of one user turn as its text, that of system turns before it, with blank lines between."""
    roles = [message["role"] for message in prompt]
    if roles.count("user") != 1 or roles[-1] != "user" or not {*roles} <= {"system", "user"}:
        raise Refused("the prompt has earlier turns (they would be lost; messages hold them)")
    return "\n\n".join(_text(message) for message in prompt)


def one_text(completion: Sequence[Json]) -> str:
    """A completion of one assistant message as its text, reasoning in `<think>` tags."""
    if len(completion) != 1 or completion[0].get("tool_calls"):
        raise Refused(
            "the completion is more than one text (messages hold tool calls and turns, as in generic:messages-score)"
        )
    text = _text(completion[0])
    if not text.strip():
        raise Refused("the completion is empty")
    return text


def _text(message: Json) -> str:
    if not isinstance(message["content"], str):
        raise Refused("the conversation holds more than text")
    thought, text = message.get("reasoning_content"), message["content"]
    # Reasoning with nothing behind it was cut off: the tag stays open.
    return f"<think>{thought}{'</think>' if text else ''}{text}" if thought else text


# ShareGPT


def sharegpt(example: Demonstration, _: Settings) -> Json:
    turns: list[Json] = []
    for message in (*example.prompt, *example.completion):
        match message["role"]:
            case "system" if turns:
                raise Refused("a system turn in the middle (ShareGPT has one at the head)")
            case "system":
                turns.append({"from": "system", "value": _text(message)})
            case "user":
                turns.append({"from": "human", "value": _text(message)})
            case "tool":
                _observe(turns, _text(message))
            case _ if message.get("tool_calls"):
                turns.append({"from": "function_call", "value": _calls(message)})
            case _:
                turns.append({"from": "gpt", "value": _text(message)})
    for turn in turns:
        if turn["from"] == "observation" and isinstance(turn["value"], list):
            turn["value"] = turn["value"][0] if len(turn["value"]) == 1 else dumps(turn["value"]).decode()
    problem = alternation([turn["from"] for turn in turns])
    if problem:
        raise Refused(f"{problem} (ShareGPT's turns alternate)")
    return {"conversations": turns, "tools": _flat_tools(example.tools)}


def alternation(names: Sequence[str]) -> str:
    """What breaks the order of turns, "" if nothing does."""
    names = names[1:] if names and names[0] == "system" else names
    for place, name in enumerate(names):
        wanted = (("human", "observation"), ("gpt", "function_call"))[place % 2]
        if name not in wanted:
            return f"after {names[place - 1] if place else 'the head'} comes {name}"
    return "" if names and len(names) % 2 == 0 else "the conversation does not end with the model's turn"


def _observe(turns: list[Json], text: str) -> None:
    # The results of parallel calls are one turn: a JSON list, in the order of the messages.
    if turns and turns[-1]["from"] == "observation":
        turns[-1]["value"].append(text)
    else:
        turns.append({"from": "observation", "value": [text]})


def _calls(message: Json) -> str:
    thought, text = message.get("reasoning_content"), message["content"]
    if not thought and isinstance(text, str) and text.startswith("<think>"):
        thought, _, text = text.removeprefix("<think>").rpartition("</think>")
    if not isinstance(text, str) or text.strip():
        raise Refused("text beside a tool call (a function_call turn of ShareGPT holds nothing but calls)")
    calls = [
        {"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in message["tool_calls"]
    ]
    value = dumps(calls[0] if len(calls) == 1 else calls).decode()
    return f"<think>{thought}</think>{value}" if thought else value


def _flat_tools(tools: Sequence[Json]) -> str:
    return dumps([tool.get("function", tool) for tool in tools]).decode() if tools else ""


# OpenAI


def openai(example: Demonstration, _: Settings) -> Json:
    messages = _openai_messages([*example.prompt, *example.completion])
    return {"messages": messages, **_openai_tools(messages, example.tools)}


def openai_dpo(example: Pair, _: Settings) -> Json:
    chosen, rejected = (_openai_messages([*example.prompt, *side]) for side in (example.chosen, example.rejected))
    if chosen == rejected:
        raise Refused("preferred and non-preferred output are the same")
    messages: list[Json] = []
    while len(chosen) > 1 and len(rejected) > 1 and chosen[0] == rejected[0]:
        messages.append(chosen.pop(0))
        rejected.pop(0)
    if len(chosen) != 1 or len(rejected) != 1:
        raise Refused("answers of several turns that differ (OpenAI's preference format holds one assistant message)")
    given = {"messages": messages, **_openai_tools([*messages, *chosen, *rejected], example.tools)}
    return {"input": given, "preferred_output": chosen, "non_preferred_output": rejected}


FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A function's name, as OpenAI takes it."""


def _openai_messages(messages: Sequence[Json]) -> list[Json]:
    called: set[str] = set()
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in called:
                raise Refused("a tool's result that answers no call before it (OpenAI refuses it)")
            if message["tool_call_id"] in waiting:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            raise Refused("a tool call without a result (OpenAI refuses it)")
        waiting = [call["id"] for call in message.get("tool_calls") or ()]
        called.update(waiting)
    return [_openai_message(message) for message in messages]


def _openai_message(message: Json) -> Json:
    if message.get("reasoning_content"):
        raise Refused("reasoning (OpenAI's format has no place for it: --reasoning drop, or inline)")
    role, content = message["role"], message["content"]
    if role == "tool":
        return {"role": role, "tool_call_id": message["tool_call_id"], "content": content}
    if not message.get("tool_calls"):
        if not content:
            raise Refused("an empty message (OpenAI refuses it)")
        return {"role": role, "content": content}
    calls = []
    for call in message["tool_calls"]:
        _openai_name("a call of", call)
        arguments = call["function"]["arguments"]
        text = arguments if isinstance(arguments, str) else dumps(arguments).decode()
        calls.append(
            {"id": call["id"], "type": "function", "function": {"name": call["function"]["name"], "arguments": text}}
        )
    return {"role": role, **({"content": content} if content else {}), "tool_calls": calls}


def _openai_tools(messages: Sequence[Json], tools: Sequence[Json]) -> Json:
    if not tools:
        return {}
    for tool in tools:
        _openai_name("a tool named", tool)
    return {"tools": list(tools), "parallel_tool_calls": any(len(message.get("tool_calls", ())) > 1 for message in messages)}


def _openai_name(what: str, one: Json) -> None:
    name = one["function"]["name"]
    if not FUNCTION.fullmatch(name):
        raise Refused(f"{what} {name!r:.80} (OpenAI's names have letters, digits, _ and -, 64 at most)")


# Any field names


def mapped(example: Judged | Prompt, settings: Settings) -> Json:
    row: Json = {}
    for name, source in settings.mapping.items():
        *outer, last = name.split(".")
        place = row
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = _value(example, source)
    return row


def _value(example: Judged | Prompt, source: str) -> Any:
    if source.startswith("="):
        return constant(source)
    if source.startswith("task."):
        path = source.removeprefix("task.")
        # A field may have a dot in its name.
        return example.fields[path] if path in example.fields else inside(example.fields, *path.split("."))
    return _FROM[source](example)


def _prompt(example: Judged | Prompt) -> list[Json]:
    return example.messages if isinstance(example, Prompt) else example.prompt


def _completion(example: Judged | Prompt) -> list[Json]:
    if isinstance(example, Prompt):
        raise Refused("prompts have no completion messages (map rollouts: generic:mapping)")
    return example.completion


_FROM: dict[str, Callable[[Any], Any]] = {
    "prompt": lambda example: prompt_text(_prompt(example)),
    "prompt_messages": _prompt,
    "completion": lambda example: one_text(_completion(example)),
    "completion_messages": _completion,
    "final_text": lambda example: example.output if isinstance(example, Prompt) else last_text(example.completion),
    "messages": lambda example: list(_prompt(example)) + ([] if isinstance(example, Prompt) else example.completion),
    "tools": lambda example: example.tools,
    "reward": lambda example: float(example.origin.reward),
    "answer": lambda example: example.answer,
    "env": lambda example: example.origin.env,
    "task": lambda example: example.origin.task,
    "model": lambda example: example.origin.model,
    "id": lambda example: example.origin.id,
}
