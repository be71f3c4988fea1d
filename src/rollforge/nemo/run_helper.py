"""The two objects by which a trainer starts a gym and drives it: NeMo RL imports them as `nemo_gym.cli.RunHelper` and
`nemo_gym.rollout_collection.RolloutCollectionHelper`.

    trainer's thread:  RunHelper.start() ... run_examples(rows) --HTTP--> agents' /run ... shutdown()
    a thread of ours:  an event loop with every server of the configuration, and the head server
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvloop

from rollforge.config import merge, read_yaml
from rollforge.errors import InfraFault, RollforgeError, SetupError, UserError, VerifierFault, unknown
from rollforge.models.service import Service
from rollforge.nemo import activate
from rollforge.nemo.arguments import Arguments, parse_arguments
from rollforge.nemo.config import HEAD_PORT, GymConfig, read_config
from rollforge.nemo.gym import started
from rollforge.nemo.live import run_rows
from rollforge.nemo.upstairs import ask
from rollforge.records.items import Json, inside
from rollforge.serve.run import start
from rollforge.serve.settings import Settings

START_SECONDS = 600.0
STOP_SECONDS = 60.0
ROLLOUT_SECONDS = 4 * 3600.0
"""Deadline of one attempt at a row. Agents have shorter ones of their own."""


@dataclass
class GlobalConfigDictParserConfig:
    """What to read: the trainer's own keys, over the file `dotenv_path`, over the files in their `config_paths`."""

    dotenv_path: Path | None = None
    initial_global_config_dict: Any = None
    skip_load_from_cli: bool = False
    skip_load_from_dotenv: bool = False
    hide_secrets: bool = True


class At(Protocol):
    """Where a head server is."""

    host: str
    port: int


@dataclass
class RunHelper:
    """Every server of a configuration, running in a thread of this process between `start` and `shutdown`."""

    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    def start(self, global_config_dict_parser_config: Any) -> None:
        """Returns when all servers answer. Raises `UserError` for what is wrong with the configuration, and what failed."""
        if self._thread is not None:
            raise UserError("this RunHelper was started already")
        config = configured(global_config_dict_parser_config)
        activate(ours=True)
        self._thread = threading.Thread(target=self._run, args=(config,), name="rollforge-gym", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise SetupError(f"the servers were not ready within {START_SECONDS:g} s")
        self.poll()

    def poll(self) -> None:
        """Raises what ended the servers, if they have ended."""
        if self._error is not None:
            raise self._error if isinstance(self._error, RollforgeError) else InfraFault(f"the gym ended: {self._error!r}")
        if self._thread is None or not self._thread.is_alive():
            raise InfraFault("the gym does not run")

    def run_forever(self) -> None:
        """Wait until the servers end."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(1.0)
        if self._error is not None:
            self.poll()

    def shutdown(self) -> None:
        """End the servers; rollouts in flight are finished or cut off. Again does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._stop is not None and thread.is_alive():
            with suppress(RuntimeError):  # they end by themselves at this moment: the loop is closed
                self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(STOP_SECONDS)

    def _run(self, config: GymConfig) -> None:
        try:
            uvloop.run(self._serve(config))
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks next
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self, config: GymConfig) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = Settings(drain_seconds=1)
        async with started(config, settings) as gym:
            head = gym.head(settings)
            end = await start(head, settings)
            at = config.head[0], int(head.socket.getsockname()[1])
            _HEADS.append(at)
            try:
                self._ready.set()
                await self._stop.wait()
            finally:
                _HEADS.remove(at)
                await end()


_HEADS: list[tuple[str, int]] = []
"""Host and port of the heads that run in this process; the last one is meant where none is named."""


class RolloutCollectionHelper:
    """Rows through the agents that a head server knows: the one named, else that of the `RunHelper` started last, else that
    on the usual port."""

    def run_examples(
        self,
        examples: list[Json],
        head_server_config: At | None = None,
        semaphore: AbstractAsyncContextManager[Any] | None = None,
    ) -> Iterator[Awaitable[tuple[Json, Json]]]:
        """As many awaitables as `examples`, each giving the next `(row, result)`; rows are the objects given. Each raises
        `SetupError`, before any row runs, if a row names no agent or one that the head does not know.

        `nemo.live` says what a result is and what becomes of failures. Called with a running event loop.
        """
        agents = _Agents(head_server_config)
        return run_rows(examples, agents.run, semaphore, begin=agents.find, ended=agents.close)

    def setup_server_client(self, head_server_config: At | None = None) -> _Agents:
        return _Agents(head_server_config)


class _Agents:
    """The connections of one batch."""

    def __init__(self, head: At | None) -> None:
        if head is not None:
            self._head = (head.host, int(head.port))
        else:
            self._head = _HEADS[-1] if _HEADS else ("127.0.0.1", HEAD_PORT)
        self._addresses: dict[str, str] = {}
        self._services: dict[str, Service] = {}

    async def find(self, rows: Sequence[Json]) -> None:
        """Where the agents of the rows are. Raises `SetupError` for one that is nowhere, `InfraFault` without a head."""
        found = await ask(*self._head)
        if found is None:
            raise InfraFault(f"there is no head server at {self._head[0]}:{self._head[1]}")
        self._addresses = found.addresses
        for number, row in enumerate(rows, 1):
            if (name := _agent(row)) not in self._addresses:
                where = f"(agent_ref.name of row {number} of the batch)"
                raise SetupError(str(unknown("agent", name, self._addresses, where)))

    async def run(self, row: Json) -> Json:
        name = _agent(row)
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = Service(self._addresses[name])
        answer = await service.call("POST", "/run", row, seconds=ROLLOUT_SECONDS, refuse=False)
        if not answer.ok:
            fault = service.fault(answer)
            # The row itself was refused: so would it be again.
            refused = answer.status in (400, 413, 422) and type(fault) is InfraFault and answer.problem != "infra_fault"
            raise VerifierFault(str(fault)) if refused else fault
        found: Json = answer.json()
        return found

    def close(self) -> None:
        services, self._services = list(self._services.values()), {}
        for service in services:
            task = asyncio.ensure_future(service.aclose())
            _CLOSING.add(task)
            task.add_done_callback(_CLOSING.discard)


def _agent(row: Json) -> str:
    return str(inside(row, "agent_ref", "name") or "")


_CLOSING: set[asyncio.Future[None]] = set()
"""Held until they are done: the loop itself holds no tasks."""


def configured(given: Any) -> GymConfig:
    """The configuration of a `GlobalConfigDictParserConfig`, ours or one that looks like it. Raises `UserError`."""
    initial = plain(given.initial_global_config_dict or {})
    dotenv = getattr(given, "dotenv_path", None)
    if dotenv is not None and Path(dotenv).is_file() and not getattr(given, "skip_load_from_dotenv", False):
        initial = merge(read_yaml(dotenv), initial)
    arguments = Arguments() if given.skip_load_from_cli else parse_arguments(sys.argv[1:])
    return read_config(arguments, initial)


def plain(value: Any) -> Any:
    """OmegaConf's containers, which NeMo RL hands over, as dictionaries and lists; references as they are written."""
    if type(value).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=False)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
