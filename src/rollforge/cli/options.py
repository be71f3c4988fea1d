"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
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


def _place(value: str | None) -> str | None:
    if value is not None:
        from rollforge.sandbox.docker import choose

        choose(value)
    return value


SANDBOX: str | None = typer.Option(
    None, "--sandbox", metavar="PLACE", callback=_place, help="Where programs run: namespaces, docker or podman."
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


def settings(file: Path | None, options: dict[str, Any], more: list[str], uses: Collection[str]) -> dict[str, Any]:
    """What the YAML says, over it the options that were given, over these every `--set`.

    In `uses`, `env: arithmetic` becomes `env: {use: arithmetic}`, so that options for it can be merged in.
    """
    from rollforge.collect.config import used
    from rollforge.config import merge, parse_set, read_yaml

    values: dict[str, Any] = {}
    for part in (read_yaml(file) if file else {}, given(options), *map(parse_set, more)):
        values = merge(values, {key: used(value) if key in uses else value for key, value in part.items()})
    return values


def seldom_collect_garbage() -> None:
    """Rows and rollouts are trees without cycles: the default thresholds make the collector walk them all the time."""
    import gc

    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
