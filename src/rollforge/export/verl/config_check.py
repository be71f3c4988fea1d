"""Launch scripts and YAML for verl, anybody's: keys that moved or do not exist, batches that do not divide."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rollforge.config import read_yaml
from rollforge.errors import UserError
from rollforge.export.check_rows import under_names
from rollforge.export.defines import not_defined
from rollforge.export.lengths import longer_in
from rollforge.export.shell import OVERRIDE, UNREAD, Command, Options, elsewhere, known, made_for, overrides, read_script
from rollforge.export.target import Level, Problem, Seen
from rollforge.export.verl.config import hydra, problems_of_tools
from rollforge.export.verl.rows import STOPS, Asked, check_grpo, check_grpo_parquet, check_rm, check_sft
from rollforge.records.items import Json


@dataclass(frozen=True, slots=True)
class Started:
    """What is started, and with which overrides."""

    entry: str
    """`ppo`, `sft`, `fsdp_sft` (gone); "" for nothing of verl's that reads these files."""
    options: Options
    given: tuple[tuple[str, Any], ...] = ()
    """The overrides as they are written, with their `+`."""
    config: str = ""
    """Hydra's configuration; "" for verl's usual one, "?" for somebody's own."""
    elsewhere: bool = False
    made_for: str = ""
    """The version for which an export wrote it."""
    unread: int = 0
    """Line of a script from which on it could not be read."""


def check_config(kind: str, path: Path) -> Iterable[Problem]:
    name = str(path)
    try:
        one = _read(kind, path)
    except UserError as error:
        return [Problem(name, 0, "error", str(error))]
    tools = one.options.values.get("tools")
    if isinstance(tools, list):
        return [Problem(name, 0, level, found) for level, found in problems_of_tools(tools)]
    said = [Problem(name, one.unread, "warning", UNREAD)] if one.unread else []
    if one.entry == "fsdp_sft":
        return [*said, Problem(name, 0, "warning", _GONE)]
    if not one.entry:
        return said
    return [
        *said,
        *(Problem(name, 0, level, found) for level, found in _traps(one)),
        *(Problem(name, 0, "error", found) for found in _composed(one)),
    ]


_GONE = (
    "verl 0.9 has no verl.trainer.fsdp_sft_trainer any more: verl.trainer.sft_trainer takes messages, and model.path "
    "instead of model.partial_pretrain"
)


_PAIRS = {"data.prompt_key": "prompt", "data.chosen_key": "chosen", "data.rejected_key": "rejected"}
_PROMPTS = {"data.prompt_key": "prompt", "data.reward_fn_key": "data_source"}
_READ: dict[str, tuple[Callable[..., Iterator[str]], dict[str, str]]] = {
    "grpo": (check_grpo, _PROMPTS),
    "grpo-parquet": (check_grpo_parquet, _PROMPTS),
    "sft": (check_sft, {"data.messages_key": "messages", "data.tools_key": "tools"}),
    "rm": (check_rm, _PAIRS),
    "dpo": (check_rm, _PAIRS),
}


def reads(kind: str, path: Path, data: Path) -> tuple[Callable[[Json], Iterable[str]], dict[str, str]] | None:
    """`Target.reads`, and what else the command says of its rows."""
    try:
        started = _read(kind, path)
    except UserError:
        return None  # which `check_config` says
    if not started.entry:
        return None
    options = started.options
    check, usual = _READ[kind]
    names = {name: str(options.get(key)) for key, name in usual.items() if options.get(key) not in (None, name)}
    asked = _asked(options)
    if usual is not _PAIRS:
        check = partial(check, asked=asked)
    elif not names:
        return None
    return partial(under_names, check, names), names


def _asked(options: Options) -> Asked:
    absent, rollout = options.absent, "actor_rollout_ref.rollout"
    rewarded = not all(absent(f"{place}custom_reward_function.path") for place in ("reward.", ""))
    tools: bool | None = None
    if not absent(f"{rollout}.agent.default_agent_loop"):
        tools = False
    elif any(options.get(f"{rollout}.multi_turn.{name}_path") for name in ("tool_config", "function_tool")):
        tools = True
    own = ("agent_loop_config_path", "agent_loop_manager_class")
    loops = False if all(absent(f"{rollout}.agent.{name}") for name in own) else None
    return Asked(rewarded, tools, loops, False if absent("data.custom_cls.path") else None)


