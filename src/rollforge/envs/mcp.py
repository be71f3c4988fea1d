"""MCP servers as tools of an environment: a program that speaks on stdin and stdout, or a URL (streamable HTTP).

    @mcp_env(McpServer(command=("python", "notes.py")), tasks=[...], state={"notes": "list_notes"})
    def tidy(reply: str, notes: str, expected: str) -> float: ...

Each session has a server of its own, started with it and ended with it, since servers have state; one that has none is
`shared`. `state` names tools that the policy is not shown: they are called when it has finished, and their text is told to
the verifier. Protocol and processes are the package's `mcp` (extra `mcp`).
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from rollforge.envs.base import Limits, Session, Tool, ToolCall, ToolOutput, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.tools import error_text, result_text
from rollforge.errors import InfraFault, SetupError, UserError, VerifierFault, short
from rollforge.records.items import Response
from rollforge.records.task import Task
from rollforge.sandbox.deadline import within


@dataclass(frozen=True, slots=True)
class McpServer:
    """Where a server is and what is taken of it. Raises `UserError` unless it has either a command or a URL."""

    command: Sequence[str] = ()
    """The program and its arguments. It sees PATH, HOME and the like of this process's variables, and `env`."""
    url: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For the URL."""
    cwd: str | Path | None = None
    only: Sequence[str] | None = None
    """The tools that the policy is shown; all if None."""
    prefix: str = ""
    """Before the name of each tool."""
    shared: bool = False
    """One connection for all sessions: for servers that keep nothing."""

    def __post_init__(self) -> None:
        if bool(self.command) == bool(self.url) or isinstance(self.command, str):
            raise UserError('an MCP server has a command, as ("python", "server.py"), or a url')

    def __str__(self) -> str:
        return f"the MCP server {self.url.partition('?')[0] if self.url else ' '.join(self.command)}"


Wanted = McpServer | Callable[[Task], McpServer]


def mcp_env(*servers: Wanted, state: Mapping[str, str] | None = None, **options: Any) -> Callable[[Any], McpEnv]:
    """Make an environment of a verifier function or a class whose tools are those of the servers, and the class's own.

    Args:
        servers: where they are; a function of the task where they differ by task.
        state: parameter of the verifier -> the tool (without arguments) that tells it; not shown to the policy.
        options: as of `@env`.
    """
    return lambda target: McpEnv(target, servers, state or {}, **options)


class McpEnv(PythonEnv):
    """An environment made by `mcp_env`. What tools there are only its sessions know."""

    def __init__(self, target: Any, servers: Sequence[Wanted], state: Mapping[str, str], **options: Any) -> None:
        super().__init__(target, **options)
        if self.stepwise:
            raise UserError(f"{self.name} is played by steps, and has no use for tools: leave `step` out, or the servers")
        del self.tools
        self._servers = tuple(servers)
        self._state = dict(state)
        self._shared: dict[int, _Link] = {}
        self._starting = asyncio.Lock()

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        """Raises `SetupError` for a server that cannot be started or lacks a tool, `InfraFault` for one that breaks off."""
        async with AsyncExitStack() as stack:
            # The session's own copy: what `state` tells is added to it.
            fields = dict(task.fields)
            inner = await stack.enter_async_context(super().open(replace(task, fields=fields)))
            sources = []
            for wanted in self._servers:
                server = wanted if isinstance(wanted, McpServer) else wanted(task)
                link = await self._link(server, id(wanted)) if server.shared else _Link(server)
                if not server.shared:
                    stack.push_async_callback(link.close)
                    await link.start(self.limits.tool)
                sources.append(link)
            yield McpSession(inner, sources, self._state, fields, self.limits)

    async def aclose(self) -> None:
        links, self._shared, self._starting = list(self._shared.values()), {}, asyncio.Lock()  # locks keep to one loop
        for link in links:
            await link.close()
        await super().aclose()

    def digest(self) -> str:
        told = repr((self._state, [one if isinstance(one, McpServer) else one.__qualname__ for one in self._servers]))
        return sha256(f"{super().digest()}{told}".encode()).hexdigest()[:16]

    async def _link(self, server: McpServer, key: int) -> _Link:
        async with self._starting:
            link = self._shared.get(key)
            if link is None or link.broken:
                if link is not None:
                    await link.close()
                link = self._shared[key] = _Link(server)
                await link.start(self.limits.tool)
            return link


class McpSession:
    """The session of the class or function, and the servers' tools beside its own."""

    def __init__(
        self, inner: Session, links: Sequence[_Link], state: Mapping[str, str], fields: dict[str, Any], limits: Limits
    ) -> None:
        self._inner = inner
        self._state = state
        self._fields = fields
        self._limits = limits
        self._served: dict[str, tuple[_Link, str]] = {}
        """Tool by the name that the policy has for it -> who has it, and what it is called there."""
        self._hidden = {tool: link for link in links for tool in link.tools if tool in state.values()}
        shown = list(inner.tools)
        for link in links:
            shown += self._offered(link, {tool.name for tool in shown})
        self.tools: Sequence[Tool] = shown
        self.observation = inner.observation
        for tool in state.values():
            if tool not in self._hidden:
                known = ", ".join(name for link in links for name in link.tools)
                raise SetupError(f"state: no server has the tool {tool!r}; there are: {known or 'none'}")

    async def call(self, call: ToolCall, /) -> ToolOutput:
        served = self._served.get(call.name)
        if served is None:
            return await self._inner.call(call)
        link, name = served
        return await link.call(name, dict(call.arguments), self._limits.tool)

    async def verify(self, response: Response, /) -> Verdict:
        for parameter, tool in self._state.items():
            told = await self._hidden[tool].call(tool, {}, self._limits.tool)
            if told.error:
                raise VerifierFault(f"the state {parameter} cannot be had: {tool}: {told.text:.500}")
            self._fields[parameter] = told.text
        return await self._inner.verify(response)

    def _offered(self, link: _Link, taken: set[str]) -> list[Tool]:
        server, found = link.server, []
        missing = [name for name in server.only or () if name not in link.tools]
        if missing:
            raise SetupError(f"{server} has no tool {missing[0]!r}; it has: {', '.join(link.tools) or 'none'}")
        for name, tool in link.tools.items():
            if name in self._state.values() or (server.only is not None and name not in server.only):
                continue
            # What MCP allows and models do not take.
            called = re.sub(r"[^A-Za-z0-9_-]", "_", server.prefix + name)[:64]
            if called in taken:
                raise SetupError(
                    f"the tool {called!r} of {server} is there already: set a prefix, or leave it out with only"
                )
            taken.add(called)
            self._served[called] = (link, name)
            found.append(replace(tool, name=called))
        return found


