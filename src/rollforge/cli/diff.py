"""`rollforge diff`: what changed between two data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import print_json, show
from rollforge.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from rollforge.export.diff import Difference, Shape

_NAMES = 200
"""Fields that only some rows have: more are not shown."""
_FIELDS = 20
"""So many of the fields that differ are shown."""


def diff(
    a: str = typer.Argument(
        ..., metavar="A", help="A file (JSON Lines, Parquet), a run, a curated directory, or an export."
    ),
    b: str = typer.Argument(..., metavar="B", help="What to compare it with."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
    workers: int | None = typer.Option(None, min=1, help="Processes (default: one per core)."),
    temp: Path | None = typer.Option(None, metavar="DIR", help="For temporary files (default: the system's)."),
) -> None:
    """Compare two data sets by content: rows, prompts, answers, rewards, fields, and what the two were made with.

    Exit status 0: the same rows; 1: different; 2: no such data.
    """
    from rollforge.bulk.workers import cores
    from rollforge.export.diff import diff

    found = diff(a, b, workers=workers or cores(), folder=temp)
    if json:
        print_json(found.row(), default=str)
    else:
        _print(found)
    if not found.same:
        raise typer.Exit(1)


def _print(found: Difference) -> None:
    from rich.console import Group

    show(Group(*_parts(found)))


def _parts(found: Difference) -> Iterator[RenderableType]:
    from rich.text import Text

    from rollforge.export.diff import shift
    from rollforge.stats.text import plural
    from rollforge.stats.visible import one_line, visible

    a, b = found.a, found.b
    for letter, side in (("A", a), ("B", b)):
        broken = f", {side.unusable:,} lines that are no JSON objects" if side.unusable else ""
        size = f"{plural(side.rows, 'row')} in {plural(len(side.files), 'file')}"
        yield Text(f"{letter}  {one_line(side.name, 60)}: {size}{broken}", style="bold")
    if found.same:
        yield Text("the same rows", style="green")
    yield from table(
        "Rows and prompts",
        ("", "only A", "both", "only B"),
        [
            ("rows", f"{found.only_a:,}", f"{found.both:,}", f"{found.only_b:,}"),
            ("prompts", f"{found.prompts_only_a:,}", f"{found.prompts_both:,}", f"{found.prompts_only_b:,}"),
        ],
    )
    if found.other_split:
        yield Text(f"  {found.other_split:,} of the rows in both are in another split", style="yellow")
    changed = (("answer", found.other_answer), ("response", found.other_response), ("reward", found.other_reward))
    rows = [(f"another {name}", f"{count:,}") for name, count in changed if count]
    yield from table("Prompts in both, with", ("", "prompts"), rows)
    differing = [(visible(name), f"{count:,}") for name, count in found.differing.most_common(_FIELDS)]
    title = f"Fields that differ in {found.looked:,} pairs of rows of one prompt"
    yield from table(title, ("field", "pairs"), differing)
    if len(found.differing) > _FIELDS:
        yield Text(f"  and {len(found.differing) - _FIELDS:,} more: --json", style="dim")
    places = [(kind, visible(place)) for kind, found_at in found.examples.items() for place in found_at]
    yield from table("Where", ("", "file:line"), places, words=2)
    fields = [(visible(name), f"{x:,}", f"{y:,}") for name, (x, y) in found.fields().items()]
    yield from table("Fields", ("field", "rows of A", "rows of B"), fields[:_NAMES])
    if len(fields) > _NAMES:
        yield Text(f"  and {len(fields) - _NAMES:,} more: --json", style="dim")
    columns = ("", "rows A", "rows B", "reward A", "reward B", "bytes A", "bytes B")
    envs = [(one_line(name, 30) or "(none)", *_shapes(x, y)) for name, x, y in found.envs()]
    total = [("all", *_shapes(a.all, b.all))]
    yield from table("Distribution (means)", columns, total + (envs[:20] if len(envs) > 1 else []))
    moved = (("rewards", shift(a.all.rewards, b.all.rewards)), ("lengths", shift(a.all.lengths, b.all.lengths)))
    if not found.same:
        text = ", ".join(f"{name} {value:.0%}" for name, value in moved if value is not None)
        yield Text(f"  moved between the two: {text or '-'}", style="dim")
    shown = [(name, one_line(str(x), 40), one_line(str(y), 40)) for name, (x, y) in found.parameters().items()]
    yield from table("Made with", ("parameter", "A", "B"), shown[:40], words=3)


def _shapes(a: Shape, b: Shape) -> tuple[str, ...]:
    x, y = a.row(), b.row()
    return tuple(
        "-" if side[name] is None else f"{side[name]:{how}}"
        for name, how in (("rows", ","), ("mean_reward", ".3f"), ("mean_bytes", ",.0f"))
        for side in (x, y)
    )
