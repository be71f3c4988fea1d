"""`rollforge serve`: environments, agents and models as HTTP services."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX, given, header_of
from rollforge.errors import UserError

PORT = 8000
"""Of a single service."""


def serve(
    target: str | None = typer.Argument(
        None, help="Environment (as in collect), or a YAML file of named models, environments and agents."
    ),
    model: str | None = typer.Option(
        None, "--model", "-m", help="Model, as backend[:name]; with an environment: serve the agent of both."
    ),
    agent: str | None = typer.Option(None, help="Which agent (default tool_loop)."),
    host: str | None = typer.Option(None, help="Address to listen on (default 127.0.0.1: this machine only)."),
    port: int | None = typer.Option(None, help=f"Port of a single service (default {PORT}; 0: any free one)."),
    workers: int = typer.Option(1, min=1, max=1024, help="Processes that share the work of each service."),
    processes: bool = typer.Option(
        False, "--processes", help="Each service of a YAML in a process of its own, over HTTP to each other."
    ),
    only: list[str] = typer.Option([], help="Serve only this one of a YAML's services; may be repeated."),
    token_env: str | None = typer.Option(None, help="Environment variable with the bearer token that callers must send."),
    max_sessions: int | None = typer.Option(None, help="Sessions open at once, per worker (default 10000)."),
    session_seconds: float | None = typer.Option(None, help="A session unused for so long is closed (default 3600)."),
    max_body_mb: float | None = typer.Option(None, help="Largest body of a request (default 64)."),
    request_seconds: float | None = typer.Option(None, help="Longest time of a request (default 3600)."),
    drain_seconds: float | None = typer.Option(None, help="Time for what is in flight when it is to end (default 60)."),
    temperature: float | None = typer.Option(None, help="Of an agent: sampling temperature."),
    top_p: float | None = typer.Option(None, help="Of an agent: nucleus sampling."),
    max_output_tokens: int | None = typer.Option(None, help="Of an agent: tokens per model call."),
    max_turns: int | None = typer.Option(None, help="Of an agent: model calls per rollout (default 16)."),
    seed: int | None = typer.Option(None, help="Of an agent: for reproducible draws; sent to servers too."),
    base_url: list[str] = typer.Option([], help="The model server's URL; may be repeated."),
    api_key_env: str | None = typer.Option(None, help="Name of the environment variable that holds the model server's key."),
    header: list[str] = typer.Option([], help="A header for the model server, as in 'Name: value'; may be repeated."),
    call_seconds: float | None = typer.Option(None, help="Deadline of a model call (default 600)."),
    tool_seconds: float | None = typer.Option(None, help="Deadline of a tool call (default 60)."),
    verify_seconds: float | None = typer.Option(None, help="Deadline of a verification (default 60)."),
    rollout_seconds: float | None = typer.Option(None, help="Deadline of a whole rollout (default 3600)."),
    set_: list[str] = typer.Option(
        [], "--set", help="Any other setting, as in --set model.retries=2 or envs.math.port=8001."
    ),
    stdio: bool = typer.Option(
        False, "--stdio", help="One session of the environment over MCP on stdin and stdout, for clients that start it."
    ),
    task: int = typer.Option(0, min=0, help="With --stdio: the number of the environment's task."),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print one JSON object per service."),
) -> None:
    """Serve an environment, an agent (environment and model), a model, or a YAML of named ones, until Ctrl-C."""
    import logging

    from rollforge.config import merge, with_set
    from rollforge.serve.config import load_config, single
    from rollforge.serve.run import exposed
    from rollforge.serve.workers import start

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    settings = {
        "host": host,
        "token_env": token_env,
        "max_sessions": max_sessions,
        "session_seconds": session_seconds,
        "max_body_mb": max_body_mb,
        "request_seconds": request_seconds,
        "drain_seconds": drain_seconds,
    }
    sections = {
        "model": {
            "use": model,
            "base_url": base_url or None,
            "api_key_env": api_key_env,
            "headers": dict(map(header_of, header)) or None,
        },
        "agent": {"use": agent, "max_turns": max_turns},
        "sampling": {"temperature": temperature, "top_p": top_p, "max_output_tokens": max_output_tokens},
        "seed": seed,
        "deadlines": {"call": call_seconds, "tool": tool_seconds, "verify": verify_seconds, "rollout": rollout_seconds},
    }
    values = with_set(given(settings), set_)
    if stdio:
        return _stdio(target, task, given({**settings, **sections, "port": port, "env": None}))
    if target is not None and target.endswith((".yaml", ".yml")):
        stray = next(iter(given({**sections, "port": port})), None)
        if stray:
            raise UserError(f"what the options say of {stray} belongs into {target}, beside the name it is of (or --set)")
        loaded = load_config(Path(target), values)
    else:
        stray = "--only" if only else "--processes" if processes else None
        if stray:
            raise UserError(f"{stray} is for the named services of a YAML file")
        one = merge(given({**sections, "env": {"use": target}}), values)
        loaded = single(one, PORT if port is None else port)

    def started(placed: Sequence[Any]) -> None:
        if warning := exposed([place.url for place in placed], loaded.config):
            logging.getLogger("rollforge").warning(warning)
        _print(placed, json)

    start(
        loaded,
        only=only,
        workers=workers,
        processes=processes,
        started=started,
    )


def _stdio(target: str | None, task: int, others: dict[str, Any]) -> None:
    import asyncio

    from rollforge.envs.load import load_env
    from rollforge.serve.mcp import own_stdout, serve_stdio

    if target is None or target.endswith((".yaml", ".yml")):
        raise UserError("--stdio serves one environment: name it (rollforge env list)")
    if others:
        raise UserError(f"--stdio takes the environment and --task, nothing of {next(iter(others))}")
    out = own_stdout()
    env = load_env(target)
    asyncio.run(serve_stdio(env, str(getattr(env, "name", target)), out, task))


def _print(placed: Sequence[Any], as_json: bool) -> None:
    from json import dumps

    for place in placed:
        if as_json:
            print(dumps({"kind": place.kind, "name": place.name, "url": place.url, "docs": f"{place.url}/docs"}), flush=True)
        else:
            print(f"{place.kind:<11} {place.name:<24} {place.url}   docs: {place.url}/docs", flush=True)