def trains_on(kind: str, path: Path) -> tuple[list[str], list[str]]:
    """`Target.trains_on`."""
    try:
        get = _read(kind, path).options.get
    except UserError:
        return [], []  # which `check_config` says
    given = [get(f"data.{split}_files") for split in ("train", "val")]
    train, held_out = ([str(one) for one in (some if isinstance(some, list) else [some]) if one] for some in given)
    return train, held_out


def renders(kind: str, path: Path) -> dict[str, Any]:
    """`Target.renders`."""
    try:
        options = _read(kind, path).options
    except UserError:
        return {}  # which `check_config` says
    told = [key for key in options.values if key.startswith("data.apply_chat_template_kwargs")]
    return {key: options.get(key) for key in (*told, *_TEMPLATES) if options.get(key) is not None}


_TEMPLATES = ("model.custom_chat_template", "actor_rollout_ref.model.custom_chat_template")


def against(kind: str, path: Path, files: Mapping[Path, Seen]) -> Iterable[Problem]:
    """`Target.against`."""
    try:
        one = _read(kind, path)
    except UserError:
        return []  # which `check_config` says
    if one.entry not in ("ppo", "sft") or "tools" in one.options.values:
        return []
    found = (*_batch(one, files), *_longer(one, kind, files))
    return [Problem(str(path), 0, level, said) for level, said in found]


def _batch(one: Started, files: Mapping[Path, Seen]) -> Iterator[tuple[Level, str]]:
    """An incomplete batch is dropped: of fewer rows than a batch nothing is left."""
    key = "data.gen_batch_size" if one.options.get("data.gen_batch_size") else "data.train_batch_size"
    size, rows = one.options.number(key, 256 if one.entry == "sft" else 1024), sum(file.rows for file in files.values())
    if size is None or size <= rows:
        return
    given = one.options.get("data.train_files")
    named = {Path(str(file)).name for file in (given if isinstance(given, list) else [given])}
    stops = "ZeroDivisionError" if one.entry == "sft" else "Train dataloader is empty!"
    # Where other files are named, there may be more data than what is checked.
    yield (
        "error" if named == {file.name for file in files} else "warning",
        f"{one.options.shown(key, size)}, the data has {rows:,} rows: an incomplete batch is dropped, and verl stops "
        f"({stops}); set it to at most {rows}",
    )


def _longer(one: Started, kind: str, files: Mapping[Path, Seen]) -> Iterator[tuple[Level, str]]:
    """Rows longer than the maximum."""
    ppo, get = one.entry == "ppo", one.options.get
    key, usual = ("data.max_prompt_length", 512) if ppo else ("data.max_length", 1024)
    limit = one.options.number(key, usual)
    if limit is None:
        return
    fields = [get(option) or name for option, name in _READ[kind][1].items() if option != "data.reward_fn_key"]
    for file in files:
        if longest := longer_in(file, limit, fields):
            if not one.options.absent("data.truncation") and get("data.truncation") != "error":
                what = "cuts them without a word"
            else:
                what = STOPS if not ppo else "cuts them, or stops there"
            if ppo and get("data.filter_overlong_prompts"):
                what = "leaves them out"
            yield (
                "warning",
                f"{one.options.shown(key, limit)}, and {file} has {'prompts' if ppo else 'rows'} of about "
                f"{longest} tokens: verl {what}; raise it, or leave such rows out",
            )


def _read(kind: str, path: Path) -> Started:
    """Of a script the first command that starts a trainer of verl's, if there is one for data of this kind that. Raises
    `UserError`."""
    if path.suffix in (".yaml", ".yml"):
        values = dict(_flat(read_yaml(path), ""))
        # The command line may give more.
        return Started("sft" if kind == "sft" else "ppo", Options(values, whole=False))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    script = read_script(text, _ENTRY)
    found = [_started(command) for command in script.commands]
    fitting = [one for one in found if one.entry.endswith("sft" if kind == "sft" else "ppo")]
    first = next(iter(fitting or found), Started("", Options({})))
    return replace(first, made_for=made_for(text, "verl"), unread=script.unread)


_ENTRY = (
    r"""(?<![^\s"'])(?:verl\.trainer\.|(?=[^\s"'=]*\.py(?![^\s"']))(?:[^\s"'=]*verl/trainer/)?)"""  # a module, or a file
    r"""(main_ppo|fsdp_sft_trainer|sft_trainer)\w*(?:\.py)?(?![^\s"'])"""
)
_USUAL = re.compile(r"(?:.*/)?(ppo|sft)(_\w+)?_trainer(_engine)?(\.yaml)?")
"""verl's own configurations, whose defaults are alike."""


