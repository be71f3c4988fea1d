"""Sizes that several frameworks' configurations are made of: the model's, batches, lengths; and their Slurm job with Ray."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rollforge.errors import UserError, unknown
from rollforge.export.target import Data, Made, Settings
from rollforge.stats import model_size
from rollforge.stats.text import plural


def billions(model: str) -> float:
    """Parameters by the model's name; 7 where it says nothing."""
    return model_size.billions(model) or 7.0


def too_large(settings: Settings) -> list[str]:
    """A line where a model, by its name, takes more memory than the GPUs have; offloading may help it yet."""
    size = model_size.billions(settings.model)
    each, what = (2, "the weights") if settings.lora else (8, "weights, gradients and Adam's two moments")
    need, gpus = (size or 0) * each, settings.all_gpus
    if need <= _GPU * gpus:
        return []
    remedy = f"ask for {math.ceil(need / _GPU)} (--gpus, --nodes){'' if settings.lora else ' or train with --lora'}"
    return [
        f"{settings.model} on {plural(gpus, 'GPU')}: {what} in bfloat16 take about {need:,.0f} GB, and {_GPU} GB is what a "
        f"large GPU has: {remedy}"
    ]


_GPU = 80


def checkpointing(settings: Settings) -> bool:
    given = settings.activation_checkpointing
    return billions(settings.model) >= 7 if given is None else given


def train_data(made: Made) -> list[Data]:
    """Raises `UserError` where nothing is left to train on."""
    found = [data for data in made.of("train") if data.rows]
    if not found:
        raise UserError(f"{made.folder.name}: there are no rows to train on")
    return found


_LEAST = 1024
"""Tokens that an answer may have, at the least."""


def lengths(made: Made) -> tuple[int, int]:
    """(prompt, answer) in tokens, from the data; `settings.max_length` bounds their sum.

    An answer may become as long as any conversation was.
    """
    data = [one for one in made.data if one.rows]
    prompt = ceil(spare(made) * max((one.longest_prompt for one in data), default=0), 128)
    answer = ceil(min(max(spare(made) * max((one.longest for one in data), default=0), _LEAST), 8 * _LEAST), 128)
    total = made.settings.max_length
    return (prompt, answer) if total is None else (prompt, room(total, prompt))


def room(total: int, prompt: int) -> int:
    """Tokens that `max_length` leaves for an answer to the longest prompt. Raises `UserError` where there are none."""
    if total <= prompt:
        raise UserError(
            f"max_length {total} leaves no room for an answer: the longest prompt has about {prompt} tokens; "
            f"raise it, or filter the long prompts out (rollforge curate --filter 'prompt_tokens < {total}')"
        )
    return total - prompt


def whole_length(made: Made) -> int:
    """Tokens of the longest conversation, with some to spare."""
    return made.settings.max_length or ceil(spare(made) * max((one.longest for one in made.data), default=0), 128)


def spare(made: Made) -> float:
    """What lengths are multiplied by: an estimate gets a quarter more; a count, which has no chat template, a tenth."""
    return 1.1 if made.measured else 1.25


def attempts_at(settings: Settings) -> int:
    """At each prompt, for GRPO."""
    attempts = settings.generations or 8
    if attempts < 2:
        raise UserError(f"GRPO compares attempts at the same prompt: generations is {attempts}, use at least 2")
    return attempts


def parallel(settings: Settings) -> int:
    """Over how many GPUs of a node a copy of the model is spread that generates."""
    size = billions(settings.model)
    wanted = 1 if size <= 8 else 2 if size <= 16 else 4 if size <= 40 else 8
    return max(one for one in (1, 2, 4, 8) if one <= wanted and settings.gpus % one == 0)


def batch(most: int, rows: int, gpus: int, *, attempts: int = 1, micro: int = 1) -> int:
    """The largest batch of at most `most` and `rows` rows (with `attempts` at each: prompts) that can be spread over the
    GPUs, `micro` rows at a time.

    Raises `UserError` if there is none.
    """
    divides = gpus * micro
    step = divides // math.gcd(divides, attempts)
    most_of_all = min(most, rows)
    rounded = math.lcm(step, _ROUND)
    if most_of_all >= max(4 * _ROUND, rounded):
        step = rounded  # a batch of 103 has no smaller batches
    found = most_of_all // step * step
    if not found:
        what = f"{most_of_all} prompts times {attempts} attempts" if attempts > 1 else f"{most_of_all} rows"
        over = plural(gpus, "GPU") + (f" x {micro} rows" if micro > 1 else "")
        smaller = "a smaller --micro-batch-size, " if micro > 1 else ""
        remedy = f"use fewer GPUs, {smaller}a larger batch (--batch-size) or more data"
        raise UserError(f"batches of at most {what} cannot be spread over {over}: {remedy}")
    return found


