"""`rollforge export`: from rollouts to the files, configurations and launch scripts of trainers."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rollforge.cli.output import print_json, reading

if TYPE_CHECKING:
    from rollforge.export.result import Done, Exported


def export(
    runs: list[str] = typer.Argument(None, metavar="RUN", help="Run directories, curated ones, or JSONL files of rollouts."),
    to: list[str] = typer.Option([], "--to", metavar="TARGET:KIND", help="As nemo-rl:grpo, trl:sft; may be repeated."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Directory; each target gets its own in it."),
    config: Path | None = typer.Option(None, "--config", "-c", help="YAML with any of these options; options win over it."),
    min_reward: float | None = typer.Option(None, help="A rollout from which one is a demonstration: SFT (default 0.95)."),
    prompt_reward: float | None = typer.Option(None, help="Leave out tasks without an attempt of that reward: GRPO."),
    strategy: str | None = typer.Option(None, help="Pairs: same_prompt (default) or stratified."),
    pick: str | None = typer.Option(None, help="Of same_prompt: best_worst (default), all_pairs, margin, length_matched."),
    min_gap: float | None = typer.Option(None, help="Reward of chosen minus rejected, at least (default 0.2)."),
    high_threshold: float | None = typer.Option(None, help="Reward from which one is chosen (default 0.7)."),
    low_threshold: float | None = typer.Option(None, help="Reward up to which one is rejected (default 0.4)."),
    max_pairs: int | None = typer.Option(None, help="Pairs of one task, at most (default 4)."),
    across_prompts: bool = typer.Option(False, "--across-prompts", help="Stratified: pair what is left of different tasks."),
    reasoning: str | None = typer.Option(None, help="keep (default: reasoning_content), inline (<think>) or drop."),
    arguments: str | None = typer.Option(
        None, help="Of tool calls: object (default), or text for a chat template that wants it; with --tokenizer."
    ),
    answer: str | None = typer.Option(
        None,
        help="Field with the expected answer, dotted; several with commas: the first that is there (default: looked for).",
    ),
    validation: float | None = typer.Option(None, help="Share of the prompts held out (default 0.1; 0: none)."),
    seed: int | None = typer.Option(None, help="Of that split (default 0)."),
    min_coverage: float | None = typer.Option(None, help="Share of rollouts that must have been judged (default 0.8)."),
    model: str | None = typer.Option(None, help="To be trained: name on the hub, or directory."),
    tokenizer: str | None = typer.Option(
        None,
        help="The model's, in a directory or in the hub's cache: lengths are counted, and its chat template is tried on "
        "every row.",
    ),
    gpus: int | None = typer.Option(None, help="Per node (default 1)."),
    nodes: int | None = typer.Option(None, help="Nodes; more than one: Slurm (default 1)."),
    lora: int | None = typer.Option(None, help="Rank of LoRA, where the framework has it."),
    max_length: int | None = typer.Option(None, help="Tokens of prompt and answer together (default: from the data)."),
    epochs: int | None = typer.Option(None, help="Passes over the data (default: the framework's usual number)."),
    batch_size: int | None = typer.Option(
        None, help="Prompts or rows a step, at most (default: the framework's usual one)."
    ),
    micro_batch_size: int | None = typer.Option(None, help="Rows of one pass on one GPU (default: made to fit)."),
    generations: int | None = typer.Option(None, help="Attempts at each prompt: GRPO (default: the framework's usual one)."),
    learning_rate: float | None = typer.Option(None, help="(default: the framework's usual one)."),
    activation_checkpointing: bool | None = typer.Option(
        None, help="Less memory, a third more time (default: for models from 7B on)."
    ),
    checkpoints: str | None = typer.Option(None, help="Directory for them (default: results)."),
    logger: str | None = typer.Option(None, help="tensorboard (default), wandb or none."),
    container: str | None = typer.Option(None, help="Image for Slurm: with --nodes."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        help="Any other key of the framework's configuration, as a.b=value; for one of several targets: "
        "nemo-rl:a.b=value, nemo-rl:sft:a.b=value.",
    ),
    target_version: list[str] = typer.Option([], "--target-version", help="Of a framework, as nemo-rl=0.5."),
    home: str | None = typer.Option(None, help="The framework's own checkout (NeMo RL)."),
    mapping: Path | None = typer.Option(None, "--mapping", help="YAML with your field names, for generic:mapping."),
    license_: str | None = typer.Option(None, "--license", help="Named in the data set card, as cc-by-4.0."),
    workers: int | None = typer.Option(None, help="Processes (default: as many as pay off)."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what an earlier export left."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Write training data for NeMo RL, TRL, verl, OpenRLHF or any other trainer, with configuration, launch script, check,
    manifest and card. Several targets are made in one pass."""
    from rollforge.config import merge, read_yaml
    from rollforge.errors import UserError
    from rollforge.export.mapping import read_mapping
    from rollforge.export.run import export_rollouts
    from rollforge.stats.visible import visible

    options: dict[str, Any] = {
        "min_reward": min_reward,
        "prompt_reward": prompt_reward,
        "strategy": strategy,
        "pick": pick,
        "min_gap": min_gap,
        "high_threshold": high_threshold,
        "low_threshold": low_threshold,
        "max_pairs": max_pairs,
        "across_prompts": across_prompts or None,
        "reasoning": reasoning,
        "arguments": arguments,
        "answer": answer,
        "validation": validation,
        "seed": seed,
        "min_coverage": min_coverage,
        "model": model,
        "tokenizer": tokenizer,
        "gpus": gpus,
        "nodes": nodes,
        "lora": lora,
        "max_length": max_length,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "generations": generations,
        "learning_rate": learning_rate,
        "activation_checkpointing": activation_checkpointing,
        "checkpoints": checkpoints,
        "logger": logger,
        "container": container,
        "home": home,
        "license": license_,
        "mapping": read_mapping(mapping) if mapping else None,
        "workers": workers,
        "overwrite": overwrite or None,
        "set": dict(_setting(text) for text in set_) or None,
        "target_version": dict(_version(text) for text in target_version) or None,
    }
    values = merge(read_yaml(config) if config else {}, {key: value for key, value in options.items() if value is not None})
    named, wanted, place = values.pop("runs", None), values.pop("to", None), values.pop("out", None)
    runs = runs or _listed(named)
    if out is None and place is None:
        raise UserError("say where to: --out DIR")
    with reading() as progress:
        found = export_rollouts(runs, to or _listed(wanted), out or Path(str(place)), progress=progress, **values)
    if json:
        print_json(found.row(), allow_nan=False)
    else:
        print(_report(found))
    for note in found.notes:
        print(f"warning: {visible(note)}", file=sys.stderr)
    if found.failed:
        sys.exit(1)


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _setting(text: str) -> tuple[str, Any]:
    from rollforge.config import parse_set

    value = parse_set(text)
    key = text.partition("=")[0].strip()
    for part in key.split("."):
        value = value[part]
    return key, value


