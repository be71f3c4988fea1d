"""Launch scripts and YAML for verl, anybody's: keys that moved or do not exist, batches that do not divide."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from rollforge.config import read_yaml
from rollforge.errors import UserError
from rollforge.export.check_rows import under_names
from rollforge.export.target import Problem
from rollforge.export.verl.config import hydra, problems_of_tools
from rollforge.export.verl.rows import check_grpo, check_rewarded, check_rm, check_sft
from rollforge.records.items import Json

Level = Literal["error", "warning"]


def check_config(kind: str, path: Path) -> Iterable[Problem]:
    name = str(path)
    try:
        entry, values = _read(kind, path)
    except UserError as error:
        return [Problem(name, 0, "error", str(error))]
    if isinstance(values.get("tools"), list):
        return [Problem(name, 0, "error", found) for found in problems_of_tools(values["tools"])]
    if not entry:
        return []
    return [
        *(Problem(name, 0, level, found) for level, found in _traps(entry, values)),
        *(Problem(name, 0, "error", found) for found in _composed(entry, values, path)),
    ]


_READ: dict[str, tuple[Callable[[Json], Iterator[str]], dict[str, str]]] = {
    "grpo": (check_grpo, {"data.prompt_key": "prompt", "data.reward_fn_key": "data_source"}),
    "sft": (check_sft, {"data.messages_key": "messages", "data.tools_key": "tools"}),
    "rm": (check_rm, {"data.prompt_key": "prompt", "data.chosen_key": "chosen", "data.rejected_key": "rejected"}),
}


def reads(kind: str, path: Path, data: Path) -> tuple[Callable[[Json], Iterable[str]], dict[str, str]] | None:
    """`Target.reads`, and whether there is a reward function."""
    try:
        _, values = _read(kind, path)
    except UserError:
        return None  # which `check_config` says
    check, usual = _READ[{"grpo-parquet": "grpo", "dpo": "rm"}.get(kind, kind)]
    get = {key.lstrip("+~"): value for key, value in values.items()}.get
    names = {name: str(get(key)) for key, name in usual.items() if get(key) not in (None, name)}
    own = any(get(f"{place}custom_reward_function.path") for place in ("reward.", ""))
    if check is check_grpo and own:
        check = check_rewarded
    elif not names:
        return None
    return partial(under_names, check, names), names


def _read(kind: str, path: Path) -> tuple[str, dict[str, Any]]:
    """(what is started, dotted keys and values); "" for a script that starts nothing of verl's. Raises `UserError`."""
    if path.suffix in (".yaml", ".yml"):
        return _entry(kind), dict(_flat(read_yaml(path), ""))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return (_entry(kind, text), dict(overrides(text))) if re.search(_COMMANDS, text) else ("", {})


def overrides(text: str) -> Iterator[tuple[str, Any]]:
    """(key, value) of the Hydra overrides in a script; `+`, `++` stay on the key."""
    import yaml

    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        if not re.search(_COMMANDS, line):
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        for word in words:
            found = re.fullmatch(r"([~+]{0,2}[A-Za-z_][\w@]*(?:[./][\w@]+)+)=(.*)", word, re.DOTALL)
            if found:
                try:
                    value = yaml.safe_load(found[2])
                except yaml.YAMLError:
                    value = found[2]
                yield found[1], value


_COMMANDS = r"verl\.trainer\.|main_ppo|sft_trainer"


def _entry(kind: str, text: str = "") -> str:
    if "sft_trainer" in text:
        return "sft"
    return "ppo" if "main_ppo" in text or kind != "sft" else "sft"


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
    "model.partial_pretrain": "it is model.path (verl.trainer.sft_trainer)",
    "actor_rollout_ref.rollout.multi_turn.max_turns": "it is max_assistant_turns and max_user_turns",
}
OLD_REWARD = ("custom_reward_function.path", "custom_reward_function.name", "reward_model.reward_manager")


