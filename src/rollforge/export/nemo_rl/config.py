"""Configuration, command and launch script for NeMo RL, in the shape of the named version.

Sources: `nemo_rl/utils/config.py` (inheritance), `examples/configs/{grpo_math_1B,sft,dpo}.yaml` (the parents), the set-up of
`nemo_rl/algorithms/{grpo,sft,dpo}.py` (what must divide what), at v0.4.0 to v0.7.0 and August 2026. Up to 0.5 `data` is flat
and holds one data set; from 0.6 on it has `train`, `validation` and `default`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rollforge.config import merge
from rollforge.errors import UserError
from rollforge.export import launch
from rollforge.export.sizing import billions, ceil, checkpointing, mounts, release, results, room, spare, train_data
from rollforge.export.target import Data, Made, Settings

VERSIONS = ("main", "0.7", "0.6", "0.5", "0.4")
"""Newest first; main: the repository in August 2026."""
FLAT = ("0.5", "0.4")
HOME = "NEMO_RL_HOME"

ALGORITHM = {"grpo": "grpo", "nemo-gym": "grpo", "sft": "sft", "sft-simple": "sft", "dpo": "dpo", "dpo-messages": "dpo"}
PARENT = {"grpo": "grpo_math_1B", "sft": "sft", "dpo": "dpo"}

Values = dict[str, Any]


def version_of(settings: Settings) -> str:
    """One of `VERSIONS`; `0.6.1` and `v0.6` are 0.6."""
    return release(settings.version, VERSIONS)


def apart(settings: Settings) -> bool:
    """Whether each environment has a file of its own: up to 0.5 there is one entry, and `datasets` reads files of one
    entry by the columns of the first."""
    return version_of(settings) not in FLAT


def files(made: Made) -> Mapping[str, str]:
    """`<kind>.yaml` and `launch.sh`. Raises `UserError` for what the version does not have."""
    notes: list[str] = []
    values = config(made, notes)
    return {f"{made.kind}.yaml": _head(made, notes) + _dump(values), "launch.sh": _launch(made, values)}


def sections(kind: str) -> tuple[str, ...]:
    """Of the configuration, its parents' too."""
    algorithm = ALGORITHM[kind]
    more = ("env", "loss_fn", "async_grpo", "reward_model", "ray", "fault_tolerance") if algorithm == "grpo" else ()
    return ("defaults", algorithm, "policy", "data", "checkpointing", "logger", "cluster", *more)


def command(made: Made) -> str:
    """Run from NeMo RL's own directory; on Slurm this is what `ray.sub` is given."""
    settings = made.settings
    words = ["uv", "run", "python", _script(made.kind, version_of(settings)), "--config", str(_yaml(made))]
    if settings.gpus > 1:
        words.append(f"cluster.gpus_per_node={settings.gpus}")
    if settings.nodes > 1:
        words.append(f"cluster.num_nodes={settings.nodes}")
    return shlex.join(words)


def config(made: Made, notes: list[str]) -> Values:
    """The configuration as it is written; what a reader must know goes to `notes`."""
    settings, version = made.settings, version_of(made.settings)
    algorithm = ALGORITHM[made.kind]
    home = _home(settings)
    # NeMo RL resolves this one interpolation before it looks for the parent; unset, it names the missing variable.
    root = home or f"${{oc.env:{HOME}}}"
    values: Values = {"defaults": f"{root}/examples/configs/{PARENT[algorithm]}.yaml"}
    if not home:
        notes.append(f"{HOME} must name the directory of the NeMo RL checkout: export {HOME}=/path/to/RL")
    steps = _batches(made, values, notes)
    length = _length(made, notes)
    values["policy"] = merge(
        {
            "model_name": settings.model,
            # The parents of SFT and DPO name tokenizers of other models, SFT's a template without tools.
            "tokenizer": {"name": "${policy.model_name}", "chat_template": "default"},
            "max_total_sequence_length": length,
            "dtensor_cfg": {"activation_checkpointing": checkpointing(settings)},
        },
        values["policy"],
    )
    if settings.learning_rate is not None:
        values["policy"]["optimizer"] = {"kwargs": {"lr": settings.learning_rate}}
    if settings.lora is not None:
        _lora(made, values, notes)
    if algorithm == "grpo":
        _generation(made, values)
    values["data"] = _flat(made, version, notes) if version in FLAT else _today(made, version, notes)
    _validation(made, values, steps, version)
    _surroundings(made, values)
    for key, value in settings.set.items():
        values = merge(values, _nested(key, value))
    return values


