"""A configuration of NeMo Gym as running services and as agents that can be asked: all in one process.

    models           backends of this package; a folder's own code where the implementation is not one of them
    resources        the folder's code, if it is here; else the environment of the same meaning that is built in
    agents           simple_agent and gymnasium_agent are the tool loop, without a hop; others are the folder's code

Sockets come first, so that everything knows where everything is before anything is made.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from socket import socket
from typing import Any

from fastapi import FastAPI

from rollforge.agents.remote import RemoteRun
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.closing import close
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Env
from rollforge.envs.load import load_env
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import UserError
from rollforge.models.base import Model, ModelOptions
from rollforge.models.load import load_model
from rollforge.models.service import Service as Connections
from rollforge.nemo.builtin import AGENTS as OWN_AGENTS
from rollforge.nemo.builtin import ENVIRONMENTS
from rollforge.nemo.builtin import MODELS as OWN_MODELS
from rollforge.nemo.collect import Agent
from rollforge.nemo.config import AGENTS, MODELS, RESOURCES, GymConfig, Server
from rollforge.nemo.models import ignored, model_of, true
from rollforge.nemo.secrets import shown
from rollforge.nemo.servers import Servers, load_server
from rollforge.nemo.upstairs import metrics_at
from rollforge.serve.agent_app import agent_app
from rollforge.serve.env_app import env_app
from rollforge.serve.head import Instance, head_app
from rollforge.serve.model_app import model_app
from rollforge.serve.run import Service, listen, start, url_of
from rollforge.serve.settings import Settings

log = logging.getLogger(__name__)

MAX_STEPS = {"simple_agent": 100, "gymnasium_agent": 10}
"""Model calls of one rollout where the block has no `max_steps`: theirs are unbounded and 10."""
KINDS = {MODELS: "model", RESOURCES: "environment", AGENTS: "agent"}


@dataclass(frozen=True, slots=True)
class Gym:
    services: list[Service]
    instances: list[Instance]
    agents: dict[str, Agent]
    warnings: list[str]
    config: GymConfig

    def head(self, settings: Settings) -> Service:
        """The head server's service. Raises `UserError` if its address cannot be had."""
        host, port = self.config.head
        listening = listen(host, port)
        app = head_app(self.instances, shown(self.config.values), settings, url_of(listening))
        return Service("head_server", "head", app, listening)


@asynccontextmanager
async def built(config: GymConfig, settings: Settings) -> AsyncIterator[Gym]:
    """Everything of a configuration, made; closed at the end. Raises `UserError` for what cannot be made."""
    if not config.servers:
        raise UserError(
            'no server is configured: "+config_paths=[resources_servers/NAME/configs/NAME.yaml,'
            'responses_api_models/openai_model/configs/openai_model.yaml]"'
        )
    made = _Made(config, settings)
    try:
        made.listen()
        for server in config.servers:
            made.add(server)
        yield made.gym
    finally:
        await made.aclose()


@asynccontextmanager
async def started(config: GymConfig, settings: Settings) -> AsyncIterator[Gym]:
    """The same, answering: in a process that does something else, and keeps its signals."""
    async with built(config, settings) as gym:
        stops = [await start(service, settings) for service in gym.services]
        try:
            yield gym
        finally:
            async with asyncio.TaskGroup() as group:
                for stop in stops:
                    group.create_task(stop())


