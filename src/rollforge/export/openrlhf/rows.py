"""The rows that OpenRLHF's data set classes read, and what is wrong with a row (0.9 to 0.11: datasets/sft_dataset.py,
reward_dataset.py, prompts_dataset.py, utils.py).

None of them gives `tools` to the chat template: the schemas stand in the system turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rollforge.export.examples import Demonstration, Pair, Prompt
from rollforge.export.target import Refused, Settings
from rollforge.export.text import (
    check_calls,
    for_calls,
    for_sides,
    for_templates,
    only_text,
    plain,
    question,
    with_tools,
)
from rollforge.records.items import Json, inside
from rollforge.records.lossless import dumps


def grpo(example: Prompt, _: Settings) -> Json:
    only_text(example.messages, "OpenRLHF")
    prompt = with_tools(example.messages, example.tools)
    if any("<image>" in message["content"] for message in prompt):
        raise Refused("the prompt's text holds <image>, which OpenRLHF takes for a picture")
    return {
        "prompt": prompt,
        "label": label(example),
        "datasource": example.origin.env or "rollforge",
    }


def label(example: Prompt) -> str:
    """JSON text of the expected answer and the task: rewards and agents get nothing of a row but its label."""
    task = {**example.named_fields, "responses_create_params": example.params}
    return dumps({"expected_answer": example.answer, "task": task}).decode()


def sft(example: Demonstration, _: Settings) -> Json:
    messages = [*example.prompt, *example.completion]
    only_text(messages, "OpenRLHF")
    return {"messages": with_tools(messages, example.tools)}


def sft_simple(example: Demonstration, _: Settings) -> Json:
    if example.tools:
        raise Refused("input and output hold plain texts: the tools would be lost (openrlhf:sft keeps them)")
    [first, *others] = example.completion
    if others or first.get("tool_calls") or not isinstance(first["content"], str):
        raise Refused("input and output hold one turn each: several turns or tool calls would be lost (openrlhf:sft)")
    if first.get("reasoning_content"):
        raise Refused("input and output hold plain texts: the reasoning would be lost (--reasoning inline or drop)")
    return {"input": question(example.prompt), "output": first["content"]}


def dpo(example: Pair, _: Settings) -> Json:
    for messages in (example.prompt, example.chosen, example.rejected):
        only_text(messages, "OpenRLHF")
    # RewardDataset makes text of the columns under their own names. Where their messages differ in keys, `datasets` (5.2)
    # keeps the type of mixed objects for the text and fails: so every message has a role and a content, no more.
    return {
        "prompt": plain(with_tools(example.prompt, example.tools)),
        "chosen": plain(example.chosen),
        "rejected": plain(example.rejected),
        "margin": float(example.margin),
    }


# What is wrong with a row

CUT = "OpenRLHF drops rows whose prompt is longer and cuts the others, without a word; raise it, or leave such rows out"


def check_grpo(row: Json, *, labelled: bool | None = None) -> Iterator[str]:
    """`labelled`: whether the command names a column of labels; None: there is none to ask."""
    yield from _check_chat(row, "prompt", "--data.input_key")
    yield from for_sides(row)
    prompt = row.get("prompt")
    texts = (
        [message.get("content") for message in prompt if isinstance(message, dict)] if isinstance(prompt, list) else [prompt]
    )
    if not row.get("images") and any("<image>" in text for text in texts if isinstance(text, str)):
        yield "the prompt's text holds <image>, which OpenRLHF takes for a picture, but the row has no images"
    if "label" not in row and labelled is not False:
        what = "" if labelled else "warning: "
        yield f"{what}there is no label: with --data.label_key PromptDataset reads it of every row (KeyError)"
    elif labelled is not False and row["label"] in (None, ""):
        yield "the label is empty: the reward function has nothing to compare with; give the row its expected answer"
    if row.get("tools"):
        yield _TOOLS


def check_sft(row: Json) -> Iterator[str]:
    yield from _check_chat(row, "messages", "--data.input_key")
    yield from for_calls(("messages", row.get("messages")))
    messages = row.get("messages")
    if isinstance(messages, str):
        yield "messages is text: with --data.multiturn it fails (TypeError), else the row is dropped without a word"
    if isinstance(messages, list) and messages:
        roles = [inside(one, "role") for one in messages]
        if "assistant" not in roles:
            yield "no message is the assistant's: nothing of this row is trained on"
        elif roles[-1] != "assistant":
            yield "warning: the last message is not the assistant's: without --data.multiturn it is what is trained on"
    if row.get("tools"):
        yield _TOOLS


def check_sft_simple(row: Json, *, answered: bool | None = None) -> Iterator[str]:
    """`answered`: whether the command names a column of answers; None: there is none to ask."""
    if answered is False and "output" in row:
        yield "output is not read without --data.output_key: input alone is trained on, as if it were the whole"
        return
    for key in ("input", "output"):
        value = row.get(key)
        if key not in row:
            yield f"there is no {key}: SFTDataset reads it of every row (KeyError)"
        elif not isinstance(value, (str, list)) or not value:
            yield f"{key} is {_what(value)}, not text: such a row is dropped without a word"
    if isinstance(row.get("input"), str) != isinstance(row.get("output"), str):
        yield "one of input and output is text and the other is not: SFTDataset cannot join them (TypeError)"


def check_dpo(row: Json, *, prompted: bool | None = None, templated: bool | None = None) -> Iterator[str]:
    """`prompted`, `templated`: whether the command names a column of prompts, and asks for the chat template; None: there is
    no command to ask."""
    sides = {key: row.get(key) for key in ("chosen", "rejected")}
    prompt, chosen = row.get("prompt"), sides["chosen"]
    if prompted is None:  # a prompt of text stands beside whole conversations in many data sets, to be looked at
        prompted = "prompt" in row and not (isinstance(prompt, str) and isinstance(chosen, list))
    if prompted:
        yield from _check_chat(row, "prompt", "--data.prompt_key")
    for key, side in sides.items():
        if isinstance(side, dict):
            yield f"{key} is one message: RewardDataset wants a list of messages"
        elif prompted and isinstance(side, str | list) and isinstance(prompt, str | list) and type(side) is not type(prompt):
            yield f"{key} is {_form(side)} beside a prompt of {_form(prompt)}: RewardDataset adds them (TypeError)"
        else:
            yield from _check_chat(row, key, f"--data.{key}_key")
    yield from for_sides(row if prompted else sides, "chosen", "rejected")
    if templated and isinstance(chosen, str):
        yield "chosen is text, which no chat template takes: leave --data.apply_chat_template out, or write messages"
    if not prompted and isinstance(prompt, str) and isinstance(chosen, str) and not chosen.startswith(prompt):
        yield "the prompt is not read without --data.prompt_key, and chosen does not begin with it"
    if not prompted and isinstance(chosen, list) and isinstance(sides["rejected"], list):
        yield from _check_whole(chosen, sides["rejected"])
    if chosen is not None and chosen == sides["rejected"]:
        yield "chosen and rejected are the same"
    margin = row.get("margin")
    if margin is not None and not isinstance(margin, (int, float)):
        yield f"margin is {_what(margin)}, not a number"
    if row.get("tools"):
        yield _TOOLS


def check_as_text(check: Callable[[Json], Iterator[str]], row: Json) -> Iterator[str]:
    """For a command without the chat template."""
    yield from check(row)
    for key in ("prompt", "messages", "input", "output", "chosen", "rejected"):
        if isinstance(row.get(key), list):
            yield f"{key} holds messages, which OpenRLHF takes for text without --data.apply_chat_template: it fails"
            return


def _check_whole(chosen: list[Any], rejected: list[Any]) -> Iterator[str]:
    """Conversations without a column of prompts: train_dpo takes all but the last message of chosen for the prompt."""
    if chosen and isinstance(chosen[0], dict) and chosen[0].get("role") == "assistant":
        yield "chosen begins with the assistant's turn, and without --data.prompt_key there is no prompt before it"
    elif chosen[:-1] != rejected[:-1]:
        yield (
            "warning: chosen and rejected differ before their last message: train_dpo takes chosen's beginning for the "
            "prompt of both and cuts rejected at its length"
        )


_TOOLS = "there is a tools column: OpenRLHF never gives it to the chat template; write the schemas into the system turn"


def _form(value: Any) -> str:
    return "text" if isinstance(value, str) else "messages"


def _check_chat(row: Json, key: str, flag: str) -> Iterator[str]:
    if key not in row:
        yield f"there is no {key}: the data set reads it of every row (KeyError), or another column by {flag}"
        return
    messages = row[key]
    if isinstance(messages, str):
        if not messages:
            yield f"{key} is empty"
        return
    if not isinstance(messages, list) or not messages:
        yield f"{key} is {_what(messages)}, not text and not a list of messages"
        return
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield f"{key}[{number}] is no message with a role"
            continue
        if message.get("content") is None:
            what = "warning: " if message.get("tool_calls") else ""
            yield f'{what}{key}[{number}] has no content: many chat templates fail on it; write "" beside tool calls'
        if message.get("function_call"):
            yield f"{key}[{number}] has a function_call, which no template reads: the call is lost; write tool_calls"
        calls = message.get("tool_calls")
        yield from check_calls(calls if isinstance(calls, Sequence) else (), f"{key}[{number}]")
    yield from for_templates(row, messages)


def _what(value: Any) -> str:
    return "empty" if value in ("", [], {}) else "null" if value is None else type(value).__name__