# Batches and lengths


def _batches(made: Made, values: Values, notes: list[str]) -> int:
    """Training steps. Incomplete batches are dropped (`drop_last`), so a batch larger than the data means no step at all."""
    settings, algorithm = made.settings, ALGORITHM[made.kind]
    ranks = settings.all_gpus
    rows = sum(data.rows for data in train_data(made))
    epochs = settings.epochs or 1
    if algorithm == "grpo":
        attempts = settings.generations or 16
        prompts = max(1, min(settings.batch_size or 32, rows))
        even = next((number for number in range(prompts, 0, -1) if number * attempts % ranks == 0), prompts)
        share = max(1, even * attempts // ranks)
        micro = next(number for number in range(min(settings.micro_batch_size or 4, share), 0, -1) if share % number == 0)
        values["grpo"] = {
            "num_prompts_per_step": even,
            "num_generations_per_prompt": attempts,
            "max_rollout_turns": 1,
            "max_num_epochs": epochs,
        }
        # Up to 0.5 the parent's logprob_batch_size is 4, whatever the share.
        values["policy"] = {
            "train_global_batch_size": even * attempts,
            "train_micro_batch_size": micro,
            "logprob_batch_size": "${policy.train_micro_batch_size}",
        }
        if even * attempts % ranks:
            notes.append(f"PROBLEM: {even} prompts x {attempts} attempts cannot be shared by {ranks} GPUs: use fewer GPUs")
        return max(1, rows // even) * epochs
    micro = settings.micro_batch_size or (2 if algorithm == "dpo" else 1)
    if ranks * micro > rows:
        micro = 1
    wanted = min(settings.batch_size or (128 if algorithm == "dpo" else 32), rows)
    batch = max(ranks * micro, wanted - wanted % (ranks * micro))
    if batch > rows:
        notes.append(f"PROBLEM: {rows} rows are fewer than {ranks} GPUs: no step would be made; use fewer GPUs or more rows")
    steps = max(1, rows // batch) * epochs
    # The parents stop after 60 (SFT) or 150 (DPO) steps, however many rows there are.
    values[algorithm] = {"max_num_epochs": epochs, "max_num_steps": steps}
    values["policy"] = {"train_global_batch_size": batch, "train_micro_batch_size": micro}
    return steps


def _length(made: Made, notes: list[str]) -> int:
    """Tokens of prompt and answer, with room for the template and, where a policy answers anew, for longer answers."""
    longest = max((data.longest for data in made.data), default=0)
    prompt = max((data.longest_prompt for data in made.data), default=0)
    anew = ALGORITHM[made.kind] == "grpo"
    if anew and made.settings.max_length:
        room(made.settings.max_length, prompt)
    # Twice as long as any was; where that is long already, vLLM would refuse what is beyond the model's own length.
    answer = max(512, min(2 * (longest - prompt), max(longest - prompt, _LONG)))
    needed = prompt + answer if anew else longest
    # NeMo RL masks rows that reach the limit.
    length = made.settings.max_length or max(512, ceil(spare(made) * needed + 32, 128))
    counted = "measured" if made.measured else "estimated at 4 bytes each"
    notes.append(f"longest prompt {prompt} tokens, with its answer {longest} ({counted})")
    if length <= longest:
        notes.append(f"rows of {length} tokens and more are masked: they train nothing (NeMo RL does not say so)")
    return length


_LONG = 8192
"""Tokens of an answer."""


# Data


def _today(made: Made, version: str, notes: list[str]) -> Values:
    """`data` from 0.6 on. `_override_` drops the parent's section: its split, prompt file and environment would stay."""
    kind = made.kind
    data: Values = {
        "_override_": True,
        "max_input_seq_length": None if kind == "nemo-gym" else "${policy.max_total_sequence_length}",
    }
    if ALGORITHM[kind] == "sft":
        data |= {"add_bos": True, "add_eos": True, "add_generation_prompt": False}
    data |= {"shuffle": True, "num_workers": 0 if kind == "nemo-gym" else 1}
    if ALGORITHM[kind] == "grpo":
        data["use_multiple_dataloader"] = False
    entries = {split: [_entry(kind, part) for part in made.of(split)] for split in ("train", "validation")}
    if kind == "sft" and version == "0.6":
        _not_kept(made, [entry for found in entries.values() for entry in found], notes)
    for split, found in entries.items():
        data[split] = found if len(found) > 1 else found[0] if found else None
    if ALGORITHM[kind] != "dpo":
        nothing = {"prompt_file": None, "system_prompt_file": None}
        data["default"] = {"dataset_name": _DATASET[kind], **nothing, "processor": _PROCESSOR[kind]}
        if ALGORITHM[kind] == "grpo":
            data["default"]["env_name"] = "math" if kind == "grpo" else "nemo_gym"
    return data


def _entry(kind: str, data: Data) -> Values:
    entry: Values = {"dataset_name": _DATASET[kind], "data_path": str(data.path), **_KEYS[kind]}
    if kind in _PROCESSOR:
        entry["processor"] = _PROCESSOR[kind]
    if ALGORITHM[kind] == "grpo":
        entry["env_name"] = "math" if kind == "grpo" else "nemo_gym"
    return entry


def _not_kept(made: Made, entries: list[Values], notes: list[str]) -> None:
    """0.6 cannot train on data kept as they are: without tools they need not be."""
    if any(data.tools for data in made.data):
        notes.append(f"PROBLEM: {NOT_JOINED}")
    else:
        for entry in entries:
            entry["use_preserving_dataset"] = False


NOT_JOINED = (
    "run_sft.py of NeMo RL 0.6.0 fails on use_preserving_dataset: true (ValueError in concatenate_datasets), and false "
    "fills calls of tools with nulls: take 0.7, or its fix (pull request 2515 of NeMo RL)"
)


def _flat(made: Made, version: str, notes: list[str]) -> Values:
    """`data` up to 0.5: keys beside the parent's, since `_override_` is not known there."""
    kind = made.kind
    train, validation = (next((str(data.path) for data in made.of(split)), None) for split in ("train", "validation"))
    if kind == "nemo-gym":
        if version == "0.4":
            raise UserError("NeMo RL 0.4 does not train with NeMo Gym; name version 0.5 or later, or use nemo-rl:grpo")
        paths = {"train_jsonl_fpath": train, "validation_jsonl_fpath": validation or train}
        if not validation:
            notes.append("NeMo RL 0.5 wants validation data: the training file stands there, and validation is off")
        return {"dataset_name": None, **paths, "max_input_seq_length": None, "shuffle": True, "num_workers": 0}
    if ALGORITHM[kind] == "sft" and not validation:
        # run_sft.py counts the validation rows before it asks whether there are any.
        validation = train
        notes.append(
            f"NeMo RL {version} wants validation data for SFT: the training file stands there, and validation is off"
        )
    data: Values = {
        "max_input_seq_length": "${policy.max_total_sequence_length}",
        "dataset_name": _DATASET[kind],
        "train_data_path": train,
        "val_data_path": validation,
        **_KEYS[kind],
        "shuffle": True,
        "num_workers": 1,
    }
    if kind == "dpo-messages" and validation is None:
        del data["val_data_path"]
    if ALGORITHM[kind] == "sft":
        data |= {"add_bos": True, "add_eos": True, "add_generation_prompt": False}
        if kind == "sft":
            data |= {"system_key": None, "system_prompt": None}  # read without a default
    if kind == "grpo":
        data |= {"prompt_file": None, "system_prompt_file": None}
        if version == "0.5":
            data |= {"env_name": "math", "processor": "math_hf_data_processor"}
    return data


_DATASET = {
    "grpo": "ResponseDataset",
    "nemo-gym": "NemoGymDataset",
    "sft": "openai_format",
    "sft-simple": "ResponseDataset",
    "dpo": "BinaryPreferenceDataset",
    "dpo-messages": "PreferenceDataset",
}
_PROCESSOR = {
    "grpo": "math_hf_data_processor",
    "nemo-gym": "nemo_gym_data_processor",
    "sft": "sft_processor",
    "sft-simple": "sft_processor",
}
_TEXT = {"input_key": "input", "output_key": "output"}
_KEYS: dict[str, Values] = {
    "grpo": _TEXT,
    "nemo-gym": {},
    "sft": {"chat_key": "messages", "tool_key": "tools", "use_preserving_dataset": True},
    "sft-simple": _TEXT,
    "dpo": {"prompt_key": "prompt", "chosen_key": "chosen", "rejected_key": "rejected"},
    "dpo-messages": {},
}


# Everything else


def _validation(made: Made, values: Values, steps: int, version: str) -> None:
    """Validation and the metric that checkpoints are chosen by; without data both must be off, or the run ends in errors."""
    algorithm, kind = ALGORITHM[made.kind], made.kind
    section = values[algorithm]
    rows = sum(data.rows for data in made.of("validation"))
    period = max(1, min(steps, 25 if algorithm == "dpo" else 10))
    section |= {"val_period": period if rows else 0, "val_at_start": False}
    if version not in FLAT:
        section["val_at_end"] = bool(rows)
    if kind == "nemo-gym":
        section |= {"max_val_samples": None, "val_batch_size": None}  # another value is refused
    elif algorithm == "grpo":
        section |= {"max_val_samples": min(rows, 256) or 256, "val_batch_size": min(rows, 256) or 256}
    elif rows:
        ranks = made.settings.all_gpus
        most = min(8, rows)
        section |= {"val_global_batch_size": max(ranks, most - most % ranks), "val_micro_batch_size": 1}
    metric = {"grpo": "val:accuracy", "sft": "val:val_loss", "dpo": "val:validation-default_loss"}[algorithm]
    values["checkpointing"] = {
        "enabled": True,
        "checkpoint_dir": str(results(made)),
        "metric_name": metric if rows else None,
        "higher_is_better": algorithm == "grpo",
        "save_period": period if rows else max(1, min(steps, 50)),
    }


def _generation(made: Made, values: Values) -> None:
    settings = made.settings
    vllm: Values = {}
    if billions(settings.model) >= 30 and settings.gpus > 1:
        vllm["tensor_parallel_size"] = next(number for number in (4, 2, 1) if settings.gpus % number == 0)
    if made.kind == "nemo-gym":
        vllm |= {"async_engine": True, "expose_http_server": True, "skip_tokenizer_init": False}
        if any(data.tools for data in made.data):
            vllm["http_server_serving_chat_kwargs"] = {"enable_auto_tools": True, "tool_parser": _parser(settings.model)}
        known = "responses_api_models/vllm_model/configs/vllm_model_for_training.yaml"
        envs = {re.sub(r"(_simple)?_agent$", "", env) for data in made.data for env in data.envs if env}
        paths = [known, *(f"resources_servers/{name}/configs/{name}.yaml" for name in sorted(envs) or ["ENVIRONMENT"])]
        gym = {"should_use_nemo_gym": True, "should_log_nemo_gym_responses": True, "nemo_gym": {"config_paths": paths}}
        values["env"] = gym if version_of(settings) in FLAT else {"_override_": True, **gym}
    else:
        values["env"] = {"math": {"num_workers": 8, "math_verify_impl": "hf_math_verify"}}
    if vllm:
        values["policy"]["generation"] = {"vllm_cfg": vllm}


def _parser(model: str) -> str:
    """vLLM's tool call parser for the model's family."""
    name = model.lower()
    families = (
        ("nemotron", "nemotron_json"),
        ("llama-3", "llama3_json"),
        ("mistral", "mistral"),
        ("deepseek", "deepseek_v3"),
    )
    return next((parser for family, parser in families if family in name), "hermes")


NO_LORA = "has no LoRA for"


def _lora(made: Made, values: Values, notes: list[str]) -> None:
    version, rank = version_of(made.settings), made.settings.lora
    if version == "0.4" or (version == "0.5" and ALGORITHM[made.kind] != "sft"):
        first = "0.5" if ALGORITHM[made.kind] == "sft" else "0.6"
        notes.append(f"PROBLEM: NeMo RL {version} {NO_LORA} {made.kind}: all weights are trained ({first} has it)")
        return
    # Only the second DTensor worker knows LoRA; dpo.yaml does not choose it.
    lora = {"enabled": True, "dim": rank, "alpha": 2 * (rank or 0), "match_all_linear": True}
    values["policy"]["dtensor_cfg"] |= {"_v2": True, "lora_cfg": lora}


def _surroundings(made: Made, values: Values) -> None:
    settings = made.settings
    name = f"nemo-rl-{made.kind}"
    # sft.yaml makes these names of data.train.dataset_name, which a list of data sets does not have.
    run = {"project": "rollforge", "name": name}
    values["logger"] = {
        "log_dir": str(made.folder / "logs"),
        "wandb_enabled": settings.logger == "wandb",
        "tensorboard_enabled": settings.logger == "tensorboard",
        "mlflow_enabled": False,
        "swanlab_enabled": False,
        "wandb": run,
        "swanlab": run,
        "mlflow": {"experiment_name": "rollforge", "run_name": name},
    }
    if ALGORITHM[made.kind] != "grpo":
        values["logger"]["tensorboard"] = {"log_dir": name}
    values["cluster"] = {"gpus_per_node": settings.gpus, "num_nodes": settings.nodes}


def _script(kind: str, version: str) -> str:
    if kind == "nemo-gym":
        return "examples/nemo_gym/run_grpo_nemo_gym.py"
    return "examples/run_grpo_math.py" if (kind, version) == ("grpo", "0.4") else f"examples/run_{ALGORITHM[kind]}.py"


def _home(settings: Settings) -> str | None:
    return str(Path(settings.home).expanduser().absolute()) if settings.home else None


def _yaml(made: Made) -> Path:
    return made.folder / f"{made.kind}.yaml"


def _launch(made: Made, values: Values) -> str:
    settings, run = made.settings, command(made)
    home = _home(settings)
    needed = [_script(made.kind, version_of(settings)), f"examples/configs/{PARENT[ALGORITHM[made.kind]]}.yaml"]
    needed += ["ray.sub"] if settings.nodes > 1 else []
    paths = [_yaml(made), *(data.path for data in made.data), *(Path(home) / name for name in needed if home)]
    go = "" if home else f'cd "${{{HOME}:?the directory of the NeMo RL checkout}}"\n'
    checkout = shlex.quote(home) if home else f'"${{{HOME}:-}}"'
    installed = f"sed -n 's/^M[AI][JN]OR = //p' {checkout}/nemo_rl/package_info.py | paste -sd ."
    if version_of(settings) == "main":
        installed += " | grep -v -F 0.6"  # so it calls itself
    return launch.script(
        go + run,
        settings,
        about=f"Train {settings.model} with NeMo RL {version_of(settings)}: {made.kind}.yaml",
        folder=made.folder,
        release=("nemo-rl", version_of(settings)),
        paths=paths,
        needs=[] if settings.nodes > 1 else ["uv"],
        within=None if home else (HOME, needed),
        home=home,
        installed=installed,
        slurm=go + _slurm(made) if settings.nodes > 1 else None,
        variables=[*([] if home else [HOME]), *(["CONTAINER"] if settings.nodes > 1 and not settings.container else [])],
        wandb=isinstance(logger := values["logger"], dict) and bool(logger.get("wandb_enabled")),
    )


def _slurm(made: Made) -> str:
    settings = made.settings
    container = shlex.quote(settings.container) if settings.container else '"${CONTAINER:?the image to run in}"'
    # ray.sub takes nodes of eight GPUs for granted.
    return (
        f"GPUS_PER_NODE={settings.gpus} COMMAND={shlex.quote(command(made))} CONTAINER={container} \\\n"
        f'  MOUNTS="$PWD:$PWD,"{shlex.quote(mounts(made))} \\\n'
        f"  sbatch --nodes={settings.nodes} --gres=gpu:{settings.gpus} ray.sub"
    )


def _head(made: Made, notes: list[str]) -> str:
    lines = [
        f"NeMo RL {version_of(made.settings)}, {made.kind}. Run it from the NeMo RL checkout (launch.sh does):",
        f"  {command(made)}",
        *(notes),
        *_ADVICE.get(made.kind, ()),
        "GPUs: 1-3B models 1 of 24 GB; 7-8B 1-2 of 40-80 GB; 32B and more 4-8 of 80 GB on several nodes.",
        "Out of memory: policy.train_micro_batch_size down, policy.dtensor_cfg.activation_checkpointing: true.",
    ]
    return "".join(f"# {line}\n" for line in lines)


_ADVICE = {
    "grpo": (
        "`output` of each row is the expected answer, which math-verify compares with the policy's answer.",
        "No prompt file: prompts stay as they were. All rewards 0? Compare `output` with what the policy writes.",
    ),
    "nemo-gym": (
        "env.nemo_gym.config_paths: the gym's own files (guessed from the environments' names), relative to the gym's root.",
        "Agents named in the rows must be defined there; rows that named none got <environment>_simple_agent.",
        "policy.generation.vllm_cfg.http_server_serving_chat_kwargs.tool_parser depends on the model.",
    ),
    "sft": (
        "All assistant turns are trained; sft.only_unmask_final: true (from 0.7 on) trains the last one only.",
        "Several tasks are one file and one entry here: SFT treats them alike.",
    ),
}


def _nested(key: str, value: Any) -> Values:
    for part in reversed(key.split(".")):
        value = {part: value}
    nested: Values = value
    return nested


def _dump(values: Values) -> str:
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """No anchors for values that occur twice; nulls by name."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
