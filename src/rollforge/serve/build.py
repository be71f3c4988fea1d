"""From a configuration to running services: sockets first, then what listens on them.

    places      who listens where: every address is known before anything is made
    built       the objects behind those places that this process serves; what another serves is reached by URL
    serve_here  build, run until a signal, close

In one process an agent holds its environment and its model as objects: no request goes over a socket.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING, Any

from rollforge.agents.load import load_agent
from rollforge.collect.closing import close
from rollforge.collect.config import AgentConfig, Deadlines, EnvConfig, ModelConfig
from rollforge.collect.rollout import Runner
from rollforge.config import validate
from rollforge.envs.base import Env, Limits, Session
from rollforge.envs.load import load_env
from rollforge.errors import UserError, VerifierFault, unknown
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.load import load_model
from rollforge.models.scripted import ANSWER_FIELDS
from rollforge.records.items import Response
from rollforge.records.task import Task
from rollforge.registry import known
from rollforge.serve.config import HEAD, AgentEntry, Kind, Loaded, ServeConfig
from rollforge.serve.run import BACKLOG, Service, listen, run, url_of

if TYPE_CHECKING:
    from rollforge.serve.head import Instance

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A named thing and the socket it listens on."""

    name: str
    kind: Kind
    socket: socket
    url: str


@dataclass(frozen=True, slots=True)
class Share:
    """Which worker of how many this process is."""

    worker: int
    workers: int
    folder: Path
    """For the sockets between workers: only this user can enter it."""
    secret: bytes
    """Signs the session cookies of all workers."""

    def path(self, name: str, worker: int) -> str:
        short = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()  # the path of a socket may have about 100 bytes
        return str(self.folder / f"{short}.{worker}")


def places(config: ServeConfig, only: Collection[str] = ()) -> list[Place]:
    """A socket for each service that is started here: those of `only`, or all that are not elsewhere; and for the head.

    Raises `UserError`: an unknown name, an address that cannot be had.
    """
    entries = {name: (kind, entry) for kind, name, entry in config.entries()}
    for name in only:
        if name not in entries:
            raise unknown("service", name, entries, "(--only)")
        if _elsewhere(entries[name][1]):
            raise UserError(f"{name} has only a url: it is served elsewhere and cannot be served here")
    wanted: list[tuple[str, Kind, str | None, int]] = [
        (name, kind, entry.host, entry.port)
        for name, (kind, entry) in entries.items()
        if (name in only if only else not _elsewhere(entry))
    ]
    if config.head is not None:
        wanted.append((HEAD, "head", config.head.host, config.head.port))
    found: list[Place] = []
    for name, kind, host, port in wanted:
        try:
            listening = listen(host or config.host, port)
            found.append(Place(name, kind, listening, url_of(listening)))
        except UserError as error:
            for place in found:
                place.socket.close()
            raise UserError(f"{name}: {error} (port 0 takes a free one)") from error
    return found


def instances(config: ServeConfig, placed: Sequence[Place]) -> list[Instance]:
    """What the head tells of: the services started with it, and those that have a URL elsewhere."""
    from rollforge.serve.head import Instance

    here = {place.name: place.url for place in placed}
    found = []
    for kind, name, entry in config.entries():
        url = here.get(name) or entry.url
        if url is None:
            continue
        refs = {}
        if isinstance(entry, AgentEntry) and entry.env and entry.model:
            refs = {
                "resources_server": ("environment", entry.env.use if entry.env.use in config.envs else ""),
                "model_server": ("model", entry.model.use if entry.model.use in config.models else ""),
            }
        named = {key: ref for key, ref in refs.items() if ref[1]}
        found.append(Instance(name, kind, entry.use or url, url, named, here=name in here))
    return found


async def serve_here(
    loaded: Loaded,
    here: Sequence[Place],
    placed: Sequence[Place],
    started: Callable[[], None],
    share: Share | None = None,
) -> str | None:
    """Serve `here`, those of all `placed` that are this process's, until a signal; its name.

    Raises `UserError` when something cannot be made, `KeyboardInterrupt` after a second signal.
    """
    async with built(loaded, here, placed, share) as services:
        # What requests are made of are trees without cycles: the default thresholds make the collector walk them.
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)  # seldom, but a service lives long: what refers to itself must go some day
        return await run(services, loaded.config, started)


