"""`rollforge advise`: which algorithm the rollouts fit and why, and what to collect next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import print_json, show
from rollforge.cli.sources import profiled

if TYPE_CHECKING:
    from rollforge.curate.advise import Advice
    from rollforge.stats.source import Source


def advise(
    runs: list[str] = typer.Argument(
        ..., metavar="RUN", help="Run directories, or JSONL files of rollouts (NeMo Gym's too)."
    ),
    success: float = typer.Option(1.0, help="The reward from which a rollout counts as solved."),
    model: str | None = typer.Option(None, help="The model to be trained, such as Qwen2.5-7B: adds the GPUs it needs."),
    workers: int | None = typer.Option(None, min=1, help="Processes (default: one, or all cores for large files)."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Which training algorithm the rollouts fit (GRPO, SFT, DPO, PPO) and why, with the next commands; what not to do with
    them; what to collect next, with which settings."""
    from rollforge.curate.advise import advise as judge
    from rollforge.stats.text import plural

    sources, found = profiled(runs, success=success, workers=workers)
    split = any(source.splits for source in sources)
    answered, tools = _looked_at(sources)
    advice = judge(found, [source.name for source in sources], model, answered, split=split, tools=tools)
    if json:
        from rollforge.stats.estimate import finite

        print_json({"runs": runs, "bad_count": found.bad_count, **finite(advice.row())}, allow_nan=False)
    else:
        if any(found.used):
            _print(advice)
        if found.bad_count:
            print(f"\n{plural(found.bad_count, 'line')} could not be used; rollforge stats --bad lists them")
    empty = [_nothing(source) for source, used in zip(sources, found.used, strict=True) if not used]
    if empty:
        print(f"error: no usable rollout in {', nor in '.join(empty)}", file=sys.stderr)
        raise typer.Exit(1)


def _nothing(source: Source) -> str:
    """The source, and what it is instead."""
    from rollforge.curate.scan import other_rows
    from rollforge.stats.visible import visible

    if not any(file.stat().st_size for file in source.files):
        return f"{visible(source.name)} (empty)"
    what = next(filter(None, map(other_rows, source.files)), None)
    return visible(f"{source.name} ({what})" if what else source.name)


def _looked_at(sources: Sequence[Source]) -> tuple[float | None, bool]:
    """The share of rows with an expected answer, and whether any offers tools: of the first ones at a hundred places of each
    file. Environments of a mix may stand one after another."""
    from rollforge.bulk.blocks import blocks, records
    from rollforge.bulk.record import Record
    from rollforge.errors import UserError
    from rollforge.export.make import answer_of

    found: list[bool] = []
    tools = False
    for file in (file for source in sources for file in source.files):
        for block in blocks([file], file.stat().st_size // 100 + 1):
            rows = (row for _, row in islice(records(block), 3) if isinstance(row, Record) and row.reward is not None)
            for row in rows:
                # Rows of which something else is broken are counted among those that could not be used.
                with suppress(UserError, ValueError):
                    found.append(answer_of(row) is not None)
                    tools = tools or bool(row.tools)
    return sum(found) / len(found) if found else None, tools


def _print(advice: Advice) -> None:
    from rich.console import Group, RenderableType
    from rich.padding import Padding
    from rich.text import Text

    from rollforge.stats.narrow import Pairs
    from rollforge.stats.text import plural
    from rollforge.stats.visible import visible

    parts: list[RenderableType] = []

    def table(rows: list[tuple[str, str]], styles: tuple[str, str] = ("dim", "")) -> Pairs:
        return Pairs([(visible(name), visible(value)) for name, value in rows], styles=styles)

    def titled(title: str, body: RenderableType) -> None:
        parts.extend((*([Text("")] if parts else []), Text(title, style="bold"), Padding(body, (0, 0, 0, 2), expand=False)))

    def listed(title: str, lines: list[str]) -> None:
        if lines:
            titled(title, table([("-", line) for line in lines]))

    titled("Measured", table(advice.numbers))
    first = advice.first
    if first is None:
        titled("Recommended", Text(visible(advice.nothing)))
    else:
        titled(f"Recommended: {first.algorithm}", table([("", line) for line in first.words]))
        show(Group(*parts))
        parts.clear()
        # Not through rich, which folds or crops what is wider than the terminal: they are to be copied.
        print("".join(f"  $ {_broken(visible(command))}\n" for command in first.commands))
    others = [choice for choice in advice.choices if choice is not first]
    rows = [(f"{one.algorithm}: {one.level}", "; ".join(line.rstrip(".") for line in one.words)) for one in others]
    titled("The others, in order", table(rows, ("", "dim")))
    if advice.environments:
        enough = [(name, says) for name, says in advice.environments.items() if says is not None]
        few = len(advice.environments) - len(enough)
        rest = [(plural(few, "other") if enough else f"all {few:,}", "too few rollouts to say")] if few else []
        titled("Each environment by itself", table(enough + rest))
    listed("What not to do", advice.avoid)
    listed("Rewards", advice.rewards)
    listed("What to collect next", advice.collect)
    settings = [
        (one.algorithm, f"--temperature {one.temperature:g} -k {one.repeats}{_concurrency(one.concurrency)}: {one.says}")
        for one in advice.settings
    ]
    titled("How to collect, by algorithm (options of rollforge collect)", table(settings))
    if advice.resources:
        titled(f"GPUs for {visible(advice.resources.model)}", Text(visible(advice.resources.says)))
    show(Group(*parts))


def _broken(command: str, width: int = 72) -> str:
    """A long command over several lines, still to be copied."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return " \\\n".join(lines)


def _concurrency(count: int | None) -> str:
    return "" if count is None else f" --concurrency {count}"
