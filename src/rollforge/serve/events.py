"""Streaming an answer to a client: deltas of a model -> server-sent events of a dialect.

    model.stream --> first delta (an error until then is an ordinary error answer) --> Encoder --> client
                                                       error after that: an error event of the dialect, then the end
    the client goes away: the model call is cancelled

An encoder is a plain object, one per answer: `start`, `delta` for each, `end` with the whole response, or `error`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from rollforge.errors import InfraFault, describe
from rollforge.models.stream import Delta, Events
from rollforge.records.items import TOKEN_FIELDS, Item, item_type
from rollforge.records.items import Response as Answer
from rollforge.records.lossless import dumps
from rollforge.records.problem import Problem, problem_of
from rollforge.serve.gone import Gone, while_connected
from rollforge.serve.limit import LIMIT, Limit

log = logging.getLogger(__name__)


class Encoder(Protocol):
    def start(self) -> Iterable[bytes]: ...
    def delta(self, delta: Delta, /) -> Iterable[bytes]: ...
    def end(self, response: Answer, /) -> Iterable[bytes]: ...
    def error(self, problem: Problem, request_id: str, /) -> Iterable[bytes]: ...


@dataclass(slots=True)
class Track:
    """What has been sent of one item."""

    kind: str
    """The item's type."""
    index: int
    id: str
    call_id: str = ""
    name: str = ""
    text: str = ""
    closed: bool = False


def kind_of(delta: Delta) -> str:
    return {"text": "message", "reasoning": "reasoning"}.get(delta.kind, "function_call")


def matched(tracks: Mapping[int, Track], output: Sequence[Item]) -> list[tuple[Track | None, Item]]:
    """The items of the whole response in the order that was streamed, each with what was sent of it.

    They differ where a server said things out of order, or text turned out to be reasoning. Token fields stay on the last.
    """
    left = list(enumerate(output))
    places: dict[int, tuple[Track | None, Item]] = {}
    for track in sorted(tracks.values(), key=lambda track: track.index):
        same = [(n, item) for n, item in left if item_type(item) == track.kind and _is(track, item)]
        if same:
            found = min(same, key=lambda pair: abs(pair[0] - track.index))
            left.remove(found)
            places[track.index] = (track, found[1])
    free = (n for n in range(len(output) + len(tracks) + 1) if n not in tracks)
    for _, item in left:
        places[next(free)] = (None, item)
    ordered = [places[n] for n in sorted(places)]
    if [item for _, item in ordered] != list(output):
        tokens = {key: item[key] for _, item in ordered for key in (*TOKEN_FIELDS, "routed_experts") if key in item}
        ordered = [(track, {k: v for k, v in item.items() if k not in tokens}) for track, item in ordered]
        ordered[-1][1].update(tokens)
    return ordered


def _is(track: Track, item: Item) -> bool:
    return track.kind != "function_call" or item.get("call_id") == track.call_id


def rest(sent: str, whole: str) -> str:
    """What is still to be sent; nothing if something else has been."""
    return whole[len(sent) :] if whole.startswith(sent) else ""


def event(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dumps(data) + b"\n\n"


async def streamed(request: Request, events: Events, encoder: Encoder) -> Response:
    """The streaming answer, once there is something to send. Raises what the model raises before that."""
    first = await while_connected(request, anext(events))
    return EventStream(_encoded(first, events, encoder, request.scope["request_id"], request.scope[LIMIT]))


async def _encoded(
    first: Delta | Answer, events: Events, encoder: Encoder, request_id: str, limit: Limit
) -> AsyncGenerator[bytes, None]:
    end = limit.taken_over()
    try:
        async with aclosing(events):
            yield b"".join(encoder.start())
            item: Delta | Answer | None = first
            while isinstance(item, Delta):
                data = b"".join(encoder.delta(item))
                if data:
                    yield data
                item = await _next(events, end, limit)
            if item is None:
                raise InfraFault("the model ended its answer without the whole response")
            yield b"".join(encoder.end(item))
    except Exception as error:
        # The answer is under way: whatever happens must be said in its own form.
        problem = problem_of(error)
        if problem is None:
            log.error("request %s: %s", request_id, describe(error), exc_info=error)
            problem = Problem(500, "server_error", f"this is a bug of the server; its log has it under {request_id}")
        limit.status = problem.status
        yield b"".join(encoder.error(problem, request_id))


async def _next(events: Events, end: float | None, limit: Limit) -> Delta | Answer | None:
    try:
        async with asyncio.timeout_at(end) as deadline:
            return await anext(events, None)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise limit.ran_out() from None


class EventStream(Response):
    """Sends what a generator yields, and closes it when the client has gone."""

    def __init__(self, content: AsyncGenerator[bytes, None]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._content):
            with suppress(Gone):
                await while_connected(Request(scope, receive), self._send(send))

    async def _send(self, send: Send) -> None:
        async for data in self._content:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
