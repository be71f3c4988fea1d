"""The rows that verl's data set classes read, and what is wrong with a row (verl 0.7 to 0.9: utils/dataset/rl_dataset.py,
multiturn_sft_dataset.py, rm_dataset.py; experimental/agent_loop/tool_agent_loop.py for `tool_selection` and `tools_kwargs`).

Every row has the same keys, and values of one type each: what differs from task to task is JSON text. `datasets` fills keys
that only some rows have with nulls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rollforge.export.examples import Demonstration, Pair, Prompt
from rollforge.export.target import Refused, Settings
from rollforge.export.text import check_calls, for_calls, for_templates, only_text, question
from rollforge.records.items import Json, inside, mapping
from rollforge.records.lossless import dumps, loads

RL_COLUMNS = dict.fromkeys(("data_source", "prompt", "ability", "reward_model", "extra_info", "agent_name"), "string")
SFT_COLUMNS = dict.fromkeys(("messages", "tools"), "string")
RM_COLUMNS = dict.fromkeys(("prompt", "chosen", "rejected"), "string")


def grpo(example: Prompt, _: Settings) -> Json:
    origin = example.origin
    only_text(example.messages, "verl")
    # What an environment needs to open a session and to judge: train.adapters.verl, gym_tools.py, reward.py.
    task = dumps({**example.named_fields, "responses_create_params": example.params}).decode()
    return {
        "data_source": origin.env or "rollforge",
        "prompt": example.messages,
        "ability": origin.env or "rollforge",
        "reward_model": {"style": "rule", "ground_truth": example.answer or ""},
        "extra_info": {
            "index": origin.at,
            "id": origin.id,
            "task": origin.task,
            "env": origin.env,
            "need_tools_kwargs": bool(example.tools),
            "tools_kwargs": {"_row": {"create_kwargs": {"row": task, "env": origin.env}}},
            "tool_selection": [tool["function"]["name"] for tool in example.tools],
        },
        "agent_name": "tool_agent" if example.tools else "single_turn_agent",
    }


def sft(example: Demonstration, _: Settings) -> Json:
    messages = [*example.prompt, *example.completion]
    only_text(messages, "verl")
    return {"messages": messages, "tools": example.tools}


def rm(example: Pair, _: Settings) -> Json:
    if example.tools:
        raise Refused("RMDataset holds plain texts: the tools would be lost (trl:dpo and openrlhf:dpo keep them)")
    return {
        "prompt": question(example.prompt),
        "chosen": _reply(example.chosen),
        "rejected": _reply(example.rejected),
    }


def _reply(completion: Sequence[Json]) -> str:
    [first, *others] = completion
    if others or first.get("tool_calls"):
        raise Refused("RMDataset holds plain texts: a completion of several turns or with tool calls would be lost")
    if first.get("reasoning_content"):
        raise Refused("RMDataset holds plain texts: the reasoning would be lost (--reasoning inline or drop)")
    text: str = first["content"]
    if not text:
        raise Refused("an answer is empty")
    return text


# What is wrong with a row

STOPS = "stops at the first (ValueError: sequence_length is larger)"


class Asked(NamedTuple):
    """What a command says of its rows; None: nobody says."""

    rewarded: bool | None = None
    """Whether by a reward function of one's own, which takes any `data_source`. Our own rows come with one."""
    tools: bool | None = None
    """Whether there are tools for rows that name no agent loop, and the usual loop, which calls none."""
    loops: bool | None = None
    """Whether there may be agent loops of one's own."""
    decodes: bool | None = None
    """Whether a data set class of one's own may make values of JSON text."""


def check_grpo_parquet(row: Json, asked: Asked = Asked()) -> Iterator[str]:
    """A row whose nested columns are JSON text, which GymRLHFDataset decodes."""
    if asked.decodes is False and isinstance(row.get("prompt"), str):
        yield _TEXT.format("prompt", "RLHFDataset")
    yield from check_grpo({key: decoded(value) if key in RL_COLUMNS else value for key, value in row.items()}, asked)


_TEXT = "{} is JSON text, and {} takes it as it is: write lists, or name a class that decodes it (data.custom_cls.path)"


def check_grpo(row: Json, asked: Asked = Asked()) -> Iterator[str]:
    rewarded = asked.rewarded
    if "prompt" not in row:
        yield "there is no prompt: RLHFDataset reads row['prompt'] (KeyError), or another column by data.prompt_key"
    else:
        yield from check_messages(row["prompt"], "prompt")
        yield from for_templates(row, row["prompt"])
        yield from for_calls(("prompt", row["prompt"]))
    if not isinstance(row.get("data_source"), str) or not row["data_source"]:
        yield "data_source is missing: the reward manager reads it of every row (KeyError)"
    elif not (rewarded or _KNOWN.fullmatch(row["data_source"]) or (rewarded is None and _task(row.get("extra_info")))):
        end = "; a --config that has one ends this" if rewarded is None else ""
        yield (
            f"warning: data_source {row['data_source'][:60]!r} is none that verl scores itself: NotImplementedError without "
            f"a reward function (reward.custom_reward_function.path=...{end})"
        )
    model = row.get("reward_model")
    info = row.get("extra_info")
    if not isinstance(model, dict) or "ground_truth" not in model:
        yield "reward_model.ground_truth is missing: the reward manager reads it of every row (KeyError)"
    elif model["ground_truth"] in (None, "") and not _task(info):
        yield (
            "reward_model.ground_truth is empty and there is no task for an environment to judge: every answer would be "
            "scored 0; give the row its expected answer"
        )
    if info is not None and not isinstance(info, dict):
        yield f"extra_info is {type(info).__name__}, not an object"
    elif info:
        yield from _check_tools(row, info)
    yield from _check_agent(row, info if isinstance(info, dict) else {}, asked)
    if row.get("tools"):
        yield (
            "warning: verl reads no tools column here: tools are those of rollout.multi_turn.tool_config_path or "
            "function_tool_path, and extra_info.tool_selection chooses among them"
        )


