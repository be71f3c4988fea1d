"""What goes wrong with a configuration for `trl sft|dpo|kto|grpo --config`, seen without starting it.

With TRL installed, its own parser reads the file; the traps below are looked for in any case (TRL 1.16, scripts/*.py and
trainer/*_config.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from rollforge.config import read_yaml
from rollforge.errors import UserError
from rollforge.export.lengths import longer_in
from rollforge.export.target import Level, Problem, Seen
from rollforge.export.trl.check import CUT, LISTS, grpo, sft
from rollforge.export.trl.names import LAUNCH, LAUNCH_PREFIXES, NAMES
from rollforge.export.trl.settings import TRAINERS
from rollforge.records.items import Json

MOVED = {
    "max_seq_length": "max_length",
    "max_prompt_length": "",
    "evaluation_strategy": "eval_strategy",
    "torch_dtype": "dtype",
    "no_cuda": "use_cpu",
    "dataset_text": "dataset_text_field",
    "use_lora": "use_peft",
    "lora_rank": "lora_r",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "lr": "learning_rate",
    "n_generations": "num_generations",
    "max_new_tokens": "max_completion_length",
    "kl_coef": "beta",
    "tokenizer_name": "",
    "model": "model_name_or_path",
    "model_name": "model_name_or_path",
    "reward_funcs_weights": "reward_weights",
}
"""Names that TRL no longer has, or that other trainers have for it; "" where it has none."""

_COUNTS = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_generations": 8,
    "num_processes": 1,
    "max_length": 1024,
    "max_completion_length": 512,
    "lora_r": 16,
}
"""Whole numbers from 1 on, with what they are if nothing is said."""
_LIMITS = ("max_length", "max_completion_length")
"""Counts that may be null."""
_NUMBERS = {
    **dict.fromkeys(("num_train_epochs", "learning_rate", "logging_steps", "temperature", "lora_alpha"), "above 0"),
    "beta": "of 0 or more",
}
_SWITCHES = ("gradient_checkpointing", "use_peft", "use_vllm", "log_completions", "assistant_only_loss")
_YES = ("yes", "true", "t", "y", "1")
_SAID = (*_YES, "no", "false", "f", "n", "0")


def check_config(kind: str, path: Path) -> Iterator[Problem]:
    """Problems of a YAML file for the trl command; other files (launch.sh, train.py) are not looked at."""
    if path.suffix not in (".yaml", ".yml"):
        return
    try:
        config = read_yaml(path)
    except UserError as error:
        yield Problem(str(path), 0, "error", str(error))
        return
    for level, message in _problems(kind, {**_launched(path), **config}, path.resolve().parent):
        yield Problem(str(path), _line(path, message), level, message)


_Found = tuple[Level, str]


def _launched(path: Path) -> dict[str, int]:
    """What the launch script that an export wrote beside its configuration gives to the trl command."""
    try:
        script = (path.parent / "launch.sh").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = re.search(rf"--config .*\b{re.escape(path.name)}\b.* --num_processes (\d+)", script)
    return {"num_processes": int(found[1])} if found else {}


def _problems(kind: str, config: dict[str, Any], folder: Path) -> Iterator[_Found]:
    trainer = TRAINERS[kind]
    yield from _names(trainer, config)
    yield from _values(config)
    if not config.get("model_name_or_path"):
        yield "error", "model_name_or_path is missing: TRL starts with no model"
    yield from _data(config, folder)
    if trainer == "GRPO":
        yield from _grpo(config, folder)
    elif "max_length" not in config:
        yield "warning", "max_length is not set: TRL cuts every row at 1024 tokens without a word"
    elif isinstance(config["max_length"], int):
        yield from _cut(config, folder)
    if trainer == "KTO" and _count(config, "per_device_train_batch_size") == 1 and config.get("loss_type", "kto") == "kto":
        yield "error", "per_device_train_batch_size is 1: KTO compares the rows of one pass and wants 2 or more"
    if config.get("assistant_only_loss"):
        yield "warning", "assistant_only_loss needs a chat template with {% generation %} marks; TRL refuses others at start"
    if config.get("packing") and "flash" not in str(config.get("attn_implementation")):
        yield "warning", "packing without attn_implementation: flash_attention_2 lets packed rows see each other"
    if "output_dir" not in config:
        yield "warning", "output_dir is not set: checkpoints go to ./trainer_output"


def _values(config: dict[str, Any]) -> Iterator[_Found]:
    """Types and ranges of what an export writes: TRL's parser says nothing of most, and runs end late or train nothing."""
    for key, usual in _COUNTS.items():
        value = config.get(key, usual)
        count = _count(config, key)
        if count is None and not (value is None and key in _LIMITS):
            yield "error", f"{key} is {value!r}: it must be a whole number; leave it out for {usual}"
        elif count is not None and count < 1:
            yield "error", f"{key} is {value!r}: it must be 1 or more"
    for key, least in _NUMBERS.items():
        number = _number(config.get(key, 1))
        if not number >= 0 or (number == 0 and least == "above 0"):
            yield "error", f"{key} is {config[key]!r}: it must be a number {least}"
    for key in _SWITCHES:
        if str(config.get(key, "no")).lower() not in _SAID:
            yield "error", f"{key} is {config[key]!r}: it must be true or false"


