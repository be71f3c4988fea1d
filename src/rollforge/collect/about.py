"""What run.json says of a run: what makes it the same run, and what somebody may want to know of it later. No secrets."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from rollforge import __version__
from rollforge.collect.config import AgentConfig, CollectConfig
from rollforge.envs.base import Env
from rollforge.envs.sources import imported
from rollforge.records.items import Json
from rollforge.records.shown import shown, without_secrets


def identity(config: CollectConfig, env: Env | None) -> Json:
    """What must be the same for rollouts to belong to one run, secrets included: `RunDir` stores marks of them."""
    digest = getattr(env, "digest", None)
    own = {"digest": digest()} if digest else {}
    # A file may be named from another folder; its content is in the digest.
    use = re.sub(r".*/(?=[^/]*\.py\b)", "", config.env.use) if config.env else ""
    return {
        "env": config.env and {"use": use, **(config.env.model_extra or {}), **own},
        "tasks": {"sha256": _sha256(config.tasks)} if config.tasks else None,
        "model": config.model
        and {"use": config.model.use, "extra_body": config.model.extra_body, **_files(config.model.use)},
        "repeats": config.repeats,
        "limit": config.limit,
        "sampling": config.sampling,
        "seed": config.seed,
        "agent": _agent(config.agent),
    }


def about(config: CollectConfig, env_name: str) -> Json:
    values = config.model_dump(mode="json")
    if config.model is not None:
        values["model"]["headers"] = sorted(config.model.headers)  # names only: values may be secrets
    return {
        "rollforge": __version__,
        "python": sys.version.split()[0],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git_commit": _git_commit(),
        "env": env_name,
        "config": without_secrets(values),
    }


def _agent(agent: AgentConfig) -> Json:
    if agent.use == "tool_loop":
        return agent.options  # as runs had it before there were others
    return {"use": shown(agent.use) if agent.remote else agent.use, **agent.options, **_code(agent.use)}


def _files(use: str) -> Json:
    """The digest of a checkpoint, or of answers that were written down, where the model is files here: they may be others
    under the same name after another training."""
    backend, _, name = use.partition(":")
    place = Path(name.removesuffix("+tokens").removesuffix("+drift")).expanduser()
    parts: list[Path] = []
    if backend == "scripted" and place.suffix == ".jsonl":
        parts = [place]
    elif backend in ("tiny", "transformers") and name and place.is_dir():
        parts = sorted(file for part in _PARTS for file in place.glob(part))
    there = [(file, file.stat()) for file in parts if file.is_file()]
    listed = [(file.name, _content(file, stat.st_size, stat.st_mtime_ns)) for file, stat in there]
    return {"digest": hashlib.sha256(repr(listed).encode()).hexdigest()[:16]} if listed else {}


_PARTS = ("*.safetensors", "*.bin", "config.json", "generation_config.json", "tokenizer*.json", "chat_template*")


@lru_cache(1000)
def _content(file: Path, size: int, changed: int) -> str:
    """An evaluation asks for each environment; nothing is read again that has its size and time."""
    return _sha256(file)


def _code(use: str) -> Json:
    """The digest of an agent's file, where it is a file, with what it imports from beside it."""
    place = use.partition(":")[0]
    found = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None)
    if found is None:
        return {}
    files = [Path(found), *imported([Path(found)])]
    return {"digest": hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]}


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def _git_commit() -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None
