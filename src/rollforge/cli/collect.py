"""`rollforge collect`: verified rollouts into a run directory."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX, header_of, seldom_collect_garbage, settings
from rollforge.cli.output import any_encoding, exit_if_signalled, print_json, print_unused, prints_aside
from rollforge.errors import RollforgeError, UserError, unknown

if TYPE_CHECKING:
    from rollforge.collect.config import CollectConfig
    from rollforge.collect.run import Summary
    from rollforge.collect.tally import Tally


def collect(
    env: str | None = typer.Argument(None, help="Environment: a name, path/to/file.py:name, or package.module:name."),
    model: str | None = typer.Option(
        None, "--model", "-m", help="Model, as backend[:name]: tiny, chat:NAME, openai:NAME ..."
    ),
    config: Path | None = typer.Option(None, "--config", "-c", help="YAML with any of the settings; options win over it."),
    agent: str | None = typer.Option(
        None,
        help="Instead of the tool loop: 'command:python my_agent.py', an agent service's URL, package.module:name.",
    ),
    tasks: Path | None = typer.Option(None, help="JSONL file of tasks, instead of the environment's own."),
    repeats: int | None = typer.Option(None, "--repeats", "-k", help="Rollouts per task (default 1)."),
    limit: int | None = typer.Option(None, "--limit", "-n", help="Only the first so many tasks."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Run directory; one that exists is resumed."),
    concurrency: int | None = typer.Option(None, help="Rollouts in flight (default 64)."),
    seed: int | None = typer.Option(None, help="For reproducible draws; sent to servers too."),
    temperature: float | None = typer.Option(None, help="Sampling temperature."),
    top_p: float | None = typer.Option(None, help="Nucleus sampling."),
    max_output_tokens: int | None = typer.Option(None, help="Tokens per model call."),
    base_url: list[str] = typer.Option([], help="The model server's URL, as in http://localhost:8000/v1; may be repeated."),
    api_key_env: str | None = typer.Option(None, help="Name of the environment variable that holds the key."),
    header: list[str] = typer.Option([], help="A header for the model server, as in 'Name: value'; may be repeated."),
    max_turns: int | None = typer.Option(None, help="Model calls per rollout (default 16)."),
    max_attempts: int | None = typer.Option(None, help="Attempts at a rollout that fails for outside reasons (default 3)."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="When resuming, attempt again what failed for good."),
    call_seconds: float | None = typer.Option(None, help="Deadline of a model call (default 600)."),
    tool_seconds: float | None = typer.Option(None, help="Deadline of a tool call (default 60)."),
    verify_seconds: float | None = typer.Option(None, help="Deadline of a verification (default 60)."),
    rollout_seconds: float | None = typer.Option(None, help="Deadline of a whole rollout (default 3600)."),
    max_rollouts: int | None = typer.Option(None, help="Budget: start no more than so many rollouts."),
    max_tokens: int | None = typer.Option(None, help="Budget: stop after so many tokens, prompt and generated."),
    max_minutes: float | None = typer.Option(None, help="Budget: stop after so many minutes."),
    max_cost: float | None = typer.Option(None, help="Budget: stop at this cost, at --price-in and --price-out."),
    price_in: float | None = typer.Option(None, help="Price of a million prompt tokens."),
    price_out: float | None = typer.Option(None, help="Price of a million generated tokens."),
    min_coverage: float | None = typer.Option(None, help="Share of rollouts that must get a reward (default 1)."),
    set_: list[str] = typer.Option(
        [], "--set", help="Any other setting, as in --set sampling.top_k=20 --set env.level=hard."
    ),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Collect verified rollouts of a model in an environment. Killed or interrupted, the same command goes on."""
    from rollforge.collect.config import CollectConfig
    from rollforge.config import validate

    options = {
        "env": {"use": env},
        "model": {
            "use": model,
            "base_url": base_url or None,
            "api_key_env": api_key_env,
            "headers": dict(map(header_of, header)) or None,
        },
        "tasks": tasks,
        "repeats": repeats,
        "limit": limit,
        "out": out,
        "concurrency": concurrency,
        "seed": seed,
        "sampling": {"temperature": temperature, "top_p": top_p, "max_output_tokens": max_output_tokens},
        "agent": {"use": agent, "max_turns": max_turns},
        "max_attempts": max_attempts,
        "retry_failed": retry_failed or None,
        "min_coverage": min_coverage,
        "deadlines": {"call": call_seconds, "tool": tool_seconds, "verify": verify_seconds, "rollout": rollout_seconds},
        "budget": {
            "rollouts": max_rollouts,
            "tokens": max_tokens,
            "minutes": max_minutes,
            "cost": max_cost,
            "price_in": price_in,
            "price_out": price_out,
        },
    }
    values = settings(config, options, set_, uses=("env", "model", "agent"))
    where = str(config or "the options")
    for key in values:
        if key not in CollectConfig.model_fields:  # before what is missing, which may be what this one was to be
            raise unknown("key", key, CollectConfig.model_fields, f"(in {where}; the environment's own are env.{key})")
    given = values.get("agent")
    remote = isinstance(given, dict) and str(given.get("use")).startswith(("http://", "https://"))
    for key, hint in (("env", "name an environment: rollforge env list"), ("model", "give a model: --model tiny")):
        if not (values.get(key) or (remote and (key == "model" or values.get("tasks")))):
            raise UserError(hint)
    asked = validate(CollectConfig, values, where)
    with prints_aside():
        summary = _run(asked)
    if json:
        counts = {**summary.tally.row(), "cost": summary.cost, "bad_lines": summary.tally.bad_lines}
        ended = {"stopped": summary.stopped, "success": summary.success}
        print_json({"run": str(summary.path), **counts, **ended}, indent=None)
    else:
        _print_report(summary, asked.env.use if asked.env else "ENV")
    exit_if_signalled(summary.stopped)
    sys.exit(0 if summary.success else 1)


