"""What is wrong with a NeMo RL configuration, anybody's, read with its parents.

Most mistakes here are silent: NeMo RL keeps keys of another version without reading them, and trains the parent's data set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from rollforge.errors import UserError
from rollforge.export.nemo_rl import check
from rollforge.export.nemo_rl.check_data import DataFiles
from rollforge.export.nemo_rl.check_keys import loaders, missing, unread
from rollforge.export.nemo_rl.config import ALGORITHM, FLAT, NO_LORA, NOT_JOINED
from rollforge.export.nemo_rl.inherit import Found, Values, keys, line_of, lines_of, number, section
from rollforge.export.nemo_rl.rows import TASK
from rollforge.export.nemo_rl.shares import shares
from rollforge.export.nemo_rl.started import GONE, Started, fits, started
from rollforge.export.shell import UNREAD
from rollforge.export.target import Problem

_ENVS = ("math", "math_default", "math_multi_reward", "code", "code_jaccard", "reward_model", "vlm", "nemo_gym")
_PROCESSORS = {
    *("default", "helpsteer3_data_processor", "kd_data_processor", "math_data_processor", "math_hf_data_processor"),
    *("multichoice_qa_processor", "sft_processor", "vlm_hf_data_processor", "nemo_gym_data_processor"),
}
_WANTED = {"sft": ("sft_processor", "TypeError add_bos"), "nemo-gym": ("nemo_gym_data_processor", "every row fails")}
"""The processor, and what comes of none."""
_FLAT = ("dataset_name", "train_data_path", "val_data_path", "train_jsonl_fpath", "validation_jsonl_fpath")
_LOCAL = ("ResponseDataset", "openai_format", "NemoGymDataset")
_PAIRS = ("BinaryPreferenceDataset", "PreferenceDataset")
_BUILT_IN = (
    *("AIME2024", "AIME2025", "AIME2026", "DAPOMath17K", "DAPOMathAIME2024", "DeepScaler", "GSM8K", "HelpSteer3"),
    *("Nemotron-Cascade-2-SFT-Math", "NuminaMath-1.5", "OpenMathInstruct-2", "OpenR1-Math-220k", "arrow_text", "audiomcq"),
    *("avqa", "clevr-cogent", "clevr_cogent", "daily-omni", "general-conversation-jsonl", "geometry3k", "gsm8k"),
    *("intent-bench", "intent-train", "mmpr-tiny", "open_assistant", "openmathinstruct2", "refcoco", "squad"),
    "tulu3_sft_mixture",
)
_BUILT_IN_PAIRS = ("HelpSteer3", "Tulu3Preference")
"""What `load_response_dataset` and `load_preference_dataset` know, of 0.4 to August 2026 together; from 0.7 on a dotted name
is a class of one's own."""


def check_config(kind: str, path: Path) -> Iterable[Problem]:
    """Problems of a configuration for data of this kind, or of a script and the configuration that it names."""
    found: list[Found] = []
    try:
        one = started(kind, path, found)
    except UserError as error:
        return [Problem(str(path), 0, "error", str(error))]
    if one is None:
        return []
    problems = [Problem(str(path), one.unread, "warning", UNREAD)] if one.unread else []
    if one.script:
        problems += [Problem(str(path), one.line, "error", said) for said in _script(kind, one)]
    found += _made(kind, one).problems() if one.file or one.given else ()
    lines, notes = {}, []
    if one.file:
        lines = lines_of(one.file)
        notes = one.file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    found += [("", "warning", note.removeprefix("# PROBLEM: ")) for note in notes if note[:1] == "#" and NO_LORA in note]
    for key, level, text in found:
        said = f"{key}: {text}" if key else text
        place = (path, one.line) if key in one.given or not one.file else (one.file, line_of(lines, key))
        problems.append(Problem(str(place[0]), place[1], level, said))
    return problems


def _script(kind: str, one: Started) -> Iterator[str]:
    if not fits(kind, one.script):
        yield f"it starts {one.script}.py, which is not for {kind} data"
    elif one.script in GONE and not (one.file and (_version(one.file) in FLAT or _made(kind, one).is_flat())):
        yield f"examples/{one.script}.py is gone since NeMo RL 0.6: run examples/run_grpo.py (from 0.5 on)"


