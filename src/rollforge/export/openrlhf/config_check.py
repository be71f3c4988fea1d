"""Launch scripts for OpenRLHF, anybody's: flags of another version, flags that do not exist, values that stop the run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rollforge.export.check_rows import under_names
from rollforge.export.openrlhf.config import VERSIONS, flat
from rollforge.export.openrlhf.flags import DOTTED, FLAT
from rollforge.export.openrlhf.rows import check_dpo, check_grpo, check_sft, check_sft_simple
from rollforge.export.target import Problem
from rollforge.records.items import Json

Level = Literal["error", "warning"]


def check_config(kind: str, path: Path) -> Iterable[Problem]:
    name = str(path)
    if path.suffix in (".yaml", ".yml"):
        return [Problem(name, 0, "warning", "OpenRLHF reads no YAML: it takes flags on the command line")]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [Problem(name, 0, "error", f"cannot read {path}: {error}")]
    asked = re.match(r"#![^\n]*\n# OpenRLHF ([\d.]+):", text)  # for which version an export wrote it
    old = asked is not None and asked[1] in VERSIONS[1:]
    return [
        Problem(name, line, level, found)
        for line, entry, flags in commands(text)
        for level, found in (*_names(entry, flags, old), *_values(entry, flags))
    ]


_READ: dict[str, tuple[Callable[[Json], Iterator[str]], dict[str, str]]] = {
    "grpo": (check_grpo, {"data.input_key": "prompt", "data.label_key": "label"}),
    "sft": (check_sft, {"data.input_key": "messages"}),
    "sft-simple": (check_sft_simple, {"data.input_key": "input", "data.output_key": "output"}),
    "dpo": (check_dpo, {"data.prompt_key": "prompt", "data.chosen_key": "chosen", "data.rejected_key": "rejected"}),
}


def reads(kind: str, path: Path, data: Path) -> tuple[Callable[[Json], Iterable[str]], dict[str, str]] | None:
    """`Target.reads`, by the script's first command."""
    try:
        text = "" if path.suffix in (".yaml", ".yml") else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None  # which `check_config` says
    flags = next((flags for _, _, flags in commands(text)), {})
    check, usual = _READ[kind]
    given = {name: flags.get(flag, flags.get(flat(flag))) for flag, name in usual.items()}
    names = {name: key for name, key in given.items() if isinstance(key, str) and key != name}
    return (partial(under_names, check, names), names) if names else None


def commands(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line, `train_sft`, flag without dashes -> value, True for a switch) of each command in a script."""
    number = 1
    for whole in re.split(r"(?<!\\)\n", text):
        found = re.search(r"openrlhf\.cli\.(train_\w+)", whole)
        if found and found[1] in DOTTED:
            try:
                words = shlex.split(re.sub(r"\\\n", " ", whole[found.end() :]), comments=True)
            except ValueError:
                words = []
            flags: dict[str, Any] = {}
            for place, word in enumerate(words):
                if word.startswith("--"):
                    flag, equals, value = word[2:].partition("=")
                    after = words[place + 1] if place + 1 < len(words) else "--"
                    flags[flag] = value if equals else True if after.startswith("--") else after
            yield number, found[1], flags
        number += whole.count("\n") + 1


def _names(entry: str, flags: dict[str, Any], old: bool) -> Iterator[tuple[Level, str]]:
    dotted, former = DOTTED[entry], FLAT[entry]
    news = [flag for flag in flags if flag in dotted and flag not in former]
    olds = [flag for flag in flags if flag in former and flag not in dotted]
    modern = {flat(flag): flag for flag in dotted}
    if news and olds:
        for flag in olds:
            now = f": --{modern[flag]}" if flag in modern else ""
            yield (
                "error",
                f"--{flag} is of OpenRLHF up to 0.10, --{news[0]} of 0.11 and newer: do not mix them{now}",
            )
    elif olds and not old:
        shown = ", ".join(f"--{modern.get(flag, flag)}" for flag in olds[:3])
        yield (
            "warning",
            f"flat flags (--{olds[0]}, ...): OpenRLHF up to 0.10 takes them, since 0.11 they are dotted ({shown})",
        )
    for flag in flags:
        if flag not in dotted and flag not in former:
            near = get_close_matches(flag, [*dotted, *former], n=2, cutoff=0.6)
            hint = f"; did you mean {' or '.join(f'--{one}' for one in near)}?" if near else ""
            yield "error", f"openrlhf.cli.{entry} has no flag --{flag}{hint}"


def _values(entry: str, flags: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    def get(flag: str) -> Any:
        return flags.get(flag, flags.get(flat(flag)))

    for flag in ("data.dataset", "data.prompt_dataset", "eval.dataset", "reward.remote_url", "train.agent_func_path"):
        for one in str(get(flag) or "").split(","):
            if one.startswith("/") and not Path(one.split("@")[0]).exists():
                yield "error", f"--{flag}: {one} is not there"
    if not get("data.apply_chat_template"):
        yield (
            "warning",
            "--data.apply_chat_template is not set: rows of messages then fail, text is trained on without markup",
        )
    if entry == "train_sft" and get("data.multiturn") and get("data.output_key"):
        yield "error", "--data.multiturn takes the whole conversation from --data.input_key: leave --data.output_key out"
    if entry == "train_sft" and not get("data.multiturn") and get("data.input_key") == "messages":
        yield "warning", "without --data.multiturn only the last assistant turn is trained on"
    if entry == "train_dpo" and get("eval.dataset") and not get("eval.split"):
        yield "error", "--eval.split is test unless set, a file has only train: set --eval.split train"
    if entry == "train_ppo_ray":
        yield from _ppo(get)


def _ppo(get: Any) -> Iterator[tuple[Level, str]]:
    estimator, attempts = get("algo.advantage.estimator"), _number(get("rollout.n_samples_per_prompt"), 1)
    if estimator in ("group_norm", "rloo", "reinforce_baseline", "dr_grpo") and attempts < 2:
        yield "error", f"--algo.advantage.estimator {estimator} needs --rollout.n_samples_per_prompt of 2 and more"
    if estimator is None:
        yield "warning", "--algo.advantage.estimator is gae unless set: PPO with a critic; GRPO is group_norm"
    if not get("reward.remote_url") and not get("train.agent_func_path") and not get("reward.model_name_or_path"):
        yield "error", "there is no reward: set --reward.remote_url (a URL or reward_func.py) or --train.agent_func_path"
    if not get("data.label_key"):
        yield "warning", "--data.label_key is not set: every label is empty, and the reward has nothing to compare with"
    samples = attempts * _number(get("rollout.batch_size"), 1024)
    size = _number(get("train.batch_size"), 128)
    if size > samples:
        yield "error", f"--train.batch_size {size} is more than the {samples} samples of a step: nothing is ever trained"
    if get("train.colocate_all"):
        gpus = _number(get("actor.num_gpus_per_node"), 8) * _number(get("actor.num_nodes"), 1)
        engines = _number(get("vllm.num_engines"), 0) * _number(get("vllm.tensor_parallel_size"), 1)
        if engines and gpus != engines:
            yield "error", f"--train.colocate_all wants as many GPUs for the actor ({gpus}) as for vLLM ({engines})"


def _number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default
