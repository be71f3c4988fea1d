"""What belongs to data for verl: Hydra overrides in a launch script, a reward function, tools, data set classes.

Keys as in verl 0.6.1 to 0.9.1 (trainer/config/*.yaml of each release)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.export.launch import script
from rollforge.export.pieces import assemble
from rollforge.export.sizing import (
    attempts_at,
    batch,
    billions,
    ceil,
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
from rollforge.export.target import Data, Level, Made, Settings
from rollforge.export.verl.rows import decoded
from rollforge.records.items import inside
from rollforge.records.lossless import dumps

VERSIONS = ("0.9", "0.8", "0.7", "0.6")
HERE = Path(__file__).parent
REWARD, TOOLS, TOOL_CONFIG, JOB = "reward.py", "gym_tools.py", "tool_config.yaml", "job.sh"
DATASETS = {"sft": "gym_sft_dataset.py", "grpo-parquet": "gym_rl_dataset.py"}


def files(made: Made) -> Mapping[str, str]:
    found: dict[str, str] = {}
    version = release(made.settings.version, VERSIONS)
    if made.kind in ("grpo", "grpo-parquet"):
        found[REWARD] = assemble(_REWARD_ABOUT, "matcher", "episode", HERE / "reward.py.txt")
        if version == "0.6":
            found[REWARD] += _AT_ONCE
        if made.with_tools:
            found[TOOLS] = assemble(_TOOLS_ABOUT, "episode", HERE / "gym_tools.py.txt")
            found[TOOL_CONFIG] = tool_config(made)
    if name := DATASETS.get(made.kind):
        found[name] = (HERE / f"{name}.txt").read_text(encoding="utf-8")
    settings = made.settings
    run = command(made)
    about, job = f"verl {version}: {_WHAT[made.kind]}", None
    if settings.nodes > 1 and made.kind not in ("rm", "dpo"):
        make_job = torch_job if made.kind == "sft" else ray_job
        found[JOB] = make_job(made, run, about)
        job = f"sbatch {shlex.quote(str(made.folder / JOB))}"
    found["launch.sh"] = script(
        run,
        settings,
        about=about,
        folder=made.folder,
        release=("verl", version),
        paths=[*(one.path for one in made.data), *(made.folder / name for name in found)],
        modules=["verl"],
        variables=["GYM_URL"] if made.kind.startswith("grpo") and made.played else [],
        slurm=job,
        wandb=made.kind not in ("rm", "dpo") and "wandb" in str(_values(made)["trainer.logger"]),
    )
    return found


def sections(kind: str) -> tuple[str, ...]:
    """The groups of Hydra's configuration, of 0.6 to 0.9 together."""
    if kind == "sft":
        return ("data", "model", "optim", "engine", "trainer", "checkpoint", "profiler", "hydra")
    return (
        *("actor_rollout_ref", "algorithm", "critic", "custom_reward_function", "data", "distillation", "global_profiler"),
        *("hydra", "model_engine", "ray_kwargs", "reward", "reward_manager", "reward_model", "trainer", "transfer_queue"),
    )


def command(made: Made) -> str:
    if made.kind in ("rm", "dpo"):
        return f"echo {shlex.quote(_NO_TRAINER)} >&2; exit 1"
    values = _values(made)
    lines = [shlex.quote(f"{key}={hydra(value)}") for key, value in values.items()]
    settings = made.settings
    if made.kind == "sft":
        several = f"--nnodes={settings.nodes} --rdzv-backend=c10d --rdzv-endpoint=$head:29500 " if settings.nodes > 1 else ""
        alone = "" if several else "--standalone "
        module = "verl.trainer.sft_trainer"
        start = f"torchrun {several}{alone}--nproc-per-node={settings.gpus} -m {module}"
    else:
        path = f"PYTHONPATH={shlex.quote(str(made.folder))}${{PYTHONPATH:+:$PYTHONPATH}} " if made.with_tools else ""
        start = f"{path}python3 -m verl.trainer.main_ppo"
    return " \\\n  ".join([start, *lines])


def _values(made: Made) -> dict[str, Any]:
    return (sft(made) if made.kind == "sft" else grpo(made)) | made.settings.set


