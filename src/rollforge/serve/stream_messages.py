"""The events of the Messages API: message_start, one block after the other, message_delta, message_stop.

Blocks are closed before the next one begins, as many clients insist. The input of a tool is sent in one piece when the call
is complete: clients parse it as it comes, and a model may write what is no JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollforge.errors import InfraFault
from rollforge.models.stream import Delta
from rollforge.records.anthropic import blocks_of, stop_of, usage_to_message
from rollforge.records.items import Item, Json, Response
from rollforge.records.lossless import dumps
from rollforge.records.messages import unique
from rollforge.records.problem import Problem
from rollforge.serve.events import Track, event, kind_of, matched, rest


class MessagesEvents:
    """One answer."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._tracks: dict[int, Track] = {}
        self._open: Track | None = None
        self._number = -1
        """Of the block that was begun last."""

    def start(self) -> Iterator[bytes]:
        message: Json = {
            "id": f"msg_{unique()}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_to_message(None),
        }
        yield _event("message_start", message=message)

    def delta(self, delta: Delta) -> Iterator[bytes]:
        track = self._tracks.get(delta.index)
        if delta.kind == "item":
            yield from self._close(delta.item, track, delta.index)
            return
        if track is None:
            if not delta.text and delta.kind != "call":
                return
            yield from self._leave()
            track = self._open = Track(kind_of(delta), delta.index, "", delta.call_id, delta.name)
            self._tracks[delta.index] = track
            yield self._begin(_empty(track))
        if track.closed and delta.text:
            raise InfraFault("the model's server goes back to an earlier item, which the Messages API cannot stream")
        track.text += delta.text
        if track.kind != "function_call" and delta.text:
            yield self._say(track.kind, delta.text)

    def end(self, response: Response) -> Iterator[bytes]:
        for index, (track, item) in enumerate(matched(self._tracks, response.get("output") or [])):
            if track is None or not track.closed:
                yield from self._close(item, track, index)
        yield from self._leave()
        usage = usage_to_message(response.get("usage"))
        yield _event("message_delta", delta=stop_of(response), usage=usage)
        yield _event("message_stop")

    def error(self, problem: Problem, request_id: str) -> Iterator[bytes]:
        yield event(problem.row(request_id), "error")

    def _close(self, item: Item, track: Track | None, index: int) -> Iterator[bytes]:
        """What is still to be said of an item; its first block may be open."""
        blocks = blocks_of(item)
        if track is not None and track.closed:
            return
        if track is not None and blocks:
            yield from self._leave(blocks.pop(0))
        elif track is None:
            yield from self._leave()
            self._tracks[index] = Track(str(item.get("type")), index, "", closed=True)
        for block in blocks:
            yield self._begin(_empty_of(block))
            yield from self._rest(block, "")
            yield _event("content_block_stop", index=self._number)

    def _leave(self, block: Json | None = None) -> Iterator[bytes]:
        """Ends the block that is open. `block`: all of it, where that is known."""
        track, self._open = self._open, None
        if track is None:
            return
        track.closed = True
        if block is None and track.kind == "function_call":
            call = {"type": "function_call", "call_id": track.call_id, "name": track.name, "arguments": track.text}
            block = blocks_of(call)[0]
        if block is not None:
            yield from self._rest(block, track.text)
        yield _event("content_block_stop", index=self._number)

    def _rest(self, block: Json, sent: str) -> Iterator[bytes]:
        match block["type"]:
            case "tool_use" if block["input"]:
                yield self._delta("input_json_delta", partial_json=dumps(block["input"]).decode())
            case "text" if rest(sent, block["text"]):
                yield self._say("message", rest(sent, block["text"]))
            case "thinking":
                if rest(sent, block["thinking"]):
                    yield self._say("reasoning", rest(sent, block["thinking"]))
                if block["signature"]:
                    yield self._delta("signature_delta", signature=block["signature"])

    def _begin(self, block: Json) -> bytes:
        self._number += 1
        return _event("content_block_start", index=self._number, content_block=block)

    def _say(self, kind: str, text: str) -> bytes:
        if kind == "reasoning":
            return self._delta("thinking_delta", thinking=text)
        return self._delta("text_delta", text=text)

    def _delta(self, kind: str, **more: Any) -> bytes:
        return _event("content_block_delta", index=self._number, delta={"type": kind, **more})


def _event(name: str, **more: Any) -> bytes:
    return event({"type": name, **more}, name)


def _empty(track: Track) -> Json:
    if track.kind == "function_call":
        return {"type": "tool_use", "id": track.call_id, "name": track.name, "input": {}}
    if track.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _empty_of(block: Json) -> Json:
    """A block as it begins; what no delta could bring later is in it from the start."""
    empty: dict[str, Json] = {"tool_use": {"input": {}}, "text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
    return {**block, **empty.get(block["type"], {})}
