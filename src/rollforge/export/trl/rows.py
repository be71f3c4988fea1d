"""The rows that TRL's trainers read (TRL 1.16, docs/source/dataset_formats.md and trainer/*_trainer.py `_prepare_dataset`).

`arguments` are objects, since chat templates write them with `tojson`. `tools` is JSON text in every row: TRL parses it
(`json.loads` if it is a string), and `datasets` sees one type however the schemas differ. "null" stands for none: an empty
list makes the Llama templates write their tool instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rollforge.bulk.record import for_the_same
from rollforge.export.examples import Demonstration, Judged, Pair, Prompt
from rollforge.export.target import Refused, Settings
from rollforge.export.trl.check import SAID
from rollforge.records.items import Json
from rollforge.records.lossless import dumps

NO_TOOLS = "null"


def grpo(example: Prompt, _: Settings) -> Json:
    """Each column but `prompt` is an argument of the reward functions; all are text: every row has the same types."""
    prompt = chat(_generated_after(example.messages))
    return {
        "prompt": prompt,
        "ground_truth": example.answer or "",
        "env": example.origin.env,
        "task": example.origin.task,
        "fields": fields_text(example.fields),
        "tools": tools_text(example.tools),
    }


def sft(example: Demonstration, _: Settings) -> Json:
    return {"messages": chat([*example.prompt, *example.completion]), "tools": tools_text(example.tools)}


def prompt_completion(example: Demonstration, _: Settings) -> Json:
    prompt, completion = _split(example.prompt, example.completion)
    return {"prompt": prompt, "completion": completion, "tools": tools_text(example.tools)}


def dpo(example: Pair, _: Settings) -> Json:
    prompt, chosen = _split(example.prompt, example.chosen)
    rejected = _split(example.prompt, example.rejected)[1]
    if chosen == rejected:
        raise Refused("chosen and rejected are the same")
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "tools": tools_text(example.tools),
        "chosen_reward": float(example.chosen_from.reward),
        "rejected_reward": float(example.rejected_from.reward),
        "margin": float(example.margin),
    }


def dpo_implicit(example: Pair, settings: Settings) -> Json:
    """TRL takes what both conversations begin with for the prompt."""
    row = dpo(example, settings)
    prompt, chosen, rejected = row.pop("prompt"), row["chosen"], row["rejected"]
    shorter = min(len(chosen), len(rejected))
    if chosen[:shorter] == rejected[:shorter]:
        raise Refused("one conversation is the beginning of the other: as an implicit pair nothing would be left of it")
    return {**row, "chosen": prompt + chosen, "rejected": prompt + rejected}


def kto(example: Judged, _: Settings) -> Json:
    prompt, completion = _split(example.prompt, example.completion)
    return {"prompt": prompt, "completion": completion, "label": example.label, "tools": tools_text(example.tools)}


def chat(messages: Iterable[Json]) -> list[Json]:
    """With the name of the tool on each tool message: templates of Qwen, Llama and gpt-oss models write it."""
    names: dict[Any, str] = {}
    found = []
    for message in messages:
        if not isinstance(message["content"], str):
            raise Refused("the conversation holds more than text (TRL wants images in a column of their own)")
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and "name" not in message and message.get("tool_call_id") in names:
            message = {"role": "tool", "name": names[message["tool_call_id"]], **message}
        found.append(message)
    return found


def fields_text(fields: Mapping[str, Any]) -> str:
    """The task's own, not what names its agent or its place in a collection."""
    own = {name: value for name, value in fields.items() if name != "agent_ref" and not name.startswith("_ng_")}
    return dumps(own).decode()


@for_the_same
def tools_text(tools: Sequence[Json]) -> str:
    return dumps(tools).decode() if tools else NO_TOOLS


def _split(prompt: list[Json], completion: list[Json]) -> tuple[list[Json], list[Json]]:
    if not completion or not any(message.get(key) for message in completion for key in SAID):
        raise Refused("the completion is empty")
    whole = chat([*_generated_after(prompt), *completion])
    return whole[: len(prompt)], whole[len(prompt) :]


def _generated_after(prompt: list[Json]) -> list[Json]:
    if not prompt:
        raise Refused("the prompt is empty")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise Refused(f"the prompt ends with the turn of {prompt[-1]['role']} (TRL generates after user and tool turns)")
    return prompt
