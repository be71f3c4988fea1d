"""What is wrong with a row for NeMo RL, whoever wrote it: where its loaders fail, and above all where they say nothing.

A finding that begins with `WARNING` may be meant. Sources: `nemo_rl/data/datasets`, `nemo_rl/data/processors.py`,
`nemo_rl/environments/math_environment.py`; what math-verify matches was tried with math-verify itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rollforge.bulk.record import ANSWERS
from rollforge.export.nemo_rl.rows import AS_GIVEN, EXPONENT, LEFT_OUT, PERCENT, matched
from rollforge.export.target import Alike
from rollforge.export.text import QUOTED_TWICE, REASONING, for_calls
from rollforge.records.items import Json, inside
from rollforge.records.lossless import loads

WARNING = "warning: "
MASKED = "NeMo RL masks them, and they train nothing, without a word; raise it, or leave such rows out"
_SHOWN = 60


def grpo(row: Json, input_key: str = "input", output_key: str = "output") -> Iterator[str]:
    """A row of `ResponseDataset`, read for GRPO."""
    if "messages" in row:
        yield (
            "a `messages` column is used as it is: messages[0] becomes the problem, messages[1] the expected answer, and a "
            "system turn shifts both; write input (str) and output (the expected answer)"
        )
        return
    if row.get(LEFT_OUT):
        tools = ", ".join(map(str, row[LEFT_OUT])) if isinstance(row[LEFT_OUT], list) else row[LEFT_OUT]
        yield f"{WARNING}the task offered tools ({_cut(str(tools))}): it is attempted without; nemo-rl:nemo-gym keeps them"
    if row.get(AS_GIVEN) is not None:
        yield (
            f"{WARNING}the expected answer {str(row[AS_GIVEN])[:_SHOWN]} is written as {str(row.get(output_key))[:_SHOWN]}: "
            "math-verify would not match it as it was given"
        )
    question = row.get(input_key)
    yield from _text(row, input_key, "NeMo RL puts it into a prompt; fold a list of messages into one string")
    answer = row.get(output_key)
    if output_key not in row:
        yield f"no {output_key!r}: KeyError when loading; it must hold the expected answer"
    elif answer is None or (isinstance(answer, str) and not answer.strip()):
        yield f"{output_key!r} is empty: every attempt is scored 0, without a word; it must hold the expected answer"
    elif not isinstance(answer, str):
        yield f"{output_key!r} is {_named(answer)}: the verifier fails inside and scores 0; write it as a string"
    else:
        truth = row.get("ground_truth")
        if isinstance(truth, (str, int, float)) and not isinstance(truth, bool) and not _same(str(truth), answer):
            yield (
                f"{output_key!r} is {_cut(answer)} and ground_truth {_cut(str(truth))}: NeMo RL compares with {output_key!r}"
                f" and drops ground_truth; set output_key: ground_truth, or write the expected answer into {output_key!r}"
            )
        elif problem := answer_problem(answer, question if isinstance(question, str) else ""):
            yield f"{WARNING}{output_key!r} {problem}"


def _same(one: str, other: str) -> bool:
    """Whether two answers are the same text, or the same number (3.0 and 3)."""
    if one.strip() == other.strip():
        return True
    try:
        return float(one.replace(",", "")) == float(other.replace(",", ""))
    except ValueError:
        return False


def _task(row: Json) -> str | None:
    return f"task_name {_cut(row['task_name'])}" if isinstance(row.get("task_name"), str) else None


ONE_TASK = Alike(
    _task,
    "warning",
    "NeMo RL takes the task of a row from its file's name, so one processor and environment hold for all of them; "
    "write one file and one entry of data.train for each task",
)


def answer_problem(answer: str, question: str) -> str | None:
    """Why math-verify would hardly ever match this expected answer; None if it can."""
    answer = answer.strip()
    if "\n" in answer:
        return f"has several lines ({_cut(answer)}): math-verify hardly ever matches it; keep the final answer only"
    if EXPONENT.fullmatch(answer) or PERCENT.search(answer):
        what = "an exponent" if EXPONENT.fullmatch(answer) else "a bare percent sign"
        return f"has {what} ({_cut(answer)}): math-verify reads LaTeX and hardly ever matches it; write {matched(answer)}"
    if "\\boxed" in answer or answer.startswith("$"):
        return None
    if re.search(r"\d\s*[-+*/×÷]\s*\d.*=", answer):
        return f"is an equation ({_cut(answer)}): an attempt that answers its right side is scored 0; keep that side only"
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[A-Za-z]+", "", answer))
    if len(words) > 3:
        return f"is prose ({_cut(answer)}): no attempt matches it; keep the final answer only"
    plain = words or re.fullmatch(r"[A-Za-z]", answer)
    if plain and not re.search(r"[=\d\\^_]", answer) and "boxed" not in question:
        return f"is no number or formula ({_cut(answer)}): matched only in \\boxed{{}}, which the prompt does not ask for"
    return None


def nemo_gym(row: Json) -> Iterator[str]:
    params = row.get("responses_create_params")
    if not isinstance(params, dict):
        yield f"responses_create_params is {_named(params)}: it must be an object, into which NeMo RL writes"
    elif params.get("input") is None:
        yield "responses_create_params.input is missing: NeMo RL reads it of every result (an empty list will do)"
    agent = row.get("agent_ref")
    if not (isinstance(agent, dict) and isinstance(agent.get("name"), str) and agent["name"]):
        yield "no agent_ref.name: KeyError in the first step; it names the agent server that runs the row"
    left = sorted(
        name for name in row if name in ("reward", "response", "output", "rollforge", "_rowidx") or name.startswith("_ng_")
    )
    if left:
        names = ", ".join(left)
        yield f"{WARNING}{names} of an earlier attempt: a gym may get the same field twice; write tasks, not rollouts"
    fields = [name for name in row if name not in ("responses_create_params", "agent_ref")]
    if isinstance(params, dict) and all(_verdicts(name, row[name]) for name in fields):
        beside = f"only what a verdict leaves ({', '.join(map(repr, fields))})" if fields else "nothing"
        yield (
            f"{WARNING}beside the request the row has {beside}: where /verify wants fields of the task (expected answers, "
            "tests), it cannot judge an attempt; rollouts do not always keep them: train on the task file itself then"
        )


def _verdicts(name: str, value: Any) -> bool:
    """Whether a field says nothing about the task, as far as can be told: numbers, and what judging one attempt left."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, (bool, int, float)) for one in value)
    if isinstance(value, dict):
        return name in _LEFT and not value.keys() & {*ANSWERS}
    return value is None or isinstance(value, (bool, int, float)) or name in ("task_name", "task_id", "id", "uuid")