def _check_agent(row: Json, info: Json, asked: Asked) -> Iterator[str]:
    name = row.get("agent_name")
    wanted = asked.tools or (asked.tools is None and (info.get("tool_selection") or info.get("need_tools_kwargs") is True))
    if name is None and wanted:
        yield (
            "warning: there is no agent_name: single_turn_agent, which calls no tools, runs the row, unless "
            "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent"
        )
    elif asked.loops is False and name not in (None, "single_turn_agent", "tool_agent"):
        yield (
            f"agent_name {str(name)[:60]!r} is no agent loop of verl's (AssertionError: not registered): name yours in "
            "actor_rollout_ref.rollout.agent.agent_loop_config_path"
        )


_KNOWN = re.compile(
    r"openai/gsm8k|lighteval/MATH|DigitalLearningGmbH/MATH-lighteval|HuggingFaceH4/MATH-500|math_dapo|math|math_dapo_reasoning"
    r"|aime.*|numina_(aops_forum|synthetic_math|amc_aime|synthetic_amc|cn_k12|olympiads)|codecontests|apps|codeforces|taco"
    r"|hiyouga/geometry3k|searchR1_(nq|triviaqa|popqa|hotpotqa|2wikimultihopqa|musique|bamboogle)",
    re.DOTALL,
)
"""What `default_compute_score` knows (verl 0.7 to 0.9: utils/reward_score/__init__.py)."""


def _check_tools(row: Json, info: Json) -> Iterator[str]:
    chosen = info.get("tool_selection")
    if chosen is not None and not (isinstance(chosen, list) and all(isinstance(name, str) for name in chosen)):
        yield "extra_info.tool_selection is not a list of the tools' names"
    if chosen and row.get("agent_name") == "single_turn_agent":
        yield "agent_name is single_turn_agent, which calls no tools, but extra_info.tool_selection has some: use tool_agent"
    given = info.get("tools_kwargs")
    if isinstance(given, dict):
        for name, value in given.items():
            if value is None:
                yield f"extra_info.tools_kwargs.{name} is null: filled in by Arrow (tool_agent calls None.get for that tool)"
            for key in [key for key, one in mapping(inside(value, "create_kwargs")).items() if one is None]:
                yield (
                    f"warning: extra_info.tools_kwargs.{name}.create_kwargs.{key} is null: filled in by Arrow, where rows "
                    "differ in keys? The tool gets it; give every row the same keys, or write JSON Lines"
                )


def check_sft(row: Json, asked: Asked = Asked()) -> Iterator[str]:
    if "messages" not in row:
        yield "there is no messages column (data.messages_key): MultiTurnSFTDataset reads it (KeyError)"
        return
    text = isinstance(row["messages"], str)
    if text and asked.decodes is False:
        yield _TEXT.format("messages", "MultiTurnSFTDataset")
    messages = decoded(row["messages"])
    yield from check_messages(messages, "messages")
    yield from for_templates(row, messages)
    yield from for_calls(("messages", messages))
    if isinstance(messages, list) and not any(isinstance(one, dict) and one.get("role") == "assistant" for one in messages):
        yield "no message is the assistant's: nothing of this row is trained on"
    tools = row.get("tools")
    if text != isinstance(tools, str) and tools is not None:
        yield "one of messages and tools is JSON text and the other is not: GymSFTDataset wants text, verl's own class lists"
    tools = decoded(tools)
    if tools is not None and not isinstance(tools, list):
        yield f"tools is {type(tools).__name__}, not a list of schemas (ValueError: Tools should either be a JSON schema)"
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
            yield "a tool is not of the form {type: function, function: {name, description, parameters}}"
        elif not text and any(value is None for value in _properties(tool).values()):
            yield "a tool has null parameters, filled in by Arrow: templates write them into the prompt; store JSON text"


def check_rm(row: Json) -> Iterator[str]:
    for key in RM_COLUMNS:
        if not isinstance(row.get(key), str):
            yield f"{key} is {type(row.get(key)).__name__}, not text: RMDataset tokenizes it as it is"
        elif not row[key]:
            yield f"{key} is empty"
    if isinstance(row.get("chosen"), str) and row["chosen"] == row.get("rejected"):
        yield "chosen and rejected are the same"


def check_messages(messages: Any, where: str) -> Iterator[str]:
    if not isinstance(messages, list) or not messages:
        kind = "empty" if messages == [] else f"{type(messages).__name__}, not a list of messages"
        yield f"{where} is {kind}"
        return
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield f"{where}[{number}] is no message with a role"
            continue
        if message.get("content") is None:
            yield f'{where}[{number}] has no content: verl reads message["content"] of each (KeyError); "" beside tool calls'
        calls = message.get("tool_calls") or ()
        if not isinstance(calls, (list, tuple)):
            yield f"{where}[{number}].tool_calls is {type(calls).__name__}, not a list of calls"
            continue
        yield from check_calls(calls, f"{where}[{number}]")


def decoded(value: Any) -> Any:
    """A column of JSON text as its value; other text as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{", "n"):
        try:
            return loads(value)
        except ValueError:
            return value
    return value


def _task(info: Any) -> Any:
    return inside(info, "tools_kwargs", "_row", "create_kwargs", "row")


def _properties(tool: Json) -> Json:
    return mapping(inside(tool["function"], "parameters", "properties"))
