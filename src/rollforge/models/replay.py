"""`replay:RUN_DIR_OR_FILE`: answers from stored rollouts.

A request is answered from a rollout that began with the same prompt, of the same task where several share it, and of the
same index where the task stands in the data several times; the repeat picks among them, the number of model calls so far
picks the answer. What tools say now is not compared with what they said then. Memory holds
positions in the file, never rollouts.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from rollforge.errors import InfraFault, UserError, reported
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.records.items import Item, Response, input_items, item_type, model_calls, text_of
from rollforge.records.lossless import dumps, loads
from rollforge.records.rollout import Rollout
from rollforge.records.rows import rollout_from_row

Index = dict[bytes, list[tuple[int, int]]]
"""Prompt, alone, with the task's id, and with its index too -> (repeat, position in the file), in order of repeat."""

OF_THE_MODEL = ("max_output_tokens", "content_filter", "max_context")
"""Reasons of an incomplete answer that are the model's own; the others are an agent's, which finds them again."""


def load(name: str | None, options: ModelOptions) -> Model:
    """Raises `UserError` if there is no such file or no rollout in it."""
    if not name:
        raise UserError("replay answers from a stored run: --model replay:RUN_DIR or replay:FILE.jsonl")
    path = Path(name) / "rollouts.jsonl" if Path(name).is_dir() else Path(name)
    index = _index(path)

    async def model(request: Request, /) -> Response:
        position, after = _find(index, request, path)
        stored = _rollout(path, position)
        calls = model_calls(stored.output)
        turn = len(model_calls(after))
        if turn >= len(calls):
            raise InfraFault(
                f"{path} has {len(calls)} model calls for task {stored.task}, repeat {stored.index}, and this rollout asks "
                f"for one more: the environment or the agent's limits differ from those of the stored run"
            )
        return _response(stored, calls[turn], turn, last=turn + 1 == len(calls))

    return model


def _index(path: Path) -> Index:
    index: Index = {}
    problem = "the file is empty"
    with reported(f"cannot read the stored run {path}"), open(path, "rb") as handle:
        position = 0
        for number, line in enumerate(handle, 1):
            try:
                rollout = rollout_from_row(loads(line))
                if rollout.output:
                    _enter(index, rollout, position)
            except (ValueError, UserError) as error:
                problem = f"line {number}: {error}"
            position += len(line)
    if not index:
        raise UserError(f"{path} has no rollout to replay ({problem})")
    for found in index.values():
        found.sort()
    return index


def _enter(index: Index, rollout: Rollout, position: int) -> None:
    prompt = _digest(input_items(rollout.params))
    for key in (*_keys(prompt, rollout.task, rollout.task_index), prompt):
        found = index.setdefault(key, [])
        found.append((len(found) if rollout.index is None else rollout.index, position))


def _find(index: Index, request: Request, path: Path) -> tuple[int, list[Item]]:
    """The position of the stored rollout, and what the conversation holds after its prompt."""
    task = request.task
    for length, prompt in _prompts(request):
        key = _digest(prompt)
        own = _keys(key, task.id, task.index) if task else []
        found = next((index[key] for key in (*own, key) if key in index), None)
        if found:
            at = bisect_left(found, (request.index, -1))
            exact = at < len(found) and found[at][0] == request.index
            position = found[at if exact else request.index % len(found)][1]
            return position, input_items(request.params)[length:]
    name = f"task {task.id}" if task else "this conversation"
    raise InfraFault(f"{path} has no rollout that begins with the prompt of {name}; replay knows only the tasks of that run")


def _keys(prompt: bytes, task: str, number: int | None) -> list[bytes]:
    """The narrower first."""
    name = prompt + task.encode()
    return [name] if number is None else [b"%b\0%d" % (name, number), name]


def _prompts(request: Request) -> Iterator[tuple[int, list[Item]]]:
    """What the stored prompt may be: the task's; or, with what an environment added to it, all that no model said."""
    given = input_items(request.params)
    if request.task is not None:
        prompt = input_items(request.task.params)
        yield len(prompt), prompt
    for place, item in enumerate(given):
        if item.get("role", "assistant") == "assistant" and item_type(item) != "function_call_output":
            yield place, given[:place]
    yield len(given), given


def _digest(items: list[Item]) -> bytes:
    """Of the content: a message is the same with its text as a string or in parts, with or without type, id and status."""
    plain = []
    for item in items:
        content = item.get("content")
        if item_type(item) != "message":
            plain.append({key: item[key] for key in item if key not in ("id", "status")})
        elif isinstance(content, list) and any(not isinstance(p, dict) or "text" not in p for p in content):
            plain.append({"role": item.get("role"), "content": content})
        else:
            plain.append({"role": item.get("role"), "content": text_of(content)})
    return hashlib.sha256(dumps(plain, sort_keys=True)).digest()[:16]


def _rollout(path: Path, position: int) -> Rollout:
    try:
        with open(path, "rb") as handle:
            handle.seek(position)
            return rollout_from_row(loads(handle.readline()))
    except (OSError, ValueError, UserError) as error:
        raise InfraFault(f"{path} changed while it was being replayed: {error}") from error


def _response(stored: Rollout, output: list[Item], turn: int, *, last: bool) -> Response:
    given: Response = stored.response or {}
    response: Response = {
        "id": f"{given.get('id') or 'resp'}_{turn}",
        "object": "response",
        "created_at": given.get("created_at") or 0.0,
        "model": given.get("model") or stored.model or "replay",
        "status": "completed",
        "output": output,
        # The stored usage is that of all calls together: the first brings it, so that the sum is the stored one.
        "usage": given.get("usage") if turn == 0 else None,
    }
    details = given.get("incomplete_details")
    if last and details and details.get("reason") in OF_THE_MODEL:
        response["status"] = "incomplete"
        response["incomplete_details"] = details
    return response