def _made(kind: str, one: Started) -> _Configuration:
    return _Configuration(kind, one.own, one.parent, one.values, _version(one.file) if one.file else "")


def _read(kind: str, path: Path) -> _Configuration | None:
    """None for what `check_config` says cannot be read."""
    try:
        one = started(kind, path, [])
    except UserError:
        return None
    return _made(kind, one) if one else None


_READ: dict[str, tuple[Callable[..., Iterator[str]], dict[str, str]]] = {
    "grpo": (check.grpo, {"input_key": "input", "output_key": "output"}),
    "sft-simple": (check.sft_simple, {"input_key": "input", "output_key": "output"}),
    "sft": (check.sft, {"chat_key": "messages", "tool_key": "tools"}),
    "dpo": (check.dpo, {"prompt_key": "prompt", "chosen_key": "chosen", "rejected_key": "rejected"}),
}
"""The check of a kind's rows, and its arguments with what they are if nothing is said."""


def reads(kind: str, path: Path, data: Path) -> tuple[Callable[[Values], Iterator[str]], dict[str, str]] | None:
    """`Target.reads`: by the entry that names the data file, else by the first one for training."""
    made = _read(kind, path) if kind in _READ else None
    if made is None:
        return None
    entries = (
        [made.data] if made.is_flat() else [entry for split in ("train", "validation") for _, entry in made.entries(split)]
    )
    mine = (entry for entry in entries if Path(str(entry.get("data_path"))).absolute() == data.absolute())
    entry = next(mine, entries[0] if entries else {})
    of, usual = _READ[kind]
    given = {key: entry[key] for key in usual if entry.get(key, usual[key]) != usual[key]}
    if not all(isinstance(name, str | None) for name in given.values()):
        return None  # which `check_config` says, too
    if not given:
        return None
    return partial(of, **given), {usual[key]: str(name) for key, name in given.items() if name is not None}


def trains_on(kind: str, path: Path) -> tuple[list[str], list[str]]:
    """`Target.trains_on`."""
    made = _read(kind, path)
    return made.paths() if made else ([], [])


def renders(kind: str, path: Path) -> Values:
    """`Target.renders`."""
    made = _read(kind, path)
    values = made.values if made else {}
    tokenizer = section(values, "policy", "tokenizer")
    given = {f"policy.tokenizer.{key}": tokenizer.get(key) for key in ("chat_template", "chat_template_kwargs")}
    if ALGORITHM[kind] == "sft":
        given["data.add_generation_prompt"] = section(values, "data").get("add_generation_prompt")
    return {key: value for key, value in given.items() if value and value != "default"}


