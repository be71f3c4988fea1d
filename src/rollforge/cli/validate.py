"""`rollforge validate`: whether the rewards of collected rollouts can be trusted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import console, print_json
from rollforge.cli.sources import readable

if TYPE_CHECKING:
    from rollforge.audit.validate import Mark


def validate(
    run: str = typer.Argument(..., metavar="RUN", help="A run directory, or a JSONL file of rollouts (NeMo Gym's too)."),
    against: str | None = typer.Option(None, metavar="RUN", help="An earlier run of the same tasks: what drifted since?"),
    label: str | None = typer.Option(None, metavar="FIELD", help="A number in the rows that says which ones are good."),
    compare: str | None = typer.Option(None, metavar="A,B", help="Two numbers that should agree: a judge's and a rule's."),
    success: float = typer.Option(1.0, help="Full marks."),
    strict: bool = typer.Option(False, help="Warnings fail too."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Look at the rewards of a run: do they tell good from bad, or follow length, form, tool calls, one part, chance? Exit
    status 1: there is an error."""
    from rollforge.audit.columns import read
    from rollforge.audit.validate import drift
    from rollforge.audit.validate import validate as look
    from rollforge.errors import UserError
    from rollforge.stats.text import plural
    from rollforge.stats.visible import visible

    pair = None
    if compare is not None:
        first, comma, second = (part.strip() for part in compare.partition(","))
        if not (first and comma and second):
            raise UserError(f"--compare {compare!r} names two fields, as in --compare judge_reward,library_reward")
        pair = first, second
    rows, *earlier = (read(readable(one).rollouts(), success) for one in (run, against) if one is not None)
    marks = look(rows, success=success, label=label, compare=pair)
    for before in earlier:
        marks += drift(before, rows)
    bad = [mark for mark in marks if mark.level == "error" or (strict and mark.level == "warning")]
    if json:
        from dataclasses import asdict

        from rollforge.stats.estimate import finite

        counts = {"rollouts": rows.outcomes.total(), "judged": rows.size, "tasks": len(rows.names), "unusable": rows.bad}
        checks = finite([asdict(mark) for mark in marks])
        print_json({"run": run, **counts, "passed": not bad, "checks": checks}, allow_nan=False)
    else:
        _print(marks)
        print(f"{visible(run)}: {plural(rows.size, 'reward')} of {plural(len(rows.names), 'task')}; {len(bad)} to mend")
        if rows.bad:
            print(f"{plural(rows.bad, 'line')} could not be used; rollforge stats --bad lists them")
    sys.exit(1 if bad else 0)


def _print(marks: list[Mark]) -> None:
    from rich.text import Text

    from rollforge.stats.visible import visible

    screen = console()
    styles = {"error": "bold red", "warning": "yellow", "ok": "green"}
    for mark in marks:
        if screen.is_terminal:
            screen.print(
                Text(f"{mark.level:7}", style=styles.get(mark.level, "dim")), Text(visible(mark.says)), soft_wrap=True
            )
        else:
            print(f"{mark.level:7}  {visible(mark.says)}")
        if mark.do:
            print(f"{'':9}-> {visible(mark.do)}")
