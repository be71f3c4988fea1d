"""A streamed chat completion: its chunks put together again, and the deltas that they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rollforge.errors import InfraFault
from rollforge.models.stream import Delta, broken_off
from rollforge.records.items import Json
from rollforge.records.messages import unique

THINK, END = "<think>", "</think>"


class Chunks:
    """Reads one stream. `completion` is what the server would have answered without streaming."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._message: Json = {"role": "assistant", "content": None}
        self._choice: Json = {"index": 0, "message": self._message}
        self._calls: list[Json] = []
        self._places: dict[int, int] = {}
        self._opened: list[str] = []
        """The items that deltas have begun: reasoning, text, then one per call."""
        self._held = ""
        self._mode = ""
        """What content is: "" before it is known, then reasoning or text."""
        self.completion: Json = {"choices": [self._choice]}

    @property
    def ended(self) -> bool:
        return self._choice.get("finish_reason") is not None

    def add(self, chunk: Any) -> Iterator[Delta]:
        """The deltas of one chunk. Raises `InfraFault` for what is no chunk, and what an error in its place means."""
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise broken_off(chunk["error"] if isinstance(chunk, dict) else chunk, self._source)
        try:
            yield from self._take(chunk)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise InfraFault(f"{self._source} streams what is no chat completion ({error!r}): {chunk!r:.200}") from error

    def _take(self, chunk: Json) -> Iterator[Delta]:
        for key, value in chunk.items():
            if key != "choices" and value is not None:
                self.completion[key] = value
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue
            if isinstance(choice.get("message"), dict):
                # The server did not stream.
                self._choice |= choice
                return
            self._add_choice(choice)
            yield from self._delta(choice.get("delta") or {})

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        for key, value in choice.items():
            if key in ("index", "delta") or value is None:
                continue
            if key == "logprobs" and isinstance(self._choice.get(key), dict):
                self._choice[key]["content"] = (self._choice[key].get("content") or []) + (value.get("content") or [])
            elif key == "token_ids":
                self._choice[key] = self._choice.get(key, []) + value
            else:
                self._choice[key] = value

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Delta]:
        for key, value in delta.items():
            if value is None or key in ("role", "tool_calls"):
                continue
            if key in ("content", "reasoning", "reasoning_content", "refusal") and isinstance(value, str):
                self._message[key] = (self._message.get(key) or "") + value
                if key != "refusal" and value:
                    # Some servers send one thought under both names.
                    if key == "reasoning" and delta.get("reasoning_content"):
                        continue
                    yield from self._content(value) if key == "content" else self._say("reasoning", value)
            else:
                self._message[key] = value
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def _content(self, text: str) -> Iterator[Delta]:
        """Content that begins with <think> is reasoning up to </think> (`records.messages.split_think`)."""
        if (self._mode == "text" or self._opened) and self._mode != "reasoning":
            yield from self._say("text", text)
            return
        self._held += text
        if not self._mode:
            head = self._held.lstrip()
            if THINK.startswith(head[: len(THINK)]) and len(head) < len(THINK):
                return
            self._mode = "reasoning" if head.startswith(THINK) else "text"
            if self._mode == "text":
                yield from self._say("text", self._flushed())
                return
            self._held = head[len(THINK) :]
        thought, closed, rest = self._held.partition(END)
        if closed:
            self._mode, self._held = "text", ""
            yield from self._say("reasoning", thought)
            yield from self._say("text", rest)
            return
        # The end may come in pieces.
        keep = next((n for n in range(len(END) - 1, 0, -1) if self._held.endswith(END[:n])), 0)
        thought = self._held[: len(self._held) - keep]
        self._held = self._held[len(thought) :]
        yield from self._say("reasoning", thought)

    def _flushed(self) -> str:
        held, self._held = self._held, ""
        return held

    def _say(self, kind: Any, text: str) -> Iterator[Delta]:
        if not text:
            return
        if kind not in self._opened:
            # An item goes before those that have begun already: the response has it, a delta would have no place.
            if "text" in self._opened or self._calls:
                return
            self._opened.append(kind)
        yield Delta(kind, text, self._opened.index(kind))

    def _call(self, piece: Mapping[str, Any]) -> Iterator[Delta]:
        place = self._place(piece)
        function = piece.get("function") or {}
        if place == len(self._calls):
            if self._held and not self._mode:
                yield from self._say("text", self._flushed())
            call: Json = {"type": "function", "function": {"name": "", "arguments": ""}}
            self._calls.append(call)
            self._message["tool_calls"] = self._calls
            self._opened.append(f"call {place}")
        call = self._calls[place]
        named = bool(call["function"]["name"])
        call |= {key: value for key, value in piece.items() if key not in ("index", "function") and value}
        call["function"]["name"] += function.get("name") or "" if not named else ""
        arguments = function.get("arguments")
        index = self._opened.index(f"call {place}")
        if not named and call["function"]["name"]:
            # Made here, not with the response: the delta has it already.
            if not call.get("id"):
                call["id"] = f"call_{unique()}"
            yield Delta("call", "", index, call["id"], call["function"]["name"])
        if isinstance(arguments, str) and arguments:
            call["function"]["arguments"] += arguments
            yield Delta("arguments", arguments, index, call.get("id", ""))
        elif arguments:
            call["function"]["arguments"] = arguments

    def _place(self, piece: Mapping[str, Any]) -> int:
        """Which call a piece belongs to. Some servers give every call the index 0, or none."""
        key = piece.get("index")
        key = key if isinstance(key, int) else len(self._calls) - (0 if piece.get("id") else 1)
        found = self._places.get(key, len(self._calls))
        if found < len(self._calls) and piece.get("id") not in (None, "", self._calls[found].get("id")):
            found = len(self._calls)
        self._places[key] = found
        return found
