"""Addresses of servers, and the way there: proxies, names, the first address that answers, TLS.

    target --origin--> connect --> name (cached) --> addresses, a quarter of a second apart --> proxy? --> TLS?

What is wrong at which step shows in the kind of `Broken`.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import ssl
from asyncio.staggered import staggered_race
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from rollforge.errors import UserError
from rollforge.models.broken import Late, NoConnection, NoName, NoTls

P = TypeVar("P", bound=asyncio.Protocol)
NAME_SECONDS = 300.0
"""How long the addresses of a name are used."""


class Origin(NamedTuple):
    """A server: requests of one origin share connections."""

    scheme: str
    """http or https."""
    host: str
    port: int = 0
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, and what of it is the same every time."""

    url: URL = field(repr=False)
    shown: str
    """For messages."""
    origin: Origin = field(repr=False)
    line: bytes
    """The request line after its method."""
    host: bytes
    auth: bytes = field(repr=False)
    """Header lines, from user and password in the URLs of server and proxy."""


def targets(bases: Sequence[str], path: str) -> tuple[Target, ...]:
    """Raises `UserError` for what no request can be sent to."""
    return tuple(target(url := URL(base + path), proxy_of(url)) for base in bases)


def target(url: URL, proxy: str | None = None) -> Target:
    name, port, path = url.raw_host or "", url.port or 0, url.raw_path_qs
    host = (f"[{name}]" if ":" in name else name) + ("" if url.is_default_port() else f":{port}")
    seen = shown(str(url))
    if not _PATH.fullmatch(path):
        raise UserError(f"{seen!r:.200} is nothing that an HTTP request can ask for")
    if proxy and not proxy.startswith("http://"):
        raise UserError(f"the proxy for {host} is {shown(proxy)}: only http://HOST:PORT is supported")
    auth = _basic("Authorization", url)
    if proxy and url.scheme == "http":
        path = f"http://{host}{path}"
        auth |= _basic("Proxy-Authorization", URL(proxy))
    origin = Origin(url.scheme, name.rstrip("."), port, proxy)
    return Target(url, seen, origin, f" {path} HTTP/1.1\r\n".encode(), f"Host: {host}\r\n".encode(), header_lines(auth))


def proxy_of(url: URL) -> str | None:
    """The proxy of the usual variables; never one for this machine."""
    host = url.host or ""
    if host == "localhost" or host == "::1" or host.startswith("127.") or host == "0.0.0.0":
        return None
    return None if proxy_bypass(f"{host}:{url.port}") else getproxies().get(url.scheme)


def shown(url: str) -> str:
    """A URL for messages: without user, password and query, where keys have been seen."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])


def header_lines(headers: Mapping[str, str]) -> bytes:
    """As they are sent. Raises `UserError` for what would be more than a header, or contradict those of the client."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _OWN:
            raise UserError(f"{name!r:.100} is no header that can be set")
        if _BREAK.search(value):
            raise UserError(f"the header {name} has a line break or another character that no header may have")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("utf-8", "surrogateescape")