class _Link:
    """A connection, in a task of its own: the package's task groups must be left by who entered them, and when a server
    breaks off they cancel whoever did.

    start() --> task: enter, list tools, wait for the end      call() in the caller's task, which also watches that one
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: dict[str, Tool] = {}
        self._client: Any = None
        self._gone = False
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")

    @property
    def broken(self) -> bool:
        return self._gone or self._task is None or self._task.done()

    async def start(self, seconds: float) -> None:
        package = _package()
        connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(package, connected), name=str(self.server))
        try:
            await within(seconds, f"starting {self.server}", connected)
        except BaseException:
            self._task.cancel()
            await self.close()
            raise

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> ToolOutput:
        """What the server says; a refusal is for the policy to read. Raises `InfraFault` if it is gone."""
        assert self._task is not None
        if self.broken:
            raise InfraFault(f"{self.server} has ended{self._last_words()}")
        calling = asyncio.ensure_future(self._client.call_tool(name, arguments))
        try:
            await within(
                seconds, f"the tool {name}", asyncio.wait({calling, self._task}, return_when=asyncio.FIRST_COMPLETED)
            )
            if not calling.done():
                raise InfraFault(f"{self.server} ended while {name} ran{self._last_words()}")
            return _output(calling.result())
        except _package().MCPError as error:
            if error.code == _CLOSED:
                self._gone = True
                raise InfraFault(f"{self.server} broke off in {name}: {short(error)}{self._last_words()}") from error
            return ToolOutput(error_text(str(error)), error=True)
        finally:
            if not calling.done():
                calling.cancel()
                await asyncio.wait({calling})

    async def close(self) -> None:
        """End it; the package gives the process 2 s to go by itself, then kills it with its children."""
        self._leave.set()
        if self._task is not None and not self._task.done():
            _, late = await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
                await asyncio.wait({task})
        self._stderr.close()

    async def _live(self, package: Any, connected: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as stack:
                self._client = await stack.enter_async_context(
                    package.Client(await _transport(self.server, stack, self._stderr))
                )
                self.tools = await self._listed()
                if not connected.done():
                    connected.set_result(None)
                await self._leave.wait()
        except BaseException as error:  # whatever it is, whoever opened it is told
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            if not connected.done():
                kind = SetupError if isinstance(cause, (FileNotFoundError, PermissionError, UserError)) else InfraFault
                connected.set_exception(kind(f"{self.server} cannot be used: {short(cause)}{self._last_words()}"))
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise

    async def _listed(self) -> dict[str, Tool]:
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            for tool in page.tools:
                found[tool.name] = Tool(tool.name, tool.description or "", dict(tool.input_schema))
            cursor = page.next_cursor
            if not cursor:
                break
        return found

    def _last_words(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read()[-_LAST_WORDS:].strip().splitlines()
        return f" (stderr: {lines[-1]})" if lines else ""


async def _transport(server: McpServer, stack: AsyncExitStack, stderr: IO[str]) -> Any:
    if server.url is not None:
        http = import_module("mcp.client.streamable_http")
        httpx = import_module("httpx2")
        client = await stack.enter_async_context(httpx.AsyncClient(headers=dict(server.headers), timeout=None))
        return http.streamable_http_client(server.url, http_client=client)
    stdio = import_module("mcp.client.stdio")
    program, *arguments = server.command
    parameters = stdio.StdioServerParameters(command=program, args=arguments, env=dict(server.env), cwd=server.cwd)
    return stdio.stdio_client(parameters, errlog=stderr)


def _package() -> Any:
    """Raises `UserError` where it is not installed, or too old."""
    try:
        package = import_module("mcp")
    except ModuleNotFoundError as error:
        raise UserError("MCP servers need the package mcp: pip install 'rollforge[mcp]'") from error
    if not hasattr(package, "Client"):
        raise UserError("MCP servers need the package mcp, version 2 or later: pip install -U 'rollforge[mcp]'")
    return package


def _output(result: Any) -> ToolOutput:
    parts = [_text(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [result_text(result.structured_content)]
    return ToolOutput(result_text("\n".join(parts)), error=bool(result.is_error))


def _text(block: Any) -> str:
    """A part of a result as the policy reads it; what is no text is only named."""
    if block.type == "text":
        return str(block.text)
    if block.type == "resource_link":
        return f"{block.name}: {block.uri}"
    inner = getattr(block, "resource", block)
    text = getattr(inner, "text", None)
    return str(text) if text is not None else f"[{block.type}: {getattr(inner, 'mime_type', None) or 'unknown'}]"


_CLOSED = -32000
"""The package's code for a connection that closed."""
_CLOSE_SECONDS = 10.0
_PAGES = 100
_LAST_WORDS = 2000
