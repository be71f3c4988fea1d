"""Rows of a data set for TRL's GRPO and tasks, both ways; completions with the ids that TRL leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollforge.errors import UserError
from rollforge.export.trl.rows import fields_text, tools_text
from rollforge.records.chat import chat_request, params_from_chat
from rollforge.records.items import Json
from rollforge.records.lossless import loads
from rollforge.records.messages import TEMPLATE
from rollforge.records.task import Task, task_from_row

TRLS = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments", "environment")
)
"""Arguments of a reward function, and a column, that are the trainer's own."""


def task_of(row: Mapping[str, Any]) -> Task:
    """The task of a row of a data set for GRPO. Raises `UserError` if it has no prompt, or fields that are no JSON object.

    As the export writes it (`fields` holds the task's fields, `task` its id; `fields` and `tools` may be JSON text), or with
    the fields as columns; null is absent.
    """
    columns = {name: value for name, value in row.items() if value is not None}
    prompt = columns.pop("prompt", None)
    if "responses_create_params" in columns:
        return task_from_row(columns)
    if not prompt:
        raise UserError(
            f"the row has no prompt (its columns: {', '.join(columns) or 'none'}); task_rows(env) makes rows that have all"
        )
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    params = params_from_chat({"messages": chat, "tools": _json(columns.pop("tools", None), "tools", list) or None})
    fields = columns.get("fields")
    if not isinstance(fields, (str, dict)):
        return task_from_row({"responses_create_params": params, **columns})
    own = _json(fields, "fields", dict)
    more = {name: value for name, value in columns.items() if name not in ("fields", "task", "env", "ground_truth")}
    task = task_from_row({"responses_create_params": params, **more, **own})
    return replace(task, id=str(columns["task"])) if columns.get("task") else task


def row_of(task: Task, env_name: str) -> Json:
    """The columns of `rollforge export --to trl:grpo` that a reward needs; all but the prompt are text."""
    chat = chat_request(task.params, TEMPLATE)
    return {
        "prompt": chat["messages"],
        "env": env_name,
        "task": task.id,
        "fields": fields_text(task.fields),
        "tools": tools_text(chat.get("tools") or ()),
    }


def rows_of(prompts: Sequence[Any], columns: Mapping[str, Any]) -> list[Json]:
    """One for each completion, of the columns that the data set has."""
    own = {name: values for name, values in columns.items() if name not in TRLS or name == "environment"}
    lists = {
        name: values for name, values in own.items() if isinstance(values, (list, tuple)) and len(values) == len(prompts)
    }
    return [{"prompt": prompt, **{name: values[i] for name, values in lists.items()}} for i, prompt in enumerate(prompts)]


def numbered(said: Any) -> Any:
    """TRL's messages have no ids: a tool message answers the first open call of its name."""
    if isinstance(said, str):
        return said
    found: list[Json] = []
    waiting: list[Json] = []
    for place, message in enumerate(said):
        if message.get("tool_calls"):
            calls = [{**call, "id": call.get("id") or f"{place}_{i}"} for i, call in enumerate(message["tool_calls"])]
            message = {**message, "tool_calls": calls}
            waiting = list(calls)
        elif message.get("role") == "tool" and not message.get("tool_call_id") and waiting:
            named = [call for call in waiting if call["function"]["name"] == message.get("name")]
            answered = (named or waiting)[0]
            waiting.remove(answered)
            message = {**message, "tool_call_id": answered["id"]}
        found.append(message)
    return found


def _json(text: Any, column: str, kind: type) -> Any:
    if text is None or isinstance(text, kind):
        return text
    try:
        value = loads(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"the column {column!r} is no JSON ({error}): {text!r:.100}") from error
    if value is not None and not isinstance(value, kind):
        raise UserError(f"the column {column!r} is {type(value).__name__}, not {_JSON[kind]}: {text!r:.100}")
    return value


_JSON: dict[type, str] = {dict: "an object", list: "a list"}
