"""The events of the Responses API: created, items with their parts and pieces, completed.

An item is complete when the model says so, else at the end, with the whole response: only then is it known with all its
fields (signatures, log probabilities, token ids). Events: the OpenAI API reference, "Streaming events".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rollforge.models.stream import Delta
from rollforge.records.items import Item, Json, Response
from rollforge.records.messages import unique
from rollforge.records.problem import Problem
from rollforge.records.whole import whole
from rollforge.serve.events import Track, event, kind_of, matched, rest

_PART, _SUMMARY = ("response.content_part", "content_index"), ("response.reasoning_summary_part", "summary_index")
_FORMS = {
    "output_text": (*_PART, "response.output_text", "text"),
    "refusal": (*_PART, "response.refusal", "refusal"),
    "reasoning_text": (*_PART, "response.reasoning_text", "text"),
    "summary_text": (*_SUMMARY, "response.reasoning_summary_text", "text"),
}
"""Type of a part -> its events, what they call its place, the events of its text, and the field of that."""
_STREAMED = {"message": "output_text", "reasoning": "summary_text"}
_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}


class ResponsesEvents:
    """One answer. `params` are the request's, which the response repeats."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self._number = -1
        self._tracks: dict[int, Track] = {}
        self._own: Json = {"id": f"resp_{unique()}", "created_at": time.time()}

    def start(self) -> Iterator[bytes]:
        begun = whole({**self._own, "status": "in_progress", "output": []}, self._params)  # type: ignore[typeddict-item]
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)

    def delta(self, delta: Delta) -> Iterator[bytes]:
        track = self._tracks.get(delta.index)
        if delta.kind == "item":
            yield from self._close(track, delta.index, delta.item)
            return
        if track is None:
            if not delta.text and delta.kind != "call":
                return
            kind = kind_of(delta)
            id = delta.id or f"{_PREFIXES[kind]}_{unique()}"
            track = self._tracks[delta.index] = Track(kind, delta.index, id, delta.call_id, delta.name)
            yield from self._open(track)
        if track.closed or not delta.text:
            return
        track.text += delta.text
        if track.kind == "function_call":
            yield self._piece(track, "response.function_call_arguments.delta", delta=delta.text)
        else:
            yield self._part_delta(track, _STREAMED[track.kind], 0, delta.text)

    def end(self, response: Response) -> Iterator[bytes]:
        output = []
        for index, (track, item) in enumerate(matched(self._tracks, response.get("output") or [])):
            if track is None or not track.closed:
                yield from self._close(track, index, item)
                track = track or self._tracks[index]
            output.append({**item, "id": track.id})
        for track in self._tracks.values():
            if not track.closed:
                # It is no part of the response after all.
                yield self._event("response.output_item.done", output_index=track.index, item=_begun(track, "incomplete"))
        found = whole({**response, **self._own, "output": output}, self._params)  # type: ignore[typeddict-item]
        yield self._event(f"response.{found['status']}", response=found)

    def error(self, problem: Problem, request_id: str) -> Iterator[bytes]:
        said = {"code": problem.type, "message": problem.message}
        failed = whole({**self._own, "status": "failed", "error": said, "output": []}, self._params)  # type: ignore[typeddict-item]
        yield self._event("response.failed", response=failed)
        yield self._event("error", **said, param=None, error=problem.row(request_id)["error"])

    def _open(self, track: Track) -> Iterator[bytes]:
        yield self._event("response.output_item.added", output_index=track.index, item=_begun(track, "in_progress"))
        if track.kind in _STREAMED:
            yield self._part_added(track, _STREAMED[track.kind], 0)

    def _close(self, track: Track | None, index: int, item: Item) -> Iterator[bytes]:
        """What is still to be said of an item, and that it is complete."""
        item = whole({"output": [item]}, {})["output"][0]
        opened = track is not None
        if track is None:
            id = str(item.get("id") or f"item_{unique()}")
            track = self._tracks[index] = Track(str(item.get("type")), index, id)
            empty: dict[str, Json] = {
                "message": {"content": []},
                "reasoning": {"summary": []},
                "function_call": {"arguments": ""},
            }
            begun = {**item, **empty.get(track.kind, {}), "id": id, "status": "in_progress"}
            yield self._event("response.output_item.added", output_index=index, item=begun)
        if track.closed:
            return
        track.closed = True
        if track.kind == "function_call":
            arguments = item.get("arguments") or ""
            more = rest(track.text, arguments)
            if more:
                yield self._piece(track, "response.function_call_arguments.delta", delta=more)
            done = "response.function_call_arguments.done"
            yield self._piece(track, done, arguments=arguments, name=item.get("name"))
        elif track.kind in _STREAMED:
            for place, part in _parts(item):
                streamed = opened and place == 0 and part.get("type") == _STREAMED[track.kind]
                yield from self._part(track, place, part, begun=streamed)
        yield self._event("response.output_item.done", output_index=track.index, item={**item, "id": track.id})

    def _part(self, track: Track, place: int, part: Json, *, begun: bool) -> Iterator[bytes]:
        kind = str(part.get("type"))
        if kind not in _FORMS:
            for name in ("added", "done"):
                yield self._piece(track, f"{_PART[0]}.{name}", content_index=place, part=part)
            return
        names, at, texts, field = _FORMS[kind]
        if not begun:
            yield self._part_added(track, kind, place)
        text = str(part.get(field) or "")
        more = rest(track.text if begun else "", text)
        if more:
            yield self._part_delta(track, kind, place, more)
        told: Json = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
        yield self._piece(track, f"{texts}.done", **{at: place, field: text}, **told)
        yield self._piece(track, f"{names}.done", **{at: place, "part": part})

    def _part_added(self, track: Track, kind: str, place: int) -> bytes:
        names, at, _, field = _FORMS[kind]
        empty = {"type": kind, field: "", **({"annotations": []} if kind == "output_text" else {})}
        return self._piece(track, f"{names}.added", **{at: place, "part": empty})

    def _part_delta(self, track: Track, kind: str, place: int, text: str) -> bytes:
        _, at, texts, _ = _FORMS[kind]
        told: Json = {"logprobs": []} if kind == "output_text" else {}
        return self._piece(track, f"{texts}.delta", **{at: place, "delta": text}, **told)

    def _piece(self, track: Track, name: str, /, **more: Any) -> bytes:
        return self._event(name, item_id=track.id, output_index=track.index, **more)

    def _event(self, name: str, /, **more: Any) -> bytes:
        self._number += 1
        return event({"type": name, "sequence_number": self._number, **more}, name)


def _parts(item: Item) -> Iterator[tuple[int, Json]]:
    for field in ("summary", "content"):
        for place, part in enumerate(item.get(field) or ()):
            if isinstance(part, dict):
                yield place, part


def _begun(track: Track, status: str) -> Item:
    own: Json = {"id": track.id, "type": track.kind, "status": status}
    if track.kind == "message":
        return {**own, "role": "assistant", "content": []}
    if track.kind == "reasoning":
        return {**own, "summary": []}
    return {**own, "call_id": track.call_id, "name": track.name, "arguments": ""}
