"""What belongs to data for OpenRLHF: the command with its flags (flat to 0.10.1, then dotted), reward function, reward
server, agent function."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.export.launch import script
from rollforge.export.openrlhf.flags import DOTTED, FLAT, flat
from rollforge.export.pieces import assemble
from rollforge.export.sizing import (
    attempts_at,
    batch,
    billions,
    checkpointing,
    lengths,
    parallel,
    ray_job,
    release,
    results,
    torch_job,
    train_data,
    whole_length,
)
from rollforge.export.target import Data, Made

VERSIONS = ("0.11", "0.10", "0.9")
HERE = Path(__file__).parent
REWARD, SERVER, AGENT, JOB = "reward_func.py", "reward_server.py", "agent_func.py", "job.sh"
SCRIPTS = {"grpo": "train_ppo_ray", "sft": "train_sft", "sft-simple": "train_sft", "dpo": "train_dpo"}


def number(version: str | None) -> tuple[int, int, int]:
    """`0.9.7` as numbers; a minor release alone (`0.10`) stands for its newest, which is what pip installs for it."""
    minor = release(version, VERSIONS)
    patch = re.fullmatch(r"v?\d+\.\d+\.(\d+).*", version or "")
    return 0, int(minor.partition(".")[2]), int(patch[1]) if patch else _NEWEST[minor]


def dotted(version: str | None) -> bool:
    """Whether a version's flags are dotted: from 0.10.2 on."""
    return number(version) >= (0, 10, 2)


_NEWEST = {"0.11": 2, "0.10": 4, "0.9": 10}


def files(made: Made) -> Mapping[str, str]:
    found: dict[str, str] = {}
    if made.kind == "grpo":
        pieces = ("matcher", "episode", HERE / "judge.py.txt")
        found[REWARD] = assemble(_REWARD, *pieces, HERE / "reward_func.py.txt")
        found[SERVER] = assemble(_SERVER, *pieces, HERE / "reward_server.py.txt")
        found[AGENT] = assemble(_AGENT, *pieces, HERE / "agent_func.py.txt")
    settings = made.settings
    version = release(settings.version, VERSIONS)
    flags = version if version == VERSIONS[0] else ".".join(map(str, number(settings.version)))
    about, job = f"OpenRLHF {version}: {_WHAT[made.kind]}", None
    if settings.nodes > 1:
        make_job = ray_job if made.kind == "grpo" else torch_job
        found[JOB] = make_job(made, command(made), about)
        job = f"sbatch {shlex.quote(str(made.folder / JOB))}"
    found["launch.sh"] = script(
        command(made),
        settings,
        about=about,
        folder=made.folder,
        release=("openrlhf", flags),
        paths=[*(one.path for one in made.data), *(made.folder / name for name in found)],
        needs=[] if job or made.kind == "grpo" else ["deepspeed"],
        modules=["openrlhf"],
        variables=["GYM_URL"] if made.kind == "grpo" and made.played else [],
        slurm=job,
        wandb=_values(made).get("logger.wandb.key") is True,
    )
    return found


def sections(kind: str) -> set[str]:
    """Groups of the dotted flags, and the flat flags."""
    script = SCRIPTS[kind]
    return {flag.partition(".")[0] for flag in (*DOTTED[script], *FLAT[script])}


def command(made: Made) -> str:
    settings = made.settings
    old = not dotted(settings.version)
    values = _values(made)
    lines = []
    for flag, value in values.items():
        if value is None or value is False:
            continue
        name = f"--{flat(flag) if old else flag}"
        # The key is not written down: the shell puts it in.
        key = '"$WANDB_API_KEY"' if flag == "logger.wandb.key" and value is True else None
        lines.append(name if value is True and key is None else f"{name} {key or words(value)}")
    module = f"openrlhf.cli.{SCRIPTS[made.kind]}"
    if made.kind == "grpo":
        start = f"python3 -m {module}"
    elif settings.nodes > 1:
        rendezvous = "--rdzv-backend=c10d --rdzv-endpoint=$head:29500"
        start = f"torchrun --nnodes={settings.nodes} --nproc-per-node={settings.gpus} {rendezvous} -m {module}"
    else:
        start = f"deepspeed --num_gpus {settings.gpus} --module {module}"
    return " \\\n  ".join([start, *lines])


