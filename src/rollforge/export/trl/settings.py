"""The configuration for `trl sft|dpo|kto|grpo --config` and its launch, made from what the data is like.

Keys and defaults: the dataclasses of TRL 1.16 (trainer/*_config.py, scripts/utils.py). The trl command hands a key that no
dataclass knows to `accelerate launch`, which refuses it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from rollforge.export.launch import script
from rollforge.export.sizing import ceil, checkpointing, in_container, results, room, spare
from rollforge.export.target import Made
from rollforge.export.trl import templates
from rollforge.stats.model_size import billions

TRAINERS = {"sft": "SFT", "sft-prompt-completion": "SFT", "dpo": "DPO", "dpo-implicit": "DPO", "kto": "KTO", "grpo": "GRPO"}

_TOKENS = 16_384
"""Of one pass on one GPU, at most, where the user says nothing."""
_RATES = {"SFT": 2e-5, "DPO": 1e-6, "KTO": 1e-6, "GRPO": 1e-6}
_EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb"}


def files(made: Made) -> Mapping[str, str]:
    """Configuration, script and launcher; for GRPO the reward function, too."""
    trainer = TRAINERS[made.kind]
    found = {f"{made.kind}.yaml": _yaml(made), "train.py": templates.train(made, trainer), "launch.sh": _launch(made)}
    if trainer == "GRPO":
        found["rewards.py"] = templates.rewards()
    return found


def command(made: Made) -> str:
    """One node: as many processes as GPUs. Several: to be run on each node, inside `srun`."""
    settings = made.settings
    processes = settings.all_gpus
    words = ["trl", TRAINERS[made.kind].lower(), "--config", str(made.folder / f"{made.kind}.yaml")]
    if processes > 1:
        words += ["--accelerate_config", _sharding(made)]
    return shlex.join([*words, "--num_processes", str(processes)])


def values(made: Made) -> dict[str, Any]:
    """The configuration as keys and values."""
    return {key: value for key, value, _ in _lines(made)}


def _launch(made: Made) -> str:
    settings = made.settings
    paths = [*(data.path for data in made.data), made.folder / f"{made.kind}.yaml"]
    given = values(made)["report_to"]
    loggers = given if isinstance(given, list) else [given]
    modules = ["trl", "datasets", *(_EXTRAS[name] for name in loggers if name in _EXTRAS)]
    modules += [*(["peft"] if settings.lora else []), *(["deepspeed"] if _sharding(made).startswith("zero") else [])]
    about = f"{TRAINERS[made.kind]} with TRL on {settings.nodes} x {settings.gpus} GPUs"
    # The reward function is imported from the working directory.
    return script(
        command(made),
        settings,
        about=about,
        folder=made.folder,
        release=("trl", "1.16"),
        paths=paths,
        needs=["trl"],
        modules=modules,
        home=str(made.folder),
        slurm=_slurm(made),
        wandb="wandb" in loggers,
    )


def _slurm(made: Made) -> str:
    settings = made.settings
    ranks = (
        '--num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER" --main_process_port 29500'
    )
    srun = " ".join(("srun --ntasks-per-node=1", *in_container(made)))
    inside = f"{srun} bash -c {shlex.quote(f'{command(made)} {ranks}')}"
    master = 'export MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
    size = f"--nodes={settings.nodes} --ntasks-per-node=1 --gpus-per-node={settings.gpus}"
    return f"sbatch --job-name=trl-{made.kind} {size} --wrap {shlex.quote(f'{master}; {inside}')}"


def _yaml(made: Made) -> str:
    head = [f"# TRL 1.16, {TRAINERS[made.kind]}Trainer. Run it: bash launch.sh, or: {command(made)}"]
    head += [f"# {note}" for note in _notes(made)]
    body = []
    for key, value, about in _lines(made):
        text = yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000)
        first, _, rest = text.partition("\n")
        body.append(f"{first}  # {about}\n{rest}" if about else text)
    return "\n".join(head) + "\n" + "".join(body)


def _notes(made: Made) -> Iterator[str]:
    settings = made.settings
    train = made.of("train")
    rows = sum(data.rows for data in train)
    if not rows:
        yield "There are no rows to train on."
    if made.kind == "grpo":
        answered = sum(data.answered for data in train)
        if answered < rows:
            yield f"{rows - answered} of {rows} prompts have no expected answer: rewards.py gives them no reward."
        if any(data.tools for data in made.data):
            yield "The prompts have tools; GRPO reads no tools column: give tools= or environment_factory= in train.py."
        prompts = _prompts_per_step(made)
        if prompts > rows > 0:
            yield f"One step takes {prompts} prompts, there are {rows}: TRL trains no step. Use fewer GPUs."
    if not made.measured:
        yield "Lengths are estimated, not counted (4 bytes a token): give a tokenizer to have them counted."
    size = billions(settings.model)
    if size and size >= 7 and settings.all_gpus == 1 and not settings.lora:
        yield f"{size:g}B parameters need about {16 * size:.0f} GB with Adam in full: use LoRA, or more GPUs."


def _lines(made: Made) -> Iterator[tuple[str, Any, str]]:
    """(key, value, what to know about it), the user's own last."""
    found = {key: (value, about) for key, value, about in _known(made)}
    for name, value in made.settings.set.items():
        key, *inner = name.split(".")
        old = found.get(key, (None, ""))[0]
        found[key] = (_put(old, inner, value), "as given")
    for key, (value, about) in found.items():
        yield key, value, about


