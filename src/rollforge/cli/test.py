"""`rollforge test`: whether an environment keeps its contract."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX
from rollforge.cli.output import console, print_json, prints_aside

if TYPE_CHECKING:
    from rollforge.audit.contract import Check


def contract(
    env: str = typer.Argument(..., help="Environment: a name, path/to/file.py:name, package.module:name, or a URL."),
    tasks: Path | None = typer.Option(None, exists=True, help="JSONL file of tasks, instead of the environment's own."),
    n: int = typer.Option(8, "-n", min=1, help="How many tasks are played."),
    success: float = typer.Option(1.0, help="The reward that the reference solution should get."),
    set_: list[str] = typer.Option([], "--set", help="An option of its task generator, as in --set level=hard."),
    suite: bool = typer.Option(True, help="Run its own pytest suite too."),
    tool_seconds: float = typer.Option(10.0, help="Deadline of a tool call."),
    verify_seconds: float = typer.Option(30.0, help="Deadline of a verification."),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print the checks as JSON."),
) -> None:
    """Check an environment: tools, tasks, replies of all kinds, its reference solution, determinism, isolation of sessions,
    clean-up, speed, and its own tests. Exit status 1: a check failed."""
    from rollforge.audit.suite import run_suite
    from rollforge.config import with_set
    from rollforge.envs.base import Limits
    from rollforge.envs.load import load_env

    options = with_set({}, set_)
    limits = Limits(tool_seconds, verify_seconds)
    with prints_aside():
        found: Any = load_env(env)
        checks = _checks(found, env, tasks=tasks, options=options, n=n, success=success, limits=limits)
        checks += [run_suite(found)] if suite else []
    failed = sum(check.status == "fail" for check in checks)
    if json:
        from dataclasses import asdict

        print_json({"env": env, "passed": not failed, "checks": [asdict(check) for check in checks]})
    else:
        _print(env, checks)
    sys.exit(1 if failed else 0)


def _checks(env: Any, reference: str, **options: Any) -> list[Check]:
    import uvloop

    from rollforge.audit.contract import check_env
    from rollforge.collect.closing import aclose

    async def run() -> list[Check]:
        try:
            return await check_env(env, getattr(env, "name", None) or reference, **options)
        finally:
            await aclose(env)

    return uvloop.run(run())


def _print(env: str, checks: list[Check]) -> None:
    from rich.text import Text

    from rollforge.stats.visible import visible

    screen = console()
    styles = {"pass": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red"), "skip": ("skip", "dim")}
    for check in checks:
        word, style = styles[check.status]
        lines = visible(check.says).split("\n")
        if not screen.is_terminal:
            print(f"{word:4}  {check.name:11}  {lines[0]}", *(f"{'':19}{line}" for line in lines[1:]), sep="\n")
        else:
            screen.print(Text(f"{word:4}", style=style), Text(f" {check.name:11} {lines[0]}"), soft_wrap=True)
            for line in lines[1:]:
                screen.print(Text(f"{'':18}{line}"), soft_wrap=True)
        if check.remedy:
            print(f"{'':19}-> {visible(check.remedy)}")
    counts = Counter(check.status for check in checks)
    warned = f", {counts['warn']} warned of" if counts["warn"] else ""
    print(f"{env}: {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped{warned}")