@asynccontextmanager
async def built(
    loaded: Loaded, here: Sequence[Place], placed: Sequence[Place], share: Share | None = None
) -> AsyncIterator[list[Service]]:
    """The services of `here`. What they are made of is closed at the end, when nothing is in flight any more."""
    config = loaded.config
    objects = _Objects(config, here, placed)
    services = []
    try:
        for place in here:
            app = _app(objects, loaded, place, placed, share)
            inner = None
            if share is not None and share.workers > 1 and place.kind != "head":
                paths = [share.path(place.name, worker) for worker in range(share.workers)]
                from rollforge.serve.forward import Forward

                app.front = Forward(app.front, gauges=app.state.gauges, worker=share.worker, paths=paths)
                inner = _listen_inside(paths[share.worker])
            services.append(Service(place.name, place.kind, app, place.socket, inner))
        yield services
    finally:
        await objects.aclose()


def _app(objects: _Objects, loaded: Loaded, place: Place, placed: Sequence[Place], share: Share | None) -> Any:
    """What a service is made with is imported with it: an environment is ready without what models need."""
    config, name = loaded.config, place.name
    worker = share.worker if share else 0
    if place.kind == "head":
        from rollforge.serve.head import head_app

        return head_app(instances(config, placed), loaded.shown, config, place.url)
    if place.kind == "environment":
        from rollforge.serve.env_app import env_app

        env = objects.env(EnvConfig(use=name), config.envs[name].deadlines)
        return env_app(_LentEnv(env), name, config, secret=share.secret if share else None, worker=worker)
    if place.kind == "model":
        from rollforge.serve.model_app import model_app

        model = objects.model(ModelConfig(use=name), config.models[name].deadlines, None)
        return model_app(_LentModel(model), name, config)
    from rollforge.serve.agent_app import agent_app

    return agent_app(objects.runner(name, config.agents[name]), name, config, worker=worker)


class _Objects:
    """What the services of one process are made of: each named thing once, closed together."""

    def __init__(self, config: ServeConfig, here: Sequence[Place], placed: Sequence[Place]) -> None:
        self._config = config
        own = {place.name for place in here}
        # Another process of this command has them; they take the token that this one does.
        self._beside = {place.name: place.url for place in placed if place.name not in own}
        self._away = {name: entry.url for _, name, entry in config.entries() if entry.url and name not in own}
        self._made: dict[tuple[str, ...], Any] = {}

    def env(self, wanted: EnvConfig, deadlines: Deadlines) -> Env:
        """A named environment, or any that can be referred to; `deadlines` are for one that has no name."""
        name = wanted.use
        entry = self._config.envs.get(name)
        if entry is None:
            key, make, options = ("env", name), lambda: _env(name, self._config), wanted.model_extra
        elif wanted.model_extra:
            raise UserError(f"the options of the environment {name} belong to envs.{name}, not to an agent's env")
        elif name in self._beside:
            token_env = self._config.token_env
            key, make, options = ("env", name), lambda: _remote(self._beside[name], token_env), None
        elif name in self._away:
            key, make, options = ("env", name), lambda: _remote(self._away[name], entry.token_env), None
        else:
            key, make, options = ("env", name), lambda: load_env(str(entry.use)), entry.model_extra
        env: Env = self._once(key, make)
        if hasattr(env, "limits"):
            own = entry.deadlines if entry else deadlines
            env.limits = Limits(own.tool, own.verify)
        if options and hasattr(env, "tasks"):
            env.tasks(**options)  # an option that its generator does not know is told now
        return env

    def model(self, wanted: ModelConfig, deadlines: Deadlines, env: Env | None, env_name: str = "") -> Model:
        """A named model, or any that can be referred to. `env` is whose reference policy a scripted one follows; of one
        behind a URL, which has none, it is that of what `env_name` is made of."""
        name = wanted.use
        entry = self._config.models.get(name)
        config: ModelConfig = entry or wanted
        scripted = config.use.partition(":")[0] == "scripted"
        # A scripted one acts by knowing the task, which no request tells: it cannot be beside.
        beside = self._beside.get(name) if entry and not scripted else None
        own = entry.deadlines if entry else deadlines
        options = ModelOptions(
            base_urls=() if beside or name in self._away else tuple(config.base_url),
            api_key_env=self._config.token_env if beside else config.api_key_env,
            headers=config.headers,
            extra_body=config.extra_body,
            retries=config.retries,
            connect_seconds=own.connect,
            call_seconds=own.call,
            solve=self._solve(env, env_name) if scripted else None,
        )
        use = beside or (self._away.get(name) if entry else None) or config.use
        # Which tasks a scripted one can solve depends on the environment; any other is one object for all.
        follows = str(id(env)) if scripted else ""
        key = ("model", name, follows) if entry else ("model", name, str(id(wanted)))
        model: Model = self._once(key, lambda: _model(use, options, self._config))
        return model

    def runner(self, name: str, entry: AgentEntry) -> Runner:
        assert entry.env is not None
        assert entry.model is not None
        deadlines, named = entry.deadlines, self._config.models.get(entry.model.use)
        env_named = self._config.envs.get(entry.env.use)
        env = self.env(entry.env, deadlines)
        return Runner(
            env=env,
            env_name=entry.env.use if env_named else getattr(env, "name", None) or entry.env.use,
            model=self.model(entry.model, deadlines, env, entry.env.use),
            model_name=(named.use or named.url or "") if named else entry.model.use,
            agent=self._once(("agent", name), lambda: self._agent(name, entry)),
            sampling=entry.sampling,
            seed=secrets.randbits(31) if entry.seed is None else entry.seed,
            send_seed=entry.seed is not None,
            limits=Limits(deadlines.tool, deadlines.verify),
            call_seconds=deadlines.call,
            rollout_seconds=deadlines.rollout,
        )

    def _solve(self, env: Env | None, name: str) -> Callable[[Task], Any] | None:
        """The reference policy; where a row lacks what it needs but has the answer, that is what a scripted model says."""
        entry = self._config.envs.get(name)
        if not hasattr(env, "solve") and entry is not None and entry.use:
            env = self._once(("reference policy of", name), lambda: load_env(str(entry.use)))
        found = getattr(env, "solve", None)
        if found is None:
            return None

        def solve(task: Task) -> Any:
            try:
                return found(task)
            except VerifierFault:
                if any(field in task.fields for field in ANSWER_FIELDS):
                    return None
                raise

        return solve

    def _agent(self, name: str, entry: AgentEntry) -> Any:
        assert entry.model is not None
        agent = validate(AgentConfig, {"use": entry.use, **(entry.model_extra or {})}, f"agents.{name}")
        if agent.remote:
            raise UserError(f"agents.{name}: an agent that is served elsewhere is written `url: {entry.use}`")
        options = agent.options
        if entry.use.startswith("command:"):
            # The program has a key of its own; ours stay here, whatever their variables are called.
            model = self._config.models.get(entry.model.use, entry.model)
            keys = [key for key in (model.api_key_env, self._config.token_env) if key]
            options["hide_env"] = [*options.get("hide_env", []), *keys]
        return load_agent(entry.use, options)

    async def aclose(self) -> None:
        # What calls others goes before them.
        for (kind, name, *_), thing in reversed(self._made.items()):
            await close(thing, log.warning, f"the {kind} {name}")

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class _Lent:
    """What a service has and does not close: agents of the same process may still need it when the service has ended."""

    def __init__(self, owned: Any) -> None:
        self._owned = owned

    def __getattr__(self, name: str) -> Any:
        if name == "aclose":
            raise AttributeError(name)
        return getattr(self._owned, name)