_LEFT = ("metadata", "info", "match_details", "result")


def sft(row: Json, chat_key: str = "messages", tool_key: str | None = "tools") -> Iterator[str]:
    """A row of `openai_format`."""
    messages = row.get(chat_key)
    if not isinstance(messages, list) or not messages:
        yield f"{chat_key!r} is {_named(messages)}: it must be a list of messages (KeyError or a bare assert when loading)"
        return
    yield from _messages(messages, chat_key)
    yield from for_calls((chat_key, messages))
    if isinstance(messages[-1], dict) and messages[-1].get("role") != "assistant":
        last = messages[-1].get("role")
        yield f"{chat_key}[-1] is of {last!r}: the last message must be the assistant's (a bare assert when loading)"
    elif isinstance(messages[-1], dict) and not any(messages[-1].get(key) for key in _SAID):
        yield f"{chat_key}[-1] is empty: the model would learn to say nothing"
    tools = row.get(tool_key) if tool_key else None
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        yield f"{tool_key!r} is {_named(tools)}: chat templates want a list of objects, or no such key"
    if not tools and any(isinstance(message, dict) and message.get("tool_calls") for message in messages):
        yield f"{WARNING}tool calls without {tool_key or 'tools'!r}: the model learns to call functions it was not told of"


_SAID = ("content", "tool_calls", "function_call", "reasoning_content", "reasoning")


def sft_simple(row: Json, input_key: str = "input", output_key: str = "output") -> Iterator[str]:
    """A row of `ResponseDataset`, read for SFT."""
    if "messages" in row:
        if "task_name" in row:
            yield "task_name beside messages: NeMo RL adds a column of that name and fails; leave it out"
        yield from sft(row)
        return
    yield from _text(row, input_key, "it becomes the user's message")
    yield from _text(row, output_key, "it becomes the assistant's message")


def dpo(row: Json, prompt_key: str = "prompt", chosen_key: str = "chosen", rejected_key: str = "rejected") -> Iterator[str]:
    """A row of `BinaryPreferenceDataset`."""
    prompt = row.get(prompt_key)
    if isinstance(prompt, list) and prompt:
        yield from _messages(prompt, prompt_key)
        yield from for_calls((prompt_key, prompt))
    elif not isinstance(prompt, str) or not prompt.strip():
        yield f"{prompt_key!r} is {_named(prompt)}: it must be a text or a list of messages"
    for key in (chosen_key, rejected_key):
        if isinstance(row.get(key), list):
            yield f"{key!r} is a list: TypeError in the chat template; it must be a text (messages: PreferenceDataset)"
        elif not isinstance(row.get(key), str):
            yield f"{key!r} is {_named(row.get(key))}: it must be a text"
    if isinstance(row.get(chosen_key), str) and not row[chosen_key].strip():
        yield f"{chosen_key!r} is empty: the model would learn to say nothing"
    if isinstance(row.get(chosen_key), str) and row.get(chosen_key) == row.get(rejected_key):
        yield f"{chosen_key!r} and {rejected_key!r} are the same: nothing to prefer"
    yield from _tools_dropped(row)