def _number(value: Any) -> float:
    """As TRL's parser takes it, also from text (YAML reads 1e-5 as one); NaN where it is none."""
    try:
        return float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def _names(trainer: str, config: dict[str, Any]) -> Iterator[_Found]:
    known = _known_names(trainer)
    for name in map(str, config):
        if name in known or name in LAUNCH or name.startswith(LAUNCH_PREFIXES):
            continue
        if name in MOVED:
            instead = f"; it is called {MOVED[name]}" if MOVED[name] else "; leave it out"
            yield "error", f"{name} is no setting of TRL 1.16{instead}"
        else:
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            yield "error", f"{name} is no setting of {trainer}Trainer{f'; did you mean {near[0]}?' if near else ''}"


def _count(config: dict[str, Any], key: str) -> int | None:
    """The whole number at a key, as TRL's parser takes it (also from text); None if it is none."""
    value = config.get(key, _COUNTS.get(key))
    try:
        return int(value) if isinstance(value, int | str) else None
    except ValueError:
        return None


def trains_on(kind: str, path: Path) -> tuple[list[str], list[str]]:
    """`Target.trains_on`."""
    try:
        config = read_yaml(path) if path.suffix in (".yaml", ".yml") else {}
    except UserError:
        return [], []  # which `check_config` says
    sets = config.get("datasets")
    if isinstance(sets, list) and sets:
        return [file for one in sets if isinstance(one, dict) for file in _files_of(one)], []
    return [str(config["dataset_name"])] if config.get("dataset_name") else [], []


def reads(kind: str, path: Path, data: Path) -> tuple[Callable[[Json], Iterator[str]], dict[str, str]] | None:
    """`Target.reads`: no field has another name, but settings want fields of their own."""
    try:
        config = read_yaml(path) if path.suffix in (".yaml", ".yml") else {}
    except UserError:
        return None  # which `check_config` says
    if kind == "sft" and _said(config.get("completion_only_loss")):
        why = "completion_only_loss is true: TRL trains on all of it, without a word; write prompt and completion"
        return partial(_wanted, sft, "completion", why), {}
    named = [str(name) for name in _listed(config.get("reward_funcs")) if name in _SOLVED]
    if kind == "grpo" and named:
        return partial(_wanted, grpo, "solution", f"{named[0]} wants it (TypeError: missing argument)"), {}
    return None


def _wanted(check: Callable[[Json], Iterator[str]], name: str, why: str, row: Json) -> Iterator[str]:
    yield from check(row)
    if name not in row:
        yield f"there is no {name}, and {why}"


def _said(value: Any) -> bool:
    """Whether a switch is on, as TRL's parser takes it."""
    return str(value).lower() in _YES


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


_SOLVED = ("accuracy_reward", "reasoning_accuracy_reward")
"""Rewards of TRL's own that compare with the column `solution`."""
_REWARDS = (*_SOLVED, "think_format_reward", "get_soft_overlong_punishment")


def renders(kind: str, path: Path) -> dict[str, Any]:
    """`Target.renders`."""
    try:
        config = read_yaml(path) if path.suffix in (".yaml", ".yml") else {}
    except UserError:
        return {}  # which `check_config` says
    return {key: config[key] for key in ("chat_template_path", "chat_template_kwargs") if config.get(key)}


def _files_of(one: dict[str, Any]) -> list[str]:
    """What an entry of `datasets` names: files, or else its path (a folder, a name in the hub)."""
    return _data_files(one) or [str(one.get("path"))]


