"""Prompt templates in YAML: `user`, and if wanted `system`, filled from the fields of a row."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from . import PARENT_DIR


class PromptConfig(BaseModel):
    user: str
    system: str | None = None


@lru_cache(maxsize=64)
def load_prompt_config(path: str) -> PromptConfig:
    """Relative paths are looked up below the working directory, then beside `resources_servers/`."""
    found = next((place for place in (Path(path), PARENT_DIR / path) if place.is_file()), Path(path))
    return PromptConfig.model_validate(yaml.safe_load(found.read_text(encoding="utf-8")))


def fill_prompt(prompt_config: PromptConfig, row: dict[str, Any]) -> list[dict[str, str]]:
    """The messages of a row. Raises `KeyError` naming the field that the row lacks."""
    try:
        texts = {"system": prompt_config.system, "user": prompt_config.user}
        return [{"role": role, "content": text.format_map(row)} for role, text in texts.items() if text is not None]
    except KeyError as error:
        raise KeyError(f"the prompt asks for the field {error}; the row has {', '.join(row)}") from None


def apply_prompt_to_row(row: dict[str, Any], prompt_config: PromptConfig) -> dict[str, Any]:
    """A copy of the row whose input is the filled prompt."""
    params = row.get("responses_create_params") or {}
    return {**row, "responses_create_params": {**params, "input": fill_prompt(prompt_config, row)}}
