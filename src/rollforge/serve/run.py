"""Running services: sockets, uvicorn, signals, and a shutdown that finishes what is in flight.

One process, one event loop, any number of services, each on a socket of its own. The first SIGINT or SIGTERM refuses new
work and lets what is in flight finish, `drain_seconds` long; the second ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from rollforge.errors import UserError
from rollforge.serve.settings import Settings

BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Service:
    """An application and the socket it listens on."""

    name: str
    kind: str
    """environment, agent, model or head."""
    app: FastAPI
    socket: socket.socket

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UserError` naming the address and why not."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, proto)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    found.setblocking(False)
    return found


def exposed(settings: Settings) -> str | None:
    """A warning, if others than this machine can connect; the stronger one if they need no token."""
    try:
        local = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        local = settings.host == "localhost"
    if local:
        return None
    need = "" if settings.token_env else ", without a token (--token-env NAME asks for one)"
    return f"listening on {settings.host}: other machines can connect{need}"


async def run(services: Sequence[Service], settings: Settings, started: Callable[[], None] = lambda: None) -> str | None:
    """Serve until a signal; its name, or None if the servers ended by themselves. `started` is called when all accept."""
    servers = [_Server(_config(service, settings)) for service in services]
    loop = asyncio.get_running_loop()
    stopped: list[str] = []

    def stop(number: signal.Signals) -> None:
        stopped.append(number.name)
        for service, server in zip(services, servers, strict=True):
            service.app.state.gauges.draining = True
            server.should_exit = True
            server.force_exit = len(stopped) > 1

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        async with asyncio.TaskGroup() as group:
            for service, server in zip(services, servers, strict=True):
                group.create_task(server.serve([service.socket]))
            while not all(server.started or server.should_exit for server in servers):  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # uvicorn tells nobody
            if not stopped:
                started()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return stopped[0] if stopped else None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `run` has them, for all servers at once


def _config(service: Service, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        service.app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_seconds) or 1,
    )