def _put(old: Any, keys: list[str], value: Any) -> Any:
    if not keys:
        return {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    base = dict(old) if isinstance(old, dict) else {}
    base[keys[0]] = _put(base.get(keys[0]), keys[1:], value)
    return base


def _known(made: Made) -> Iterator[tuple[str, Any, str]]:
    settings, trainer = made.settings, TRAINERS[made.kind]
    yield "model_name_or_path", settings.model, ""
    yield from _data(made)
    if trainer == "GRPO":
        yield "reward_funcs", ["rewards.correct"], "rewards.py beside this file; add others, also dotted paths of your own"
        yield from _grpo(made)
    else:
        yield "max_length", max_length(made), "tokens of prompt and answer; TRL cuts what is longer without a word"
        yield from _batches(made)
    if trainer == "KTO":
        yield from _weights(made)
    if made.kind == "sft":
        yield (
            "assistant_only_loss",
            False,
            "true: learn the assistant's turns only (the chat template needs generation marks)",
        )
    yield "num_train_epochs", settings.epochs or (3 if trainer == "SFT" else 1), ""
    rate = settings.learning_rate or _RATES[trainer] * (10 if settings.lora else 1)
    yield (
        "learning_rate",
        rate,
        "" if settings.learning_rate else f"TRL's default{', tenfold for LoRA' if settings.lora else ''}",
    )
    yield "gradient_checkpointing", checkpointing(settings), ""
    if settings.lora:
        yield "use_peft", True, ""
        yield "lora_r", settings.lora, ""
        yield "lora_alpha", 2 * settings.lora, ""
        yield "lora_target_modules", ["all-linear"], ""
    if made.of("validation"):
        yield "eval_strategy", "epoch", ""
    else:
        yield "eval_strategy", "no", "there is no validation set"
    yield "save_strategy", "epoch", ""
    yield "output_dir", str(results(made)), ""
    yield "logging_steps", 1 if trainer == "GRPO" else 10, ""
    yield "report_to", settings.logger, ""
    yield "run_name", made.folder.name, ""


def _data(made: Made) -> Iterator[tuple[str, Any, str]]:
    train, validation = made.of("train"), made.of("validation")
    both = [*train, *validation]
    # The trl command reads a second split only from a folder of files that are named after their splits.
    if validation and all(data.path == made.folder / f"{data.split}{data.path.suffix}" for data in both):
        yield "dataset_name", str(made.folder), "train and validation files in it"
        yield "dataset_train_split", "train", ""
        yield "dataset_test_split", "validation", ""
        return
    yield "datasets", [{"path": "json", "data_files": str(data.path)} for data in train], ""


def _batches(made: Made) -> Iterator[tuple[str, Any, str]]:
    settings = made.settings
    processes = settings.all_gpus
    rows = max(1, sum(data.rows for data in made.of("train")))
    batch = min(settings.batch_size or 8 * max(4, processes), rows)
    least = 2 if made.kind == "kto" else 1
    fitting = settings.micro_batch_size or min(8, _TOKENS // max_length(made))
    micro = max(least, min(fitting, batch // processes))
    steps = max(1, batch // (micro * processes))
    about = "TRL refuses 1: KTO compares the rows of one pass" if made.kind == "kto" else ""
    yield "per_device_train_batch_size", micro, about
    yield "gradient_accumulation_steps", steps, f"{micro * steps * processes} rows a step"
    if made.of("validation"):
        yield "per_device_eval_batch_size", micro, ""


def _weights(made: Made) -> Iterator[tuple[str, Any, str]]:
    """The rarer label weighs as much as the other; KTOTrainer warns from 4:3 on."""
    good = sum(data.desirable for data in made.of("train"))
    bad = sum(data.rows for data in made.of("train")) - good
    if good and bad and good != bad:
        rarer = "desirable" if good < bad else "undesirable"
        yield f"{rarer}_weight", round(max(good, bad) / min(good, bad), 2), f"{good:,} rows are desirable, {bad:,} are not"


def _grpo(made: Made) -> Iterator[tuple[str, Any, str]]:
    settings = made.settings
    processes = settings.all_gpus
    generations, micro, steps = _group(made)
    yield "num_generations", generations, "attempts at each prompt"
    yield "max_completion_length", max_completion_length(made), "tokens, all turns together"
    yield "per_device_train_batch_size", micro, ""
    yield "gradient_accumulation_steps", steps, f"{micro * steps * processes // generations} prompts a step"
    yield "temperature", 1.0, ""
    yield "beta", 0.0, "weight of the KL term; 0 loads no reference model"
    if made.of("validation"):
        whole = math.lcm(generations, processes) // processes
        yield "per_device_eval_batch_size", whole, "times processes, a multiple of num_generations"
    yield "use_vllm", False, "true: much faster; needs vLLM (pip install trl[vllm])"
    yield "log_completions", True, ""


def _group(made: Made) -> tuple[int, int, int]:
    """(attempts per prompt, completions per pass and GPU, passes): together a whole number of prompts, as TRL demands."""
    settings = made.settings
    processes = settings.all_gpus
    generations = settings.generations or 8
    rows = max(1, sum(data.rows for data in made.of("train")))
    unit = math.lcm(generations, processes)  # completions that are whole groups, evenly spread
    wanted = generations * min(settings.batch_size or 16, rows)
    per_process = max(1, wanted // unit) * unit // processes
    fitting = settings.micro_batch_size or max(1, min(8, _TOKENS // max(1, _longest(made))))
    micro = max(size for size in range(1, min(fitting, per_process) + 1) if per_process % size == 0)
    return generations, micro, per_process // micro


def _prompts_per_step(made: Made) -> int:
    generations, micro, steps = _group(made)
    return micro * steps * made.settings.all_gpus // generations


def max_length(made: Made) -> int:
    return made.settings.max_length or _up(made, _longest(made))


def max_completion_length(made: Made) -> int:
    prompt = max((data.longest_prompt for data in made.data), default=0)
    if made.settings.max_length:
        return room(made.settings.max_length, prompt)
    return max(256, _up(made, _longest(made) - prompt))


def _longest(made: Made) -> int:
    return max((data.longest for data in made.data), default=0)


def _up(made: Made, tokens: int) -> int:
    """Room for the chat template's own tokens, and for an estimate that was too low."""
    return ceil(spare(made) * tokens + 64, 64)


def _sharding(made: Made) -> str:
    """One of the configurations in trl/accelerate_configs: a copy on each GPU, or one spread over them."""
    settings = made.settings
    size = billions(settings.model)
    if settings.all_gpus == 1:
        return "single_gpu"
    return "zero3" if size is not None and size >= 3 and not settings.lora else "multi_gpu"