def _data_files(one: dict[str, Any]) -> list[str]:
    """As one name, a list, or either by its split."""
    given = one.get("data_files")
    parts = list(given.values()) if isinstance(given, dict) else [given]
    return [str(file) for part in parts for file in _listed(part)]


def against(kind: str, path: Path, files: Mapping[Path, Seen]) -> Iterator[Problem]:
    """`Target.against`."""
    try:
        config = {**_launched(path), **read_yaml(path)}
    except UserError:
        return  # which `check_config` says
    yield from _small(kind, path, config, files)
    if kind == "kto":
        yield from _unbalanced(path, config, files)


def _small(kind: str, path: Path, config: dict[str, Any], files: Mapping[Path, Seen]) -> Iterator[Problem]:
    """Fewer rows than are taken at once: GRPO's sampler leaves them out (`RepeatSampler`), accelerate's repeats some."""
    rows, processes = sum(file.rows for file in files.values()), _count(config, "num_processes") or 1
    if TRAINERS[kind] == "GRPO":
        size, what = (_batch(config) or 0) // (_count(config, "num_generations") or 1), "prompts"
        comes = "TRL leaves an incomplete step out and stops (ValueError: args.max_steps must be set)"
    else:
        size, what = (_count(config, "per_device_train_batch_size") or 0) * processes, "rows"
        comes = "some are trained on twice"
    if size <= rows or (what == "rows" and processes == 1):
        return
    # Where other files are named, there may be more data than what is checked.
    named = {Path(name).name for name in trains_on(kind, path)[0]}
    all_of_it = named <= {name for file in files for name in (file.name, file.absolute().parent.name)}
    level: Level = "error" if what == "prompts" and all_of_it else "warning"
    said = f"{size:,} {what} are taken at once (num_processes {processes}), and there are {rows:,}: {comes}; use fewer GPUs"
    key = "generation_batch_size" if config.get("generation_batch_size") else "per_device_train_batch_size"
    yield Problem(str(path), _line(path, key), level, said)


def _unbalanced(path: Path, config: dict[str, Any], files: Mapping[Path, Seen]) -> Iterator[Problem]:
    """KTO's weights, as KTOTrainer looks at them (`_prepare_dataset`)."""
    try:
        weights = [float(config.get(f"{name}_weight", 1.0)) for name in ("desirable", "undesirable")]
    except (TypeError, ValueError, OverflowError):
        return  # which TRL's parser says
    good, bad = (sum(file.labels[label] for file in files.values()) for label in (True, False))
    if not good or not bad or good == bad:
        return
    (mine, other), share = weights, bad / good
    ranges = [(round(share * other, 2), round(share * other * 1.33, 2))]
    ranges += [(round(mine / share / 1.33, 2), round(mine / share, 2))]
    if not any(low <= weight <= high for weight, (low, high) in zip(weights, ranges, strict=True)):
        line = max(_line(path, "desirable_weight"), _line(path, "undesirable_weight"))
        either = [
            f"{name}_weight from {low} to {high}"
            for name, (low, high) in zip(("desirable", "undesirable"), ranges, strict=True)
        ]
        what = f"{good:,} rows are desirable, {bad:,} are not, and the weights do not make up for it"
        remedy = f"TRL wants {' or '.join(either)} (rollforge export --set desirable_weight={ranges[0][0]})"
        yield Problem(str(path), line, "warning", f"{what}: {remedy}")


def sections(kind: str) -> set[str]:
    return {*_known_names(TRAINERS[kind]), *LAUNCH}


def _known_names(trainer: str) -> Collection[str]:
    """Every name that TRL's own parser takes; where TRL is not installed, those of 1.16."""
    if importlib.util.find_spec("trl") is None:
        return NAMES[trainer]
    module = importlib.import_module(f"trl.scripts.{trainer.lower()}")
    return {action.dest for action in module.make_parser()._actions}


def _data(config: dict[str, Any], folder: Path) -> Iterator[_Found]:
    sets, name = config.get("datasets"), config.get("dataset_name")
    if not sets and not name:
        yield "error", "neither datasets nor dataset_name is set: TRL has nothing to train on"
    if sets and name:
        yield "warning", "datasets and dataset_name are both set: dataset_name is not read"
    evaluated = config.get("eval_strategy", "no") not in ("no", False)
    if sets:
        yield from _sets(sets)
        if evaluated and config.get("test_split_size") is None:
            yield (
                "error",
                "eval_strategy is set, but datasets gives no test split: set test_split_size, or dataset_name to a folder "
                "with train and validation files",
            )
    elif isinstance(name, str) and (name.startswith(("/", ".")) or os.path.isdir(folder / name)):
        there = Path(name) if Path(name).is_absolute() else folder / name
        if not os.path.isdir(there):
            yield "error", f"dataset_name: there is no directory {there}"
        elif evaluated:
            split = config.get("dataset_test_split", "test")
            if not any(file.stem.startswith(str(split)) for file in there.glob("*.*")):
                yield "error", f"dataset_test_split is {split!r}, but {there} has no file of that name"


