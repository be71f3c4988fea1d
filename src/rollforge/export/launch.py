"""Launch scripts, of one shape for every framework: `--check` looks before anything is started, `--print` only shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from rollforge.export.target import Settings


def script(
    command: str,
    settings: Settings,
    *,
    about: str,
    folder: Path,
    release: tuple[str, str],
    paths: Iterable[Path],
    needs: Iterable[str] = (),
    modules: Iterable[str] = (),
    variables: Iterable[str] = (),
    within: tuple[str, Iterable[str]] | None = None,
    home: str | None = None,
    installed: str | None = None,
    slurm: str | None = None,
    wandb: bool = False,
) -> str:
    """A bash script that checks and then runs `command` (one shell command; newlines escaped).

    `folder` is the script's own, which the configuration names; `release` is the framework's (as `--target-version` has
    it) that the files are for, and `installed` a command that prints the one that is there (default: of the installed
    package); `paths` must exist; `needs` are programs, `modules` Python modules that must be there; `variables` of the
    environment must be set; `within` is one of them that names a directory, with what must be in it; `home` is the
    directory in which to run; `slurm` (which calls `sbatch`) replaces the command where `settings.nodes > 1`; `wandb`: the
    configuration logs to Weights & Biases, which wants a key.
    """
    framework, wanted = release
    installed = installed or f"python3 -c \"from importlib.metadata import version; print(version('{framework}'))\""
    run = command
    if slurm and settings.nodes > 1:
        # A container is given the directory, if there is one: it must be there before.
        own = settings.checkpoints if settings.checkpoints.startswith("/") else None
        run = f"mkdir -p {shlex.quote(own)}\n{slurm}" if own else slurm
        needs = [*needs, "sbatch"]
    variable, held = within or ("", ())
    local = [Path(settings.model)] if settings.model.startswith("/") else []
    checks = [
        *(f"have_path {shlex.quote(str(path))}" for path in (*paths, *local)),
        *(f'[ -z "${{{variable}:-}}" ] || have_path "${variable}"/{shlex.quote(name)}' for name in held),
        *(f"have_program {shlex.quote(name)}" for name in needs),
        *(f"have_module {shlex.quote(name)}" for name in modules),
        f'have_release {framework} {wanted} "$({{ {installed}; }} 2> /dev/null || true)"',
        *(f"have_variable {shlex.quote(name)}" for name in variables),
        *([] if settings.nodes > 1 else [f"have_gpus {settings.gpus}"]),
        *(["have_token WANDB_API_KEY"] if wandb else []),
        *([] if local else [f"hub_login {shlex.quote(settings.model)}"]),
    ]
    where = f"cd {shlex.quote(home)}\n" if home else ""
    return _SCRIPT.format(about=about, folder=shlex.quote(str(folder)), checks="\n".join(checks), where=where, command=run)


_SCRIPT = """#!/usr/bin/env bash
# {about}
#   bash launch.sh           checks, then trains
#   bash launch.sh --check   only checks: paths, programs, GPUs, tokens, release
#   bash launch.sh --print   only shows the command
set -euo pipefail
failed=0
problem() {{ echo "launch: $1" >&2; failed=1; }}
advice() {{ echo "launch: note: $1" >&2; }}
have_path() {{ [ -e "$1" ] || problem "$1 is not there"; }}
have_program() {{ command -v "$1" > /dev/null || problem "the program $1 is not installed"; }}
have_module() {{ python3 -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2> /dev/null \\
  || problem "python3 has no module $1 (pip install $1)"; }}
have_release() {{
  [ -z "$3" ] || [[ "$3." == "$2".* ]] \\
    || advice "$1 $3 is there, these files are for $2: install that, or export again with --target-version $1=$3"
}}
have_gpus() {{
  found=$( (nvidia-smi --list-gpus 2> /dev/null || true) | wc -l)
  [ "$found" -ge "$1" ] || problem "GPUs: $1 asked for, $found found"
}}
have_token() {{ [ -n "${{!1:-}}" ] || problem "$1 is not set"; }}
have_variable() {{ [ -n "${{!1:-}}" ] || problem "the environment variable $1 is not set"; }}
hub_login() {{
  [ -n "${{HF_HOME:-}}" ] || advice "HF_HOME is not set: models go to ~/.cache/huggingface"
  [ -n "${{HF_TOKEN:-}}" ] || [ -e "${{HF_HOME:-${{HOME:-}}/.cache/huggingface}}/token" ] \\
    || advice "not logged in to the Hugging Face hub: needed if $1 is gated"
}}
run() {{
{where}{command}
}}
case "$*" in
  "" | --check | --print) ;;
  *) sed -n '3,5s/^# */usage: /p' "$0" >&2; exit 2 ;;
esac
if [ "${{1:-}}" = "--print" ]; then declare -f run | sed '1,2d;$d'; exit; fi
{checks}
made={folder}
[ -e "$made" ] || advice "made as $made, which these files name: export here again, or replace that path in all of them"
[ "$failed" = 0 ] || exit 1
if [ "${{1:-}}" = "--check" ]; then echo "launch: ready"; exit; fi
run
"""