def _values(made: Made) -> dict[str, Any]:
    return {"grpo": grpo, "dpo": dpo}.get(made.kind, sft)(made) | made.settings.set


def words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(words(one) for one in value)
    return shlex.quote(str(value))


def sft(made: Made) -> dict[str, Any]:
    """Flags of `openrlhf.cli.train_sft`."""
    settings = made.settings
    simple = made.kind == "sft-simple"
    return {
        "model.model_name_or_path": settings.model,
        "data.dataset": _files(train_data(made)),
        "eval.dataset": _files(made.of("validation")),
        "data.input_key": "input" if simple else "messages",
        "data.output_key": "output" if simple else None,
        "data.apply_chat_template": True,
        "data.multiturn": not simple,
        "data.max_len": whole_length(made),
        **_batches(made),
        "train.max_epochs": settings.epochs or 3,
        "adam.lr": settings.learning_rate or (1e-4 if settings.lora else 5e-6),
        **_common(made, "model"),
    }


def dpo(made: Made) -> dict[str, Any]:
    """Flags of `openrlhf.cli.train_dpo`."""
    settings = made.settings
    return {
        "model.model_name_or_path": settings.model,
        "data.dataset": _files(train_data(made)),
        "eval.dataset": _files(made.of("validation")),
        "eval.split": "train" if made.of("validation") else None,  # by default the split named test, which no file has
        "data.prompt_key": "prompt",
        "data.chosen_key": "chosen",
        "data.rejected_key": "rejected",
        "data.apply_chat_template": True,
        "data.max_len": whole_length(made),
        **_batches(made),
        "train.max_epochs": settings.epochs or 1,
        "adam.lr": settings.learning_rate or (5e-6 if settings.lora else 5e-7),
        "model.beta": 0.1,
        **_common(made, "model"),
    }


def grpo(made: Made) -> dict[str, Any]:
    """Flags of `openrlhf.cli.train_ppo_ray` for GRPO, everything on the same GPUs."""
    settings, train = made.settings, train_data(made)
    gpus = settings.all_gpus
    attempts = attempts_at(settings)
    if made.with_tools and number(settings.version) < (0, 9, 1):
        raise UserError(
            "OpenRLHF 0.9.0 has no MultiTurnAgentExecutor, which plays tasks with tools: use a newer one "
            "(--target-version openrlhf=0.9.10)"
        )
    micro = settings.micro_batch_size or 1
    prompts = batch(settings.batch_size or 128, sum(one.rows for one in train), gpus, attempts=attempts, micro=micro)
    samples = prompts * attempts
    each = parallel(settings)
    validation = _files(made.of("validation"))
    return {
        "actor.model_name_or_path": settings.model,
        "data.prompt_dataset": _files(train),
        "data.input_key": "prompt",
        "data.label_key": "label",
        "data.apply_chat_template": True,
        **_room(made),
        "eval.dataset": validation,
        "eval.steps": 10 if validation else None,
        "train.agent_func_path": str(made.folder / AGENT) if made.with_tools else None,
        "reward.remote_url": None if made.with_tools else str(made.folder / REWARD),
        "algo.advantage.estimator": "group_norm",
        "algo.kl.use_loss": True,
        "algo.kl.estimator": "k3",
        "algo.kl.init_coef": 0.001,
        "rollout.n_samples_per_prompt": attempts,
        "rollout.batch_size": prompts,
        "rollout.micro_batch_size": micro,
        "train.batch_size": _steps(samples, micro * gpus),
        "train.micro_batch_size": micro,
        "train.num_episodes": settings.epochs or 15,
        "actor.adam.lr": settings.learning_rate or (1e-5 if settings.lora else 1e-6),
        "actor.num_nodes": settings.nodes,
        "actor.num_gpus_per_node": settings.gpus,
        "ref.num_nodes": settings.nodes,
        "ref.num_gpus_per_node": settings.gpus,
        "vllm.num_engines": gpus // each,
        "vllm.tensor_parallel_size": each,
        "vllm.gpu_memory_utilization": 0.5,
        "vllm.enable_sleep": True,
        "vllm.sync_backend": "nccl",
        "ds.enable_sleep": True,
        "train.colocate_all": True,
        **_common(made, "actor"),
    }