@dataclass
class _Made:
    config: GymConfig
    settings: Settings
    sockets: dict[str, socket] = field(default_factory=dict)
    apps: dict[str, FastAPI] = field(default_factory=dict)
    envs: dict[str, Env] = field(default_factory=dict)
    models: dict[str, tuple[Model, str]] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    """The names of those that are, or are being made."""
    to_close: list[Any] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    foreign: Servers = field(default_factory=Servers)

    def listen(self) -> None:
        values = dict(self.config.values)
        default = str(values.get("default_host") or "127.0.0.1")
        for server in self.config.servers:
            host, port = str(server.block.get("host") or default), int(server.block.get("port") or 0)
            self.sockets[server.name] = listen(host, port)
            at = {"host": host, "port": self.sockets[server.name].getsockname()[1]}
            values[server.name] = {server.type: {server.implementation: {**server.block, **at}}}
        self.foreign = Servers(values)

    def add(self, server: Server) -> None:
        """Make it, and before it what it refers to."""
        if server.name in self.made:
            return
        self.made.add(server.name)
        {MODELS: self._model, RESOURCES: self._resources, AGENTS: self._agent}[server.type](server)

    @property
    def gym(self) -> Gym:
        servers = self.config.servers
        services = [
            Service(server.name, KINDS[server.type], self.apps[server.name], self.sockets[server.name]) for server in servers
        ]
        instances = [
            # As the configuration has it, not by what stands for it here: callers go by NeMo Gym's names.
            Instance(
                server.name,
                KINDS[server.type],
                server.implementation,
                self._url(server.name),
                _references(server),
                folder=str(server.directory) if server.directory else None,
                domain=str(server.block.get("domain") or "other"),
            )
            for server in servers
        ]
        return Gym(services, instances, self.agents, [*self.config.warnings, *self.warnings], self.config)

    async def aclose(self) -> None:
        for listening in self.sockets.values():
            listening.close()
        for thing in self.to_close:
            await close(thing, log.warning)

    def _model(self, server: Server) -> None:
        name = server.name
        if server.implementation not in OWN_MODELS and _has_code(server):
            self._load(server)
            model, use = (
                load_model(self._url(name), ModelOptions(api_key_env=self.settings.token_env)),
                server.implementation,
            )
        else:
            environments = [self._env_name(one) for one in self.config.of_type(RESOURCES).values() if not _has_code(one)]
            # A scripted model follows the reference policy of its environment, where there is only one.
            solve = getattr(load_env(environments[0]), "solve", None) if len(environments) == 1 else None
            model, use = model_of(server, ModelOptions(solve=solve))
            self.apps[name] = self.foreign.applications[name] = model_app(model, name, self._settings(server))
            self.warnings += [f"{name}: {key} has no effect here" for key in ignored(server)]
        self.models[name] = model, use
        self.to_close.append(model)

    def _resources(self, server: Server) -> None:
        name = server.name
        if _has_code(server):
            self._load(server)
            env: Env = RemoteEnv(self._url(name), token_env=self.settings.token_env)
        else:
            env = load_env(self._env_name(server))
            self.apps[name] = self.foreign.applications[name] = env_app(env, name, self._settings(server))
        self.envs[name] = env
        self.to_close.append(env)

    def _agent(self, server: Server) -> None:
        name = server.name
        if server.implementation not in OWN_AGENTS:
            if not _has_code(server):
                raise UserError(
                    f"{name}: there is no {AGENTS}/{server.implementation}/app.py "
                    f"(looked from here and in NEMO_GYM_EXTRA_ROOTS); built in: {', '.join(OWN_AGENTS)}"
                )
            self._load(server)
            run = RemoteRun(self._url(name), env_name=name, token_env=self.settings.token_env)
            self.to_close.append(run)
            self.agents[name] = Agent(run, self._metrics_at(name))
            return
        resources = self._referred(server, "resources_server", RESOURCES)
        model, model_name = self.models[self._referred(server, "model_server", MODELS).name]
        steps = server.block.get("max_steps") or MAX_STEPS[server.implementation]
        runner = Runner(
            env=self.envs[resources.name],
            env_name=resources.name,
            model=model,
            model_name=model_name,
            agent=ToolLoop(max_turns=int(steps)),
            seed=secrets.randbits(31),
        )
        metrics = self._metrics_at(resources.name) if _has_code(resources) else None
        app = agent_app(runner, name, self._settings(server), metrics=metrics)
        self.apps[name] = self.foreign.applications[name] = app
        self.agents[name] = Agent(runner, metrics)

    def _referred(self, server: Server, key: str, type: str) -> Server:
        target = server.target(key)
        found = self.config.of_type(type).get(target or "")
        if found is None:
            raise UserError(f"{server.name} needs {key}: {{type: {type}, name: ...}}; it has {server.block.get(key)!r}")
        self.add(found)
        return found

    def _env_name(self, server: Server) -> str:
        """The environment of this package that stands for a resources server without code here."""
        if server.implementation == "rollforge":
            if not server.block.get("use"):
                raise UserError(f"{server.name}: `use` is not set: an environment of rollforge, a name or file.py:name")
            return str(server.block["use"])
        found = ENVIRONMENTS.get(server.implementation)
        if found is None:
            raise UserError(
                f"{server.name}: there is no {RESOURCES}/{server.implementation}/app.py (looked from here and in "
                f"NEMO_GYM_EXTRA_ROOTS), and none of that name is built in: {', '.join(sorted(ENVIRONMENTS))}"
            )
        if true(server.block.get("should_use_judge")):
            raise UserError(
                f"{server.name}: should_use_judge is true, and the built-in {found} asks no judge: set it to false, or put "
                f"the server's code into {RESOURCES}/{server.implementation}"
            )
        return found

    def _load(self, server: Server) -> None:
        directory = server.directory
        assert directory is not None
        block = {key: value for key, value in server.block.items() if key not in ("host", "port")}
        at = dict(zip(("host", "port"), self.sockets[server.name].getsockname()[:2], strict=True))
        settings = self._settings(server)
        app = load_server(directory, {**block, **at}, name=server.name, servers=self.foreign, settings=settings)
        self.apps[server.name] = app

    def _metrics_at(self, name: str) -> Any:
        connections = Connections(self._url(name), token_env=self.settings.token_env)
        self.to_close.append(connections)
        return metrics_at(connections)

    def _settings(self, server: Server) -> Settings:
        return self.settings.model_copy(update={"host": self.sockets[server.name].getsockname()[0]})

    def _url(self, name: str) -> str:
        return url_of(self.sockets[name]).replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _has_code(server: Server) -> bool:
    directory = server.directory
    return directory is not None and (directory / str(server.block.get("entrypoint") or "app.py")).is_file()


def _references(server: Server) -> dict[str, tuple[str, str]]:
    kinds = {"resources_server": "environment", "model_server": "model"}
    return {key: (kind, target) for key, kind in kinds.items() if (target := server.target(key))}
