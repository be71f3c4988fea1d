"""Prompt templates: a YAML file with `user` and, if wanted, `system`, whose `{fields}` come from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from rollforge.config import read_yaml
from rollforge.errors import UserError, unknown
from rollforge.nemo.config import find
from rollforge.records.items import Json


@dataclass(frozen=True, slots=True)
class Prompt:
    user: str
    system: str | None = None

    def __call__(self, row: Json) -> Json:
        """`row` with `responses_create_params.input` made of its fields. Raises `UserError`: a field that the row lacks, or
        a row that has an input already."""
        params = row.get("responses_create_params") or {}
        if not isinstance(params, dict):
            raise UserError(f"responses_create_params is {type(params).__name__}, not an object")
        if params.get("input"):
            raise UserError("the row has responses_create_params.input already, and a prompt_config was given too")
        messages = [{"role": "system", "content": _filled(self.system, row)}] if self.system is not None else []
        messages.append({"role": "user", "content": _filled(self.user, row)})
        return {**row, "responses_create_params": {**params, "input": messages}}


def read_prompt(path: str | Path) -> Prompt:
    """Raises `UserError`: no such file, not a template."""
    file = find(path)
    values = read_yaml(file)
    for key in values:
        if key not in ("user", "system"):
            raise unknown("key", str(key), ("user", "system"), f"(in {file})")
    for key in ("user", "system"):
        text = values.get(key)
        if not isinstance(text, str) and (text is not None or key == "user"):
            raise UserError(f"{file}: {key} is {text!r}, not a text")
        _fields(text or "", f"{file}: {key}")
    return Prompt(values["user"], values.get("system"))


def _fields(template: str, where: str) -> None:
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UserError(f"{where} is not a template: {error} (braces that are meant as such are doubled)") from error
    for name in names:
        # `{row.__class__}` and the like reach into Python; a template has no business there.
        if not name.isidentifier():
            raise UserError(f"{where}: {{{name}}} is not the name of a field")


def _filled(template: str, row: Json) -> str:
    return template.format_map(_Row(row))


class _Row(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise unknown("field of the row in the prompt template:", key, self)
