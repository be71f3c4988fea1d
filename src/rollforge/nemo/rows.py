"""Input rows to the rows that are run (NeMo Gym's "materialized inputs"): agent, sampling, task and repeat.

Lines of the same text are one task; its repeats follow each other, and are numbered through.
"""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rollforge.errors import UserError, reported
from rollforge.nemo.config import AGENTS
from rollforge.nemo.prompt import Prompt
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.records.rows import BadLine
from rollforge.records.task import Task, task_from_row

SHOWN = 5
"""Offending lines that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is made of every row."""

    agent: str | None = None
    """For rows that name none."""
    limit: int | None = None
    repeats: int | Mapping[str, int] = 1
    """For all, or by agent, with `_default` for those not named."""
    add_seed: bool = False
    """Tell vLLM the number of the repeat as its seed."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Laid over each row's `responses_create_params`."""
    prompt: Prompt | None = None


def materialise(path: Path, plan: Plan, bad: Callable[[BadLine], None]) -> Iterator[Json]:
    """The rows that are run, streamed. A line that is no task is handed to `bad`; raises `UserError` for rows without an
    agent, all of them in one message, once the file has been read."""
    numbers: dict[bytes, int] = {}
    """Task index by the digest of the line."""
    repeats: Counter[int] = Counter()
    homeless: list[int] = []
    for number, line in lines(path, plan.limit):
        try:
            row = _row(line, plan)
            agent = (row.get("agent_ref") or {}).get("name")
            if not isinstance(agent, str):
                homeless.append(number)
                continue
            count, extra = _count(plan, agent), _extra(row) if plan.add_seed else None
        except UserError as error:
            bad(unusable(path, number, line, error))
            continue
        index = row.get("_ng_task_index")
        if type(index) is not int:
            index = numbers.setdefault(hashlib.blake2b(line, digest_size=16).digest(), len(numbers))
        for _ in range(count):
            repeat, repeats[index] = repeats[index], repeats[index] + 1
            yield _numbered(row, index, repeat, extra)
    if homeless:
        shown = ", ".join(map(str, homeless[:SHOWN])) + (", ..." if len(homeless) > SHOWN else "")
        raise UserError(
            f"{path}: {len(homeless)} rows name no agent (lines {shown}): give +agent_name=NAME, or an agent_ref in each "
            "row (ng_prepare_data writes it)"
        )


def task_of(row: Json, plan: Plan) -> Task:
    """The task of a row that is run: one for all its repeats, whatever their seeds."""
    task = task_from_row(row)
    if not plan.add_seed:
        return task
    extra = {key: value for key, value in _extra(row).items() if key != "seed"}
    params = row["responses_create_params"]
    metadata = {key: value for key, value in params["metadata"].items() if key != "extra_body"}
    if extra:
        metadata["extra_body"] = dumps(extra).decode()
    rest = {key: value for key, value in params.items() if key != "metadata"}
    unseeded = {**row, "responses_create_params": rest | ({"metadata": metadata} if metadata else {})}
    return replace(task, id=task_from_row(unseeded).id)


def prompted(path: Path, prompt: Prompt, bad: Callable[[BadLine], None]) -> Iterator[Json]:
    """The rows of a file with their prompts filled in, and nothing else changed."""
    for number, line in lines(path):
        try:
            yield prompt(as_object(line))
        except UserError as error:
            bad(unusable(path, number, line, error))


def lines(path: Path, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers. Raises `UserError` if it cannot be read."""
    with reported(f"cannot read {path}"), open(path, "rb") as file:
        for number, line in enumerate(islice(file, limit), 1):
            text = line.strip().removeprefix(BOM_UTF8) if number == 1 else line.strip()
            if text:
                yield number, text


def same_file(one: Path, other: Path) -> bool:
    """Whether two names, through links of both kinds, are one file, there or not."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def as_object(line: bytes) -> Json:
    """Raises `UserError` for what is no JSON object."""
    try:
        row = loads(line)
    except ValueError as error:
        raise UserError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"the line is {type(row).__name__}, not an object")
    return row


def unusable(path: Path, number: int, line: bytes, error: UserError) -> BadLine:
    return BadLine(str(path), number, str(error), line[:60].decode("utf-8", "replace"))


def _row(line: bytes, plan: Plan) -> Json:
    row = as_object(line)
    if plan.prompt is not None:
        row = plan.prompt(row)
    if not isinstance(row.get("agent_ref") or {}, dict):
        raise UserError(f"agent_ref is {type(row['agent_ref']).__name__}, not an object")
    if plan.agent and not row.get("agent_ref"):
        row["agent_ref"] = {"type": AGENTS, "name": plan.agent}
    task = task_from_row(row)
    # The short forms of a prompt become NeMo Gym's, which its servers read.
    long = {"responses_create_params": {**task.params, **plan.params}, **task.fields}
    return long | {key: row[key] for key in ("_ng_task_index",) if key in row}


def _count(plan: Plan, agent: str) -> int:
    if isinstance(plan.repeats, int):
        return plan.repeats
    count = plan.repeats.get(agent, plan.repeats.get("_default"))
    if count is None:
        raise UserError(f"num_repeats has no entry for the agent {agent}, and no _default")
    return count


def _extra(row: Json) -> Json:
    """What `metadata.extra_body` of a row holds: JSON in a text."""
    metadata = row["responses_create_params"].get("metadata") or {}
    try:
        found = loads(metadata.get("extra_body") or "{}") if isinstance(metadata, dict) else None
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError("metadata.extra_body is no JSON object in a text: num_repeats_add_seed has no place for the seed")
    return found


def _numbered(row: Json, index: int, repeat: int, extra: Json | None) -> Json:
    found = {**row, "_ng_task_index": index, "_ng_rollout_index": repeat}
    if extra is not None:
        params = row["responses_create_params"]
        metadata = {**(params.get("metadata") or {}), "extra_body": dumps({**extra, "seed": repeat}).decode()}
        found["responses_create_params"] = {**params, "metadata": metadata}
    return found
