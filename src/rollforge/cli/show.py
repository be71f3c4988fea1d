"""`rollforge show`: transcripts of rollouts, to read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import console
from rollforge.cli.sources import readable

if TYPE_CHECKING:
    from rich.console import Console

    from rollforge.records.rollout import Rollout
    from rollforge.stats.pick import Choice, Filter


def show(
    run: str = typer.Argument(..., metavar="RUN", help="A run directory or a JSONL file, ours or NeMo Gym's."),
    task: str | None = typer.Option(None, help="Only this task: its index, its id, or the id's beginning."),
    index: int | None = typer.Option(None, help="Only this repeat of a task."),
    best: bool = typer.Option(False, "--best", help="The highest reward."),
    worst: bool = typer.Option(False, "--worst", help="The lowest; with --best, of the same task where one has both."),
    failures: bool = typer.Option(False, "--failures", help="The ones that ended without a reward."),
    limit: int | None = typer.Option(None, "--limit", "-n", min=1, help="How many (default: 1 best, 1 worst, else 3)."),
    full: bool = typer.Option(False, "--full", help="Long texts in full."),
) -> None:
    """Show transcripts: prompt, reasoning, tool calls and their outputs, reply, reward or failure."""
    from rollforge.stats.pick import Filter, extremes, failed, first

    source, wanted = readable(run), Filter(task, index)
    choices: list[Choice] = []
    if best or worst:
        choices += extremes(source, wanted, best=(limit or 1) * best, worst=(limit or 1) * worst)
    if failures:
        choices += failed(source, wanted, limit or 3)
    if not (best or worst or failures):
        choices += first(source, wanted, limit or 3)
    for choice in choices:
        print_transcript(choice.rollout, choice.title, full)
    if not choices:
        print(f"error: {_nothing(source.name, wanted, failures, best or worst)}", file=sys.stderr)
        raise typer.Exit(1)


def _nothing(name: str, wanted: Filter, failures: bool, extremes: bool) -> str:
    from rollforge.records.shown import typed

    kind = " with a reward" if extremes else " without a reward" if failures else ""
    where = f" of task {wanted.task}" * (wanted.task is not None) + f" of repeat {wanted.index}" * (wanted.index is not None)
    hint = f"; tasks are listed by: rollforge stats {typed(name)} --tasks 20" if wanted.task is not None else ""
    return f"{name} has no usable rollout{kind}{where}{hint}"


def print_transcript(rollout: Rollout, name: str = "", full: bool = False) -> None:
    """One rollout, to read; what a model wrote cannot steer the terminal."""
    from rollforge.stats.transcript import blocks, facts, headline, shortened

    screen = console()
    title = f"{name}: {headline(rollout)}" if name else headline(rollout)
    _line(screen, f"{title}\n{'─' * min(len(title), screen.width)}", "bold")
    for block in blocks(rollout):
        text, hidden = (block.text, 0) if full else shortened(block.text)
        _line(screen, block.title, _STYLES[block.kind])
        _line(screen, text or "(empty)", indent=2)
        if hidden:
            _line(screen, f"... {hidden:,} more characters (--full shows them)", "dim", indent=2)
    _line(screen, "verdict", "bold")
    for name, value in facts(rollout):
        _line(screen, f"{name}: {value}" if name else value, indent=2)
    _line(screen, "")


_STYLES = {
    "system": "bold magenta",
    "user": "bold blue",
    "assistant": "bold green",
    "reasoning": "bold dim",
    "call": "bold yellow",
    "output": "bold cyan",
    "other": "bold",
}


def _line(screen: Console, text: str, style: str = "", indent: int = 0) -> None:
    from rich.padding import Padding
    from rich.text import Text

    if screen.is_terminal:
        screen.print(Padding(Text(text, style=style, overflow="fold"), (0, 0, 0, indent)))
        return
    # In a pipe or a file lines stay as long as they are.
    for line in text.split("\n"):
        print(" " * indent + line.rstrip())
