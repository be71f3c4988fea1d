"""What a head server knows: which servers there are, and where; ours or NeMo Gym's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from rollforge.agents.remote import RemoteRun
from rollforge.errors import InfraFault, RolloutError, SetupError, UserError
from rollforge.models.service import Answer, Service, token_env
from rollforge.nemo.builtin import AGENTS as OWN_AGENTS
from rollforge.nemo.collect import Agent
from rollforge.nemo.config import AGENTS, RESOURCES, Server, servers_of
from rollforge.records.items import Json

SECONDS = 10.0
METRICS_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Head:
    url: str
    addresses: dict[str, str]
    """Of the agents, by name."""
    metrics: dict[str, str]
    """Who computes the metrics of an agent: the resources server of a simple one, as NeMo Gym has it, else itself."""
    servers: tuple[Server, ...]


async def ask(host: str, port: int) -> Head | None:
    """The head there, or None if nothing answers. Raises `UserError` if it is something else."""
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    answer = await _get(url, "/global_config_dict_yaml")
    if answer is None:
        return None
    text = answer.value if answer.ok else None
    try:
        values = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise _no_head(url, answer)
    servers = tuple(servers_of(values))
    found = {
        (server.type, server.name): f"http://{_host(server, host)}:{server.block['port']}"
        for server in servers
        if server.block.get("port")
    }
    addresses = {name: at for (type, name), at in found.items() if type == AGENTS}
    metrics = {
        server.name: found.get((RESOURCES, server.target("resources_server") or ""), addresses[server.name])
        if server.implementation in OWN_AGENTS
        else addresses[server.name]
        for server in servers
        if server.name in addresses
    }
    # A head of ours also tells the configuration as it was written, with data sets.
    shown = await _get(url, "/config")
    written = shown.value if shown is not None and shown.ok else None
    return Head(url, addresses, metrics, tuple(servers_of(written)) if isinstance(written, dict) else servers)


def _host(server: Server, head: str) -> str:
    """One that listens everywhere is where the head is."""
    given = str(server.block.get("host") or "0.0.0.0")
    return head if given == "0.0.0.0" else given


async def instances(host: str, port: int) -> list[Json] | None:
    """What `/server_instances` says; None if nothing answers. Raises `UserError` if it is no head."""
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    answer = await _get(url, "/server_instances")
    if answer is None:
        return None
    found = answer.value if answer.ok else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _no_head(url, answer)
    return found


@asynccontextmanager
async def agents_of(head: Head) -> AsyncIterator[dict[str, Agent]]:
    """The agents, to be asked over HTTP; the variable ROLLFORGE_TOKEN may hold the token they ask for."""
    runs = {name: RemoteRun(url, env_name=name, token_env=token_env()) for name, url in head.addresses.items()}
    connections = {name: Service(url, token_env=token_env()) for name, url in head.metrics.items()}
    try:
        yield {name: Agent(run, metrics_at(connections[name])) for name, run in runs.items()}
    finally:
        for run in runs.values():
            await run.aclose()
        for connection in connections.values():
            await connection.aclose()


def metrics_at(connections: Service) -> Any:
    """Ask a server to compute metrics: its code may have its own."""

    async def metrics(rows: list[Json]) -> Json:
        body = {"verify_responses": rows}
        found = await connections.call("POST", "/aggregate_metrics", body, seconds=METRICS_SECONDS, replay=True)
        value = found.json()
        if not isinstance(value, dict):
            raise InfraFault(f"{found.source} answered with {type(value).__name__}, not metrics")
        return value

    return metrics


def _no_head(url: str, answer: Answer) -> UserError:
    if answer.status in (401, 403):
        return UserError(f"the head server at {url} asks for a token: export ROLLFORGE_TOKEN=...")
    return UserError(f"what answers at {url} is no head server: {answer.source} gave {answer.status}")


async def _answers(url: str) -> bool:
    """Whether anybody listens: a head that is not there is no reason to try again."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _get(url: str, path: str) -> Answer | None:
    if not await _answers(url):
        return None
    service = Service(url, token_env=token_env())
    try:
        return await service.call("GET", path, seconds=SECONDS, refuse=False)
    except (RolloutError, SetupError):
        return None
    finally:
        await service.aclose()
