"""The model calls of a program as one rollout.

    call 1   prompt                            -> output 1
    call 2   prompt, output 1, tool outputs    -> output 2          extends call 1
    call 3   prompt, output 1, tool outputs    -> output 3          a retry: extends call 1, beside call 2
    call 4   something else                    -> output 4          a sub-agent, a title, a compacted history

Every call hangs on the call whose history it extends, so they form trees. The rollout is the longest way from a root to a
leaf: its first prompt, then each call's output and whatever the next call added. The others are counted.

Histories come back changed: ids and reasoning dropped, texts trimmed or joined, tool outputs behind each call instead of
behind all, system prompts rewritten (the time of day). Calls are compared by what is left when that is taken away, and what
is known again is sent to the model as it was first said: its own words, token for token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeVar

from rollforge.errors import DeadlineExceeded, InfraFault, PolicyFault, RolloutError, SetupError, UnknownParameter
from rollforge.models.base import Model, Request
from rollforge.models.stream import BROKEN_OFF, Delta, Events, so_far
from rollforge.models.transport import BadRequest
from rollforge.records.items import (
    Item,
    Json,
    Params,
    Response,
    Usage,
    add_usage,
    assistant,
    check_params,
    input_items,
    item_type,
    text_of,
)
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import split_think
from rollforge.records.problem import Problem, bad_request

T = TypeVar("T")

MAX_CALLS = 1000


class InFlight:
    """Work that others began and that is to end together."""

    def __init__(self) -> None:
        self._jobs: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def over(self) -> bool:
        return self._ended.is_set()

    async def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises `InfraFault` if all was ended meanwhile, and what the work raises."""
        if self.over:
            work.close()
            raise InfraFault(_OVER)
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            return await job
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._ended.is_set() and not (caller and caller.cancelling()):
                raise InfraFault(_OVER) from None
            raise

    async def end(self) -> None:
        self._ended.set()
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)


