"""The tools of any environment over the Model Context Protocol: streamable HTTP at `/mcp`, or stdio.

    /seed_session row -> the header that joins `/mcp` to that session      /verify as ever
    initialize, without it -> a session of its own: `/mcp?task=3` is the environment's fourth task, `/mcp` its first

The task's prompt and what the session shows come as the server's instructions. An environment that is played by steps has
one tool, `step`; its session stays until it is judged or nobody uses it. Every request is answered with JSON: nothing here
takes the initiative, so there is no stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import IO, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from rollforge import __version__
from rollforge.collect.closing import aclose
from rollforge.envs.base import Env, Tool, ToolCall
from rollforge.errors import RolloutError, SetupError, UserError
from rollforge.records.items import Json, assistant, prompt_text
from rollforge.records.lossless import dumps, loads
from rollforge.records.problem import Problem, bad_request, problem_of
from rollforge.records.task import Task, bare_task
from rollforge.serve.app import answer, body, spec
from rollforge.serve.env_steps import declared, taken
from rollforge.serve.env_wire import CODES, OBJECT, usable
from rollforge.serve.gone import while_connected
from rollforge.serve.sessions import MCP_SESSION, MCP_TOKEN, Seat, Sessions
from rollforge.serve.settings import Settings

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Of the protocol, the newest first."""


def add_mcp(router: APIRouter, sessions: Sessions, env: Env, name: str) -> None:
    """The route `/mcp`."""

    def joined(request: Request) -> Seat | None:
        """The session that was seeded, or that an `initialize` opened. Raises `Problem` for one that is over or not ours."""
        given = request.headers.get(MCP_TOKEN)
        if given is not None:
            return sessions.named(given)
        given = request.headers.get(MCP_SESSION)
        if given is None:
            return usable(sessions, request)
        try:
            return sessions.named(given)
        except Problem as problem:
            raise Problem(404, "not_found_error", f"{MCP_SESSION}: {problem.message}") from problem  # clients begin anew

    @router.post("/mcp", tags=["mcp"], openapi_extra=_POSTED)
    async def message(request: Request) -> Response:
        """One message of the Model Context Protocol (streamable HTTP)."""
        _check_origin(request)
        said = await body(request)
        seat = joined(request)
        headers = {}
        if said.get("method") == "initialize" and seat is None:
            task = await task_at(env, name, request.query_params.get("task", "0"))
            seat = await while_connected(request, sessions.open(task))
            headers[MCP_SESSION] = seat.cookie
        found = await respond(said, seat, name)
        return Response(status_code=202) if found is None else answer(found, headers=headers)

    @router.delete("/mcp", tags=["mcp"], openapi_extra=spec(response=OBJECT, errors=(400, 401, 403, 404)))
    async def leave(request: Request) -> Response:
        """End the session that `initialize` opened."""
        _check_origin(request)
        if MCP_SESSION not in request.headers:
            raise bad_request(f"no {MCP_SESSION}: a session that was seeded is ended by /verify or /close")
        seat = joined(request)
        if seat is not None:
            await sessions.close(seat)
        return answer({})


def mcp_of(name: str, seat: Seat) -> Json:
    """What an agent that speaks the protocol needs to join a session that was seeded; in the shape of NeMo Gym's servers."""
    return {"server_name": name, "url_path": "/mcp", "transport": "http", "headers": {MCP_TOKEN: seat.cookie}}


async def respond(said: Json, seat: Seat | None, name: str) -> Json | None:
    """The answer to one message; None to a notification or an answer. Faults of the environment are errors of the protocol,
    those that the policy can mend are results with `isError`."""
    method, id = said.get("method"), said.get("id")
    if said.get("jsonrpc") != "2.0" or not isinstance(method, str):
        is_answer = "method" not in said and ("result" in said or "error" in said)
        return None if is_answer else _error(id, _INVALID, "not a request of JSON-RPC 2.0")
    if "id" not in said:
        return None
    params = said.get("params") or {}
    if not isinstance(params, dict):
        return _error(id, _PARAMS, f"params is {type(params).__name__}, not an object")
    if method == "ping":
        return _result(id, {})
    if method not in ("initialize", "tools/list", "tools/call"):
        return _error(id, _METHOD, f"there is no method {method[:200]!r}")
    if seat is None:
        return _error(
            id, _INVALID, f"no session: initialize first, and send its {MCP_SESSION} on, or what /seed_session told"
        )
    if method == "initialize":
        return _result(id, _welcome(params.get("protocolVersion"), seat, name))
    if method == "tools/list":
        return _result(id, {"tools": [_shown(tool) for tool in _tools(seat)]})
    try:
        return _result(id, await _called(seat, params))
    except (RolloutError, SetupError) as error:
        problem = problem_of(error)
        assert problem is not None
        return _error(id, _INTERNAL, problem.message, problem.type)
    except Problem as problem:
        if problem.status == 410:
            return _result(id, _content(problem.message, error=True))
        return _error(id, _PARAMS, problem.message, problem.type)


