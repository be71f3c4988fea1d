"""The head: which services there are, where, how they are, and the configuration they were started with, without secrets.

It answers what NeMo Gym's head answers, so that its `ServerClient` and commands find servers by name here.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import yaml
from fastapi import APIRouter, FastAPI, Request, Response
from yarl import URL

from rollforge.models.broken import Broken, Late, TooLarge
from rollforge.models.dial import target
from rollforge.models.hops import hop
from rollforge.models.http import Client
from rollforge.records.items import Json, mapping
from rollforge.records.lossless import loads
from rollforge.records.shown import shown
from rollforge.serve.app import App, answer, make_app, spec, token_of
from rollforge.serve.config import HEAD
from rollforge.serve.settings import Settings

SERVER_TYPES = {
    "agent": "responses_api_agents",
    "environment": "resources_servers",
    "model": "responses_api_models",
}
"""What NeMo Gym calls them."""
ASK_SECONDS = 3.0
"""How long a service may take to say how it is."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A service as the head tells of it."""

    name: str
    kind: str
    """environment, agent or model."""
    use: str
    """What it is made of: `arithmetic`, `tiny`, `tool_loop`."""
    url: str
    refs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of an agent: `resources_server` and `model_server`, as (kind, name), as far as they are services themselves."""
    here: bool = True
    """Whether it was started together with the head; its process is then known."""
    folder: str | None = None
    """Where its code is, of a server that was written for NeMo Gym."""
    domain: str = "other"
    """Of an environment."""


def head_app(instances: Sequence[Instance], config: Json, settings: Settings, own_url: str) -> App:
    """The head of `instances`. `config` is shown as it is: it must hold no secrets."""
    return make_app(
        "rollforge head",
        "Which services there are, where, and how they are.",
        [_routes(asking := _Asking(settings), instances, config, own_url)],
        settings,
        lifespan=asking.lifespan,
    )


class _Asking:
    """How the services are, asked of them."""

    def __init__(self, settings: Settings) -> None:
        token = token_of(settings)
        self._headers = {"Authorization": f"Bearer {token.decode()}"} if token else {}
        self._client = Client({}, connect_seconds=ASK_SECONDS, limit=1 << 20)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._client.aclose()

    async def all(self, instances: Sequence[Instance]) -> list[Json]:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._one(instance)) for instance in instances]
        return [task.result() for task in asked]

    async def _one(self, instance: Instance) -> Json:
        """What its `/status` says, with `status`: success, or what kept it from answering."""
        # The token is for our own services: a server elsewhere has not been told it, and must not be.
        headers = {**(self._headers if instance.here else {}), **hop()}
        try:
            async with asyncio.timeout(ASK_SECONDS):
                found = await self._client.send("GET", target(URL(f"{instance.url}/status")), headers=headers)
            if found.status < 400:
                return {**mapping(loads(found.body)), "status": "success"}
            # A server that is not ours has no /status; that it answers is all there is to know.
            alive = found.status < 500
            return {"status": "success"} if alive else {"status": "unknown_error", "answered": found.status}
        except (TimeoutError, Late):
            return {"status": "timeout"}
        except (ValueError, TooLarge):
            return {"status": "success"}
        except Broken:
            return {"status": "connection_error"}


def _routes(asking: _Asking, instances: Sequence[Instance], config: Json, own_url: str) -> APIRouter:
    router = APIRouter(tags=["head"])

    @router.get("/server_instances", openapi_extra=spec(response={"type": "array", "items": {"type": "object"}}))
    async def server_instances(request: Request) -> Response:
        """Every service: name, type, address, state, time running."""
        statuses = await asking.all(instances)
        return answer([_listed(one, status, request) for one, status in zip(instances, statuses, strict=True)])

    @router.get("/status", openapi_extra=spec(response={"type": "object"}))
    async def status_of_all(_: Request) -> Response:
        """How every service is, as its own `/status` says it; `status` is `ok` when all answer."""
        statuses = await asking.all(instances)
        fine = all(status["status"] == "success" for status in statuses)
        services = {one.name: {"kind": one.kind, **status} for one, status in zip(instances, statuses, strict=True)}
        return answer({"status": "ok" if fine else "degraded", "services": services})

    @router.get("/global_config_dict_yaml", openapi_extra=spec(response={"type": "string"}))
    async def global_config_dict_yaml(request: Request) -> Response:
        """NeMo Gym's form of it: name, server type, implementation, with host and port; YAML text in a JSON string."""
        found: Json = {_NEMO_HEAD: _at(own_url, request)}
        for one in instances:
            refs = {
                name: {"type": SERVER_TYPES[kind], "name": to}
                for name, (kind, to) in one.refs.items()
                if kind in SERVER_TYPES
            }
            block = {"entrypoint": "app.py", **_at(one.url, request), **refs}
            if one.kind == "environment":
                block["domain"] = one.domain
            found[one.name] = {SERVER_TYPES[one.kind]: {_implementation(shown(one.use)): block}}
        return answer(yaml.safe_dump(found, sort_keys=False))

    @router.get("/config", openapi_extra=spec(response={"type": "object"}))
    async def show_config(_: Request) -> Response:
        """The configuration as it was written, without secrets."""
        return answer(config)

    return router


def _listed(one: Instance, status: Json, request: Request) -> Json:
    uptime = status.get("uptime_seconds")
    uptime = float(uptime) if isinstance(uptime, (int, float)) else None
    pid = status.get("pid")
    return {
        "name": one.name,
        "process_name": one.name,
        "server_type": SERVER_TYPES[one.kind],
        "config_path": one.name,
        "dir_path": one.folder or (os.getcwd() if one.here else None),
        "entrypoint": "app.py" if one.folder else shown(one.use),
        **_at(one.url, request),
        "url": shown(_reachable(one.url, request)),
        "pid": pid if isinstance(pid, int) else None,
        "status": status["status"],
        "start_time": None if uptime is None else time.time() - uptime,
        "uptime_seconds": uptime,
    }


def _at(url: str, request: Request) -> Json:
    parts = urlsplit(_reachable(url, request))
    return {"host": parts.hostname, "port": parts.port or (443 if parts.scheme == "https" else 80)}


def _reachable(url: str, request: Request) -> str:
    """An address for the caller: that of a service on all interfaces is the one by which the head was reached."""
    parts = urlsplit(url)
    if parts.hostname not in ("0.0.0.0", "::"):
        return url
    given = _HOST.fullmatch(request.headers.get("host", ""))
    return parts._replace(netloc=f"{given[1] if given else '127.0.0.1'}:{parts.port}").geturl()


def _implementation(use: str) -> str:
    """What stands where NeMo Gym has a directory name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", use).strip("_") or "service"


_NEMO_HEAD = f"{HEAD}_server"
_HOST = re.compile(r"([A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?")
