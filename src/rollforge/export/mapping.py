"""Rows with any field names: `name: source` pairs, and what the sources are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rollforge.config import read_yaml
from rollforge.errors import UserError, unknown
from rollforge.records.lossless import dumps, loads

SOURCES = {
    "prompt": "text of the prompt, where it is one user turn (system turns before it)",
    "prompt_messages": "the prompt as messages",
    "completion": "text of the completion, where it is one message without tool calls",
    "completion_messages": "the completion as messages",
    "final_text": "text of the last assistant message, whatever was before it",
    "messages": "prompt and completion as messages",
    "tools": "the tools offered, a list",
    "reward": "a number",
    "answer": "the expected answer, or null",
    "env": "the environment's name",
    "task": "the task's name",
    "model": "the model's name, or null",
    "id": "the rollout's name",
}
"""Beside them: `task.<field>` is a field of the stored row, also within objects; `=text` is that text, a number or true."""


def read_mapping(path: str | Path) -> dict[str, str]:
    """A YAML file of `output name: source`, nested or dotted, flattened; also under `mapping:`, as in an export's
    configuration. Raises `UserError` naming the key."""
    try:
        held = read_yaml(path)
        inner = held.get("mapping") if len(held) == 1 else None
        return checked(flattened(inner if isinstance(inner, dict) else held))
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def flattened(mapping: Any) -> Any:
    """Objects within objects as dotted names. Raises `UserError` for a value that is no text."""
    return dict(_flat(mapping, "")) if isinstance(mapping, dict) else mapping


def checked(mapping: Mapping[str, str]) -> dict[str, str]:
    """The mapping itself. Raises `UserError` for a source that does not exist and for names that are in each other's way."""
    for name, source in mapping.items():
        if not all(name.split(".")):
            raise UserError(f"the output name {name!r} has an empty part between its dots")
        if (
            not source.startswith("=")
            and not (source.startswith("task.") and all(source.split(".")))
            and source not in SOURCES
        ):
            hint = f"(for {name}; also task.<field>, or =constant)"
            raise unknown("source", source, SOURCES, hint)
        outer = next((other for other in mapping if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise UserError(f"{name} stands inside {outer}, which is a value already: rename one of them")
    return dict(mapping)


def constant(source: str) -> Any:
    """`=3` is 3, `=true` is true, `="3"` and `=text` are texts."""
    text = source[1:]
    try:
        return loads(text)
    except ValueError:
        return text


def _flat(value: Mapping[Any, Any], where: str) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        name = f"{where}{key}"
        if isinstance(inner, dict):
            yield from _flat(inner, f"{name}.")
        elif isinstance(inner, str):
            yield name, inner
        else:
            shown = dumps(inner, default=str).decode()
            raise UserError(f"{name}: {shown} is no source; a constant is written as {name}: '={shown}'")
