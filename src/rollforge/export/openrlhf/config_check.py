"""Launch scripts for OpenRLHF, anybody's: flags of another version, flags that do not exist, values that stop the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from rollforge.export.check_rows import under_names
from rollforge.export.defines import not_defined
from rollforge.export.lengths import longer_in
from rollforge.export.openrlhf.config import VERSIONS
from rollforge.export.openrlhf.flags import DOTTED, FLAT, GONE, SWITCHES, flat
from rollforge.export.openrlhf.rows import CUT, check_as_text, check_dpo, check_grpo, check_sft, check_sft_simple
from rollforge.export.shell import UNREAD, Command, Options, elsewhere, known, made_for, read_script
from rollforge.export.target import Level, Problem, Seen
from rollforge.records.items import Json


@dataclass(frozen=True, slots=True)
class Started:
    """One of OpenRLHF's commands in a script."""

    line: int
    entry: str
    """`train_sft`"""
    flags: dict[str, Any]
    """As they are written, without dashes; True for a switch."""
    wrong: list[str]
    """What stands after a switch, which takes no value."""
    whole: bool
    elsewhere: bool

    def options(self) -> Options:
        """By the dotted names."""
        modern = {flat(flag): flag for flag in DOTTED[self.entry]}
        return Options({modern.get(flag, flag): value for flag, value in self.flags.items()}, self.whole)


def check_config(kind: str, path: Path) -> Iterable[Problem]:
    name = str(path)
    if path.suffix in (".yaml", ".yml"):
        return [Problem(name, 0, "warning", "OpenRLHF reads no YAML: it takes flags on the command line")]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [Problem(name, 0, "error", f"cannot read {path}: {error}")]
    old = made_for(text, "OpenRLHF") in VERSIONS[1:]
    started, unread = commands(text)
    none = read_script(text, r"openrlhf\.cli\.train_kto\b").commands
    other = [] if any(one.entry in _FOR[kind] for one in started) else started[:1]
    return [
        *([Problem(name, unread, "warning", UNREAD)] if unread else []),
        *(Problem(name, one.line, "error", _NO_KTO) for one in none),
        *(Problem(name, one.line, "error", f"{one.entry} does not train on {kind} data") for one in other),
        *(
            Problem(name, one.line, level, found)
            for one in started
            for level, found in (*_names(one, old), *_values(one.entry, one.options(), one.elsewhere))
        ),
    ]


_NO_KTO = "OpenRLHF has no openrlhf.cli.train_kto (0.9 to 0.11); trl:kto trains on desirable and undesirable answers"
_FOR = {
    "grpo": ("train_ppo_ray",),
    "sft": ("train_sft",),
    "sft-simple": ("train_sft",),
    "dpo": ("train_dpo", "train_rm"),
}
"""Kind -> the commands that train on its data."""
_READ: dict[str, tuple[Callable[..., Iterator[str]], dict[str, str]]] = {
    "grpo": (check_grpo, {"data.input_key": "prompt", "data.label_key": "label"}),
    "sft": (check_sft, {"data.input_key": "messages"}),
    "sft-simple": (check_sft_simple, {"data.input_key": "input", "data.output_key": "output"}),
    "dpo": (check_dpo, {"data.prompt_key": "prompt", "data.chosen_key": "chosen", "data.rejected_key": "rejected"}),
}


def reads(kind: str, path: Path, data: Path) -> tuple[Callable[[Json], Iterable[str]], dict[str, str]] | None:
    """`Target.reads`, by the script's first command for the kind."""
    started = _first(kind, path)
    if started is None:
        return None
    options = started.options()
    check, usual = _READ[kind]
    given = {name: _field(options, flag) for flag, name in usual.items()}
    names = {name: key for name, key in given.items() if isinstance(key, str) and key != name}
    asked = {said: _asked(options, flag) for said, flag in _ASKED.get(kind, {}).items()}
    check = partial(check, **asked)
    if options.absent("data.apply_chat_template") and options.absent("train.agent_func_path"):  # an agent may render them
        check = partial(check_as_text, check)
    return partial(under_names, check, names), names


def _field(options: Options, flag: str) -> Any:
    """The field that a flag names; OpenRLHF's own name where it is not given."""
    return "input" if flag == "data.input_key" and options.absent(flag) else options.get(flag)


_ASKED = {
    "grpo": {"labelled": "data.label_key"},
    "sft-simple": {"answered": "data.output_key"},
    "dpo": {"prompted": "data.prompt_key", "templated": "data.apply_chat_template"},
}
"""What the checks of rows want to know of the command."""


def _asked(options: Options, flag: str) -> bool | None:
    return False if options.absent(flag) else True if options.get(flag) else None


