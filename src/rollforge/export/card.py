"""`README.md` beside the data: a data set card as the Hugging Face hub reads it (YAML front matter, then Markdown)."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import yaml

from rollforge.bulk.parquet import parquet_rows
from rollforge.export.result import Done, Exported
from rollforge.export.writer import LINEAGE
from rollforge.records.items import Json
from rollforge.records.lossless import dumps
from rollforge.stats.text import bin_labels
from rollforge.stats.visible import one_line, visible

CATEGORIES = {"prompt": "reinforcement-learning", "pair": "reinforcement-learning"}
"""Task categories of the hub, by family; the others are text generation."""


def card(done: Done, all_of_it: Exported, folder: Path) -> str:
    """The card of what stands in `folder`. Text of models and tasks is escaped in it."""
    kind = done.target.kinds[done.kind]
    runs = list(dict.fromkeys(one.name for one in all_of_it.inputs))
    title = f"{', '.join(Path(run).name for run in runs[:3])}{' and more' if len(runs) > 3 else ''} for {done.name}"
    parts = [
        _front(done, all_of_it),
        f"# {_inline(title)}\n",
        f"{done.rows:,} rows for **{done.name}**: {_inline(kind.about)}\n",
        "Made by `rollforge export` from verified rollouts; `manifest.json` has every parameter and hash, "
        f"`{LINEAGE}` the rollout behind each row, `check.json` what the check said.\n",
        "## Files\n",
        _table(
            ("file", "split", "rows", "bytes", "longest prompt", "longest row"),
            [
                (
                    *(one.name, one.split, f"{one.tally.rows:,}", f"{one.size:,}"),
                    *(f"{one.tally.longest_prompt:,}", f"{one.tally.longest:,}"),
                )
                for one in done.files
            ],
        ),
        f"Lengths in tokens, {'counted by the tokenizer' if done.made.measured else 'estimated as bytes / 4'}.\n",
        "## Schema\n",
        _schema(folder / done.files[0].name, kind.columns),
        "## Distribution\n",
        _distribution(done),
        "## Sources\n",
        _table(
            ("run", "file", "split"),
            [(one.name, str(one.file), one.split or "") for one in all_of_it.inputs],
        ),
        *_curated(all_of_it),
        "## How it was filtered\n",
        _table(("rollouts", "count"), funnel(done, all_of_it)),
        _options(done, all_of_it),
        "## Limits\n",
        _limits(done, all_of_it),
    ]
    return "\n".join(parts)


def funnel(done: Done, all_of_it: Exported) -> list[tuple[str, str]]:
    """From what was read to the rows, in words and numbers."""
    rows: list[tuple[str, int]] = []
    if all_of_it.planned is not None:
        rows.append(("planned", all_of_it.planned))
    unusable = {text: one.count for text, one in all_of_it.unusable.items()}
    rows.append(("lines read", sum(all_of_it.read.values()) + sum(unusable.values())))
    rows += [(f"- unusable: {text}", count) for text, count in unusable.items()]
    rows += [(f"- {name}", count) for name, count in all_of_it.read.items() if name not in ("scored", "policy_fault")]
    rows.append(("judged", all_of_it.judged))
    if done.tasks is not None:
        rows.append(("tasks", done.tasks))
    rows += [(f"- left out: {text}", count) for text, count in done.left_out.items()]
    if done.pairs is not None:
        outcomes = done.pairs.row()
        numbers = ("tasks", "pairs", "paired")
        rows += [
            (f"- {name.replace('_', ' ')}" if name.startswith("pairs") else f"- tasks: {name}", count)
            for name, count in outcomes.items()
            if name not in numbers
        ]
    refused = "refused" if done.pairs is None else "refused attempts"
    rows += [(f"- {refused}: {text}", one.count) for text, one in done.refused.items()]
    for split in dict.fromkeys(one.split for one in done.files):
        rows.append((f"rows for {split}", sum(one.tally.rows for one in done.files if one.split == split)))
    return [(text, f"{count:,}") for text, count in rows]


def _front(done: Done, all_of_it: Exported) -> str:
    rows = done.rows
    low = 10 ** int(math.log10(rows)) if rows >= 1000 else 0
    size = f"{_short(low)}<n<{_short(low * 10)}" if low else "n<1K"
    family = done.target.kinds[done.kind].family
    splits = list(dict.fromkeys(one.split for one in done.files))
    head: Json = {
        **({"license": all_of_it.options.license} if all_of_it.options.license else {}),
        "task_categories": [CATEGORIES.get(family, "text-generation")],
        "size_categories": [size],
        "tags": ["rollforge", done.target.name, done.kind],
        "configs": [
            {
                "config_name": "default",
                # `datasets` keeps what it made of a folder by the folder's name and these lines, not by its files.
                "description": f"SHA-256 {_digest(done)}",
                "data_files": [
                    {"split": split, "path": [one.name for one in done.files if one.split == split]} for split in splits
                ],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def _digest(done: Done) -> str:
    """Of all files together."""
    return hashlib.sha256("".join(one.sha256 for one in done.files).encode()).hexdigest()


def _short(number: int) -> str:
    return f"{number // 1_000_000}M" if number >= 1_000_000 else f"{number // 1000}K"


def _schema(file: Path, columns: Mapping[str, str] | None) -> str:
    row = _first_row(file)
    table = _table(("field", "type"), [(key, (columns or {}).get(key) or _type(value)) for key, value in row.items()])
    text = visible(dumps(_cut(row), indent=True).decode())
    return f"{table}\nOne row, long texts cut:\n\n{_fenced('json', text)}"


def _first_row(file: Path) -> Json:
    if file.suffix == ".parquet":
        return next(parquet_rows(file))
    with open(file, "rb") as lines:
        found: Json = orjson.loads(lines.readline())
    return found


def _cut(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TEXT else f"{value[:_TEXT]}… ({len(value)} characters)"
    if depth > _DEPTH:
        return "…"
    if isinstance(value, list):
        more = [f"… ({len(value)} entries)"] if len(value) > _ENTRIES else []
        return [_cut(item, depth + 1) for item in value[:_ENTRIES]] + more
    if isinstance(value, dict):
        return {key[:_TEXT]: _cut(inner, depth + 1) for key, inner in islice(value.items(), 40)}
    return value


_TEXT, _ENTRIES, _DEPTH = 300, 6, 8


def _type(value: Any) -> str:
    if isinstance(value, list):
        return f"list of {_type(value[0])}" if value else "list"
    return {dict: "object", str: "string", bool: "bool", int: "int", float: "float"}.get(type(value), "null")


def _distribution(done: Done) -> str:
    import numpy as np

    from rollforge.stats.estimate import histogram

    envs: Counter[str] = Counter()
    rewards: Counter[float] = Counter()
    lengths: Counter[int] = Counter()
    by_split: dict[tuple[str, str], int] = {}
    splits = list(dict.fromkeys(one.split for one in done.files))
    for one in done.files:
        envs.update(one.tally.envs)
        rewards.update(one.tally.rewards)
        lengths.update(one.tally.lengths)
        for env, count in one.tally.envs.items():
            by_split[one.split, env] = by_split.get((one.split, env), 0) + count
    bins = histogram(np.repeat([*rewards], [*rewards.values()]), _LISTED)
    what = "reward of the chosen rollout" if done.pairs is not None else "reward of the rollout"
    shown = [env for env, _ in envs.most_common(_LISTED)]
    more = f"\nand {len(envs) - _LISTED} environments more\n" if len(envs) > _LISTED else ""
    return "\n".join(
        (
            _table(
                ("environment", *splits),
                [(env, *(f"{by_split.get((split, env), 0):,}" for split in splits)) for env in shown],
            )
            + more,
            _table((what, "rows"), zip(bin_labels(bins), (f"{one.count:,}" for one in bins), strict=True)),
            _table(
                ("tokens", "rows"),
                [(f"{1 << bits >> 1:,} to {(1 << bits) - 1:,}", f"{lengths[bits]:,}") for bits in sorted(lengths)],
            ),
        )
    )


_LISTED = 50


def _curated(all_of_it: Exported) -> list[str]:
    """The recipe of inputs that were curated."""
    found: list[str] = []
    for folder in dict.fromkeys(one.file.parent for one in all_of_it.inputs if one.split is not None):
        recipe = folder / "recipe.yaml"
        if recipe.is_file():
            text = visible(recipe.read_text(encoding="utf-8", errors="replace"))
            found.append(f"Curated by this recipe ({_inline(str(recipe))}):\n\n{_fenced('yaml', text.rstrip())}")
    return found


def _options(done: Done, all_of_it: Exported) -> str:
    options = all_of_it.options
    family = done.target.kinds[done.kind].family
    said = {
        "demonstration": f"Rollouts of a reward of {options.min_reward:g} and more; reasoning: {options.reasoning}.",
        "prompt": "One row for each task, of its first judged rollout"
        + (f" of a reward of {options.prompt_reward:g} and more." if options.prompt_reward is not None else "."),
        "pair": f"Pairs: {options.strategy}, "
        + (f"{options.pick}, " if options.strategy == "same_prompt" else "")
        + f"a gap of at least {options.min_gap:g}"
        + (
            f", chosen from {options.high_threshold:g} on, rejected up to {options.low_threshold:g}"
            if options.strategy == "stratified"
            else ""
        )
        + f"; no ties, no equal texts; reasoning: {options.reasoning}.",
        "judged": f"Desirable from a reward of {options.high_threshold:g} on, undesirable up to {options.low_threshold:g}; "
        f"reasoning: {options.reasoning}.",
    }[family]
    split = (
        "Splits are those of the input."
        if all(one.split for one in all_of_it.inputs)
        else "Nothing is held out for validation."
        if {one.split for one in done.files} == {"train"}
        else f"{options.validation:.0%} of the prompts are held out for validation, by a hash of the prompt (seed "
        f"{options.seed}): no prompt is on both sides."
    )
    return f"{said} {split}\n"


def _limits(done: Done, all_of_it: Exported) -> str:
    lines = [
        "Rewards are those of the environments' verifiers: what they overlook is in the data.",
        "The texts were generated by a model; nobody read them, and nothing personal or harmful was looked for.",
        *(warning[0].upper() + warning[1:] + "." for warning in done.warnings),
    ]
    if not all_of_it.options.license:
        lines.append("No licence was named (`--license`): that of the tasks and of the model's output applies.")
    return "\n".join(f"- {_inline(line)}" for line in lines) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(_inline(cell) for cell in line)} |\n" for line in lines)


def _fenced(language: str, text: str) -> str:
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}\n"


def _inline(text: str) -> str:
    """On one line, with what Markdown or HTML would act on escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", one_line(text, 300))
