"""Formats that no single trainer owns: files only, no configuration to train with."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from rollforge.export.generic import check, rows
from rollforge.export.loading import installed, loaded
from rollforge.export.target import Kind, Made, Problem, Target
from rollforge.records.lossless import dumps


def files(made: Made) -> Mapping[str, str]:
    """For ShareGPT the entries of LLaMA-Factory's `dataset_info.json`; nothing for the others."""
    if made.kind != "sharegpt":
        return {}
    columns = {"messages": "conversations", "tools": "tools"}
    entries = {
        f"{made.folder.parent.name}_{data.split}": {
            "file_name": str(data.path),
            "formatting": "sharegpt",
            "columns": columns,
        }
        for data in made.data
    }
    return {"dataset_info.json": dumps(entries).decode() + "\n"}


def command(_: Made) -> str:
    """There is nothing to start."""
    return ""


def check_config(_: str, path: Path) -> Iterable[Problem]:
    """There is no configuration whose framework would be known."""
    if path.suffix not in (".yaml", ".yml"):
        return []
    return [Problem(str(path), 0, "error", "the generic formats have no configuration: name the trainer's (--for trl:sft)")]


def load(_: str, path: Path) -> str | None:
    """What `datasets` made of the file; None where it is not installed. Raises what it raises."""
    if not installed("datasets"):
        return None
    with loaded(path) as data:
        return f"loaded {len(data):,} rows with datasets {importlib.import_module('datasets').__version__}"


TARGET = Target(
    name="generic",
    configs=(),
    kinds={
        "prompt-completion-score": Kind(
            "judged",
            rows.prompt_completion_score,
            check.prompt_completion_score,
            "every judged rollout as text: prompt, completion, score",
            every=True,
        ),
        "messages-score": Kind(
            "judged", rows.messages_score, check.messages_score, "every judged rollout: messages, tools, score", every=True
        ),
        "sharegpt": Kind(
            "demonstration",
            rows.sharegpt,
            check.sharegpt,
            "LLaMA-Factory and others: conversations ({from, value}), tools (JSON text)",
        ),
        "openai": Kind(
            "demonstration", rows.openai, check.openai, "OpenAI fine-tuning: messages, tools, parallel_tool_calls"
        ),
        "openai-dpo": Kind(
            "pair", rows.openai_dpo, check.openai_dpo, "OpenAI preferences: input, preferred_output, non_preferred_output"
        ),
        "mapping": Kind(
            "judged",
            rows.mapped,
            check.mapped,
            "every judged rollout, with your field names",
            every=True,
            needs_mapping=True,
        ),
        "mapping-prompts": Kind(
            "prompt", rows.mapped, check.mapped, "one row for each task, with your field names", needs_mapping=True
        ),
    },
    versions=("1",),
    files=files,
    command=command,
    check_config=check_config,
    load=load,
)