def _version(path: Path) -> str:
    """For which an export wrote the file, as its first line says; "" in others."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        found = re.match(r"# NeMo RL ([\w.]+),", file.readline(200))
    return found[1] if found else ""


class _Configuration:
    def __init__(self, kind: str, own: Values, parent: Values | None, values: Values, version: str) -> None:
        self.kind = kind
        self.version = version
        self.algorithm = ALGORITHM[kind]
        self.own = own
        self.parent = parent
        """Merged; None where it could not be read."""
        self.values = values
        self.data: Values = section(values, "data")
        pairs = self.algorithm == "dpo"
        self.local = _PAIRS if pairs else _LOCAL
        """Data sets for local files."""
        self.known = (*self.local, *(_BUILT_IN_PAIRS if pairs else _BUILT_IN))
        self.files = DataFiles(self.algorithm, self.is_flat(), number(values, "data.max_input_seq_length"))

    def problems(self) -> Iterator[Found]:
        if not isinstance(self.values.get("data"), dict):
            yield "data", "error", "no such section: NeMo RL reads the data sets from it"
            return
        if self.is_flat():
            yield from self.flat()
        else:
            yield from self.today()
            yield from missing(self.algorithm, self.own, self.parent, self.values)
            yield from loaders(self.algorithm, self.values)
            yield from unread(self.own, self.parent)
        yield from self.batches()
        yield from self.validation()
        yield from self.tokenizer()
        if self.kind == "nemo-gym":
            yield from self.gym()

    # Which shape

    def is_flat(self) -> bool:
        """Whether this is, in all, a configuration of 0.4 or 0.5."""
        base = self.parent and section(self.parent, "data")
        return "train" not in (base or self.data) and any(key in (base or self.data) for key in _FLAT)

    def flat(self) -> Iterator[Found]:
        own = section(self.own, "data")
        if self.parent is None and self.version not in FLAT:
            yield (
                "data",
                "warning",
                "flat keys are those of NeMo RL 0.4 and 0.5; from 0.6 on they are not read, and the parent's data set is "
                "trained without a word: write data.train, data.validation and data.default there",
            )
        for key in ("train", "validation", "default"):
            if key in own:
                yield (
                    f"data.{key}",
                    "error",
                    "NeMo RL up to 0.5 does not read it, and trains the parent's data set; use flat keys",
                )
        name = self.data.get("dataset_name")
        if self.kind != "nemo-gym":
            if name not in self.local:
                yield "data.dataset_name", "error", f"{name!r} is no data set for local files: {', '.join(self.local)}"
            if not self.data.get("train_data_path"):
                yield "data.train_data_path", "error", "it is missing, and there is nothing to train on"
        if name == "openai_format":
            seven = (
                "train_data_path",
                "val_data_path",
                "chat_key",
                "system_key",
                "system_prompt",
                "tool_key",
                "use_preserving_dataset",
            )
            missing = [key for key in seven if key not in self.data]
            if missing:
                yield (
                    "data",
                    "error",
                    f"openai_format of 0.4 and 0.5 reads all of its keys: KeyError {missing[0]!r}; add {', '.join(missing)}",
                )
        if name == "ResponseDataset":
            for key in ("input_key", "output_key"):
                if key in self.data and self.data[key] is None:
                    yield f"data.{key}", "error", "it is null (sft.yaml sets it so): KeyError None; name the field"
        if self.algorithm == "sft" and not self.data.get("val_data_path"):
            yield (
                "data.val_data_path",
                "error",
                "run_sft.py of 0.4 and 0.5 counts its rows (TypeError len(None)); name a file",
            )
        if self.kind == "grpo" and "env_name" not in self.data and (self.parent is not None or self.version == "0.4"):
            self.files.task = TASK  # 0.5 has an env_name, its parent at least
        for key in ("train_data_path", "val_data_path", "train_jsonl_fpath", "validation_jsonl_fpath"):
            if self.data.get(key):
                yield from self.files.check(f"data.{key}", str(self.data[key]), self.data, name or "NemoGymDataset")

    def today(self) -> Iterator[Found]:
        own = section(self.own, "data")
        flat = [key for key in _FLAT if key in own]
        if flat:
            trained = next((entry.get("dataset_name") for _, entry in self.entries("train")), None)
            yield (
                f"data.{flat[0]}",
                "error",
                f"a key of NeMo RL 0.4 and 0.5, not read since 0.6: {trained or 'the parent data set'!r} would be trained "
                "without a word; write data.train: {data_path: ...} (or run the version that knows it)",
            )
        if "train" not in self.data:
            yield (
                "data.train",
                "error",
                "it is missing: Field required (0.7), an assert (0.6); write train: {dataset_name: ..., data_path: ...}",
            )
        inherited = section(self.parent or {}, "data")
        if inherited and not own.get("_override_"):
            left = _inherited(self.data)  # not what a null or a list takes the place of
            kept = [key for key in _inherited(inherited) if key in left and key not in _inherited(own)]
            if kept:
                yield "data", "warning", f"without `_override_: true` the parent's {', '.join(kept)} stay; add it under data"
        entries = [(key, entry) for split in ("train", "validation") for key, entry in self.entries(split)]
        for split in ("train", "validation"):
            given = self.data.get(split)
            several = given if isinstance(given, list) else [given]
            if given is not None and not (several and all(isinstance(one, dict) for one in several)):
                yield f"data.{split}", "error", "it must be keys and values (dataset_name, data_path), or a list of such"
        for key, entry in entries:
            yield from self.entry(key, entry)
        for split in ("train", "validation"):
            yield from self.collisions(split)
        if self.algorithm == "grpo" and self.kind != "nemo-gym":
            yield from self.environments(entries)
        if self.algorithm == "dpo":
            yield from self.pairs()
        interpolated = "data.train.dataset_name" in str(section(self.values, "logger"))
        train = self.data.get("train")
        if interpolated and isinstance(train, list):
            yield (
                "logger",
                "error",
                "the parent's names hold ${data.train.dataset_name}, which a list has not: set logger.*.name",
            )
        elif interpolated and isinstance(train, dict) and "dataset_name" not in train:
            missing = "the logger's names interpolate data.train.dataset_name (InterpolationKeyError): write it here"
            yield "data.train", "error", missing

    def pairs(self) -> Iterator[Found]:
        for split in ("train", "validation"):
            if isinstance(self.data.get(split), list):
                yield f"data.{split}", "error", "preference data is one data set, not a list"
        given = self.data.get("val_data_paths")
        if given and not isinstance(given, dict):
            yield "data.val_data_paths", "error", "it must be {name: path} (an assert)"
        for name, path in section(self.data, "val_data_paths").items():
            for key, level, said in self.files.check(f"data.val_data_paths.{name}", str(path), {}, "PreferenceDataset"):
                yield key, level, f"{said} (val_data_paths are read as PreferenceDataset, whatever is trained on)"
        if given and self.data.get("validation"):
            yield "data.validation", "warning", "it is not read beside val_data_paths; leave one of them out"

    def entries(self, split: str) -> list[tuple[str, Values]]:
        """(dotted key, the entry filled from `data.default`)."""
        given = self.data.get(split)
        default = section(self.data, "default")
        if isinstance(given, list):
            return [
                (f"data.{split}[{i}]", _named({**default, **one})) for i, one in enumerate(given) if isinstance(one, dict)
            ]
        return [(f"data.{split}", _named({**default, **given}))] if isinstance(given, dict) else []

    def entry(self, key: str, entry: Values) -> Iterator[Found]:
        name = entry.get("dataset_name")
        path = entry.get("data_path")
        if name is None:
            yield key, "error", f"no dataset_name, here or in data.default; for local files: {', '.join(self.local)}"
        elif name not in self.known and ("." not in name or self.version == "0.6"):
            near = get_close_matches(name, self.known, n=1, cutoff=0.6)
            what = "preference data" if self.algorithm == "dpo" else "responses"
            hint = f"did you mean {near[0]}?" if near else f"for local files: {', '.join(self.local)}"
            yield (
                f"{key}.dataset_name",
                "error",
                f"{name!r} is no data set of {what} (ValueError: Unsupported dataset_name); {hint}",
            )
        elif name in self.local and not path:
            yield key, "error", f"{name} needs data_path, here or on the command line"
        elif name not in self.local and path and "." not in str(name) and self.from_parent(key):
            yield (
                f"{key}.dataset_name",
                "error",
                f"{name!r} is the parent's, and is trained instead of {path}: data.default does not replace it; write "
                "dataset_name beside data_path (ResponseDataset), or `_override_: true` under data",
            )
        elif name not in self.local and path and "." not in str(name):
            yield (
                f"{key}.dataset_name",
                "warning",
                f"{name!r} is no data set for local files, and data_path is not read by it",
            )
        if self.algorithm != "dpo":
            yield from self.processor(f"{key}.processor", entry.get("processor"))
        if name == "openai_format" and entry.get("use_preserving_dataset") and self.version == "0.6":
            yield f"{key}.use_preserving_dataset", "error", NOT_JOINED
        for file in ("prompt_file", "system_prompt_file") if self.kind in ("grpo", "sft-simple", "sft") else ():
            if entry.get(file):
                yield from self.prompt_file(f"{key}.{file}", str(entry[file]))
        if entry.get("split_validation_size") and name in self.local and name != "ResponseDataset":
            yield (
                f"{key}.split_validation_size",
                "warning",
                f"{name} does not split: there is no validation data; write two files",
            )
        if path and name in self.local:
            yield from self.files.check(f"{key}.data_path", str(path), entry, str(name))

    def processor(self, key: str, given: str | None) -> Iterator[Found]:
        wanted, fails = _WANTED.get(self.kind if self.kind == "nemo-gym" else self.algorithm, ("", ""))
        if given is None:
            if wanted and not self.may_inherit("data"):
                yield key, "error", f"it is missing, and math_hf_data_processor is taken: {fails}; set {wanted}"
        elif given not in _PROCESSORS and "." not in str(given):
            yield key, "warning", f"{given!r} is none of NeMo RL's own: {', '.join(sorted(_PROCESSORS))}"
        elif wanted and given != wanted:
            yield key, "error", f"{given!r} does not fit; set {wanted}"

    def from_parent(self, key: str) -> bool:
        """Whether this file names the data of an entry, and its parent the data set."""
        own = section(self.own, "data", key.removeprefix("data."))
        return "data_path" in own and "dataset_name" not in own

    def may_inherit(self, name: str) -> bool:
        """Whether a section may hold more, of a parent that could not be read."""
        return self.parent is None and "defaults" in self.own and not section(self.own, name).get("_override_")

    def prompt_file(self, key: str, name: str) -> Iterator[Found]:
        file, does = Path(name), "stands before" if key.endswith(".system_prompt_file") else "wraps"
        if not file.is_absolute():
            yield (
                key,
                "warning",
                f"{name!r} {does} every prompt, and is looked for where NeMo RL is started; null leaves prompts alone",
            )
        elif not os.path.isfile(file):
            yield key, "error", f"{name} is not there"
        elif does == "wraps":
            text = file.read_text(encoding="utf-8", errors="replace")
            if re.sub(r"\{\{|\}\}", "", text).count("{") != 1:
                yield key, "error", "it is a format string: {} once for the problem, other braces doubled"

    def collisions(self, split: str) -> Iterator[Found]:
        """`task_name` is all that keeps entries apart: the last two parts of the path, up to the first dot."""
        seen: dict[str, tuple[str, Values]] = {}
        for key, entry in self.entries(split):
            path = entry.get("data_path")
            if not path:
                continue
            task = "-".join(str(path).split("/")[-2:]).split(".")[0].removeprefix("-")
            if task in seen:
                other, first = seen[task]
                alike = all(
                    entry.get(name) == first.get(name)
                    for name in ("processor", "env_name", "prompt_file", "system_prompt_file")
                )
                yield (
                    f"{key}.data_path",
                    "warning" if alike else "error",
                    f"its task name {task!r} (last two parts of the path up to the first dot) is that of {other}: the "
                    "later entry's processor, prompt and environment hold for both; rename a file",
                )
            seen[task] = (key, entry)

    def environments(self, entries: list[tuple[str, Values]]) -> Iterator[Found]:
        default = _named(section(self.data, "default"))
        named = [(key, entry.get("env_name")) for key, entry in entries] + (
            [("data.default", default["env_name"])] if "env_name" in default else []
        )
        defined = section(self.values, "env")
        told: set[str] = set()
        for key, name in named:
            if name is None and self.may_inherit("data"):
                continue
            elif name is None:
                yield f"{key}.env_name", "error", "no environment, here or in data.default (math for expected answers)"
            elif name in told:
                continue
            elif name not in defined:
                if name in _ENVS and self.may_inherit("env"):
                    continue
                told.add(name)
                yield (
                    f"{key}.env_name",
                    "error",
                    f"env.{name} is not defined (env has {', '.join(defined) or 'nothing'}); add it",
                )
            elif name not in _ENVS:
                yield (
                    f"{key}.env_name",
                    "warning",
                    f"{name!r} is none of NeMo RL's own ({', '.join(_ENVS)}): register_env must have been called",
                )

    # Numbers

    def batches(self) -> Iterator[Found]:
        rows = self.train_rows()
        key = "grpo.num_prompts_per_step" if self.algorithm == "grpo" else "policy.train_global_batch_size"
        batch = number(self.values, key)
        if rows and batch and batch > rows:
            yield (
                key,
                "error",
                f"{batch}, and there are {rows} rows: incomplete batches are dropped, so no step is made, silently",
            )
        whole = number(self.values, "policy.train_global_batch_size")
        attempts = number(self.values, "grpo.num_generations_per_prompt") if self.algorithm == "grpo" else None
        if whole:
            yield from self.shared(whole, batch * attempts if batch and attempts else None)
        if self.algorithm == "grpo":
            if batch and attempts and whole and batch * attempts % whole:
                yield (
                    "policy.train_global_batch_size",
                    "error",
                    f"{whole} does not divide the {batch} x {attempts} attempts of a step; set it to {batch * attempts}",
                )
            if attempts == 1:
                yield "grpo.num_generations_per_prompt", "warning", "1: there is nothing to compare an attempt with"
        steps = number(self.values, f"{self.algorithm}.max_num_steps")
        epochs = number(self.values, f"{self.algorithm}.max_num_epochs") or 1
        if (
            rows
            and batch
            and steps
            and steps < rows // batch * epochs
            and f"{self.algorithm}.max_num_steps" not in keys(self.own)
        ):
            yield (
                f"{self.algorithm}.max_num_steps",
                "warning",
                f"the parent's {steps} stop before the {rows // batch * epochs} steps of the data; set it",
            )

    def shared(self, whole: int, attempts: int | None) -> Iterator[Found]:
        """Whether the rows of a training step, and then those of each share, come out even (asserts in NeMo RL); `attempts`:
        those whose log probabilities are asked for."""
        count, each = shares(self.values, self.algorithm)
        policy = section(self.values, "policy")
        packed = [key for key in ("sequence_packing", "dynamic_batching") if section(policy, key).get("enabled")]
        if packed and self.algorithm == "dpo":
            yield f"policy.{packed[0]}.enabled", "error", "NeMo RL refuses it for DPO (an assert): set it to false"
        if whole % count:
            who = "GPUs" if each == 1 else f"groups of {each} GPUs, over which the model is spread"
            yield "policy.train_global_batch_size", "error", f"{whole} cannot be shared by {count} {who}; take a multiple"
        elif not packed:
            who = "each GPU" if each == 1 else f"each {each} GPUs"
            for key, rows in (("train_micro_batch_size", whole), ("logprob_batch_size", attempts)):
                size = number(self.values, f"policy.{key}")
                if rows and size and rows // count % size:
                    yield f"policy.{key}", "error", f"{size} does not divide {rows // count}, the rows of {who}"

    def paths(self) -> tuple[list[str], list[str]]:
        """Of the data to train on, and to validate with; "" for an entry without one."""
        if self.is_flat():
            found = [[self.data.get(f"{of}_data_path") or self.data.get(f"{long}_jsonl_fpath")] for of, long in _SPLITS]
        else:
            found = [[entry.get("data_path") for _, entry in self.entries(split)] for split in ("train", "validation")]
        train, held_out = ([str(path or "") for path in paths] for paths in found)
        return train, held_out

    def train_rows(self) -> int:
        paths = self.paths()[0]
        return sum(self.files.rows[path] for path in paths) if all(path in self.files.rows for path in paths) else 0

    def validation(self) -> Iterator[Found]:
        own = section(self.values, self.algorithm)
        data = self.data
        there = any(data.get(key) for key in ("validation", "val_data_paths", "val_data_path", "validation_jsonl_fpath"))
        there = there or any(entry.get("split_validation_size") for _, entry in self.entries("train"))
        if not there and (self.parent is not None or own):
            asked = [key for key in ("val_period", "val_at_start", "val_at_end") if own.get(key) and own.get(key) != -1]
            if asked and self.algorithm != "dpo":
                yield (
                    f"{self.algorithm}.{asked[0]}",
                    "error",
                    f"{own[asked[0]]} without validation data: AssertionError; set val_period: 0, val_at_*: false",
                )
            elif asked:
                yield (
                    f"dpo.{asked[0]}",
                    "warning",
                    f"{own[asked[0]]} without validation data: nothing is validated; set val_period: 0",
                )
        saving = section(self.values, "checkpointing")
        metric = saving.get("metric_name")
        if not isinstance(metric, str) or saving.get("enabled") is False:
            return
        off = not there or not (own.get("val_period") or own.get("val_at_end"))
        if metric.startswith("val:") and off and "val_period" in own:
            yield (
                "checkpointing.metric_name",
                "warning",
                f"{metric!r} is never measured without validation: the newest checkpoints are kept; set it to null",
            )
        elif not metric.startswith(("val:", "train:")):
            yield (
                "checkpointing.metric_name",
                "error",
                f"{metric!r} must begin with val: or train: (an assert when the first checkpoint is saved)",
            )

    def tokenizer(self) -> Iterator[Found]:
        policy = section(self.values, "policy")
        tokenizer = section(policy, "tokenizer")
        model, name = policy.get("model_name"), tokenizer.get("name")
        own = section(self.own, "policy", "tokenizer")
        if model and name and "${" not in str(name) and name != model and "name" not in own:
            yield (
                "policy.tokenizer.name",
                "warning" if _kin(str(model), str(name)) else "error",
                f"the parent's {name!r}, and the model is {model!r}; set ${{policy.model_name}}",
            )
        if self.algorithm != "sft":
            return
        template = tokenizer.get("chat_template", "default")
        if "chat_template" not in own and isinstance(template, str) and "Question:" in template:
            calls = ": it writes no tools and no calls: empty turns are trained"
            yield (
                "policy.tokenizer.chat_template",
                "error" if self.files.tools else "warning",
                f"sft.yaml's own template stays, not the model's{calls if self.files.tools else ''}; set it to default",
            )
        elif "chat_template" not in own and self.parent is None and self.kind == "sft" and "defaults" in self.own:
            yield "policy.tokenizer.chat_template", "warning", "sft.yaml sets one that writes no tools; set it to default"
        elif "chat_template" in tokenizer and template is None:
            yield (
                "policy.tokenizer.chat_template",
                "error",
                "null joins the contents without roles and tools; set it to default",
            )

    def gym(self) -> Iterator[Found]:
        env, grpo = section(self.values, "env"), section(self.values, "grpo")
        if not env.get("should_use_nemo_gym"):
            yield "env.should_use_nemo_gym", "error", "it must be true"
        if grpo.get("max_val_samples") is not None:
            yield "grpo.max_val_samples", "error", f"{grpo['max_val_samples']}: ValueError with NeMo Gym; set it to null"
        if self.data.get("max_input_seq_length") is not None:
            yield "data.max_input_seq_length", "warning", "not used with NeMo Gym; set it to null"
        paths = section(env, "nemo_gym").get("config_paths")
        if not isinstance(paths, list) or not paths:
            yield (
                "env.nemo_gym.config_paths",
                "error",
                "no gym is named: the model server's and each environment's configuration files",
            )
        elif any("ENVIRONMENT" in str(path) for path in paths):
            yield "env.nemo_gym.config_paths", "error", "ENVIRONMENT stands for the environment's own name; write it"
        elif not any("for_training" in str(path) for path in paths):
            yield (
                "env.nemo_gym.config_paths",
                "error",
                "no vllm_model_for_training.yaml: results have no token ids (ValueError: no generation data)",
            )
        vllm = section(self.values, "policy", "generation", "vllm_cfg")
        for key in ("async_engine", "expose_http_server"):
            if vllm.get(key) is not True:
                yield f"policy.generation.vllm_cfg.{key}", "warning", "NeMo RL sets it to true for NeMo Gym; write it"


_SPLITS = (("train", "train"), ("val", "validation"))


def _named(entry: Values) -> Values:
    """Whatever was given for a name is text."""
    names = ("dataset_name", "processor", "env_name")
    return {key: str(value) if key in names and value is not None else value for key, value in entry.items()}


def _kin(model: str, tokenizer: str) -> bool:
    """Whether a tokenizer may well be the model's: of a directory, or of the same family of models."""

    def family(name: str) -> str:
        word = re.match(r"[a-z]+", name.rpartition("/")[2].lower())
        return word[0] if word else name

    if "/" in (model[0], tokenizer[0]):
        return True
    return family(model) in tokenizer.lower() or family(tokenizer) in model.lower()


def _inherited(data: Values) -> list[str]:
    """Keys of a parent's data section that change what is trained."""
    train, default = section(data, "train"), section(data, "default")
    keys = [f"train.{key}" for key in ("split_validation_size", "split", "subset") if key in train]
    keys += [f"default.{key}" for key in ("prompt_file", "env_name") if default.get(key)]
    return keys + (["validation"] if data.get("validation") else [])