def _traps(entry: str, values: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    get = {key.lstrip("+~"): value for key, value in values.items()}.get
    for key, now in MOVED.items():
        if get(key) is not None:
            yield "error", f"{key}: {now}"
    for key in OLD_REWARD:
        if get(key) is not None:
            now = "reward.reward_manager.name" if key.endswith("manager") else f"reward.{key}"
            yield (
                "warning",
                f"{key}: since verl 0.7 it is {now} (the old one is carried over)",
            )
    for key in ("data.train_files", "data.val_files", *_PATHS):
        given = get(key)
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, str) and one.startswith("/") and not Path(one).exists():
                yield "error", f"{key}: {one} is not there"
            if isinstance(one, str) and key.startswith("data.") and entry == "sft" and one.endswith((".json", ".jsonl")):
                yield "error", f"{key}: {one} is not Parquet: MultiTurnSFTDataset reads it with pandas.read_parquet"
    if entry == "ppo":
        yield from _ppo(get)
    else:
        gpus = _number(get("trainer.n_gpus_per_node")) * _number(get("trainer.nnodes"))
        if get("data.train_batch_size") and _number(get("data.train_batch_size")) % gpus:
            yield "error", f"data.train_batch_size {get('data.train_batch_size')} is not divisible by {gpus} GPUs"
        if get("data.max_length") is None:
            yield "warning", "data.max_length is 1024 unless set, and data.truncation: error stops at the first longer row"
        if get("optim.lr") is None:
            yield "warning", "optim.lr is 1e-3 unless set: far too much for a language model; 1e-5 is usual"


_PATHS = (
    *("reward.custom_reward_function.path", "custom_reward_function.path", "data.custom_cls.path"),
    *("actor_rollout_ref.rollout.multi_turn.tool_config_path", "actor_rollout_ref.rollout.multi_turn.function_tool_path"),
)


def _ppo(get: Any) -> Iterator[tuple[Level, str]]:
    if get("data.train_files") and not get("data.val_files"):
        yield (
            "error",
            "data.val_files is not set: verl loads ~/data/rlhf/gsm8k/test.parquet then; without any validation give it the "
            "training file, with trainer.val_before_train=False trainer.test_freq=-1",
        )
    attempts = _number(get("actor_rollout_ref.rollout.n"))
    estimator = get("algorithm.adv_estimator")
    if estimator == "grpo" and attempts < 2:
        yield "error", "actor_rollout_ref.rollout.n is 1 (the default): with GRPO every advantage is 0 then; 8 is usual"
    if estimator is None:
        yield "warning", "algorithm.adv_estimator is gae unless set: PPO with a critic"
    gpus = _number(get("trainer.n_gpus_per_node"), 8) * _number(get("trainer.nnodes"))
    size, mini = get("data.train_batch_size"), get("actor_rollout_ref.actor.ppo_mini_batch_size")
    if isinstance(size, int):
        if size * attempts % gpus:
            yield "error", f"data.train_batch_size {size} times {attempts} attempts is not divisible by {gpus} GPUs"
        if isinstance(mini, int) and (mini > size or size % mini):
            yield "error", f"ppo_mini_batch_size {mini} does not divide data.train_batch_size {size}"
        if mini is None and size < 256:
            yield "error", f"ppo_mini_batch_size is 256 unless set, more than data.train_batch_size {size}"
    tools = [
        get(f"actor_rollout_ref.rollout.multi_turn.{name}_path") for name in ("tool_config", "function_tool")
    ]  # either gives the tools
    if any(tools) and not get("actor_rollout_ref.rollout.multi_turn.enable"):
        yield "warning", "there are tools, but actor_rollout_ref.rollout.multi_turn.enable is not True"
    if get("actor_rollout_ref.rollout.multi_turn.enable") and not any(tools):
        yield "error", "multi_turn.enable is True without tool_config_path or function_tool_path: the policy sees no tools"
    if get("reward.custom_reward_function.path") is None and get("custom_reward_function.path") is None:
        yield (
            "warning",
            "there is no reward.custom_reward_function.path: verl then knows the data_source of a few public data sets only "
            "(NotImplementedError for others)",
        )


def _number(value: Any, default: int = 1) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _composed(entry: str, values: dict[str, Any], path: Path) -> Iterator[str]:
    """What Hydra says of the overrides, with the configuration of the verl that is installed."""
    if importlib.util.find_spec("verl") is None or importlib.util.find_spec("hydra") is None or not values:
        return
    found = importlib.util.find_spec("verl")
    places = list(found.submodule_search_locations or ()) if found else []
    omega: Any = import_module("hydra")
    state: Any = import_module("hydra.core.global_hydra").GlobalHydra.instance()
    errors: Any = import_module("hydra.errors")

    folder = Path(places[0]) / "trainer" / "config"
    config = "sft_trainer_engine" if entry == "sft" else "ppo_trainer"
    given = [f"{key}={hydra(value)}" for key, value in values.items() if not key.startswith("~")]
    state.clear()
    with omega.initialize_config_dir(str(folder), version_base=None):
        try:
            omega.compose(config, given)
        except errors.HydraException as error:
            yield f"verl's configuration does not take it: {' '.join(str(error).split())[:400]}"