class Capture:
    """A model in front of another one: passes calls on and keeps them."""

    def __init__(
        self,
        model: Model,
        params: Params,
        *,
        max_calls: int = MAX_CALLS,
        stream: Callable[[Request], Events] | None = None,
    ) -> None:
        """`params` are the task's, with the run's sampling: of these, what is no part of a prompt wins over what a program
        asks for, since it is the run that decides how it samples."""
        self._model = model
        self._stream = stream
        self.stream = None if stream is None else self._streamed
        self._task_params = params
        self._over = {key: value for key, value in params.items() if key not in _PROMPT and value is not None}
        self._max_calls = max_calls
        self._begun = 0
        self._calls: list[_Call] = []
        self._streams: list[_Begun] = []
        """Those of which more may come."""
        self._usage: Usage | None = None
        self.in_flight = InFlight()
        self.hopeless = asyncio.Event()
        """A call failed as every other would."""
        self.error: RolloutError | SetupError | None = None
        """How the last call failed; None if it did not."""

    async def __call__(self, request: Request, /) -> Response:
        """Raises what the model raises, and `Problem` for calls beyond the limit and for what is no request."""
        call = self._begin(request)
        try:
            response = await self.in_flight(self._model(call.request))
        except (RolloutError, SetupError) as error:
            self._note(error)
            raise
        return self._end(call, response)

    async def _streamed(self, request: Request, /) -> Events:
        call = self._begin(request)
        assert self._stream is not None
        events: asyncio.Queue[Delta | Response | None] = asyncio.Queue()
        job = asyncio.create_task(self.in_flight(_poured(self._stream(call.request), events)))
        job.add_done_callback(lambda _: events.put_nowait(None))
        self._streams.append(call)
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, Delta):
                    call.told.append(event)
                    yield event
                else:
                    self._streams.remove(call)
                    yield self._end(call, event)
            await job
        except (RolloutError, SetupError) as error:
            self._note(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._break_off(call)
            raise
        finally:
            if call in self._streams:
                self._streams.remove(call)
            job.cancel()
            await asyncio.wait((job,))
            if not job.cancelled():
                job.exception()  # read, so that nobody calls it lost

    def _begin(self, request: Request) -> _Begun:
        wrong = check_params(request.params)
        if wrong:
            raise bad_request(wrong)
        if self._begun >= self._max_calls:
            raise Problem(403, "too_many_calls", f"this rollout has made its {self._max_calls} model calls")
        self._begun += 1
        head, items = _split(input_items(request.params))
        parent, added = _known(list(_keyed(items)), self._calls)
        conversation = [*parent.conversation(), *added] if parent else items
        asked = {key: value for key, value in request.params.items() if key not in _NOT_SENT_ON}
        params: Any = {**asked, **self._over, "input": [*head, *conversation]}
        return _Begun(replace(request, params=params), parent, added if parent else items)

    async def close(self) -> None:
        """End what is under way, and keep what was told of it."""
        await self.in_flight.end()
        for call in [*self._streams]:
            self._break_off(call)

    def late(self, what: str) -> None:
        """The time of a call ran out at the door, where nobody asked the model how it is doing."""
        error = DeadlineExceeded(what)
        error.stage = "model"
        self._note(error)

    def check(self) -> None:
        """Raises how the last call failed: what a program makes of that says nothing about the policy. Its own faults are
        judged like anything that it says."""
        if self.error is not None and not isinstance(self.error, PolicyFault):
            raise self.error

    def _break_off(self, call: _Begun) -> None:
        """The program wanted no more of the answer than this, and goes on from here."""
        if call in self._streams:
            self._streams.remove(call)
            part = so_far(call.told)
            if part["output"]:
                self._end(call, part)

    def _note(self, error: RolloutError | SetupError) -> None:
        if self.in_flight.over:
            return  # that ended it, and nothing else
        if isinstance(error, UnknownParameter) and error.name not in self._over:
            error = BadRequest(str(error))  # the program asked for it, and another run of it may not
        self.error = error
        if isinstance(error, SetupError):
            self.hopeless.set()

    def _end(self, call: _Begun, response: Response) -> Response:
        self.error = None
        self._usage = add_usage(self._usage, response.get("usage"))
        entries = [*(call.parent.entries if call.parent else ()), *_keyed(call.asked), *_keyed(response["output"])]
        rest: Any = {key: value for key, value in response.items() if key != "output"}
        params: Any = call.request.params
        self._calls.append(_Call(call.parent, call.asked, response["output"], rest, params, entries))
        return response

    @property
    def params(self) -> Params:
        """What was asked, as the program put it: its prompt and tools; the task's own if it asked nothing yet."""
        way = self._way()
        if not way:
            return self._task_params
        return way[0].params  # type: ignore[return-value]

    def response(self, reply: str = "") -> Response | None:
        """The conversation behind the prompt; usage is that of all calls. `reply` is what the program itself says in the
        end: it counts if no call of the model ended in a message. None if there was neither."""
        way = self._way()
        output = [item for number, call in enumerate(way) for item in (*(call.asked if number else ()), *call.output)]
        last = way[-1].response if way else {}
        if reply and not any(call.output and item_type(call.output[-1]) == "message" for call in way):
            output.append(assistant(reply, "msg_program"))
        elif not way:
            return None
        return {**last, "output": output, "usage": self._usage}

    @property
    def extra(self) -> Json:
        leaves = set(map(id, self._calls)) - {id(call.parent) for call in self._calls}
        return {"calls": len(self._calls), "branches": max(len(leaves) - 1, 0)}

    def _way(self) -> list[_Call]:
        """The longest one: by calls, then one that was not broken off, then by items, then the latest."""
        if not self._calls:
            return []
        return max(enumerate(self._calls), key=lambda entry: (*entry[1].length, entry[0]))[1].way()


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    request: Request
    """As it goes to the model."""
    parent: _Call | None
    asked: list[Item]
    told: list[Delta] = field(default_factory=list)
    """Of a stream, what the program has been told."""


class _Call:
    __slots__ = ("asked", "depth", "entries", "keys", "ordered", "output", "params", "parent", "response")

    def __init__(
        self,
        parent: _Call | None,
        asked: list[Item],
        output: list[Item],
        response: Response,
        params: Json,
        entries: list[_Keyed],
    ) -> None:
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 1
        self.asked = asked
        """What the program put between the parent's output and this one's; a root's prompt, without its head."""
        self.output = output
        self.response = response
        """Without its output."""
        self.params = params if parent is None else {}
        self.entries = entries
        """Of its whole history and output, as first said."""
        self.keys = [entry[1] for entry in entries]
        self.ordered = [key for key, _ in _ordered(entries)]

    @property
    def length(self) -> tuple[int, bool, int]:
        reason = (self.response.get("incomplete_details") or {}).get("reason")
        return self.depth, reason != BROKEN_OFF, len(self.entries)

    def way(self) -> list[_Call]:
        """From its root to itself."""
        found = [self]
        while (above := found[-1].parent) is not None:
            found.append(above)
        return found[::-1]

    def conversation(self) -> list[Item]:
        return [item for call in self.way() for item in (*call.asked, *call.output)]


_OVER = "the rollout is over"
_PROMPT = frozenset(("input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text"))
_NOT_SENT_ON = frozenset(("model", "stream", "stream_options", "store", "background"))
"""Of a program's request: the run has its own model, and how the program is answered is not the model's business."""

_Keyed = tuple[int, int, str, list[Item]]
"""Rank within a turn, key, text (of what an assistant said), items."""
_SAID, _CALLED, _RETURNED, _ASKED = range(4)


async def _poured(source: Events, into: asyncio.Queue[Delta | Response | None]) -> None:
    async with aclosing(source):
        async for event in source:
            into.put_nowait(event)


def _known(before: list[_Keyed], calls: Sequence[_Call]) -> tuple[_Call | None, list[Item]]:
    """The longest call whose history and output these items begin with, and what they add to it; None and all of them."""
    keys, ordered = [entry[1] for entry in before], list(_ordered(before))
    order = [key for key, _ in ordered]
    for call in sorted(calls, key=lambda call: len(call.keys), reverse=True):
        if not call.keys:
            break  # nothing to know it by
        if keys[: len(call.keys)] == call.keys:
            known, more = before[: len(call.keys)], [item for entry in before[len(call.keys) :] for item in entry[3]]
        elif order[: len(call.ordered)] == call.ordered:
            more = [item for _, items in ordered[len(call.ordered) :] for item in items]
            known = [entry for entry in before if not any(item is new for item in entry[3] for new in more)]
        else:
            continue
        pairs = zip(_call_ids(known), _call_ids(call.entries), strict=False)
        names = {theirs: ours for theirs, ours in pairs if theirs != ours}
        return call, [_renamed(item, names) for item in more]
    return None, []


def _call_ids(entries: Iterable[_Keyed]) -> list[str]:
    return [str(item.get("call_id")) for rank, _, _, items in entries if rank == _CALLED for item in items]


def _renamed(item: Item, names: Mapping[str, str]) -> Item:
    """Programs may give calls other ids; their outputs then name calls that the model knows by its own."""
    return {**item, "call_id": names[item["call_id"]]} if item.get("call_id") in names else item


def _split(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """The system messages at the head, which may change from call to call, and the rest."""
    for place, item in enumerate(items):
        if item_type(item) != "message" or item.get("role") not in ("system", "developer"):
            return items[:place], items[place:]
    return items, []


def _keyed(items: Iterable[Item]) -> Iterable[_Keyed]:
    for item in items:
        kind = item_type(item)
        if kind == "reasoning":
            continue
        if kind == "function_call":
            yield _CALLED, hash((kind, item.get("name"), _arguments(item.get("arguments")))), "", [item]
        elif kind == "function_call_output":
            yield _RETURNED, hash((kind, _content(item.get("output")))), "", [item]
        elif kind == "message" and item.get("role") == "assistant":
            text = _content(item.get("content"))
            text = ((split_think(text)[1] or "") if "</think>" in text else text).strip()
            if text:
                yield _SAID, hash((kind, text)), text, [item]
        elif kind == "message":
            yield _ASKED, hash((kind, item.get("role"), _content(item.get("content")))), "", [item]
        else:
            rest = {key: value for key, value in item.items() if key not in ("id", "status")}
            yield _SAID, hash((kind, dumps(rest, sort_keys=True))), "", [item]


def _ordered(entries: Iterable[_Keyed]) -> Iterable[tuple[int, list[Item]]]:
    """Keys with every turn in one order: what was said, as one text; the calls; what they returned."""
    for asked, turn in groupby(entries, key=lambda entry: entry[0] == _ASKED):
        if asked:
            yield from ((key, items) for _, key, _, items in turn)
            continue
        parts = sorted(turn, key=lambda entry: entry[0])
        said = [entry for entry in parts if entry[0] == _SAID and entry[2]]
        if said:
            text = "".join("".join(entry[2].split()) for entry in said)
            yield hash(("said", text)), [item for entry in said for item in entry[3]]
        yield from ((key, items) for rank, key, text, items in parts if not text)


def _arguments(value: Any) -> Any:
    try:
        return dumps(loads(value) if isinstance(value, str) else value, sort_keys=True)
    except ValueError:
        return str(value).strip()


def _content(content: Any) -> str:
    """Texts joined, then what is no text."""
    if content is None or isinstance(content, str):
        return (content or "").strip()
    if not isinstance(content, list):
        return dumps(content, sort_keys=True).decode()
    other = [part for part in content if not (isinstance(part, str) or (isinstance(part, dict) and "text" in part))]
    return text_of(content).strip() + (dumps(other, sort_keys=True).decode() if other else "")