async def task_at(env: Env, name: str, number: str) -> Task:
    """The environment's own task of that number; an empty one if it brings none. Raises `Problem`: no such number."""
    if not number.isascii() or not number.isdigit() or len(number) > 7:
        raise bad_request(f"task={number[:20]!r} is not a number", param="task")
    tasks = getattr(env, "tasks", None)
    if tasks is None:
        return bare_task({})
    good = await asyncio.to_thread(
        lambda: next(islice((t for t in tasks() if isinstance(t, Task)), int(number), None), None)
    )
    if good is None and number == "0":
        return bare_task({})
    if good is None:
        raise bad_request(f"{name} has no task {number}", param="task")
    return good


def own_stdout() -> IO[bytes]:
    """Stdout for the protocol alone: what is printed from now on goes to stderr."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return out


async def serve_stdio(env: Env, name: str, out: IO[bytes], task: int = 0) -> None:
    """Serve one session to the process that started this one, until it closes stdin or a signal comes."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=_LINE)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    sessions = Sessions(env, Settings(session_seconds=_NEVER))
    current = asyncio.current_task()
    assert current is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, current.cancel)
    try:
        async with sessions.running():
            seat = await sessions.open(await task_at(env, name, str(task)))
            await _conversation(lines, out, lambda said: respond(said, seat, name))
    except (Problem, RolloutError) as error:
        raise UserError(str(error)) from error
    except asyncio.CancelledError:
        pass  # the signal; nobody else cancels it
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        transport.close()
        out.close()
        await aclose(env)


async def _conversation(lines: asyncio.StreamReader, out: Any, respond: Callable[[Json], Awaitable[Json | None]]) -> None:
    """Requests are worked on side by side, as they come."""

    async def one(said: Json) -> None:
        found = await respond(said)
        if found is not None:
            out.write(dumps(found) + b"\n")

    async with asyncio.TaskGroup() as group:
        while True:
            try:
                line = await lines.readline()
            except ValueError:  # longer than the limit; the reader has dropped it
                out.write(dumps(_error(None, _PARSE, f"a message may have {_LINE} bytes")) + b"\n")
                continue
            if not line:
                return
            with contextlib.suppress(ValueError, RecursionError):
                said = loads(line)
                if isinstance(said, dict):
                    group.create_task(one(said))
                    continue
            if line.strip():
                out.write(dumps(_error(None, _PARSE, "not a JSON object")) + b"\n")


def _welcome(wanted: Any, seat: Seat, name: str) -> Json:
    shown = "\n\n".join(text for text in (prompt_text(seat.task.params), seat.observation) if text)
    return {
        "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": name, "version": __version__},
        **({"instructions": shown} if shown else {}),
    }


def _tools(seat: Seat) -> list[Tool]:
    if seat.stepwise:
        return [STEP]
    names = declared(seat)
    return [tool for tool in seat.tools if tool.name in names]


def _shown(tool: Tool) -> Json:
    return {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters}


async def _called(seat: Seat, params: Json) -> Json:
    name, arguments = params.get("name"), params.get("arguments") or {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise bad_request("a call has a name, and arguments that are an object", status=422)
    names = [tool.name for tool in _tools(seat)]
    if name not in names:
        return _content(f"there is no tool {name[:200]!r}; the tools are: {', '.join(names) or 'none'}", error=True)
    if seat.stepwise:
        return await _stepped(seat, arguments)
    output = await seat.call(ToolCall(name, arguments))
    return _content(output.text, error=output.error)


async def _stepped(seat: Seat, arguments: Json) -> Json:
    action = arguments.get("action")
    if not isinstance(action, str):
        return _content("action: a text is needed", error=True)
    if seat.ended:
        return _content(_ENDED, error=True)
    step = await taken(seat, {"output": [assistant(action)]})
    # What it was worth is told by /verify: the client's model is no place for a reward.
    return _content("\n\n".join(text for text in (step.observation, _ENDED if seat.ended else "") if text))


def _content(text: str, *, error: bool = False) -> Json:
    return {"content": [{"type": "text", "text": text}], "isError": error}


def _result(id: Any, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def _error(id: Any, code: int, message: str, kind: str | None = None) -> Json:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "error": {"code": code, "message": message, **({"data": {"type": kind}} if kind else {})},
    }


def _check_origin(request: Request) -> None:
    """A page in a browser of this machine is no client, whatever name it has given the address."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).hostname not in ("localhost", "127.0.0.1", "::1"):
        raise Problem(403, "permission_error", f"requests from pages of {origin[:200]} are refused")


STEP = Tool(
    "step",
    "Say your action or answer; the environment tells what comes of it.",
    {"type": "object", "properties": {"action": {"type": "string"}}, "required": ["action"]},
)
MESSAGE: Json = {
    "type": "object",
    "description": "A message of JSON-RPC 2.0.",
    "required": ["jsonrpc", "method"],
    "properties": {"jsonrpc": {"const": "2.0"}, "method": {"type": "string"}, "params": OBJECT},
}
_ENDED = "The episode is over."
_PARSE, _INVALID, _METHOD, _PARAMS, _INTERNAL = -32700, -32600, -32601, -32602, -32603
_LINE = 64 * 2**20
_NEVER = 1e9
_POSTED = spec(MESSAGE, OBJECT, (*CODES, 403, 404))
_POSTED["responses"]["202"] = {"description": "It was no question: there is no answer."}
