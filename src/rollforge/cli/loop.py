"""`rollforge loop`: collect, learn, measure, and again, from one recipe; and which rollouts made which model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from rollforge.cli.output import console, print_json, prints_aside
from rollforge.errors import UserError


def loop(
    recipe: Path = typer.Argument(..., metavar="RECIPE", help="YAML of a loop; or the directory of one, to look at it."),
    of: str | None = typer.Argument(
        None, metavar="[MODEL_OR_RUN]", help="With --lineage: only what it was made of, and what was made of it."
    ),
    iterations: int | None = typer.Option(None, min=1, help="How many, instead of the recipe's; more go on from the last."),
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="DIR", help="Directory of the loop (default: the recipe's, or loops/NAME)."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check the recipe, print the steps and which are done; run none."),
    apply_next: bool = typer.Option(
        False, "--apply-next", help="A changed recipe holds from the next iteration on; without, it is refused."
    ),
    lineage: bool = typer.Option(
        False, "--lineage", help="Print which rollouts made which model, and which model made which rollouts."
    ),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Collect, curate, train, evaluate, and again with the new policy. Killed or interrupted, the same command goes on."""
    from rollforge.loop.state import read_state

    if of is not None and not lineage:
        raise UserError(f"{of!r} is one argument too many (with --lineage it names a model or a run)")
    if lineage or recipe.is_dir():
        folder = recipe if recipe.is_dir() else _folder(recipe, out)
        state = read_state(folder)
        if lineage:
            _lineage(folder, state.steps, of, json)
            return
        from rollforge.loop.run import table

        if json:
            print_json({"out": str(folder), "iterations": table(state.steps)}, indent=None)
        else:
            _print_table(table(state.steps))
        return
    raise typer.Exit(_run(recipe, iterations, _folder(recipe, out), dry_run, apply_next, json))


def _folder(recipe: Path, out: Path | None) -> Path:
    from rollforge.loop.config import read_config

    return out or read_config(recipe).out or Path("loops") / recipe.stem


def _run(recipe: Path, iterations: int | None, out: Path, dry_run: bool, apply_next: bool, as_json: bool) -> int:
    from rollforge.cli.progress import progress, say
    from rollforge.loop.config import read_config
    from rollforge.loop.plan import check, plan
    from rollforge.loop.run import run_loop
    from rollforge.loop.state import LOOP, read_state
    from rollforge.loop.steps import RealSteps
    from rollforge.records.shown import typed

    config = read_config(recipe)
    if iterations is not None:
        config = config.model_copy(update={"iterations": iterations})
    steps = RealSteps(progress)
    if dry_run:
        with prints_aside():
            check(config, out, steps)
        done = read_state(out).steps if (out / LOOP).exists() else {}
        lines = [{"step": name, "what": what, "done": name in done} for name, what in plan(config)]
        if as_json:
            print_json({"out": str(out), "plan": lines}, indent=None)
        else:
            for line in lines:
                print(f"{'done' if line['done'] else '':5}{line['step']:24}{line['what']}")
            print(f"in {out}")
        return 0
    try:
        with prints_aside():
            looped = run_loop(config, out, steps, apply_next=apply_next, say=lambda text: say(f"== {text}"))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on")
        raise
    if as_json:
        print_json(looped.row(), indent=None)
    else:
        _print_table(looped.rows)
        print(f"model: --model {typed(looped.model)}   lineage: rollforge loop {typed(out)} --lineage")
    if looped.stopped is not None:
        print(f"stopped: {looped.stopped}; the same command goes on", file=sys.stderr)
        return {"SIGINT": 130, "SIGTERM": 143}.get(looped.stopped, 1)
    return 0


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rollforge.cli.tables import table

    def number(value: Any, form: str = ".3f") -> str:
        return "" if value is None else format(value, form)

    lines = []
    for row in rows:
        collect, evaluated = row.get("collect") or {}, row.get("eval") or {}
        reward, change = evaluated.get("reward") or {}, evaluated.get("change") or {}
        interval = "" if reward.get("low") is None else f"{reward['low']:.3f} to {reward['high']:.3f}"
        lines.append(
            (
                str(row["iteration"] or "start"),
                number(collect.get("rollouts"), "d"),
                number(collect.get("mean")),
                number((row.get("curate") or {}).get("rows"), "d"),
                number(reward.get("value")),
                interval,
                number(change.get("value"), "+.3f"),
                number(change.get("p_value"), ".2g"),
            )
        )
    columns = ("", "collected", "mean", "kept", "held out", "95 %", "change", "p")
    shown = console()
    for part in table("reward by iteration", columns, lines):
        shown.print(part)


def _lineage(out: Path, steps: Any, of: str | None, as_json: bool) -> None:
    from rollforge.loop.lineage import find, lineage, related
    from rollforge.stats.visible import one_line

    known = lineage(steps)
    if of is None:
        if as_json:
            print_json({"out": str(out), **known}, indent=None)
            return
        for name, model in known["models"].items():
            parts = [f"{m['used']} of {m['of']} rollouts of {m['run']}" for m in model["made_of"]]
            parts += [f"live in {model['live']}"] if model.get("live") else []
            print(f"{name}: {one_line(model['model'], 200)}")
            if model["parent"]:
                print(f"  made of {', '.join([model['parent'], *parts])}; digest {model['digest'][:16]}")
            if model["made_runs"]:
                print(f"  made rollouts {', '.join(model['made_runs'])}")
            if model["made_models"]:
                print(f"  made models {', '.join(model['made_models'])}")
        return
    name = find(known, of, out)
    up, down = (list(related(known, name, up=way)) for way in (True, False))
    if as_json:
        keys = ("depth", "kind", "id")
        about = known["models"].get(name) or known["runs"][name]
        ways = {"ancestors": up[1:], "descendants": down[1:]}
        related_to = {w: [dict(zip(keys, e, strict=True)) for e in es] for w, es in ways.items()}
        print_json({"id": name, **about, **related_to}, indent=None)
        return
    for title, found in (("was made of", up), ("made", down)):
        print(f"{name} {title}" + ("" if found[1:] else " nothing"))
        for depth, kind, other in found[1:]:
            print(f"{'  ' * depth}{kind} {other}")