def grpo(made: Made) -> dict[str, Any]:
    """Overrides of `ppo_trainer.yaml` for GRPO."""
    settings, train, validation = made.settings, train_data(made), _files(made.of("validation"))
    version = release(settings.version, VERSIONS)
    if version == "0.6" and made.kind == "grpo":
        raise UserError("verl 0.6 reads Parquet only: export --to verl:grpo-parquet, or use verl 0.7 or newer")
    tools = made.with_tools
    if version == "0.6" and tools:
        raise UserError("verl 0.6 gives tools no episode to belong to: use verl 0.7 or newer for tasks with tools")
    gpus = settings.all_gpus
    attempts = attempts_at(settings)
    prompt, answer = lengths(made)
    prompt += ceil(len(dumps(made.tools)) / 4, 128) if tools else 0
    micro = settings.micro_batch_size or 1
    prompts = batch(settings.batch_size or 256, sum(one.rows for one in train), gpus, attempts=attempts, micro=micro)
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    reward = "custom_reward_function" if version == "0.6" else "reward.custom_reward_function"
    size = billions(settings.model)
    values: dict[str, Any] = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.use_kl_in_reward": False,
        "data.train_files": _files(train),
        # verl reads a validation file in any case; without one it gets the training file, and never validates.
        "data.val_files": validation or _files(train),
        "data.train_batch_size": prompts,
        "data.max_prompt_length": prompt,
        "data.max_response_length": answer,
        "data.filter_overlong_prompts": True,
        "data.truncation": "error",
        "data.return_raw_chat": True,
        "actor_rollout_ref.model.path": settings.model,
        "actor_rollout_ref.model.enable_gradient_checkpointing": checkpointing(settings),
        "actor_rollout_ref.model.use_remove_padding": True,
        f"{actor}.optim.lr": settings.learning_rate or (1e-5 if settings.lora else 1e-6),
        f"{actor}.ppo_mini_batch_size": _mini(prompts, attempts, gpus * micro),
        f"{actor}.use_kl_loss": True,
        f"{actor}.kl_loss_coef": 0.001,
        f"{actor}.kl_loss_type": "low_var_kl",
        f"{actor}.entropy_coeff": 0,
        **_micro(settings, actor, rollout, prompt + answer),
        f"{rollout}.name": "vllm",
        f"{rollout}.mode": "async",
        f"{rollout}.n": attempts,
        f"{rollout}.tensor_model_parallel_size": parallel(settings),
        f"{rollout}.gpu_memory_utilization": 0.5,
        f"{reward}.path": str(made.folder / REWARD),
        f"{reward}.name": "compute_score_at_once" if version == "0.6" else "compute_score",
        **_trainer(made, settings.epochs or 15),
        "trainer.val_before_train": bool(validation),
        "trainer.test_freq": 10 if validation else -1,
        "trainer.save_freq": 20,
    }
    if size * 18 / gpus > 60:  # bytes per parameter of weights, gradients and Adam, in GB a GPU
        values |= {f"{actor}.fsdp_config.param_offload": True, f"{actor}.fsdp_config.optimizer_offload": True}
    if settings.lora:
        values |= {
            "actor_rollout_ref.model.lora_rank": settings.lora,
            "actor_rollout_ref.model.lora_alpha": 2 * settings.lora,
            f"{rollout}.load_format": "safetensors",
        }
    if made.kind == "grpo-parquet":
        values |= {"data.custom_cls.path": str(made.folder / DATASETS[made.kind]), "data.custom_cls.name": "GymRLHFDataset"}
    if tools:
        values |= {
            f"{rollout}.multi_turn.enable": True,
            f"{rollout}.multi_turn.format": _format(settings.model),
            f"{rollout}.multi_turn.tool_config_path": str(made.folder / TOOL_CONFIG),
            f"{rollout}.multi_turn.max_assistant_turns": 16,
            # By default the second of several calls and what is beyond 256 characters of a result are left out.
            f"{rollout}.multi_turn.max_parallel_calls": 8,
            f"{rollout}.multi_turn.max_tool_response_length": 8192,
        }
        if version != "0.7":
            values[f"{rollout}.agent.default_agent_loop"] = "tool_agent"
    return values


