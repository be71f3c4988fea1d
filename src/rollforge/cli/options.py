"""Options that several commands share."""

from __future__ import annotations

from typing import Any

import typer

from rollforge.errors import UserError


def _allow(value: bool) -> bool:
    if value:
        from rollforge.sandbox.jail import allow_weaker

        allow_weaker()
    return value


ALLOW_UNSANDBOXED: bool = typer.Option(
    False,
    "--allow-unsandboxed",
    callback=_allow,
    help="Run programs also where this machine isolates them less than promised.",
)


def header_of(text: str) -> tuple[str, str]:
    """`Name: value`. Raises `UserError`, which does not show the text: it may be a secret."""
    name, colon, value = text.partition(":")
    if not colon:
        raise UserError("--header is written 'Name: value'")
    return name.strip(), value.strip()


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Only what was said, at any depth."""
    nested = {key: given(value) if isinstance(value, dict) else value for key, value in options.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}
