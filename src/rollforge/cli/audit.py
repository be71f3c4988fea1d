"""`rollforge audit`: a red team for an environment's reward."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX
from rollforge.cli.output import console, print_json, prints_aside

if TYPE_CHECKING:
    from rollforge.audit.audit import Audit


def audit(
    env: str = typer.Argument(..., help="Environment: a name, path/to/file.py:name, package.module:name, or a URL."),
    tasks: Path | None = typer.Option(None, exists=True, help="JSONL file of tasks, instead of the environment's own."),
    n: int = typer.Option(6, "-n", min=1, help="How many tasks are attacked, spread over all of them."),
    success: float = typer.Option(1.0, help="Full marks: the reward that the reference solution should get."),
    set_: list[str] = typer.Option([], "--set", help="An option of its task generator, as in --set level=hard."),
    accept: list[str] = typer.Option([], metavar="RULE", help="A rule whose findings are known and do not count."),
    fail_on: str = typer.Option("error", help="The least severity that fails: error, warning, note or never."),
    tool_seconds: float = typer.Option(10.0, help="Deadline of a tool call."),
    verify_seconds: float = typer.Option(10.0, help="Deadline of a verification."),
    notes: bool = typer.Option(False, help="Tell notes too, not only how many there are."),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
    sarif: bool = typer.Option(False, "--sarif", help="Print them as SARIF 2.1.0, for code review."),
    html: Path | None = typer.Option(None, metavar="FILE", help="Also write them as one HTML file."),
) -> None:
    """Attack an environment's reward, without a model: wrong answers, hedges, injections, forged results, look-alikes,
    leaks, other orders and processes. Exit status 1: there is an error."""
    from rollforge.audit.finding import RULES, SEVERITIES
    from rollforge.audit.report import as_json, as_sarif, write_page
    from rollforge.errors import UserError, unknown

    for name in accept:
        if name not in RULES:
            raise unknown("rule", name, RULES)
    if fail_on not in (*SEVERITIES, "never"):
        raise unknown("severity", fail_on, (*SEVERITIES, "never"))
    if json and sarif:
        raise UserError("--json and --sarif both print: give one of them")
    found = _audit(env, tasks, n, success, set_, (tool_seconds, verify_seconds))
    if html is not None:
        write_page(html, found)
    if json or sarif:
        print_json(as_sarif(found, env) if sarif else as_json(found), default=str)
    else:
        _print(found, notes, accept)
    weights = SEVERITIES[: SEVERITIES.index(fail_on) + 1] if fail_on != "never" else ()
    bad = [one for one in found.findings if one.severity in weights and one.rule not in accept]
    sys.exit(1 if bad or not found.attempts else 0)


def _audit(
    reference: str, tasks: Path | None, n: int, success: float, settings: list[str], seconds: tuple[float, float]
) -> Audit:
    import uvloop

    from rollforge.audit.audit import audit_env
    from rollforge.collect.closing import aclose
    from rollforge.config import with_set
    from rollforge.envs.base import Limits
    from rollforge.envs.load import load_env

    options = with_set({}, settings)

    async def run(found: Any) -> Audit:
        try:
            name = getattr(found, "name", None) or reference
            limits = Limits(*seconds)
            return await audit_env(
                found, name, reference=reference, tasks=tasks, options=options, n=n, success=success, limits=limits
            )
        finally:
            await aclose(found)

    with prints_aside():
        return uvloop.run(run(load_env(reference)))


def _print(found: Audit, notes: bool, accepted: list[str]) -> None:
    from rich.text import Text

    from rollforge.stats.text import plural
    from rollforge.stats.visible import one_line, visible

    screen = console()
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for one in found.findings:
        if one.severity == "note" and not notes:
            continue
        head = f"{one.severity:7}  {one.rule:12}"
        known = " (accepted)" if one.rule in accepted else ""
        if screen.is_terminal:
            screen.print(Text(head, style=styles[one.severity]), Text(visible(one.says) + known), soft_wrap=True)
        else:
            print(f"{head} {visible(one.says)}{known}")
        for shown in one.shown[:1]:
            calls = "".join(f" {call[0]}({one_line(str(call[1:]), 60)})" for call in shown.calls[:3])
            row = f" where the row has {one_line(str(dict(shown.row)), 80)}" if shown.row else ""
            ended = one_line(shown.ended, 100)
            print(f"{'':9}{shown.task}:{calls} {one_line(shown.reply, 100)!r}{row} -> {ended}")
        print(f"{'':9}-> {visible(one.remedy)}")
    counts = {name: sum(one.severity == name for one in found.findings) for name in ("error", "warning", "note")}
    told = ", ".join(plural(count, name) for name, count in counts.items())
    tried = f"{plural(found.attempts, 'attack')} on {plural(found.tasks, 'task')}"
    print(f"{found.env}: {told}; {tried}; {len(found.passed)} rules hold")