def trains_on(kind: str, path: Path) -> tuple[list[str], list[str]]:
    """`Target.trains_on`, by the script's first command for the kind."""
    one = _first(kind, path)
    if one is None:
        return [], []
    get = one.options().get

    def files(*flags: str) -> list[str]:
        given = ",".join(name for flag in flags if isinstance(name := get(flag), str))
        return [name.partition("@")[0] for name in given.split(",") if name]

    return files("data.dataset", "data.prompt_dataset"), files("eval.dataset")


def renders(kind: str, path: Path) -> dict[str, Any]:
    """`Target.renders`, by the script's first command for the kind."""
    one = _first(kind, path)
    template = one.options().get("data.tokenizer_chat_template") if one else None
    return {"--data.tokenizer_chat_template": template} if template else {}


def against(kind: str, path: Path, files: Mapping[Path, Seen]) -> Iterable[Problem]:
    """`Target.against`, by the script's first command for the kind."""
    one = _first(kind, path)
    if one is None:
        return []
    found = (*_batch(one, sum(file.rows for file in files.values())), *_longer(kind, one, files))
    return [Problem(str(path), one.line, "warning", said) for said in found]


def _batch(one: Started, rows: int) -> Iterator[str]:
    options = one.options()
    size = options.number("train.batch_size", 128)
    ppo = one.entry == "train_ppo_ray"
    times = options.number(*("rollout.n_samples_per_prompt", 1) if ppo else ("train.max_epochs", 2))
    if size is not None and times is not None and size > rows * times:
        each = f" times {times} {'samples' if ppo else 'epochs'}" if times > 1 else ""
        yield (
            f"--{options.shown('train.batch_size', size)}, the data has {rows:,} rows{each}: "
            f"not one step is trained; set it to at most {rows * times if ppo else rows}"
        )


def _longer(kind: str, one: Started, files: Mapping[Path, Seen]) -> Iterator[str]:
    """Rows longer than `--data.max_len`."""
    options = one.options()
    limit = options.number("data.max_len", 512 if one.entry == "train_dpo" else 2048)
    if options.absent("data.max_len") and not all(map(options.absent, _PARTS)):  # up to 0.9.7: the sum of these two
        parts = [options.number(part, 1024) for part in _PARTS]
        limit = None if None in parts else sum(part or 0 for part in parts)
    if limit is None:
        return
    names = [_field(options, flag) or name for flag, name in _READ[kind][1].items() if flag != "data.label_key"]
    for file in files:
        if longest := longer_in(file, limit, names):
            yield (
                f"--{options.shown('data.max_len', limit)}, and {file} has {'prompts' if kind == 'grpo' else 'rows'} of "
                f"about {longest} tokens: {_NO_ROOM if kind == 'grpo' else CUT}"
            )


_PARTS = ("prompt_max_len", "generate_max_len")
_NO_ROOM = "OpenRLHF has no room for an answer then; raise it, or leave such prompts out"


def _first(kind: str, path: Path) -> Started | None:
    try:
        text = "" if path.suffix in (".yaml", ".yml") else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None  # which `check_config` says
    return next((one for one in commands(text)[0] if one.entry in _FOR[kind]), None)


def commands(text: str) -> tuple[list[Started], int]:
    """OpenRLHF's commands in a script, and the line from which on it could not be read (0: read to its end)."""
    script = read_script(text, _ENTRY)
    return [one for command in script.commands for one in _started(command)], script.unread


_ENTRY = r"openrlhf\.cli\.(train_\w+)"


def _started(command: Command) -> Iterator[Started]:
    before, found, words = command.split(_ENTRY)
    if found[1] not in DOTTED:
        return
    flags: dict[str, Any] = {}
    wrong: list[str] = []
    whole, last = True, ""
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--") and known(name):
            last = name[2:]
            flags[last] = value if equals else True
        elif last and last not in SWITCHES and flags[last] is True:
            flags[last] = word
        elif not known(word):
            whole = False
        elif last in SWITCHES:
            wrong.append(f"--{last} takes no value, but {word!r} follows it: the parser stops at that")
    yield Started(command.line, found[1], flags, wrong, whole, elsewhere(before))


