"""The `ng_*` commands that have to do with servers: run them, collect from them, show their configuration and state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollforge.cli.ng_command import Command, number, repeats, say, settings_of, tell, text
from rollforge.errors import UserError, unknown

if TYPE_CHECKING:
    from rollforge.nemo.arguments import Arguments
    from rollforge.nemo.config import GymConfig


def run(command: Command, arguments: Arguments) -> int:
    import asyncio

    from rollforge.nemo.config import read_config
    from rollforge.serve.run import exposed, run

    config = command.checked(read_config(arguments))
    settings = settings_of(config)

    async def serve() -> str | None:
        from rollforge.nemo.gym import built

        async with built(config, settings) as gym:
            for warning in gym.warnings:
                say(f"warning: {warning}")
            if config.values.get("dry_run"):
                print(f"{len(gym.services)} servers can be started")
                return None
            head = gym.head(settings)
            if told := exposed([service.url for service in (*gym.services, head)], settings):
                say(f"warning: {told}")

            def started() -> None:
                for service in gym.services:
                    print(f"{service.kind:<12} {service.name:<40} {service.url}")
                print(f"{'head':<12} {'':<40} {head.url}")
                print("All servers are ready. Ctrl-C ends them.", flush=True)

            try:
                return await run([*gym.services, head], settings, started)
            finally:
                head.socket.close()

    asyncio.run(serve())
    return 0


def collect(command: Command, arguments: Arguments) -> int:
    import uvloop

    from rollforge.nemo.config import read_config

    # What servers need (an endpoint, a key) is asked for only if they are started for this.
    config = command.checked(read_config(arguments, strict=False))
    return uvloop.run(_collected(config, arguments))


async def _collected(config: GymConfig, arguments: Arguments) -> int:
    from contextlib import AsyncExitStack

    from rollforge.nemo.config import AGENTS, read_config
    from rollforge.nemo.gym import started
    from rollforge.nemo.upstairs import agents_of, ask

    async with AsyncExitStack() as opened:
        head = await ask(*config.head)
        starts = bool(config.values.get("config_paths"))
        if head is not None and starts and not config.of_type(AGENTS).keys() <= head.addresses.keys():
            say(f"the servers of {head.url} are others than those of +config_paths")
            head = None
        if head is not None:
            say(f"using the servers of {head.url}")
            agents, servers = await opened.enter_async_context(agents_of(head)), head.servers
        elif starts:
            say("starting the servers of +config_paths for this")
            config = read_config(arguments)
            gym = await opened.enter_async_context(started(config, settings_of(config)))
            for warning in gym.warnings:
                say(f"warning: {warning}")
            agents, servers = gym.agents, config.servers
        else:
            raise UserError(
                f"no head server answers at http://{config.head[0]}:{config.head[1]}: start ng_run, name another with "
                "+head_server.port=PORT, or give +config_paths=[...] and the servers are started for this"
            )
        return await _to_files(config, agents, servers)


async def _to_files(config: GymConfig, agents: Any, servers: Any) -> int:
    from rollforge.cli.progress import progress
    from rollforge.nemo.collect import Collection, write_metrics

    job, where = _job(config, servers, list(agents))
    if where:
        say(f"tasks: {where}")
    collection = Collection(job, agents, say)
    with progress(collection):  # type: ignore[arg-type]
        await collection.run()
    files, tally = collection.files, collection.tally
    tell(collection.bad, tally.bad_lines - len(collection.bad))
    if tally.judged and not config.values.get("disable_aggregation"):
        for entry in await write_metrics(files, agents, say):
            found = entry.get("key_metrics", {})
            shown = {key: round(value, 4) for key, value in found.items() if isinstance(value, (int, float))}
            print(f"{entry['agent_ref']['name']}: {shown}")
    mean = "none" if tally.mean is None else f"{tally.mean:.4f}"
    print(f"mean reward {mean} over {tally.judged} of {tally.total} rollouts: {files.rollouts}")
    if tally.judged < tally.total:
        print(f"no reward: {tally.total - tally.judged}; why: {files.failures}; +resume_from_cache=true goes on")
        if tally.last_failure:
            say(f"the last failure: {tally.last_failure}"[:500])
    reason = collection.stop.reason or ""
    if reason:
        print(f"stopped: {reason}")
    if reason.startswith("SIG"):
        return 130 if reason == "SIGINT" else 143
    return 0 if tally.judged == tally.total else 1


def _job(config: GymConfig, servers: Any, agents: list[str]) -> tuple[Any, str]:
    """What to collect, and where the tasks come from if nobody said."""
    import os

    from rollforge.nemo.collect import MAX_ATTEMPTS, WINDOW, Job
    from rollforge.nemo.config import AGENTS, find
    from rollforge.nemo.prompt import read_prompt
    from rollforge.nemo.rows import Plan
    from rollforge.nemo.tasks import tasks_of

    values = config.values
    output = Path(text(values, "output_jsonl_fpath"))
    limit = number(values, "limit")
    agent = values.get("agent_name") or (agents[0] if len(agents) == 1 else None)
    where = ""
    if values.get("input_jsonl_fpath"):
        source = find(text(values, "input_jsonl_fpath"))
    else:
        source, where = tasks_of(agent, servers, output, limit)
    prompt = read_prompt(str(values["prompt_config"])) if values.get("prompt_config") else None
    plan = Plan(
        agent=agent,
        limit=limit,
        repeats=repeats(values.get("num_repeats")),
        add_seed=bool(values.get("num_repeats_add_seed")),
        params=_params(values),
        prompt=prompt,
    )
    own = list(config.of_type(AGENTS))
    attempts = os.environ.get("NEMO_GYM_MAX_ROLLOUT_ATTEMPTS", "")
    job = Job(
        input=source,
        output=output,
        plan=plan,
        window=number(values, "num_samples_in_parallel") or WINDOW,
        resume=bool(values.get("resume_from_cache")),
        adopt=agent if own == [agent] else None,
        max_attempts=int(attempts) if attempts.isdigit() and int(attempts) else MAX_ATTEMPTS,
    )
    return job, where


def _params(values: dict[str, Any]) -> dict[str, Any]:
    """What is laid over the rows' parameters: NeMo Gym's request takes no other fields, and models here these."""
    from rollforge.models.openai import PARAMETERS

    params = values.get("responses_create_params") or {}
    if not isinstance(params, dict):
        raise UserError(
            f"responses_create_params is {params!r}, not keys and values: +responses_create_params.temperature=1.0"
        )
    known = {*PARAMETERS, *SAMPLING}
    for key in params:
        if key not in known:
            hint = "(a model server's own go into metadata.extra_body, as JSON in a text)"
            raise unknown("field of responses_create_params", key, known, hint)
    return params


SAMPLING = (
    *("seed", "stop", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("logit_bias", "logprobs"),
)
"""Parameters that the Responses API lacks and that reach model servers by these names."""


def dump(command: Command, arguments: Arguments) -> None:
    import yaml

    from rollforge.nemo.config import read_config
    from rollforge.nemo.secrets import shown

    config = command.checked(read_config(arguments))
    print(yaml.safe_dump(shown(config.values), sort_keys=False, allow_unicode=True), end="")


def status(command: Command, arguments: Arguments) -> int:
    import asyncio
    import json

    from rollforge.nemo.config import read_config
    from rollforge.nemo.upstairs import instances
    from rollforge.stats.visible import one_line

    config = command.checked(read_config(arguments, strict=False))
    found = asyncio.run(instances(*config.head))
    if found is None:
        print(f"no head server answers at http://{config.head[0]}:{config.head[1]}", file=sys.stderr)
        return 1
    if config.values.get("json"):
        print(json.dumps(found))
        return 0
    for one in found:
        status, type, name, url = (one_line(str(one.get(key, "")), 200) for key in ("status", "server_type", "name", "url"))
        print(f"{status:<18} {type:<22} {name:<40} {url}")
    print(f"{len(found)} servers, {sum(one.get('status') == 'success' for one in found)} of them answer")
    return 0
