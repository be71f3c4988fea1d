"""OpenEnv servers as environments: `openenv("http://localhost:8000", prompt="Play.")`.

    open    WebSocket /ws, {"type": "reset", "data": the row's fields}     -> the observation, shown to the policy
    call    {"type": "step", "data": the arguments}                       -> observation, reward, done
    verify  the sum of the rewards

The policy acts through a tool `step`, whose parameters are the server's action schema; a server whose actions are calls of
MCP tools shows these tools. With `action`, a function of the policy's text, it is played by steps instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp

from rollforge.envs.base import Limits, Session, Step, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.steps import NO_TOOLS, NOTHING, refused_calls
from rollforge.envs.tasks import Tasks, TaskSource
from rollforge.envs.tools import error_text, result_text
from rollforge.errors import InfraFault, RolloutError, SetupError, UserError, VerifierFault, short
from rollforge.models.dial import shown
from rollforge.records.items import Json, Response, final_text, mapping
from rollforge.records.lossless import dumps, loads
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from rollforge.sandbox.deadline import within

Action = Callable[[str], Any]


def openenv(
    url: str,
    *,
    prompt: str = "Act through the tool `step` until the episode is over.",
    tasks: Tasks | None = None,
    action: Action | None = None,
    reward: Literal["sum", "last"] = "sum",
    wait_seconds: float = 600.0,
) -> OpenEnv:
    """The environment of an OpenEnv server.

    Args:
        prompt: of rows without one; filled from the row.
        tasks: rows, whose fields are given to the server's `reset`; by default as many as `n` says (60), with a `seed`.
        action: the action (a JSON object) that a text of the policy means; a ValueError of it is told to the policy.
        reward: of the episode: the sum of the steps' rewards, or the last.
        wait_seconds: how long a session waits for a place where the server takes no more (most take one).
    """
    return OpenEnv(
        url, TaskSource("openenv", _seeds if tasks is None else tasks, prompt=prompt), action, reward, wait_seconds
    )


class OpenEnv:
    """An environment made by `openenv`. Keeps the deadlines of its calls itself."""

    def __init__(self, url: str, tasks: TaskSource, action: Action | None, reward: str, wait_seconds: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"{url!r}: the address of an OpenEnv server begins with http:// or https://")
        self._url = url.rstrip("/")
        self.name = shown(self._url)
        self.limits = Limits()
        self._tasks = tasks
        self._action = action
        self._reward = reward
        self._wait = wait_seconds

    def __repr__(self) -> str:
        return f"OpenEnv({self.name!r})"

    @property
    def stepwise(self) -> bool:
        return self._action is not None

    def tasks(self, source: str | Path | None = None, **options: Any) -> Iterator[Task | BadLine]:
        return self._tasks.read(source, **options)

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        """Raises `SetupError` if it is no OpenEnv server, `InfraFault` if it cannot be reached or stays full."""
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
            link = _Link(self._url, self.name, http, self.limits)
            stack.push_async_callback(link.close)
            schema = {} if self._action else await link.schema()
            first = await self._reset(link, task)
            if self._action is not None:
                yield PlayedSession(link, first, self._reward, self._action)
            else:
                yield CalledSession(link, first, self._reward, schema, await link.tools() if _takes_calls(schema) else None)

    async def _reset(self, link: _Link, task: Task) -> Json:
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self._wait, 0.1
        while True:
            await link.connect()
            try:
                return await link.ask("reset", task.fields)
            except _Full as full:
                if loop.time() + pause > until:
                    raise InfraFault(f"{self.name} took no session within {self._wait:g} s: {full}") from full
                await link.close()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)


class _Episode:
    """What both kinds of sessions have: rewards, the end, the verdict."""

    def __init__(self, link: _Link, first: Json, reward: str) -> None:
        self._link = link
        self._how = reward
        self._rewards: list[float] = []
        self._over = bool(first.get("done"))
        self.observation: str | None = _seen(first)
        self.tools: Sequence[Tool] = ()

    async def _take(self, action: Any) -> Json:
        found = await self._link.ask("step", action)
        self._rewards.append(verdict(found.get("reward") or 0.0).reward)
        self._over = bool(found.get("done"))
        return found

    async def verify(self, response: Response, /) -> Verdict:
        last = self._rewards[-1] if self._rewards else 0.0
        total = sum(self._rewards) if self._how == "sum" else last
        return verdict({"reward": total, "steps": len(self._rewards), "terminated": self._over})


class CalledSession(_Episode):
    """The policy acts by tool calls."""

    def __init__(self, link: _Link, first: Json, reward: str, schema: Json, tools: list[Tool] | None) -> None:
        super().__init__(link, first, reward)
        self._named = tools is not None
        self.tools = [Tool("step", "Take an action.", _parameters(schema))] if tools is None else tools

    async def call(self, call: ToolCall, /) -> ToolOutput:
        names = [tool.name for tool in self.tools]
        if call.name not in names:
            return ToolOutput(error_text(f"unknown tool {call.name!r}; the tools are: {', '.join(names)}"), error=True)
        if self._over:
            return ToolOutput(error_text("the episode is over"), error=True)
        arguments = dict(call.arguments)
        action = {"type": "call_tool", "tool_name": call.name, "arguments": arguments} if self._named else arguments
        try:
            found = await self._take(action)
        except _Refused as refused:
            return ToolOutput(error_text(str(refused)), error=True)
        told = _result(found) if self._named else None
        text = told.text if told else _seen(found) or ""
        over = "The episode is over." if self._over else ""
        return ToolOutput("\n".join(part for part in (text, over) if part) or "done", error=bool(told and told.error))


class PlayedSession(_Episode):
    """The policy acts by what it says."""

    def __init__(self, link: _Link, first: Json, reward: str, action: Action) -> None:
        super().__init__(link, first, reward)
        self._action = action

    async def call(self, call: ToolCall, /) -> ToolOutput:
        return NO_TOOLS

    async def step(self, response: Response, /) -> Step:
        if self._over:
            return Step(terminated=True)
        if refused := refused_calls(response):
            return refused
        try:
            action = self._action(final_text(response))
        except ValueError as error:
            return Step(error_text(short(error)))
        try:
            found = await self._take(action)
        except _Refused as refused:
            return Step(error_text(str(refused)))
        return Step(_seen(found) or (None if self._over else NOTHING), self._rewards[-1], terminated=self._over)


class _Link:
    """One WebSocket: a session of the server."""

    def __init__(self, url: str, name: str, http: aiohttp.ClientSession, limits: Limits) -> None:
        self._url = url
        self._name = name
        self._http = http
        self._limits = limits
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._turn = asyncio.Lock()

    async def connect(self) -> None:
        try:
            opening = self._http.ws_connect(f"{self._url}/ws", max_msg_size=_LARGEST)
            self._socket = await within(self._limits.tool, f"connecting to {self._name}", opening)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (403, 404, 405, 426):
                raise SetupError(f"{self._name} is no OpenEnv server: /ws answered {error.status}") from error
            raise InfraFault(f"{self._name}: /ws answered {error.status}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _lost(error, self._name) from error

    async def schema(self) -> Json:
        """Of its actions."""

        async def read() -> Any:
            async with self._http.get(f"{self._url}/schema") as found:
                return loads(await found.read()) if found.status == 200 else None

        try:
            page = await within(self._limits.tool, f"{self._name}/schema", read())
        except (aiohttp.ClientError, OSError) as error:
            raise _lost(error, self._name) from error
        except ValueError:
            page = None
        found = page.get("action") if isinstance(page, dict) else None
        if not isinstance(found, dict):
            raise SetupError(f"{self._name} is no OpenEnv server: it tells no schema of its actions at /schema")
        return found

    async def tools(self) -> list[Tool]:
        answer = await self.ask("mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
        rows = (answer.get("result") or {}).get("tools")
        if not isinstance(rows, list):
            raise SetupError(f"{self._name} tells no tools: {answer!r:.300}")
        schemas = [row.get("input_schema") or row.get("inputSchema") or {"type": "object", "properties": {}} for row in rows]
        pairs = zip(rows, schemas, strict=True)
        return [Tool(str(row["name"]), str(row.get("description") or ""), schema) for row, schema in pairs]

    async def ask(self, kind: str, data: Any) -> Json:
        """What it answers, one request at a time. Raises `_Refused` for what the policy can mend, `_Full`, `InfraFault`."""
        assert self._socket is not None
        async with self._turn:
            try:
                await self._socket.send_str(dumps({"type": kind, "data": data}).decode())
                message = await within(self._limits.tool, f"{kind} of {self._name}", self._socket.receive())
            except (aiohttp.ClientError, OSError) as error:
                raise _lost(error, self._name) from error
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise InfraFault(f"{self._name} broke off in {kind} ({message.type.name.lower()} {message.extra or ''})".strip())
        try:
            answer = loads(message.data)
            told, found = answer["type"], answer["data"]
        except (ValueError, TypeError, KeyError) as error:
            raise VerifierFault(f"{self._name} does not speak OpenEnv: {message.data!r:.300}") from error
        if told == "error":
            raise _refusal(kind, found, self._name)
        if not isinstance(found, dict):
            raise VerifierFault(f"{self._name} answered {kind} with {type(found).__name__}, not an object")
        return found

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None and not socket.closed:
            with suppress(aiohttp.ClientError, OSError):  # it may have left already
                await socket.send_str('{"type": "close"}')
                await asyncio.wait({waiting := asyncio.ensure_future(socket.receive())}, timeout=_CLOSE_SECONDS)
                waiting.cancel()
            await socket.close()


class _Refused(RolloutError):
    """The server did not take the action."""


class _Full(RolloutError):
    """The server takes no more sessions."""


def _refusal(kind: str, data: Any, name: str) -> RolloutError:
    data = mapping(data)
    code, message = data.get("code"), str(data.get("message") or data)
    if code == "CAPACITY_REACHED":
        return _Full(message)
    errors = data.get("errors")
    if isinstance(errors, list):
        told = [f"{'.'.join(map(str, e.get('loc') or ()))}: {e.get('msg')}" for e in errors if isinstance(e, dict)]
        message = "; ".join(told) or message
    if kind == "step" and code in ("VALIDATION_ERROR", "EXECUTION_ERROR"):
        return _Refused(message)
    return VerifierFault(f"{name} refused {kind}: {message} ({code})")


def _takes_calls(schema: Json) -> bool:
    properties = schema.get("properties")
    return isinstance(properties, dict) and {"tool_name", "arguments"} <= properties.keys()


def _parameters(schema: Json) -> Json:
    """The action's schema as a tool's: without the field that all actions have and no policy needs."""
    properties = {name: value for name, value in (schema.get("properties") or {}).items() if name != "metadata"}
    kept: Json = {key: schema[key] for key in ("required", "$defs", "additionalProperties") if key in schema}
    return {"type": "object", "properties": properties, **kept}


def _seen(answer: Json) -> str | None:
    """An observation as the policy reads it: its one text, or JSON without what is empty."""
    seen = answer.get("observation")
    if isinstance(seen, dict):
        seen = {key: value for key, value in seen.items() if value is not None and key != "metadata"}
        seen = next(iter(seen.values())) if len(seen) == 1 else seen
    return result_text(seen) if seen not in (None, {}, "") else None


def _result(answer: Json) -> ToolOutput:
    """Of a call of an MCP tool."""
    seen = mapping(answer.get("observation"))
    if seen.get("error"):
        error = seen["error"]
        return ToolOutput(error_text(str(error.get("message") if isinstance(error, dict) else error)), error=True)
    result = seen.get("result")
    if isinstance(result, dict) and isinstance(result.get("content"), list):
        texts = [part["text"] for part in result["content"] if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return ToolOutput(result_text("\n".join(texts)), error=bool(result.get("is_error") or result.get("isError")))
    return ToolOutput(result_text(result))


def _lost(error: Exception, name: str) -> InfraFault:
    what = "cannot connect to" if isinstance(error, aiohttp.ClientConnectorError) else "lost the connection to"
    return InfraFault(f"{what} {name} ({short(error)})")


def _seeds(n: int = 60) -> Iterator[Json]:
    for seed in range(n):
        yield {"seed": seed}


_CLOSE_SECONDS = 2.0
_LARGEST = 100 * 2**20
"""Bytes of a message, as OpenEnv's own client takes."""