def dpo_messages(row: Json) -> Iterator[str]:
    """A row of `PreferenceDataset`."""
    context, completions = row.get("context"), row.get("completions")
    if not isinstance(context, list) or not context:
        yield f"'context' is {_named(context)}: it must be a list of messages"
    else:
        yield from _messages(context, "context")
    if "task_name" in row:
        yield "task_name: NeMo RL adds a column of that name and fails; leave it out"
    if not isinstance(completions, list) or len(completions) != 2:
        count = len(completions) if isinstance(completions, list) else _named(completions)
        yield f"'completions' is {count}: exactly two {{rank, completion}} are read (an assert in the preprocessor)"
        return
    ranks: list[Any] = []
    for place, one in enumerate(completions):
        completion = inside(one, "completion")
        if not isinstance(one, dict) or not isinstance(completion, list) or not completion:
            yield f"completions[{place}] must be {{rank: int, completion: [messages]}}, and is {_named(one)}"
            continue
        ranks.append(one.get("rank"))
        yield from _messages(completion, f"completions[{place}].completion")
        yield from for_calls(("context", context), (f"completions[{place}].completion", completion))
        if isinstance(completion[-1], dict) and completion[-1].get("role") != "assistant":
            yield f"completions[{place}].completion does not end with the assistant's message"
    if any(type(rank) not in (int, float) for rank in ranks):
        yield f"ranks {ranks}: numbers are compared, the lower wins"
    elif len(ranks) == 2 and ranks[0] == ranks[1]:
        yield f"both ranks are {ranks[0]}: ties raise NotImplementedError; give the preferred completion the lower rank"
    if len(ranks) == 2 and completions[0].get("completion") == completions[1].get("completion"):
        yield "both completions are the same: nothing to prefer"
    yield from _tools_dropped(row)


def _messages(messages: list[Any], where: str) -> Iterator[str]:
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield f"{where}[{place}] is no message: it has no role"
            continue
        role, content = message["role"], message.get("content")
        if type(content) is str:  # as nearly all messages are, there is nothing to say of them
            if len(message) == 2 and role in _PLAIN:
                continue
            if len(message) == 3 and role == "tool" and message.get("tool_call_id") is not None:
                continue
        at = f"{where}[{place}]"
        if content is None:
            yield f"{WARNING}{at} has no content: templates that join texts fail on null; write an empty string"
        elif not isinstance(content, (str, list)):
            yield f"{at}.content is {_named(content)}: it must be a text"
        elif isinstance(content, list):
            yield f"{WARNING}{at}.content is a list of parts: most templates of text models want a string"
        if role == "developer":
            yield f"{WARNING}{at} is a developer's turn: chat templates know system"
        elif role == "function":
            yield f"{WARNING}{at} is a function's turn, OpenAI's form before tools: chat templates know tool"
        if message.get("function_call"):
            yield f"{at}.function_call is OpenAI's form before tools: chat templates leave it out; write it into tool_calls"
        if message.get("reasoning_content") or message.get("reasoning"):
            yield f"{WARNING}{at} has {REASONING}"
        if message.get("tool_calls") is not None:
            yield from _calls(message["tool_calls"], at)
        if role == "tool" and message.get("tool_call_id") is None:
            yield f"{WARNING}{at} has no tool_call_id: nothing says which call it answers"


_PLAIN = ("system", "user", "assistant")


def _calls(calls: Any, at: str) -> Iterator[str]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        yield f"{at}.tool_calls is {_named(calls)}: it must be a list of objects"
        return
    for place, call in enumerate(calls):
        function = call.get("function")
        if (
            isinstance(function, dict)
            and isinstance(function.get("name"), str)
            and isinstance(function.get("arguments"), dict)
        ):
            continue
        where = f"{at}.tool_calls[{place}]"
        if not isinstance(function, dict):
            nested = "{id, type, function: {name, arguments}}"
            yield f"{WARNING}{where} has no `function`: templates of Llama 3 fail on flat calls; write {nested}"
            function = call
        if not isinstance(function.get("name"), str):
            yield f"{where} names no function"
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            yield f"{WARNING}{where}.arguments are text: {QUOTED_TWICE if _is_json(arguments) else 'it is not JSON'}"
        elif not isinstance(arguments, dict):
            yield f"{where}.arguments is {_named(arguments)}: it must be an object"


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True


def _tools_dropped(row: Json) -> Iterator[str]:
    if row.get("tools"):
        yield "tools are never passed to preference data: write them into the system turn"


def _text(row: Json, key: str, why: str) -> Iterator[str]:
    value = row.get(key)
    if key not in row:
        yield f"no {key!r}: KeyError when loading (the row has {', '.join(sorted(row)[:8]) or 'nothing'})"
    elif not isinstance(value, str):
        yield f"{key!r} is {_named(value)}: it must be a text ({why})"
    elif not value.strip():
        yield f"{key!r} is empty"


def _named(value: Any) -> str:
    kinds = {
        type(None): "missing",
        bool: "a boolean",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    kind = kinds.get(type(value), type(value).__name__)
    return f"{kind} ({_cut(str(value))})" if isinstance(value, (bool, int, float, str)) else kind


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