def _room(made: Made) -> dict[str, Any]:
    """Tokens of prompt and answer. With tools an answer of several turns takes what room there is."""
    prompt, answer = lengths(made)
    mine = number(made.settings.version)
    if mine < (0, 9, 8):
        return {"prompt_max_len": prompt, "generate_max_len": answer}
    # The agents of 0.9.8 to 0.10.1 subtract the limit of an answer from that of all, also where it is None.
    turns = made.with_tools and mine >= (0, 10, 2)
    return {"data.max_len": prompt + answer, "rollout.max_new_tokens": None if turns else answer}


def _batches(made: Made) -> dict[str, Any]:
    settings = made.settings
    gpus = settings.all_gpus
    rows = sum(one.rows for one in train_data(made))
    least = settings.micro_batch_size or 1
    size = batch(settings.batch_size or max(64, gpus * least), rows, gpus, micro=least)
    micro = settings.micro_batch_size or max(one for one in (1, 2, 4) if size % (gpus * one) == 0)
    return {"train.batch_size": size, "train.micro_batch_size": micro}


def _common(made: Made, model: str) -> dict[str, Any]:
    settings = made.settings
    place = results(made)
    values: dict[str, Any] = {
        "ds.zero_stage": 3 if billions(settings.model) >= 7 or made.kind == "grpo" else 2,
        **({"ds.param_dtype": "bf16"} if number(settings.version) >= (0, 9, 2) else {"bf16": True}),
        f"{model}.gradient_checkpointing_enable": checkpointing(settings),
        "ckpt.output_dir": str(place),
        "ckpt.path": str(place / "checkpoints"),
        "ckpt.save_steps": -1,
        "logger.logging_steps": 1,
    }
    if billions(settings.model) * 16 / settings.all_gpus > 60:  # bytes per parameter, in GB a GPU
        values["ds.adam_offload"] = True
    if settings.lora:
        values |= {"ds.lora.rank": settings.lora, "ds.lora.alpha": 2 * settings.lora}
    if settings.logger == "tensorboard":
        values["logger.tensorboard_dir"] = str(place / "tensorboard")
    elif settings.logger == "wandb":
        values |= {
            "logger.wandb.key": True,
            "logger.wandb.project": "rollforge",
            "logger.wandb.run_name": made.folder.name,
        }
    return values


def _steps(samples: int, least: int) -> int:
    """Samples per optimizer step: the largest part of at most 256 that divides all samples and spreads over the GPUs."""
    found = [size for size in range(least, min(samples, 256) + 1, least) if samples % size == 0]
    return max(found, default=samples)


def _files(data: list[Data]) -> str | None:
    paths = [str(one.path) for one in data if one.rows]
    for path in paths:
        if re.search(r"[,@]", path):
            raise UserError(f"OpenRLHF takes , and @ in a path for separators: {path}; give another --out")
    return ",".join(paths) or None


_WHAT = {"grpo": "GRPO", "sft": "SFT, all assistant turns", "sft-simple": "SFT", "dpo": "DPO"}
_REWARD = """Rewards for OpenRLHF in its own process: --reward.remote_url reward_func.py

The label against the answer's last line or box; without an expected answer, the environment at $GYM_URL judges."""
_SERVER = """Rewards for OpenRLHF over HTTP: python3 reward_server.py, then --reward.remote_url http://HOST:5000/get_reward

The label against the answer's last line or box; without an expected answer, the environment at $GYM_URL judges."""
_AGENT = """Attempts with tools for OpenRLHF: --train.agent_func_path agent_func.py

Tool calls go to the environment at $GYM_URL (NeMo Gym's protocol); tasks without tools are answered in one turn."""
