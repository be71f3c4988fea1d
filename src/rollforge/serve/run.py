"""Running services: sockets, uvicorn, signals, and a shutdown that finishes what is in flight.

One process, one event loop, any number of services, each on a socket of its own. The first SIGINT or SIGTERM refuses new
work and lets what is in flight finish, `drain_seconds` long; the second ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from rollforge.errors import UserError
from rollforge.serve.protocol import HttpProtocol
from rollforge.serve.settings import Settings

BACKLOG = 4096
Socket = socket.socket


@dataclass(frozen=True, slots=True)
class Service:
    """An application and the socket it listens on."""

    name: str
    kind: str
    """environment, agent, model or head."""
    app: FastAPI
    socket: socket.socket
    inner: Socket | None = None
    """Where other workers of the service pass on what is for this one."""

    @property
    def url(self) -> str:
        return url_of(self.socket)


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UserError` naming the address and why not."""
    found = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, proto)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        if found is not None:
            found.close()
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    found.setblocking(False)
    return found


def exposed(urls: Iterable[str], settings: Settings) -> str | None:
    """A warning, if others than this machine can connect to one of the services; the stronger one if they need no token."""
    hosts = {urlsplit(url).hostname or "" for url in urls}
    seen = sorted(host for host in hosts if not ipaddress.ip_address(host.partition("%")[0]).is_loopback)
    if not seen:
        return None
    need = "" if settings.token_env else ", without a token (--token-env NAME asks for one)"
    return f"listening on {', '.join(seen)}: other machines can connect{need}"


async def run(services: Sequence[Service], settings: Settings, started: Callable[[], None] = lambda: None) -> str | None:
    """Serve until a signal; its name, or None if the servers ended by themselves. `started` is called when all accept.

    Raises `KeyboardInterrupt` after a second signal: what was in flight has been cut off.
    """
    servers = [_Server(_config(service, settings)) for service in services]
    loop = asyncio.get_running_loop()
    stopped: list[str] = []
    drains: list[asyncio.Task[None]] = []

    def stop(number: signal.Signals) -> None:
        stopped.append(number.name)
        for service in services:
            service.app.state.gauges.draining = True
        if len(stopped) == 1:
            drains.append(loop.create_task(drain()))
            return
        # What is cut off now is told to those who asked for it; uvicorn would print a traceback for each.
        logging.getLogger("uvicorn.error").disabled = True
        for server in servers:
            server.should_exit = server.force_exit = True

    async def drain() -> None:
        """The sockets stay open meanwhile: who comes is told, instead of finding nobody."""
        end = loop.time() + settings.drain_seconds
        while any(service.app.state.gauges.number for service in services) and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        async with asyncio.TaskGroup() as group:
            for service, server in zip(services, servers, strict=True):
                group.create_task(server.serve([service.socket, *([service.inner] if service.inner else [])]))
            while not all(server.started or server.should_exit for server in servers):  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # uvicorn tells nobody
            if not stopped:
                started()
    finally:
        for task in drains:
            task.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if len(stopped) > 1:
        raise KeyboardInterrupt
    return stopped[0] if stopped else None


async def start(service: Service, settings: Settings) -> Callable[[], Coroutine[Any, Any, None]]:
    """Serve inside a process that does something else as well and keeps its signals; the function returned ends it."""
    server = _Server(_config(service, settings))
    job = asyncio.create_task(server.serve([service.socket]))
    while not (server.started or job.done()):  # noqa: ASYNC110
        await asyncio.sleep(0.005)

    async def stop() -> None:
        server.should_exit = True  # not force_exit: that would leave out the end of the lifespan
        await job

    return stop


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `run` has them, for all servers at once


def _config(service: Service, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        service.app,
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,  # `run` has waited for what is in flight
    )