def sft(made: Made) -> dict[str, Any]:
    """Overrides of `sft_trainer_engine.yaml`."""
    settings, train = made.settings, train_data(made)
    version = release(settings.version, VERSIONS)
    if version == "0.6":
        raise UserError("verl 0.6's SFT trainer has another data set class: use verl 0.7 or newer")
    gpus, micro = settings.all_gpus, settings.micro_batch_size or 1
    length = whole_length(made)
    validation = [one for one in made.of("validation") if one.rows >= gpus * micro]
    rows = min(sum(one.rows for one in part) for part in (train, validation) if part)
    values: dict[str, Any] = {
        "data.train_files": _files(train),
        "data.val_files": _files(validation),
        "data.custom_cls.path": str(made.folder / DATASETS[made.kind]),
        "data.custom_cls.name": "GymSFTDataset",
        # Incomplete batches are dropped, on the validation side too.
        "data.train_batch_size": batch(settings.batch_size or max(64, gpus * micro), rows, gpus, micro=micro),
        "data.max_length": length,
        "data.truncation": "error",
        "data.enable_thinking_default": None,
        "data.micro_batch_size_per_gpu": settings.micro_batch_size or 4,
        "data.use_dynamic_bsz": settings.micro_batch_size is None,
        "data.max_token_len_per_gpu": max(8192, length),
        "model.path": settings.model,
        "model.enable_gradient_checkpointing": checkpointing(settings),
        "model.use_remove_padding": True,
        "optim.lr": settings.learning_rate or (1e-4 if settings.lora else 1e-5),
        **_trainer(made, settings.epochs or 3),
        "trainer.save_freq": "after_each_epoch",
        "trainer.test_freq": "after_each_epoch" if validation else -1,
    }
    if settings.lora:
        values |= {"model.lora_rank": settings.lora, "model.lora_alpha": 2 * settings.lora}
    return values


def hydra(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value)
        case list() | tuple():
            return f"[{','.join(hydra(one) for one in value)}]"
        case dict():
            return "{" + ",".join(f"{key}:{hydra(one)}" for key, one in value.items()) + "}"
        case str() if not _PLAIN.fullmatch(value) or value.lower() in _WORDS or value.isdecimal():
            quoted = re.sub(r"(\\*)'", r"\1\1\\'", value)
            return f"'{quoted}'"
    return str(value)


def tool_config(made: Made) -> str:
    """The tools for `tool_config_path`: schemas as JSON text, whole; OmegaConf would resolve a `${...}` in them."""
    chosen = "a row chooses its own by extra_info.tool_selection"
    if release(made.settings.version, VERSIONS) == "0.7":
        chosen = "verl 0.7 shows all of them to every row with tools: it does not read extra_info.tool_selection"
    lines = [
        f"# The tools of the data's tasks; {chosen}.",
        "# The schemas are known, what the tools do is the environment's: gym_tools.EnvironmentTool calls it at $GYM_URL.",
        "tools:",
    ]
    for tool in made.tools:
        text = dumps(tool).decode().replace("$", "\\u0024").replace("'", "''")
        text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", text)
        lines += [
            f"  - class_name: gym_tools.EnvironmentTool  # {re.sub(r'[^ -~]', '?', str(tool['function'].get('name')))}",
            "    config:",
            "      type: native",
            f"      schema: '{text}'",
        ]
    return "\n".join(lines) + "\n"


def _files(data: list[Data]) -> Any:
    paths = [str(one.path) for one in data if one.rows]
    return paths[0] if len(paths) == 1 else paths or None


def _mini(prompts: int, attempts: int, divides: int) -> int:
    """The largest divisor of the batch, at most 64, whose attempts can be spread evenly (verl asserts it)."""
    found = [size for size in range(1, min(prompts, 64) + 1) if prompts % size == 0 and size * attempts % divides == 0]
    return max(found, default=prompts)


def _micro(settings: Settings, actor: str, rollout: str, length: int) -> dict[str, Any]:
    if settings.micro_batch_size is None:
        return {f"{actor}.use_dynamic_bsz": True, f"{actor}.ppo_max_token_len_per_gpu": max(16384, 2 * length)}
    size = settings.micro_batch_size
    return {
        f"{actor}.use_dynamic_bsz": False,
        f"{actor}.ppo_micro_batch_size_per_gpu": size,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": size,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": size,
    }


