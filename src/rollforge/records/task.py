"""A task: what is asked of the policy, and what only the verifier may know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rollforge.errors import UserError
from rollforge.records.items import Params, check_params
from rollforge.records.lossless import dumps

CONTENT_KEYS = ("prompt", "messages", "input")
"""Short forms of the prompt, in the order they are looked for."""


@dataclass(frozen=True, slots=True)
class Task:
    params: Params
    """`responses_create_params`; `input` is a string or a list of items."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Every other top-level field of the row: the verifier's (expected_answer, options, ...) and `agent_ref`."""
    id: str = ""
    """The row's own `id`-like field if it named one (`task_id`), else the hash of its canonical content."""
    index: int | None = None
    """Position in its data set, or the row's `_ng_task_index`."""

    @property
    def content(self) -> str:
        """The hash of its canonical content, where the row names its id, which then says nothing of it; else "", as for
        content that is not JSON."""
        with suppress(UserError):
            return task_id(self.params, self.fields) if "task_id" in self.fields else ""
        return ""


def task_from_row(row: Mapping[str, Any], index: int | None = None) -> Task:
    """Read a task row, long form (`responses_create_params`) or short form (`prompt`: a string or a list of messages).

    Raises `UserError` saying what is missing when the row has no usable input, or what of it JSON cannot hold.
    """
    fields = dict(row)
    params = fields.pop("responses_create_params", None)
    if params is None:
        key = next((key for key in CONTENT_KEYS if fields.get(key) is not None), None)
        if key is None:
            raise UserError(f"no input: a task row has responses_create_params.input, or one of {', '.join(CONTENT_KEYS)}")
        params = {"input": fields.pop(key)}
        if isinstance(fields.get("tools"), list):
            params["tools"] = fields.pop("tools")
    elif not isinstance(params, dict):
        raise UserError(f"responses_create_params is {type(params).__name__}, not an object")
    problem = check_params(params)
    if problem is None:
        value = params["input"]
        problem = None if (value.strip() if isinstance(value, str) else value) else "input is empty"
    if problem:
        raise UserError(problem)
    given = fields.pop("_ng_task_index", None)
    name = fields.get("task_id")
    named = isinstance(name, (str, int)) and not isinstance(name, bool) and name != ""
    return Task(
        params=params,  # type: ignore[arg-type]
        fields=fields,
        id=str(name) if named else task_id(params, fields),
        index=given if type(given) is int else index,
    )


def bare_task(row: Mapping[str, Any], index: int | None = None) -> Task:
    """The same; a row that asks nothing of a model (`{}`, or only what a session starts from) is one too, without input."""
    params = row.get("responses_create_params")
    if params not in (None, {}) or any(row.get(key) is not None for key in CONTENT_KEYS):
        return task_from_row(row, index)
    fields = {key: value for key, value in row.items() if key != "responses_create_params"}
    return Task({"input": []}, fields, task_id({}, fields), index)


def task_id(params: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of the canonical JSON (sorted keys) of the content. Raises `UserError`.

    NeMo Gym's own marks (`_ng_rollout_index`, ...) say which attempt a row is, not which task: repeats have one id.
    """
    content_fields = {key: value for key, value in fields.items() if not key.startswith("_ng_")}
    try:
        content = dumps([params, content_fields], sort_keys=True)
    except ValueError as error:
        raise UserError(f"the row is not JSON: {error}") from error
    return hashlib.sha256(content).hexdigest()[:16]