def _sets(sets: Any) -> Iterator[_Found]:
    if not isinstance(sets, list):
        yield "error", "datasets is not a list of {path, data_files}"
        return
    for number, one in enumerate(sets):
        if not isinstance(one, dict) or not one.get("path"):
            yield "error", f"datasets[{number}] has no path (json, parquet, a folder, or a name on the hub)"
            continue
        given = one.get("data_files")
        if one["path"] in ("json", "parquet", "csv") and not given:
            yield "error", f"datasets[{number}]: path {one['path']} needs data_files"
        for file in _data_files(one):
            if "://" not in file and "*" not in file and not os.path.exists(file):
                yield "error", f"datasets[{number}].data_files: there is no {file}"


def _grpo(config: dict[str, Any], folder: Path) -> Iterator[_Found]:
    rewards = config.get("reward_funcs")
    if not rewards and not config.get("reward_model_name_or_path"):
        yield "error", "reward_funcs is missing: TRL has nothing to reward (rewards.correct, accuracy_reward, ...)"
    for reward in _listed(rewards):
        module = str(reward).rpartition(".")[0]
        if not module and reward not in _REWARDS:
            near = get_close_matches(str(reward), _REWARDS, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield (
                "error",
                f"reward_funcs: {reward} is none of TRL's ({', '.join(_REWARDS)}), and no path (module.name){hint}",
            )
        elif module and "." not in module and not os.path.exists(folder / f"{module}.py") and _absent(module):
            yield (
                "error",
                f"reward_funcs: {reward}: there is no {module}.py beside the configuration, where trl is to be started",
            )
    generations = _count(config, "num_generations")
    if generations == 1:
        yield "error", "num_generations is 1: GRPO compares at least 2 attempts"
    elif generations and (batch := _batch(config)) and batch % generations:
        yield (
            "warning",
            f"num_generations {generations} does not divide the {batch} completions of {_count(config, 'num_processes')} "
            "processes: TRL starts only with a number of processes that makes it whole",
        )
    if config.get("beta") and config.get("use_peft") is None:
        yield "warning", "beta is not 0: a reference model is loaded as well (memory)"
    if "max_completion_length" not in config:
        yield "warning", "max_completion_length is not set: TRL cuts every completion at 512 tokens, all turns together"


def _batch(config: dict[str, Any]) -> int | None:
    """Completions that are made at once; None if a number of them cannot be read."""
    if config.get("generation_batch_size") is not None:
        return _count(config, "generation_batch_size")
    steps = "gradient_accumulation_steps" if config.get("steps_per_generation") is None else "steps_per_generation"
    batch = 1
    for key in ("per_device_train_batch_size", steps, "num_processes"):
        if (count := _count(config, key)) is None:
            return None
        batch *= count
    return batch


def _cut(config: dict[str, Any], folder: Path) -> Iterator[_Found]:
    """Rows that are longer than `max_length`, of the first of each file."""
    limit, name = config["max_length"], config.get("dataset_name")
    sets = config.get("datasets")
    given = [one for one in sets if isinstance(one, dict)] if isinstance(sets, list) else []
    files = [Path(file) for one in given for file in _data_files(one)]
    if not sets and isinstance(name, str):
        files = sorted((folder / name).glob("*.jsonl"))
    for file in files:
        if longest := longer_in(file, limit, (*LISTS, "text", "conversations", "tools")):
            yield "warning", f"max_length is {limit}, and {file} has rows of about {longest} tokens: {CUT}"


def _absent(module: str) -> bool:
    return importlib.util.find_spec(module) is None


def _line(path: Path, message: str) -> int:
    """The line of the key with which the message begins; 0 if it has none."""
    key = message.partition(" ")[0].partition("[")[0].rstrip(":")
    with open(path, encoding="utf-8-sig") as file:
        return next((number for number, line in enumerate(file, 1) if line.startswith(f"{key}:")), 0)
