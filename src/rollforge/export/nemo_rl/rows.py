"""Rows for NeMo RL's data sets, one function for each kind. Formats: `nemo_rl/data/datasets` of its source, from v0.4.0 on.

NeMo RL drops columns it does not name, takes `output` of a GRPO row as the expected answer, and never hands tools to
preference data. What a format cannot hold is refused or written into the text; which of the two stands at each function.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from rollforge.export.examples import Demonstration, Pair, Prompt
from rollforge.export.nemo_rl.config import version_of
from rollforge.export.target import Refused, Settings
from rollforge.export.text import plain, with_tools
from rollforge.records.items import Json, text_of

LEFT_OUT = "tools_left_out"
AS_GIVEN = "answer_as_given"
TASK = "math"
"""By which `run_grpo_math.py` of 0.4 finds a row's processor and environment."""
MORE_THAN_TEXT = "the conversation holds more than text"


def grpo(example: Prompt, settings: Settings) -> Json:
    """`ResponseDataset`: `output` is what the environment compares with. System text stands before the question, earlier
    turns get their role before them. NeMo RL's own environments run no tools: those of the task are named and left out."""
    answer = (example.answer or "").strip()
    if not answer and _math(settings):
        why = example.lacking or "no expected answer"
        raise Refused(f"{why}; NeMo RL would score every attempt 0 without a word (nemo-rl:nemo-gym needs no answer)")
    written = matched(answer) if _math(settings) else answer
    row: Json = {"input": as_text(example.messages), "output": written, "ground_truth": written}
    if version_of(settings) == "0.4":
        row["task_name"] = TASK
    if written != answer:
        row[AS_GIVEN] = answer
    if example.tools:
        row[LEFT_OUT] = [tool.get("function", tool).get("name") for tool in example.tools]
    return row


def nemo_gym(example: Prompt, settings: Settings) -> Json:
    """`NemoGymDataset`: the task as the gym gave it, without the verdict's fields, for attempts by the trainer's policy."""
    fields = dict(example.named_fields)
    agent = fields.pop("agent_ref", None)
    if not (isinstance(agent, dict) and agent.get("name")):
        if not example.origin.env:
            raise Refused("no agent_ref, and the environment has no name to make one of")
        agent = {"type": "responses_api_agents", "name": f"{example.origin.env}_simple_agent"}
    return {"responses_create_params": example.params, "agent_ref": agent, **fields}


def sft(example: Demonstration, settings: Settings) -> Json:
    """`openai_format`: the conversation as it is, nested tools and tool calls with arguments as objects."""
    messages = [*example.prompt, *example.completion]
    _only_text(messages)
    if not messages or messages[-1]["role"] != "assistant":
        raise Refused("the conversation does not end with the assistant")
    return {"messages": messages, **({"tools": example.tools} if example.tools else {})}


def sft_simple(example: Demonstration, settings: Settings) -> Json:
    """`ResponseDataset`: one question, one answer."""
    messages = [*example.prompt, *example.completion]
    _only_text(messages)
    if example.tools or any("tool_calls" in message or message["role"] == "tool" for message in messages):
        raise Refused("the conversation has tools (nemo-rl:sft keeps them)")
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise Refused("the conversation is more than a question and its answer (nemo-rl:sft keeps system text and turns)")
    question, answer = plain(messages)
    if not answer["content"]:
        raise Refused("the answer is empty")
    return {"input": question["content"], "output": answer["content"]}


def dpo(example: Pair, settings: Settings) -> Json:
    """`BinaryPreferenceDataset`. The prompt is a list of messages in every row: a column that holds texts and lists by turns
    does not load. Tools are written into the system turn."""
    texts = [_one_text(completion) for completion in (example.chosen, example.rejected)]
    _differ(example)
    return {
        "prompt": plain(with_tools(_only_text(example.prompt), example.tools)),
        "chosen": texts[0],
        "rejected": texts[1],
        "reward_gap": example.margin,
        "chosen_reward": example.chosen_from.reward,
        "rejected_reward": example.rejected_from.reward,
    }


def dpo_messages(example: Pair, settings: Settings) -> Json:
    """`PreferenceDataset`. Tools are written into the system turn, calls and results into the turns, as Hermes and Qwen
    templates render them: NeMo RL passes no tools on here, and would fill rows with the argument names of other rows."""
    _differ(example)
    completions = [plain(_only_text(completion)) for completion in (example.chosen, example.rejected)]
    if not all(completion and completion[-1]["role"] == "assistant" for completion in completions):
        raise Refused("a completion does not end with the assistant")
    return {
        "context": plain(with_tools(_only_text(example.prompt), example.tools)),
        "completions": [{"rank": rank, "completion": completion} for rank, completion in enumerate(completions)],
        "reward_gap": example.margin,
        "chosen_reward": example.chosen_from.reward,
        "rejected_reward": example.rejected_from.reward,
    }


def as_text(messages: Sequence[Json]) -> str:
    """A prompt as one string: a lone question as it is, system text before it; further turns get their role before them."""
    if not messages:
        raise Refused("the prompt is empty")
    _only_text(messages)
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in plain(messages) if message["role"] != "system"]
    if len(turns) == 1 and turns[0]["role"] == "user":
        told = [turns[0]["content"]]
    else:
        told = [f"{message['role'].capitalize()}: {message['content']}" for message in turns]
    text = "\n\n".join((*system, *told))
    if not text.strip():
        raise Refused("the prompt is empty")
    return text


def matched(answer: str) -> str:
    """An expected answer as math-verify, which reads LaTeX, matches it: a bare percent sign begins a comment there, and
    1e-3 is three less than e."""
    number = EXPONENT.fullmatch(answer)
    if not number:
        return PERCENT.sub(r"\\%", answer)
    power = int(number[2])
    return f"{Decimal(answer):f}" if abs(power) <= _ZEROS else f"{number[1]} \\times 10^{{{power}}}"


EXPONENT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))[eE]([-+]?\d{1,6})")
PERCENT = re.compile(r"(?<!\\)%")
_ZEROS = 15


def _math(settings: Settings) -> bool:
    """Whether the environment compares with an expected answer: unless another one is set."""
    chosen = settings.set.get("data.default.env_name", settings.set.get("data.env_name", "math"))
    return "math" in str(chosen)


def _only_text(messages: Sequence[Json]) -> Sequence[Json]:
    for message in messages:
        if not isinstance(message["content"], str):
            raise Refused(MORE_THAN_TEXT)
    return messages


def _one_text(completion: Sequence[Json]) -> str:
    _only_text(completion)
    if len(completion) != 1 or completion[0]["role"] != "assistant" or completion[0].get("tool_calls"):
        raise Refused("a completion has tool turns (nemo-rl:dpo-messages keeps them)")
    text: str = plain(completion)[0]["content"]
    return text


def _differ(example: Pair) -> None:
    if example.chosen == example.rejected:
        raise Refused("chosen and rejected are the same")
    if not any(text_of(message["content"]).strip() or message.get("tool_calls") for message in example.chosen):
        raise Refused("the chosen completion is empty")