def _trainer(made: Made, epochs: int) -> dict[str, Any]:
    settings = made.settings
    return {
        "trainer.total_epochs": epochs,
        "trainer.nnodes": settings.nodes,
        "trainer.n_gpus_per_node": settings.gpus,
        "trainer.logger": ["console"] if settings.logger == "none" else ["console", settings.logger],
        "trainer.project_name": "rollforge",
        "trainer.experiment_name": made.folder.name,
        "trainer.default_local_dir": str(results(made)),
    }


def _format(model: str) -> str:
    """The parser for tool calls (experimental/agent_loop/tool_parser.py)."""
    name = model.lower()
    if "gpt-oss" in name:
        return "gpt-oss"
    return "qwen3_coder" if "coder" in name and "qwen3" in name else "hermes"


def problems_of_tools(tools: list[Any]) -> Iterator[tuple[Level, str]]:
    """Of a `tool_config.yaml`: what verl does silently or stops at."""
    seen: dict[str, int] = {}
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict) or "class_name" not in tool:
            yield "error", f"tools[{number}] has no class_name: verl loads the class that runs the tool by it"
            continue
        given = tool.get("config")
        if inside(given, "type") != "native":
            yield "error", f"tools[{number}].config.type is not native: verl 0.9 knows no other"
        schema = tool.get("tool_schema") or decoded(inside(given, "schema"))
        function = inside(schema, "function")
        name = inside(function, "name")
        if not isinstance(name, str):
            if tool.get("tool_schema"):
                yield "error", f"tools[{number}].tool_schema names no function: verl refuses it (OpenAIFunctionToolSchema)"
            continue
        seen[name] = seen.get(name, 0) + 1
        if seen[name] == 2:
            yield (
                "error",
                f"two tools are named {name!r}: verl keeps the last for all rows; export each environment by itself",
            )
        if tool.get("tool_schema"):
            yield from _narrow(name, function)


def _narrow(name: str, function: Any) -> Iterator[tuple[Level, str]]:
    """verl/tools/schemas.py: a parameter's schema has type, description and enum; type and the description are demanded."""
    if not isinstance(function.get("description"), str):
        yield "error", f"the tool {name!r} has no description: verl refuses it (OpenAIFunctionSchema)"
    properties = inside(function.get("parameters", {"properties": {}}), "properties")
    if not isinstance(properties, dict):
        yield "error", f"the tool {name!r} has no parameters.properties: verl refuses it (OpenAIFunctionParametersSchema)"
        return
    for key, value in properties.items():
        if not isinstance(value, dict) or "type" not in value:
            yield (
                "error",
                f"parameter {key!r} of the tool {name!r} has no type: verl refuses it (OpenAIFunctionPropertySchema)",
            )
        elif lost := sorted(map(str, value.keys() - {"type", "description", "enum"})):
            yield (
                "warning",
                f"parameter {key!r} of the tool {name!r} loses {', '.join(lost)}: verl's schema class does not know them",
            )


_PLAIN = re.compile(r"[\w./@+-][\w./@:+-]*", re.ASCII)
"""Hydra knows no other letters outside of quotes."""
_WORDS = {"null", "none", "true", "false", "yes", "no", "on", "off", "nan", "inf", ""}
_WHAT = {"grpo": "GRPO", "grpo-parquet": "GRPO", "sft": "SFT", "rm": "reward model data", "dpo": "preference data"}
_NO_TRAINER = "verl reads these files with RMDataset, but has no trainer for them: use your own, openrlhf:dpo or trl:dpo"
_AT_ONCE = '''

def compute_score_at_once(*args, **kwargs):
    """`compute_score` for verl 0.6, which does not await it."""
    import asyncio

    return asyncio.run(compute_score(*args, **kwargs))
'''
_REWARD_ABOUT = """The reward function for verl: data.reward_model.ground_truth against the answer's last line or box.

Rows without an expected answer are judged by their environment at $GYM_URL (NeMo Gym's protocol)."""
_TOOLS_ABOUT = """The tools of the tasks for verl, run by their environment at $GYM_URL (NeMo Gym's protocol)."""
