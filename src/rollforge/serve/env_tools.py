"""The tools of an environment as paths: those it declares, documented, and those that only a session knows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from rollforge.envs.base import Tool, ToolCall
from rollforge.errors import UserError
from rollforge.records.lossless import loads
from rollforge.records.problem import TOOL_ERROR, Problem
from rollforge.serve.app import Handler, body, spec
from rollforge.serve.env_wire import CODES, cookie_of, kept, needed, usable
from rollforge.serve.sessions import Sessions

READ_ONLY = frozenset(("health", "ready", "status", "metrics", "docs", "openapi.json", "reverify_mode"))
RESERVED = READ_ONLY.union(
    ("seed_session", "verify", "aggregate_metrics", "get_reward", "reset", "step", "close", "run", "v1", "mcp"),
)
"""Paths that mean something themselves, here or at another service of the same host."""


def add_tools(router: APIRouter, sessions: Sessions, known: Sequence[Tool] | None) -> None:
    """`known`: the tools of the environment; None if only its sessions know them. Added last: it takes every other path."""

    async def call(request: Request, tool: str) -> Response:
        seat = needed(sessions, request)
        with kept(seat):
            output = await seat.call(ToolCall(tool, await body(request)))
        headers = cookie_of(seat) | ({TOOL_ERROR: "1"} if output.error else {})
        kind = "application/json" if _is_json(output.text) else "text/plain"
        return Response(output.text.encode("utf-8", "replace"), 200, headers, kind)

    def calling(tool: str) -> Handler:
        async def run(request: Request) -> Response:
            return await call(request, tool)

        return run

    for tool in known or ():
        if "{" in tool.name:
            continue  # to the router it would be a pattern; `other` knows it too
        _add(router, tool, calling(tool.name))

    @router.post("/{tool:path}", include_in_schema=False)
    async def other(request: Request) -> Response:
        """Tools that only the session knows, and names that are none."""
        wanted = request.path_params["tool"]
        if wanted in READ_ONLY or not wanted:
            raise Problem(405, "method_not_allowed", f"/{wanted} takes no POST", headers={"Allow": "GET"})
        seat = usable(sessions, request)
        names = [tool.name for tool in (seat.tools if seat else known or ())]
        if wanted in names or (wanted and seat is None and known is None):
            return await call(request, wanted)
        listed = ", ".join(names) or "none"
        message = f"there is no tool {wanted[:200]!r}; the tools are: {listed}"
        raise Problem(404, "not_found_error", message, headers=cookie_of(seat) if seat else None)


def check_names(env: str, tools: Collection[Tool]) -> None:
    for tool in tools:
        if tool.name in RESERVED:
            what = f"the environment {env} cannot be served: its tool {tool.name!r} has the name of a path of the service"
            raise UserError(f"{what}; rename it (not free: {', '.join(sorted(RESERVED))})")


def _is_json(text: str) -> bool:
    if not text.startswith(("{", "[")):
        return False
    try:
        loads(text)
    except ValueError:
        return False
    return True


def _add(router: APIRouter, tool: Tool, endpoint: Handler) -> None:
    where = f"#/paths/~1{tool.name}/post/requestBody/content/application~1json/schema"
    extra = spec(_moved(tool.parameters, where), {}, CODES)
    extra["responses"]["200"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    router.add_api_route(
        f"/{tool.name}",
        endpoint,
        methods=["POST"],
        tags=["tools"],
        summary=tool.name,
        description=tool.description,
        operation_id=f"tool_{tool.name}",
        openapi_extra=extra,
    )


def _moved(schema: Any, where: str) -> Any:
    """A schema that stands inside another document: its references start at `where`."""
    if isinstance(schema, list):
        return [_moved(item, where) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("#", where, 1)
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, where)
        for key, value in schema.items()
    }
