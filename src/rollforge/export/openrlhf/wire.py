"""What OpenRLHF hands to a reward or an agent, read again: the label as a task's row, the query as what the policy said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rollforge.errors import UserError
from rollforge.models.chat_format import read_tool_calls
from rollforge.records.items import Json
from rollforge.records.lossless import loads
from rollforge.records.messages import split_think
from rollforge.records.task import CONTENT_KEYS


def row_of(label: Any) -> Json:
    """The task's row in a label: what the export writes, or the row itself, each as JSON text or as an object.

    Raises `UserError` for any other label: an answer alone does not say what the environment's verifier needs.
    """
    value = label
    if isinstance(label, str):
        try:
            value = loads(label)
        except (ValueError, RecursionError):
            value = None
    found = value.get("task", value) if isinstance(value, dict) else None
    if not isinstance(found, dict) or not any(found.get(key) for key in ("responses_create_params", *CONTENT_KEYS)):
        raise UserError(
            f"the label holds no task: {str(label)[:100]!r}; it is the task's row as JSON, which "
            f"`rollforge export --to openrlhf:grpo` writes (and --data.label_key label passes on)"
        )
    return found


def said(query: str, prompt: str, params: Mapping[str, Any]) -> Json:
    """The assistant's message in a text of prompt and response. Tool calls are read where the task has tools.

    Raises `UserError` if the text does not hold the prompt: its beginning may be cut off, no more.
    """
    tail = prompt if query.startswith(prompt) else prompt[-_TAIL:]
    _, found, response = query.partition(tail) if tail else ("", "", query)
    if tail and not found:
        raise UserError(f"the query does not hold the end of its prompt, {tail[-60:]!r}: which part of it is the response?")
    thought, text = split_think(_END.sub("", response))
    message: Json = {"role": "assistant", "content": text or ""}
    if thought is not None:
        message["reasoning_content"] = thought
    if params.get("tools") and text:
        message["content"], calls = read_tool_calls(text)
        if calls:
            functions = [{"name": name, "arguments": arguments} for name, arguments in calls]
            message["tool_calls"] = [{"type": "function", "function": function} for function in functions]
    return message


_TAIL = 200
_END = re.compile(r"(?:(?:<[|｜][^|｜<>\n]{1,40}[|｜]>|</?s>|<(?:eos|pad|end_of_turn)>)\s*)+\Z")
"""Special tokens at the end: OpenRLHF decodes with them."""
