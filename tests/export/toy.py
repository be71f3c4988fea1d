"""Rows to export, and a target that writes examples as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rollforge.export.examples import Demonstration, Judged, Pair, Prompt
from rollforge.export.target import Kind, Made, Problem, Refused, Settings, Target


def row(question: str = "2 + 2?", answer: str = "4", reward: float | None = 1.0, **fields: Any) -> dict[str, Any]:
    """A rollout as NeMo Gym stores it."""
    own: dict[str, Any] = {
        "responses_create_params": {"input": [{"role": "user", "content": question}]},
        "response": {"output": [said(answer)]},
        "reward": reward,
        "agent_ref": {"name": "arithmetic"},
    }
    return {**own, **fields}


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(name: str, arguments: str, call_id: str | None = "c1") -> dict[str, Any]:
    return {"type": "function_call", "name": name, "arguments": arguments, "call_id": call_id}


def output(text: str, call_id: str | None = "c1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows))
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _prompt(example: Prompt, settings: Settings) -> dict[str, Any]:
    return {"messages": example.messages, "answer": example.answer, "fields": example.fields, "output": example.output}


def _demonstration(example: Demonstration, settings: Settings) -> dict[str, Any]:
    if any("tabu" in str(message["content"]) for message in example.completion):
        raise Refused("it says tabu")
    return {"messages": [*example.prompt, *example.completion], "tools": example.tools}


def _pair(example: Pair, settings: Settings) -> dict[str, Any]:
    return {"prompt": example.prompt, "chosen": example.chosen, "rejected": example.rejected, "margin": example.margin}


def _judged(example: Judged, settings: Settings) -> dict[str, Any]:
    return {"completion": example.completion, "label": example.label}


def _check(row: Mapping[str, Any]) -> Iterable[str]:
    return [] if row else ["the row is empty"]


def _files(made: Made) -> Mapping[str, str]:
    return {"config.yaml": f"model: {made.settings.model}\n", "launch.sh": "#!/bin/sh\necho ready\n"}


def _command(made: Made) -> str:
    return "true"


def _check_config(kind: str, file: Path) -> Iterable[Problem]:
    return []


def _load(kind: str, file: Path) -> str | None:
    return None


COLUMNS = {"prompt": "string", "margin": "double"}

TOY = Target(
    name="toy",
    kinds={
        "prompts": Kind("prompt", _prompt, _check, "messages, answer"),
        "answers": Kind("prompt", _prompt, _check, "messages, answer", needs_answer=True),
        "sft": Kind("demonstration", _demonstration, _check, "messages, tools"),
        "per-env": Kind("demonstration", _demonstration, _check, "messages, tools", per_env=lambda settings: True),
        "dpo": Kind("pair", _pair, _check, "prompt, chosen, rejected"),
        "kto": Kind("judged", _judged, _check, "completion, label"),
        "parquet": Kind("pair", _pair, _check, "prompt, margin", format="parquet", columns=COLUMNS),
    },
    versions=("2", "1"),
    files=_files,
    command=_command,
    check_config=_check_config,
    load=_load,
)
