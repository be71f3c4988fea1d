"""A data file through TRL's own eyes: `datasets`, then what its trainers do with a row before the chat template."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.export.loading import installed, loaded
from rollforge.records.items import Json


def load(kind: str, path: Path) -> str | None:
    """What datasets and TRL made of the file; None where they are not installed. Raises what `datasets` raises, and
    `UserError` where the rows come back otherwise than they stand in the file."""
    if not installed("trl", "datasets"):
        return None
    trl, datasets = importlib.import_module("trl"), importlib.import_module("datasets")
    with loaded(path) as data:
        shape = _shape(kind, data[0], path, importlib.import_module("trl.data_utils"))
        return f"loaded {len(data):,} rows ({shape}) with trl {trl.__version__}, datasets {datasets.__version__}"


def _shape(kind: str, row: Json, path: Path, tools: Any) -> str:
    if kind == "dpo-implicit" and "prompt" not in row:
        parts = tools.extract_prompt(row)
        if not (parts["prompt"] and parts["chosen"] and parts["rejected"]):
            raise UserError(
                f"{path}: TRL finds no common beginning of chosen and rejected in the first row, or nothing after it"
            )
    turns = tools.is_conversational(row) or tools.is_conversational_from_value(row)
    return "conversational" if turns else "standard"