def _run(config: CollectConfig) -> Summary:
    import uvloop

    from rollforge.cli.progress import progress, say
    from rollforge.collect.run import Collection

    collection = Collection(config)
    seldom_collect_garbage()
    try:
        with progress(collection):
            return uvloop.run(collection.run())
    except (RollforgeError, KeyboardInterrupt):
        if collection.tally.done:
            say(f"kept so far: {collection.tally.done}; {_again(collection.path, collection.tally)}")
        raise


def _print_report(summary: Summary, env: str) -> None:
    from rollforge.records.shown import typed
    from rollforge.stats.text import plural
    from rollforge.stats.visible import one_line

    any_encoding()
    tally, path = summary.tally, summary.path
    print_unused(summary.bad_lines, tally.bad_lines)
    mean = "none" if tally.mean is None else f"{tally.mean:.4f}"
    print(f"mean reward {mean} over {tally.judged} of {tally.total} rollouts (coverage {tally.coverage:.1%})")
    print("outcomes: " + ", ".join(f"{count} {outcome}" for outcome, count in tally.row()["outcomes"].items() if count))
    if tally.faults:
        attempts = ", ".join(f"{count} {fault}" for fault, count in tally.faults.most_common())
        print(f"attempts without a verdict: {attempts}; retried: {tally.retries}")
        print(f"the last: {one_line(tally.last_failure, 500)}")
    if summary.cost is not None:
        print(f"cost of this session: {summary.cost:.4g}")
    if summary.stopped:
        print(f"stopped: {summary.stopped}; {_again(path, tally)}")
    elif _failed(tally):
        again = f"the same command with --out {typed(path)} --retry-failed attempts them again"
        print(f"not all rollouts have a reward; {again}")
    if tally.unjudged:
        remedy = shlex.join(["rollforge", "reverify", str(path), "--env", env])
        print(f"{plural(tally.unjudged, 'rollout')} could not be judged; mend the verifier, then: {remedy}")
    broken = _faulty(tally) - tally.unjudged
    if broken:
        what = f"{plural(broken, 'rollout')} ended by a fault of the environment"
        print(f"{what}; mend it, then collect again with another --out: mended, it is another environment")
    print(f"run: {path}   look: rollforge stats {typed(path)}   read: rollforge show {typed(path)}")


def _again(path: Path, tally: Tally) -> str:
    from rollforge.records.shown import typed

    goes_on = f"the same command with --out {typed(path)} goes on"
    return goes_on + (" (with --retry-failed it attempts again what failed for good)" if _failed(tally) else "")


def _failed(tally: Tally) -> bool:
    """Whether rollouts ended without a reward that they may get in another attempt."""
    return tally.done > tally.judged + _faulty(tally)


def _faulty(tally: Tally) -> int:
    """Another attempt fails as this one did, and what is mended is another environment: of another run."""
    from rollforge.records.rollout import Outcome

    return tally.outcomes[Outcome.VERIFIER_FAULT]
