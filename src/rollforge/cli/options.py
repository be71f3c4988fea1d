"""Options that several commands share."""

from __future__ import annotations

import typer


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