def _version(text: str) -> tuple[str, str]:
    from rollforge.errors import UserError

    name, equals, version = text.partition("=")
    if not equals:
        raise UserError(f"--target-version {text}: not of the form nemo-rl=0.5")
    return name.strip(), version.strip()


def _report(found: Exported) -> str:
    from rollforge.export.result import first
    from rollforge.stats.visible import visible

    parts = [_target(one, found) for one in found.targets]
    # Blank lines carry nothing: they are counted, not shown.
    unusable = {text: reason for text, reason in found.unusable.items() if text != "blank line"}
    if unusable:
        parts.append(
            [
                f"unusable: {text}: {place}{f' and {count - 1:,} more' if (count := unusable[text].count) > 1 else ''}"
                for text, place in first(unusable, found.inputs)
            ]
        )
    return visible("\n\n".join("\n".join(part) for part in parts))


def _target(one: Done, found: Exported) -> list[str]:
    from rollforge.export.card import funnel
    from rollforge.export.check import summarised
    from rollforge.stats.text import plural

    lines = [one.name]
    width = min(60, max(len(text) for text, _ in funnel(one, found)))  # a long reason makes its own line long, no other
    lines += [f"  {text:<{width}}  {count:>9}" for text, count in funnel(one, found)]
    lines += [f"  first refused: {text}: {place}" for text, place in one.first_refused(found.inputs)]
    for warning in one.warnings:
        lines.append(f"  warning: {warning}")
    if not one.files:
        return [*lines, "  no rows: nothing was written"]
    near = os.path.relpath(one.folder)
    folder = str(one.folder) if near.startswith("..") else near
    problems = summarised(sorted(one.problems, key=lambda problem: problem.level))  # errors first
    lines += [f"  {problem.removeprefix(f'{one.folder}/')}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  ... and {len(problems) - _SHOWN} more: {folder}/check.json")
    lines.append(f"  check: {one.loader}")
    if one.kept:
        lines.append(f"  kept, since no export wrote it: {', '.join(one.kept[:_SHOWN])}{' ...' * (len(one.kept) > _SHOWN)}")
    lines += [f"  {folder}/{file.name}  {plural(file.tally.rows, 'row')}" for file in one.files]
    if "launch.sh" in one.beside:
        lines.append(f"next: bash {shlex.quote(f'{folder}/launch.sh')} --check")
    return lines


_SHOWN = 5