def _started(command: Command) -> Started:
    before, found, words = command.split(_ENTRY)
    given = tuple(overrides(words))
    named = dict(re.findall(r"--config-(path|name)[= ](\S+)", " ".join(words)))
    config = named.get("name", "").removesuffix(".yaml")
    if named.get("path", "config").removeprefix("./") != "config" or (config and not _USUAL.fullmatch(config)):
        config = "?"
    more = any(not known(word) and not OVERRIDE.fullmatch(word) for word in words)
    return Started(
        {"main_ppo": "ppo", "sft_trainer": "sft", "fsdp_sft_trainer": "fsdp_sft"}[found[1]],
        Options({key.lstrip("+"): value for key, value in given}, not more and config != "?"),
        given,
        config,
        elsewhere(before),
    )


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


MOVED = {
    "data.multiturn.enable": "it is gone: the SFT trainer's data set is always multi-turn since verl 0.7",
    "data.multiturn.messages_key": "since verl 0.7 it is data.messages_key",
    "data.multiturn.tools_key": "since verl 0.7 it is data.tools_key",
    "data.prompt_dict_keys": "verl 0.9 has no single-turn SFT data set any more: use messages",
    "data.response_dict_keys": "verl 0.9 has no single-turn SFT data set any more: use messages",
    "data.response_key": "verl 0.9 has no single-turn SFT data set any more: use messages",
    "model.partial_pretrain": "it is model.path (verl.trainer.sft_trainer)",
    "actor_rollout_ref.rollout.multi_turn.max_turns": "it is max_assistant_turns and max_user_turns",
}
OLD_REWARD = ("custom_reward_function.path", "custom_reward_function.name", "reward_model.reward_manager")


def _traps(one: Started) -> Iterator[tuple[Level, str]]:
    get, absent = one.options.get, one.options.absent
    for key, now in MOVED.items():
        if get(key) is not None:
            yield "error", f"{key}: {now}"
    for key in () if one.made_for == "0.6" or _before_moved() else OLD_REWARD:
        if get(key) is not None:
            now = "reward.reward_manager.name" if key.endswith("manager") else f"reward.{key}"
            yield (
                "warning",
                f"{key}: since verl 0.7 it is {now} (the old one is carried over)",
            )
    yield from _files(one)
    for place in ("reward.custom_reward_function", "custom_reward_function"):
        if (said := not_defined(get(f"{place}.path"), get(f"{place}.name") or "compute_score")) is not None:
            yield "error", f"{place}: {said}, which verl looks up (AttributeError)"
    name = get("data.custom_cls.name")
    if name and (said := not_defined(get("data.custom_cls.path"), name)) is not None:
        yield "error", f"data.custom_cls: {said}, which verl looks up (AttributeError)"
    if one.entry == "ppo":
        yield from _ppo(one)
    else:
        if absent("data.max_length"):
            yield "warning", "data.max_length is 1024 unless set, and data.truncation: error stops at the first longer row"
        if absent("optim.lr"):
            yield "warning", "optim.lr is 1e-3 unless set: far too much for a language model; 1e-5 is usual"
        train = get("data.train_files")
        beside = Path(train).parent / "validation.parquet" if isinstance(train, str) else None
        if absent("data.val_files") and beside and beside.is_file():
            yield (
                "warning",
                f"{beside.name} is neither trained on nor looked at: data.val_files is null, as verl drops a batch of fewer "
                "rows than GPUs take at once; hold out more, or nothing (rollforge export --validation), or use fewer GPUs",
            )


def _before_moved() -> bool:
    """Whether the verl that is installed knows the reward function by its first place only."""
    try:
        return version("verl").startswith("0.6.")
    except PackageNotFoundError:
        return False


def _files(one: Started) -> Iterator[tuple[Level, str]]:
    for key in ("data.train_files", "data.val_files", *_PATHS):
        given = one.options.get(key)
        for file in filter(known, given if isinstance(given, list) else [given]):
            if isinstance(file, str) and file.startswith("/") and not os.path.exists(file):
                here = " on this machine" if one.elsewhere else ""
                yield "warning" if one.elsewhere else "error", f"{key}: {file} is not there{here}"
            sft = key.startswith("data.") and one.entry == "sft"
            if isinstance(file, str) and sft and file.endswith((".json", ".jsonl")):
                yield "error", f"{key}: {file} is not Parquet: MultiTurnSFTDataset reads it with pandas.read_parquet"