def _names(one: Started, old: bool) -> Iterator[tuple[Level, str]]:
    flags = one.flags
    dotted, former = DOTTED[one.entry], FLAT[one.entry]
    news = [flag for flag in flags if flag in dotted and flag not in former]
    olds = [flag for flag in flags if flag in former and flag not in dotted]
    modern = {flat(flag): flag for flag in dotted}
    if news and olds:
        for flag in olds:
            now = f": --{modern[flag]}" if flag in modern else ""
            yield (
                "error",
                f"--{flag} is of OpenRLHF up to 0.10.1, --{news[0]} of 0.10.2 and newer: do not mix them{now}",
            )
    elif olds and not old:
        shown = ", ".join(f"--{modern.get(flag, flag)}" for flag in olds[:3])
        yield (
            "warning",
            f"flat flags (--{olds[0]}, ...): OpenRLHF up to 0.10.1 takes them, since 0.10.2 they are dotted ({shown})",
        )
    for flag in flags:
        if flag in GONE:
            releases, now = GONE[flag]
            if not old:
                yield "warning", f"--{flag} is of OpenRLHF {releases}; 0.11.2 has --{now}"
        elif flag not in dotted and flag not in former:
            near = get_close_matches(flag, [*dotted, *former], n=2, cutoff=0.6)
            hint = f"; did you mean {' or '.join(f'--{one}' for one in near)}?" if near else ""
            yield "error", f"openrlhf.cli.{one.entry} has no flag --{flag}{hint}"
    for said in one.wrong:
        yield "error", said


def _values(entry: str, options: Options, elsewhere: bool) -> Iterator[tuple[Level, str]]:
    get, absent = options.get, options.absent
    for flag in ("data.dataset", "data.prompt_dataset", "eval.dataset", *_MODULES):
        for one in str(get(flag) or "").split(","):
            if one.startswith("/") and not os.path.exists(one.split("@")[0]):
                here = " on this machine" if elsewhere else ""
                yield "warning" if elsewhere else "error", f"--{flag}: {one} is not there{here}"
    for flag, name in _MODULES.items():
        if (said := not_defined(get(flag), name)) is not None:
            yield "error", f"--{flag}: {said}, which OpenRLHF imports"
    if absent("data.apply_chat_template") and absent("data.input_template"):
        yield "warning", "neither --data.apply_chat_template nor --data.input_template is set: text is trained on as it is"
    if entry == "train_sft" and get("data.multiturn") and get("data.output_key"):
        yield "error", "--data.multiturn takes the whole conversation from --data.input_key: leave --data.output_key out"
    if entry == "train_sft" and absent("data.multiturn") and get("data.input_key") == "messages":
        yield "warning", "without --data.multiturn only the last assistant turn is trained on"
    if entry == "train_dpo" and absent("eval.split") and Path(str(get("eval.dataset"))).suffix in _FILES:
        yield "error", "--eval.split is test unless set, a file has only train: set --eval.split train"
    if entry == "train_ppo_ray":
        yield from _ppo(options)


_FILES = (".jsonl", ".json", ".parquet", ".csv")
_MODULES = {"reward.remote_url": "reward_func", "train.agent_func_path": "AgentExecutor"}
"""Flags that name a Python file -> what it must define."""


def _ppo(options: Options) -> Iterator[tuple[Level, str]]:
    get, absent = options.get, options.absent
    estimator, attempts = get("algo.advantage.estimator"), options.number("rollout.n_samples_per_prompt", 1)
    if estimator in ("group_norm", "rloo", "reinforce_baseline", "dr_grpo") and attempts == 1:
        yield "error", f"--algo.advantage.estimator {estimator} needs --rollout.n_samples_per_prompt of 2 and more"
    if absent("algo.advantage.estimator"):
        yield "warning", "--algo.advantage.estimator is gae unless set: PPO with a critic; GRPO is group_norm"
    if all(map(absent, ("reward.remote_url", "train.agent_func_path", "reward.model_name_or_path"))):
        yield "error", "there is no reward: set --reward.remote_url (a URL or reward_func.py) or --train.agent_func_path"
    if absent("data.label_key") and not get("reward.model_name_or_path"):
        yield "warning", "--data.label_key is not set: every label is empty, and the reward has nothing to compare with"
    prompts, size = options.number("rollout.batch_size", 1024), options.number("train.batch_size", 128)
    if attempts and prompts and size and size > attempts * prompts:
        yield (
            "error",
            f"--train.batch_size {size} is more than the {attempts * prompts} samples of a step: nothing is ever trained",
        )
    if get("train.partial_rollout_enable") and absent("train.async_enable"):
        yield "error", "--train.partial_rollout_enable needs --train.async_enable (an assert)"
    if get("train.colocate_all") and absent("train.async_enable"):
        yield from _together(options)


def _together(options: Options) -> Iterator[tuple[Level, str]]:
    per_node, nodes = options.number("actor.num_gpus_per_node", 8), options.number("actor.num_nodes", 1)
    engines, each = options.number("vllm.num_engines", 0), options.number("vllm.tensor_parallel_size", 1)
    if per_node and nodes and engines and each and per_node * nodes != engines * each:
        yield (
            "error",
            f"--train.colocate_all wants as many GPUs for the actor ({per_node * nodes}) as for vLLM ({engines * each})",
        )
