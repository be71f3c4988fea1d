"""`rollforge check`: will the trainer take these files?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import print_json

if TYPE_CHECKING:
    from rollforge.export.check import Checked
    from rollforge.export.target import Target


def check(
    files: list[Path] = typer.Argument(
        None,
        metavar="FILE",
        help="JSON Lines or Parquet, ours or anybody's; configurations (.yaml, .sh); a folder that an export wrote; a run.",
    ),
    target: str | None = typer.Option(
        None, "--for", metavar="FRAMEWORK:KIND", help="nemo-rl:sft, trl:dpo, ... (default: guessed); for a run: on-policy."
    ),
    config: list[Path] = typer.Option([], metavar="FILE", help="Also check the framework's configuration."),
    tokenizer: Path | None = typer.Option(
        None,
        help="The model's, in a directory or in the hub's cache, or a .jinja file: its chat template is tried on every row.",
    ),
    show: int | None = typer.Option(
        None, min=1, metavar="LINE", help="Print this line as the model reads it, and what of it is trained on."
    ),
    loader: bool = typer.Option(True, help="Run the framework's own loader, if it is installed."),
    workers: int = typer.Option(1, min=1, help="Processes."),
    json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
    error: str | None = typer.Option(None, metavar="TEXT", help="Explain a trainer's error message."),
    log: Path | None = typer.Option(None, metavar="FILE", help="Explain the failures in a trainer's log."),
    model: str | None = typer.Option(
        None, help="on-policy: compare with this checkpoint: tiny, tiny:DIR, a Hugging Face directory or name."
    ),
    tolerance: float | None = typer.Option(
        None, min=0, help="on-policy: how far its log probabilities may differ (default 0.001)."
    ),
    max_drift: float | None = typer.Option(
        None, min=0, max=1, help="on-policy: the share of flawed rollouts that is let pass (default 0)."
    ),
) -> None:
    """Check data files and configurations, line by line, as the framework's loader would; explain its errors; or check the
    tokens of a run."""
    from rollforge.errors import UserError

    of_on_policy: dict[str, object] = {"--model": model, "--tolerance": tolerance, "--max-drift": max_drift}
    given = [name for name, value in of_on_policy.items() if value is not None]
    if error is not None or log is not None:
        if files or target or config or tokenizer or show or given or (error is not None and log is not None):
            raise UserError("--error and --log stand alone: one of them, no files, no other option but --json")
        raise typer.Exit(0 if _explain(error, log, json) else 1)
    if not files and not (config and target):
        raise UserError("which file? rollforge check train.jsonl --for nemo-rl:grpo")
    if target == "on-policy":
        from rollforge.cli.on_policy import check_on_policy

        for name, value in (("--config", config), ("--tokenizer", tokenizer), ("--show", show)):
            if value:
                raise UserError(f"{name} is for exported files, not for --for on-policy")
        return check_on_policy(files, model, 1e-3 if tolerance is None else tolerance, max_drift or 0.0, json)
    if given:
        raise UserError(f"{', '.join(given)}: only with --for on-policy")
    if show is not None:
        if len(files) != 1 or files[0].is_dir() or tokenizer is None:
            raise UserError("--show is for one file, with --tokenizer: rollforge check train.jsonl --tokenizer DIR --show 3")
        return _show(files[0], target, show, tokenizer, json)
    results = _check(files or [], target, config, tokenizer, loader, workers)
    if json:
        rows = [checked.row() | ({"guessed": why} if why else {}) for checked, why in results]
        print_json(rows[0] if len(rows) == 1 else rows)
    else:
        for checked, why in results:
            _print(checked, why)
    if any(checked.errors for checked, _ in results):
        raise typer.Exit(1)


def _check(
    files: list[Path], target: str | None, configs: list[Path], tokenizer: Path | None, loader: bool, workers: int
) -> list[tuple[Checked, str]]:
    """Each with why its format was guessed; "" where it was said."""
    from rollforge.errors import UserError
    from rollforge.export.check import check_export, check_files

    exports = [found for file in files if file.is_dir() for found in _exports(file, target)]
    results = [(check_export(*found, tokenizer=tokenizer, workers=workers, load=loader), "") for found in exports]
    plain = [file for file in files if not file.is_dir() and file.suffix not in _CONFIGS]
    configs = [*(file for file in files if file.suffix in _CONFIGS and not file.is_dir()), *configs]
    if configs and exports and not plain:
        raise UserError("--config is for files; an export's own configuration is checked with it")
    if configs and not plain and target is None:
        raise UserError(f"for which trainer is {configs[0]}? Say --for FRAMEWORK:KIND")
    if plain or configs:
        to, kind, why = (*_said(target), "") if target else _kind(plain[0], None)
        checked = check_files(plain, to, kind, configs, tokenizer=tokenizer, workers=workers, load=loader)
        results.append((checked, why))
    return results


_CONFIGS = (".yaml", ".yml", ".sh")


def _kind(file: Path, target: str | None) -> tuple[Target, str, str]:
    """What the file is checked for, and why that was guessed."""
    from rollforge.export.check import guess
    from rollforge.registry import resolve

    if target is not None:
        return *_said(target), ""
    name, kind, why = guess(file)
    return resolve("export", name), kind, why


def _said(target: str) -> tuple[Target, str]:
    from rollforge.export.check import kind_of
    from rollforge.registry import resolve

    name, _, kind = target.partition(":")
    to = resolve("export", name, "(--for FRAMEWORK:KIND)")
    kind_of(to, kind)
    return to, kind


def _exports(folder: Path, target: str | None) -> list[tuple[Path, Target, str]]:
    """The outputs in a folder: `<framework>-<kind>`, or the folder itself."""
    from rollforge.errors import UserError
    from rollforge.export.check import data_files, holds_rollouts
    from rollforge.records.shown import typed
    from rollforge.registry import known, resolve

    rollouts = UserError(f"{folder} holds rollouts, not training data: rollforge export {typed(folder)} --to ...")
    if target is not None:
        to, kind = _said(target)
        if holds_rollouts(folder):
            raise rollouts
        inside = folder / f"{to.name}-{kind}"
        return [(inside if inside.is_dir() and not data_files(folder) else folder, to, kind)]
    found = []
    for place in (folder.resolve(), *sorted(child for child in folder.iterdir() if child.is_dir())):
        for name in sorted(known("export"), key=len, reverse=True):
            kind = place.name.removeprefix(f"{name}-")
            if kind != place.name and kind in resolve("export", name).kinds:
                found.append((place, resolve("export", name), kind))
                break
    if not found and holds_rollouts(folder):
        raise rollouts
    if not found:
        raise UserError(
            f"{folder} is no folder of an export (they are called nemo-rl-sft, trl-dpo, ...): say --for FRAMEWORK:KIND; "
            "for a run: --for on-policy"
        )
    return found


def _print(checked: Checked, why: str) -> None:
    from rollforge.stats.text import plural
    from rollforge.stats.visible import visible

    if why:
        print(f"taken for {checked.target}: {visible(why)} (--for FRAMEWORK:KIND if that is wrong)")
    for name, about in checked.files.items():
        longest = f"longest row {about['longest_row_bytes'] / 1000:,.1f} kB (line {about['longest_row_line']})"
        print(f"{visible(name)}: {plural(about['rows'], 'row')}, {plural(about['distinct_prompts'], 'prompt')}, {longest}")
        if rewards := about.get("rewards"):
            low, high, mean = (f"{rewards[of]:.4g}" for of in ("min", "max", "mean"))
            print(f"  rewards {low} to {high}, mean {mean} ({plural(rewards['rows'], 'row')})")
    for line in checked.lines():
        print(visible(line))
    errors, warnings = checked.errors, checked.warnings
    counts = f"{plural(errors, 'error')}, {plural(warnings, 'warning')}" if checked.problems else "no problems"
    print(f"{checked.target}: {counts}; {visible(checked.tried)}")


def _show(file: Path, target: str | None, line: int, tokenizer: Path, json: bool) -> None:
    from rich.text import Text

    from rollforge.cli.output import console
    from rollforge.export.check import trained_on
    from rollforge.stats.visible import visible

    to, kind, _ = _kind(file, target)
    found = trained_on(file, to, kind, line, tokenizer)
    if json:
        talks = {name: [one._asdict() for one in parts] for name, parts in found.items()}
        return print_json({"target": f"{to.name}:{kind}", "line": line, "conversations": talks})
    screen = console()
    plain = screen.color_system is None
    before = ""
    for name, parts in found.items():
        marked = ("in [[brackets]]" if plain else "in green") if any(part.trained for part in parts) else "nowhere"
        which = f", {name}" if name else ""
        print(f"{visible(str(file))}:{line}{which}, as {to.name}:{kind} makes it; trained on {marked}:")
        for text, learned in parts:
            again = text == before and len(text) > _LONG
            before = text if text is parts[0].text else before
            text = "(as above) " if again else visible(text)
            text = f"[[{text}]]" if plain and learned else text
            screen.print(Text(text, style="bold green" if learned else "dim", overflow="fold"), end="", soft_wrap=True)
        print()


_LONG = 200
"""Characters of a prompt that is printed once for both of a pair."""


def _explain(error: str | None, log: Path | None, json: bool) -> bool:
    from rollforge.export.advice import Found, advise, advise_log, read_log
    from rollforge.stats.visible import one_line

    if error is not None:
        found = [Found(0, error, 1, advice) for advice in advise(error)]
    else:
        found = advise_log(read_log(log or ""))
    if json:
        print_json([{"line": one.line, "count": one.count, "text": one.text[:500], **asdict(one.advice)} for one in found])
        return bool(found)
    for one in found:
        times = f" ({one.count:,} times)" if one.count > 1 else ""
        place = f"{log}:{one.line}{times}: " if one.line else ""
        print(f"{place}{one_line(one.text, 160)}\n  cause   {one.advice.cause}\n  remedy  {one.advice.remedy}")
    if not found:
        print("no failure that is known; rollforge check FILE --for FRAMEWORK:KIND looks at the data")
    return bool(found)
