"""Server-sent events: what a streaming server sends, as the data of one event after another.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

LONGEST = 64 * 2**20
"""Bytes of one event."""


async def event_data(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event, until the stream ends or says [DONE]. Names, ids and comments are left out: all dialects
    repeat the name inside the data. Raises `ValueError` for an event without end."""
    rest: list[bytes] = []
    size = 0
    parts: list[bytes] = []
    async for chunk in chunks:
        # A long line comes in many chunks: joined once, when it has ended.
        if b"\n" not in chunk:
            rest.append(chunk)
            size += len(chunk)
            if size > LONGEST:
                raise ValueError(f"an event of more than {LONGEST >> 20} MiB")
            continue
        *lines, last = b"".join((*rest, chunk)).split(b"\n")
        rest, size = [last], len(last)
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                parts.append(line[5:].removeprefix(b" "))
            elif not line and parts:
                data, parts = b"\n".join(parts), []
                if data == b"[DONE]":
                    return
                yield data
    # Some servers leave out the blank line after the last event.
    line = b"".join(rest).strip()
    parts += [line[5:].removeprefix(b" ")] if line.startswith(b"data:") else []
    if parts and parts != [b"[DONE]"]:
        yield b"\n".join(parts)