class Dialer:
    """Makes connections, each within `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._names: dict[tuple[str, int], tuple[float, asyncio.Task[list[Any]]]] = {}

    async def connect(self, origin: Origin, protocol: Callable[[], P]) -> P:
        """A protocol with its transport. Raises `NoConnection`, or what is more exactly wrong."""
        raise_file_limit()
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await self._connect(origin, protocol)
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise NoTls(str(error)) from None
        except socket.gaierror as error:
            unknown = NoName(error.strerror or str(error))
            # The name is unknown, and not only its server out of reach.
            unknown.lasting = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
            raise unknown from None
        except OSError as error:
            if limit.expired():
                raise Late(f"{self._seconds:g} s") from None
            raise NoConnection(str(error)) from None

    async def _connect(self, origin: Origin, protocol: Callable[[], P]) -> P:
        via = URL(origin.proxy) if origin.proxy else None
        sock = await self._socket(origin if via is None else Origin("http", via.raw_host or "", via.port or 80))
        try:
            if via is not None and origin.scheme == "https":
                await _tunnel(sock, origin, via)
        except BaseException:
            sock.close()
            raise
        tls: Any = {"ssl": self._tls, "server_hostname": origin.host} if origin.scheme == "https" else {}
        made: P
        _, made = await asyncio.get_running_loop().create_connection(protocol, sock=sock, **tls)
        return made

    async def _socket(self, origin: Origin) -> socket.socket:
        """Connected, to the first address that answers."""
        found = await self._addresses(origin)
        try:
            if len(found) == 1:
                return await _reach(found[0])
            sock: socket.socket | None
            sock, _, errors = await staggered_race([partial(_reach, one) for one in found], _APART)
            if sock is None:
                raise next(filter(None, errors), OSError("it has no address"))
            return sock
        except OSError:
            self._names.pop((origin.host, origin.port), None)  # it may have moved
            raise

    async def _addresses(self, origin: Origin) -> list[Any]:
        """As `getaddrinfo` has them, both families in turn."""
        host, port = origin.host, origin.port
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # a name, which needs a thread
                socket.inet_pton(family, host)
                return [(family, socket.SOCK_STREAM, 0, "", (host, port))]
        loop = asyncio.get_running_loop()
        until, task = self._names.get((host, port), (0.0, None))
        if task is None or loop.time() > until:
            task = asyncio.ensure_future(_resolved(host, port))
            self._names[host, port] = loop.time() + NAME_SECONDS, task
            # Nobody may be left to be told of a failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(task)
        except OSError:
            self._names.pop((host, port), None)
            raise

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context


def raise_file_limit() -> None:
    """As many open files as the system lets us: 10,000 calls at once are 10,000 sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems say there is no hard limit and refuse such a soft one: then the old limit holds.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _resolved(host: str, port: int) -> list[Any]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first, others = [[one for one in found if (one[0] == found[0][0]) is same] for same in (True, False)]
    pairs = [one for pair in zip(first, others, strict=False) for one in pair]
    return pairs + first[len(others) :] + others[len(first) :]


async def _reach(address: Any) -> socket.socket:
    family, kind, proto, _, where = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _tunnel(sock: socket.socket, origin: Origin, proxy: URL) -> None:
    """Through a proxy, to the server itself. Raises `NoConnection` if the proxy does not want to."""
    loop = asyncio.get_running_loop()
    to = f"{f'[{origin.host}]' if ':' in origin.host else origin.host}:{origin.port}"
    head = header_lines({"Host": to, **_basic("Proxy-Authorization", proxy)})
    await loop.sock_sendall(sock, f"CONNECT {to} HTTP/1.1\r\n".encode() + head + b"\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _TUNNEL_HEAD:
        data = await loop.sock_recv(sock, _TUNNEL_HEAD)
        if not data:
            break
        answer += data
    # A server that speaks TLS waits to be spoken to: nothing may follow.
    if not answer.endswith(b"\r\n\r\n") or not re.match(rb"HTTP/1\.[01] 2\d\d\b", answer):
        said = answer.split(b"\r\n")[0].decode("latin-1") or "nothing"
        raise NoConnection(f"the proxy {proxy.host}:{proxy.port} answered {said!r:.200}")


def _basic(header: str, url: URL) -> dict[str, str]:
    if not url.user and not url.password:
        return {}
    return {header: "Basic " + b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()}


_PATH = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAK = re.compile("[\r\n\0\ud800-\udc7f\udd00-\udfff]")
_OWN = ("connection", "content-length", "expect", "transfer-encoding")
"""Headers that say where a request ends, and what becomes of its connection."""
_APART = 0.25
"""Seconds that an address has before the next is tried beside it (RFC 8305, "Happy Eyeballs")."""
_TUNNEL_HEAD = 16 * 2**10