_ROUND = 16


def ceil(value: float, step: int) -> int:
    return -(-math.ceil(value) // step) * step


def release(given: str | None, known: Sequence[str], framework: str = "") -> str:
    """`0.9` of a known version 0.9.1. Raises `UserError` for a version that nobody here knows."""
    wanted = (given or known[0]).removeprefix("v")
    found = next((one for one in known if one == wanted or minor(one) == minor(wanted)), None)
    if found is None:
        raise unknown(f"version of {framework}" if framework else "version", wanted, known)
    return minor(found)


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def ray_job(made: Made, command: str, about: str) -> str:
    """An sbatch script: a Ray cluster over the nodes, `command` on the first of them."""
    return _job(_RAY, made, command, about)


def torch_job(made: Made, command: str, about: str) -> str:
    """An sbatch script: `command` (torchrun or deepspeed) once on each node; it finds the first node in `$head`."""
    return _job(_TORCH, made, command, about)


def results(made: Made) -> Path:
    """Where checkpoints go: into the export's folder, or into one of its name in the directory that is named."""
    place = Path(made.settings.checkpoints)
    return place / made.folder.name if place.is_absolute() else made.folder / place


def mounts(made: Made) -> str:
    """What a container must have of the machine, for pyxis: the export's folder, checkpoints, a local model, data elsewhere.

    Raises `UserError` for a path that pyxis would read as several.
    """
    settings = made.settings
    places = [made.folder, *(Path(name) for name in (settings.checkpoints, settings.model) if name.startswith("/"))]
    places += [data.path.parent for data in made.data]
    apart = [one for one in dict.fromkeys(places) if not any(other in one.parents for other in places)]
    for place in apart:
        if re.search("[:,]", str(place)):
            raise UserError(f"Slurm's containers take : and , in a path for separators: {place}; give another one")
    return ",".join(f"{place}:{place}" for place in apart)


def in_container(made: Made) -> list[str]:
    """Options of `srun` (of pyxis) for the image that is named; none for no image, and on one node. What a command
    writes beside its checkpoints goes to the export's folder: the container is gone after the job."""
    if not made.settings.container or made.settings.nodes == 1:
        return []
    given = {"image": made.settings.container, "mounts": mounts(made), "workdir": str(made.folder)}
    return [f"--container-{name}={shlex.quote(value)}" for name, value in given.items()]


def _job(script: str, made: Made, command: str, about: str) -> str:
    settings = made.settings
    image = "".join(f"{option} " for option in in_container(made))
    return script.format(about=about, nodes=settings.nodes, gpus=settings.gpus, image=image, command=command)


# The image stands on the lines of srun: pyxis takes none for a whole job that calls srun and scontrol itself.
_HEAD = """#!/usr/bin/env bash
# {about}; sbatch this file
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --exclusive
set -euo pipefail
[ -n "${{SLURM_JOB_NODELIST:-}}" ] || {{
  echo "this is the job of several nodes: bash launch.sh --check looks at it, bash launch.sh submits it" >&2
  exit 2
}}
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
export head="${{nodes[0]}}"
"""

# One step for each node: Ray and the command must be in one container, and what is started on a node sees that node's alone.
_RAY = (
    _HEAD
    + """for node in "${{nodes[@]:1}}"; do
  srun --nodes=1 --ntasks=1 -w "$node" {image}bash -c \
    'until ray start --address="$head:6379" --num-gpus={gpus} --block; do sleep 5; done' &
done
srun --nodes=1 --ntasks=1 -w "$head" {image}bash -s << 'COMMAND'
set -euo pipefail
ray start --head --port=6379 --num-gpus={gpus}
export RAY_ADDRESS="$head:6379"
until python3 -c 'import ray; ray.init(); exit(sum(node["Alive"] for node in ray.nodes()) < {nodes})'; do sleep 5; done
{command}
COMMAND
"""
)

_TORCH = (
    _HEAD
    + """srun {image}bash -s << 'COMMAND'
{command}
COMMAND
"""
)
