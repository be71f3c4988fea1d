"""`rollforge curate`: filter, deduplicate, balance, mix, shape and split rollouts, with a report whose numbers add up."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import typer

from rollforge.cli.output import any_encoding, reading


def curate(
    runs: list[str] = typer.Argument(
        ..., metavar="RUN", help="Run directories, curated directories, or JSONL files of rollouts (NeMo Gym's too)."
    ),
    out: Path = typer.Option(..., metavar="DIR", help="Where the curated rows, the report and the manifest go."),
    recipe: Path | None = typer.Option(
        None, metavar="FILE", help="YAML with the steps in their order; the options below come after them."
    ),
    preset: str | None = typer.Option(None, metavar="NAME", help="sft, dpo, grpo or ppo: the usual filters."),
    filter: list[str] = typer.Option(
        [], metavar="EXPRESSION", help="Keep rows for which it holds: 'reward >= 0.8 and tokens < 4000'. Repeatable."
    ),
    dedup: str | None = typer.Option(None, metavar="WHAT", help="Drop repeated rows by: prompt, response or both."),
    near: float | None = typer.Option(
        None, metavar="SIMILARITY", help="Drop near-duplicate prompts too, of at least this similarity (0.8)."
    ),
    decontaminate: list[str] = typer.Option(
        [], metavar="FILE", help="Drop rows that share text with this benchmark. Repeatable."
    ),
    balance: list[str] = typer.Option(
        [], metavar="BY", help="Even out by env, difficulty, or a field such as task.level. Repeatable: by all together."
    ),
    cap: int | None = typer.Option(None, metavar="N", help="With --balance: at most N rows of each category."),
    mix: list[str] = typer.Option(
        [], metavar="NAME=WEIGHT", help="Proportions of runs or environments; labels rows with task_name. Repeatable."
    ),
    upsample: bool = typer.Option(False, "--upsample", help="With --balance and --mix: repeat rows of what is too small."),
    shape: str | None = typer.Option(
        None, metavar="METHOD", help="Rewards: scale (to 0..1), standardize, or clip (to -1..1), per environment."
    ),
    split: str | None = typer.Option(
        None, metavar="SHARES", help="Split by prompt: 90/10 (train/validation) or 0.8/0.1/0.1 (and test)."
    ),
    split_from: str | None = typer.Option(
        None, metavar="DIR", help="An earlier split: every prompt stays on the side where it was; new ones go by its shares."
    ),
    keep_dropped: bool = typer.Option(
        False, "--keep-dropped", help="Write dropped rows, with the reason, to dropped.jsonl."
    ),
    workers: int | None = typer.Option(None, min=1, help="Processes (default: one per core, fewer for little data)."),
    seed: int | None = typer.Option(None, help="Of every choice that is made (default: the recipe's, or 0)."),
    json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an earlier result in DIR."),
) -> None:
    """Curate rollouts: each step keeps a row or drops it with a reason. Steps run in the order of the options above."""
    from rollforge.curate.recipe import make_recipe, read_recipe
    from rollforge.curate.report import text
    from rollforge.curate.run import curate_rollouts
    from rollforge.curate.write import json_text
    from rollforge.errors import UserError
    from rollforge.stats.visible import visible

    if cap is not None and not balance:
        raise UserError("--cap is a part of --balance: add --balance env")
    if upsample and not (balance or mix):
        raise UserError("--upsample is a part of --balance and --mix: add one of them")
    steps: list[dict[str, Any]] = []
    if preset is not None:
        steps.append({"preset": preset})
    steps += [{"filter": expression} for expression in filter]
    if dedup is not None:
        steps.append({"dedup": dedup})
    if near is not None:
        steps.append({"near": {"threshold": near}})
    if decontaminate:
        steps.append({"decontaminate": decontaminate})
    more = {"upsample": True} if upsample else {}
    if balance:
        steps.append({"balance": {"by": balance} | ({"cap": cap} if cap is not None else {}) | more})
    if mix:
        steps.append({"mix": {"weights": _weights(mix)} | more})
    if shape is not None:
        steps.append({"shape": {"method": shape}})
    if split is not None or split_from is not None:
        steps.append({"split": _split(split, split_from)})
    asked = make_recipe({"steps": steps}, "options")
    whole = read_recipe(recipe) if recipe is not None else asked
    if recipe is not None:
        if split_from is not None and any("split" in step for step in whole.resolved):
            raise UserError(f"{recipe} splits already: write previous: {split_from} there, not --split-from")
        whole = whole.then(asked)
    with reading() as progress:
        done = curate_rollouts(
            runs,
            out,
            recipe=whole,
            workers=workers,
            keep_dropped=keep_dropped,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print(json_text(done.report.row()), end="")
    else:
        any_encoding()
        for line in text(done.report, str(out) if done.folder else None, min(100, get_terminal_size((100, 24)).columns)):
            print(line)
        if done.carried:
            rest = " ..." if len(done.carried) > _SHOWN else ""
            print(visible(f"  kept, since no curation wrote it: {', '.join(done.carried[:_SHOWN])}{rest}"))
    if done.folder is None:
        took = done.report.took_all
        why = f"the step {took.name!r} left nothing" if took and took.taken else "there were no rows to begin with"
        if took and took.name == "read" and done.report.alien:
            why = visible("; ".join(done.report.alien))
        print(f"error: no row is left: {why}; nothing was written", file=sys.stderr)
        raise typer.Exit(1)


_SHOWN = 5


def _weights(given: list[str]) -> dict[str, float]:
    from rollforge.errors import UserError

    weights: dict[str, float] = {}
    for text in given:
        name, _, weight = text.rpartition("=")
        if name in weights:
            raise UserError(f"--mix {text}: {name} has a weight already; give each name one")
        try:
            weights[name] = float(weight)
        except ValueError:
            name = ""
        if not name:
            raise UserError(f"--mix {text}: write NAME=WEIGHT, such as math=0.7")
    return weights


def _split(shares: str | None, earlier: str | None) -> dict[str, Any]:
    from rollforge.errors import UserError

    values: dict[str, Any] = {} if earlier is None else {"previous": earlier}
    if shares is None:
        return values
    parts = shares.split("/")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3):
        raise UserError(f"--split {shares}: write the shares of train/validation or train/validation/test, such as 90/10")
    return values | dict(zip(("train", "validation", "test"), numbers, strict=False))