class _LentEnv(_Lent):
    def open(self, task: Task, /) -> AbstractAsyncContextManager[Session]:
        return self._owned.open(task)  # type: ignore[no-any-return]


class _LentModel(_Lent):
    async def __call__(self, request: Request, /) -> Response:
        return await self._owned(request)  # type: ignore[no-any-return]


def _remote(url: str, token_env: str | None) -> Env:
    from rollforge.envs.remote import RemoteEnv

    return RemoteEnv(url, token_env=token_env)


def _env(reference: str, config: ServeConfig) -> Env:
    if _plain(reference) and reference not in known("env"):
        names = {*known("env"), *config.envs} - {reference}
        raise unknown("environment", reference, names, "(list them: rollforge env list)")
    return load_env(reference)


def _model(reference: str, options: ModelOptions, config: ServeConfig) -> Model:
    if _plain(reference) and reference not in known("model"):
        raise unknown("model", reference, {*known("model"), *config.models} - {reference})
    return load_model(reference, options)


def _plain(reference: str) -> bool:
    """Whether it can only be a name: no file, module, or backend with a model's name."""
    return not any(mark in reference for mark in "/:") and not reference.endswith(".py")


def _elsewhere(entry: Any) -> bool:
    """An agent has a `use` always: one with a url and nothing to make it of is elsewhere too."""
    made_of = entry.env if isinstance(entry, AgentEntry) else entry.use
    return entry.url is not None and not made_of


def _listen_inside(path: str) -> socket:
    Path(path).unlink(missing_ok=True)  # of a worker that died
    found = socket(AF_UNIX)
    found.bind(path)
    found.listen(BACKLOG)
    found.setblocking(False)
    return found