_PATHS = (
    *("reward.custom_reward_function.path", "custom_reward_function.path", "data.custom_cls.path"),
    *("actor_rollout_ref.rollout.multi_turn.tool_config_path", "actor_rollout_ref.rollout.multi_turn.function_tool_path"),
    "actor_rollout_ref.rollout.multi_turn.interaction_config_path",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path",
)


def _ppo(one: Started) -> Iterator[tuple[Level, str]]:
    get, absent = one.options.get, one.options.absent
    if get("data.train_files") and absent("data.val_files"):
        yield (
            "error",
            "data.val_files is not set: verl loads ~/data/rlhf/gsm8k/test.parquet then; without any validation give it the "
            "training file, with trainer.val_before_train=False trainer.test_freq=-1",
        )
    attempts = one.options.number("actor_rollout_ref.rollout.n", 1)
    if get("algorithm.adv_estimator") == "grpo" and attempts == 1:
        yield (
            "warning",
            "actor_rollout_ref.rollout.n is 1 (the default): GRPO has nothing to compare with then, and verl takes the "
            "reward itself for the advantage; 8 is usual",
        )
    if absent("algorithm.adv_estimator"):
        yield "warning", "algorithm.adv_estimator is gae unless set: PPO with a critic"
    yield from _batches(one, attempts)
    tools = [f"actor_rollout_ref.rollout.multi_turn.{name}_path" for name in ("tool_config", "function_tool")]
    users = "actor_rollout_ref.rollout.multi_turn.interaction_config_path"
    if any(map(get, tools)) and absent("actor_rollout_ref.rollout.multi_turn.enable"):
        yield "warning", "there are tools, but actor_rollout_ref.rollout.multi_turn.enable is not True"
    if get("actor_rollout_ref.rollout.multi_turn.enable") and all(map(absent, (*tools, users))):
        yield "error", "multi_turn.enable is True without tool_config_path or function_tool_path: the policy sees no tools"


def _batches(one: Started, attempts: int | None) -> Iterator[tuple[Level, str]]:
    options = one.options
    per_node, nodes = options.number("trainer.n_gpus_per_node", 8), options.number("trainer.nnodes", 1)
    size = options.number("data.train_batch_size", 0) if options.get("data.train_batch_size") else None
    mini, actor = options.get("actor_rollout_ref.actor.ppo_mini_batch_size"), "actor_rollout_ref.actor"
    megatron = "megatron" in one.config or any(
        ".megatron." in key or value == "megatron" for key, value in options.values.items()
    )
    sequence = options.number(f"{actor}.ulysses_sequence_parallel_size", 1)
    if size and attempts and per_node and nodes and sequence and not megatron:
        shares = per_node * nodes // (sequence if options.get(f"{actor}.use_dynamic_bsz") else 1)
        if shares and size * attempts % shares:
            yield "error", f"data.train_batch_size {size} times {attempts} attempts is not divisible by {shares} GPUs"
    if size and isinstance(mini, int) and (mini > size or size % mini):
        yield "error", f"ppo_mini_batch_size {mini} does not divide data.train_batch_size {size}"
    if size and size < 256 and options.absent(f"{actor}.ppo_mini_batch_size"):
        yield "error", f"ppo_mini_batch_size is 256 unless set, more than data.train_batch_size {size}"


def _composed(one: Started) -> Iterator[str]:
    """What Hydra says of the overrides, with the configuration of the verl that is installed."""
    found = importlib.util.find_spec("verl")
    if found is None or importlib.util.find_spec("hydra") is None or not one.given:
        return
    [place, *_] = list(found.submodule_search_locations or ())
    composer: Any = import_module("hydra")
    state: Any = import_module("hydra.core.global_hydra").GlobalHydra
    errors: Any = import_module("hydra.errors")
    folder = Path(place) / "trainer" / "config"
    config = one.config or ("sft_trainer_engine" if one.entry == "sft" else "ppo_trainer")
    if not os.path.exists(folder / f"{config}.yaml"):
        return  # somebody's own
    given = [f"{key}={hydra(value if known(str(value)) else None)}" for key, value in one.given]
    before = state.instance().hydra  # of the program that calls this
    state.instance().clear()
    try:
        with composer.initialize_config_dir(str(folder), version_base=None):
            composer.compose(config, given)
    except errors.HydraException as error:
        yield f"the configuration of verl {version('verl')} does not take it: {' '.join(str(error).split())[:400]}"
    finally:
        state.instance().hydra = before
